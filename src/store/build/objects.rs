//! Everything but the servers themselves.

use serde_json::{Value, json};

use super::{PORT, metadata};
use crate::api::session_store::Topology;
use crate::store::acl::{ADMIN, REPLICATION, user_name};
use crate::store::material::Material;
use crate::store::names::{PRIMARY, ROLE_LABEL};
use crate::store::quantity;
use crate::store::validate::{Validated, Volume, claims};

/// All Secrets.
pub fn secrets(store: &Validated, material: &Material) -> Vec<Value> {
    let names = &store.names;
    let secret = |name: String, data: &[(&str, &str)]| {
        let data: serde_json::Map<String, Value> = data
            .iter()
            .map(|(key, value)| {
                (
                    (*key).to_owned(),
                    json!(k8s_openapi::ByteString(value.as_bytes().to_vec())),
                )
            })
            .collect();
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata(names, &name, &store.uid),
            "type": "Opaque",
            "data": data,
        })
    };
    let (file, users) = material.users_file();
    let mut secrets = Vec::new();
    if let Some(tls) = &material.tls {
        let pair = |pair: &crate::certificates::Pair| (pair.certificate.clone(), pair.key.clone());
        let (certificate, key) = pair(&tls.authority);
        secrets.push(secret(
            names.authority_secret(),
            &[("tls.crt", &certificate), ("tls.key", &key)],
        ));
        secrets.push(secret(names.ca_secret(), &[("ca.crt", &tls.trusted)]));
        let (certificate, key) = pair(&tls.server);
        secrets.push(secret(
            names.server_secret(),
            &[
                ("tls.crt", &certificate),
                ("tls.key", &key),
                ("ca.crt", &tls.trusted),
            ],
        ));
    }
    secrets.push(secret(
        names.admin_secret(),
        &[("username", ADMIN), ("password", material.admin.reveal())],
    ));
    if let Some(password) = &material.replication {
        secrets.push(secret(
            names.replication_secret(),
            &[("username", REPLICATION), ("password", password.reveal())],
        ));
    }
    for (prefix, password) in &material.passwords {
        secrets.push(secret(
            names.user_secret(prefix),
            &[("username", &user_name(prefix)), ("password", password.reveal())],
        ));
    }
    // Last: what it lists has its password in a Secret by then.
    secrets.push(secret(names.users_secret(), &[(file, &users)]));
    secrets
}

/// The volume claims, one for each server. The StatefulSet finds those of several servers under the names that it would give
/// them itself; made here, they can grow.
pub fn volumes(store: &Validated) -> Vec<Value> {
    let Some(volume) = &store.volume else {
        return Vec::new();
    };
    claims(&store.names, store.topology, store.servers)
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
pub fn service(store: &Validated) -> Value {
    let mut spec = json!({
        "type": "ClusterIP",
        "selector": store.names.selector(),
        "ports": ports(),
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
            "ports": ports(),
        },
    })
}

fn ports() -> Value {
    json!([{"name": "tcp-redis", "port": PORT, "targetPort": "redis", "protocol": "TCP"}])
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
        Topology::Replicated => "IfHealthyBudget",
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
