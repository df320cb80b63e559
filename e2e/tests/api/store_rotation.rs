//! Rotations with a real server behind a pod that only the API server knows of: its address is one of loopback, where the
//! server listens. The test itself brings the server its files, as a kubelet would.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use session_operator::api::{
    CREDENTIALS_ANNOTATION, INJECTION_LABEL, ROTATE_CERTIFICATES_ANNOTATION, ROTATE_PASSWORDS_ANNOTATION,
};

use crate::audit::assert_none;
use crate::own::{Own, peace};
use crate::stage::{run, text};
use crate::stores::{data, decoded, sharing, store, until_reason};
use crate::wait::until;
use crate::world::{World, annotation, deployment, version};

/// The files of a server with TLS, by their names in its Secret.
const FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// A redis-server with the users' file of a store, and its certificate if it has one. Ends when it is dropped.
struct Server {
    child: Child,
    address: String,
    folder: PathBuf,
}

/// What a server is started as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The only one, in plain text.
    Plain,
    /// The only one, with TLS.
    Tls,
    /// One of several, in plain text: a replica of nobody, as in a pod.
    OneOfSeveral,
}

impl Server {
    async fn start(world: &World, kind: Kind) -> Self {
        let users = world
            .until("Secret", "sessions-users", "a user for the shop", |secret| {
                decoded(&data(secret, "users.acl")).contains("user app-shop on")
            })
            .await;
        let address = format!("127.77.{}.{}", fastrand::u8(..), fastrand::u8(1..255));
        let folder =
            std::env::temp_dir().join(format!("session-operator-rotation-{:016x}", fastrand::u64(..)));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("users.acl"), decoded(&data(&users, "users.acl"))).unwrap();
        let mut words = format!(
            "--bind {address} --protected-mode no --appendonly no --maxmemory 48mb --aclfile users.acl"
        );
        words.push_str(match kind {
            Kind::Plain => " --port 6379",
            Kind::Tls => {
                " --port 0 --tls-port 6379 --tls-auth-clients no --tls-cert-file tls.crt --tls-key-file tls.key \
                 --tls-ca-cert-file ca.crt"
            }
            Kind::OneOfSeveral => {
                " --port 6379 --replicaof 127.0.0.1 1 --replica-serve-stale-data no --repl-diskless-sync-delay 0 \
                 --repl-ping-replica-period 1"
            }
        });
        if kind == Kind::Tls {
            bring(&folder, &world.get("Secret", "sessions-tls").await);
        }
        let child = Command::new("redis-server")
            .args(words.split_whitespace())
            .current_dir(&folder)
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

    fn client(&self, words: &[&str]) -> String {
        let mut client = Command::new("redis-cli");
        client
            .args(["-h", &self.address, "--no-auth-warning"])
            .args(words);
        let said = run(&mut client);
        [text(&said.stdout), text(&said.stderr)].concat()
    }

    /// Whether it lets a user in who has the password.
    fn admits(&self, user: &str, password: &str) -> bool {
        let said = self.client(&["--user", user, "--pass", password, "PING"]);
        let is_in = said.contains("PONG");
        assert!(is_in || said.contains("WRONGPASS"), "{said}");
        is_in
    }

    /// Whether a client that trusts this authority alone takes its certificate.
    fn is_trusted_by(&self, authority: &str) -> bool {
        let file = self.folder.join("trusted");
        std::fs::write(&file, authority).unwrap();
        let said = self.client(&["--tls", "--cacert", file.to_str().unwrap(), "PING"]);
        let is_trusted = said.contains("NOAUTH");
        assert!(is_trusted || said.contains("certificate verify failed"), "{said}");
        is_trusted
    }

    /// The pod that it is taken for.
    async fn pod(&self, world: &World, name: &str) {
        let set = world.get("StatefulSet", "sessions").await;
        let labels = &set["spec"]["template"]["metadata"]["labels"];
        world
            .create(&json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
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
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
    }
}

impl Server {
    fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        let sent = run(kill.args(["-s", name, &self.child.id().to_string()]));
        assert!(sent.status.success(), "{}", text(&sent.stderr));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.kill().is_ok() && self.child.wait().is_ok() {
            _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Writes the files of a Secret.
fn bring(folder: &std::path::Path, secret: &Value) {
    for name in FILES {
        std::fs::write(folder.join(name), decoded(&data(secret, name))).unwrap();
    }
}

/// A store that serves the shop, and the shop with one pod, as its Deployment would make it. Gives the pod's revision.
async fn served(world: &World, tls: bool) -> (Server, String) {
    world.create(&deployment("shop")).await;
    world.create(&sharing("shop", None)).await;
    let tls_mode = if tls { "Required" } else { "Disabled" };
    world
        .create(&store(&json!({"tls": tls_mode, "memory": "64Mi"})))
        .await;
    world.until("StatefulSet", "sessions", "made", |_| true).await;
    let server = Server::start(world, if tls { Kind::Tls } else { Kind::Plain }).await;
    server.pod(world, "sessions-0").await;
    until_reason(world, "Ready").await;
    let mark = marked(world, None).await;
    let labels = json!({"app": "shop", INJECTION_LABEL: mark});
    world
        .create(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shop-1", "labels": labels},
            "spec": {"containers": [{"name": "web", "image": "localhost/shop:1"}]}
        }))
        .await;
    (server, mark)
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

/// Asks for a rotation, as a manifest does.
async fn ask(world: &World, annotation: &str) {
    let wish = json!({"metadata": {"annotations": {annotation: "spring"}}});
    world.patch("SessionStore", "sessions", &wish).await;
}

async fn until_phase(world: &World, what: &str, phase: &str) -> Value {
    let store = world
        .until("SessionStore", "sessions", phase, |store| {
            store["status"]["rotation"][what]["phase"] == phase
        })
        .await;
    store["status"]["rotation"][what].clone()
}

/// Waits until the shop's pod is all that is waited for.
async fn until_waiting(world: &World, what: &str) -> Value {
    world
        .until("SessionStore", "sessions", "waiting for the pod", |store| {
            let waits = &store["status"]["rotation"][what]["waitsFor"];
            waits
                .as_str()
                .is_some_and(|waits| waits.starts_with("1 pods of SessionPolicy shop"))
        })
        .await
}

async fn text_of(world: &World, secret: &str, key: &str) -> String {
    decoded(&data(&world.get("Secret", secret).await, key))
}

async fn password(world: &World, secret: &str) -> String {
    text_of(world, secret, "password").await
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
    let own = Own::new("store-passwords").await;
    let world = &own.world;
    let operator = own.start_leader().await;
    let (server, before) = served(world, false).await;
    let old = password(world, "shop-session").await;
    let old_admin = password(world, "sessions-admin").await;
    assert!(server.admits("app-shop", &old) && server.admits("session-operator", &old_admin));

    ask(world, ROTATE_PASSWORDS_ANNOTATION).await;
    until_phase(world, "passwords", "Replacing").await;
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
    let waits = until_waiting(world, "passwords").await;
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
    let over = until_phase(world, "passwords", "Finished").await;
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

#[tokio::test]
async fn a_new_authority_signs_only_once_every_pod_trusts_it() {
    let _peace = peace().await;
    let own = Own::new("store-certificates").await;
    let world = &own.world;
    let operator = own.start_leader().await;
    let (server, before) = served(world, true).await;
    let old = text_of(world, "sessions-authority", "tls.crt").await;
    assert!(server.is_trusted_by(&old));

    let files = world.get("Secret", "sessions-tls").await;
    let other = async |former: &Value| {
        world
            .until("Secret", "sessions-tls", "another certificate", |secret| {
                data(secret, "tls.crt") != data(former, "tls.crt")
            })
            .await
    };
    ask(world, ROTATE_CERTIFICATES_ANNOTATION).await;
    let introduced = other(&files).await;
    // It is written last.
    let authority = world
        .until("Secret", "sessions-authority", "another authority", |secret| {
            decoded(&data(secret, "tls.crt")) != old
        })
        .await;
    let new = decoded(&data(&authority, "tls.crt"));
    let waits = until_phase(world, "certificates", "Introducing").await;
    assert!(
        waits["waitsFor"].as_str().unwrap().contains("sessions-0"),
        "{waits}"
    );
    operator.kill();
    let operator = own.start_leader().await;
    bring(&server.folder, &introduced);
    until_waiting(world, "certificates").await;
    let after = marked(world, Some(before)).await;
    let told = text_of(world, "shop-session", "ca.crt").await;
    assert!(told.contains(old.trim()) && told.contains(new.trim()));
    assert!(
        server.is_trusted_by(&old) && !server.is_trusted_by(&new),
        "the pod that is left trusts the old authority alone"
    );
    assert_eq!(
        world.get("Secret", "sessions-tls").await["data"],
        introduced["data"]
    );

    world.delete("Pod", "shop-1").await;
    until_phase(world, "certificates", "Retiring").await;
    bring(&server.folder, &other(&introduced).await);
    until_phase(world, "certificates", "Finished").await;
    assert!(server.is_trusted_by(&new) && !server.is_trusted_by(&old));
    world.until_event("sessions", "CertificatesRotated").await;
    until_reason(world, "Ready").await;
    assert_eq!(marked(world, None).await, after, "pods are replaced once");
    operator.stop().await;
}

#[tokio::test]
async fn nobody_has_a_new_password_before_every_server_knows_it() {
    let _peace = peace().await;
    let own = Own::new("store-servers").await;
    let world = &own.world;
    let operator = own.start_leader().await;
    world.create(&deployment("shop")).await;
    world.create(&sharing("shop", None)).await;
    world
        .create(&store(&json!({
            "topology": "Replicated", "replicas": 1, "tls": "Disabled", "memory": "64Mi"
        })))
        .await;
    world.until("StatefulSet", "sessions", "made", |_| true).await;
    let servers = [
        Server::start(world, Kind::OneOfSeveral).await,
        Server::start(world, Kind::OneOfSeveral).await,
    ];
    for (server, name) in servers.iter().zip(["sessions-0", "sessions-1"]) {
        server.pod(world, name).await;
    }
    until_reason(world, "Ready").await;
    let told = world
        .until("SessionStore", "sessions", "a primary", |store| {
            store["status"]["replication"]["primary"].is_string()
        })
        .await;
    let primary = told["status"]["replication"]["primary"].as_str().unwrap();
    let (primary, replica, replicas_name) = match primary {
        "sessions-0" => (&servers[0], &servers[1], "sessions-1"),
        _ => (&servers[1], &servers[0], "sessions-0"),
    };
    let secrets = [
        ("app-shop", "sessions-user-shop"),
        ("session-operator", "sessions-admin"),
        ("replication", "sessions-replication"),
    ];
    let passwords = async || {
        let mut passwords = Vec::new();
        for (user, secret) in secrets {
            passwords.push((user, password(world, secret).await));
        }
        passwords
    };
    let old = passwords().await;

    replica.signal("STOP");
    ask(world, ROTATE_PASSWORDS_ANNOTATION).await;
    world
        .until("SessionStore", "sessions", "waiting for a server", |store| {
            let rotation = &store["status"]["rotation"]["passwords"];
            let waits = rotation["waitsFor"].as_str().unwrap_or_default();
            rotation["phase"] == "Introducing" && waits.ends_with(&format!(": {replicas_name}"))
        })
        .await;
    assert_eq!(passwords().await, old, "clients would be refused there");
    replica.signal("CONT");
    until_phase(world, "passwords", "Finished").await;
    let new = passwords().await;
    for server in &servers {
        for ((user, old), (_, new)) in old.iter().zip(&new) {
            assert!(server.admits(user, new) && !server.admits(user, old), "{user}");
        }
    }
    until_reason(world, "Ready").await;
    // Nobody tells the replica anything any more, and it has to come back.
    operator.kill();
    let (admin, admins_password) = &new[1];
    let closed = primary.client(&[
        "--user",
        admin,
        "--pass",
        admins_password,
        "CLIENT",
        "KILL",
        "TYPE",
        "replica",
    ]);
    assert_eq!(closed.trim(), "1");
    until("the replica to follow again", || async {
        let said = replica.client(&["--user", admin, "--pass", admins_password, "INFO", "replication"]);
        if said.contains("master_link_status:up") {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;
}
