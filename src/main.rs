//! The operator: arguments → run.

use std::process::ExitCode;

use clap::Parser;
use session_operator::policy::controller;
use session_operator::runtime::args::{Cli, Command};
use session_operator::runtime::{commands, operator, telemetry};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let run = async {
        telemetry::init(&cli.log)?;
        match cli.command.unwrap_or(Command::Run(cli.run)) {
            Command::Run(args) => operator::run(args, controller::run).await.map_err(Into::into),
            Command::Crds => commands::crds::print(),
            Command::PreDeleteCheck(args) => commands::pre_delete::check(&args).await,
            Command::SelfTest(args) => commands::self_test::run(&args).await,
        }
    };
    session_operator::runtime::block_on(run)
}
