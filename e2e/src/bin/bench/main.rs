//! Size, memory and latency of the installed operator, each beside the bar that the project sets itself; what strategies, many
//! sessions and failing servers cost.
//!
//! Expects a cluster that is up with the operator in it; `--binary` is the file that is in its image.

mod failover;
mod sizes;
mod strategies;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use e2e::app::SHOP;
use e2e::policy::{Policies, SHARED_LIMIT, in_store};
use e2e::process::resident;
use e2e::{Cluster, audit, with_temp_namespace};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use session_operator::drill::table::{self, Cell};

/// Policies while memory is measured.
const POLICIES: usize = 3;

/// Applies that are timed.
const ROUNDS: usize = 21;

/// Policies with strategy Shared that are set up and taken away again, one after the other.
const SHARED_ROUNDS: usize = 3;

/// How long the operator may go on after the last change before it is watched.
const SETTLED: Duration = Duration::from_secs(30);

/// How long the operator is watched while nobody does anything; several times longer than until it looks at Secrets and
/// stores again.
const STEADY: Duration = Duration::from_mins(4);

/// Measures an installed operator.
#[derive(Debug, Parser)]
struct Arguments {
    /// The operator's binary.
    #[arg(long)]
    binary: PathBuf,
    /// The only table to make.
    #[arg(value_enum)]
    only: Option<Part>,
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The operator itself.
    Operator,
    /// What users and pods pay for each strategy.
    Strategies,
    /// What many sessions cost.
    Sizes,
    /// What users notice when servers of a store fail or are restarted.
    Failover,
}

/// One line of the table.
struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    bar: f64,
}

impl Figure {
    fn holds(&self) -> bool {
        self.value <= self.bar
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let wanted = |part| arguments.only.is_none_or(|only| only == part);
    let mut holds = true;
    if wanted(Part::Operator) {
        holds = operator(&arguments.binary).await?;
    }
    if wanted(Part::Strategies) {
        with_temp_namespace("bench-strategies", async |cluster, namespace| {
            print!("\n{}", strategies::measure(cluster, namespace).await?);
            Ok(())
        })
        .await?;
    }
    if wanted(Part::Sizes) {
        with_temp_namespace("bench-sizes", async |cluster, namespace| {
            print!("\n{}", sizes::measure(cluster, namespace).await?);
            Ok(())
        })
        .await?;
    }
    if wanted(Part::Failover) {
        let mut figures = Vec::new();
        for kind in &failover::KINDS {
            with_temp_namespace("bench-failover", async |cluster, namespace| {
                figures.extend(failover::measure(cluster, namespace, kind).await?);
                Ok(())
            })
            .await?;
        }
        holds &= figures.iter().all(Figure::holds);
        print!("{}", render(&figures));
    }
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The operator's figures; whether all are within their bars.
async fn operator(binary: &Path) -> Result<bool> {
    let size = std::fs::metadata(binary)
        .with_context(|| binary.display().to_string())?
        .len();
    let mut figures = vec![figure("release binary", megabytes(size), "MB", 15.0)];
    let mut measured = Vec::new();
    with_temp_namespace("bench", async |cluster, namespace| {
        let mut shared = Vec::new();
        let client = &cluster.client;
        let policies = Policies::new(client, namespace);
        for number in 0..POLICIES {
            target(client, namespace, &format!("app-{number}")).await?;
            policies
                .create(&format!("app-{number}"), &format!("app-{number}"), Value::Null)
                .await?;
        }
        for number in 0..POLICIES {
            policies.ready(&format!("app-{number}")).await?;
        }
        with_temp_namespace("bench-shared", async |cluster, shared_namespace| {
            shared = shared_times(cluster, shared_namespace).await?;
            measured.extend(steady(cluster, namespace, shared_namespace).await?);
            Ok(())
        })
        .await?;
        // After the applies below every replica has seen the same objects come and go.
        let times = latencies(client, namespace).await?;
        let at = |share: usize| {
            times
                .get((times.len() - 1) * share / 100)
                .copied()
                .unwrap_or_default()
                .as_secs_f64()
                * 1e3
        };
        let what = "kubectl apply to annotations written";
        for (pid, bytes) in resident(&["/session-operator", "run"])? {
            measured.push(figure(
                &format!("resident memory, {POLICIES} policies (after {SHARED_ROUNDS} under Shared), process {pid}"),
                megabytes(bytes),
                "MB",
                25.0,
            ));
        }
        measured.push(figure(
            &format!("{what}, median of {ROUNDS}"),
            at(50),
            "ms",
            1000.0,
        ));
        measured.push(figure(
            &format!("kubectl apply to Ready under Shared, with a store of its own and 3 pods of the shop, median of {SHARED_ROUNDS}"),
            shared.get(SHARED_ROUNDS / 2).copied().unwrap_or_default().as_secs_f64(),
            "s",
            60.0,
        ));
        println!(
            "{what}: min {:.0}, median {:.0}, p90 {:.0}, max {:.0} ms\n",
            at(0),
            at(50),
            at(90),
            at(100)
        );
        Ok(())
    })
    .await?;
    figures.extend(measured);
    print!("{}", render(&figures));
    Ok(figures.iter().all(Figure::holds))
}

fn figure(what: &str, value: f64, unit: &'static str, bar: f64) -> Figure {
    Figure {
        what: what.to_owned(),
        value,
        unit,
        bar,
    }
}

#[allow(clippy::cast_precision_loss, reason = "megabytes with one decimal")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn render(figures: &[Figure]) -> String {
    let rows: Vec<Vec<Cell>> = figures
        .iter()
        .map(|figure| {
            vec![
                Cell::text(&figure.what),
                Cell::number(&format!("{:.1} {}", figure.value, figure.unit)),
                Cell::number(&format!("{:.0} {}", figure.bar, figure.unit)),
                Cell::number(&if figure.bar > 0.0 {
                    format!("{:.2}", figure.value / figure.bar)
                } else {
                    String::new()
                }),
                Cell::text(if figure.holds() { "holds" } else { "FALLS SHORT" }),
            ]
        })
        .collect();
    table::render(&["figure", "measured", "bar", "ratio", ""], &rows)
}

/// A Deployment without pods, its Service and an Ingress of Traefik's: enough to be configured.
async fn target(client: &kube::Client, namespace: &str, name: &str) -> Result<()> {
    let labels = json!({"app": name});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "localhost/none:1"}]}});
    let deployment = json!({"metadata": {"name": name}, "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}});
    let service = json!({"metadata": {"name": name}, "spec": {"selector": labels, "ports": [{"port": 80}]}});
    let backend = json!({"service": {"name": name, "port": {"number": 80}}});
    let rule = json!({"host": format!("{name}.{namespace}.test"), "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}});
    let ingress =
        json!({"metadata": {"name": name}, "spec": {"ingressClassName": "traefik", "rules": [rule]}});
    let params = PostParams::default();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    deployments
        .create(&params, &serde_json::from_value(deployment)?)
        .await?;
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    services
        .create(&params, &serde_json::from_value(service)?)
        .await?;
    let ingresses: Api<Ingress> = Api::namespaced(client.clone(), namespace);
    ingresses
        .create(&params, &serde_json::from_value(ingress)?)
        .await?;
    Ok(())
}

/// Times from the request that creates a policy to the event that shows its annotations, sorted.
async fn latencies(client: &kube::Client, namespace: &str) -> Result<Vec<Duration>> {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let policies = Policies::new(client, namespace);
    target(client, namespace, "timed").await?;
    let annotated = |service: Option<&Service>| {
        service.is_some_and(|service| service.annotations().keys().any(|key| key.contains("sticky")))
    };
    let mut times = Vec::new();
    for _round in 0..ROUNDS {
        // The watch is there before the clock starts.
        let seen = tokio::spawn(await_condition(services.clone(), "timed", annotated));
        let begun = Instant::now();
        policies.create("timed", "timed", Value::Null).await?;
        tokio::time::timeout(Duration::from_secs(30), seen)
            .await
            .context("no annotations within 30 s")???;
        times.push(begun.elapsed());
        policies.remove("timed").await?;
    }
    times.sort_unstable();
    Ok(times)
}

/// Times from the request that creates a policy until every pod of the shop keeps its sessions in a store that was made for
/// it, sorted. The last policy stays.
async fn shared_times(cluster: &Cluster, namespace: &str) -> Result<Vec<Duration>> {
    SHOP.manifests(namespace)?
        .create(&cluster.client, namespace)
        .await?;
    let policies = Policies::new(&cluster.client, namespace);
    let spec = in_store(
        SHOP,
        &json!({"store": {"engine": "Redis", "deletionPolicy": "Delete"}}),
    );
    let mut times = Vec::new();
    for round in 0..SHARED_ROUNDS {
        if round > 0 {
            policies.remove_within(SHOP.name, SHARED_LIMIT).await?;
        }
        let begun = Instant::now();
        policies.shared(spec.clone()).await?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

/// Requests of the operator to the API server, without watches, while nobody does anything.
#[allow(clippy::cast_precision_loss, reason = "small numbers")]
async fn steady(cluster: &Cluster, sticky: &str, shared: &str) -> Result<Vec<Figure>> {
    // What the last change has set off is to be over.
    tokio::time::sleep(SETTLED).await;
    let since = audit::now();
    tokio::time::sleep(STEADY).await;
    let mut figures = Vec::new();
    let mut writes = 0;
    for (strategy, namespace, policies, bar) in
        [("Sticky", sticky, POLICIES, 1.0), ("Shared", shared, 1, 30.0)]
    {
        let requests = audit::requests(cluster, namespace, &since).await?;
        writes += requests.iter().filter(|request| request.is_write()).count();
        figures.push(figure(
            &format!("API requests per minute and policy in steady state, {strategy}"),
            requests.len() as f64 / policies as f64 / (STEADY.as_secs_f64() / 60.0),
            "",
            bar,
        ));
    }
    figures.push(figure(
        &format!(
            "API writes in {} min of steady state, all policies",
            STEADY.as_secs() / 60
        ),
        writes as f64,
        "",
        0.0,
    ));
    Ok(figures)
}
