//! Everything but the servers themselves.

use serde_json::{Value, json};

use super::{REPLICATION_FILE, metadata, port};
use crate::api::session_store::{Engine, Topology};
use crate::store::acl::{ADMIN, REPLICATION, user_name};
use crate::store::dereference::NEXT_PASSWORD;
use crate::store::login::Login;
use crate::store::material::{FORMER_CERTIFICATE, FORMER_KEY, Material};
use crate::store::names::{MADE_ANNOTATION, Names, PRIMARY, ROLE_LABEL};
use crate::store::quantity;
use crate::store::validate::{Validated, Volume};

/// All Secrets.
pub fn secrets(store: &Validated, material: &Material) -> Vec<Value> {
    let names = &store.names;
    let mut secrets = Vec::new();
    if let Some(tls) = &material.tls {
        // First what the server presents: a new authority that was written down before would not be known for a new one.
        let server = [
            ("tls.crt", tls.server.certificate.as_str()),
            ("tls.key", &tls.server.key),
            ("ca.crt", &tls.trusted),
        ];
        secrets.push(secret(store, &names.server_secret(), &server));
        secrets.push(secret(store, &names.ca_secret(), &[("ca.crt", &tls.trusted)]));
        let mut authority = vec![
            ("tls.crt", tls.authority.certificate.as_str()),
            ("tls.key", &tls.authority.key),
        ];
        if let Some(former) = &tls.former {
            authority.push((FORMER_CERTIFICATE, &former.certificate));
            authority.push((FORMER_KEY, &former.key));
        }
        secrets.push(secret(store, &names.authority_secret(), &authority));
    }
    secrets.push(login(store, &names.admin_secret(), ADMIN, &material.admin));
    if let Some(replication) = &material.replication {
        let mut secret = login(store, &names.replication_secret(), REPLICATION, replication);
        if let (Topology::Cluster, Some(data)) = (
            store.topology,
            secret.get_mut("data").and_then(Value::as_object_mut),
        ) {
            let settings = format!(
                "masteruser {REPLICATION}\nmasterauth {}\n",
                replication.password.reveal()
            );
            data.insert(REPLICATION_FILE.to_owned(), bytes(&settings));
        }
        secrets.push(secret);
    }
    for (prefix, user) in &material.logins {
        secrets.push(login(store, &names.user_secret(prefix), &user_name(prefix), user));
    }
    // Last: what it lists has its password in a Secret by then.
    let (file, users) = material.users_file();
    secrets.push(secret(store, &names.users_secret(), &[(file, &users)]));
    secrets
}

fn secret(store: &Validated, name: &str, data: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<String, Value> = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), bytes(value)))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(&store.names, name, &store.uid),
        "type": "Opaque",
        "data": data,
    })
}

fn bytes(text: &str) -> Value {
    json!(k8s_openapi::ByteString(text.as_bytes().to_vec()))
}

fn login(store: &Validated, name: &str, user: &str, login: &Login) -> Value {
    let mut data = vec![("username", user), ("password", login.password.reveal())];
    if let Some(next) = &login.next {
        data.push((NEXT_PASSWORD, next.reveal()));
    }
    let mut secret = secret(store, name, &data);
    if let (Some(made), Some(metadata)) = (
        &login.made,
        secret.get_mut("metadata").and_then(Value::as_object_mut),
    ) {
        metadata.insert("annotations".into(), json!({ MADE_ANNOTATION: made }));
    }
    secret
}

/// The volume claims, one for each server. The StatefulSet finds those of several servers under the names that it would give
/// them itself; made here, they can grow.
pub fn volumes(store: &Validated) -> Vec<Value> {
    let Some(volume) = &store.volume else {
        return Vec::new();
    };
    claims(store)
        .into_iter()
        .map(|name| {
            json!({
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": metadata(&store.names, &name, &store.uid),
                "spec": claim(volume, volume.size),
            })
        })
        .collect()
}

/// Names of the volume claims.
fn claims(store: &Validated) -> Vec<String> {
    let names = &store.names;
    match store.topology {
        Topology::Standalone => vec![names.volume()],
        Topology::Replicated => (0..store.servers)
            .map(|ordinal| names.member_volume(ordinal))
            .collect(),
        Topology::Cluster => (0..store.shards.len())
            .flat_map(|shard| (0..store.servers_per_shard()).map(move |ordinal| (shard, ordinal)))
            .map(|(shard, ordinal)| Names::volume_of(&names.shard_member(shard, ordinal)))
            .collect(),
    }
}

/// What a claim asks for.
pub fn claim(volume: &Volume, size: i64) -> Value {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": quantity::text(size)}},
    });
    if let (Some(class), Some(spec)) = (&volume.class, spec.as_object_mut()) {
        spec.insert("storageClassName".into(), json!(class));
    }
    spec
}

/// The Service that clients use.
///
/// Of several servers it leads to the one that is labelled as primary, later to the one that is by its name, ready or not: who is
/// made primary is about to serve, and the kubelet would notice seconds later. A server that is not the primary answers with an error itself.
/// Of shards it leads to every server that is ready: clients ask any of them where the others are.
pub fn service(store: &Validated) -> Value {
    let mut spec = json!({
        "type": "ClusterIP",
        "selector": store.names.selector(),
        "ports": ports(store.engine),
    });
    if let (Topology::Replicated, Some(spec)) = (store.topology, spec.as_object_mut()) {
        let mut selector = store.names.selector();
        selector.insert(ROLE_LABEL.to_owned(), PRIMARY.to_owned());
        spec.insert("selector".into(), json!(selector));
        spec.insert("publishNotReadyAddresses".into(), json!(true));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(&store.names, store.names.store(), &store.uid),
        "spec": spec,
    })
}

/// The headless Service that gives each of several servers a name, also before it is ready: it becomes so by following
/// another one that it finds by name.
pub fn members_service(store: &Validated) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(&store.names, &store.names.members(), &store.uid),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": store.names.selector(),
            "ports": ports(store.engine),
        },
    })
}

fn ports(engine: Engine) -> Value {
    let name = port_name(engine);
    json!([{"name": format!("tcp-{name}"), "port": port(engine), "targetPort": name, "protocol": "TCP"}])
}

/// The container's name for its port: that of the protocol.
pub fn port_name(engine: Engine) -> &'static str {
    match engine {
        Engine::Valkey | Engine::Redis => "redis",
        Engine::Memcached => "memcached",
    }
}

/// The disruption budget over all pods of the store.
///
/// With one pod it lets every drain go on: a budget that kept the only pod would block the node's drain for ever and
/// save nothing, as the sessions move with the volume or are lost with the process either way. It is there for a pod
/// that is not healthy, which must not block a drain either. Of several pods one that is not healthy may be the last that has
/// the sessions, so it goes only while all others are well.
pub fn budget(store: &Validated) -> Value {
    let unhealthy = match store.topology {
        Topology::Standalone => "AlwaysAllow",
        Topology::Replicated | Topology::Cluster => "IfHealthyBudget",
    };
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(&store.names, store.names.store(), &store.uid),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": unhealthy,
            "selector": {"matchLabels": store.names.selector()},
        },
    })
}
