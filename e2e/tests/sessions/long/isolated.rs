//! Sessions in the pods where NetworkPolicies are enforced: nothing of ours isolates the application, and where its owner
//! does, members still reach each other.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::policy::Policies;
use e2e::wait::eventually;
use e2e::{Cluster, snapshot, with_temp_namespace};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use session_operator::api::conditions::types;
use session_operator::drill::event::Event;

use crate::replicated::in_pods;
use crate::support::{SHARED_LIMIT, nobody_lost, pods, shared, shop, users};

/// Port of the shop.
const SHOP_PORT: u16 = 8080;

/// Port of members.
const PEER_PORT: u16 = 7946;

/// What the operator calls its rule.
const RULE: &str = "shop-peers";

/// How long until a rule is written or gone, and every node has heard of it, on a busy machine.
const RULE_LIMIT: Duration = Duration::from_secs(30);

/// The shop and a pod of somebody else in one namespace.
struct Neighbours<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
}

impl Neighbours<'_> {
    fn rules(&self) -> Api<NetworkPolicy> {
        Api::namespaced(self.cluster.client.clone(), self.namespace)
    }

    async fn names(&self) -> Result<Vec<String>> {
        let rules = self.rules().list(&ListParams::default()).await?;
        Ok(rules.iter().map(ResourceExt::name_any).collect())
    }

    /// Starts the other pod. Its image is the shop's, which every node has; it is no pod of the shop.
    async fn move_in(&self) -> Result<()> {
        let pod = json!({
            "metadata": {"name": "neighbour", "labels": {"app": "neighbour"}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "shell",
                    "image": "localhost/shop:1",
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "infinity"],
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        });
        let api: Api<Pod> = Api::namespaced(self.cluster.client.clone(), self.namespace);
        api.create(&PostParams::default(), &serde_json::from_value(pod)?)
            .await?;
        let wait = ["wait", "pod/neighbour", "--for=condition=Ready", "--timeout=60s"];
        self.kubectl(&wait).await.map(|_| ())
    }

    async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let all = [&["kubectl", "--namespace", self.namespace], arguments].concat();
        self.cluster.run(all).await
    }

    /// Whether a pod can open a connection to a port of another.
    async fn reaches(&self, from: (&str, &str), to: &Pod, port: u16) -> Result<bool> {
        let address = to.status.as_ref().and_then(|status| status.pod_ip.clone());
        let address = address.context("an address")?;
        let (pod, container) = from;
        // Only what the shell says of the connection counts; a command that did not run at all is an error.
        let script = format!(
            "timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/{port}' 2>/dev/null && echo open || echo closed"
        );
        let said = self
            .kubectl(&["exec", pod, "--container", container, "--", "bash", "-c", &script])
            .await?;
        match said.trim() {
            "open" => Ok(true),
            "closed" => Ok(false),
            other => anyhow::bail!("{pod} to {address}:{port}: {other:?}"),
        }
    }

    /// Waits until everybody who is to reach the shop's pods does, and nobody else: the neighbour at the shop's own port and
    /// at that of members, a member at that of members.
    async fn settle(&self, what: &str, wanted: [bool; 3]) -> Result<()> {
        eventually(what, RULE_LIMIT, || async {
            let mut members = pods(self.cluster, self.namespace, "app=shop").await?;
            members.retain(|pod| pod.metadata.deletion_timestamp.is_none());
            let [one, others @ ..] = members.as_slice() else {
                anyhow::bail!("the shop has no pods")
            };
            let name = one.name_any();
            ensure!(!others.is_empty(), "the shop has one pod");
            for other in others {
                let seen = tokio::try_join!(
                    self.reaches(("neighbour", "shell"), other, SHOP_PORT),
                    self.reaches(("neighbour", "shell"), other, PEER_PORT),
                    self.reaches((&name, "web"), other, PEER_PORT),
                )?;
                if [seen.0, seen.1, seen.2] != wanted {
                    return Ok(Err(format!("{}: {seen:?}, not {wanted:?}", other.name_any())));
                }
            }
            Ok(Ok(()))
        })
        .await
    }

    /// What a careful owner writes: nobody reaches anything, but everybody the shop's own port.
    async fn isolate(&self) -> Result<()> {
        for (name, spec) in [
            ("deny", json!({"podSelector": {}, "policyTypes": ["Ingress"]})),
            (
                "allow",
                json!({
                    "podSelector": {"matchLabels": {"app": "shop"}},
                    "ingress": [{"ports": [{"port": SHOP_PORT}]}],
                }),
            ),
        ] {
            let rule = json!({"metadata": {"name": name}, "spec": spec});
            self.rules()
                .create(&PostParams::default(), &serde_json::from_value(rule)?)
                .await?;
        }
        Ok(())
    }

    async fn open(&self) -> Result<()> {
        for name in ["deny", "allow"] {
            self.rules().delete(name, &DeleteParams::default()).await?;
        }
        Ok(())
    }
}

async fn suspend(policies: &Policies, suspended: bool) -> Result<()> {
    let patch = json!({"spec": {"suspend": suspended}});
    let api = policies.api();
    api.patch("shop", &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    eventually("the operator has seen spec.suspend", RULE_LIMIT, || async {
        let policy = api.get("shop").await?;
        let seen = policy
            .status
            .as_ref()
            .and_then(|status| status.observed_generation);
        Ok(if seen == policy.metadata.generation {
            Ok(())
        } else {
            Err(seen)
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_reach_each_other_where_pods_are_isolated_and_nothing_of_ours_isolates_them() -> Result<()> {
    with_temp_namespace("isolated", async |cluster, namespace| {
        cluster.run(["addon", "netpol"]).await?;
        let neighbours = Neighbours { cluster, namespace };
        let (shop, entry) = shop(cluster, namespace).await?;
        neighbours.move_in().await?;
        let before = snapshot::of(&cluster.client, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        shared(&policies, in_pods(&json!({}), &Value::Null)).await?;

        let names = neighbours.names().await?;
        ensure!(names.is_empty(), "without a reason there is {names:?}");
        neighbours
            .settle("nothing isolates the shop", [true, true, true])
            .await?;

        neighbours.isolate().await?;
        neighbours
            .settle(
                "the owner's rules isolate the shop, members pass",
                [true, false, true],
            )
            .await?;
        // New pods need new connections; those from before pass whatever is written.
        nobody_lost(&shop.drill(entry, users(), &Event::DeletePod(None)).await?)?;
        policies
            .condition_within(
                "shop",
                types::SESSIONS_REPLICATED,
                "True",
                Some("InSync"),
                SHARED_LIMIT,
            )
            .await?;

        // It is the rule by which they pass.
        suspend(&policies, true).await?;
        neighbours.rules().delete(RULE, &DeleteParams::default()).await?;
        neighbours
            .settle("without the rule members do not pass", [true, false, false])
            .await?;
        suspend(&policies, false).await?;
        neighbours
            .settle("a rule that somebody deleted is back", [true, false, true])
            .await?;

        // A rule that is left alone would isolate the shop. It goes even while the operator writes nothing.
        suspend(&policies, true).await?;
        neighbours.open().await?;
        neighbours
            .settle("the rule goes with the last of the owner's", [true, true, true])
            .await?;
        let names = neighbours.names().await?;
        ensure!(names.is_empty(), "{names:?} is left");
        suspend(&policies, false).await?;

        neighbours.isolate().await?;
        neighbours
            .settle("the owner's rules are back, members pass", [true, false, true])
            .await?;
        policies.remove_within("shop", SHARED_LIMIT).await?;
        shop.settled().await?;
        let names = neighbours.names().await?;
        ensure!(names == ["allow", "deny"], "{names:?} is left");
        let after = snapshot::of(&cluster.client, namespace).await?;
        ensure!(after == before, "not undone: {before:#?} became {after:#?}");
        Ok(())
    })
    .await
}
