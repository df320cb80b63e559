//! The verbs of `kubectl session`, one file each.
//!
//! Results go to stdout; progress, questions and errors to stderr. Everything is done with the user's own rights.

mod completion;
mod connection;
mod detach;
mod drill;
mod output;
mod plan;
mod question;
mod rollout;
mod rotate;
mod status;
mod support_bundle;
mod table;

use clap::{CommandFactory, Parser, Subcommand};

pub use connection::ConnectionArgs;

/// Error of a verb: read by people only.
type CliError = Box<dyn std::error::Error>;

/// Shows and undoes what session-operator sets up around Deployments.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-session",
    bin_name = "kubectl session",
    version,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    verb: Verb,

    /// Which cluster.
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show policies: their routes, what users are bound to, and which events their sessions survive
    Status(status::StatusArgs),
    /// Replace the pods of a policy by ones with the newest revision of what is injected
    Rollout(rollout::RolloutArgs),
    /// Give a store other passwords or certificates, without a failed request
    Rotate(rotate::RotateArgs),
    /// Show what a policy would change, and what its sessions would survive, without changing anything
    Plan(plan::PlanArgs),
    /// Act as users while something happens to the application, and account for every session
    Drill(Box<drill::DrillArgs>),
    /// Undo what policies set up, with your own rights, and suspend them; for when the operator is gone
    Detach(detach::DetachArgs),
    /// Write one file for a bug report: policies, what stands around them, events and logs, without credentials
    SupportBundle(support_bundle::SupportBundleArgs),
    /// Print a completion script for a shell
    Completion(completion::CompletionArgs),
}

/// Runs the verb that the arguments name.
pub async fn run(cli: Cli) -> Result<(), CliError> {
    match cli.verb {
        Verb::Status(args) => status::run(&args, &cli.connection).await,
        Verb::Rollout(args) => rollout::run(&args, &cli.connection).await,
        Verb::Rotate(args) => rotate::run(&args, &cli.connection).await,
        Verb::Plan(args) => plan::run(&args, &cli.connection).await,
        Verb::Drill(args) => drill::run(&args, &cli.connection).await,
        Verb::Detach(args) => detach::run(&args, &cli.connection).await,
        Verb::SupportBundle(args) => support_bundle::run(&args, &cli.connection).await,
        Verb::Completion(args) => completion::run(&args, Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn connection_flags_stand_before_or_after_the_verb() {
        for arguments in [
            ["kubectl-session", "-n", "web", "status", "shop"],
            ["kubectl-session", "status", "shop", "-n", "web"],
        ] {
            let cli = Cli::try_parse_from(arguments).unwrap();
            assert_eq!(cli.connection.namespace.as_deref(), Some("web"), "{arguments:?}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for arguments in [
            ["kubectl-session", "status", "shop", "-A"].as_slice(),
            &["kubectl-session", "status", "-A", "-n", "web"],
            &["kubectl-session", "detach"],
            &["kubectl-session", "detach", "shop", "--all"],
            &["kubectl-session", "status", "-o", "xml"],
            &["kubectl-session", "support-bundle", "--log-lines", "0"],
        ] {
            assert!(Cli::try_parse_from(arguments).is_err(), "{arguments:?}");
        }
    }
}
