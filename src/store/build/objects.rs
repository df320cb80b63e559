//! Everything but the servers themselves.

use serde_json::{Value, json};

use super::{PORT, metadata};
use crate::store::acl::{ADMIN, user_name};
use crate::store::material::Material;
use crate::store::quantity;
use crate::store::validate::{Validated, Volume};

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

/// The volume claim.
pub fn volume(store: &Validated, volume: &Volume) -> Value {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": quantity::text(volume.size)}},
    });
    if let (Some(class), Some(spec)) = (&volume.class, spec.as_object_mut()) {
        spec.insert("storageClassName".into(), json!(class));
    }
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(&store.names, &store.names.volume(), &store.uid),
        "spec": spec,
    })
}

/// The Service that clients use.
pub fn service(store: &Validated) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(&store.names, store.names.store(), &store.uid),
        "spec": {
            "type": "ClusterIP",
            "selector": store.names.selector(),
            "ports": [{"name": "tcp-redis", "port": PORT, "targetPort": "redis", "protocol": "TCP"}],
        },
    })
}

/// The disruption budget over all pods of the store.
///
/// With one pod it lets every drain go on: a budget that kept the only pod would block the node's drain for ever and
/// save nothing, as the sessions move with the volume or are lost with the process either way. It is there for a pod
/// that is not healthy, which must not block a drain either.
pub fn budget(store: &Validated) -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(&store.names, store.names.store(), &store.uid),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": store.names.selector()},
        },
    })
}
