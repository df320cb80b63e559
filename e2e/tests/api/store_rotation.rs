//! Rotation of passwords with a real server behind a pod that only the API server knows of: its address is one of loopback,
//! where the server listens.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use session_operator::api::{CREDENTIALS_ANNOTATION, INJECTION_LABEL, ROTATE_PASSWORDS_ANNOTATION};

use crate::audit::assert_none;
use crate::own::{Own, peace};
use crate::stage::{run, text};
use crate::stores::{data, decoded, sharing, store, until_reason};
use crate::wait::until;
use crate::world::{World, annotation, deployment, version};

/// A redis-server with the users' file of a store. Ends when it is dropped.
struct Server {
    child: Child,
    address: String,
    folder: PathBuf,
}

impl Server {
    fn start(users: &str) -> Self {
        let address = format!("127.77.{}.{}", fastrand::u8(..), fastrand::u8(1..255));
        let folder =
            std::env::temp_dir().join(format!("session-operator-rotation-{:016x}", fastrand::u64(..)));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("users.acl");
        std::fs::write(&file, users).unwrap();
        let child = Command::new("redis-server")
            .args([
                "--port",
                "6379",
                "--bind",
                &address,
                "--protected-mode",
                "no",
                "--save",
                "",
            ])
            .args(["--maxmemory", "48mb", "--aclfile"])
            .arg(&file)
            .arg("--dir")
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            address,
            folder,
        }
    }

    /// Whether it lets a user in who has the password.
    fn admits(&self, user: &str, password: &str) -> bool {
        let mut client = Command::new("redis-cli");
        client.args([
            "-h",
            &self.address,
            "--no-auth-warning",
            "--user",
            user,
            "--pass",
            password,
        ]);
        let said = run(client.args(["GET", "shop:1"]));
        let said = [text(&said.stdout), text(&said.stderr)].concat();
        assert!(!said.contains("Could not connect"), "{said}");
        !said.contains("WRONGPASS")
    }

    /// The pod that it is taken for.
    async fn pod(&self, world: &World) {
        let set = world.get("StatefulSet", "sessions").await;
        let labels = &set["spec"]["template"]["metadata"]["labels"];
        world
            .create(&json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "sessions-0", "labels": labels},
                "spec": {"containers": [{"name": "server", "image": "localhost/redis"}]}
            }))
            .await;
        let status = json!({"status": {
            "phase": "Running",
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "server", "image": "localhost/redis", "imageID": "", "ready": true, "restartCount": 0,
                "started": true, "state": {"running": {}}
            }]
        }});
        world
            .api("Pod")
            .patch_status("sessions-0", &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.kill().is_ok() && self.child.wait().is_ok() {
            _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

async fn until_phase(world: &World, phase: &str) -> Value {
    let store = world
        .until("SessionStore", "sessions", phase, |store| {
            store["status"]["rotation"]["passwords"]["phase"] == phase
        })
        .await;
    store["status"]["rotation"]["passwords"].clone()
}

async fn password(world: &World, secret: &str) -> String {
    decoded(&data(&world.get("Secret", secret).await, "password"))
}

/// A store that serves the shop.
async fn served(world: &World) -> Server {
    world.create(&deployment("shop")).await;
    world.create(&sharing("shop", None)).await;
    world
        .create(&store(&json!({"tls": "Disabled", "memory": "64Mi"})))
        .await;
    world.until("StatefulSet", "sessions", "made", |_| true).await;
    let users = world
        .until("Secret", "sessions-users", "a user for the shop", |secret| {
            decoded(&data(secret, "users.acl")).contains("user app-shop on")
        })
        .await;
    let server = Server::start(&decoded(&data(&users, "users.acl")));
    server.pod(world).await;
    until_reason(world, "Ready").await;
    server
}

/// The revision that the shop's pods are to be of, once it is another one.
async fn marked(world: &World, former: Option<String>) -> String {
    let label = format!(
        "/spec/template/metadata/labels/{}",
        INJECTION_LABEL.replace('/', "~1")
    );
    let of = |shop: &Value| {
        let mark = shop.pointer(&label).and_then(Value::as_str).map(str::to_owned);
        mark.filter(|mark| former.as_ref() != Some(mark))
    };
    let shop = world
        .until("Deployment", "shop", "another mark", |shop| of(shop).is_some())
        .await;
    of(&shop).unwrap()
}

/// Passwords are in Secrets and nowhere else.
async fn nothing_secret_is_told(world: &World, revision: &str, passwords: &[String]) {
    let injection = world.get("SessionInjection", revision).await;
    assert!(annotation(&injection, CREDENTIALS_ANNOTATION).is_some());
    for told in [
        world.get("SessionStore", "sessions").await,
        world.get("SessionPolicy", "shop").await,
        injection,
    ] {
        for password in passwords {
            assert!(!told.to_string().contains(password.as_str()), "{told}");
        }
    }
}

#[tokio::test]
async fn the_old_password_is_good_until_the_last_pod_that_has_it_is_gone() {
    let _peace = peace().await;
    let own = Own::new("store-rotation").await;
    let world = &own.world;
    let operator = own.start_leader().await;
    let server = served(world).await;

    // One pod of the shop, as its Deployment would make it.
    let before = marked(world, None).await;
    let labels = json!({"app": "shop", INJECTION_LABEL: before});
    world
        .create(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shop-1", "labels": labels},
            "spec": {"containers": [{"name": "web", "image": "localhost/shop:1"}]}
        }))
        .await;
    let old = password(world, "shop-session").await;
    let old_admin = password(world, "sessions-admin").await;
    assert!(server.admits("app-shop", &old) && server.admits("session-operator", &old_admin));

    // Whoever asks may be a manifest.
    let wish = json!({"metadata": {"annotations": {ROTATE_PASSWORDS_ANNOTATION: "spring"}}});
    world.patch("SessionStore", "sessions", &wish).await;
    until_phase(world, "Replacing").await;
    let new = password(world, "sessions-user-shop").await;
    assert_ne!(new, old);
    until("the policy to hand the new password on", || async {
        let told = password(world, "shop-session").await;
        if told == new {
            Ok(())
        } else {
            Err("the old one".to_owned())
        }
    })
    .await;
    let after = marked(world, Some(before)).await;
    assert!(server.admits("app-shop", &new) && server.admits("app-shop", &old));
    let new_admin = password(world, "sessions-admin").await;
    assert_ne!(new_admin, old_admin);
    assert!(server.admits("session-operator", &new_admin));

    // The operator ends in the middle. The next one waits for the same pod, writes nothing meanwhile, and goes on.
    operator.kill();
    let operator = own.start_leader().await;
    let waits = world
        .until("SessionStore", "sessions", "waiting for the pod", |store| {
            let waits = &store["status"]["rotation"]["passwords"]["waitsFor"];
            waits
                .as_str()
                .is_some_and(|waits| waits.starts_with("1 pods of SessionPolicy shop"))
        })
        .await;
    operator.until_reconciled(operator.reconciles().await, 1.0).await;
    let written = operator.writes().len();
    operator.until_reconciled(operator.reconciles().await, 3.0).await;
    assert_none("written while a pod is waited for", &operator.writes()[written..]);
    assert_eq!(
        version(&world.get("SessionStore", "sessions").await),
        version(&waits)
    );
    assert_eq!(password(world, "sessions-user-shop").await, new);
    assert!(server.admits("app-shop", &old), "its pod still runs");

    world.delete("Pod", "shop-1").await;
    let over = until_phase(world, "Finished").await;
    assert_eq!(over["request"], "spring");
    assert!(
        over["finishedAt"].is_string() && over["waitsFor"].is_null(),
        "{over}"
    );
    assert!(server.admits("app-shop", &new) && server.admits("session-operator", &new_admin));
    assert!(!server.admits("app-shop", &old) && !server.admits("session-operator", &old_admin));
    let file = std::fs::read_to_string(server.folder.join("users.acl")).unwrap();
    let shop = file
        .lines()
        .find(|line| line.starts_with("user app-shop "))
        .unwrap();
    assert_eq!(
        shop.matches('#').count(),
        1,
        "a server that is restarted knows one as well"
    );
    world.until_event("sessions", "PasswordsRotated").await;
    until_reason(world, "Ready").await;

    nothing_secret_is_told(world, &after, &[old, new, old_admin, new_admin]).await;
    operator.stop().await;
}
