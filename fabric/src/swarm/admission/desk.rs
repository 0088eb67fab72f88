//! Core: the rules at the gate, and what came of them; [`Gate`] shares them between the tasks that set connections up,
//! the driver and the handles.
//!
//! The one who dials shows its membership and, if it knows it, that of the other; the other answers with a verdict, and
//! only to a member says more than that; the first closes with its own verdict. Both then hold a [`Tie`], which lives as
//! long as the connection: with a peer's last tie ends the token that it was given.
//!
//! What must be passed on is kept until the driver takes it ([`Gate::take`]), within bounds: what is lost beyond them is
//! made good when rosters are compared at the next greeting.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;

use super::message::{Grant, Show, Verdict, Welcome};
use super::roster::{MAX_MEMBERSHIPS, Roster};
use super::token::BulkToken;
use super::waiting::{Newcomer, Waiting, WaitingList, remote_ip};
use super::{AdmitError, Private, Refusal};
use crate::id::NodeId;
use crate::swarm::key::NodePublicKey;

/// Reports that may wait for the driver, which takes them at once unless it is busy; each costs its sender a handshake.
const MAX_REPORTS: usize = 1024;

/// The other end of a connection that is being set up: Noise has proved its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Other {
    pub(crate) node: NodeId,
    pub(crate) key: NodePublicKey,
    pub(crate) at: Option<SocketAddr>,
}

/// How a peer's blobs are asked for over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BulkAccess {
    /// Port of its bulk service.
    pub port: u16,
    /// What it gave us to show.
    pub token: BulkToken,
    /// The key that its end of the connection must have.
    pub key: NodePublicKey,
}

/// What the driver must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// A machine asks to be admitted.
    Asked(Waiting),
    /// One that asked was admitted: it can be dialled.
    Admitted(Waiting),
    /// The other end turned us away; `member` if it gave itself out for one.
    TurnedAway { by: NodeId, at: Option<SocketAddr>, why: Refusal, member: bool },
}

/// What waits for the driver.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Memberships that were news.
    pub(crate) news: Vec<Bytes>,
    pub(crate) reports: Vec<Report>,
}

/// A peer with which there is, or is about to be, a connection.
#[derive(Debug)]
struct Tied {
    ties: usize,
    issued: BulkToken,
    granted: Option<BulkAccess>,
    /// What its roster amounted to when it last talked to us.
    digest: u64,
}

#[derive(Debug)]
struct Desk {
    me: NodeId,
    newcomer: Newcomer,
    bulk_port: u16,
    roster: Roster,
    /// This node was a member while a statement came that ended it: whoever turns it away need not know.
    withdrawn: bool,
    tied: HashMap<NodeId, Tied>,
    waiting: WaitingList,
    taken: Taken,
}

impl Desk {
    /// What the one who dials says first.
    fn show(&self, to: NodeId) -> Show {
        let mine = self.roster.of(self.me).map(|bytes| bytes.to_vec());
        let newcomer = mine.is_none().then(|| self.newcomer.clone());
        Show { mine, yours: self.roster.of(to).map(|bytes| bytes.to_vec()), newcomer }
    }

    /// What the other answers; a welcome comes with a tie on the peer, to be released by whoever gets it.
    fn answer(&mut self, from: Other, show: Show, fresh: BulkToken, now: Instant) -> Verdict {
        let withdrawn = self.learn_all([&show.mine, &show.yours]);
        match self.verdict(from.node, fresh) {
            Verdict::Refused { newcomer, .. } if withdrawn => {
                Verdict::Refused { why: Refusal::Withdrawn, newcomer }
            }
            Verdict::Refused { why, newcomer } => {
                self.asked(from, show.newcomer, now);
                Verdict::Refused { why, newcomer }
            }
            welcome @ Verdict::Welcome(_) => welcome,
        }
    }

    /// Takes a verdict in; whether the other end may stay as far as we are concerned. A grant counts only if it may.
    fn hear(&mut self, from: Other, verdict: Verdict, now: Instant) -> Result<Grant, Refusal> {
        match verdict {
            Verdict::Welcome(welcome) => {
                let withdrawn = self.learn_all([&welcome.mine, &welcome.yours]);
                match self.roster.admits(from.node) {
                    true => Ok(welcome.grant),
                    false if withdrawn => Err(Refusal::Withdrawn),
                    false => Err(Refusal::NotAdmitted),
                }
            }
            Verdict::Refused { why, newcomer } => {
                let member = newcomer.is_none();
                self.asked(from, newcomer, now);
                let why = if self.withdrawn { Refusal::Withdrawn } else { why };
                self.report(Report::TurnedAway { by: from.node, at: from.at, why, member });
                Err(why)
            }
        }
    }

    /// Our verdict on a peer.
    fn verdict(&mut self, node: NodeId, fresh: BulkToken) -> Verdict {
        let own = self.roster.of(self.me).map(|bytes| bytes.to_vec());
        let Some(theirs) = self.roster.of(node).map(|bytes| bytes.to_vec()) else {
            let newcomer = own.is_none().then(|| self.newcomer.clone());
            return Verdict::Refused { why: Refusal::NotAdmitted, newcomer };
        };
        let tied = self.tied.entry(node).or_insert(Tied { ties: 0, issued: fresh, granted: None, digest: 0 });
        tied.ties += 1;
        let grant = Grant { port: self.bulk_port, token: tied.issued, digest: self.roster.digest() };
        Verdict::Welcome(Box::new(Welcome { mine: own, yours: Some(theirs), grant }))
    }

    fn granted(&mut self, from: Other, grant: Grant) {
        let Grant { port, token, digest } = grant;
        if let Some(tied) = self.tied.get_mut(&from.node) {
            tied.granted = Some(BulkAccess { port, token, key: from.key });
            tied.digest = digest;
        }
    }

    fn release(&mut self, node: NodeId) {
        if let Some(tied) = self.tied.get_mut(&node) {
            tied.ties = tied.ties.saturating_sub(1);
            if tied.ties == 0 {
                self.tied.remove(&node);
            }
        }
    }

    /// Takes memberships in; true if one of them was good once and is not any more.
    fn learn_all<'a>(&mut self, memberships: impl IntoIterator<Item = &'a Option<Vec<u8>>>) -> bool {
        let learnt = memberships.into_iter().flatten().map(|bytes| self.learn(bytes));
        learnt.fold(false, |any, one| any | matches!(one, Err(AdmitError::Superseded { .. })))
    }

    /// Takes a membership in; true if it is news.
    fn learn(&mut self, bytes: &[u8]) -> Result<bool, AdmitError> {
        let member = self.roster.admits(self.me);
        let Some(change) = self.roster.merge(bytes)? else { return Ok(false) };
        self.withdrawn = (self.withdrawn || member) && !self.roster.admits(self.me);
        if self.taken.news.len() < MAX_MEMBERSHIPS {
            self.taken.news.push(Bytes::copy_from_slice(bytes));
        }
        if let Some(waiting) = change.gained.and_then(|node| self.waiting.remove(node)) {
            self.report(Report::Admitted(waiting));
        }
        // Who lost a name keeps its tie until its connections have ended; its token opens nothing from now on.
        Ok(true)
    }

    /// Lists who asks, if this node has a say.
    fn asked(&mut self, from: Other, newcomer: Option<Newcomer>, now: Instant) {
        let Some(waiting) = newcomer.and_then(|it| it.at(from.node, remote_ip(from.at))) else { return };
        if self.roster.admits(self.me) && self.waiting.hear(waiting.clone(), now) {
            self.report(Report::Asked(waiting));
        }
    }

    fn report(&mut self, report: Report) {
        if self.taken.reports.len() < MAX_REPORTS {
            self.taken.reports.push(report);
        }
    }
}

/// The desk as tasks share it. Its lock is never held across a wait.
#[derive(Debug)]
pub(crate) struct Gate {
    desk: Mutex<Desk>,
    wake: Notify,
}

impl Gate {
    pub(crate) fn new(me: NodeId, newcomer: Newcomer, private: Private) -> Arc<Self> {
        let Private { trust_root, memberships, bulk_port } = private;
        let mut roster = Roster::new(trust_root);
        for bytes in memberships {
            if let Err(error) = roster.merge(&bytes) {
                tracing::warn!(%error, "a stored membership is left out");
            }
        }
        let desk = Desk {
            me,
            newcomer,
            bulk_port,
            roster,
            withdrawn: false,
            tied: HashMap::new(),
            waiting: WaitingList::default(),
            taken: Taken::default(),
        };
        Arc::new(Self { desk: Mutex::new(desk), wake: Notify::new() })
    }

    /// Says where this node listens, once it does.
    pub(crate) fn listens_on(&self, swarm_port: u16) {
        self.desk().newcomer.swarm_port = swarm_port;
    }

    pub(crate) fn show(&self, to: NodeId) -> Show {
        self.desk().show(to)
    }

    /// The answer to the one who dialled; a welcome comes with a tie.
    pub(crate) fn answer(
        self: &Arc<Self>,
        from: Other,
        show: Show,
        now: Instant,
    ) -> Result<(Verdict, Option<Tie>), getrandom::Error> {
        let fresh = BulkToken::generate()?;
        let verdict = self.desk().answer(from, show, fresh, now);
        self.wake.notify_one();
        let tie = matches!(verdict, Verdict::Welcome(_)).then(|| self.tie(from.node));
        Ok((verdict, tie))
    }

    /// The dialler's closing word on the answer.
    pub(crate) fn close(
        self: &Arc<Self>,
        from: Other,
        answer: Verdict,
        now: Instant,
    ) -> Result<(Option<Verdict>, Result<Tie, Refusal>), getrandom::Error> {
        let fresh = BulkToken::generate()?;
        let mut desk = self.desk();
        let refused = matches!(answer, Verdict::Refused { .. });
        let outcome = match desk.hear(from, answer, now) {
            // Who refused us waits for no answer.
            Err(why) if refused => (None, Err(why)),
            Err(why) => (Some(Verdict::Refused { why, newcomer: None }), Err(why)),
            Ok(grant) => {
                let verdict = desk.verdict(from.node, fresh);
                desk.granted(from, grant);
                (Some(verdict), Ok(self.tie(from.node)))
            }
        };
        drop(desk);
        self.wake.notify_one();
        Ok(outcome)
    }

    /// The closing word has come.
    pub(crate) fn closed(&self, from: Other, closing: Verdict, now: Instant) -> Result<(), Refusal> {
        let mut desk = self.desk();
        let heard = desk.hear(from, closing, now).map(|grant| desk.granted(from, grant));
        drop(desk);
        self.wake.notify_one();
        heard
    }

    /// A membership that a peer or an operator handed over; true if it is news.
    pub(crate) fn learn(&self, bytes: &[u8]) -> Result<bool, AdmitError> {
        let learnt = self.desk().learn(bytes);
        self.wake.notify_one();
        learnt
    }

    /// Waits until there may be something to take. Cancel safe.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// What has come together since the last call.
    pub(crate) fn take(&self) -> Taken {
        std::mem::take(&mut self.desk().taken)
    }

    pub(crate) fn admits(&self, node: NodeId) -> bool {
        self.desk().roster.admits(node)
    }

    pub(crate) fn memberships(&self) -> Vec<Bytes> {
        self.desk().roster.all().cloned().collect()
    }

    pub(crate) fn waiting(&self, now: Instant) -> Vec<Waiting> {
        self.desk().waiting.list(now)
    }

    /// Whether a peer's roster was another than ours is now.
    pub(crate) fn differs(&self, node: NodeId) -> bool {
        let desk = self.desk();
        desk.tied.get(&node).is_none_or(|tied| tied.digest != desk.roster.digest())
    }

    /// Who shows this token; nobody if it is not, or not any more, that of a member we are connected to. Takes the same
    /// time for every token.
    pub(crate) fn holder(&self, token: &BulkToken) -> Option<NodeId> {
        let desk = self.desk();
        let holders = desk.tied.iter().filter(|(_, tied)| tied.issued == *token);
        let holder = holders.map(|(node, _)| *node).last()?;
        desk.roster.admits(holder).then_some(holder)
    }

    pub(crate) fn access(&self, node: NodeId) -> Option<BulkAccess> {
        self.desk().tied.get(&node)?.granted.filter(|access| access.port != 0)
    }

    fn tie(self: &Arc<Self>, node: NodeId) -> Tie {
        Tie { gate: Arc::clone(self), node }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lives as long as a connection with a peer.
#[derive(Debug)]
pub(crate) struct Tie {
    gate: Arc<Gate>,
    node: NodeId,
}

impl Drop for Tie {
    fn drop(&mut self) {
        self.gate.desk().release(self.node);
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
