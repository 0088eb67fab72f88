//! One read transfer as a state machine (RFC 1350, RFC 7440). No socket, no clock, no file: it speaks of block numbers,
//! and whoever drives it has the bytes.
//!
//! The contract: after each input take transmissions until [`Sender::poll_transmit`] returns `None`, and report each with
//! [`Sender::sent`]; then wait for a packet or for [`Sender::deadline`]. Blocks are counted from 1 without wrapping;
//! the wire's 16 bits are a detail of [`super::packet`].

use std::ops::RangeInclusive;
use std::time::Instant;

use super::negotiate::Agreed;
use super::packet::Packet;
use super::retransmit::RetransmitTimeout;

/// Transmissions of the same window before the client counts as gone. With the back-off of 1, 2, 4, 8, 8 … s that
/// is 47 s without a sign of life, longer than any firmware keeps trying.
const MAX_RETRIES: u32 = 8;

/// What to put on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// The option acknowledgement.
    Oack(Vec<u8>),
    /// These blocks, in order. The last block of a file is shorter than the others, and empty where the length is a
    /// multiple of the block size.
    Data(RangeInclusive<u64>),
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The last block was acknowledged.
    Complete,
    /// The last block was sent again and again, and never acknowledged. Some boot ROMs never do.
    Unacknowledged,
    /// The client answered the OACK with an ERROR: a size probe, or options it cannot live with.
    Probe,
    /// The client sent an ERROR.
    Aborted {
        /// Error code.
        code: u16,
        /// Its text.
        message: String,
    },
    /// No answer for so long that the client must be gone.
    TimedOut,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// The OACK waits for its ACK of block 0.
    Oack(Vec<u8>),
    Data,
    Over(Verdict),
}

/// The sending side of one transfer.
#[derive(Debug, Clone)]
pub struct Sender {
    len: u64,
    blksize: u64,
    windowsize: u64,
    last: u64,
    phase: Phase,
    /// Every block up to here is acknowledged.
    acked: u64,
    /// The next block to send; goes back to `acked + 1` for a retransmission.
    next: u64,
    /// The highest block ever sent: an ACK above it is not ours.
    highest: u64,
    oack_due: bool,
    timeout: RetransmitTimeout,
    deadline: Option<Instant>,
    last_sent: Option<Instant>,
    /// The block whose ACK will be a clean measurement of the round trip: sent once, at this time (Karn's rule).
    timed: Option<(u64, Instant)>,
    /// A duplicate ACK already brought the deadline forward since the last progress.
    hinted: bool,
    /// When an ACK inside the window last restarted it.
    restarted: Option<Instant>,
    answered: bool,
    retries: u32,
}

impl Sender {
    /// The transfer of a file of `len` bytes under the agreed options.
    #[must_use]
    pub fn new(agreed: Agreed, len: u64) -> Self {
        let blksize = u64::from(agreed.blksize).max(1);
        let oack_due = agreed.oack.is_some();
        Self {
            len,
            blksize,
            windowsize: u64::from(agreed.windowsize).max(1),
            last: len / blksize + 1,
            phase: agreed.oack.map_or(Phase::Data, Phase::Oack),
            acked: 0,
            next: 1,
            highest: 0,
            oack_due,
            timeout: RetransmitTimeout::new(agreed.timeout),
            deadline: None,
            last_sent: None,
            timed: None,
            hinted: false,
            restarted: None,
            answered: false,
            retries: 0,
        }
    }

    /// Takes in a datagram of the client.
    pub(super) fn on_packet(&mut self, datagram: &[u8], now: Instant) {
        match Packet::parse(datagram) {
            Ok(Packet::Ack(number)) => self.on_ack(number, now),
            Ok(Packet::Error { code, message }) => self.on_error(code, message),
            // Noise on our port, or a request repeated in single-port mode: the timer answers it.
            Ok(Packet::Rrq(_) | Packet::Wrq | Packet::Unexpected) | Err(_) => {}
        }
    }

    /// The next thing to send now, or `None` where an answer or the deadline has to be awaited.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        match &self.phase {
            Phase::Oack(packet) => std::mem::take(&mut self.oack_due).then(|| Transmit::Oack(packet.clone())),
            Phase::Data => {
                let end = self.last.min(self.acked + self.windowsize);
                if self.next > end {
                    return None;
                }
                let blocks = self.next..=end;
                self.next = end + 1;
                Some(Transmit::Data(blocks))
            }
            Phase::Over(_) => None,
        }
    }

    /// The transmission just taken is on the wire since `now`.
    pub fn sent(&mut self, now: Instant) {
        let sent_to = self.next - 1;
        let first_time =
            self.retries == 0 && (sent_to > self.highest || matches!(self.phase, Phase::Oack(_)));
        if first_time && self.timed.is_none() {
            self.timed = Some((sent_to, now));
        }
        self.highest = self.highest.max(sent_to);
        self.last_sent = Some(now);
        self.deadline = Some(now + self.timeout.current());
    }

    /// An ACK with this number (modulo 65536) arrived.
    pub fn on_ack(&mut self, number: u16, now: Instant) {
        match self.phase {
            Phase::Oack(_) if number == 0 && self.last_sent.is_some() => {
                self.progressed(0, now);
                self.phase = Phase::Data;
            }
            Phase::Oack(_) | Phase::Over(_) => {}
            Phase::Data => {
                // The window is far smaller than 65536, so the distance is unambiguous; older ACKs come out above it.
                let distance = u64::from(number.wrapping_sub(self.acked as u16));
                match distance {
                    0 => self.duplicate_ack(),
                    _ if distance <= self.highest - self.acked => self.advance(self.acked + distance, now),
                    _ => {}
                }
            }
        }
    }

    /// Everything up to `block` has arrived. An ACK inside the window says that the rest of it did not: the window
    /// restarts there (RFC 7440 section 4).
    ///
    /// Further ACKs inside the window that follow at once cannot know of the restart yet, for example because the
    /// network doubles blocks and the client acknowledges each copy: they move the window and nothing more.
    fn advance(&mut self, block: u64, now: Instant) {
        let inside_window = block + 1 < self.next;
        self.acked = block;
        if !inside_window {
            self.next = block + 1;
        } else if self.restarted.is_none_or(|at| now >= at + self.timeout.too_soon()) {
            self.next = block + 1;
            self.restarted = Some(now);
            self.timed = None;
        }
        self.progressed(block, now);
        if block == self.last {
            self.over(Verdict::Complete);
        }
    }

    fn progressed(&mut self, block: u64, now: Instant) {
        match self.timed.take_if(|(timed, _)| *timed <= block) {
            Some((_, sent)) => self.timeout.measured(now.saturating_duration_since(sent)),
            None => self.timeout.progressed(),
        }
        self.retries = 0;
        self.hinted = false;
        self.answered = true;
    }

    /// A duplicate never causes a transmission by itself: that is the Sorcerer's Apprentice (RFC 1123 section 4.2.3.1).
    /// It hints that something was lost, so the deadline comes forward, once, to when the ACK was due by all experience.
    fn duplicate_ack(&mut self) {
        if std::mem::replace(&mut self.hinted, true) {
            return;
        }
        if let (Some(sent), Some(usual), Some(deadline)) =
            (self.last_sent, self.timeout.usual(), self.deadline)
        {
            self.deadline = Some(deadline.min(sent + usual));
        }
    }

    /// The client sent an ERROR.
    pub fn on_error(&mut self, code: u16, message: String) {
        match self.phase {
            Phase::Oack(_) => self.over(Verdict::Probe),
            Phase::Data => self.over(Verdict::Aborted { code, message }),
            Phase::Over(_) => {}
        }
    }

    /// Time has passed; does nothing before the deadline.
    pub fn on_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.retries += 1;
        self.timed = None;
        self.timeout.back_off();
        self.deadline = Some(now + self.timeout.current());
        match self.phase {
            _ if self.retries > MAX_RETRIES => {
                let all_sent = self.highest == self.last;
                self.over(if all_sent { Verdict::Unacknowledged } else { Verdict::TimedOut });
            }
            Phase::Oack(_) => self.oack_due = true,
            Phase::Data => self.next = self.acked + 1,
            Phase::Over(_) => {}
        }
    }

    fn over(&mut self, verdict: Verdict) {
        self.phase = Phase::Over(verdict);
        self.deadline = None;
    }

    /// When to call [`Self::on_timeout`]; `None` once the transfer is over.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How it ended, once it has.
    #[must_use]
    pub fn verdict(&self) -> Option<&Verdict> {
        match &self.phase {
            Phase::Over(verdict) => Some(verdict),
            Phase::Oack(_) | Phase::Data => None,
        }
    }

    /// Whether the client has acknowledged anything, the OACK included.
    #[must_use]
    pub fn answered(&self) -> bool {
        self.answered
    }

    /// Payload bytes acknowledged.
    #[must_use]
    pub fn bytes_acked(&self) -> u64 {
        (self.acked * self.blksize).min(self.len)
    }

    /// The block up to which everything is acknowledged: earlier blocks are never asked for again.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.acked
    }
}

#[cfg(test)]
mod tests;
