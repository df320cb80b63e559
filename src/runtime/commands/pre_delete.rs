//! `pre-delete-check`: refuses the removal of the operator while something is left to undo.

use std::fmt::Write as _;

use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use super::CommandError;
use crate::api::{FINALIZER, SessionPolicy};
use crate::runtime::Scope;
use crate::runtime::args::ScopeArgs;
use crate::runtime::client;
use crate::runtime::leader::Leadership;

/// Policies named in the message; more than these are counted.
const NAMED_POLICIES: usize = 20;

/// Fails if a policy in the scope carries our finalizer, and says what to do.
pub async fn check(args: &ScopeArgs) -> Result<(), CommandError> {
    let client = super::command_client(Leadership::never()).await?;
    let mut holding = Vec::new();
    for policies in apis(&client, &args.scope()) {
        holding.extend(
            holding_finalizer(&policies)
                .await
                .map_err(|error| client::explain(&error))?,
        );
    }
    holding.sort();
    if holding.is_empty() {
        println!("no SessionPolicy needs the operator any more");
        return Ok(());
    }
    Err(refusal(&holding).into())
}

fn apis(client: &Client, scope: &Scope) -> Vec<Api<SessionPolicy>> {
    match scope {
        Scope::All => vec![Api::all(client.clone())],
        Scope::Namespaces(names) => names
            .iter()
            .map(|name| Api::namespaced(client.clone(), name))
            .collect(),
    }
}

/// namespace/name of the policies that carry our finalizer. None if the kind is not served: then there are none.
async fn holding_finalizer(policies: &Api<SessionPolicy>) -> kube::Result<Vec<String>> {
    // Metadata only: a policy that does not deserialize counts as well.
    let list = match policies.list_metadata(&ListParams::default()).await {
        Err(error) if client::is_not_found(&error) => return Ok(Vec::new()),
        list => list?,
    };
    let holds = |finalizers: &[String]| finalizers.iter().any(|finalizer| finalizer == FINALIZER);
    Ok(list
        .items
        .iter()
        .filter(|policy| holds(policy.finalizers()))
        .map(|policy| format!("{}/{}", policy.namespace().unwrap_or_default(), policy.name_any()))
        .collect())
}

fn refusal(holding: &[String]) -> String {
    let count = holding.len();
    let named: Vec<&str> = holding.iter().take(NAMED_POLICIES).map(String::as_str).collect();
    let mut message = format!(
        "the operator is still needed to undo what {count} SessionPolic{} set up: {}",
        if count == 1 { "y has" } else { "ies have" },
        named.join(", ")
    );
    if count > NAMED_POLICIES {
        // Writing to a String cannot fail.
        _ = write!(message, " and {} more", count - NAMED_POLICIES);
    }
    message.push_str(
        "; run `kubectl session detach --all` (it undoes everything and keeps the policies), or delete them, then uninstall again",
    );
    message
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
    }
}
