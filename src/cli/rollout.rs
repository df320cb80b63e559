//! `rollout`: lets the pods of a policy be replaced by ones with the newest revision of what is injected.

use std::time::{Duration, Instant};

use clap::Args;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::{CliError, ConnectionArgs, output};
use crate::api::conditions::{reasons, types};
use crate::api::session_policy::Injection;
use crate::api::{ROLLOUT_ANNOTATION, SessionPolicy};

/// Pause between looks at the rollout.
const PERIOD: Duration = Duration::from_secs(1);

/// Arguments of `rollout`.
#[derive(Args, Debug)]
pub struct RolloutArgs {
    /// Name of the policy
    name: String,

    /// Do not wait until every pod is replaced
    #[arg(long)]
    no_wait: bool,

    /// Longest wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
}

/// Accepts the revision that waits, and watches the pods being replaced.
pub async fn run(args: &RolloutArgs, connection: &ConnectionArgs) -> Result<(), CliError> {
    let client = connection.client().await?;
    let policies: Api<SessionPolicy> = Api::default_namespaced(client.clone());
    let policy = read(&client, &policies, &args.name).await?;
    let injection = policy.status.and_then(|status| status.injection);
    let Some(revision) = injection
        .as_ref()
        .and_then(|injection| injection.next_revision.clone())
    else {
        let state = match injection.and_then(|injection| injection.revision) {
            Some(revision) => format!("its pods are to run with revision {revision}, which is the newest"),
            None => "the operator has not prepared anything for its pods yet; see kubectl session status"
                .to_owned(),
        };
        output::print(&output::printable(&format!(
            "{}: nothing to roll out: {state}\n",
            args.name
        )))?;
        return Ok(());
    };
    // With the time, so that the same revision can be accepted again after a rollback.
    let accepted = format!("{revision} at {}", jiff::Timestamp::now());
    let annotation = json!({"metadata": {"annotations": {ROLLOUT_ANNOTATION: accepted}}});
    policies
        .patch(&args.name, &PatchParams::default(), &Patch::Merge(&annotation))
        .await
        .map_err(|error| super::status::explain(&error))?;
    eprintln!("{}: revision {revision} is rolled out", args.name);
    if args.no_wait {
        return Ok(());
    }
    wait(&client, &policies, args, &revision).await
}

async fn read(client: &Client, policies: &Api<SessionPolicy>, name: &str) -> Result<SessionPolicy, CliError> {
    let found = policies
        .get_opt(name)
        .await
        .map_err(|error| super::status::explain(&error))?;
    found.ok_or_else(|| super::status::not_found(client.default_namespace(), name))
}

async fn wait(
    client: &Client,
    policies: &Api<SessionPolicy>,
    args: &RolloutArgs,
    revision: &str,
) -> Result<(), CliError> {
    let begun = Instant::now();
    let mut said = String::new();
    loop {
        let policy = read(client, policies, &args.name).await?;
        let (done, sentence) = progress(&policy, revision);
        if sentence != said {
            eprintln!("{}", output::printable(&format!("{}: {sentence}", args.name)));
            said = sentence;
        }
        if done {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(args.timeout) {
            return Err(format!(
                "the rollout is not over after {} s; it goes on, see kubectl session status {}",
                args.timeout, args.name
            )
            .into());
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Whether every pod runs with `revision`, and a sentence about how far it is.
fn progress(policy: &SessionPolicy, revision: &str) -> (bool, String) {
    let status = policy.status.clone().unwrap_or_default();
    let Some(Injection {
        revision: marked,
        injected_pods,
        total_pods,
        ..
    }) = status.injection
    else {
        return (false, "the operator has not answered yet".to_owned());
    };
    let injected = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == types::INJECTED);
    let over =
        marked.as_deref() == Some(revision) && injected.is_some_and(|condition| condition.status == "True");
    if over {
        return (true, format!("{injected_pods} of {total_pods} pods are injected"));
    }
    match injected {
        Some(condition) if condition.reason != reasons::ROLLOUT_NEEDED => (false, condition.message.clone()),
        _ => (false, "waiting for the operator".to_owned()),
    }
}
