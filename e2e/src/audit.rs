//! What the operator asked of the API server, from the cluster's audit log.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Cluster;

/// One finished request of the operator.
#[derive(Clone, Debug)]
pub struct Request {
    /// Verb of the API, such as `patch`.
    pub verb: String,
    /// Resource with its subresource, and the object's name.
    pub object: String,
    /// Whether nothing was to be changed by it.
    pub dry_run: bool,
    /// HTTP status code of the answer.
    pub code: u64,
}

impl Request {
    /// Whether it changes something.
    pub fn is_write(&self) -> bool {
        !self.dry_run && matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete")
    }
}

/// The time of the API server's machine, as the log writes it.
pub fn now() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S.%6fZ")
        .to_string()
}

/// Requests of the operator in a namespace since a time, without watches, in the order in which they ended.
pub async fn requests(cluster: &Cluster, namespace: &str, since: &str) -> Result<Vec<Request>> {
    let path = cluster.logs.join("audit.log");
    let log = tokio::fs::read_to_string(&path)
        .await
        .with_context(|| format!("reading {}", path.display()))?;
    let text = |entry: &Value, pointer: &str| {
        let found = entry.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    // A cheap look first: the log of a whole run has many lines.
    let lines = log
        .lines()
        .filter(|line| line.contains(namespace) && line.contains("session-operator/"));
    Ok(lines
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|entry| {
            text(entry, "/userAgent").starts_with("session-operator/")
                && text(entry, "/requestReceivedTimestamp").as_str() >= since
                && text(entry, "/verb") != "watch"
                && (text(entry, "/objectRef/namespace") == namespace
                    || text(entry, "/objectRef/name") == namespace)
        })
        .map(|entry| {
            let resource = [
                text(&entry, "/objectRef/resource"),
                text(&entry, "/objectRef/subresource"),
                text(&entry, "/objectRef/name"),
            ];
            Request {
                verb: text(&entry, "/verb"),
                object: resource.join("/"),
                dry_run: text(&entry, "/requestURI").contains("dryRun=All"),
                code: entry
                    .pointer("/responseStatus/code")
                    .and_then(Value::as_u64)
                    .unwrap_or_default(),
            }
        })
        .collect())
}

/// Fails if the operator asks more than `reads` times, or writes more than `writes` times, within a time in which nobody
/// does anything in the namespace. Says how often it did.
pub async fn stays_calm(
    cluster: &Cluster,
    namespace: &str,
    period: Duration,
    reads: usize,
    writes: usize,
) -> Result<()> {
    // Status and Events of what just happened.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let since = now();
    tokio::time::sleep(period).await;
    let seen = requests(cluster, namespace, &since).await?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for request in &seen {
        *counts
            .entry(format!("{} {}", request.verb, request.object))
            .or_default() += 1;
    }
    let written = seen.iter().filter(|request| request.is_write()).count();
    eprintln!(
        "{namespace}: {} requests within {period:?}, {written} of them writes",
        seen.len()
    );
    ensure!(
        written <= writes && seen.len() - written <= reads,
        "{} requests within {period:?}, {written} of them writes: {counts:#?}",
        seen.len()
    );
    Ok(())
}
