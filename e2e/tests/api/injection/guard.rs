//! Who may write `SessionInjections`: whoever can makes containers run in other people's pods.

use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use session_operator::api::SessionInjection;

use super::{as_operator, client_as, injection};
use crate::own::{Own, STAGE, peace};
use crate::world::World;

fn injections(client: Client, world: &World) -> Api<SessionInjection> {
    Api::namespaced(client, &world.namespace)
}

fn typed(value: Value) -> SessionInjection {
    serde_json::from_value(value).unwrap()
}

/// What the API server says to a request that it has to refuse.
fn refusal<T: std::fmt::Debug>(answer: kube::Result<T>) -> String {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => status.message.clone(),
        answer => panic!("not forbidden: {answer:?}"),
    }
}

#[tokio::test]
async fn only_the_operator_makes_injections_and_who_may_delete_the_policy_deletes_them() {
    let _peace = peace().await;
    let Own { world, release } = Own::new("injection-guard").await;
    let parts = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let by_administrator = injections(world.client.clone(), &world);
    crate::wait::until("the guard to be in force", || async {
        let answer = by_administrator
            .create(&dry_run, &typed(injection("probe", &parts)))
            .await;
        answer
            .err()
            .map(drop)
            .ok_or_else(|| "an administrator may create one".to_owned())
    })
    .await;
    let message = refusal(
        by_administrator
            .create(&dry_run, &typed(injection("probe", &parts)))
            .await,
    );
    assert!(
        message.contains("only the operator makes SessionInjections"),
        "{message}"
    );

    let operator = as_operator(&world, &release).await;
    for name in ["kept", "by-user", "by-namespace", "by-garbage"] {
        operator.create(&injection(name, &parts)).await;
    }

    // All rights on injections by roles, and none on policies.
    STAGE.apply_manifests(&rights_on_injections(&world.namespace));
    let editor = injections(client_as(&world, "eve", &[]).await, &world);
    let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    crate::wait::until("the role to be in force", || async {
        editor
            .get("kept")
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .await;
    for message in [
        refusal(editor.patch("kept", &PatchParams::default(), &label).await),
        refusal(editor.delete("kept", &DeleteParams::default()).await.map(|_| ())),
    ] {
        assert!(
            message.contains("allowed to delete the SessionPolicy shop"),
            "{message}"
        );
    }

    by_administrator
        .delete("by-user", &DeleteParams::default())
        .await
        .unwrap();
    let controller = |name: &str| format!("system:serviceaccount:kube-system:{name}");
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    let namespaces = client_as(&world, &controller("namespace-controller"), &groups).await;
    let namespaces = injections(namespaces, &world);
    namespaces
        .delete("by-namespace", &DeleteParams::default())
        .await
        .unwrap();
    let garbage = client_as(&world, &controller("generic-garbage-collector"), &groups).await;
    let garbage = injections(garbage, &world);
    garbage
        .patch("by-garbage", &PatchParams::default(), &label)
        .await
        .unwrap();
    garbage
        .delete("by-garbage", &DeleteParams::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn not_even_the_operator_changes_one() {
    let _peace = peace().await;
    let Own { world, release } = Own::new("injection-immutable").await;
    let operator = as_operator(&world, &release).await;
    operator
        .create(&injection(
            "shop-1",
            &json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        ))
        .await;
    let change = Patch::Merge(json!({"spec": {"volumes": [{"name": "w", "emptyDir": {}}]}}));
    let answer = injections(operator.client.clone(), &world)
        .patch("shop-1", &PatchParams::default(), &change)
        .await;
    match answer {
        Err(kube::Error::Api(status)) => assert!(status.message.contains("immutable"), "{}", status.message),
        answer => panic!("changed: {answer:?}"),
    }
}

fn rights_on_injections(namespace: &str) -> String {
    format!(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: injections, namespace: {namespace}}}
rules: [{{apiGroups: [session-operator.dev], resources: [sessioninjections], verbs: [get, create, patch, delete]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: injections, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: injections}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: eve}}]
"
    )
}
