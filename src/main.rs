//! The operator: arguments → run.

use std::process::ExitCode;

use clap::Parser;
use session_operator::injection::webhook;
use session_operator::runtime::args::{Cli, Command, RunArgs};
use session_operator::runtime::{Runtime, commands, operator, telemetry};
use session_operator::{policy, store};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let run = async {
        telemetry::init(&cli.log)?;
        match cli.command.unwrap_or(Command::Run(cli.run)) {
            Command::Run(args) => {
                let parts = args.clone();
                operator::run(args, |runtime| controllers(runtime, parts))
                    .await
                    .map_err(Into::into)
            }
            Command::Crds => commands::crds::print(),
            Command::PreDeleteCheck(args) => commands::pre_delete::check(&args).await,
            Command::SelfTest(args) => commands::self_test::run(&args).await,
        }
    };
    session_operator::runtime::block_on(run)
}

/// All that runs beside the runtime: the controllers, which act while this replica leads, and the webhook.
async fn controllers(runtime: Runtime, args: RunArgs) -> Result<(), webhook::Error> {
    let webhook = webhook::run(runtime.clone(), args.webhook, args.lease_namespace);
    let controllers = async {
        let (policies, ()) = tokio::join!(
            policy::controller::run(runtime.clone()),
            store::controller::run(runtime)
        );
        match policies {
            Ok(()) => Ok(()),
            Err(never) => match never {},
        }
    };
    tokio::try_join!(controllers, webhook).map(|((), ())| ())
}
