//! TFTP, read-only (RFC 1350, 2347, 2348, 2349, 7440).
//!
//! The core is [`sender::Sender`] with [`packet`] and [`negotiate`]: one transfer as a state machine, without socket or
//! clock. [`TftpServer`] is the driver. Owns nothing of the files: it asks [`crate::files::BootFiles`]. Never writes.
//!
//! What real firmware does, and is met here: EDK2 asks for the size first and aborts with ERROR 8, then reads for real;
//! clients answer from a new port for each file, some old ROMs from a fixed one; some never acknowledge the last block;
//! an option that was not asked for breaks them; names come with leading slashes and trailing `0xff`.

mod counters;
mod lockstep;
pub mod negotiate;
pub mod packet;
mod reader;
mod report;
mod retransmit;
pub mod sender;
mod server;
mod table;
mod transfer;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use counters::{TftpCounters, TftpStats};
pub use server::TftpServer;

use crate::service_event::{EventSink, NoEvents};

/// Transfers at once. Each holds up to three pieces of 128 KiB, so 256 hold less than 100 MiB in the worst case and a
/// few MiB where files are in memory; a switch of 48 ports powered on at once fits five times.
pub const MAX_TRANSFERS: usize = 256;

/// Transfers of one address at once: firmware has one, a relay or a host of many virtual machines has some.
pub const MAX_TRANSFERS_PER_CLIENT: usize = 64;

/// Largest window granted: 64 blocks of 1,468 bytes fill a gigabit link at 0.7 ms round trip, and still fit the
/// receive buffer of a small client.
pub const MAX_WINDOWSIZE: u16 = 64;

/// How long transfers under way may go on after the service was told to stop: a loader takes less.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Settings of the service.
#[derive(Clone)]
pub struct TftpConfig {
    /// Answer from the listening port instead of a new one per transfer: for networks that translate addresses.
    pub single_port: bool,
    /// Transfers at once; requests above it are not answered, and asked again by the client.
    pub max_transfers: usize,
    /// Transfers of one client address at once.
    pub max_transfers_per_client: usize,
    /// Largest block granted; the path's MTU caps it further.
    pub max_blksize: u16,
    /// Largest window granted, in blocks.
    pub max_windowsize: u16,
    /// Hand a whole window to the kernel at once (`UDP_SEGMENT`). Off where something captures packets inside this
    /// machine and must see each datagram by itself.
    pub segmentation_offload: bool,
    /// How long transfers may go on after the stop.
    pub drain: Duration,
    /// Takes the events.
    pub events: Arc<dyn EventSink>,
}

impl Default for TftpConfig {
    fn default() -> Self {
        Self {
            single_port: false,
            max_transfers: MAX_TRANSFERS,
            max_transfers_per_client: MAX_TRANSFERS_PER_CLIENT,
            max_blksize: negotiate::MAX_BLKSIZE,
            max_windowsize: MAX_WINDOWSIZE,
            segmentation_offload: true,
            drain: DRAIN,
            events: Arc::new(NoEvents),
        }
    }
}

impl fmt::Debug for TftpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TftpConfig")
            .field("single_port", &self.single_port)
            .field("max_transfers", &self.max_transfers)
            .field("max_transfers_per_client", &self.max_transfers_per_client)
            .field("max_blksize", &self.max_blksize)
            .field("max_windowsize", &self.max_windowsize)
            .finish_non_exhaustive()
    }
}
