use serde_json::json;

use super::target;
use crate::api::conditions::reasons;
use crate::policy::sessions::container::chosen;

fn names(target: &k8s_openapi::api::apps::v1::Deployment, wanted: &[&str]) -> Vec<String> {
    let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    let chosen = chosen(target, &wanted).unwrap();
    chosen
        .into_iter()
        .map(|container| container.name.clone())
        .collect()
}

#[test]
fn named_then_annotated_then_first() {
    let containers = json!([{"name": "log"}, {"name": "php"}]);
    let bare = target(&json!({"template": {"spec": {"containers": containers}}}));
    assert_eq!(names(&bare, &[]), ["log"]);
    assert_eq!(names(&bare, &["php", "log"]), ["php", "log"]);
    let annotated = target(&json!({"template": {
        "metadata": {"annotations": {"kubectl.kubernetes.io/default-container": "php"}},
        "spec": {"containers": containers},
    }}));
    assert_eq!(names(&annotated, &[]), ["php"]);
}

#[test]
fn a_name_that_is_not_there_is_answered_with_those_that_are() {
    let trouble = chosen(&target(&json!({})), &["web".to_owned()]).unwrap_err();
    assert_eq!(trouble.reason, reasons::CONTAINER_NOT_FOUND);
    assert!(
        trouble.message.contains("no container web; it has php"),
        "{}",
        trouble.message
    );
}
