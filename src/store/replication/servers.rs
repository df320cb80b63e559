//! What a reconcile has to do with each of several servers: users, certificates, and how they are reached.

use std::collections::BTreeSet;

use super::observe::Access;
use super::report::Report;
use super::watch::Plan;
use crate::store::acl::{ADMIN, REPLICATION, user_name};
use crate::store::client::{Authority, Credentials, Failure, Password};
use crate::store::material::Material;
use crate::store::memory::Memory;
use crate::store::server::{self, Facts};
use crate::store::validate::Validated;

/// How the servers of a store are watched.
pub fn plan(store: &Validated, material: &Material) -> Plan {
    let credentials = |password: &Password| Credentials {
        username: Some(ADMIN.to_owned()),
        password: Some(password.clone()),
    };
    Plan {
        names: store.names.clone(),
        servers: store.servers,
        access: Access {
            host: store.names.host(),
            tls: material
                .tls
                .as_ref()
                .map(|tls| Authority::Own(tls.trusted.clone())),
            credentials: std::iter::once(&material.admin.password)
                .chain(&material.former_admin)
                .map(credentials)
                .collect(),
            users: material
                .users
                .prefixes
                .keys()
                .map(|prefix| user_name(prefix))
                .collect(),
            follower: REPLICATION.to_owned(),
            // A store with several servers always has one.
            password: material
                .replication
                .as_ref()
                .map_or_else(|| Password::new(""), |login| login.password.clone()),
        },
    }
}

/// Tells every server that answers of its users and certificate, all at once; of users not those that are `closed`.
pub async fn tend_all(
    store: &Validated,
    material: &Material,
    report: &Report,
    memory: &Memory,
    closed: &BTreeSet<String>,
) -> Vec<(String, Result<Facts, Failure>)> {
    let answering = report.seen.members.iter().filter(|member| {
        // One that reads its data knows its users from its file.
        member.state().is_some_and(|state| !state.loading)
    });
    let told = answering.map(|member| async move {
        let endpoint = server::endpoint(store, material, &member.address.host);
        let is_closed = closed.contains(&member.name);
        let told = server::tend(&store.names, &member.name, material, &endpoint, memory, is_closed).await;
        if let Err(failure) = &told {
            tracing::info!(server = member.name, %failure, "not told of its users");
        }
        // The watch is connected, too.
        let told = told.map(|facts| Facts {
            clients: (facts.clients - 1).max(0),
            ..facts
        });
        (member.name.clone(), told)
    });
    futures::future::join_all(told).await
}
