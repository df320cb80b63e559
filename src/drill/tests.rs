//! The drill against a real HTTP server on loopback that can be told to lose, move, spoil and revive sessions.

mod accounts;
mod cookies;
mod courses;
mod descriptions;
mod outcomes;
mod pages;
mod server;
