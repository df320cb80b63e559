//! The applications of `e2e/apps` in a namespace of a test's choice, and drills of them.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{Api, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::Value;
use session_operator::drill::application::Values;
use session_operator::drill::client::{Answer, Call, Client};
use session_operator::drill::event::{Event, Workload};
use session_operator::drill::progress::Line;
use session_operator::drill::{Application, Drill, Options, Report, Target};

use crate::cluster::{self, Cluster};
use crate::wait::eventually;

/// How long a change of a Deployment may take on a busy machine.
pub const ROLLOUT_LIMIT: Duration = Duration::from_mins(5);

/// How long users have to stay before affinity counts as settled; longer than Traefik's throttle.
const SETTLED: Duration = Duration::from_secs(3);

/// How long an ingress controller may take to serve a new route. Where the API server was away just before, Traefik's watches
/// wait for up to a minute before they try again (client-go's reflectors: 30 s, and as much again by chance); seen: 56 s after
/// 10 s without one.
const ROUTE_LIMIT: Duration = Duration::from_secs(90);

/// The header in which every application names the pod that answers.
const POD_HEADER: &str = "x-served-by";

/// An application of `e2e/apps`.
#[derive(Clone, Copy, Debug)]
pub struct App {
    /// Name of its Deployment, Service and Ingress.
    pub name: &'static str,
    /// First label of the host under which it is served.
    site: &'static str,
    /// What a policy calls the framework that it is made with.
    pub framework: &'static str,
    drill: &'static str,
    manifests: &'static str,
}

/// An application by its folder and framework.
macro_rules! app {
    ($name:literal, $framework:literal) => {
        App {
            name: $name,
            site: $name,
            framework: $framework,
            drill: include_str!(concat!("../apps/", $name, "/drill.yaml")),
            manifests: include_str!(concat!("../apps/", $name, "/k8s.yaml")),
        }
    };
}

/// PHP on Apache, sessions in files.
pub const SHOP: App = app!("shop", "PHP");
/// The shop's API, whose users log in at the shop.
pub const SHOP_API: App = App {
    name: "shop-api",
    drill: include_str!("../apps/shop/api-drill.yaml"),
    manifests: include_str!("../apps/shop/api.yaml"),
    ..SHOP
};
/// Tomcat, sessions in its memory.
pub const TICKETS: App = app!("tickets", "Tomcat");
/// Django on gunicorn, sessions in a database.
pub const LIBRARY: App = app!("library", "Django");
/// Express as an ES module, sessions in the memory of Node.js.
pub const KITCHEN: App = app!("kitchen", "Express");
/// The same as a CommonJS module.
pub const KITCHEN_CJS: App = App {
    name: "kitchen-cjs",
    site: "kitchen-cjs",
    manifests: include_str!("../apps/kitchen/cjs.yaml"),
    ..KITCHEN
};
/// Spring Boot with Spring Session.
pub const NOTES: App = app!("notes", "Spring");

impl App {
    /// How the drill uses it.
    pub fn application(self) -> Result<Application> {
        Application::from_yaml(self.drill).with_context(|| format!("the drill of {}", self.name))
    }

    /// Its objects, for a namespace of a test's choice.
    pub fn manifests(self, namespace: &str) -> Result<Manifests> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(self.manifests)?;
        let mut ingress: Ingress = object(self, &documents, namespace)?;
        for rule in ingress
            .spec
            .iter_mut()
            .flat_map(|spec| spec.rules.iter_mut().flatten())
        {
            rule.host = Some(host(self, namespace));
        }
        Ok(Manifests {
            app: self,
            deployment: object(self, &documents, namespace)?,
            service: object(self, &documents, namespace)?,
            ingress,
        })
    }

    /// The question who is logged in, from somebody who is not.
    pub fn check(self) -> Result<Call> {
        let values = Values { user: "nobody", n: 0 };
        let request = self.application()?.check.request;
        request.call(values, &[]).map_err(|reason| anyhow!(reason))
    }
}

/// The objects of an application, for a test to change before it creates them.
#[derive(Clone, Debug)]
pub struct Manifests {
    /// Whose they are.
    pub app: App,
    /// The Deployment.
    pub deployment: Deployment,
    /// The Service.
    pub service: Service,
    /// The Ingress; its host is that of [`host`].
    pub ingress: Ingress,
}

impl Manifests {
    /// Creates all of them and waits until the pods are ready.
    pub async fn create(&self, client: &kube::Client, namespace: &str) -> Result<Running> {
        create(client, namespace, &self.ingress).await?;
        self.create_without_ingress(client, namespace).await
    }

    /// The same, and nothing leads there yet.
    pub async fn create_without_ingress(&self, client: &kube::Client, namespace: &str) -> Result<Running> {
        create(client, namespace, &self.deployment).await?;
        create(client, namespace, &self.service).await?;
        let running = Running::new(client, self.app, namespace, &host(self.app, namespace));
        running.settled().await?;
        Ok(running)
    }

    /// The same behind Traefik: waits for the route, and gives the address where users come in.
    pub async fn behind_traefik(&self, cluster: &Cluster) -> Result<(Running, SocketAddr)> {
        let namespace = self.deployment.namespace().unwrap_or_default();
        let running = self.create(&cluster.client, &namespace).await?;
        let entry = cluster.expose(cluster::TRAEFIK_PORT).await?;
        running.routed(entry).await?;
        Ok((running, entry))
    }
}

/// The host under which an application of a namespace is served.
pub fn host(app: App, namespace: &str) -> String {
    format!("{}.{namespace}.test", app.site)
}

fn object<K>(app: App, documents: &[Value], namespace: &str) -> Result<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let kind = K::kind(&());
    let document = documents
        .iter()
        .find(|document| document.get("kind").and_then(Value::as_str) == Some(&*kind));
    let document = document.ok_or_else(|| anyhow!("the manifests of {} have no {kind}", app.name))?;
    let mut object: K =
        serde_json::from_value(document.clone()).with_context(|| format!("the {kind} of {}", app.name))?;
    object.meta_mut().namespace = Some(namespace.to_owned());
    Ok(object)
}

async fn create<K>(client: &kube::Client, namespace: &str, object: &K) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let created = api.create(&PostParams::default(), object).await;
    created
        .map(|_| ())
        .with_context(|| format!("creating {} {}", K::kind(&()), object.name_any()))
}

/// The pod that answered.
fn pod_of(answer: &Answer) -> Option<String> {
    answer
        .headers
        .get(POD_HEADER)
        .and_then(|name| name.to_str().ok())
        .map(str::to_owned)
}

/// A running application.
#[derive(Clone)]
pub struct Running {
    /// Which.
    pub app: App,
    /// Its Deployment.
    pub workload: Workload,
    host: String,
}

impl Running {
    /// An application in a namespace, served under a host.
    pub fn new(client: &kube::Client, app: App, namespace: &str, host: &str) -> Self {
        Self {
            app,
            workload: Workload::new(client.clone(), namespace, app.name),
            host: host.to_owned(),
        }
    }

    /// Waits until all pods are ready and up to date.
    pub async fn settled(&self) -> Result<()> {
        let settled = tokio::time::timeout(ROLLOUT_LIMIT, self.workload.settled()).await;
        let name = self.app.name;
        settled.with_context(|| format!("the pods of {name} are not ready within {ROLLOUT_LIMIT:?}"))??;
        Ok(())
    }

    /// Where it is served, if `entry` is the address of an ingress controller.
    pub fn target(&self, entry: SocketAddr) -> Result<Target> {
        Ok(Target::http(entry, &self.host)?)
    }

    /// Waits until an ingress controller serves it from all its pods: it may be ready long before its routes are, and pods
    /// may be ready before it knows of them.
    pub async fn routed(&self, entry: SocketAddr) -> Result<()> {
        let (target, call) = (self.target(entry)?, self.app.check()?);
        let pods: BTreeSet<String> = self.workload.pods().await?.into_keys().collect();
        eventually(
            &format!("route {} to {pods:?}", target.url()),
            ROUTE_LIMIT,
            || async {
                let mut reached = BTreeSet::new();
                for _visitor in 0..3 * pods.len() {
                    match Client::new(target.clone(), false, Duration::from_secs(2))
                        .send(&call)
                        .await
                    {
                        Ok(answer) if answer.status == 200 => reached.extend(pod_of(&answer)),
                        Ok(answer) => return Ok(Err(format!("status {}", answer.status))),
                        Err(failure) => return Ok(Err(failure.to_string())),
                    }
                }
                Ok(if reached == pods {
                    Ok(())
                } else {
                    Err(format!("reached {reached:?}"))
                })
            },
        )
        .await
    }

    /// Waits until users have stayed where they are for a while: an ingress controller needs a moment to take over what is
    /// written (Traefik up to 2 s, its throttle), and a user who comes before is not bound to any pod.
    pub async fn sticky(&self, entry: SocketAddr) -> Result<()> {
        let (target, call) = (self.target(entry)?, self.app.check()?);
        let since = Cell::new(Instant::now());
        eventually(
            &format!("users of {} stay", target.url()),
            ROUTE_LIMIT,
            || async {
                let mut visitor = Client::new(target.clone(), false, Duration::from_secs(2));
                let mut pods = BTreeSet::new();
                for _request in 0..6 {
                    match visitor.send(&call).await {
                        Ok(answer) => pods.insert(pod_of(&answer)),
                        Err(failure) => {
                            since.set(Instant::now());
                            return Ok(Err(failure.to_string()));
                        }
                    };
                }
                if pods.len() != 1 {
                    since.set(Instant::now());
                    return Ok(Err(format!("one visitor on {pods:?}")));
                }
                Ok(if since.get().elapsed() > SETTLED {
                    Ok(())
                } else {
                    Err("not for long enough".to_owned())
                })
            },
        )
        .await
    }

    /// Drills it around something that a test does.
    pub async fn drill_with<F>(
        &self,
        entry: SocketAddr,
        options: Options,
        name: &str,
        event: F,
    ) -> Result<Report>
    where
        F: AsyncFnOnce() -> Result<()>,
    {
        let drill = Drill::new(self.app.application()?, self.target(entry)?, options)?;
        let _line = Line::show(drill.counters());
        Ok(Box::pin(drill.run(name, async |_| event().await)).await?)
    }

    /// Drills it around one of the drill's own events, with a line of progress on a terminal.
    pub async fn drill(&self, entry: SocketAddr, options: Options, event: &Event) -> Result<Report> {
        let drill = Drill::new(self.app.application()?, self.target(entry)?, options)?;
        let _line = Line::show(drill.counters());
        let name = event.to_string();
        let run = drill.run(&name, async |marks| self.workload.cause(event, &marks).await);
        // Large, as it holds requests to Kubernetes and to the application in all their states.
        Ok(Box::pin(run).await?)
    }
}
