//! What is to happen, in the order of its time; at one moment in the order in which it was put in.
//!
//! A radix heap (Ahuja, Mehlhorn, Orlin, Tarjan, JACM 1990): simulated time only goes forward, so an item needs no place among
//! all others, only one in the bucket of the highest bit in which its time differs from now. Ten thousand nodes keep a million
//! items waiting; a binary heap misses the cache at every level of it.

use std::collections::VecDeque;

/// Buckets: one for each bit of a time.
const BUCKETS: usize = 64;

/// The queue. Times are in microseconds.
#[derive(Debug)]
pub(super) struct Queue<T> {
    now: u64,
    due: VecDeque<T>,
    buckets: [Vec<(u64, T)>; BUCKETS],
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { now: 0, due: VecDeque::new(), buckets: std::array::from_fn(|_| Vec::new()) }
    }

    /// Puts `item` in for the moment `at`; for now, if that has passed.
    pub(super) fn push(&mut self, at: u64, item: T) {
        let differing = (at.max(self.now) ^ self.now).checked_ilog2();
        match differing.and_then(|bit| self.buckets.get_mut(bit as usize)) {
            Some(bucket) => bucket.push((at, item)),
            None => self.due.push_back(item),
        }
    }

    /// The next item and its time.
    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        if self.due.is_empty() {
            let lowest = self.buckets.iter().position(|bucket| !bucket.is_empty())?;
            let mut items = self.buckets.get_mut(lowest).map(std::mem::take)?;
            self.now = items.iter().map(|item| item.0).min().unwrap_or(self.now);
            // In their order, so that those of one moment stay in theirs.
            for (at, item) in items.drain(..) {
                self.push(at, item);
            }
            // All of them went to lower buckets; the memory serves again.
            if let Some(bucket) = self.buckets.get_mut(lowest) {
                *bucket = items;
            }
        }
        self.due.pop_front().map(|item| (self.now, item))
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The oracle: a heap of times and numbers.
        #[test]
        fn items_come_in_the_order_of_time_and_then_of_entry(
            steps in prop::collection::vec(prop::option::weighted(0.6, 0_u64..3000), 0..400),
        ) {
            let (mut queue, mut heap) = (Queue::new(), BinaryHeap::new());
            let mut now = 0;
            for (number, step) in steps.into_iter().enumerate() {
                if let Some(delay) = step {
                    queue.push(now + delay, number);
                    heap.push(Reverse((now + delay, number)));
                } else {
                    let next = queue.pop();
                    prop_assert_eq!(next, heap.pop().map(|Reverse(item)| item));
                    now = next.map_or(now, |(at, _)| at);
                }
            }
            while let Some(Reverse(item)) = heap.pop() {
                prop_assert_eq!(queue.pop(), Some(item));
            }
            prop_assert_eq!(queue.pop(), None);
        }
    }
}
