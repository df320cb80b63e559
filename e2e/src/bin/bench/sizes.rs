//! What many sessions cost: memory of the sidecars, and how long all pods take to be replaced when each hands over what it
//! has, beside the same application with its sessions in a store.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::Cluster;
use e2e::app::{Running, SHOP};
use e2e::policy::{Policies, SHARED_LIMIT};
use serde_json::json;
use session_operator::drill::Marks;
use session_operator::drill::event::Event;
use session_operator::drill::table::{self, Cell};

use crate::strategies::keep;
use e2e::process::resident;

/// Sessions.
const COUNTS: [u32; 2] = [10_000, 100_000];

/// Bytes in each.
const BYTES: u32 = 2_048;

/// How long replicas may take to have what one of them got.
const COPIED: Duration = Duration::from_mins(2);

/// A connection to where the pod's session handler keeps sessions; through the handler each session would need one of its own,
/// which takes longer than everything that is measured.
const CONNECT: &str = r#"
    $url = parse_url(ini_get("session.save_path"));
    parse_str($url["query"], $query);
    $redis = new Redis;
    $host = ($url["scheme"] === "tls" ? "tls://" : "") . $url["host"];
    $stream = isset($query["stream"]) ? ["stream" => $query["stream"]] : [];
    $redis->connect($host, $url["port"], 5, null, 0, 30, $stream);
    if (isset($query["auth"])) { $redis->auth(array_values((array) $query["auth"])); }
    $key = fn($i) => $query["prefix"] . "sizes" . $i;
"#;

/// Writes the sessions `from` to `to` - 1, encoded as PHP does it.
fn fill(from: u32, to: u32) -> String {
    format!(
        r#"{CONNECT}
        $session = 'basket|s:{BYTES}:"' . str_repeat("x", {BYTES}) . '";';
        for ($i = {from}; $i < {to};) {{
            $some = $redis->multi(Redis::PIPELINE);
            for ($n = 0; $n < 100 && $i < {to}; $n++, $i++) {{ $some->setex($key($i), 1440, $session); }}
            foreach ($some->exec() as $written) {{ if ($written !== true) {{ exit(1); }} }}
        }}"#
    )
}

/// Prints how many of the first `count` sessions are there.
fn counted(count: u32) -> String {
    format!(
        r"{CONNECT}
        for ($found = $i = 0; $i < {count};) {{
            $some = $redis->multi(Redis::PIPELINE);
            for ($n = 0; $n < 100 && $i < {count}; $n++, $i++) {{ $some->strlen($key($i)); }}
            foreach ($some->exec() as $length) {{ $found += $length > {BYTES}; }}
        }}
        echo $found;"
    )
}

/// Runs a script by PHP on the command line in a pod of the shop, with the configuration that the pod has.
async fn php(cluster: &Cluster, namespace: &str, script: &str) -> Result<String> {
    let target = format!("deployment/{}", SHOP.name);
    let mut command = vec!["kubectl", "exec", "--namespace", namespace, &target];
    command.extend(["--container", "web", "--", "php", "-r", script]);
    cluster.run(command).await
}

/// How many of the first `count` sessions a pod of the shop finds.
async fn found(cluster: &Cluster, namespace: &str, count: u32) -> Result<u32> {
    let printed = php(cluster, namespace, &counted(count)).await?;
    printed
        .trim()
        .parse()
        .with_context(|| format!("PHP printed {printed:?}"))
}

/// Replaces all pods; how long that took.
async fn replace(shop: &Running) -> Result<Duration> {
    let begun = Instant::now();
    shop.workload.cause(&Event::Restart, &Marks::begin()).await?;
    Ok(begun.elapsed())
}

/// The table.
pub async fn measure(cluster: &Cluster, namespace: &str) -> Result<String> {
    let (shop, entry) = SHOP.manifests(namespace)?.behind_traefik(cluster).await?;
    let policies = Policies::new(&cluster.client, namespace);
    let store = json!({"store": {"engine": "Redis", "memory": "512Mi", "deletionPolicy": "Delete"}});
    let places = [
        ("Shared (Redis)", "Shared", "shared", store),
        (
            "Replicated, All",
            "Replicated",
            "replicated",
            json!({"mode": "All", "memory": "512Mi"}),
        ),
        (
            "Replicated, Backup(1)",
            "Replicated",
            "replicated",
            json!({"mode": "Backup", "backups": 1, "memory": "512Mi"}),
        ),
    ];
    let mut rows = Vec::new();
    for (name, strategy, field, settings) in places {
        // No sessions of one place are to be in the next.
        if policies.api().get_opt(SHOP.name).await?.is_some() {
            policies.remove_within(SHOP.name, SHARED_LIMIT).await?;
        }
        let mut spec = json!({
            "targetRef": {"name": SHOP.name},
            "client": {"framework": SHOP.framework},
            "strategy": strategy,
        });
        if let Some(spec) = spec.as_object_mut() {
            spec.insert(field.to_owned(), settings);
        }
        keep(&policies, spec).await?;
        shop.routed(entry).await?;
        let mut there = 0;
        let empty = largest(strategy)?;
        rows.push(row(name, 0, empty, replace(&shop).await?, 0));
        for count in COUNTS {
            let begun = Instant::now();
            php(cluster, namespace, &fill(there, count)).await?;
            eprintln!(
                "{name}: {} sessions written in {:.0} s",
                count - there,
                begun.elapsed().as_secs_f64()
            );
            there = count;
            let full = copied(cluster, namespace, strategy, count).await?;
            let took = replace(&shop).await?;
            rows.push(row(
                name,
                count,
                full,
                took,
                found(cluster, namespace, count).await?,
            ));
        }
    }
    let heads = [
        "sessions of 2 KB, 3 pods of the shop",
        "sessions",
        "largest sidecar",
        "rollout",
        "kept",
    ];
    Ok(table::render(&heads, &rows))
}

/// The largest sidecar once every session is where it belongs; 0 where there is none.
async fn copied(cluster: &Cluster, namespace: &str, strategy: &str, count: u32) -> Result<u64> {
    ensure!(
        found(cluster, namespace, count).await? == count,
        "not all sessions were written"
    );
    // Sidecars stop growing when they have everything.
    let begun = Instant::now();
    let mut last = 0;
    loop {
        let bytes = largest(strategy)?;
        if bytes <= last || begun.elapsed() > COPIED {
            return Ok(bytes);
        }
        last = bytes;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

fn largest(strategy: &str) -> Result<u64> {
    if strategy != "Replicated" {
        return Ok(0);
    }
    let sidecars = resident(&["/session-replicator"])?;
    Ok(sidecars
        .into_iter()
        .map(|(_, bytes)| bytes)
        .max()
        .unwrap_or_default())
}

fn row(name: &str, count: u32, bytes: u64, took: Duration, kept: u32) -> Vec<Cell> {
    let sidecar = if bytes == 0 {
        String::new()
    } else {
        format!("{} MB", bytes / 1_000_000)
    };
    vec![
        Cell::text(name),
        Cell::number(&count.to_string()),
        Cell::number(&sidecar),
        Cell::number(&format!("{:.0} s", took.as_secs_f64())),
        Cell::number(&if count == 0 {
            String::new()
        } else {
            kept.to_string()
        }),
    ]
}
