//! `support-bundle`: one file for a bug report, with everything about policies and nothing that is secret.
//!
//! [`collect`] reads, [`pick`] says what of a namespace has to do with the policies, [`redact`] masks, [`write`] packs.

mod collect;
mod kinds;
mod pick;
mod progress;
mod redact;
#[cfg(test)]
mod tests;
mod write;

use std::path::PathBuf;

use clap::Args;
use kube::Api;

use self::collect::{Wanted, collect};
use self::progress::Progress;
use self::redact::Redactor;
use super::{CliError, ConnectionArgs, output};
use crate::api::SessionPolicy;

/// Arguments of `support-bundle`.
#[derive(Args, Debug)]
pub struct SupportBundleArgs {
    /// Name of the policy; without it all policies of the namespace
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,

    /// File to write, which must not exist yet [default: session-support-NAMESPACE-TIME.tar.gz]
    #[arg(long, value_name = "FILE.tar.gz", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,

    /// Where the operator runs, if you may not list pods of all namespaces
    #[arg(long, value_name = "NAME", default_value = "session-operator")]
    operator_namespace: String,

    /// Last lines of each log
    #[arg(long, value_name = "LINES", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    log_lines: u32,
}

/// Reads, masks and writes.
pub async fn run(args: &SupportBundleArgs, connection: &ConnectionArgs) -> Result<(), CliError> {
    let client = connection.client().await?;
    let namespace = client.default_namespace().to_owned();
    let made = jiff::Timestamp::now();
    let folder = format!("session-support-{namespace}-{}", made.strftime("%Y%m%dT%H%M%SZ"));
    let path = args
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{folder}.tar.gz")));
    if path.exists() {
        return Err(format!(
            "{} exists already; name another file with --output, or remove it",
            path.display()
        )
        .into());
    }
    let wanted = Wanted {
        namespace,
        policy: args.policy.clone(),
        operator_namespace: args.operator_namespace.clone(),
        log_lines: args.log_lines,
    };
    if let Some(policy) = &args.policy {
        // A name that is mistyped; what else goes wrong becomes a line of the report.
        let policies: Api<SessionPolicy> = Api::default_namespaced(client.clone());
        if matches!(policies.get_metadata_opt(policy).await, Ok(None)) {
            return Err(super::status::not_found(&wanted.namespace, policy));
        }
    }
    let redactor = Redactor::new()?;
    let mut progress = Progress::new();
    let raw = collect(&client, &wanted, &mut progress).await;
    drop(progress);
    let files = write::files(&raw, redactor, &wanted, made);
    write::archive(&files, &folder, &path, made)
        .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    let unread = raw.problems.len();
    let also = if unread == 0 {
        String::new()
    } else {
        format!("; not-read.txt in it says what could not be read ({unread})")
    };
    output::print(&output::printable(&format!(
        "{}: {} files, credentials masked{also}\nLook through it before you send it: README.txt in it says what was masked.\n",
        path.display(),
        files.len()
    )))?;
    Ok(())
}
