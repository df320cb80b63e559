//! The operator's webhook, for servers that have no MutatingAdmissionPolicy. It is tested on every server.
//!
//! No kube-proxy runs here, so the chart's Service is made to lead to loopback: its name, which the certificate is
//! for, stays. The cluster's tests have the real thing.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use session_operator::api::SessionInjectionSpec;
use session_operator::injection::contains;
use tokio::task::JoinHandle;

use super::balancer::Balancer;
use super::{as_operator, injection, pod, table, until_admitted};
use crate::operator::{Operator, free_port};
use crate::own::{STAGE, peace};
use crate::wait::until;
use crate::world::World;

/// A release in webhook mode, for one namespace.
struct Release {
    world: World,
    namespace: String,
    balancer: Balancer,
    /// The chart's arguments for the operator about the webhook, without the port.
    arguments: Vec<String>,
}

/// One replica with the port of its webhook.
struct Replica {
    operator: Operator,
    port: u16,
}

impl Release {
    async fn new(name: &str) -> Self {
        let world = World::on(STAGE, name).await;
        let namespace = format!("{}-release", world.namespace);
        let mode = ["--set", "injection.mode=Webhook"];
        STAGE.install_chart_with(&namespace, &[&world.namespace], &mode);
        let deployment = ["deployment", "session-operator", "--output", "json"];
        let deployment = STAGE.kubectl(&[&["--namespace", &namespace, "get"], &deployment[..]].concat());
        let deployment: Value = serde_json::from_str(&deployment).unwrap();
        let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
        let arguments = arguments
            .as_array()
            .unwrap()
            .iter()
            .map(|argument| argument.as_str().unwrap());
        let arguments = arguments
            .filter(|argument| argument.starts_with("--webhook-") && !argument.starts_with("--webhook-port"))
            .map(str::to_owned)
            .collect();
        let release = Self {
            world,
            namespace,
            balancer: Balancer::start().await,
            arguments,
        };
        release.lead_to_loopback();
        release
    }

    fn lead_to_loopback(&self) {
        let service =
            json!({"spec": {"type": "ExternalName", "externalName": "localhost", "selector": null}});
        let service = service.to_string();
        let in_release = [
            "--namespace",
            &self.namespace,
            "patch",
            "service",
            "session-operator-webhook",
        ];
        STAGE.kubectl(&[&in_release[..], &["--patch", &service]].concat());
        let port = json!([{
            "op": "replace", "path": "/webhooks/0/clientConfig/service/port", "value": self.balancer.port
        }]);
        let configuration = self.configuration();
        let patch = [
            "patch",
            "mutatingwebhookconfiguration",
            &configuration,
            "--type",
            "json",
            "--patch",
        ];
        STAGE.kubectl(&[&patch[..], &[&port.to_string()]].concat());
    }

    fn configuration(&self) -> String {
        let prefix = "--webhook-configuration=";
        let name = self
            .arguments
            .iter()
            .find_map(|argument| argument.strip_prefix(prefix));
        name.unwrap().to_owned()
    }

    /// Starts a replica, waits until it is ready and lets connections lead to it.
    async fn start(&self, more: &[&str]) -> Replica {
        let port = free_port();
        let mut arguments = self.arguments.clone();
        arguments.push(format!("--webhook-port={port}"));
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let operator = Operator::start_with(STAGE, &self.namespace, &[&self.world.namespace], &arguments);
        operator.until_ready().await;
        self.balancer.add(port);
        Replica { operator, port }
    }

    /// Makes an injection that admission knows.
    async fn injection(&self) -> Value {
        let operator = as_operator(&self.world, &self.namespace).await;
        let parts = json!({
            "containers": [{"name": "web", "env": [{"name": "SESSION_HOST", "value": "sessions"}]}],
            "volumes": [{"name": "session-operator-agent", "emptyDir": {}}]
        });
        let created = operator.create(&injection("shop-1", &parts)).await;
        until_admitted(&self.world, &created).await;
        created
    }

    /// What the API servers trust.
    async fn bundle(&self) -> String {
        let live = self
            .world
            .get("MutatingWebhookConfiguration", &self.configuration())
            .await;
        live["webhooks"][0]["clientConfig"]["caBundle"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// Creates pods one after the other, as dry runs, and counts.
struct Load {
    stop: Arc<AtomicBool>,
    admitted: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// Several at once, as several ReplicaSets do.
    fn start(world: &World, injection: &Value) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let admitted = Arc::<AtomicUsize>::default();
        let spec: SessionInjectionSpec = serde_json::from_value(injection["spec"].clone()).unwrap();
        let web = json!({"containers": [{"name": "web", "image": "localhost/shop:1"}]});
        let sent: k8s_openapi::api::core::v1::Pod =
            serde_json::from_value(pod("shop", Some("shop-1"), &web)).unwrap();
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let tasks = (0..4).map(|_| {
            let pods = Api::namespaced(world.client.clone(), &world.namespace);
            let (stop, admitted) = (stop.clone(), admitted.clone());
            let (spec, sent, dry_run) = (spec.clone(), sent.clone(), dry_run.clone());
            tokio::spawn(async move {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match pods.create(&dry_run, &sent).await {
                        Ok(pod) => match contains(&pod, &spec) {
                            Ok(()) => _ = admitted.fetch_add(1, Ordering::Relaxed),
                            Err(missing) => failures.push(format!("not injected: {missing:?}")),
                        },
                        Err(error) => failures.push(error.to_string()),
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                failures
            })
        });
        Self {
            tasks: tasks.collect(),
            stop,
            admitted,
        }
    }

    /// Waits until `more` pods have been admitted from now on.
    async fn admits(&self, more: usize) {
        let before = self.admitted.load(Ordering::Relaxed);
        until(&format!("{more} more pods to be admitted"), || async {
            let now = self.admitted.load(Ordering::Relaxed);
            (now >= before + more)
                .then_some(())
                .ok_or_else(|| format!("{} so far", now - before))
        })
        .await;
    }

    /// Ends, and returns what went wrong.
    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for task in self.tasks {
            failures.extend(task.await.unwrap());
        }
        failures
    }
}

#[tokio::test]
async fn every_pod_of_the_table_becomes_what_it_should() {
    let _peace = peace().await;
    let release = Release::new("webhook-table").await;
    let replica = release.start(&[]).await;
    table::run(&release.world, &release.namespace).await;
    replica.operator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_is_replaced_while_pods_are_created() {
    let _peace = peace().await;
    let release = Release::new("webhook-rotation").await;
    let life = ["--webhook-certificate-seconds=45"];
    let replicas = [release.start(&life).await, release.start(&life).await];
    for replica in &replicas {
        until_certified(replica).await;
    }
    let injection = release.injection().await;
    let first = release.bundle().await;
    let load = Load::start(&release.world, &injection);
    let both = until("a second authority", || async {
        let bundle = release.bundle().await;
        (bundle.len() > first.len())
            .then_some(bundle.clone())
            .ok_or(bundle)
    })
    .await;
    load.admits(20).await;
    let last = until("the first authority to go", || async {
        let bundle = release.bundle().await;
        (bundle.len() < both.len())
            .then_some(bundle.clone())
            .ok_or(bundle)
    })
    .await;
    assert_ne!(last, first);
    assert_eq!(load.stop().await, Vec::<String>::new());
    // New connections, to each replica alone: the API server trusts nothing but the new certificate now.
    for (gone, stays) in [(0, 1), (1, 0)] {
        release.balancer.remove(replicas[gone].port);
        release.balancer.hang_up();
        until_admitted(&release.world, &injection).await;
        release.balancer.add(replicas[gone].port);
        assert!(release.balancer.served(replicas[stays].port) > 0);
    }
    for replica in replicas {
        replica.operator.stop().await;
    }
}

/// Waits until a replica has the certificate: the very first ones are ready before, so that one of them can lead and make it.
async fn until_certified(replica: &Replica) {
    let port = replica.port;
    until("the replica to have a certificate", || async move {
        shows_a_certificate(port)
            .then_some(())
            .ok_or_else(|| "the handshake fails".to_owned())
    })
    .await;
}

/// Whether a TLS handshake with a port of loopback succeeds, whoever is there.
fn shows_a_certificate(port: u16) -> bool {
    let mut openssl = Command::new("openssl");
    openssl
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    openssl.status().is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_leaves_goes_unnoticed_and_a_dead_one_costs_what_it_was_doing() {
    let _peace = peace().await;
    let release = Release::new("webhook-loss").await;
    let [first, second] = [release.start(&[]).await, release.start(&[]).await];
    until_certified(&first).await;
    until_certified(&second).await;
    let injection = release.injection().await;

    let load = Load::start(&release.world, &injection);
    load.admits(20).await;
    first.operator.signal("TERM");
    release.balancer.remove(first.port);
    let mut operator = first.operator;
    let status = operator.until_ended().await;
    assert!(status.success(), "{status}");
    load.admits(20).await;
    assert_eq!(
        load.stop().await,
        Vec::<String>::new(),
        "one left as in a rolling update"
    );

    let third = release.start(&[]).await;
    until_certified(&third).await;
    let load = Load::start(&release.world, &injection);
    load.admits(20).await;
    // Like a crash: nobody is told, and connections to it fail until its endpoint goes.
    second.operator.kill();
    tokio::time::sleep(Duration::from_millis(200)).await;
    release.balancer.remove(second.port);
    load.admits(50).await;
    let failures = load.stop().await;
    let unexpected: Vec<&String> = failures
        .iter()
        .filter(|failure| !failure.contains("failed calling webhook"))
        .collect();
    assert_eq!(unexpected, Vec::<&String>::new());
    third.operator.stop().await;
}

#[tokio::test]
async fn what_was_deleted_or_damaged_is_put_back() {
    let _peace = peace().await;
    let release = Release::new("webhook-repair").await;
    let replica = release.start(&["--webhook-certificate-seconds=600"]).await;
    replica.operator.until_leading().await;
    let injection = release.injection().await;
    let bundle = release.bundle().await;
    let secret = [
        "--namespace",
        &release.namespace,
        "delete",
        "secret",
        "session-operator-webhook",
    ];
    STAGE.kubectl(&secret);
    let damage = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]).to_string();
    let configuration = release.configuration();
    let patch = [
        "patch",
        "mutatingwebhookconfiguration",
        &configuration,
        "--type",
        "json",
        "--patch",
        &damage,
    ];
    STAGE.kubectl(&patch);
    let repaired = until("the authority to be back", || async {
        let bundle = release.bundle().await;
        (!bundle.is_empty())
            .then_some(bundle)
            .ok_or_else(|| "no authority".to_owned())
    })
    .await;
    assert_eq!(repaired, bundle, "what API servers trusted");
    until_admitted(&release.world, &injection).await;
    let get = [
        "--namespace",
        &release.namespace,
        "get",
        "secret",
        "session-operator-webhook",
        "--output",
        "name",
    ];
    assert_eq!(STAGE.kubectl(&get).trim(), "secret/session-operator-webhook");
    replica.operator.stop().await;
}

/// Without any replica a labelled pod is refused, with words that say why, and every other pod is created.
#[tokio::test]
async fn without_a_replica_only_labelled_pods_wait() {
    let _peace = peace().await;
    let release = Release::new("webhook-down").await;
    let web = json!({"containers": [{"name": "web", "image": "localhost/shop:1"}]});
    until("the webhook to be in force", || async {
        let name = format!("labelled-{:06x}", fastrand::u32(..) >> 8);
        let labelled = pod(&name, Some("shop-1"), &web);
        match release.world.try_create(&labelled, "Strict").await {
            Err(error) if error.to_string().contains("injection.session-operator.dev") => Ok(()),
            answer => Err(format!("{answer:?}")),
        }
    })
    .await;
    release.world.create(&pod("plain", None, &web)).await;
}

/// In a rolling update from a release without webhook the old revision leads until the new one is ready.
#[tokio::test]
async fn a_replica_gets_ready_although_the_leader_knows_of_no_webhook() {
    let _peace = peace().await;
    let release = Release::new("webhook-upgrade").await;
    let old = Operator::start(STAGE, &release.namespace, &[&release.world.namespace]);
    old.until_ready().await;
    old.until_leading().await;
    let new = release.start(&[]).await;
    assert_eq!(release.bundle().await, "", "only the leader writes");
    old.stop().await;
    release.injection().await;
    new.operator.stop().await;
}
