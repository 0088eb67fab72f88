//! Who asks whom for which run of chunks.
//!
//! Owns the plan of every transfer between nodes and the transports that carry it. Never stores a byte itself: that is
//! [`store`](crate::store)'s, which verifies each chunk before it keeps it.
//!
//! | module | owns |
//! |---|---|
//! | [`message`] | what neighbours tell each other |
//! | [`core`] | the pure state machine: availability, choice, pace, offers |
//! | [`source`], [`http`] | the trait that fetches bytes, and its HTTP client |
//! | [`fallback`] | two ways to one peer, and the choice between them |
//! | [`ban`] | what a peer is banned for, and what proves it |
//! | [`driver`] | the task around the core, and the handle to it |
//! | [`sim`] | many cores in virtual time |
//! | [`event`] | what happens, as an interface |

pub mod ban;
pub mod core;
pub mod driver;
pub mod event;
pub mod fallback;
pub mod http;
pub mod message;
pub mod sim;
pub mod source;

pub use ban::{BadChunk, Ban};
pub use core::{Order, PeerHint, PeerKey, Priority, ShareReport};
pub use driver::{Exchange, ExchangeConfig, ExchangeHandle, Fetch, FetchError, Outgoing, Progress, Report};
pub use event::ExchangeEvent;
pub use fallback::FallbackSource;
pub use http::HttpSource;
pub use message::{Message, Run};
pub use source::{ChunkSource, Route, SourceError};
