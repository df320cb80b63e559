//! What the users and the pods of one application pay for each strategy: the shop, under the same load, in one run.

use std::cell::Cell as Slot;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::Cluster;
use e2e::app::{Running, SHOP};
use e2e::policy::{Policies, SHARED_LIMIT};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use session_operator::drill::event::Event;
use session_operator::drill::table::{self, Cell};
use session_operator::drill::{Class, Options, Report};

use e2e::process::resident;

/// Sessions while latency is measured.
const USERS: u32 = 100;

/// For so long.
const WATCHED: Duration = Duration::from_secs(30);

/// Sessions while all pods are replaced.
const SESSIONS: u32 = 2_000;

/// Where sessions are, and what a policy says of it; nothing for the application as it is.
fn places() -> [(&'static str, Value); 4] {
    let shared = json!({"store": {"engine": "Redis", "deletionPolicy": "Delete"}});
    let spec = |strategy: &str, shared: &Value, replicated: Value| {
        json!({
            "targetRef": {"name": SHOP.name},
            "client": {"framework": SHOP.framework},
            "strategy": strategy,
            "shared": shared,
            "replicated": replicated,
        })
    };
    [
        ("as it is (files, any pod)", Value::Null),
        ("Shared (Redis over TLS)", spec("Shared", &shared, Value::Null)),
        (
            "Replicated, All",
            spec("Replicated", &Value::Null, json!({"mode": "All"})),
        ),
        (
            "Replicated, Backup(1)",
            spec(
                "Replicated",
                &Value::Null,
                json!({"mode": "Backup", "backups": 1}),
            ),
        ),
    ]
}

/// The table.
pub async fn measure(cluster: &Cluster, namespace: &str) -> Result<String> {
    let (shop, entry) = SHOP.manifests(namespace)?.behind_traefik(cluster).await?;
    let policies = Policies::new(&cluster.client, namespace);
    let mut rows = Vec::new();
    let mut in_store = None;
    for (name, spec) in places() {
        if !spec.is_null() {
            keep(&policies, spec).await?;
            shop.routed(entry).await?;
        }
        let calm = shop.drill(entry, calm(), &Event::Nothing(WATCHED)).await?;
        let sidecars: Vec<u64> = if name.starts_with("Replicated") {
            resident(&["/session-replicator"])?
                .into_iter()
                .map(|(_, bytes)| bytes)
                .collect()
        } else {
            Vec::new()
        };
        let (replaced, took) = replace(&shop, entry).await?;
        let p50 = f64::from(calm.latency.p50_us) / 1e3;
        if name.starts_with("Shared") {
            in_store = Some(p50);
        }
        let kept = replaced.count(Class::Kept) + replaced.count(Class::Moved);
        let largest = sidecars
            .iter()
            .max()
            .map(|bytes| format!("{} MB", bytes / 1_000_000));
        rows.push(vec![
            Cell::text(name),
            Cell::number(&format!("{p50:.1} ms")),
            Cell::number(&format!("{:.1} ms", f64::from(calm.latency.p99_us) / 1e3)),
            Cell::number(&in_store.map_or_else(String::new, |store| format!("{:.2}", p50 / store))),
            Cell::number(&largest.unwrap_or_default()),
            Cell::number(&format!("{:.0} s", took.as_secs_f64())),
            Cell::number(&kept.to_string()),
            Cell::number(&replaced.failed().to_string()),
        ]);
    }
    let heads = [
        "sessions of the shop, 3 pods",
        "request p50",
        "p99",
        "p50 to Shared",
        "largest sidecar",
        "rollout",
        "kept",
        "requests failed",
    ];
    Ok(format!(
        "{USERS} users for latency; {SESSIONS} sessions while all pods are replaced\n\n{}",
        table::render(&heads, &rows)
    ))
}

/// Makes a policy of the shop, or edits the one that is there, and waits until it is done.
pub async fn keep(policies: &Policies, spec: Value) -> Result<()> {
    if policies.api().get_opt(SHOP.name).await?.is_some() {
        let patch = Patch::Merge(json!({"spec": spec}));
        policies
            .api()
            .patch(SHOP.name, &PatchParams::default(), &patch)
            .await?;
    } else {
        policies.create_with(SHOP.name, spec).await?;
    }
    policies.ready_within(SHOP.name, SHARED_LIMIT).await?;
    Ok(())
}

fn calm() -> Options {
    Options {
        members: USERS,
        period: Duration::from_secs(3),
        write_every: 3,
        before: Duration::from_secs(2),
        settle: Duration::from_secs(1),
        ..Options::default()
    }
}

/// Replaces all pods while users are there; how long that took.
async fn replace(shop: &Running, entry: SocketAddr) -> Result<(Report, Duration)> {
    let options = Options {
        members: SESSIONS,
        period: Duration::from_mins(1),
        timeout: Duration::from_secs(20),
        event_limit: SHARED_LIMIT,
        ..Options::default()
    };
    let took = Slot::new(Duration::ZERO);
    let report = shop
        .drill_with(entry, options, "rollout restart", async || {
            let begun = Instant::now();
            let marks = session_operator::drill::Marks::begin();
            shop.workload.cause(&Event::Restart, &marks).await?;
            took.set(begun.elapsed());
            Ok(())
        })
        .await?;
    ensure!(
        report.count(Class::LoginFailed) == 0,
        "users could not log in: {}",
        report.table()
    );
    Ok((report, took.get()))
}
