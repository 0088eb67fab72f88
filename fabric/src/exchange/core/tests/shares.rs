//! Nodes that keep shares, against a model that knows what each of them really has: nothing falls below k by what is given
//! back, whatever is delayed, and no more than k stay.

mod many;
mod model;

use model::{Event, Swarm};

use super::*;
use crate::exchange::core::time::SECOND;

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => Just(Event::Boots),
        12 => (any::<usize>(), 1_u8..30).prop_map(|(which, count)| Event::Delivered(which, count)),
        12 => any::<usize>().prop_map(Event::Answered),
        6 => any::<usize>().prop_map(Event::Reviews),
        2 => any::<usize>().prop_map(Event::Shares),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Event::Flaps(one, other)),
        3 => (0..8 * SECOND).prop_map(Event::Passes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// However late news are, and whoever comes: what is given back is never missed.
    #[test]
    fn giving_back_leaves_k_copies(
        copies in 1_u8..4,
        first in 1_usize..6,
        events in prop::collection::vec(any_event(), 0..400),
    ) {
        let mut swarm = Swarm::new(copies);
        swarm.boot_all(first);
        events.into_iter().for_each(|event| swarm.happens(event));
        swarm.settled();
    }

    /// Deaths one at a time, amid anything: the blob lives on without the node that brought it, and each chunk has its copies again.
    #[test]
    fn what_the_dead_held_is_fetched_again(
        rounds in prop::collection::vec((prop::collection::vec(any_event(), 0..60), any::<usize>(), any::<bool>()), 1..6),
    ) {
        let mut swarm = Swarm::new(2);
        swarm.boot_all(4);
        swarm.settled();
        swarm.die(0);
        for (events, who, boots) in rounds {
            let at = events.len() / 2;
            for (number, event) in events.into_iter().enumerate() {
                if number == at && swarm.sharers().len() > 2 {
                    swarm.happens(Event::Dies(who));
                }
                swarm.happens(event);
            }
            if boots {
                swarm.boot();
            }
            swarm.settled();
        }
    }
}

/// A neighbour that hands over to its next process is away for a moment: nobody fetches for that.
#[test]
fn a_short_absence_moves_nothing() {
    let mut swarm = Swarm::new(2);
    swarm.boot_all(4);
    swarm.settled();
    let before: Vec<_> = swarm.nodes.iter().map(|node| node.store.count()).collect();
    for other in [0, 2, 3, 4] {
        swarm.disconnect(1, other);
    }
    for _ in 0..3 {
        swarm.pass(5 * SECOND);
        swarm.sharers().into_iter().for_each(|node| swarm.review(node));
        assert!(swarm.asked.is_empty());
    }
    for other in [0, 2, 3, 4] {
        swarm.connect(1, other);
    }
    swarm.settled();
    assert_eq!(before, swarm.nodes.iter().map(|node| node.store.count()).collect::<Vec<_>>());
}

#[test]
fn without_room_nothing_is_fetched_and_it_is_said() {
    let mut swarm = Swarm::new(2);
    swarm.boot_all(3);
    swarm.settled();
    swarm.die(3);
    swarm.pass(40 * SECOND);
    let (now, blob) = (swarm.now, swarm.id());
    let report = swarm.nodes[1].core.review(now, blob, 0).unwrap().report;
    assert!(report.lacking > 0 && report.no_room == report.lacking, "{report:?}");
    swarm.act(1);
    assert!(swarm.asked.is_empty());
    swarm.settled();
}
