//! Other passwords and certificates of a store under load, while the operator is killed again and again.

use anyhow::{Result, ensure};
use e2e::replicated::{STORE, Scene, busy_users, in_memory};
use e2e::store::{Rotates, rotating};
use e2e::users::nobody_lost;
use e2e::{Cluster, with_temp_namespace};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use session_operator::api::session_store::RotationPhase;

use super::support::{RELEASE, pods, session, whole};

const SECRETS: [&str; 3] = ["sessions-user-shop", "sessions-admin", "sessions-replication"];

async fn kill_operators(cluster: &Cluster) -> Result<()> {
    for pod in pods(cluster).await? {
        cluster.run(["kill", "-n", RELEASE, &pod.name_any()]).await?;
    }
    Ok(())
}

/// Follows a rotation to its end, and kills the operator in phases on the way.
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

#[tokio::test(flavor = "multi_thread")]
async fn passwords_and_certificates_are_rotated_without_a_failed_request() -> Result<()> {
    with_temp_namespace("op-rotation", async |cluster, namespace| {
        whole(cluster).await?;
        let scene = Scene::with_patient_shop(cluster, namespace, in_memory()).await?;
        let old = scene.logins(&SECRETS).await?;
        // Replicas may do nothing that this user asks for but what following takes, and answer a PING.
        scene.every_server(true, &old).await?;
        let servers = scene.uids().await?;
        let report = scene
            .drill(busy_users(), "passwords rotated", async || {
                session(cluster, namespace, &["rotate", STORE, "--no-wait"]).await?;
                followed(&scene, Rotates::Passwords).await
            })
            .await?;
        nobody_lost(&report)?;
        ensure!(report.failed() == 0, "{}", report.table());
        let new = scene.logins(&SECRETS).await?;
        ensure!(
            new.iter()
                .zip(&old)
                .all(|(new, old)| new.0 == old.0 && new.1 != old.1)
        );
        scene.every_server(false, &old).await?;
        scene.every_server(true, &new).await?;
        scene.whole().await?;
        ensure!(scene.uids().await? == servers, "a server was restarted for it");

        let authority = async || {
            let api: Api<k8s_openapi::api::core::v1::Secret> =
                Api::namespaced(cluster.client.clone(), namespace);
            e2e::store::value(&api.get(&format!("{STORE}-authority")).await?, "tls.crt")
        };
        let before = authority().await?;
        let report = scene
            .drill(busy_users(), "certificates rotated", async || {
                let arguments = ["rotate", STORE, "--certificates", "--no-wait"];
                session(cluster, namespace, &arguments).await?;
                followed(&scene, Rotates::Certificates).await
            })
            .await?;
        nobody_lost(&report)?;
        ensure!(report.failed() == 0, "{}", report.table());
        ensure!(authority().await? != before, "the authority is the same");
        ensure!(scene.uids().await? == servers, "a server was restarted for it");
        scene.every_server(true, &new).await?;

        // What was rotated serves after a failover, too.
        let whole_before = scene.whole().await?;
        let report = scene
            .drill(busy_users(), "primary's pod deleted", async || {
                let primary = scene.primary().await?.name_any();
                scene.pods().delete(&primary, &DeleteParams::default()).await?;
                scene.another_than(&whole_before).await?;
                scene.whole().await.map(|_| ())
            })
            .await?;
        nobody_lost(&report)?;
        scene.every_server(false, &old).await?;
        scene.every_server(true, &new).await
    })
    .await
}
