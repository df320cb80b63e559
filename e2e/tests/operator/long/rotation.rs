//! Other passwords and certificates of a store under load, while the operator is killed again and again.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::replicated::{STORE, Scene, WHOLE_LIMIT, busy_users, in_memory};
use e2e::store::{Rotates, rotating, value};
use e2e::users::nobody_lost;
use e2e::wait::eventually;
use e2e::{Cluster, with_temp_namespace};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use session_operator::api::session_store::RotationPhase;
use session_operator::drill::{Options, Report};

use super::super::support::{RELEASE, pods, session, whole};

/// Who has a password.
const SECRETS: [&str; 3] = ["sessions-user-shop", "sessions-admin", "sessions-replication"];

/// Longest time for a rotation: leaders are replaced and pods, and kubelets bring files twice.
const LIMIT: Duration = Duration::from_mins(20);

async fn kill_operators(cluster: &Cluster) -> Result<()> {
    for pod in pods(cluster).await? {
        cluster.run(["kill", "-n", RELEASE, &pod.name_any()]).await?;
    }
    Ok(())
}

/// Follows a rotation to its end, and kills the operator in two phases on the way.
async fn followed(scene: &Scene<'_>, what: Rotates) -> Result<()> {
    use RotationPhase::{Finished, Introducing, Replacing, Retiring, Switching};
    let (cluster, namespace) = (scene.cluster, scene.namespace);
    for phases in [
        &[Introducing, Switching, Replacing, Retiring][..],
        &[Replacing, Retiring],
    ] {
        whole(cluster).await?;
        let phase = rotating(cluster, namespace, STORE, what, phases).await?;
        eprintln!("{what:?}: the operator is killed in phase {phase:?}");
        kill_operators(cluster).await?;
    }
    rotating(cluster, namespace, STORE, what, &[Finished]).await?;
    whole(cluster).await
}

/// Rotates while users are at work: no request may fail, nobody be lost, and no server restarted.
async fn rotated(scene: &Scene<'_>, what: Rotates) -> Result<()> {
    let servers = scene.uids().await?;
    let mut arguments = vec!["rotate", STORE, "--no-wait"];
    if matches!(what, Rotates::Certificates) {
        arguments.push("--certificates");
    }
    let users = Options {
        event_limit: LIMIT,
        ..busy_users()
    };
    let report = scene
        .drill(users, "rotation", async || {
            session(scene.cluster, scene.namespace, &arguments).await?;
            followed(scene, what).await
        })
        .await?;
    nobody_lost(&report)?;
    ensure!(report.failed() == 0, "{}", report.table());
    ensure!(scene.uids().await? == servers, "a server was restarted for it");
    Ok(())
}

/// What was rotated is good for a primary that hands over, too.
async fn hands_over(scene: &Scene<'_>) -> Result<Report> {
    let before = scene.whole().await?;
    scene
        .drill(busy_users(), "primary's pod deleted", async || {
            let primary = scene.primary().await?;
            let pods = scene.pods();
            pods.delete(&primary.name_any(), &DeleteParams::default()).await?;
            scene.another_than(&before).await?;
            // It answers until its time is over.
            eventually("the former primary's pod to be replaced", WHOLE_LIMIT, || async {
                let now = pods.get_opt(&primary.name_any()).await?;
                let is_other = now.as_ref().is_some_and(|pod| pod.uid() != primary.uid());
                Ok(if is_other { Ok(()) } else { Err(now) })
            })
            .await?;
            scene.whole().await.map(|_| ())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_rotated_without_a_failed_request() -> Result<()> {
    with_temp_namespace("op-passwords", async |cluster, namespace| {
        whole(cluster).await?;
        let scene = Scene::with_patient_shop(cluster, namespace, in_memory()).await?;
        let old = scene.logins(&SECRETS).await?;
        scene.every_server(true, &old).await?;
        rotated(&scene, Rotates::Passwords).await?;
        let new = scene.logins(&SECRETS).await?;
        ensure!(
            new.iter()
                .zip(&old)
                .all(|(new, old)| new.0 == old.0 && new.1 != old.1),
            "a password is the same"
        );
        scene.every_server(false, &old).await?;
        scene.every_server(true, &new).await?;
        nobody_lost(&hands_over(&scene).await?)?;
        scene.every_server(false, &old).await?;
        scene.every_server(true, &new).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_rotated_without_a_failed_request() -> Result<()> {
    with_temp_namespace("op-certificates", async |cluster, namespace| {
        whole(cluster).await?;
        let scene = Scene::with_patient_shop(cluster, namespace, in_memory()).await?;
        let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
        let authority = async || value(&secrets.get(&format!("{STORE}-authority")).await?, "tls.crt");
        let (before, logins) = (authority().await?, scene.logins(&SECRETS).await?);
        rotated(&scene, Rotates::Certificates).await?;
        let after = authority().await?;
        ensure!(after != before, "the authority is the same");
        // Clients that trust the new one alone.
        scene.every_server_trusting(&after, true, &logins).await?;
        nobody_lost(&hands_over(&scene).await?)
    })
    .await
}
