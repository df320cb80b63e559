//! Looks at what stands around the target: budgets, autoscalers, nodes. None of it is followed by a watch, and all of it
//! changes seldom.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};

use super::Memory;
use crate::policy::sessions::cautions::{OldNode, Surroundings, of_autoscaler, of_scaled_object};
use crate::runtime::client;

/// Nodes that are asked for at once; one may be tens of kilobytes.
const PAGE: u32 = 100;

/// What the namespace has, as remembered or as it is now.
pub async fn surroundings(client: &Client, memory: &Memory, namespace: &str) -> kube::Result<Surroundings> {
    if let Some(known) = memory.surroundings(namespace) {
        return Ok(known);
    }
    let found = read_surroundings(client, namespace).await?;
    memory.learn_surroundings(namespace, &found);
    Ok(found)
}

/// Nodes with too old a kubelet, as remembered or as they are now.
pub async fn old_nodes(client: &Client, memory: &Memory) -> kube::Result<Vec<OldNode>> {
    if let Some(known) = memory.old_nodes() {
        return Ok(known);
    }
    let found = read_old_nodes(client).await?;
    memory.learn_old_nodes(&found);
    Ok(found)
}

/// What the namespace has now.
pub async fn read_surroundings(client: &Client, namespace: &str) -> kube::Result<Surroundings> {
    let all = ListParams::default();
    let budgets = Api::<PodDisruptionBudget>::namespaced(client.clone(), namespace)
        .list(&all)
        .await?;
    let autoscalers = Api::<HorizontalPodAutoscaler>::namespaced(client.clone(), namespace)
        .list(&all)
        .await?;
    let resource = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject"),
        "scaledobjects",
    );
    let scaled = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource)
        .list(&all)
        .await;
    let scaled = match scaled {
        Ok(list) => list.items,
        // There is no KEDA.
        Err(error) if client::is_not_found(&error) => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut to_zero: Vec<_> = autoscalers
        .items
        .iter()
        .filter_map(of_autoscaler)
        .chain(scaled.iter().filter_map(of_scaled_object))
        .collect();
    to_zero.sort();
    Ok(Surroundings {
        budgets: budgets.items,
        to_zero,
    })
}

/// Nodes whose kubelet is too old now.
pub async fn read_old_nodes(client: &Client) -> kube::Result<Vec<OldNode>> {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    let mut old = Vec::new();
    loop {
        let page = nodes.list(&params).await?;
        old.extend(page.items.iter().filter_map(OldNode::of));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(old),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server without KEDA whose nodes come in two pages, and the paths that it was asked for.
    fn server() -> (Client, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let node = |name: &str, version: &str| {
            json!({"metadata": {"name": name}, "status": {"nodeInfo": {
                "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": version, "machineID": "", "operatingSystem": "",
                "osImage": "", "systemUUID": ""
            }}})
        };
        let service = tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            let second = request
                .uri()
                .query()
                .is_some_and(|query| query.contains("continue=more"));
            log.lock().unwrap().push(path.clone());
            let items = |items: &[Value]| json!({"metadata": {}, "items": items});
            let answer = if path.ends_with("/nodes") && second {
                Some(items(&[node("b", "v1.28.2")]))
            } else if path.ends_with("/nodes") {
                Some(json!({"metadata": {"continue": "more"}, "items": [node("a", "v1.36.0")]}))
            } else if path.ends_with("/scaledobjects") {
                None
            } else {
                Some(items(&[]))
            };
            let code = if answer.is_some() {
                StatusCode::OK
            } else {
                StatusCode::NOT_FOUND
            };
            let body = answer.map_or_else(
                || b"404 page not found".to_vec(),
                |body| body.to_string().into_bytes(),
            );
            let response = Response::builder().status(code).body(Body::from(body)).unwrap();
            async move { Ok::<_, std::convert::Infallible>(response) }
        });
        (Client::new(service, "web"), asked)
    }

    #[tokio::test]
    async fn what_stands_around_is_asked_for_once_and_a_cluster_without_keda_is_no_error() {
        let (client, asked) = server();
        let memory = Memory::default();
        for _ in 0..3 {
            let found = surroundings(&client, &memory, "web").await.unwrap();
            assert!(found.budgets.is_empty() && found.to_zero.is_empty());
        }
        assert_eq!(
            asked.lock().unwrap().len(),
            3,
            "budgets and two kinds of autoscalers"
        );
        surroundings(&client, &memory, "blog").await.unwrap();
        assert_eq!(asked.lock().unwrap().len(), 6, "another namespace");
    }

    #[tokio::test]
    async fn every_page_of_nodes_is_looked_at_once() {
        let (client, asked) = server();
        let memory = Memory::default();
        for _ in 0..3 {
            assert_eq!(old_nodes(&client, &memory).await.unwrap().len(), 1);
        }
        assert_eq!(asked.lock().unwrap().len(), 2);
    }
}
