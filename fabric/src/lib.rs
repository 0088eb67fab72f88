//! Content, swarm, exchange, releases and members of a fabric.
//!
//! This crate knows nothing of PXE. Its layers, each using only those above it:
//!
//! | module | owns |
//! |---|---|
//! | [`id`], [`codec`], [`bitfield`] | hashes and names, the one wire encoding, sets of chunks |
//! | [`content`] | cutting blobs into chunks, the index of a blob |
//! | [`trust`] | keys, signatures, releases |
//! | [`store`] | verified bytes on disk or in RAM |
//! | [`exchange`] | who asks whom for which run of chunks |
//! | [`swarm`] | peers, messages, members, replicated records, over libp2p |
//! | [`tls`] | connections between nodes for the runs of a private fabric |

pub mod bitfield;
pub mod codec;
pub mod content;
pub mod exchange;
pub mod id;
pub mod store;
pub mod swarm;
pub mod tls;
pub mod trust;
