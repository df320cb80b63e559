//! Peers: finding them, connecting to them, and carrying the core's frames.

pub mod discovery;
pub mod link;
pub mod peers;
pub mod places;
pub mod tls;
pub mod upstream;
