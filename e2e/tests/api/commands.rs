//! The subcommands that the chart's hooks run, with the accounts that the chart gives them.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::operator::binary;
use crate::own::{Own, STAGE, alone, peace};
use crate::stage::{POLICY_CRD, RELEASE, run, text};
use crate::world::policy;

/// Account of the hook that runs before the chart is removed.
const GUARD: &str = "session-operator-uninstall-guard";

fn subcommand(kubeconfig: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env("KUBECONFIG", kubeconfig);
    run(&mut command)
}

#[tokio::test]
async fn removal_is_refused_while_a_policy_has_something_to_undo() {
    let _peace = peace().await;
    let own = Own::new("guard").await;
    let world = &own.world;
    let operator = own.start_leader().await;
    world.application("shop", "traefik").await;
    world.create(&policy("shop", "shop", &Value::Null)).await;
    world.until_ready("shop").await;
    let guard = STAGE.account_kubeconfig(&own.release, GUARD);
    let namespaces = format!("--namespaces={}", world.namespace);
    let refused = subcommand(&guard, &["pre-delete-check", &namespaces]);
    assert!(!refused.status.success());
    let message = text(&refused.stderr);
    assert!(
        message.contains(&format!("{}/shop", world.namespace)),
        "{message}"
    );
    assert!(message.contains("kubectl session detach --all"), "{message}");

    world.delete_policy("shop").await;
    let allowed = subcommand(&guard, &["pre-delete-check", &namespaces]);
    assert!(allowed.status.success(), "{}", text(&allowed.stderr));
    operator.stop().await;
}

#[tokio::test]
async fn removal_is_refused_when_it_cannot_be_checked() {
    let _peace = peace().await;
    let own = Own::new("unguarded").await;
    // The operator's own account may list; an account of no rights may not.
    STAGE.kubectl(&["--namespace", &own.release, "create", "serviceaccount", "nobody"]);
    let nobody = STAGE.account_kubeconfig(&own.release, "nobody");
    let refused = subcommand(&nobody, &["pre-delete-check"]);
    assert!(!refused.status.success());
    assert!(
        text(&refused.stderr).contains("forbidden"),
        "{}",
        text(&refused.stderr)
    );
}

#[tokio::test]
async fn removal_is_allowed_where_the_custom_resource_is_gone_already() {
    let _alone = alone().await;
    let own = Own::new("crdless").await;
    let guard = STAGE.account_kubeconfig(&own.release, GUARD);
    // Policies of other tests, whose operators are gone, would hold the definition by their finalizers.
    let names = "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}\n{end}";
    let policies = STAGE.kubectl(&["get", "sesspol", "--all-namespaces", "--output", names]);
    let none = r#"{"metadata": {"finalizers": null}}"#;
    for policy in policies.lines() {
        let (namespace, name) = policy.split_once(' ').unwrap();
        STAGE.kubectl(&[
            "--namespace",
            namespace,
            "patch",
            "sesspol",
            name,
            "--type=merge",
            "--patch",
            none,
        ]);
    }
    STAGE.delete_crd(POLICY_CRD);
    let namespaces = format!("--namespaces={}", own.world.namespace);
    let allowed = subcommand(&guard, &["pre-delete-check", &namespaces]);
    STAGE.restore_policy_crd();
    assert!(allowed.status.success(), "{}", text(&allowed.stderr));
}

#[tokio::test]
async fn the_self_test_passes_with_the_charts_roles_and_names_what_is_forbidden_without_them() {
    let _peace = peace().await;
    let own = Own::new("selftest").await;
    let namespaces = format!("--namespaces={}", own.world.namespace);
    let lease = format!("--lease-namespace={}", own.release);
    let arguments = [
        "self-test",
        namespaces.as_str(),
        lease.as_str(),
        "--lease-name=session-operator",
    ];
    let account = STAGE.account_kubeconfig(&own.release, RELEASE);
    let passed = subcommand(&account, &arguments);
    assert!(
        passed.status.success(),
        "{}{}",
        text(&passed.stdout),
        text(&passed.stderr)
    );
    let everywhere = subcommand(&account, &["self-test", lease.as_str()]);
    assert!(
        !everywhere.status.success(),
        "Roles in one namespace do not do for all"
    );
    let guard = STAGE.account_kubeconfig(&own.release, GUARD);
    let failed = subcommand(&guard, &arguments);
    assert!(!failed.status.success());
    let report = text(&failed.stdout);
    assert!(report.contains("may patch services"), "{report}");
    assert!(report.contains("forbidden; check the chart's roles"), "{report}");
}
