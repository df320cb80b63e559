//! From an API server to the archive.

use std::collections::BTreeSet;
use std::io::Read as _;

use flate2::read::GzDecoder;

use super::super::collect::{Wanted, collect};
use super::super::progress::Progress;
use super::super::redact::Redactor;
use super::super::write::{Files, archive, files, pack};
use super::server::{CLASSIFIED, client};

async fn bundle() -> Files {
    let wanted = Wanted {
        namespace: "web".to_owned(),
        policy: None,
        operator_namespace: "session-operator".to_owned(),
        log_lines: 100,
    };
    let raw = collect(&client(), &wanted, &mut Progress::silent()).await;
    files(
        &raw,
        Redactor::new().unwrap(),
        &wanted,
        jiff::Timestamp::UNIX_EPOCH,
    )
}

#[tokio::test]
async fn it_has_what_concerns_the_policies_and_nothing_of_others() {
    let files = bundle().await;
    let names: BTreeSet<&str> = files.keys().map(String::as_str).collect();
    let expected = BTreeSet::from([
        "README.txt",
        "around/HorizontalPodAutoscaler-shop.yaml",
        "around/PodDisruptionBudget-shop.yaml",
        "events.txt",
        "logs/operator/session-operator-1_operator.log",
        "logs/pods/shop-5f-a_session-replicator.log",
        "logs/pods/shop-5f-a_session-replicator.previous.log",
        "nodes/node1.yaml",
        "not-read.txt",
        "operator/Pod-session-operator-1.yaml",
        "pods/Pod-shop-5f-a.yaml",
        "policies/SessionPolicy-shop.yaml",
        "routes/Ingress-front.yaml",
        "services/Service-shop.yaml",
        "targets/Deployment-shop.yaml",
        "targets/ReplicaSet-shop-5f.yaml",
        "versions.yaml",
    ]);
    assert_eq!(names, expected);
    for version in ["v1.36.4", "session-operator:1", env!("CARGO_PKG_VERSION")] {
        assert!(
            files["versions.yaml"].contains(version),
            "{}",
            files["versions.yaml"]
        );
    }
    assert!(!files["nodes/node1.yaml"].contains("huge"));
    assert!(files["events.txt"].contains("Pod/shop-5f-gone"));
    assert!(!files["events.txt"].contains("of others"));
    let log = &files["logs/operator/session-operator-1_operator.log"];
    assert!(
        log.contains("/namespaces/operators/") && log.contains("tailLines=100"),
        "{log}"
    );
}

#[tokio::test]
async fn no_file_holds_a_credential() {
    for (file, content) in bundle().await {
        assert!(!content.contains(CLASSIFIED), "{file}: {content}");
    }
}

#[tokio::test]
async fn what_could_not_be_read_is_a_line_each() {
    let files = bundle().await;
    let problems = &files["not-read.txt"];
    for line in [
        "secrets in namespace web: the API server answered: /api/v1/namespaces/web/secrets is refused",
        "networkpolicies in namespace web: the API server answered: ",
        "scaledobjects in namespace web: this cluster does not serve the kind",
    ] {
        assert!(problems.contains(line), "{line} is not in\n{problems}");
    }
    assert_eq!(problems.lines().count(), 6, "{problems}");
}

#[test]
fn an_archive_unpacks_to_what_went_in() {
    let files = Files::from([
        ("README.txt".to_owned(), "read me".to_owned()),
        ("logs/a.log".to_owned(), "line\n".repeat(1000)),
    ]);
    let packed = pack(
        &files,
        "session-support-web",
        jiff::Timestamp::UNIX_EPOCH,
        Vec::new(),
    )
    .unwrap();
    let mut archive = tar::Archive::new(GzDecoder::new(packed.as_slice()));
    let mut unpacked = Files::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        unpacked.insert(
            path.strip_prefix("session-support-web/").unwrap().to_owned(),
            content,
        );
    }
    assert_eq!(unpacked, files);
}

#[test]
fn a_file_that_exists_is_left_alone() {
    let path = std::env::temp_dir().join(format!("support-bundle-{}.tar.gz", std::process::id()));
    std::fs::write(&path, "mine").unwrap();
    let refused = archive(&Files::new(), "folder", &path, jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    std::fs::remove_file(&path).unwrap();
}
