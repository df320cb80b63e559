//! `plan`: what a policy would change, and what sessions would survive, before it is applied.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use similar::TextDiff;

use super::table::Table;
use super::{CliError, ConnectionArgs, output};
use crate::api::{SessionPolicy, Survival};
use crate::policy::caches;
use crate::policy::forecast::{self, Change, Forecast};

/// Unchanged lines around a change.
const CONTEXT: usize = 3;

/// Arguments of `plan`.
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// A file with a SessionPolicy, or the name of one that exists
    #[arg(value_name = "FILE|NAME")]
    policy: String,
}

/// Asks the API server what would become of every object, without changing one.
pub async fn run(args: &PlanArgs, connection: &ConnectionArgs) -> Result<(), CliError> {
    let client = connection.client().await?;
    let file = Path::new(&args.policy);
    let (policy, former) = if file.exists() {
        from_file(&client, file, connection).await?
    } else {
        named(&client, &args.policy).await?
    };
    let namespace = policy.namespace().unwrap_or_default();
    let caches = caches::read_once(&client, &namespace)
        .await
        .map_err(|error| super::status::explain(&error))?;
    let forecast = forecast::forecast(&client, &caches, &policy)
        .await
        .map_err(|error| error.explain())?;
    let before = former
        .and_then(|former| former.status)
        .map(|status| status.survives)
        .unwrap_or_default();
    output::print(&output::printable(&render(&policy, &forecast, &before)))?;
    Ok(())
}

async fn named(client: &Client, name: &str) -> Result<(SessionPolicy, Option<SessionPolicy>), CliError> {
    let policies: Api<SessionPolicy> = Api::default_namespaced(client.clone());
    let found = policies
        .get_opt(name)
        .await
        .map_err(|error| super::status::explain(&error))?
        .ok_or_else(|| super::status::not_found(client.default_namespace(), name))?;
    Ok((found.clone(), Some(found)))
}

/// The policy of a file as the API server would store it, and the one that stands now.
async fn from_file(
    client: &Client,
    file: &Path,
    connection: &ConnectionArgs,
) -> Result<(SessionPolicy, Option<SessionPolicy>), CliError> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut wanted: Value =
        serde_saphyr::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    if wanted.get("kind").and_then(Value::as_str) != Some("SessionPolicy") {
        return Err(format!("{} does not hold one SessionPolicy", file.display()).into());
    }
    let of_file = wanted
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let namespace = match (&of_file, &connection.namespace) {
        (Some(of_file), Some(flag)) if of_file != flag => {
            return Err(format!(
                "{} says namespace {of_file}, --namespace says {flag}",
                file.display()
            )
            .into());
        }
        (Some(of_file), _) => of_file.clone(),
        (None, _) => client.default_namespace().to_owned(),
    };
    let policies: Api<SessionPolicy> = Api::namespaced(client.clone(), &namespace);
    let name = wanted
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .ok_or_else(|| format!("{}: metadata.name is missing", file.display()))?
        .to_owned();
    let standing = policies
        .get_opt(&name)
        .await
        .map_err(|error| super::status::explain(&error))?;
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let stored = match &standing {
        None => {
            let object =
                serde_json::from_value(wanted).map_err(|error| format!("{}: {error}", file.display()))?;
            policies.create(&parameters, &object).await
        }
        Some(standing) => {
            // What is not in the file stays: metadata that the operator and others keep on the object.
            if let Some(object) = wanted.as_object_mut() {
                object.insert("metadata".to_owned(), json!(standing.metadata));
                object.remove("status");
            }
            let object =
                serde_json::from_value(wanted).map_err(|error| format!("{}: {error}", file.display()))?;
            policies.replace(&name, &parameters, &object).await
        }
    };
    let stored = stored.map_err(|error| super::status::explain(&error))?;
    Ok((stored, standing))
}

fn render(policy: &SessionPolicy, forecast: &Forecast, before: &[Survival]) -> String {
    let mut text = format!(
        "SessionPolicy {}/{}, strategy {:?}\n",
        policy.namespace().unwrap_or_default(),
        policy.name_any(),
        policy.spec.strategy
    );
    // Writing to a String cannot fail.
    for trouble in &forecast.troubles {
        _ = writeln!(text, "\nIn the way: {trouble}");
    }
    if forecast.changes.is_empty() {
        text.push_str("\nNo object would change.\n");
    }
    for change in &forecast.changes {
        _ = writeln!(text, "\n{}", diff(change));
    }
    for note in &forecast.notes {
        _ = writeln!(text, "\nNote: {note}");
    }
    if !forecast.survives.is_empty() {
        text.push('\n');
        text.push_str(&survives(before, &forecast.survives));
    }
    text
}

fn diff(change: &Change) -> String {
    let yaml = |value: &Value| match value {
        Value::Null => String::new(),
        value => serde_saphyr::to_string(value).unwrap_or_default(),
    };
    let (before, after) = (yaml(&change.before), yaml(&change.after));
    let diff = TextDiff::from_lines(&before, &after);
    let mut unified = diff.unified_diff();
    unified.context_radius(CONTEXT).header(
        &format!("{} now", change.object),
        &format!("{} then", change.object),
    );
    unified.to_string()
}

fn survives(before: &[Survival], after: &[Survival]) -> String {
    let mut table = Table::new(["EVENT", "NOW", "THEN", "REASON", "MESSAGE"]);
    for row in after {
        let now = before.iter().find(|known| known.event == row.event);
        table.row([
            format!("{:?}", row.event),
            now.map_or_else(|| "unknown".to_owned(), |now| format!("{:?}", now.outcome)),
            format!("{:?}", row.outcome),
            row.reason.clone(),
            row.message.clone(),
        ]);
    }
    table.render()
}
