//! The `bootfabric` program.

fn main() {}
