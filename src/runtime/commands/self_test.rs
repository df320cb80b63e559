//! `self-test`: does the installation work? Custom resource, permissions, validation.
//!
//! Runs with the operator's own service account, so that what it may do is what the operator may do.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::CommandError;
use crate::api::{GROUP, SessionPolicy, VERSION};
use crate::runtime::args::SelfTestArgs;
use crate::runtime::client;
use crate::runtime::operator::serves_policies;
use crate::runtime::permissions::{
    CLUSTER, LEASE, LEASE_CREATE, NAMESPACED, Permission, WEBHOOK, WEBHOOK_CONFIGURATION, WEBHOOK_SECRET,
    WEBHOOK_SECRET_CREATE,
};
use crate::runtime::{Scope, leader::Leadership};

/// Name of the policies that are tried out and never stored.
const PROBE_NAME: &str = "self-test";

/// Field manager of the policies that are tried out.
const PROBE_MANAGER: &str = "session-operator/self-test";

/// Runs all checks, prints one line each, and fails if one failed.
pub async fn run(args: &SelfTestArgs) -> Result<(), CommandError> {
    // Access reviews are creations that store nothing; the policies are sent as dry runs.
    let client = super::command_client(Leadership::unlimited()).await?;
    let mut report = Report::default();

    match serves_policies(&client).await {
        Ok(served) => report.line(
            served,
            &format!("the API server serves sessionpolicies.{GROUP}/{VERSION}"),
            "",
        ),
        Err(error) => report.line(
            false,
            "the API server can be asked what it serves",
            &client::explain(&error),
        ),
    }
    permissions(&client, args, &mut report).await;
    validation(&client, args, &mut report).await;

    if report.failed == 0 {
        println!("all {} checks passed", report.passed);
        return Ok(());
    }
    let failed = report.failed;
    Err(format!(
        "{failed} of {} checks failed; see the lines that begin with FAIL",
        report.passed + failed
    )
    .into())
}

#[derive(Default)]
struct Report {
    passed: usize,
    failed: usize,
}

impl Report {
    fn line(&mut self, passed: bool, what: &str, detail: &str) {
        let verdict = if passed { "ok   " } else { "FAIL " };
        let separator = if detail.is_empty() { "" } else { ": " };
        println!("{verdict}{what}{separator}{detail}");
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }
}

async fn permissions(client: &Client, args: &SelfTestArgs, report: &mut Report) {
    let namespaces = match args.scope.scope() {
        Scope::All => vec![None],
        Scope::Namespaces(names) => names.into_iter().map(Some).collect(),
    };
    for namespace in &namespaces {
        check_access(client, NAMESPACED, namespace.as_deref(), None, report).await;
        if args.webhook_configuration.is_some() {
            check_access(client, WEBHOOK, namespace.as_deref(), None, report).await;
        }
    }
    check_access(client, CLUSTER, None, None, report).await;
    let lease_namespace = args
        .lease_namespace
        .as_deref()
        .unwrap_or(client.default_namespace());
    check_access(client, &[LEASE_CREATE], Some(lease_namespace), None, report).await;
    check_access(
        client,
        &[LEASE],
        Some(lease_namespace),
        Some(&args.lease_name),
        report,
    )
    .await;
    if let Some(name) = &args.webhook_configuration {
        check_access(client, &[WEBHOOK_CONFIGURATION], None, Some(name), report).await;
    }
    if let Some(name) = &args.webhook_secret {
        let namespace = Some(lease_namespace);
        check_access(client, &[WEBHOOK_SECRET], namespace, Some(name), report).await;
        check_access(client, &[WEBHOOK_SECRET_CREATE], namespace, None, report).await;
    }
}

/// Asks the API server whether we may do all this; no namespace = in all of them; `only` = on that object.
async fn check_access(
    client: &Client,
    permissions: &[Permission],
    namespace: Option<&str>,
    only: Option<&str>,
    report: &mut Report,
) {
    let place = namespace.map_or_else(
        || "in the cluster".to_owned(),
        |namespace| format!("in namespace {namespace}"),
    );
    for permission in permissions {
        let name = only.or(permission.name);
        for verb in permission.verbs {
            let subresource = permission
                .subresource
                .map(|sub| format!("/{sub}"))
                .unwrap_or_default();
            let named = name.map(|name| format!(" {name}")).unwrap_or_default();
            let group = if permission.group.is_empty() { "" } else { "." };
            let what = format!(
                "may {verb} {}{group}{}{subresource}{named} {place}",
                permission.resource, permission.group
            );
            match allowed(client, permission, verb, namespace, name).await {
                Ok(allowed) => {
                    report.line(
                        allowed,
                        &what,
                        if allowed {
                            ""
                        } else {
                            "forbidden; check the chart's roles"
                        },
                    );
                }
                Err(error) => report.line(false, &what, &client::explain(&error)),
            }
        }
    }
}

async fn allowed(
    client: &Client,
    permission: &Permission,
    verb: &str,
    namespace: Option<&str>,
    name: Option<&str>,
) -> kube::Result<bool> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(permission.group.to_owned()),
                resource: Some(permission.resource.to_owned()),
                subresource: permission.subresource.map(str::to_owned),
                verb: Some(verb.to_owned()),
                namespace: namespace.map(str::to_owned),
                name: name.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = Api::<SelfSubjectAccessReview>::all(client.clone())
        .create(&PostParams::default(), &review)
        .await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Tries out a good policy and a bad one.
async fn validation(client: &Client, args: &SelfTestArgs, report: &mut Report) {
    let namespace = match args.scope.scope() {
        Scope::All => client.default_namespace().to_owned(),
        Scope::Namespaces(names) => names.into_iter().next().unwrap_or_default(),
    };
    let good = "a good SessionPolicy is accepted (dry run)";
    match try_out(client, &namespace, json!({ "mode": "Cookie" })).await {
        Ok(Verdict::Valid) => report.line(true, good, ""),
        Ok(Verdict::Invalid(message)) => report.line(false, good, &message),
        Err(error) => report.line(false, good, &client::explain(&error)),
    }
    let bad = "a SessionPolicy with SameSite=None and without Secure is refused (dry run)";
    match try_out(
        client,
        &namespace,
        json!({ "cookie": { "sameSite": "None", "secure": false } }),
    )
    .await
    {
        Ok(Verdict::Invalid(_)) => report.line(true, bad, ""),
        Ok(Verdict::Valid) => report.line(false, bad, "accepted; the CRD is older than this operator"),
        Err(error) => report.line(false, bad, &client::explain(&error)),
    }
}

/// What the API server says of an object.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Valid,
    Invalid(String),
}

async fn try_out(client: &Client, namespace: &str, sticky: Value) -> kube::Result<Verdict> {
    let policy = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "SessionPolicy",
        "metadata": { "name": PROBE_NAME, "namespace": namespace },
        "spec": { "targetRef": { "name": PROBE_NAME }, "strategy": "Sticky", "sticky": sticky },
    });
    // Forced, so that a policy which happens to have this name does not conflict.
    let params = PatchParams::apply(PROBE_MANAGER).dry_run().force();
    let policies = Api::<SessionPolicy>::namespaced(client.clone(), namespace);
    verdict(
        policies
            .patch(PROBE_NAME, &params, &Patch::Apply(policy))
            .await
            .map(drop),
    )
}

/// Reads the answer. The operator may patch policies but not create them: an object that would be created is validated
/// first, and only then refused for the missing right.
fn verdict(answer: kube::Result<()>) -> kube::Result<Verdict> {
    match answer {
        Ok(()) => Ok(Verdict::Valid),
        Err(kube::Error::Api(status)) if status.is_invalid() => Ok(Verdict::Invalid(status.message.clone())),
        Err(kube::Error::Api(status))
            if status.is_forbidden() && status.message.contains("cannot create") =>
        {
            Ok(Verdict::Valid)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn failure(code: u16, reason: &str, message: &str) -> kube::Result<()> {
        Err(kube::Error::Api(
            Status::failure(message, reason).with_code(code).boxed(),
        ))
    }

    #[test]
    fn only_the_missing_right_to_create_counts_as_valid() {
        let cannot =
            |verb| format!("sessionpolicies \"self-test\" is forbidden: User \"x\" cannot {verb} resource");
        assert_eq!(verdict(Ok(())).unwrap(), Verdict::Valid);
        assert_eq!(
            verdict(failure(403, "Forbidden", &cannot("create"))).unwrap(),
            Verdict::Valid
        );
        assert_eq!(
            verdict(failure(422, "Invalid", "no")).unwrap(),
            Verdict::Invalid("no".to_owned())
        );
        assert!(verdict(failure(403, "Forbidden", &cannot("patch"))).is_err());
        assert!(verdict(failure(500, "InternalError", "no")).is_err());
    }
}
