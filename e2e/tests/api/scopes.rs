//! The chart with named namespaces: Roles there, and nothing elsewhere.

use serde_json::Value;

use crate::audit::assert_none;
use crate::operator::{CLASSES, Operator};
use crate::own::{STAGE, peace};
use crate::world::{World, policy};

#[tokio::test]
async fn an_operator_for_named_namespaces_works_there_and_does_nothing_elsewhere() {
    let _peace = peace().await;
    let mut worlds = Vec::new();
    for name in ["named-a", "named-b", "unnamed-c"] {
        let world = World::on(STAGE, name).await;
        worlds.push(world);
    }
    let release = format!("{}-release", worlds[0].namespace);
    let watched = [worlds[0].namespace.as_str(), worlds[1].namespace.as_str()];
    STAGE.install_chart(&release, &watched);
    STAGE.apply_manifests(CLASSES);
    for world in &worlds {
        world.application("shop", "traefik").await;
        world.create(&policy("shop", "shop", &Value::Null)).await;
    }
    let operator = Operator::start(STAGE, &release, &watched);
    operator.until_ready().await;
    for world in &worlds[..2] {
        world.until_ready("shop").await;
    }
    for world in &worlds[..2] {
        world.delete_policy("shop").await;
    }
    let untouched = &worlds[2];
    assert_eq!(untouched.get("SessionPolicy", "shop").await.get("status"), None);
    let requests = operator.requests();
    let elsewhere: Vec<_> = requests
        .iter()
        .filter(|request| request.namespace == untouched.namespace)
        .cloned()
        .collect();
    assert_none("requests for a namespace that is not named", &elsewhere);
    let forbidden: Vec<_> = requests
        .iter()
        .filter(|request| request.code == 403)
        .cloned()
        .collect();
    assert_none("forbidden", &forbidden);
    // Nothing is asked of all namespaces but what has none.
    let everywhere: Vec<_> = requests
        .into_iter()
        .filter(|request| request.namespace.is_empty() && !request.resource.is_empty())
        .filter(|request| {
            !matches!(
                request.resource.as_str(),
                "ingressclasses" | "customresourcedefinitions" | "namespaces"
            )
        })
        .collect();
    assert_none("requests for all namespaces", &everywhere);
    operator.stop().await;
}
