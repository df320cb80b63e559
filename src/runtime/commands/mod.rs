//! The operator's subcommands other than `run`. Each prints its result on stdout and fails with one clear sentence.

pub mod crds;
pub mod pre_delete;
pub mod self_test;

use kube::Client;

use super::client;
use super::leader::Leadership;
use super::metrics::Metrics;

/// Error of a subcommand: read by people only.
pub type CommandError = Box<dyn std::error::Error>;

/// How subcommands name themselves to the API server.
const USER_AGENT: &str = concat!("session-operator/", env!("CARGO_PKG_VERSION"), " (command)");

/// A client of a subcommand.
async fn command_client(leadership: Leadership) -> Result<Client, client::Error> {
    client::build(
        client::infer_config().await?,
        USER_AGENT,
        &Metrics::new(),
        leadership,
    )
}
