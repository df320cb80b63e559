//! Bundles from objects as the API server gives them.

mod bundle;
mod redaction;
mod server;
