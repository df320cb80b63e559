//! The Redis protocol.

pub mod command;
pub mod connection;
pub mod keyspace;
pub mod number;
pub mod pubsub;
pub mod render;
pub mod reply;
pub mod request;
