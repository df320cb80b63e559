//! `pre-delete-check`: refuses the removal of the operator while something is left to undo.

use std::fmt::{Debug, Write as _};

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, ListParams};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::CommandError;
use crate::api::{FINALIZER, SessionPolicy, SessionStore};
use crate::runtime::Scope;
use crate::runtime::args::ScopeArgs;
use crate::runtime::client;
use crate::runtime::leader::Leadership;

/// Objects named in the message; more than these are counted.
const NAMED: usize = 20;

/// Fails if a policy or store in the scope carries our finalizer, and says what to do.
pub async fn check(args: &ScopeArgs) -> Result<(), CommandError> {
    let client = super::command_client(Leadership::never()).await?;
    let policies = holding::<SessionPolicy>(&client, args).await?;
    let stores = holding::<SessionStore>(&client, args).await?;
    match (policies.is_empty(), stores.is_empty()) {
        (true, true) => {
            println!("no SessionPolicy and no SessionStore needs the operator any more");
            Ok(())
        }
        (false, _) => Err(refusal(&policies).into()),
        (true, false) => Err(stores_refusal(&stores).into()),
    }
}

/// namespace/name of all objects of a kind in the scope that carry our finalizer, sorted.
async fn holding<K>(client: &Client, args: &ScopeArgs) -> Result<Vec<String>, CommandError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let mut holding = Vec::new();
    for api in apis::<K>(client, &args.scope()) {
        holding.extend(
            holding_finalizer(&api)
                .await
                .map_err(|error| client::explain(&error))?,
        );
    }
    holding.sort();
    Ok(holding)
}

fn apis<K>(client: &Client, scope: &Scope) -> Vec<Api<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match scope {
        Scope::All => vec![Api::all(client.clone())],
        Scope::Namespaces(names) => names
            .iter()
            .map(|name| Api::namespaced(client.clone(), name))
            .collect(),
    }
}

/// namespace/name of the objects that carry our finalizer. None if the kind is not served: then there are none.
async fn holding_finalizer<K>(objects: &Api<K>) -> kube::Result<Vec<String>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    // Metadata only: an object that does not deserialize counts as well.
    let list = match objects.list_metadata(&ListParams::default()).await {
        Err(error) if client::is_not_found(&error) => return Ok(Vec::new()),
        list => list?,
    };
    let holds = |finalizers: &[String]| finalizers.iter().any(|finalizer| finalizer == FINALIZER);
    Ok(list
        .items
        .iter()
        .filter(|object| holds(object.finalizers()))
        .map(|object| format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any()))
        .collect())
}

fn refusal(policies: &[String]) -> String {
    let count = policies.len();
    format!(
        "the operator is still needed to undo what {count} SessionPolic{} set up: {}; run `kubectl session detach --all` \
         (it undoes everything and keeps the policies), or delete them, then uninstall again",
        if count == 1 { "y has" } else { "ies have" },
        named(policies)
    )
}

fn stores_refusal(stores: &[String]) -> String {
    let count = stores.len();
    let (are, they, them) = if count == 1 {
        (" is", "it is", "it")
    } else {
        ("s are", "they are", "them")
    };
    format!(
        "the operator is still needed to remove what {count} SessionStore{are} made of when {they} deleted: {}; delete \
         {them}, or set spec.deletionPolicy: Retain, which leaves the servers running, then uninstall again",
        named(stores)
    )
}

/// The first names, and how many more there are.
fn named(objects: &[String]) -> String {
    let first: Vec<&str> = objects.iter().take(NAMED).map(String::as_str).collect();
    let mut text = first.join(", ");
    if objects.len() > NAMED {
        // Writing to a String cannot fail.
        _ = write!(text, " and {} more", objects.len() - NAMED);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_names_policies_and_remedy() {
        let one = refusal(&["web/shop".to_owned()]);
        assert_eq!(
            one,
            "the operator is still needed to undo what 1 SessionPolicy has set up: web/shop; run `kubectl session \
             detach --all` (it undoes everything and keeps the policies), or delete them, then uninstall again"
        );
        let many: Vec<String> = (0..23).map(|index| format!("web/p{index:02}")).collect();
        let message = refusal(&many);
        assert!(message.contains("23 SessionPolicies have"), "{message}");
        assert!(message.contains("web/p19 and 3 more;"), "{message}");
        assert!(!message.contains("web/p20"), "{message}");
        let message = stores_refusal(&["web/sessions".to_owned()]);
        assert!(
            message.contains("1 SessionStore is made of when it is deleted: web/sessions; delete it, or"),
            "{message}"
        );
    }
}
