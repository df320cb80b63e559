//! Engine Memcached. The server is a real one, at an address of this machine; the test says that the pod has that address.

use std::process::Stdio;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::stores::{sharing, store, until_reason};
use crate::world::{World, condition, deployment};

/// An address that nothing else uses: the port is always the same.
const ADDRESS: &str = "127.0.0.77";

/// The server, with the operator's own arguments; it ends when it is dropped.
fn server(set: &Value) -> Child {
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let arguments = container["args"].as_array().unwrap();
    Command::new(container["command"][0].as_str().unwrap())
        .args(arguments.iter().map(|argument| argument.as_str().unwrap()))
        .arg(format!("--listen={ADDRESS}"))
        .arg("--user=nobody")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// What the server says to a command, up to the end of its answer.
async fn ask(command: &str) -> String {
    let mut stream = TcpStream::connect((ADDRESS, 11211)).await.unwrap();
    let command = format!("{command}\r\nquit\r\n");
    stream.write_all(command.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The pod of the store, which runs.
async fn running(world: &World, set: &Value) {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "sessions-0", "labels": set["spec"]["template"]["metadata"]["labels"]},
        "spec": {"containers": [{"name": "server", "image": "localhost/none:1"}]}
    });
    world.create(&pod).await;
    let status = json!({"status": {
        "podIP": ADDRESS,
        "podIPs": [{"ip": ADDRESS}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{
            "name": "server", "image": "localhost/none:1", "imageID": "", "ready": true, "started": true, "restartCount": 0,
            "state": {"running": {}}
        }]
    }});
    world
        .api("Pod")
        .patch_status("sessions-0", &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_operator_tries_the_server_out_and_lets_one_prefix_in() {
    let (world, _) = World::shared("memcached").await;
    let spec =
        json!({"engine": "Memcached", "tls": "Disabled", "memory": "64Mi", "deletionPolicy": "Delete"});
    world.create(&store(&spec)).await;
    let set = world.until("StatefulSet", "sessions", "made", |_| true).await;
    let message = until_reason(&world, "StoreStarting").await;
    assert!(message.contains("sessions-0"), "{message}");

    world.create(&deployment("web")).await;
    world.create(&sharing("web", Some("shop"))).await;
    let mut server = server(&set);
    running(&world, &set).await;
    let ready = world
        .until("SessionStore", "sessions", "ready for a prefix", |store| {
            condition(store, "Ready").is_some_and(|ready| ready["status"] == "True")
                && store["status"]["users"].is_array()
        })
        .await;
    let status = &ready["status"];
    assert_eq!(status["users"], json!([{"keyPrefix": "shop"}]));
    assert_eq!(
        status["endpoint"],
        json!({"host": format!("sessions.{}.svc", world.namespace), "port": 11211})
    );
    assert_eq!(status["memory"]["max"], "16Mi");
    let message = condition(&ready, "Ready").unwrap()["message"].as_str().unwrap();
    for words in [
        "without TLS",
        "a restart of the server loses them",
        "knows no users",
    ] {
        assert!(message.contains(words), "{message}");
    }
    let figures = ask("stats").await;
    assert!(
        figures.contains("STAT curr_items 0"),
        "a probe was left behind: {figures}"
    );
    assert!(
        !figures.contains("STAT cmd_set 0"),
        "nothing was tried out: {figures}"
    );
    for secret in ["sessions-admin", "sessions-users", "sessions-user-shop"] {
        let found = world.api("Secret").get_opt(secret).await.unwrap();
        assert!(found.is_none(), "{secret}");
    }

    // What clients are told.
    let binding = world.until("Secret", "web-session", "made", |_| true).await;
    assert_eq!(binding["type"], "servicebinding.io/memcached");
    let told = |key: &str| {
        let value: Option<k8s_openapi::ByteString> =
            serde_json::from_value(binding["data"][key].clone()).unwrap();
        value.map(|value| String::from_utf8(value.0).unwrap())
    };
    assert_eq!(told("provider").as_deref(), Some("memcached"));
    assert_eq!(
        told("uri"),
        Some(format!("memcached://sessions.{}.svc:11211", world.namespace))
    );
    assert_eq!((told("username"), told("password")), (None, None));

    world.create(&deployment("blog")).await;
    world.create(&sharing("blog", None)).await;
    let message = world.until_refused("blog", "StoreReady", "KeyPrefixTaken").await;
    assert!(message.contains("serves the key prefix shop alone"), "{message}");

    // The container goes on, for all that anybody knows, and the server does not.
    server.kill().await.unwrap();
    world
        .patch(
            "SessionStore",
            "sessions",
            &json!({"metadata": {"annotations": {"look": "again"}}}),
        )
        .await;
    let message = until_reason(&world, "StoreUnreachable").await;
    assert!(message.contains("11211"), "{message}");
}

#[tokio::test]
async fn a_preset_that_cannot_is_refused_before_anything_is_looked_at() {
    let (world, _) = World::shared("memcached-preset").await;
    world.create(&deployment("web")).await;
    let external = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine"},
        "stringData": {"provider": "memcached", "host": "127.0.0.78"}
    });
    world.create(&external).await;
    let mut policy = sharing("web", None);
    policy["spec"]["shared"] = json!({"external": {"secretRef": {"name": "mine"}}});
    policy["spec"]["client"] = json!({"framework": "Tomcat"});
    world.create(&policy).await;
    let message = world.until_refused("web", "StoreReady", "StoreUnreachable").await;
    assert!(message.contains("127.0.0.78:11211"), "{message}");

    let mut server = Command::new("memcached")
        .args(["--listen=127.0.0.78", "--port=11211", "--user=nobody"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // Another Secret is asked for at once.
    world
        .patch(
            "Secret",
            "mine",
            &json!({"metadata": {"annotations": {"look": "again"}}}),
        )
        .await;
    let message = world.until_refused("web", "Injected", "HandlerMissing").await;
    for words in ["framework Tomcat", "engine Valkey"] {
        assert!(message.contains(words), "{message}");
    }
    server.kill().await.unwrap();
}
