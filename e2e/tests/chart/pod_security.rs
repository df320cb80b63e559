//! Every pod of the chart satisfies the Pod Security Standard "restricted" as Kubernetes 1.33 defines it, and the
//! project's own rules beyond it.

use serde_json::{Value, json};

use crate::documents::{SETS, identity, list, objects, strings, text};

/// The kinds of volume that the standard allows.
const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// The pod spec inside an object that makes pods.
fn pod_spec(object: &Value) -> Option<&Value> {
    match text(object, "/kind") {
        "Pod" => object.pointer("/spec"),
        "Deployment" | "Job" => object.pointer("/spec/template/spec"),
        _ => None,
    }
}

/// What a pod spec does against the standard; empty where it keeps to it.
fn violations(spec: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec.get(field).is_some_and(|value| value != &json!(false)) {
            found.push(format!("{field} is set"));
        }
    }
    for volume in list(spec, "/volumes") {
        for kind in volume.as_object().unwrap().keys().filter(|key| *key != "name") {
            if !VOLUMES.contains(&kind.as_str()) {
                found.push(format!("a volume is of type {kind}"));
            }
        }
    }
    if spec.pointer("/securityContext/sysctls").is_some() {
        found.push("sysctls are set".to_owned());
    }
    let containers = ["/initContainers", "/containers", "/ephemeralContainers"];
    for container in containers.iter().flat_map(|field| list(spec, field)) {
        let name = text(container, "/name");
        found.extend(
            container_violations(spec, container)
                .into_iter()
                .map(|what| format!("{name}: {what}")),
        );
    }
    found
}

fn container_violations(spec: &Value, container: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut expect = |holds: bool, what: &str| {
        if !holds {
            found.push(what.to_owned());
        }
    };
    let own = |field: &str| container.pointer(&format!("/securityContext/{field}"));
    // A container's own setting wins over the pod's.
    let effective = |field: &str| own(field).or_else(|| spec.pointer(&format!("/securityContext/{field}")));

    expect(own("privileged") != Some(&json!(true)), "privileged");
    expect(
        own("allowPrivilegeEscalation") == Some(&json!(false)),
        "allowPrivilegeEscalation is not false",
    );
    expect(
        effective("runAsNonRoot") == Some(&json!(true)),
        "runAsNonRoot is not true",
    );
    expect(effective("runAsUser") != Some(&json!(0)), "runAsUser is 0");
    let profile = effective("seccompProfile/type").and_then(Value::as_str);
    expect(
        matches!(profile, Some("RuntimeDefault" | "Localhost")),
        "no seccompProfile",
    );
    let app_armor = effective("appArmorProfile/type").and_then(Value::as_str);
    expect(app_armor != Some("Unconfined"), "appArmorProfile is Unconfined");
    expect(effective("seLinuxOptions").is_none(), "seLinuxOptions are set");
    expect(
        effective("windowsOptions/hostProcess") != Some(&json!(true)),
        "hostProcess",
    );
    expect(
        matches!(own("procMount").and_then(Value::as_str), None | Some("Default")),
        "procMount is not Default",
    );
    let dropped = strings(container, "/securityContext/capabilities/drop");
    expect(dropped.contains(&"ALL"), "capabilities are not dropped");
    let added = strings(container, "/securityContext/capabilities/add");
    expect(
        added.iter().all(|name| *name == "NET_BIND_SERVICE"),
        "capabilities are added",
    );
    let ports = list(container, "/ports");
    expect(
        ports.iter().all(|port| port.get("hostPort").is_none()),
        "hostPort",
    );
    found
}

/// What the project asks for beyond the standard.
fn house_violations(container: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (pointer, what) in [
        (
            "/securityContext/readOnlyRootFilesystem",
            "its root file system can be written",
        ),
        ("/resources/requests/cpu", "it requests no cpu"),
        ("/resources/requests/memory", "it requests no memory"),
        ("/resources/limits/memory", "its memory has no limit"),
    ] {
        if matches!(container.pointer(pointer), None | Some(Value::Bool(false))) {
            found.push(what.to_owned());
        }
    }
    let image = text(container, "/image");
    if !image.contains('@') && !image.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        found.push(format!("the image {image} has neither tag nor digest"));
    }
    found
}

#[test]
fn every_pod_is_restricted() {
    for set in SETS {
        let mut pods = 0;
        for object in &objects(set) {
            let Some(spec) = pod_spec(object) else { continue };
            pods += 1;
            assert_eq!(
                violations(spec),
                Vec::<String>::new(),
                "{set}: {}",
                identity(object)
            );
            for container in list(spec, "/containers") {
                assert_eq!(
                    house_violations(container),
                    Vec::<String>::new(),
                    "{set}: {}",
                    identity(object)
                );
            }
        }
        assert_eq!(
            pods, 3,
            "{set}: the operator, the uninstall guard and the self-test have pods"
        );
    }
}

/// A check that finds nothing proves something only if it finds what is there.
#[test]
fn the_check_sees_each_violation() {
    let objects = objects("defaults");
    let good = objects.iter().find_map(pod_spec).unwrap();
    let container = "/containers/0";
    let table = [
        ("", "hostNetwork", json!(true), "hostNetwork"),
        (
            "",
            "volumes",
            json!([{"name": "x", "hostPath": {"path": "/"}}]),
            "hostPath",
        ),
        ("/securityContext", "runAsNonRoot", json!(false), "runAsNonRoot"),
        (
            "/securityContext",
            "seccompProfile",
            json!({"type": "Unconfined"}),
            "seccompProfile",
        ),
        (
            "/securityContext",
            "sysctls",
            json!([{"name": "a", "value": "b"}]),
            "sysctls",
        ),
        (
            "/containers/0/securityContext",
            "runAsUser",
            json!(0),
            "runAsUser",
        ),
        (
            "/containers/0/securityContext",
            "privileged",
            json!(true),
            "privileged",
        ),
        (
            "/containers/0/securityContext",
            "allowPrivilegeEscalation",
            json!(null),
            "allowPrivilegeEscalation",
        ),
        (
            "/containers/0/securityContext",
            "capabilities",
            json!({}),
            "not dropped",
        ),
        (
            "/containers/0/securityContext",
            "capabilities",
            json!({"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
            "added",
        ),
        (
            container,
            "ports",
            json!([{"containerPort": 8080, "hostPort": 8080}]),
            "hostPort",
        ),
    ];
    for (parent, field, value, expected) in table {
        let mut bad = good.clone();
        let parent = bad.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        parent.insert(field.to_owned(), value);
        let found = violations(&bad);
        assert!(
            found.iter().any(|what| what.contains(expected)),
            "{field}: found {found:?}"
        );
    }
    let mut bad = good.pointer(container).unwrap().clone();
    bad.as_object_mut().unwrap().remove("resources");
    assert_eq!(house_violations(&bad).len(), 3);
}
