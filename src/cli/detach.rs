//! `detach`: undoes what policies set up, with the user's rights, and leaves the policies suspended.

use std::fmt::Write as _;

use clap::Args;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::{CliError, ConnectionArgs, output, question};
use crate::policy::GuardedPolicy;
use crate::policy::undo;
use crate::runtime::writer::Writer;

/// Arguments of `detach`.
#[derive(Args, Debug)]
pub struct DetachArgs {
    /// Name of the policy
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    name: Option<String>,

    /// Every policy: of all namespaces, or of the one given by --namespace
    #[arg(long)]
    all: bool,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Detaches one policy or all.
pub async fn run(args: &DetachArgs, connection: &ConnectionArgs) -> Result<(), CliError> {
    let client = connection.client().await?;
    let policies = match &args.name {
        Some(name) => vec![find(&client, name).await?],
        None => all(&client, connection).await?,
    };
    if policies.is_empty() {
        eprintln!("there is no SessionPolicy to detach");
        return Ok(());
    }
    if !args.yes && !question::confirmed(&text(&policies))? {
        return Err("nothing was changed".into());
    }
    let mut failed = 0;
    let count = policies.len();
    let writer = Writer::new(client);
    for policy in policies {
        let name = full_name(&policy);
        let undone = match policy.0 {
            Ok(policy) => undo::detach(&writer, &policy)
                .await
                .map_err(|error| error.explain()),
            Err(invalid) => Err(format!(
                "the object is not a valid SessionPolicy: {}",
                invalid.error
            )),
        };
        match undone {
            Ok(objects) => output::print(&success(&name, &objects))?,
            Err(message) => {
                failed += 1;
                eprintln!("{name}: {}", output::printable(&message));
            }
        }
    }
    if failed > 0 {
        return Err(format!(
            "{failed} of {count} policies could not be detached; the command can be repeated"
        )
        .into());
    }
    Ok(())
}

async fn find(client: &Client, name: &str) -> Result<GuardedPolicy, CliError> {
    let policies: Api<GuardedPolicy> = Api::default_namespaced(client.clone());
    let found = policies
        .get_opt(name)
        .await
        .map_err(|error| super::status::explain(&error))?;
    found.ok_or_else(|| super::status::not_found(client.default_namespace(), name))
}

async fn all(client: &Client, connection: &ConnectionArgs) -> Result<Vec<GuardedPolicy>, CliError> {
    let policies: Api<GuardedPolicy> = match connection.namespace {
        Some(_) => Api::default_namespaced(client.clone()),
        None => Api::all(client.clone()),
    };
    Ok(policies
        .list(&ListParams::default())
        .await
        .map_err(|error| super::status::explain(&error))?
        .items)
}

fn full_name(policy: &GuardedPolicy) -> String {
    format!("{}/{}", policy.namespace().unwrap_or_default(), policy.name_any())
}

fn success(name: &str, objects: &[String]) -> String {
    let undone = if objects.is_empty() {
        "nothing had to be undone".to_owned()
    } else {
        format!("undone on {}", objects.join(", "))
    };
    output::printable(&format!(
        "{name}: {undone}; the policy is kept, with spec.suspend true\n"
    ))
}

fn text(policies: &[GuardedPolicy]) -> String {
    let mut text = String::from("Detaching undoes what these policies set up and suspends them:\n");
    for policy in policies {
        // Writing to a String cannot fail.
        _ = writeln!(text, "  {}", full_name(policy));
    }
    text.push_str("Their users are no longer kept on their pods and may lose their sessions. Go on? [y/N] ");
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_question_names_the_policies_also_broken_ones() {
        let policies: Vec<GuardedPolicy> = [
            json!({
                "apiVersion": "session-operator.dev/v1alpha1", "kind": "SessionPolicy",
                "metadata": { "name": "shop", "namespace": "web" },
                "spec": { "targetRef": { "name": "shop" }, "strategy": "Sticky" },
            }),
            json!({
                "apiVersion": "session-operator.dev/v1alpha1", "kind": "SessionPolicy",
                "metadata": { "name": "odd", "namespace": "web" },
                "spec": { "strategy": 7 },
            }),
        ]
        .map(|value| serde_json::from_value(value).unwrap())
        .into();
        assert!(policies[1].0.is_err());
        assert_eq!(
            text(&policies),
            "Detaching undoes what these policies set up and suspends them:\n  web/shop\n  web/odd\n\
             Their users are no longer kept on their pods and may lose their sessions. Go on? [y/N] "
        );
    }

    #[test]
    fn success_says_what_was_undone() {
        assert_eq!(
            success(
                "web/shop",
                &["Service/shop".to_owned(), "Ingress/shop".to_owned()]
            ),
            "web/shop: undone on Service/shop, Ingress/shop; the policy is kept, with spec.suspend true\n"
        );
        assert_eq!(
            success("web/shop", &[]),
            "web/shop: nothing had to be undone; the policy is kept, with spec.suspend true\n"
        );
    }
}
