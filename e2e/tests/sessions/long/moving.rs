//! Sessions on their way between a store and the pods, with users there.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::app::SHOP;
use e2e::policy::{Policies, in_store};
use e2e::users::LEAVERS;
use e2e::{Cluster, store, with_temp_namespace};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use session_operator::drill::{Class, Options, Report};

use crate::support::{SHARED_LIMIT, own_store, plan, pods, said, shared, shop, users};

/// Users of a busy day, by the test's measure.
const MANY: u32 = 500;

/// Users where what is shown is another way, not load.
const FEW: u32 = 60;

fn few_users() -> Options {
    Options {
        members: FEW,
        period: Duration::from_secs(3),
        event_limit: 3 * SHARED_LIMIT,
        ..users()
    }
}

/// Edits `strategy` alone, and waits until every pod keeps its sessions there.
async fn switch(policies: &Policies, strategy: &str) -> Result<()> {
    let patch = json!({"spec": {"strategy": strategy}});
    policies
        .api()
        .patch("shop", &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    policies.ready_within("shop", 2 * SHARED_LIMIT).await?;
    Ok(())
}

/// Pods of the shop that are not about to go.
async fn staying(cluster: &Cluster, namespace: &str) -> Result<Vec<Pod>> {
    let mut pods = pods(cluster, namespace, "app=shop").await?;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(pods)
}

/// Takes the operator away while sessions are on their way: the next one goes on.
async fn replace_operator(cluster: &Cluster, policies: &Policies) -> Result<()> {
    policies
        .condition_within(
            "shop",
            "Injected",
            "False",
            Some("SessionsMoving"),
            2 * SHARED_LIMIT,
        )
        .await?;
    for pod in pods(
        cluster,
        "session-operator",
        "app.kubernetes.io/component=operator",
    )
    .await?
    {
        let api: Api<Pod> = Api::namespaced(cluster.client.clone(), "session-operator");
        api.delete(&pod.name_any(), &DeleteParams::default()).await?;
    }
    Ok(())
}

fn nobody_missed_anything(report: &Report, members: u32) -> Result<()> {
    println!("{}", report.table());
    for person in report.people.iter().filter(|person| person.trouble.is_some()) {
        println!("{}: {:?}; {:?}", person.name, person.trouble, person.timeline);
    }
    ensure!(
        report.count(Class::Kept) + report.count(Class::Moved) == members
            && report.count(Class::LoggedOut) == LEAVERS,
        "{}",
        report.table()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_between_a_store_and_the_pods_logs_nobody_out() -> Result<()> {
    with_temp_namespace("moving", async |cluster, namespace| {
        let (shop, entry) = shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        // Without affinity: each request of a user may meet a pod of another kind.
        shared(&policies, own_store(&json!({"engine": "Redis"}))).await?;
        let plan = plan(cluster, namespace, "shop", "Replicated").await?;
        ensure!(plan.contains("nobody is logged out"), "{plan}");
        let options = || Options {
            members: MANY,
            period: Duration::from_secs(12),
            event_limit: 3 * SHARED_LIMIT,
            ..users()
        };
        let there = shop
            .drill_with(entry, options(), "Shared to Replicated", async || {
                tokio::try_join!(
                    switch(&policies, "Replicated"),
                    replace_operator(cluster, &policies)
                )?;
                Ok(())
            })
            .await?;
        nobody_missed_anything(&there, MANY)?;
        let binding = policies
            .api()
            .get("shop")
            .await?
            .status
            .and_then(|status| status.binding);
        ensure!(binding.is_some_and(|binding| binding.name == "shop-session-pods"));
        for pod in staying(cluster, namespace).await? {
            let text = serde_json::to_string(&pod)?;
            ensure!(
                !text.contains("SESSION_REPLICATOR_UPSTREAM"),
                "{} still knows the store",
                pod.name_any()
            );
        }
        let back = shop
            .drill_with(entry, options(), "Replicated to Shared", async || {
                switch(&policies, "Shared").await
            })
            .await?;
        nobody_missed_anything(&back, MANY)?;
        // Pods without a sidecar end as they always did; those with one hand over.
        ensure!(back.failed() == 0, "{}", back.table());
        for pod in staying(cluster, namespace).await? {
            let text = serde_json::to_string(&pod)?;
            ensure!(
                !text.contains("session-replicator"),
                "{} still has a sidecar",
                pod.name_any()
            );
        }
        Ok(())
    })
    .await
}

/// The shop with its sessions in a store that others have made, into the pods and back, with users there.
async fn there_and_back(cluster: &Cluster, namespace: &str, wish: &Value) -> Result<()> {
    let (shop, entry) = shop(cluster, namespace).await?;
    let policies = Policies::new(&cluster.client, namespace);
    shared(&policies, in_store(SHOP, wish)).await?;
    for (strategy, name) in [
        ("Replicated", "Shared to Replicated"),
        ("Shared", "Replicated to Shared"),
    ] {
        let plan = plan(cluster, namespace, "shop", strategy).await?;
        ensure!(plan.contains("nobody is logged out"), "{plan}");
        let report = shop
            .drill_with(entry, few_users(), name, async || {
                switch(&policies, strategy).await
            })
            .await?;
        nobody_missed_anything(&report, FEW)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_between_a_store_that_policies_share_and_the_pods_logs_nobody_out() -> Result<()> {
    with_temp_namespace("moving-ref", async |cluster, namespace| {
        store::create(cluster, namespace, "sessions", json!({"engine": "Redis"})).await?;
        // Another prefix than the policy's name: it is the pods' one, too.
        let wish = json!({"storeRef": {"name": "sessions", "keyPrefix": "front"}});
        there_and_back(cluster, namespace, &wish).await?;

        // Where another one comes to the store, the way back into it would be open, and the way out of it is not.
        let policies = Policies::new(&cluster.client, namespace);
        another_comes(cluster, namespace, &policies).await?;
        let before = staying(cluster, namespace).await?;
        let plan = plan(cluster, namespace, "shop", "Replicated").await?;
        let words = [
            "SessionStore sessions",
            "(blog)",
            "may not list keys",
            "a store of their own",
        ];
        ensure!(words.iter().all(|word| plan.contains(word)), "{plan}");
        let patch = json!({"spec": {"strategy": "Replicated"}});
        policies
            .api()
            .patch("shop", &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        let condition = ("Injected", "SessionsNotMovable");
        said(cluster, namespace, "shop", condition, &words).await?;
        let names = |pods: &[Pod]| pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
        let after = staying(cluster, namespace).await?;
        ensure!(names(&after) == names(&before), "pods were replaced");
        Ok(())
    })
    .await
}

/// Another policy comes to the store, with a key prefix of its own.
async fn another_comes(cluster: &Cluster, namespace: &str, policies: &Policies) -> Result<()> {
    let other = json!({
        "targetRef": {"name": "blog"}, "strategy": "Shared",
        "shared": {"storeRef": {"name": "sessions"}}, "client": {"framework": "Generic"},
    });
    policies.create_with("blog", other).await?;
    store::serves(cluster, namespace, "sessions", 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_out_of_a_store_to_which_another_one_comes_meanwhile_can_be_taken_back() -> Result<()> {
    with_temp_namespace("moving-late", async |cluster, namespace| {
        store::create(cluster, namespace, "sessions", json!({"engine": "Redis"})).await?;
        let (shop, entry) = shop(cluster, namespace).await?;
        let policies = Policies::new(&cluster.client, namespace);
        shared(
            &policies,
            in_store(SHOP, &json!({"storeRef": {"name": "sessions"}})),
        )
        .await?;
        let report = shop
            .drill_with(
                entry,
                few_users(),
                "to Replicated, and back half way",
                async || {
                    let patch = json!({"spec": {"strategy": "Replicated"}});
                    let (api, parameters) = (policies.api(), PatchParams::default());
                    api.patch("shop", &parameters, &Patch::Merge(&patch)).await?;
                    let moving = ("Injected", "SessionsMoving");
                    said(
                        cluster,
                        namespace,
                        "shop",
                        moving,
                        &["pods are still being replaced"],
                    )
                    .await?;
                    another_comes(cluster, namespace, &policies).await?;
                    let words = ["other key prefixes (blog)", "set spec.strategy back to Shared"];
                    said(cluster, namespace, "shop", moving, &words).await?;
                    switch(&policies, "Shared").await
                },
            )
            .await?;
        nobody_missed_anything(&report, FEW)
    })
    .await
}

/// A server that the operator did not make and does not know: without TLS, with one password for everybody.
async fn foreign_store(cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
    let client = &cluster.client;
    let secret = json!({
        "metadata": {"name": name},
        "stringData": {
            "host": format!("{name}.{namespace}.svc"), "port": "6379", "provider": "valkey",
            "password": "not-to-be-seen/by:any@body",
        },
    });
    let service = json!({
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 6379}]},
    });
    let deployment = json!({
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "automountServiceAccountToken": false,
                    "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [{
                        "name": "server",
                        "image": "localhost/valkey:1",
                        "imagePullPolicy": "IfNotPresent",
                        "args": ["valkey-server", "--save", "", "--requirepass", "$(PASSWORD)"],
                        "env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": name, "key": "password"}}}],
                        "readinessProbe": {"tcpSocket": {"port": 6379}, "periodSeconds": 1},
                        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                    }],
                },
            },
        },
    });
    let parameters = PostParams::default();
    Api::<Secret>::namespaced(client.clone(), namespace)
        .create(&parameters, &serde_json::from_value(secret)?)
        .await?;
    Api::<Service>::namespaced(client.clone(), namespace)
        .create(&parameters, &serde_json::from_value(service)?)
        .await?;
    Api::<Deployment>::namespaced(client.clone(), namespace)
        .create(&parameters, &serde_json::from_value(deployment)?)
        .await?;
    let deployment = format!("deployment/{name}");
    let wait = [
        "kubectl",
        "--namespace",
        namespace,
        "rollout",
        "status",
        &deployment,
        "--timeout=120s",
    ];
    cluster.run(wait).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_between_a_store_of_somebody_else_and_the_pods_logs_nobody_out() -> Result<()> {
    with_temp_namespace("moving-ext", async |cluster, namespace| {
        foreign_store(cluster, namespace, "theirs").await?;
        let wish = json!({"external": {"secretRef": {"name": "theirs"}}});
        there_and_back(cluster, namespace, &wish).await
    })
    .await
}
