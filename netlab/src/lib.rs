//! A network laboratory on one machine.
