//! The rule by which members reach each other where somebody's NetworkPolicy isolates the pods. No garbage collector runs
//! here: what goes, the operator has removed.

use serde_json::{Value, json};

use crate::wait::until;
use crate::world::{World, deployment, essence};

/// What the operator calls it.
const RULE: &str = "shop-peers";

fn in_pods() -> Value {
    json!({
        "apiVersion": "session-operator.dev/v1alpha1", "kind": "SessionPolicy", "metadata": {"name": "shop"},
        "spec": {
            "targetRef": {"name": "shop"}, "strategy": "Replicated", "replicated": {}, "client": {"framework": "Generic"},
        },
    })
}

fn network_policy(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec,
    })
}

/// Owners of the rule, by name, once these are they.
async fn until_owned_by(world: &World, owners: &[&str]) -> Value {
    let what = format!("owned by {owners:?}");
    world
        .until("NetworkPolicy", RULE, &what, |rule| {
            let all = rule["metadata"]["ownerReferences"].as_array();
            let mut names: Vec<&str> = all
                .into_iter()
                .flatten()
                .map(|owner| owner["name"].as_str().unwrap())
                .collect();
            names.sort_unstable();
            names == owners
        })
        .await
}

/// Waits until the operator has looked at the policy once more, and so at everything else.
async fn until_seen(world: &World) {
    let annotation = format!("{:08x}", fastrand::u32(..));
    let spec = json!({"spec": {"ttlSeconds": 600 + fastrand::u32(..600)}, "metadata": {"annotations": {"test/seen": annotation}}});
    let changed = world.patch("SessionPolicy", "shop", &spec).await;
    world
        .until("SessionPolicy", "shop", "seen", |policy| {
            policy["status"]["observedGeneration"] == changed["metadata"]["generation"]
        })
        .await;
}

#[tokio::test]
async fn a_rule_stands_only_beside_what_isolates_the_pods() {
    let (world, _) = World::shared("peers").await;
    world.create(&deployment("shop")).await;
    let before = essence(&world.get("Deployment", "shop").await);
    for (name, spec) in [
        ("egress", json!({"podSelector": {}, "policyTypes": ["Egress"]})),
        ("others", json!({"podSelector": {"matchLabels": {"app": "blog"}}})),
    ] {
        world.create(&network_policy(name, &spec)).await;
    }
    world.create(&in_pods()).await;
    until_seen(&world).await;
    world.until_gone("NetworkPolicy", RULE).await;

    let deny = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    world.create(&network_policy("deny", &deny)).await;
    let rule = until_owned_by(&world, &["deny"]).await;
    assert_eq!(
        rule["spec"]["podSelector"],
        json!({"matchLabels": {"app": "shop"}})
    );
    assert_eq!(rule["spec"]["ingress"][0]["ports"][0]["port"], 7946);
    let allow =
        json!({"podSelector": {"matchLabels": {"app": "shop"}}, "ingress": [{"ports": [{"port": 8080}]}]});
    world.create(&network_policy("allow", &allow)).await;
    until_owned_by(&world, &["allow", "deny"]).await;
    world.delete("NetworkPolicy", "allow").await;
    let rule = until_owned_by(&world, &["deny"]).await;

    // Steady state writes nothing; what somebody changes or deletes is put back.
    until_seen(&world).await;
    let again = world.get("NetworkPolicy", RULE).await;
    assert_eq!(
        again["metadata"]["resourceVersion"],
        rule["metadata"]["resourceVersion"]
    );
    let closed = json!({"spec": {"ingress": []}});
    world.patch("NetworkPolicy", RULE, &closed).await;
    world
        .until("NetworkPolicy", RULE, "open again", |rule| {
            rule["spec"]["ingress"][0]["ports"][0]["port"] == 7946
        })
        .await;
    world.delete("NetworkPolicy", RULE).await;
    until_owned_by(&world, &["deny"]).await;

    // It isolates nobody when the other one is for somebody else now, or the strategy is another.
    let elsewhere = json!({"spec": {"podSelector": {"matchLabels": {"app": "blog"}}}});
    world.patch("NetworkPolicy", "deny", &elsewhere).await;
    world.until_gone("NetworkPolicy", RULE).await;
    let here = json!({"spec": {"podSelector": {"matchLabels": {"app": null}}}});
    world.patch("NetworkPolicy", "deny", &here).await;
    until_owned_by(&world, &["deny"]).await;
    world
        .patch("SessionPolicy", "shop", &json!({"spec": {"strategy": "Sticky"}}))
        .await;
    world.until_gone("NetworkPolicy", RULE).await;
    world
        .patch(
            "SessionPolicy",
            "shop",
            &json!({"spec": {"strategy": "Replicated"}}),
        )
        .await;
    until_owned_by(&world, &["deny"]).await;

    world.delete_policy("shop").await;
    world.until_gone("NetworkPolicy", RULE).await;
    world.get("NetworkPolicy", "deny").await;
    assert_eq!(essence(&world.get("Deployment", "shop").await), before);
}

#[tokio::test]
async fn a_rule_of_somebody_else_by_that_name_is_left_alone() {
    let (world, _) = World::shared("peers-taken").await;
    world.create(&deployment("shop")).await;
    let theirs = network_policy(RULE, &json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    let theirs = world.create(&theirs).await;
    world.create(&in_pods()).await;
    let message = world.until_refused("shop", "Injected", "FieldConflict").await;
    assert!(
        message.contains("NetworkPolicy shop-peers") && message.contains("rename"),
        "{message}"
    );
    world.delete_policy("shop").await;
    until("theirs to be as it was", || async {
        let now = world.get("NetworkPolicy", RULE).await;
        (now["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"])
            .then_some(())
            .ok_or_else(|| now.to_string())
    })
    .await;
}
