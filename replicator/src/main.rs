//! The sidecar's process: arguments, logs, event loop.

use std::process::ExitCode;

use clap::Parser as _;
use session_replicator::config::{Cli, LogFormat, Operations, Verb};
use session_replicator::runtime::{self, RunError};
use tokio::task::LocalSet;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match cli.command {
        Some(Verb::Ctl {
            control_socket,
            request,
        }) => match runtime.block_on(runtime::control::ask(&control_socket, request)) {
            Ok(answer) => {
                print!("{answer}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&format!("{} does not answer: {error}", control_socket.display())),
        },
        Some(Verb::Linger(linger)) => {
            if let Err(error) = start_logs(&linger.operations) {
                return fail(&error);
            }
            end(LocalSet::new().block_on(&runtime, runtime::linger(&linger.operations)))
        }
        None => {
            if let Err(error) = start_logs(&cli.serve.operations) {
                return fail(&error);
            }
            end(LocalSet::new().block_on(&runtime, runtime::run(*cli.serve)))
        }
    }
}

fn end(outcome: Result<(), RunError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn start_logs(operations: &Operations) -> Result<(), String> {
    let rules = &operations.log;
    let filter =
        EnvFilter::try_new(rules).map_err(|error| format!("--log {rules:?} is not understood: {error}"))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match operations.log_format {
        LogFormat::Json => logs.json().init(),
        LogFormat::Text => logs.init(),
    }
    Ok(())
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("session-replicator: {error}");
    ExitCode::FAILURE
}
