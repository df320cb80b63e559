use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{policy, target};
use crate::api::conditions::reasons;
use crate::api::session_policy::Framework;
use crate::framework::Preflight;
use crate::policy::sessions::preflight::{Progress, key, name, pod, progress};

fn look() -> Preflight {
    Preflight {
        command: vec!["php".to_owned(), "-r".to_owned(), "…".to_owned()],
    }
}

fn with_status(status: &Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "shop-preflight-1"}, "status": status})).unwrap()
}

fn terminated(code: i32, message: &str) -> Pod {
    with_status(
        &json!({"phase": if code == 0 { "Succeeded" } else { "Failed" }, "containerStatuses": [
            {"name": "preflight", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"terminated": {"exitCode": code, "message": message, "reason": "Error"}}},
        ]}),
    )
}

/// The kubelet reads `$$` in a command as `$`, and `$(NAME)` as a variable of the container.
#[test]
fn the_shell_gets_the_script_that_was_written() {
    let script = r#"eval "fact \"env.$1\" \"\$$1\""; echo "$(A)" $$"#;
    let look = Preflight {
        command: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()],
    };
    let container =
        serde_json::from_value(json!({"name": "php", "env": [{"name": "A", "value": "1"}]})).unwrap();
    let pod = pod(&policy(target(&json!({}))), &container, &look, "0123456789");
    let command = pod.spec.unwrap().containers.remove(0).command.unwrap();
    let mut as_run = String::new();
    let mut letters = command[2].chars();
    while let Some(letter) = letters.next() {
        if letter == '$' {
            assert_eq!(
                letters.next(),
                Some('$'),
                "the kubelet may take this for a variable: {command:?}"
            );
        }
        as_run.push(letter);
    }
    assert_eq!(as_run, script);
}

#[test]
fn the_pod_has_the_image_and_none_of_the_labels() {
    let target = target(&json!({"template": {
        "metadata": {"labels": {"app": "shop"}},
        "spec": {
            "serviceAccountName": "shop",
            "volumes": [{"name": "settings", "configMap": {"name": "settings"}}, {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            "containers": [{
                "name": "php", "image": "shop:1", "env": [{"name": "A", "value": "1"}],
                "securityContext": {"runAsNonRoot": true},
                "volumeMounts": [{"name": "settings", "mountPath": "/settings"}, {"name": "data", "mountPath": "/data"}],
            }],
        },
    }}));
    let container = target
        .spec
        .as_ref()
        .unwrap()
        .template
        .spec
        .as_ref()
        .unwrap()
        .containers[0]
        .clone();
    let pod = pod(&policy(target), &container, &look(), "0123456789");
    assert!(!pod.metadata.labels.as_ref().unwrap().contains_key("app"));
    assert_eq!(pod.metadata.name.as_deref(), Some("shop-preflight-0123456789"));
    let spec = pod.spec.unwrap();
    assert_eq!(spec.restart_policy.as_deref(), Some("Never"));
    assert_eq!(spec.automount_service_account_token, Some(false));
    assert!(spec.active_deadline_seconds.is_some(), "bounded in time");
    let volumes: Vec<&str> = spec
        .volumes
        .iter()
        .flatten()
        .map(|volume| volume.name.as_str())
        .collect();
    assert_eq!(
        volumes,
        ["settings"],
        "a claim may be bound to the application's node"
    );
    let looking = &spec.containers[0];
    assert_eq!(looking.image.as_deref(), Some("shop:1"));
    assert_eq!(looking.env, container.env);
    assert_eq!(looking.security_context, container.security_context);
    assert_eq!(looking.volume_mounts.as_ref().unwrap().len(), 1);
    assert!(name("shop", "0123456789").len() <= 63);
}

#[test]
fn the_key_changes_with_what_decides_on_the_answer() {
    let of =
        |container: Value, framework| key(framework, &serde_json::from_value(container).unwrap(), &look());
    let base = || json!({"name": "php", "image": "shop:1"});
    let known = of(base(), Framework::Php);
    let renamed = json!({"name": "web", "image": "shop:1", "ports": [{"containerPort": 80}]});
    assert_eq!(known, of(renamed, Framework::Php));
    assert_ne!(
        known,
        of(json!({"name": "php", "image": "shop:2"}), Framework::Php)
    );
    let environment = json!({"name": "php", "image": "shop:1", "env": [{"name": "A"}]});
    assert_ne!(known, of(environment, Framework::Php));
    assert_ne!(known, of(base(), Framework::Laravel));
}

#[test]
fn answers_are_read_and_anything_else_is_none() {
    let Progress::Answered(result) = progress(&terminated(0, r#"{"facts": {"redis": "6.0.2"}}"#), "k") else {
        panic!("no answer");
    };
    assert_eq!(
        (result.of.as_str(), result.facts["redis"].as_str(), result.missing),
        ("k", "6.0.2", None)
    );
    let missing = r#"{"missing": "the redis extension is not there", "remedy": "install it"}"#;
    let Progress::Answered(result) = progress(&terminated(0, missing), "k") else {
        panic!("no answer");
    };
    assert_eq!(
        result.missing.as_deref(),
        Some("the redis extension is not there; install it")
    );
    for (code, message) in [
        (0, ""),
        (1, "sh: php: not found"),
        (0, "{}"),
        (0, r#"{"facts": {"a": 1}}"#),
        (137, "["),
    ] {
        let Progress::Failed(trouble) = progress(&terminated(code, message), "k") else {
            panic!("{message}");
        };
        assert_eq!(trouble.reason, reasons::PREFLIGHT_FAILED);
        assert!(
            trouble.message.contains("shop-preflight-1"),
            "{}",
            trouble.message
        );
    }
}

#[test]
fn while_it_waits_the_cause_is_said() {
    let waiting = with_status(&json!({"phase": "Pending", "containerStatuses": [
        {"name": "preflight", "image": "", "imageID": "", "ready": false, "restartCount": 0,
         "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}},
    ]}));
    let unscheduled = with_status(&json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"},
    ]}));
    for (pod, word) in [
        (
            waiting,
            "cannot be pulled: Back-off pulling image; check the image",
        ),
        (unscheduled, "0/3 nodes"),
        (with_status(&json!({})), "starting"),
    ] {
        let Progress::Running(what) = progress(&pod, "k") else {
            panic!("{word}");
        };
        assert!(what.contains(word), "{what}");
    }
    let overdue =
        with_status(&json!({"phase": "Failed", "reason": "DeadlineExceeded", "message": "active longer"}));
    assert!(matches!(progress(&overdue, "k"), Progress::Failed(_)));
}
