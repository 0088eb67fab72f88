//! What the nodes and the lab itself say, in one timeline.
//!
//! A node writes one JSON object per line: a host to a file, a machine to its second serial port, which ends up in a file
//! too. [`tail`] reads the files, [`timeline`] keeps the events in order, [`log`] looks at those of one node.

mod event;
mod log;
pub(crate) mod tail;
mod timeline;

pub use event::{Event, Source};
pub use log::EventLog;
pub use timeline::{Subscription, Timeline, Unreadable};

pub(crate) use log::Health;
