//! Reads packet captures as far as tests need it: who sent how much to whom, and who asked whom for what.
//!
//! [`Decoder`] takes a pcap file apart into records, [`Frame`] a record into headers, and [`Trace`] collects what frames
//! say. None of them does input or output; [`Follower`] feeds a growing file to them. Bytes are counted as they were on the
//! wire, whatever part of a frame the capture kept; what is sent again counts again.

mod decoder;
mod dhcp;
mod follower;
mod frame;
mod trace;

pub use decoder::{Decoder, PcapError, Record};
pub use dhcp::{DhcpKind, DhcpMessage};
pub use follower::Follower;
pub use frame::{Frame, Transport};
pub use trace::{Bytes, DhcpSeen, FileRequest, Flow, Protocol, Trace};
