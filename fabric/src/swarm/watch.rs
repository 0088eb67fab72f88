//! Core: notices dead peers within a few seconds, at little cost.
//!
//! A machine that loses power sends nothing, so silence must be noticed. Asking every neighbour every second would cost
//! a fabric at rest more than all else. Instead each node *watches* the [`WATCHED`] neighbours that follow it in the
//! ring of node ids and asks them every [`WATCH_EVERY`]; a watcher that misses one answer tells all its neighbours, and
//! everyone who has a connection to the suspect asks it too. Who does not answer within [`ANSWER_WITHIN`] is dead.
//! All others are asked every [`ASK_EVERY`]. Anything a peer says counts as an answer.
//!
//! Never owns: sockets, clocks, the members view. A false alarm costs one question per neighbour.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::id::NodeId;

/// Neighbours watched closely. In a full mesh each node then has two watchers; both dying with it at once is left to
/// [`ASK_EVERY`].
const WATCHED: usize = 2;
const WATCH_EVERY: Duration = Duration::from_millis(1500);
/// A watcher that waited so long for an answer tells the others.
const SUSPECT_AFTER: Duration = Duration::from_millis(1500);
/// Generous beside a round trip of a millisecond: virtual machines on a busy host pause for a second or two.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// What a connection at rest costs: a question and its answer are about 270 bytes with all headers.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// What to do about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask it whether it is there.
    Ask(NodeId),
    /// Tell all neighbours that it may be dead.
    Suspect(NodeId),
    /// It is dead: close its connection.
    Dead(NodeId),
}

#[derive(Debug)]
struct Peer {
    heard: Instant,
    asked: Option<Instant>,
    suspected: bool,
}

/// The watch over all connected peers.
#[derive(Debug)]
pub(crate) struct Watch {
    me: NodeId,
    peers: BTreeMap<NodeId, Peer>,
}

impl Watch {
    pub(crate) fn new(me: NodeId) -> Self {
        Self { me, peers: BTreeMap::new() }
    }

    pub(crate) fn peer_up(&mut self, node: NodeId, now: Instant) {
        self.peers.insert(node, Peer { heard: now, asked: None, suspected: false });
    }

    pub(crate) fn peer_down(&mut self, node: NodeId) {
        self.peers.remove(&node);
    }

    /// The peer said something, whatever it was, at `at`.
    pub(crate) fn heard(&mut self, node: NodeId, at: Instant) {
        if let Some(peer) = self.peers.get_mut(&node)
            && at >= peer.heard
        {
            peer.heard = at;
            if peer.asked.is_some_and(|asked| at >= asked) {
                peer.asked = None;
                peer.suspected = false;
            }
        }
    }

    /// A neighbour suspects this node: true if it is to be asked now.
    pub(crate) fn suspect(&mut self, node: NodeId, now: Instant) -> bool {
        match self.peers.get_mut(&node) {
            Some(peer) if peer.asked.is_none() && now.duration_since(peer.heard) >= WATCH_EVERY => {
                peer.asked = Some(now);
                peer.suspected = true;
                true
            }
            _ => false,
        }
    }

    /// What is due now.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<Action> {
        let watched = self.watched();
        let mut actions = Vec::new();
        for (node, peer) in &mut self.peers {
            let is_watched = watched.contains(node);
            match peer.asked {
                Some(asked) if now >= asked + ANSWER_WITHIN => actions.push(Action::Dead(*node)),
                Some(asked) if is_watched && !peer.suspected && now >= asked + SUSPECT_AFTER => {
                    peer.suspected = true;
                    actions.push(Action::Suspect(*node));
                }
                Some(_) => {}
                None if now >= peer.heard + pause(is_watched) => {
                    peer.asked = Some(now);
                    actions.push(Action::Ask(*node));
                }
                None => {}
            }
        }
        actions
    }

    /// When [`poll`](Self::poll) has more to say.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let watched = self.watched();
        let due = |(node, peer): (&NodeId, &Peer)| {
            let is_watched = watched.contains(node);
            match peer.asked {
                Some(asked) if is_watched && !peer.suspected => asked + SUSPECT_AFTER,
                Some(asked) => asked + ANSWER_WITHIN,
                None => peer.heard + pause(is_watched),
            }
        };
        self.peers.iter().map(due).min()
    }

    fn watched(&self) -> Vec<NodeId> {
        let after = self.peers.range(self.me..).chain(self.peers.range(..self.me));
        after.take(WATCHED).map(|(node, _)| *node).collect()
    }
}

fn pause(is_watched: bool) -> Duration {
    if is_watched { WATCH_EVERY } else { ASK_EVERY }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Hash;

    fn node(n: u8) -> NodeId {
        NodeId(Hash::from_bytes([n; 32]))
    }

    #[test]
    fn the_two_that_follow_in_the_ring_are_watched() {
        let now = Instant::now();
        let mut watch = Watch::new(node(5));
        for n in [1, 2, 4, 7] {
            watch.peer_up(node(n), now);
        }
        assert_eq!(watch.watched(), [node(7), node(1)]);
        assert_eq!(watch.poll(now + WATCH_EVERY), [Action::Ask(node(1)), Action::Ask(node(7))]);
        assert_eq!(watch.poll(now + ASK_EVERY - Duration::from_millis(1)).len(), 2);
    }

    #[test]
    fn a_silent_watched_peer_is_suspected_and_then_dead() {
        let now = Instant::now();
        let mut watch = Watch::new(node(0));
        watch.peer_up(node(1), now);
        let mut time = now;
        let mut seen = Vec::new();
        while !seen.contains(&Action::Dead(node(1))) {
            time = watch.next_deadline().unwrap();
            seen.extend(watch.poll(time));
        }
        assert_eq!(seen, [Action::Ask(node(1)), Action::Suspect(node(1)), Action::Dead(node(1))]);
        assert_eq!(time - now, WATCH_EVERY + ANSWER_WITHIN);
    }

    #[test]
    fn any_word_after_the_question_is_an_answer_and_an_older_one_is_not() {
        let now = Instant::now();
        let mut watch = Watch::new(node(0));
        watch.peer_up(node(1), now);
        watch.heard(node(1), now + Duration::from_millis(10));
        let asked = now + WATCH_EVERY + Duration::from_millis(10);
        assert_eq!(watch.poll(asked), [Action::Ask(node(1))]);
        watch.heard(node(1), asked - Duration::from_millis(1));
        assert_eq!(watch.poll(asked + SUSPECT_AFTER), [Action::Suspect(node(1))]);
        watch.heard(node(1), asked + SUSPECT_AFTER);
        assert_eq!(watch.poll(asked + ANSWER_WITHIN), [Action::Ask(node(1))]);
    }

    #[test]
    fn a_suspicion_makes_everyone_ask_once() {
        let now = Instant::now();
        let mut watch = Watch::new(node(0));
        for n in 1..=9 {
            watch.peer_up(node(n), now);
        }
        assert!(!watch.suspect(node(9), now), "just heard of");
        let later = now + WATCH_EVERY;
        assert!(
            watch.suspect(node(9), later)
                && !watch.suspect(node(9), later)
                && !watch.suspect(node(99), later)
        );
        assert!(watch.poll(later + ANSWER_WITHIN).contains(&Action::Dead(node(9))));
    }
}
