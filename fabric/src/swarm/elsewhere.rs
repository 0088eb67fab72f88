//! Who else gives a large object: a holder that many ask at once names those who have it from it.
//!
//! When a crowd begins a blob, all want its index from the one node that has it, and what leaves it twice delays them all. So
//! it gives an object to [`GIVEN_AT_ONCE`] at a time and sends everybody else on to the last that got it, who do the same.
//!
//! An asker that takes its time does not keep others from being served: after [`SLOW`] its place counts as free.
//!
//! Never owns: streams, objects, the clock. Behind one lock that is never held across an await.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::id::{NodeId, ObjectId};

/// From this size on an object is worth a round trip to somebody else (bytes).
pub(crate) const LARGE: usize = 16 * 1024;
/// Askers that are given one object at once.
const GIVEN_AT_ONCE: usize = 2;
/// An asker that has not taken its object after this time does not count any more: an index of 8 MiB takes less at 50 Mbit/s.
const SLOW: Duration = Duration::from_secs(2);
/// Nodes named in one answer: whoever asks may not know them all.
pub(crate) const MAX_NAMED: usize = 4;
/// Nodes remembered for an object.
const MAX_REMEMBERED: usize = 16;
/// Objects remembered; those that nobody is being given are forgotten first.
const MAX_OBJECTS: usize = 64;

#[derive(Debug, Default)]
struct Given {
    /// Who is being given it: their numbers, and since when.
    now: Vec<(u64, Instant)>,
    next: u64,
    /// Who has got it, the last at the end.
    to: VecDeque<NodeId>,
}

/// Who is being given what, and who has got it.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    objects: Mutex<HashMap<ObjectId, Given>>,
    changed: Notify,
}

/// What to do with somebody who asks.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Give it; the place is kept until the value is dropped.
    Give(Giving),
    /// Name these.
    Ask(Vec<NodeId>),
    /// Nobody has got it yet: wait for [`Elsewhere::changed`].
    Wait,
}

impl Elsewhere {
    /// `asker` wants `id`.
    pub(crate) fn enter(self: &Arc<Self>, id: ObjectId, asker: NodeId, now: Instant) -> Entry {
        let mut objects = self.lock();
        if objects.len() >= MAX_OBJECTS && !objects.contains_key(&id) {
            objects.retain(|_, given| !given.now.is_empty());
        }
        let given = objects.entry(id).or_default();
        let quick =
            given.now.iter().filter(|(_, since)| now.saturating_duration_since(*since) < SLOW).count();
        if quick < GIVEN_AT_ONCE {
            let number = given.next;
            given.next += 1;
            given.now.push((number, now));
            return Entry::Give(Giving { elsewhere: Arc::clone(self), id, number, asker, done: false });
        }
        let named: Vec<NodeId> =
            given.to.iter().rev().filter(|&&node| node != asker).take(MAX_NAMED).copied().collect();
        if named.is_empty() {
            return Entry::Wait;
        }
        // The next who asks hears other names first.
        given.to.rotate_right(1);
        Entry::Ask(named)
    }

    /// Somebody may have got something since this was called.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectId, Given>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An object on its way to somebody.
#[derive(Debug)]
pub(crate) struct Giving {
    elsewhere: Arc<Elsewhere>,
    id: ObjectId,
    number: u64,
    asker: NodeId,
    done: bool,
}

impl Giving {
    /// It is there: the asker is named to others from now on.
    pub(crate) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Giving {
    fn drop(&mut self) {
        if let Some(given) = self.elsewhere.lock().get_mut(&self.id) {
            given.now.retain(|(number, _)| *number != self.number);
            if self.done {
                given.to.retain(|node| *node != self.asker);
                given.to.push_back(self.asker);
                if given.to.len() > MAX_REMEMBERED {
                    given.to.pop_front();
                }
            }
        }
        self.elsewhere.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Hash;

    fn node(n: u8) -> NodeId {
        NodeId(Hash::from_bytes([n; 32]))
    }

    fn object(n: u8) -> ObjectId {
        ObjectId(Hash::from_bytes([n; 32]))
    }

    #[test]
    fn the_third_waits_until_one_has_it_and_is_sent_there() {
        let (elsewhere, now) = (Arc::new(Elsewhere::default()), Instant::now());
        let Entry::Give(first) = elsewhere.enter(object(1), node(1), now) else { panic!() };
        let Entry::Give(second) = elsewhere.enter(object(1), node(2), now) else { panic!() };
        assert!(matches!(elsewhere.enter(object(1), node(3), now), Entry::Wait));
        assert!(matches!(elsewhere.enter(object(2), node(3), now), Entry::Give(_)));
        first.done();
        let Entry::Give(third) = elsewhere.enter(object(1), node(3), now) else { panic!() };
        let named = |asker| match elsewhere.enter(object(1), asker, now) {
            Entry::Ask(nodes) => nodes,
            other => panic!("{other:?}"),
        };
        assert_eq!(named(node(4)), [node(1)]);
        drop(second);
        third.done();
        let _again = [elsewhere.enter(object(1), node(5), now), elsewhere.enter(object(1), node(6), now)];
        assert_eq!(named(node(4)), [node(3), node(1)]);
        assert_eq!(named(node(4)), [node(1), node(3)], "in turn");
        assert_eq!(named(node(1)), [node(3)], "nobody is sent to itself");
    }

    #[test]
    fn who_takes_its_time_keeps_nobody_waiting() {
        let (elsewhere, now) = (Arc::new(Elsewhere::default()), Instant::now());
        let slow: Vec<_> = (0..2).map(|n| elsewhere.enter(object(1), node(n), now)).collect();
        let soon = now + SLOW / 2;
        assert!(matches!(elsewhere.enter(object(1), node(3), soon), Entry::Wait));
        let later = now + SLOW;
        let quick = [3, 4].map(|n| elsewhere.enter(object(1), node(n), later));
        assert!(quick.iter().all(|entry| matches!(entry, Entry::Give(_))));
        drop(slow);
        assert!(
            matches!(elsewhere.enter(object(1), node(5), later), Entry::Wait),
            "each gives its own place back"
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (elsewhere, now) = (Arc::new(Elsewhere::default()), Instant::now());
        let mut kept = Vec::new();
        for n in 0..=u8::MAX {
            let Entry::Give(giving) = elsewhere.enter(object(n), node(n), now) else { panic!() };
            if n < 2 { kept.push(giving) } else { giving.done() }
        }
        assert!(elsewhere.lock().len() <= MAX_OBJECTS);
        assert!((0..2).all(|n| elsewhere.lock().contains_key(&object(n))));
        for n in 0..=u8::MAX {
            let Entry::Give(giving) = elsewhere.enter(object(9), node(n), now) else { panic!() };
            giving.done();
        }
        assert_eq!(elsewhere.lock()[&object(9)].to.len(), MAX_REMEMBERED);
    }
}
