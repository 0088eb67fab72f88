//! The whole system in a lab on one machine: what `bootfabric lab` runs and the end-to-end tests assert.
//!
//! | module | owns |
//! |---|---|
//! | [`assets`] | the kernel and root filesystems that lab machines boot |
//! | [`cluster`] | one switch, an origin, and machines that boot from each other |
//! | [`sim`], [`plot`] | what a simulated swarm did, as figures and as a picture |
//! | [`scenario`] | the main job, step by step, each expectation checked |
//! | [`show`] | the live timeline for people |
//!
//! Expectations are checked on events, captures and device hashes, never on log text.

pub mod assets;
pub mod cluster;
pub mod plot;
pub mod scenario;
pub mod show;
pub mod sim;
