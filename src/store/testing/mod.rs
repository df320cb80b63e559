//! What tests of several modules need.

mod server;

use std::collections::{BTreeMap, BTreeSet};

use clap::Parser;

pub use server::{Certificates, Server, free_ports, valkey_server};

use super::acl::Users;
use super::dereference::Dereferenced;
use super::names::Names;
use super::settings::StoreArgs;
use super::validate::{Validated, validate};
use crate::api::SessionStore;

/// A store from YAML; its name is unlike everything else's, so that swapped values show.
pub fn store(spec: &str) -> SessionStore {
    let text = format!(
        "apiVersion: session-operator.dev/v1alpha1\nkind: SessionStore\n\
         metadata: {{name: larder, namespace: kitchen, uid: u-1, generation: 3}}\nspec: {spec}\n"
    );
    serde_saphyr::from_str(&text).unwrap()
}

/// What is found for a new store that policies use with these prefixes.
pub fn nothing_but(prefixes: &[&str]) -> Dereferenced {
    let policies = |prefix: &str| BTreeSet::from([format!("{prefix}-policy")]);
    Dereferenced {
        names: Names::new("kitchen", "larder"),
        prefixes: prefixes
            .iter()
            .map(|prefix| ((*prefix).to_owned(), policies(prefix)))
            .collect(),
        stateful_sets: BTreeMap::new(),
        pods: BTreeMap::new(),
        shard_pods: BTreeMap::new(),
        service: None,
        members_service: None,
        budget: None,
        volumes: BTreeMap::new(),
        secrets: BTreeMap::new(),
        users: Users::default(),
        holders: BTreeSet::new(),
        settling: false,
    }
}

/// Settings of an installation.
pub fn settings(arguments: &[&str]) -> StoreArgs {
    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        stores: StoreArgs,
    }
    Arguments::parse_from([&["test"], arguments].concat()).stores
}

/// A store that is good.
pub fn validated(spec: &str, found: &Dereferenced, arguments: &[&str]) -> Validated {
    validate(&store(spec), found, &settings(arguments)).unwrap()
}
