//! Network booting without a server: every machine that was booted boots the next one.
//!
//! This crate puts the others together and adds what is neither swarm nor boot protocol nor lab:
//!
//! | module | owns |
//! |---|---|
//! | [`cli`] | the command line: what was typed, and what it means |
//! | [`disk`] | images installed on disks |
//! | [`event`] | what a node says of itself to programs |
//! | [`home`] | an operator's directory: keys, settings, store |
//! | `human` | numbers as people read them |
//! | [`image`] | building images |
//! | [`lab`] | the scenario of `bootfabric lab` |
//! | `kexec` | starting a kernel from a running one |
//! | [`limits`] | what a node may use of its machine and link |
//! | [`link`] | network interfaces |
//! | `machines` | what operators say of machines: subnets, groups, nodes |
//! | `maintain` | an operator's changes of a store, here or through the node that has it open |
//! | `members` | memberships of a private fabric, as they are kept and changed |
//! | `memory` | how much memory a machine has, and how much a root needs |
//! | [`node`] | the agent: swarm, store and boot services as one node |
//! | [`share`] | files handed from machine to machine without a fabric |
//! | [`stage`] | the first stage: PID 1 until the root's own init takes over |

pub mod cli;
pub mod disk;
pub mod event;
pub mod home;
mod human;
pub mod image;
mod kexec;
pub mod lab;
pub mod limits;
pub mod link;
mod machines;
mod maintain;
mod members;
mod memory;
pub mod node;
mod objects;
pub mod share;
mod squashfs;
pub mod stage;
