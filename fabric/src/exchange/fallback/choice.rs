//! Core: which of two ways to a peer a request takes. Pure: it is told what came of requests, and the time.
//!
//! Requests take the first way while it answers; a refusal is an answer too. When it does not, the same request goes on over
//! the second way, and so do those after it. Meanwhile the first is tried on the side, after pauses that grow, so that
//! no request waits for it. Nothing is told before the second way has answered: while both are silent the peer is
//! gone, not its first way.

#[cfg(test)]
mod tests;

use super::super::core::Time;
use super::super::core::time::SECOND;

/// Pause before the first way is tried again: a service that restarts is back in about this time.
const FIRST_PAUSE: u64 = SECOND;
/// Longest pause. A trial costs a connection request; without it each byte costs several times the CPU time.
const LONGEST_PAUSE: u64 = 60 * SECOND;
/// A way that lasted so long after it came back was well: pauses begin anew.
const WELL: u64 = LONGEST_PAUSE;
/// A request given up sooner by its caller says nothing about the way.
const SILENCE: u64 = SECOND;
/// Requests given up one after the other, with no answer between them, that count as a failure of the way: one may
/// have met a busy peer.
const MAX_SILENCES: u32 = 2;

/// One of the two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    First,
    Second,
}

/// How a request ended on one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The peer answered, whatever it said.
    Answered,
    /// No connection, or it broke.
    Unreachable,
    /// A connection, and nothing over it.
    Stalled,
}

/// A request while it runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    /// The way it is on.
    pub(super) way: Way,
    begun: Time,
    /// Answers on the first way before it.
    answers: u64,
    /// It has tried the other way already.
    second_try: bool,
}

/// The choice for one peer.
#[derive(Debug)]
pub(super) struct Choice {
    way: Way,
    /// Since when requests take the first way, while they do.
    since: Time,
    /// When the first way is to be tried on the side, while they do not.
    retry: Time,
    pause: u64,
    trying: bool,
    answers: u64,
    silences: u32,
    silent_at: Time,
    /// The last news was that only the second way works.
    told_second: bool,
    news: Option<Way>,
}

impl Choice {
    pub(super) fn new(now: Time) -> Self {
        Self {
            way: Way::First,
            since: now,
            retry: now,
            pause: 0,
            trying: false,
            answers: 0,
            silences: 0,
            silent_at: now,
            told_second: false,
            news: None,
        }
    }

    /// The way that requests take at the moment.
    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// A request begins.
    pub(super) fn begin(&self, now: Time) -> Ask {
        Ask { way: self.way, begun: now, answers: self.answers, second_try: false }
    }

    /// Whether the first way is to be tried on the side now; the trial is under way until [`Choice::tried`].
    pub(super) fn try_first(&mut self, now: Time) -> bool {
        let due = self.way == Way::Second && !self.trying && now >= self.retry;
        self.trying |= due;
        due
    }

    /// `ask` ended so on its way. True if it goes on over the other one, which it is on then.
    pub(super) fn ended(&mut self, now: Time, ask: &mut Ask, ending: Ending) -> bool {
        let goes_on = match (ask.way, ending) {
            (Way::First, Ending::Answered) => {
                self.first_answered(now);
                false
            }
            (Way::First, Ending::Unreachable | Ending::Stalled) => {
                self.leave_first(now, ask.begun);
                true
            }
            (Way::Second, Ending::Answered) => {
                self.second_answered();
                false
            }
            (Way::Second, Ending::Unreachable) => {
                // Neither way is known to work, and the first is the cheaper one.
                self.return_to_first(now);
                true
            }
            // It is connected: what it cannot bring on one way it will not bring on the other.
            (Way::Second, Ending::Stalled) => false,
        };
        if !goes_on || ask.second_try {
            return false;
        }
        let way = match ask.way {
            Way::First => Way::Second,
            Way::Second => Way::First,
        };
        *ask = Ask { way, begun: now, answers: self.answers, second_try: true };
        true
    }

    /// The caller of `ask` waited no longer. True if the first way is left because of it.
    pub(super) fn given_up(&mut self, now: Time, ask: &Ask) -> bool {
        let silent = ask.way == Way::First
            && now.since(ask.begun) >= SILENCE
            && ask.answers == self.answers
            // Those given up together count once.
            && ask.begun >= self.silent_at;
        if !silent || self.way == Way::Second {
            return false;
        }
        self.silences += 1;
        self.silent_at = now;
        if self.silences >= MAX_SILENCES {
            self.leave_first(now, ask.begun);
        }
        self.way == Way::Second
    }

    /// What came of trying the first way on the side.
    pub(super) fn tried(&mut self, now: Time, ending: Ending) {
        self.trying = false;
        if ending == Ending::Answered {
            self.first_answered(now);
        } else if self.way == Way::Second {
            self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
            self.retry = now.after(self.pause);
        }
    }

    /// The way that the peer is now reached on, if that is news.
    pub(super) fn news(&mut self) -> Option<Way> {
        self.news.take()
    }

    fn first_answered(&mut self, now: Time) {
        self.answers += 1;
        self.silences = 0;
        self.return_to_first(now);
        if std::mem::take(&mut self.told_second) {
            self.news = Some(Way::First);
        }
    }

    fn second_answered(&mut self) {
        if self.way == Way::Second && !std::mem::replace(&mut self.told_second, true) {
            self.news = Some(Way::Second);
        }
    }

    fn return_to_first(&mut self, now: Time) {
        if self.way == Way::Second {
            self.way = Way::First;
            self.since = now;
        }
    }

    /// The first way failed a request that began at `begun`.
    fn leave_first(&mut self, now: Time, begun: Time) {
        // A request from before the way came back says nothing of it.
        if self.way == Way::Second || begun < self.since {
            return;
        }
        let well = now.since(self.since) >= WELL;
        let pause = if well { 0 } else { self.pause.saturating_mul(2) };
        self.pause = pause.clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.way = Way::Second;
        self.retry = now.after(self.pause);
        self.silences = 0;
    }
}
