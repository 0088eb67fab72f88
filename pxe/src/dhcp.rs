//! DHCPv4 for booting machines, answered by one of many equal nodes.
//!
//! The protocol is a pure state machine, [`core::Core`]: packets, lease records of other nodes, the view of live
//! members and `now` go in; replies, records to replicate, events and the next deadline come out. It reads no clock
//! and opens no socket, so that a simulator can run hundreds of them. [`driver`] is the thin part that owns sockets,
//! timers and tasks.
//!
//! How many servers act as one: a client's bucket orders the live nodes ([`rank`]), the bucket owns a slice of the
//! pool ([`pool`]), and leases, offers included, are replicated and merged by logical counters ([`lease`]). Nodes
//! with the same view therefore give the same answer, and only the first of them gives it at once.
//!
//! This module never decides what a boot file contains and never talks to another node: the program carries the
//! lease records and the member view.

pub mod arp;
pub mod class;
pub mod client;
pub mod config;
mod config_error;
pub mod core;
pub mod driver;
pub mod event;
#[cfg(test)]
mod fixtures;
mod identity;
pub mod interface;
mod known;
pub mod lease;
pub mod loader;
pub mod packet;
mod packet_socket;
pub mod pool;
pub mod probe;
pub mod rank;
mod reply;
mod subnet;
pub mod table;
pub mod time;

pub use client::ClientKey;
pub use config::{Config, Mode, Network, Subnet};
pub use event::{BootEvent, Stage};
pub use lease::{LeaseRecord, LeaseState};
pub use rank::MemberId;
