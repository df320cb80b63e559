//! What is built, as a whole.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;
use crate::certificates::Pair;
use crate::store::client::Password;
use crate::store::login::Login;
use crate::store::material::Certificates;
use crate::store::testing::{nothing_but, validated};

/// Material whose values can be told apart.
fn material(store: &Validated) -> Material {
    let pair = |name: &str| Pair {
        certificate: format!("{name} certificate"),
        key: format!("{name} key"),
    };
    let login = |name: &str| Login {
        password: Password::new(format!("{name} password")),
        next: None,
        made: Some("today".to_owned()),
    };
    let mut users = crate::store::acl::Users {
        admin: BTreeSet::from(["0a".to_owned()]),
        ..Default::default()
    };
    for prefix in store.prefixes.keys() {
        users
            .prefixes
            .insert(prefix.clone(), BTreeSet::from(["0b".to_owned()]));
    }
    Material {
        admin: login("admin"),
        former_admin: None,
        replication: (store.servers > 1).then(|| login("replication")),
        relinks: false,
        logins: store
            .prefixes
            .keys()
            .map(|prefix| (prefix.clone(), login(prefix)))
            .collect(),
        users,
        tls: store.tls.then(|| Certificates {
            authority: pair("authority"),
            former: None,
            trusted: "trusted".to_owned(),
            server: pair("server"),
        }),
        obsolete: BTreeSet::from(["gone".to_owned()]),
    }
}

#[test]
fn a_store_with_everything() {
    let spec = "{engine: Redis, memory: 1Gi, persistence: {size: 2Gi, storageClassName: fast}}";
    let arguments = [
        "--store-user=999",
        "--store-pull-secrets=registry",
        "--redis-image=redis:test",
    ];
    let store = validated(spec, &nothing_but(&["shop"]), &arguments);
    let desired = build(&store, &material(&store));
    insta::assert_yaml_snapshot!("everything_stateful_set", desired.stateful_sets[0]);
    insta::assert_yaml_snapshot!("everything_volume", desired.volumes);
    insta::assert_yaml_snapshot!("everything_service", desired.service);
    insta::assert_yaml_snapshot!("everything_budget", desired.budget);
    assert_eq!(desired.obsolete, ["larder-user-gone"]);
}

#[test]
fn a_store_with_as_little_as_possible() {
    let store = validated(
        "{tls: Disabled, memory: 64Mi}",
        &nothing_but(&[]),
        &["--valkey-image=valkey:test"],
    );
    let desired = build(&store, &material(&store));
    insta::assert_yaml_snapshot!("little_stateful_set", desired.stateful_sets[0]);
    assert_eq!(desired.volumes, Vec::<Value>::new());
    assert_eq!(desired.members_service, None);
    let names: Vec<_> = desired
        .secrets
        .iter()
        .map(|secret| secret["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["larder-admin", "larder-users"]);
}

#[test]
fn memcached() {
    let store = validated(
        "{engine: Memcached, tls: Disabled, memory: 64Mi}",
        &nothing_but(&["shop"]),
        &[
            "--memcached-image=memcached:test",
            "--store-user=999",
            "--store-pull-secrets=registry",
        ],
    );
    let desired = build_memcached(&store);
    insta::assert_yaml_snapshot!("memcached_stateful_set", desired.stateful_sets[0]);
    insta::assert_yaml_snapshot!("memcached_service", desired.service);
    assert_eq!((desired.secrets.len(), desired.volumes.len()), (0, 0));
    assert_eq!(
        desired.budget,
        build(&validated("{}", &nothing_but(&["shop"]), &[]), &material(&store)).budget
    );
}

/// Memcached takes up to 48 MiB more than it is told; beyond the limit it would be killed, with all sessions.
#[test]
fn memcached_stays_within_its_memory() {
    for (memory, told) in [("64Mi", 16), ("128Mi", 80), ("192Mi", 144), ("1Gi", 768)] {
        let spec = format!("{{engine: Memcached, tls: Disabled, memory: {memory}}}");
        let store = validated(&spec, &nothing_but(&[]), &[]);
        let set = build_memcached(&store).stateful_sets.remove(0);
        let arguments = set
            .pointer("/spec/template/spec/containers/0/args")
            .and_then(Value::as_array)
            .unwrap();
        let wanted = json!(format!("--memory-limit={told}"));
        assert!(arguments.contains(&wanted), "{memory}: {arguments:?}");
    }
}

/// Nothing secret is where everybody who sees pods sees it, and the authority's key is with no Secret that a pod mounts.
#[test]
fn secrets_are_in_secrets() {
    let store = validated("{}", &nothing_but(&["shop"]), &[]);
    let desired = build(&store, &material(&store));
    let workload = desired.stateful_sets[0].to_string();
    for word in [" password", " key", "0a", "0b"] {
        assert!(!workload.contains(word), "{word} in {workload}");
    }
    let authority = desired
        .secrets
        .iter()
        .find(|secret| secret["metadata"]["name"] == "larder-authority")
        .unwrap();
    assert!(authority["data"]["tls.key"].is_string());
    assert!(!workload.contains("larder-authority"), "{workload}");
    let names: Vec<_> = desired
        .secrets
        .iter()
        .map(|secret| secret["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names.last(),
        Some(&"larder-users"),
        "the file comes after the passwords of the users that it lists"
    );
}

#[test]
fn the_same_store_is_built_the_same() {
    let store = validated("{}", &nothing_but(&["shop", "blog"]), &[]);
    let once = format!("{:?}", build(&store, &material(&store)));
    assert_eq!(format!("{:?}", build(&store, &material(&store))), once);
}

/// The template of a store must not follow its uid or its users: pods would be replaced for nothing.
#[test]
fn a_store_that_takes_over_what_another_left_keeps_its_pod() {
    let first = validated("{}", &nothing_but(&["shop"]), &[]);
    let mut second = validated("{}", &nothing_but(&["blog"]), &[]);
    second.uid = "u-2".to_owned();
    let template = |store| build(store, &material(store)).stateful_sets[0]["spec"].clone();
    assert_eq!(template(&first), template(&second));
}

#[test]
fn several_servers() {
    let spec = "{engine: Redis, topology: Replicated, replicas: 3, persistence: {size: 2Gi}}";
    let store = validated(spec, &nothing_but(&["shop"]), &["--redis-image=redis:test"]);
    let desired = build(&store, &material(&store));
    insta::assert_yaml_snapshot!("replicated_stateful_set", desired.stateful_sets[0]);
    insta::assert_yaml_snapshot!("replicated_service", desired.service);
    insta::assert_yaml_snapshot!("replicated_members_service", desired.members_service);
    insta::assert_yaml_snapshot!("replicated_budget", desired.budget);
    let claims: Vec<_> = desired
        .volumes
        .iter()
        .map(|claim| claim["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        claims,
        ["data-larder-0", "data-larder-1", "data-larder-2", "data-larder-3"]
    );
    let names: Vec<_> = desired
        .secrets
        .iter()
        .map(|secret| secret["metadata"]["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"larder-replication"), "{names:?}");
    let workload = desired.stateful_sets[0].to_string();
    assert!(!workload.contains(" password"), "{workload}");
}

#[test]
fn several_servers_in_memory_without_tls() {
    let store = validated(
        "{topology: Replicated, tls: Disabled, memory: 64Mi}",
        &nothing_but(&[]),
        &["--valkey-image=valkey:test"],
    );
    let desired = build(&store, &material(&store));
    insta::assert_yaml_snapshot!("replicated_in_memory_stateful_set", desired.stateful_sets[0]);
    assert_eq!(desired.volumes, Vec::<Value>::new());
}

/// The claim in the StatefulSet cannot be changed, so that it stays as it was when volumes grow.
#[test]
fn volumes_grow_beside_the_stateful_set() {
    let before = validated(
        "{topology: Replicated, persistence: {size: 1Gi}}",
        &nothing_but(&[]),
        &[],
    );
    let mut found = nothing_but(&[]);
    let set = build(&before, &material(&before)).stateful_sets.remove(0);
    let set = serde_json::from_value::<StatefulSet>(set).unwrap();
    found.stateful_sets.insert("larder".to_owned(), set.into());
    let after = validated("{topology: Replicated, persistence: {size: 2Gi}}", &found, &[]);
    let desired = build(&after, &material(&after));
    let size = "/spec/resources/requests/storage";
    assert_eq!(desired.volumes[0].pointer(size).unwrap(), "2Gi");
    let template = &desired.stateful_sets[0]["spec"]["volumeClaimTemplates"][0];
    assert_eq!(template.pointer(size).unwrap(), "1Gi");
}

#[test]
fn a_primary_that_is_to_go_stays_until_another_has_taken_over() {
    let mut found = nothing_but(&[]);
    let pod = json!({"metadata": {"name": "larder-3", "labels": {"session-operator.dev/role": "primary"}}});
    found
        .pods
        .insert(3, serde_json::from_value::<Pod>(pod).unwrap().into());
    let replicas = |found| {
        let store = validated("{topology: Replicated, replicas: 1}", found, &[]);
        build(&store, &material(&store)).stateful_sets[0]["spec"]["replicas"].clone()
    };
    assert_eq!(replicas(&found), 4);
    assert_eq!(replicas(&nothing_but(&[])), 2);
}

#[test]
fn shards() {
    let spec = "{engine: Redis, topology: Cluster, shards: 3, persistence: {size: 2Gi}}";
    let store = validated(spec, &nothing_but(&["shop"]), &["--redis-image=redis:test"]);
    let desired = build(&store, &material(&store));
    assert_eq!(desired.stateful_sets.len(), 3);
    insta::assert_yaml_snapshot!("sharded_stateful_set", desired.stateful_sets[1]);
    insta::assert_yaml_snapshot!("sharded_service", desired.service);
    insta::assert_yaml_snapshot!("sharded_members_service", desired.members_service);
    insta::assert_yaml_snapshot!("sharded_budget", desired.budget);
    let claims: Vec<_> = desired
        .volumes
        .iter()
        .map(|claim| claim["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        (claims.len(), claims[0], claims[5]),
        (6, "data-larder-0-0", "data-larder-2-1")
    );
    let workload = serde_json::to_string(&desired.stateful_sets).unwrap();
    assert!(!workload.contains(" password"), "{workload}");
}

#[test]
fn shards_in_memory_without_tls() {
    let store = validated(
        "{topology: Cluster, tls: Disabled, memory: 64Mi, shards: 4, replicasPerShard: 0}",
        &nothing_but(&[]),
        &["--valkey-image=valkey:test"],
    );
    let desired = build(&store, &material(&store));
    insta::assert_yaml_snapshot!("sharded_in_memory_stateful_set", desired.stateful_sets[3]);
    assert_eq!(
        (desired.stateful_sets.len(), desired.volumes),
        (4, Vec::<Value>::new())
    );
}

#[test]
fn a_primary_of_a_shard_that_is_to_go_stays_until_another_has_taken_over() {
    let mut found = nothing_but(&[]);
    let labels = json!({"session-operator.dev/role": "primary"});
    let pod = json!({"metadata": {"name": "larder-1-2", "labels": labels}});
    found
        .shard_pods
        .insert((1, 2), serde_json::from_value::<Pod>(pod).unwrap().into());
    let store = validated("{topology: Cluster}", &found, &[]);
    let sets = build(&store, &material(&store)).stateful_sets;
    let replicas: Vec<_> = sets.iter().map(|set| set["spec"]["replicas"].clone()).collect();
    assert_eq!(replicas, [2, 3, 2]);
}
