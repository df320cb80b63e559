//! `kubectl session`, with the rights of a user who may edit one namespace and nothing else.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};
use session_operator::api::ROTATE_PASSWORDS_ANNOTATION;

use crate::operator::Operator;
use crate::own::{Own, peace};
use crate::stage::{self, run, setting, text};
use crate::stores::store;
use crate::world::{World, annotation, deployment, essence, has_finalizer, policy, records, service};

/// A user with the cluster's role `edit` in the namespace, to which the chart adds SessionPolicies.
fn editor(world: &World) -> PathBuf {
    let namespace = world.namespace.as_str();
    let kubectl = |arguments: &[&str]| {
        world
            .stage
            .kubectl(&[&["--namespace", namespace], arguments].concat())
    };
    kubectl(&["create", "serviceaccount", "editor"]);
    // What the controller of aggregated roles would put together; none runs here.
    let rules = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "edit", "namespace": namespace},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "secrets", "configmaps"], "verbs": ["get", "list", "watch", "patch", "delete"]},
            {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch", "patch"]},
            {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": ["get", "list", "watch", "patch"]},
            {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["get", "list", "watch", "patch", "delete"]},
            {"apiGroups": ["traefik.io"], "resources": ["ingressroutes"], "verbs": ["get", "patch"]},
            {"apiGroups": ["session-operator.dev"], "resources": ["sessionpolicies", "sessionstores"], "verbs": ["get", "list", "watch", "patch", "delete"]},
            {"apiGroups": ["session-operator.dev"], "resources": ["sessioninjections"], "verbs": ["get", "list", "watch", "delete"]}
        ]
    });
    world.stage.apply_manifests(&rules.to_string());
    let account = format!("--serviceaccount={namespace}:editor");
    kubectl(&["create", "rolebinding", "edit", "--role=edit", &account]);
    world.stage.account_kubeconfig(namespace, "editor")
}

fn session(kubeconfig: &PathBuf, arguments: &[&str]) -> Output {
    let mut command = Command::new(setting("API_TEST_KUBECTL_SESSION"));
    command.args(arguments).env("KUBECONFIG", kubeconfig);
    run(&mut command)
}

#[tokio::test]
async fn rotate_asks_for_what_a_store_can_do() {
    let (world, _) = World::shared("store-rotate").await;
    world
        .create(&store(&json!({"tls": "Disabled", "memory": "64Mi"})))
        .await;
    world.until("Secret", "sessions-admin", "made", |_| true).await;
    let kubeconfig = editor(&world);
    let asked = session(&kubeconfig, &["rotate", "sessions", "--no-wait"]);
    assert!(asked.status.success(), "{}", text(&asked.stderr));
    let begun = world
        .until(
            "SessionStore",
            "sessions",
            "a rotation that is under way",
            |store| store["status"]["rotation"]["passwords"]["phase"] == "Introducing",
        )
        .await;
    let rotation = &begun["status"]["rotation"]["passwords"];
    assert_eq!(
        rotation["request"].as_str(),
        annotation(&begun, ROTATE_PASSWORDS_ANNOTATION)
    );
    // No server runs here. The wait ends, and says what is waited for.
    let waited = session(&kubeconfig, &["rotate", "sessions", "--timeout", "3"]);
    assert!(!waited.status.success());
    let said = text(&waited.stderr);
    for words in ["sessions-0", "status.rotation", "it goes on"] {
        assert!(said.contains(words), "{words} is missing in:\n{said}");
    }
    let without_tls = session(&kubeconfig, &["rotate", "sessions", "--certificates"]);
    assert!(!without_tls.status.success());
    assert!(text(&without_tls.stderr).contains("spec.tls is Disabled"));
    let missing = session(&kubeconfig, &["rotate", "nothing"]);
    assert!(text(&missing.stderr).contains("SessionStore nothing does not exist"));
}

#[tokio::test]
async fn status_shows_what_the_policy_says() {
    let (world, _) = World::shared("status").await;
    world.application("shop", "traefik").await;
    world.create(&policy("shop", "shop", &Value::Null)).await;
    world.until_ready("shop").await;
    let kubeconfig = editor(&world);
    let shown = session(&kubeconfig, &["status", "shop"]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let shown = text(&shown.stdout);
    for words in ["shop", "Sticky", "Ingress", "Traefik", "PodLoss", "ScaleUp"] {
        assert!(shown.contains(words), "{words} is missing in:\n{shown}");
    }
    let missing = session(&kubeconfig, &["status", "nothing"]);
    assert!(!missing.status.success());
    assert!(
        text(&missing.stderr).contains("nothing"),
        "{}",
        text(&missing.stderr)
    );
}

#[tokio::test]
async fn detach_undoes_while_the_operator_runs_and_keeps_the_policy_suspended() {
    let (world, _) = World::shared("detach").await;
    world.application("shop", "traefik").await;
    let before = essence(&world.get("Service", "shop").await);
    world.create(&policy("shop", "shop", &Value::Null)).await;
    world.until_ready("shop").await;
    let kubeconfig = editor(&world);
    let unconfirmed = session(&kubeconfig, &["detach", "shop"]);
    assert!(!unconfirmed.status.success(), "nobody said yes");
    world.until_ready("shop").await;
    let detached = session(&kubeconfig, &["detach", "shop", "--yes"]);
    assert!(detached.status.success(), "{}", text(&detached.stderr));
    assert!(
        text(&detached.stdout).contains("undone on Service/shop"),
        "{}",
        text(&detached.stdout)
    );
    // The running operator respects the suspension.
    world
        .until_refused("shop", "AffinityConfigured", "Suspended")
        .await;
    let left = world.get("SessionPolicy", "shop").await;
    assert_eq!(left["spec"]["suspend"], true);
    assert!(!has_finalizer(&left));
    assert_eq!(essence(&world.get("Service", "shop").await), before);
    world.delete_policy("shop").await;
}

#[tokio::test]
async fn detach_all_undoes_without_an_operator_and_a_later_one_takes_up_again() {
    let _peace = peace().await;
    let own = Own::new("abandoned").await;
    let world = &own.world;
    stage::FAULTS.apply_manifests(&stage::cluster_manifest("traefik-crds.yaml"));
    let operator = own.start_leader().await;
    world.application("shop", "nginx").await;
    world.create(&deployment("blog")).await;
    world.create(&service("blog")).await;
    let route = json!({
        "apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": {"name": "blog"},
        "spec": {"routes": [{"match": "PathPrefix(`/`)", "kind": "Rule", "services": [{"name": "blog", "port": 80}]}]}
    });
    world.create(&route).await;
    let objects = async || {
        [
            essence(&world.get("Ingress", "shop").await),
            essence(&world.get("IngressRoute", "blog").await),
        ]
    };
    let before = objects().await;
    for name in ["shop", "blog"] {
        world.create(&policy(name, name, &Value::Null)).await;
        world.until_ready(name).await;
    }
    assert_ne!(objects().await, before);
    operator.kill();
    let detached = session(
        &editor(world),
        &["detach", "--all", "--namespace", &world.namespace, "--yes"],
    );
    assert!(detached.status.success(), "{}", text(&detached.stderr));
    assert_eq!(objects().await, before);
    for name in ["shop", "blog"] {
        let left = world.get("SessionPolicy", name).await;
        assert!(!has_finalizer(&left), "{left}");
        assert_eq!(records(&left), None);
    }
    let operator: Operator = own.start_leader().await;
    world
        .patch("SessionPolicy", "blog", &json!({"spec": {"suspend": false}}))
        .await;
    world.until_ready("blog").await;
    world.delete_policy("blog").await;
    assert_eq!(objects().await, before);
    operator.stop().await;
}
