//! The one table of pods that goes through both mechanisms.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use session_operator::api::SessionInjectionSpec;
use session_operator::injection;

use super::{as_operator, injection, pod, until_admitted};
use crate::world::World;

/// One pod and what becomes of it.
struct Row {
    name: &'static str,
    /// The injection that its label names.
    asks_for: Option<&'static str>,
    annotations: Value,
    spec: Value,
    expected: Expected,
}

enum Expected {
    /// The pod as it was written.
    Unchanged,
    /// The lines of [`outline`].
    Outline(Vec<&'static str>),
}
use Expected::{Outline, Unchanged};

/// Creates the injections in the world, waits until admission knows them, and sends every pod of the table through it.
/// `release` is the namespace of the release whose operator may write injections.
pub async fn run(world: &World, release: &str) {
    let operator = as_operator(world, release).await;
    let injections = [("shop-1", shop()), ("other-7", other())];
    for (name, parts) in &injections {
        let created = operator.create(&injection(name, parts)).await;
        until_admitted(world, &created).await;
    }
    for row in rows() {
        let mut sent = pod(row.name, row.asks_for, &row.spec);
        sent["metadata"]["annotations"] = row.annotations;
        let admitted = world.create(&sent).await;
        let lines: Vec<String> = match row.expected {
            Unchanged => outline(&sent),
            Outline(lines) => lines.into_iter().map(str::to_owned).collect(),
        };
        assert_eq!(
            outline(&admitted),
            lines,
            "{}: as admitted by the API server",
            row.name
        );
        let parts = injections.iter().find(|(name, _)| Some(*name) == row.asks_for);
        if let Some((name, parts)) = parts {
            let spec = injection(name, parts)["spec"].take();
            let spec: SessionInjectionSpec = serde_json::from_value(spec).unwrap();
            let admitted: Pod = serde_json::from_value(admitted).unwrap();
            assert_eq!(injection::contains(&admitted, &spec), Ok(()), "{}", row.name);
        }
    }
    a_copy_of_an_injected_pod_gets_nothing_twice(world).await;
}

/// As `kubectl debug --copy-to` makes one: label and contents are there already.
async fn a_copy_of_an_injected_pod_gets_nothing_twice(world: &World) {
    let original = world.get("Pod", "lists-by-value").await;
    let mut copy = pod("copy", Some("shop-1"), &original["spec"]);
    copy["metadata"]["labels"] = original["metadata"]["labels"].clone();
    let copy = world.create(&copy).await;
    assert_eq!(outline(&copy), outline(&original));
}

/// What the policy of the shop adds: something of each sort.
fn shop() -> Value {
    json!({
        "containers": [
            {
                "name": "web",
                "env": [
                    {"name": "SESSION_HOST", "value": "sessions.shops.svc"},
                    {"name": "SESSION_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "shop-session", "key": "password"}}}
                ],
                "extend": [{
                    "name": "NODE_OPTIONS",
                    "whenSet": "$(NODE_OPTIONS) --require /session-operator/agent/express.cjs",
                    "whenUnset": "--require /session-operator/agent/express.cjs"
                }],
                "volumeMounts": [
                    {"name": "session-operator-agent", "mountPath": "/session-operator/agent", "readOnly": true},
                    {"name": "session-operator-binding", "mountPath": "/session-operator/binding"}
                ]
            },
            {"name": "api", "env": [{"name": "SESSION_HOST", "value": "sessions.shops.svc"}]}
        ],
        "volumes": [
            {"name": "session-operator-agent", "emptyDir": {}},
            {"name": "session-operator-binding", "secret": {"secretName": "shop-session"}}
        ],
        "initContainers": [
            {
                "name": "session-operator-agent",
                "image": "localhost/agents:1",
                "args": ["copy", "/to"],
                "volumeMounts": [{"name": "session-operator-agent", "mountPath": "/to"}]
            },
            {
                "name": "session-operator-replicator",
                "image": "localhost/replicator:1",
                "restartPolicy": "Always",
                "readinessProbe": {"httpGet": {"path": "/readyz", "port": 7447}},
                "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                "securityContext": {"runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}}
            }
        ],
        "imagePullSecrets": [{"name": "mirror"}]
    })
}

/// What another policy adds to a container of the same name.
fn other() -> Value {
    json!({"containers": [{"name": "web", "env": [{"name": "OTHER", "value": "yes"}]}]})
}

const FULL_INIT: [&str; 2] = [
    "init session-operator-agent",
    "init session-operator-replicator always",
];

fn row(name: &'static str, asks_for: Option<&'static str>, spec: Value, expected: Expected) -> Row {
    Row {
        name,
        asks_for,
        annotations: json!({}),
        spec,
        expected,
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn rows() -> Vec<Row> {
    let image = "localhost/shop:1";
    let ours = Some("shop-1");
    let web = json!({"containers": [{"name": "web", "image": image}]});
    let mut forged = row("forged-mark", ours, web.clone(), Outline(BARE.to_vec()));
    forged.annotations = json!({
        "session-operator.dev/injected": "true",
        "session-operator.dev/injection": "shop-1",
        "session-operator.dev/status": "injected"
    });
    vec![
        row("no-lists-yet", ours, web.clone(), Outline(BARE.to_vec())),
        forged,
        row(
            "several-containers",
            ours,
            json!({"containers": [
                {"name": "log", "image": image, "env": [{"name": "LEVEL", "value": "info"}]},
                {"name": "api", "image": image},
                {"name": "web", "image": image, "env": [{"name": "MODE", "value": "production"}]}
            ]}),
            Outline(vec![
                FULL_INIT[0],
                FULL_INIT[1],
                "container log",
                "  env LEVEL=info",
                "container api",
                "  env SESSION_HOST=sessions.shops.svc",
                "container web",
                "  env MODE=production",
                "  env SESSION_HOST=sessions.shops.svc",
                "  env SESSION_PASSWORD from secret shop-session/password",
                "  env NODE_OPTIONS=--require /session-operator/agent/express.cjs",
                "  mount session-operator-agent at /session-operator/agent",
                "  mount session-operator-binding at /session-operator/binding",
                "volume session-operator-agent emptyDir",
                "volume session-operator-binding secret",
                "pull mirror",
            ]),
        ),
        row(
            "none-of-its-containers-is-named",
            ours,
            json!({"containers": [{"name": "worker", "image": image}]}),
            Outline(vec![
                FULL_INIT[0],
                FULL_INIT[1],
                "container worker",
                "volume session-operator-agent emptyDir",
                "volume session-operator-binding secret",
                "pull mirror",
            ]),
        ),
        row(
            "existing-volumes",
            ours,
            json!({
                "containers": [{
                    "name": "web",
                    "image": image,
                    "volumeMounts": [{"name": "uploads", "mountPath": "/uploads"}]
                }],
                "volumes": [
                    {"name": "uploads", "persistentVolumeClaim": {"claimName": "uploads"}},
                    {"name": "session-operator-binding", "configMap": {"name": "theirs"}}
                ]
            }),
            Outline(vec![
                FULL_INIT[0],
                FULL_INIT[1],
                "container web",
                "  env SESSION_HOST=sessions.shops.svc",
                "  env SESSION_PASSWORD from secret shop-session/password",
                "  env NODE_OPTIONS=--require /session-operator/agent/express.cjs",
                "  mount uploads at /uploads",
                "  mount session-operator-agent at /session-operator/agent",
                "  mount session-operator-binding at /session-operator/binding",
                "volume uploads persistentVolumeClaim",
                "volume session-operator-binding configMap",
                "volume session-operator-agent emptyDir",
                "pull mirror",
            ]),
        ),
        row(
            "existing-init-containers",
            ours,
            json!({
                "initContainers": [
                    {"name": "migrate", "image": image},
                    {"name": "session-operator-agent", "image": "localhost/theirs:1"}
                ],
                "containers": [{"name": "web", "image": image}]
            }),
            Outline(vec![
                FULL_INIT[1],
                "init migrate",
                FULL_INIT[0],
                BARE[2],
                BARE[3],
                BARE[4],
                BARE[5],
                BARE[6],
                BARE[7],
                BARE[8],
                BARE[9],
                BARE[10],
            ]),
        ),
        row(
            "name-of-a-container-is-taken",
            ours,
            json!({"containers": [{"name": "session-operator-replicator", "image": image}]}),
            Outline(vec![
                FULL_INIT[0],
                "container session-operator-replicator",
                "volume session-operator-agent emptyDir",
                "volume session-operator-binding secret",
                "pull mirror",
            ]),
        ),
        row(
            "containers-of-other-injectors",
            ours,
            json!({
                "initContainers": [
                    {"name": "istio-validation", "image": image},
                    {"name": "istio-proxy", "image": image, "restartPolicy": "Always"}
                ],
                "containers": [
                    {"name": "dapr", "image": image, "volumeMounts": [{"name": "dapr", "mountPath": "/dapr"}]},
                    {"name": "web", "image": image, "env": [{"name": "DAPR_HTTP_PORT", "value": "3500"}]}
                ],
                "volumes": [{"name": "dapr", "emptyDir": {}}]
            }),
            Outline(vec![
                FULL_INIT[0],
                FULL_INIT[1],
                "init istio-validation",
                "init istio-proxy always",
                "container dapr",
                "  mount dapr at /dapr",
                "container web",
                "  env DAPR_HTTP_PORT=3500",
                "  env SESSION_HOST=sessions.shops.svc",
                "  env SESSION_PASSWORD from secret shop-session/password",
                "  env NODE_OPTIONS=--require /session-operator/agent/express.cjs",
                "  mount session-operator-agent at /session-operator/agent",
                "  mount session-operator-binding at /session-operator/binding",
                "volume dapr emptyDir",
                "volume session-operator-agent emptyDir",
                "volume session-operator-binding secret",
                "pull mirror",
            ]),
        ),
        row(
            "lists-by-value",
            ours,
            with_env(&json!([{"name": "NODE_OPTIONS", "value": "--trace-warnings"}])),
            Outline(vec![
                FULL_INIT[0],
                FULL_INIT[1],
                "container web",
                "  env NODE_OPTIONS=--trace-warnings",
                "  env SESSION_HOST=sessions.shops.svc",
                "  env SESSION_PASSWORD from secret shop-session/password",
                "  env NODE_OPTIONS=$(NODE_OPTIONS) --require /session-operator/agent/express.cjs",
                BARE[6],
                BARE[7],
                BARE[8],
                BARE[9],
                BARE[10],
            ]),
        ),
        row(
            "lists-by-reference",
            ours,
            with_env(
                &json!([{"name": "NODE_OPTIONS", "valueFrom": {"configMapKeyRef": {"name": "node", "key": "options"}}}]),
            ),
            Outline(vec![
                FULL_INIT[0],
                FULL_INIT[1],
                "container web",
                "  env NODE_OPTIONS from configMap node/options",
                "  env SESSION_HOST=sessions.shops.svc",
                "  env SESSION_PASSWORD from secret shop-session/password",
                "  env NODE_OPTIONS=$(NODE_OPTIONS) --require /session-operator/agent/express.cjs",
                BARE[6],
                BARE[7],
                BARE[8],
                BARE[9],
                BARE[10],
            ]),
        ),
        row(
            "names-of-variables-are-taken",
            ours,
            with_env(&json!([
                {"name": "SESSION_PASSWORD", "value": "theirs"},
                {"name": "SESSION_HOST"}
            ])),
            Outline(vec![
                FULL_INIT[0],
                FULL_INIT[1],
                "container web",
                "  env SESSION_PASSWORD=theirs",
                "  env SESSION_HOST=",
                "  env NODE_OPTIONS=--require /session-operator/agent/express.cjs",
                BARE[6],
                BARE[7],
                BARE[8],
                BARE[9],
                BARE[10],
            ]),
        ),
        row(
            "mount-path-is-taken",
            ours,
            json!({
                "containers": [{
                    "name": "web",
                    "image": image,
                    "volumeMounts": [{"name": "mine", "mountPath": "/session-operator/binding"}]
                }],
                "volumes": [{"name": "mine", "emptyDir": {}}]
            }),
            Outline(vec![
                FULL_INIT[0],
                FULL_INIT[1],
                "container web",
                BARE[3],
                BARE[4],
                BARE[5],
                "  mount mine at /session-operator/binding",
                "  mount session-operator-agent at /session-operator/agent",
                "volume mine emptyDir",
                "volume session-operator-agent emptyDir",
                "volume session-operator-binding secret",
                "pull mirror",
            ]),
        ),
        row(
            "pull-secrets",
            ours,
            json!({
                "containers": [{"name": "web", "image": image}],
                "imagePullSecrets": [{"name": "own"}, {"name": "mirror"}]
            }),
            Outline(vec![
                FULL_INIT[0],
                FULL_INIT[1],
                BARE[2],
                BARE[3],
                BARE[4],
                BARE[5],
                BARE[6],
                BARE[7],
                BARE[8],
                BARE[9],
                "pull own",
                "pull mirror",
            ]),
        ),
        row(
            "of-another-policy",
            Some("other-7"),
            web.clone(),
            Outline(vec!["container web", "  env OTHER=yes"]),
        ),
        row("label-names-nothing", Some("shop-2"), web.clone(), Unchanged),
        row("label-is-empty", Some(""), web.clone(), Unchanged),
        row("without-label", None, web, Unchanged),
    ]
}

/// What becomes of a pod whose only container has nothing yet.
const BARE: &[&str] = &[
    FULL_INIT[0],
    FULL_INIT[1],
    "container web",
    "  env SESSION_HOST=sessions.shops.svc",
    "  env SESSION_PASSWORD from secret shop-session/password",
    "  env NODE_OPTIONS=--require /session-operator/agent/express.cjs",
    "  mount session-operator-agent at /session-operator/agent",
    "  mount session-operator-binding at /session-operator/binding",
    "volume session-operator-agent emptyDir",
    "volume session-operator-binding secret",
    "pull mirror",
];

fn with_env(env: &Value) -> Value {
    json!({"containers": [{"name": "web", "image": "localhost/shop:1", "env": env}]})
}

/// Everything of a pod that an injection can add to, in order; without what the API server sets by default.
fn outline(pod: &Value) -> Vec<String> {
    let spec = &pod["spec"];
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let mut lines = Vec::new();
    for container in list(&spec["initContainers"]) {
        let always = if container["restartPolicy"] == "Always" {
            " always"
        } else {
            ""
        };
        lines.push(format!("init {}{always}", name(&container)));
    }
    for container in list(&spec["containers"]) {
        lines.push(format!("container {}", name(&container)));
        lines.extend(
            list(&container["env"])
                .iter()
                .map(|variable| format!("  env {}", of_variable(variable))),
        );
        for mount in list(&container["volumeMounts"]) {
            lines.push(format!(
                "  mount {} at {}",
                name(&mount),
                mount["mountPath"].as_str().unwrap()
            ));
        }
    }
    for volume in list(&spec["volumes"]) {
        let sort = volume
            .as_object()
            .unwrap()
            .keys()
            .find(|key| *key != "name")
            .unwrap();
        lines.push(format!("volume {} {sort}", name(&volume)));
    }
    lines.extend(
        list(&spec["imagePullSecrets"])
            .iter()
            .map(|secret| format!("pull {}", name(secret))),
    );
    lines
}

fn of_variable(variable: &Value) -> String {
    let name = variable["name"].as_str().unwrap();
    for (field, kind) in [("secretKeyRef", "secret"), ("configMapKeyRef", "configMap")] {
        let reference = &variable["valueFrom"][field];
        if let (Some(object), Some(key)) = (reference["name"].as_str(), reference["key"].as_str()) {
            return format!("{name} from {kind} {object}/{key}");
        }
    }
    format!("{name}={}", variable["value"].as_str().unwrap_or_default())
}
