//! What a reconcile has to do with each of several servers: users, certificates, and how they are reached.

use std::collections::BTreeSet;

use super::Address;
use super::observe::Access;
use super::report::Report;
use super::watch::Plan;
use crate::store::acl::{ADMIN, REPLICATION};
use crate::store::client::{Authority, Credentials, Failure, Password};
use crate::store::material::Material;
use crate::store::memory::Memory;
use crate::store::server::{self, Facts};
use crate::store::validate::Validated;

/// How the servers of a store are watched.
pub fn plan(store: &Validated, material: &Material) -> Plan {
    Plan {
        names: store.names.clone(),
        servers: store.servers,
        access: access(store, material),
    }
}

/// How the servers of a store are reached, and as whom they follow each other.
pub fn access(store: &Validated, material: &Material) -> Access {
    let credentials = |password: &Password| Credentials {
        username: Some(ADMIN.to_owned()),
        password: Some(password.clone()),
    };
    Access {
        host: store.names.host(),
        tls: material
            .tls
            .as_ref()
            .map(|tls| Authority::Own(tls.trusted.clone())),
        credentials: std::iter::once(&material.admin.password)
            .chain(&material.former_admin)
            .map(credentials)
            .collect(),
        users: material.users.rights(),
        follower: REPLICATION.to_owned(),
        // A store with several servers always has one.
        password: material
            .replication
            .as_ref()
            .map_or_else(|| Password::new(""), |login| login.password.clone()),
    }
}

/// The servers that can be told something. One that reads its data knows its users from its file.
pub fn answering(report: &Report) -> Vec<(String, Address)> {
    let members = report.seen.members.iter();
    members
        .filter(|member| member.state().is_some_and(|state| !state.loading))
        .map(|member| (member.name.clone(), member.address.clone()))
        .collect()
}

/// Tells servers of their users and certificates, all at once; of users not those that are `closed`.
pub async fn tend_all(
    store: &Validated,
    material: &Material,
    servers: &[(String, Address)],
    memory: &Memory,
    closed: &BTreeSet<String>,
) -> Vec<(String, Result<Facts, Failure>)> {
    let told = servers.iter().map(|(name, address)| async move {
        let endpoint = server::endpoint(store, material, &address.host);
        let is_closed = closed.contains(name);
        let told = server::tend(&store.names, name, material, &endpoint, memory, is_closed).await;
        if let Err(failure) = &told {
            tracing::info!(server = name, %failure, "not told of its users");
        }
        // The watch is connected, too.
        let told = told.map(|facts| Facts {
            clients: (facts.clients - 1).max(0),
            ..facts
        });
        (name.clone(), told)
    });
    futures::future::join_all(told).await
}
