//! More sharers than a node has neighbours.

use std::ops::Range;

use super::model::{CHUNKS, Swarm};
use super::*;

/// Neighbours that a node looks for.
const DEGREE: usize = 32;
const COPIES: usize = 2;

/// As it is among those that share.
#[derive(Debug)]
struct Look {
    sharers: usize,
    neighbours: usize,
    /// Nodes that hold a chunk: the fewest, the most, all chunks together.
    copies: Range<usize>,
    holders: usize,
    /// Chunks that nobody holds.
    lost: usize,
    /// Messages that a node has sent since it was asked last: the most.
    sent: usize,
    /// Bytes that are to be held and are not.
    lacking: u64,
}

impl Look {
    fn at(swarm: &mut Swarm) -> Self {
        let (blob, now, sharers) = (swarm.id(), swarm.now, swarm.sharers());
        let copies: Vec<usize> = (0..CHUNKS).map(|chunk| swarm.holders(chunk)).collect();
        let (fewest, most) = (copies.iter().min().copied().unwrap(), copies.iter().max().copied().unwrap());
        let (mut sent, mut neighbours, mut lacking) = (0, 0, 0);
        for &node in &sharers {
            let node = &mut swarm.nodes[node];
            sent = sent.max(std::mem::take(&mut node.sent));
            neighbours += node.links.len();
            lacking += node.core.review(now, blob, u64::MAX).unwrap().report.lacking;
        }
        Self {
            sharers: sharers.len(),
            neighbours: neighbours / sharers.len(),
            copies: fewest..most,
            holders: copies.iter().sum(),
            lost: copies.iter().filter(|&&copies| copies == 0).count(),
            sent,
            lacking,
        }
    }

    fn say(&self, what: &str) {
        let Self { sharers, neighbours, copies, lost, sent, .. } = self;
        let mean = self.holders as f64 / f64::from(CHUNKS);
        println!(
            "{what}: {sharers} share, with {neighbours} neighbours; {mean:.1} copies ({} to {}), {lost} chunks lost; {sent} messages at \
             most",
            copies.start, copies.end
        );
    }
}

/// Reviews, and whoever wants neighbours gets some, until nothing changes any more.
fn settle(swarm: &mut Swarm) {
    for _ in 0..30 {
        swarm.rounds(1);
        swarm.meet();
    }
}

/// Those that share keep every chunk, and give it to whoever comes: a tenth dies at once, a tenth comes, and so once more. Whether
/// there is one besides that holds all.
fn lives_on(count: usize, whole: bool) {
    let grid = Arc::new(Grid::new(blob(1), vec![131_072; CHUNKS as usize]));
    let mut swarm = Swarm::of(grid, u8::try_from(COPIES).unwrap(), DEGREE);
    for _ in 0..count {
        swarm.join(Bitfield::full(CHUNKS));
    }
    (0..count).for_each(|_| swarm.share(0));
    settle(&mut swarm);
    if !whole {
        swarm.die(0);
    }
    let look = Look::at(&mut swarm);
    look.say("at first");
    assert!(look.copies.start >= COPIES, "{look:?}");
    // As many copies as if each had 33 sharers around it, itself included.
    let enough = CHUNKS as usize * COPIES * count.max(DEGREE + 1) / (DEGREE + 1);
    assert!(look.holders <= enough * 11 / 10, "{look:?}");
    swarm.rounds(1);
    assert_eq!(Look::at(&mut swarm).sent, 0, "nothing has changed, nothing is said");

    for _ in 0..2 {
        let sharers = swarm.sharers();
        sharers.iter().step_by(10).for_each(|&node| swarm.die(node));
        let dead = Look::at(&mut swarm);
        dead.say("a tenth has died");
        // With some two copies of a chunk, all that hold it may be among the dead.
        assert!(whole || dead.copies.start > 0, "{dead:?}");
        swarm.meet();
        settle(&mut swarm);
        let look = Look::at(&mut swarm);
        look.say("the others have fetched what is missing");
        assert!(look.copies.start >= COPIES && look.lacking == 0, "{look:?}");
        // Greetings of new neighbours, and a few words on each change.
        assert!(look.sent <= 20 * look.neighbours, "{look:?}");

        let new: Vec<usize> = (0..count / 10).map(|_| swarm.boot()).collect();
        let began = swarm.now;
        while new.iter().any(|&node| !swarm.nodes[node].store.is_full()) {
            swarm.arrive();
            swarm.pass(SECOND / 10);
            swarm.meet();
            let lacking = |node: &usize| CHUNKS - swarm.nodes[*node].store.count();
            assert!(
                swarm.now.since(began) < 60 * SECOND,
                "{:?}",
                new.iter().map(lacking).collect::<Vec<_>>()
            );
        }
        let most = new.iter().map(|&node| swarm.nodes[node].links.len()).max();
        println!("{} have come, at {most:?} neighbours, in {} s", new.len(), swarm.now.since(began) / SECOND);
        new.iter().for_each(|_| swarm.share(0));
        settle(&mut swarm);
        let look = Look::at(&mut swarm);
        look.say("they share as well");
        assert!(look.copies.start >= COPIES && look.lacking == 0, "{look:?}");
    }
}

/// What only the dead held comes again from the one that holds all, which few have as a neighbour.
#[test]
fn chunks_outlive_deaths_and_reach_newcomers_among_64_sharers() {
    lives_on(64, true);
}

/// Nobody holds all.
#[test]
fn chunks_outlive_deaths_and_reach_newcomers_among_200_sharers() {
    lives_on(200, false);
}
