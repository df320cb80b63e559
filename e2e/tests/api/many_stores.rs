//! What watching many stores costs the operator (`make bench`).

use std::time::Duration;

use serde_json::json;

use crate::own::{Own, peace};
use crate::servers::Servers;
use crate::world::condition;

/// Stores, each with three shards of two servers.
const STORES: usize = 40;

/// Most resident memory that the operator may need for them (issue: stores that stay up).
const LIMIT_MB: f64 = 60.0;

/// How long it is watched once all are well.
const WATCHED: Duration = Duration::from_mins(2);

/// Pause between looks at its memory.
const PERIOD: Duration = Duration::from_secs(1);

#[tokio::test]
async fn watching_forty_stores_of_three_shards_takes_little_memory() {
    let _peace = peace().await;
    let own = Own::new("many-stores").await;
    let world = &own.world;
    let operator = own.start_leader().await;
    let before = operator.resident_mb();
    let mut servers = Servers::new(world);
    let names: Vec<String> = (0..STORES).map(|number| format!("store-{number}")).collect();
    for name in &names {
        world
            .create(&json!({
                "apiVersion": "session-operator.dev/v1alpha1",
                "kind": "SessionStore",
                "metadata": {"name": name},
                "spec": {"engine": "Redis", "topology": "Cluster", "memory": "64Mi"},
            }))
            .await;
        for shard in 0..3 {
            servers.start(&format!("{name}-{shard}")).await;
        }
        world
            .until("SessionStore", name, "Ready", |store| {
                condition(store, "Ready").is_some_and(|ready| ready["status"] == "True")
                    && store["status"]["members"]
                        .as_array()
                        .is_some_and(|members| members.iter().all(|member| member["ready"] == true))
            })
            .await;
    }
    let (mut samples, busy) = (Vec::new(), operator.cpu_time());
    for _ in 0..WATCHED.as_secs() / PERIOD.as_secs() {
        tokio::time::sleep(PERIOD).await;
        samples.push(operator.resident_mb());
    }
    let most = samples.iter().copied().fold(0.0, f64::max);
    let busy = operator.cpu_time().saturating_sub(busy).as_secs_f64() / WATCHED.as_secs_f64();
    println!(
        "{STORES} stores, {} servers: resident memory of the operator at most {most:.1} MB in {} s (bar {LIMIT_MB}; {before:.1} MB \
         before there was a store), {:.1} % of a core",
        servers.count(),
        WATCHED.as_secs(),
        busy * 100.0
    );
    for name in &names {
        world.delete("SessionStore", name).await;
    }
    assert!(most <= LIMIT_MB, "falls short");
}
