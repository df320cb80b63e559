//! What every part of the operator runs on: leader election, the API client, metrics, probes, logs, shutdown.
//!
//! Nothing here decides on policies. [`operator::run`] puts the parts together and hands a [`Runtime`] to the
//! controllers; [`commands`] are the operator's other subcommands.

pub mod args;
pub mod backoff;
pub mod client;
pub mod commands;
pub mod events;
pub mod http;
pub mod leader;
pub mod metrics;
pub mod operator;
pub mod permissions;
pub mod shutdown;
pub mod telemetry;
pub mod writer;

use std::process::ExitCode;

pub use operator::{Runtime, Scope};

/// Worker threads of a program. Its work is waiting for the API server; more threads only cost memory.
const WORKER_THREADS: usize = 2;

/// Runs the body of a program: sets up TLS and the executor, waits for `main`, and reports its error on stderr.
///
/// Does not wait for tasks that still run when `main` is over: whoever has lost the lease must end at once.
pub fn block_on<F>(main: F) -> ExitCode
where
    F: Future<Output = Result<(), Box<dyn std::error::Error>>>,
{
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("error: another TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    let executor = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build();
    let result = match executor {
        Ok(executor) => {
            let result = executor.block_on(main);
            executor.shutdown_background();
            result
        }
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
