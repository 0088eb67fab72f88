//! DHCP, TFTP and HTTP boot services.
//!
//! This crate knows what firmware says and wants, and nothing of where content or peers come from: files are asked
//! for through [`files::BootFiles`], the other responders of the link are told to the DHCP core as plain values.

pub mod bind;
#[cfg(test)]
mod damage;
pub mod dhcp;
mod ending;
pub mod files;
pub mod http;
pub mod ra;
pub mod service_event;
pub mod tftp;
