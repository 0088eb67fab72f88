//! The core against the rules, against the fixtures of real firmware, and hundreds of cores against each other.

mod bench;
mod configure;
mod damaged;
mod hostile;
mod interop;
mod members;
mod replies;
mod rules;
mod simulation;
mod site;
