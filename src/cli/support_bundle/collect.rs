//! Reads what a report needs, with the user's own rights. What cannot be read becomes a line of the report.

mod read;

use std::collections::{BTreeMap, BTreeSet};

use kube::api::{Api, LogParams};
use kube::core::DynamicObject;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use self::read::file_name;
use super::kinds::{
    BUDGET, CONFIG_MAP, DEPLOYMENT, EVENT, INJECTION, LEASE, NETWORK_POLICY, NODE, POD, POLICY, REPLICA_SET,
    ROUTES, SCALERS, SECRET, SERVICE, STATEFUL_SET, STORE,
};
use super::pick::{self, Subjects, name, text};
use super::progress::Progress;
use crate::api::FIELD_MANAGER;
use crate::policy::sessions::peers;

/// Logs that are read at most, so that a report about hundreds of pods stays one that can be sent.
const MOST_LOGS: usize = 60;

/// Nodes that are looked at at most.
const MOST_NODES: usize = 60;

/// The file with versions.
const VERSIONS: &str = "versions.yaml";

/// Bytes of one log.
const LOG_BYTES: i64 = 4 << 20;

/// What was read, as the API server gave it: nothing of it may leave without having been redacted.
#[derive(Debug, Default)]
pub struct Raw {
    /// Objects by folder and file name.
    pub objects: BTreeMap<String, Value>,
    /// Secrets of the operator and its policies.
    pub secrets: Vec<Value>,
    /// Events, oldest first.
    pub events: Vec<Value>,
    /// Logs by folder and file name.
    pub logs: BTreeMap<String, String>,
    /// What could not be read, a line each.
    pub problems: Vec<String>,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Namespace of the policies.
    pub namespace: String,
    /// The only policy that is asked about.
    pub policy: Option<String>,
    /// Where the operator runs, if it cannot be looked for.
    pub operator_namespace: String,
    /// Last lines of each log.
    pub log_lines: u32,
}

/// Reads all of it.
pub async fn collect(client: &Client, wanted: &Wanted, progress: &mut Progress) -> Raw {
    let mut collector = Collector {
        client,
        wanted,
        raw: Raw::default(),
        about: BTreeSet::new(),
    };
    progress.step("versions");
    collector.versions().await;
    progress.step("policies, stores and what is injected");
    let subjects = collector.policies().await;
    progress.step("targets and their pods");
    let pods = collector.targets(&subjects).await;
    progress.step("Services, routes and what else stands around the targets");
    collector.surroundings(&subjects, &pods.templates).await;
    collector.nodes(&pods.all).await;
    progress.step("the operator's own pods");
    let operator = collector.operator().await;
    progress.step("events");
    collector.events(&operator).await;
    collector.logs("operator", &operator, progress).await;
    collector.logs("pods", &pods.all, progress).await;
    collector.raw
}

struct Pods {
    /// Pods of targets and stores.
    all: Vec<Value>,
    /// Labels of the pods of each target.
    templates: Vec<BTreeMap<String, String>>,
}

struct Collector<'a> {
    client: &'a Client,
    wanted: &'a Wanted,
    raw: Raw,
    /// Kind and name of each object, whose Events are wanted.
    about: BTreeSet<(String, String)>,
}

impl Collector<'_> {
    async fn versions(&mut self) {
        let server = match self.client.apiserver_version().await {
            Ok(server) => Some(server.git_version),
            Err(error) => {
                self.problem("version of the API server", &error);
                None
            }
        };
        let groups = match self.client.list_api_groups().await {
            Ok(found) => found.groups.into_iter().map(|group| group.name).collect(),
            Err(error) => {
                self.problem("API groups of the cluster", &error);
                Vec::new()
            }
        };
        let versions = json!({
            "kubectl-session": env!("CARGO_PKG_VERSION"),
            "server": server,
            "apiGroups": groups,
        });
        self.raw.objects.insert(VERSIONS.to_owned(), versions);
    }

    async fn policies(&mut self) -> Subjects {
        let policies = match &self.wanted.policy {
            Some(name) => Vec::from_iter(self.get(POLICY, name).await),
            None => self.list(POLICY, None).await,
        };
        let subjects = Subjects::of(&policies);
        self.keep("policies", policies);
        let mut stores = self.list(STORE, None).await;
        if self.wanted.policy.is_some() {
            stores.retain(|store| subjects.stores.contains(name(store)));
        }
        let mut subjects = subjects;
        subjects
            .stores
            .extend(stores.iter().map(|store| name(store).to_owned()));
        self.keep("stores", stores);
        let mut injections = self.list(INJECTION, None).await;
        injections.retain(|injection| subjects.policies.contains(text(injection, "/spec/policy/name")));
        self.keep("injections", injections);
        subjects
    }

    async fn targets(&mut self, subjects: &Subjects) -> Pods {
        let mut deployments = Vec::new();
        for target in &subjects.targets {
            deployments.extend(self.get(DEPLOYMENT, target).await);
        }
        let uids = |objects: &[Value]| -> BTreeSet<String> {
            objects
                .iter()
                .map(|object| text(object, "/metadata/uid").to_owned())
                .collect()
        };
        let mut sets = self.list(REPLICA_SET, None).await;
        let owners = uids(&deployments);
        sets.retain(|set| pick::owned_by(set, &owners));
        let mut pods = self.list(POD, None).await;
        let owners = uids(&sets);
        pods.retain(|pod| pick::owned_by(pod, &owners) || subjects.own(pod));
        let mut stateful = self.list(STATEFUL_SET, None).await;
        stateful.retain(|set| subjects.own(set));
        let templates = deployments
            .iter()
            .map(|deployment| pick::labels(deployment, "/spec/template/metadata/labels"))
            .collect();
        self.keep("targets", deployments);
        self.keep("targets", sets);
        self.keep("stores", stateful);
        self.keep("pods", pods.clone());
        Pods { all: pods, templates }
    }

    async fn surroundings(&mut self, subjects: &Subjects, templates: &[BTreeMap<String, String>]) {
        let mut services = self.list(SERVICE, None).await;
        services.retain(|service| {
            subjects.own(service) || templates.iter().any(|labels| pick::serves(service, labels))
        });
        let names: BTreeSet<String> = services.iter().map(|service| name(service).to_owned()).collect();
        self.keep("services", services);
        for kind in ROUTES {
            let mut routes = self.list(kind, None).await;
            routes.retain(|route| pick::leads_to(route, &names));
            self.keep("routes", routes);
        }
        let selected = |object: &Value, pointer: &str| {
            templates
                .iter()
                .any(|labels| pick::selects(object, pointer, labels))
        };
        let mut budgets = self.list(BUDGET, None).await;
        budgets.retain(|budget| subjects.own(budget) || selected(budget, "/spec/selector"));
        self.keep("around", budgets);
        let mut policies = self.list(NETWORK_POLICY, None).await;
        policies.retain(|policy| selected(policy, "/spec/podSelector"));
        self.keep("around", policies);
        for kind in SCALERS {
            let mut scalers = self.list(kind, None).await;
            scalers.retain(|scaler| subjects.scaled_by(scaler));
            self.keep("around", scalers);
        }
        for policy in &subjects.policies {
            if let Some(places) = self.get_quietly(CONFIG_MAP, &peers::name(policy)).await {
                self.keep("around", vec![places]);
            }
        }
        let managed = format!("app.kubernetes.io/managed-by={FIELD_MANAGER}");
        let mut secrets = self.list(SECRET, Some(&managed)).await;
        secrets.retain(|secret| subjects.own(secret));
        for external in &subjects.secrets {
            secrets.extend(self.get(SECRET, external).await);
        }
        self.raw.secrets = secrets;
    }

    /// What is worth knowing of the nodes that carry the pods: a node has much more, such as every image on it.
    async fn nodes(&mut self, pods: &[Value]) {
        let names: BTreeSet<&str> = pods
            .iter()
            .map(|pod| text(pod, "/spec/nodeName"))
            .filter(|name| !name.is_empty())
            .collect();
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &NODE.resource());
        for node in names.into_iter().take(MOST_NODES) {
            match api.get(node).await {
                Ok(found) => {
                    let zone = found.labels().get("topology.kubernetes.io/zone").cloned();
                    let conditions = found.data.pointer("/status/conditions");
                    let summary = json!({
                        "zone": zone,
                        "unschedulable": found.data.pointer("/spec/unschedulable"),
                        "taints": found.data.pointer("/spec/taints"),
                        "nodeInfo": found.data.pointer("/status/nodeInfo"),
                        "conditions": conditions,
                    });
                    self.raw
                        .objects
                        .insert(format!("nodes/{}.yaml", file_name(node)), summary);
                }
                Err(error) => {
                    self.problem(&format!("node {node}"), &error);
                    // The others would be refused for the same reason.
                    if matches!(&error, kube::Error::Api(status) if status.code == 403) {
                        return;
                    }
                }
            }
        }
    }

    async fn operator(&mut self) -> Vec<Value> {
        let labels = "app.kubernetes.io/component=operator";
        let everywhere: Api<DynamicObject> = Api::all_with(self.client.clone(), &POD.resource());
        let mut pods = match self.read(POD, everywhere, Some(labels)).await {
            Ok(pods) => pods,
            Err(error) => {
                self.problem("pods of the operator in all namespaces", &error);
                let namespace = &self.wanted.operator_namespace;
                let there = Api::namespaced_with(self.client.clone(), namespace, &POD.resource());
                match self.read(POD, there, Some(labels)).await {
                    Ok(pods) => pods,
                    Err(error) => {
                        self.problem(&format!("pods of the operator in namespace {namespace}"), &error);
                        Vec::new()
                    }
                }
            }
        };
        pods.retain(pick::is_operator);
        if pods.is_empty() {
            let line = "no pod of the operator was found; --operator-namespace says where it runs";
            self.raw.problems.push(line.to_owned());
        }
        let images: BTreeSet<&str> = pods
            .iter()
            .map(|pod| text(pod, "/spec/containers/0/image"))
            .collect();
        if let Some(versions) = self.raw.objects.get_mut(VERSIONS).and_then(Value::as_object_mut) {
            versions.insert("operatorImages".to_owned(), json!(images));
        }
        self.keep("operator", pods.clone());
        let namespaces: BTreeSet<String> = pods
            .iter()
            .map(|pod| text(pod, "/metadata/namespace").to_owned())
            .collect();
        for namespace in namespaces {
            let leases = Api::namespaced_with(self.client.clone(), &namespace, &LEASE.resource());
            match self.read(LEASE, leases, None).await {
                Ok(mut leases) => {
                    leases.retain(|lease| {
                        pods.iter()
                            .any(|pod| text(lease, "/spec/holderIdentity").contains(name(pod)))
                    });
                    self.keep("operator", leases);
                }
                Err(error) => self.problem(&format!("Leases in namespace {namespace}"), &error),
            }
        }
        pods
    }

    async fn events(&mut self, operator: &[Value]) {
        let mut namespaces: BTreeSet<String> = operator
            .iter()
            .map(|pod| text(pod, "/metadata/namespace").to_owned())
            .collect();
        namespaces.insert(self.wanted.namespace.clone());
        for namespace in namespaces {
            let api = Api::namespaced_with(self.client.clone(), &namespace, &EVENT.resource());
            match self.read(EVENT, api, None).await {
                Ok(mut events) => {
                    events.retain(|event| pick::concerns(event, &self.about));
                    self.raw.events.extend(events);
                }
                Err(error) => self.problem(&format!("Events in namespace {namespace}"), &error),
            }
        }
        self.raw.events.sort_by_key(super::write::time_of);
    }

    async fn logs(&mut self, folder: &str, pods: &[Value], progress: &mut Progress) {
        for pod in pods {
            for container in pick::containers_of_ours(pod) {
                let previous = pick::was_restarted(pod, &container);
                for previous in std::iter::once(false).chain(previous.then_some(true)) {
                    if self.raw.logs.len() >= MOST_LOGS {
                        let line = format!("logs from pod {} on: {MOST_LOGS} are enough", name(pod));
                        self.raw.problems.push(line);
                        return;
                    }
                    progress.step(&format!("log of {}/{container}", name(pod)));
                    self.log(folder, pod, &container, previous).await;
                }
            }
        }
    }

    async fn log(&mut self, folder: &str, pod: &Value, container: &str, previous: bool) {
        let namespace = text(pod, "/metadata/namespace");
        let api: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = LogParams {
            container: Some(container.to_owned()),
            previous,
            tail_lines: Some(i64::from(self.wanted.log_lines)),
            limit_bytes: Some(LOG_BYTES),
            timestamps: true,
            ..LogParams::default()
        };
        let suffix = if previous { ".previous" } else { "" };
        match api.logs(name(pod), &params).await {
            Ok(log) => {
                let file = format!(
                    "logs/{folder}/{}_{}{suffix}.log",
                    file_name(name(pod)),
                    file_name(container)
                );
                self.raw.logs.insert(file, log);
            }
            Err(error) => {
                self.problem(&format!("log{suffix} of {}/{container}", name(pod)), &error);
            }
        }
    }
}
