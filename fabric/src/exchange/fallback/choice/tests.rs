//! The choice in all weathers.

use proptest::prelude::*;

use super::super::super::core::time::MS;
use super::*;

/// What is so at a moment: which of the ways work.
#[derive(Debug, Clone, Copy)]
struct Weather {
    first: bool,
    second: bool,
}

/// A peer in some weather; requests and trials end at once.
struct World {
    choice: Choice,
    now: Time,
    weather: Weather,
    trials: Vec<Time>,
    news: Vec<Way>,
}

impl World {
    fn new() -> Self {
        let weather = Weather { first: true, second: true };
        Self { choice: Choice::new(Time(0)), now: Time(0), weather, trials: vec![], news: vec![] }
    }

    fn passes(&mut self, micros: u64) {
        self.now = self.now.after(micros);
    }

    fn ending(&self, way: Way) -> Ending {
        let works = match way {
            Way::First => self.weather.first,
            Way::Second => self.weather.second,
        };
        if works { Ending::Answered } else { Ending::Unreachable }
    }

    /// One request: the ways it took, and whether it was answered.
    fn request(&mut self) -> (Vec<Way>, bool) {
        let mut ask = self.choice.begin(self.now);
        if self.choice.try_first(self.now) {
            self.trials.push(self.now);
            self.choice.tried(self.now, self.ending(Way::First));
        }
        let mut took = vec![];
        loop {
            took.push(ask.way);
            let ending = self.ending(ask.way);
            let goes_on = self.choice.ended(self.now, &mut ask, ending);
            self.news.extend(self.choice.news());
            if !goes_on {
                return (took, ending == Ending::Answered);
            }
        }
    }
}

proptest! {
    /// The oracle is the weather itself: a request is answered exactly if one of the ways works.
    #[test]
    fn a_request_fails_only_if_both_ways_do(
        steps in prop::collection::vec((any::<bool>(), prop::bool::weighted(0.8), 0_u64..20_000), 1..200),
    ) {
        let mut world = World::new();
        let mut outage: Option<Time> = None;
        for (first, second, millis) in steps {
            world.passes(millis * MS);
            world.weather = Weather { first, second };
            let trials = world.trials.len();
            let (took, answered) = world.request();
            prop_assert_eq!(answered, first || second);
            prop_assert!(took.len() <= 2 && took.first() != took.get(1), "{:?}", took);
            prop_assert!(world.trials.len() <= trials + 1);
            // What works on the first way goes there, at the latest when the longest pause is over.
            outage = if first { outage } else { Some(world.now) };
            let well = outage.is_none_or(|at| world.now.since(at) > LONGEST_PAUSE);
            if first && well {
                prop_assert_eq!(world.choice.way(), Way::First);
            }
        }
        for pair in world.news.windows(2) {
            prop_assert_ne!(pair[0], pair[1]);
        }
    }

    #[test]
    fn any_order_of_endings_is_survived(
        steps in prop::collection::vec((0_usize..4, 0_u8..6, 0_u64..3_000), 0..200),
    ) {
        let (mut choice, mut now) = (Choice::new(Time(0)), Time(0));
        let mut asks: Vec<Option<Ask>> = vec![None; 4];
        for (slot, what, millis) in steps {
            now = now.after(millis * MS);
            let mut ask = asks[slot].take().unwrap_or_else(|| choice.begin(now));
            let ending = [Ending::Answered, Ending::Unreachable, Ending::Stalled][usize::from(what % 3)];
            match what {
                0..3 => asks[slot] = choice.ended(now, &mut ask, ending).then_some(ask),
                3 => {
                    choice.given_up(now, &ask);
                }
                4 if choice.try_first(now) => choice.tried(now, ending),
                _ => asks[slot] = Some(ask),
            }
            prop_assert!(choice.pause <= LONGEST_PAUSE);
            if choice.way() == Way::Second {
                prop_assert!(choice.retry <= now.after(LONGEST_PAUSE));
            }
        }
    }
}

#[test]
fn an_outage_costs_one_detour_and_few_trials() {
    let mut world = World::new();
    assert_eq!(world.request(), (vec![Way::First], true));
    world.weather.first = false;
    assert_eq!(world.request(), (vec![Way::First, Way::Second], true));
    for _ in 0..600 {
        world.passes(SECOND);
        assert_eq!(world.request(), (vec![Way::Second], true));
    }
    let pauses: Vec<u64> = world.trials.windows(2).map(|pair| pair[1].since(pair[0]) / SECOND).collect();
    assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60, 60, 60]);
    world.weather.first = true;
    world.passes(LONGEST_PAUSE);
    assert!(world.request().1);
    assert_eq!(world.request().0, [Way::First]);
    assert_eq!(world.news, [Way::Second, Way::First]);
}

#[test]
fn a_peer_that_is_gone_is_no_news_and_comes_back_on_the_first_way() {
    let mut world = World::new();
    world.weather = Weather { first: false, second: false };
    for _ in 0..5 {
        assert_eq!(world.request(), (vec![Way::First, Way::Second], false));
        world.passes(SECOND);
    }
    world.weather = Weather { first: true, second: true };
    assert_eq!(world.request(), (vec![Way::First], true));
    assert!(world.news.is_empty());
}

#[test]
fn a_way_that_comes_and_goes_is_tried_ever_more_seldom() {
    let mut world = World::new();
    for pause in [1, 2, 4, 8] {
        world.weather.first = false;
        assert!(world.request().1);
        assert_eq!(world.choice.pause, pause * SECOND);
        world.weather.first = true;
        world.passes(LONGEST_PAUSE);
        assert!(world.request().1);
        assert_eq!(world.request().0, [Way::First]);
    }
    // It stays well for long enough.
    world.passes(WELL);
    world.weather.first = false;
    assert!(world.request().1);
    assert_eq!(world.choice.pause, FIRST_PAUSE);
}

#[test]
fn silence_counts_only_when_it_lasts_and_repeats() {
    let mut choice = Choice::new(Time(0));
    let wait = |choice: &mut Choice, from: Time, micros: u64| {
        let asks = [choice.begin(from), choice.begin(from), choice.begin(from)];
        // All are given up together.
        for ask in &asks {
            choice.given_up(from.after(micros), ask);
        }
        choice.way()
    };
    for at in 0..9 {
        assert_eq!(wait(&mut choice, Time(at * SECOND), SECOND / 2), Way::First, "no wait at all");
    }
    assert_eq!(wait(&mut choice, Time(10 * SECOND), 2 * SECOND), Way::First, "the first time");
    let mut answered = choice.begin(Time(13 * SECOND));
    assert!(!choice.ended(Time(13 * SECOND), &mut answered, Ending::Answered));
    assert_eq!(wait(&mut choice, Time(14 * SECOND), 2 * SECOND), Way::First, "it answered in between");
    assert_eq!(wait(&mut choice, Time(17 * SECOND), 2 * SECOND), Way::Second);
}
