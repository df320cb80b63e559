//! Rotation of passwords, topology Standalone.

use anyhow::{Result, ensure};
use e2e::namespace::with_temp_namespace;
use e2e::store::{Rotates, rotating};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use session_operator::api::session_store::RotationPhase;
use session_operator::api::{ROTATE_PASSWORDS_ANNOTATION, SessionStore};

use crate::support::Store;

#[tokio::test]
async fn after_a_rotation_the_old_password_is_refused_also_by_a_server_that_is_restarted() -> Result<()> {
    with_temp_namespace("store-rotation", async |cluster, namespace| {
        cluster.run(["volume", namespace, "1Gi"]).await?;
        let spec = json!({
            "engine": "Redis", "memory": "64Mi", "deletionPolicy": "Delete",
            "persistence": {"size": "1Gi", "storageClassName": "local"}
        });
        let store = Store::create(cluster, namespace, spec).await?;
        store.shared_by("shop", None).await?;
        store.until_serving(&["shop"]).await?;
        let old = store.as_user("shop").await?;
        store
            .expect(&old, &["SET", "shop:1", "basket", "EX", "600"], "OK")
            .await?;
        let pod = store.pod().await?;

        let wish = json!({"metadata": {"annotations": {ROTATE_PASSWORDS_ANNOTATION: "once"}}});
        store
            .api::<SessionStore>()
            .patch("sessions", &PatchParams::default(), &Patch::Merge(&wish))
            .await?;
        let finished = [RotationPhase::Finished];
        rotating(cluster, namespace, "sessions", Rotates::Passwords, &finished).await?;
        ensure!(store.pod().await? == pod, "the server was restarted for it");
        let new = store.as_user("shop").await?;
        store.expect(&new, &["GET", "shop:1"], "basket").await?;
        store.refused(&old, &["GET", "shop:1"], "WRONGPASS").await?;

        store.kill_server(&["shop"]).await?;
        store.refused(&old, &["GET", "shop:1"], "WRONGPASS").await?;
        store.replace_pod(&["shop"]).await?;
        store.refused(&old, &["GET", "shop:1"], "WRONGPASS").await?;
        store.expect(&new, &["GET", "shop:1"], "basket").await
    })
    .await
}
