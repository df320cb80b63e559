//! `kubectl session`: the operator's companion on the command line.

use std::process::ExitCode;

use clap::Parser;
use session_operator::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    session_operator::runtime::block_on(cli::run(cli))
}
