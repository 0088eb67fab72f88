//! Files handed from machine to machine without a fabric: `bootfabric seed` and `bootfabric fetch`.
//!
//! A share is a small swarm of its own, joined by a [`Ticket`]: no keys, no root, no DHCP, no images. The same store,
//! swarm, exchange and HTTP service as in a node move the bytes; a ticket names the blob and its index by hash, so peers
//! are checked and never trusted.
//!
//! | part | owns |
//! |---|---|
//! | [`ticket`] | what to fetch and whom to ask first, as one word of text |
//! | [`address`] | where to listen, and which addresses to tell others |
//! | `station` | the running parts: swarm, exchange, HTTP service |
//! | `fetch` | coming to hold a file |

pub mod address;
pub(crate) mod fetch;
pub(crate) mod station;
pub mod ticket;

pub use ticket::Ticket;
