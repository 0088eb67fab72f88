//! Network booting without a server.
