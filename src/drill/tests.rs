//! The drill against a real HTTP server on loopback that can be told to lose, move, spoil and revive sessions.

mod cookies;
mod outcomes;
mod server;
