//! Content, swarm, exchange, releases and members.
