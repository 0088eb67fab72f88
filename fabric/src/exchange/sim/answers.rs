//! Requests, and what becomes of their answers: they come whole, break off, or bring what is not what was asked for.

use super::net::NodeIndex;
use super::node::{Asked, Life};
use super::swarm::{Event, Swarm};
use crate::exchange::ban::BadChunk;
use crate::exchange::core::{Failure, RequestId};
use crate::exchange::message::Run;
use crate::id::Hash;

/// Bytes of a request's head and of an answer's.
const HEADS: u64 = 320;

impl Swarm<'_> {
    /// `client` asks `server` for `run`.
    pub(super) fn request(&mut self, client: Life, id: RequestId, server: Life, run: Run) {
        self.outcome.requests += 1;
        if let Some(node) = self.nodes.get_mut(client.node as usize) {
            node.requests.insert(id.0, Asked { server, run });
        }
        let wait = self.net.queueing(self.now.0, client.node, server.node);
        self.at(self.now.after(self.scenario.latency + wait), Event::Request { server, client, id: id.0 });
    }

    /// A request has reached `server`.
    pub(super) fn serve(&mut self, server: Life, client: Life, id: u64) {
        let now = self.now;
        let asked = self.nodes.get(client.node as usize).and_then(|node| node.requests.get(&id)).copied();
        let Some(Asked { run, .. }) = asked else { return };
        // A machine without power says nothing; one that has started again says that nobody listens.
        let Some(node) = self.nodes.get(server.node as usize).filter(|node| node.lives()) else { return };
        let failure = if node.life != server {
            Some(Failure::Transport("connection refused".into()))
        } else if !node.core.holds(&self.grid.blob(), run) {
            Some(Failure::NotHeld)
        } else {
            None
        };
        if let Some(failure) = failure {
            return self.with(client, |node| {
                node.requests.remove(&id);
                node.core.finished(now, RequestId(id), Err(failure));
            });
        }
        let bytes = self.grid.bytes_of(run.chunks());
        self.net.answer(now.0, server.node, client.node, id, bytes.end - bytes.start + HEADS);
    }

    /// The last byte of an answer has come, or its connection has broken.
    pub(super) fn delivered(&mut self, client: NodeIndex, id: u64, whole: bool) {
        let Some(life) = self.life(client) else { return };
        let asked = self.nodes.get_mut(client as usize).and_then(|node| node.requests.remove(&id));
        let Some(Asked { server, run }) = asked else { return };
        let lies = self.nodes.get(server.node as usize).is_some_and(|node| node.lies);
        if !whole {
            let broken = Failure::Transport("connection reset".into());
            self.end(life, id, None, Err(broken));
        } else if lies {
            self.refuse(life, id, run);
        } else {
            self.end(life, id, Some(run), Ok(()));
        }
    }

    /// The first chunk of the answer is wrong: `life` keeps the others, as a node does that hashes each for itself.
    fn refuse(&mut self, life: Life, id: u64, run: Run) {
        let wrong = self.grid.bytes_of(run.first..run.first + 1);
        self.outcome.offences += 1;
        self.outcome.wasted += wrong.end - wrong.start;
        let rest = Run { first: run.first + 1, count: run.count - 1 };
        let (expected, got) = (Hash::of(b"true"), Hash::of(b"false"));
        let proof = BadChunk { blob: self.grid.blob(), chunk: run.first, expected, got };
        self.end(life, id, Some(rest).filter(|rest| rest.count > 0), Err(Failure::BadChunk(proof)));
    }

    /// Tells the core of `life` what was kept, and how the request ended.
    fn end(&mut self, life: Life, id: u64, kept: Option<Run>, result: Result<(), Failure>) {
        let (now, blob) = (self.now, self.grid.blob());
        let held = self.nodes.get(life.node as usize).map_or(0, |node| node.core.held(&blob));
        self.with(life, |node| {
            if let Some(run) = kept {
                node.core.stored(now, blob, run);
            }
            node.core.finished(now, RequestId(id), result);
        });
        if let Some(node) = self.nodes.get_mut(life.node as usize) {
            node.held = node.core.held(&blob);
            self.held += node.held - held;
        }
    }
}
