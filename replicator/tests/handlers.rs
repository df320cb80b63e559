//! Stock session handlers, unmodified, from their registries: a shop with its sessions in replica A and the same shop
//! with its sessions in replica B. Who logs in on one is known on the other, and who logs out there is gone here.
//!
//! `tests/install` gets the handlers; the shops are in `tests/handlers`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed helper is a failed test"
)]

mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::http::{self, Response};
use support::{Folder, Process, Replicator, free_port, launches, wait_linked};

/// Requests per replica that add to one cart at the same time.
const ADDED_AT_ONCE: usize = 20;

/// Two replicas of the replicator, linked over TLS, that hold all sessions.
struct Replicas {
    members: Vec<Replicator>,
    folder: Folder,
}

impl Replicas {
    fn start() -> Self {
        let folder = Folder::new();
        // The user's requests go to either replica in turn, without affinity.
        let all = launches(2, &folder, &["--mode", "all", "--no-affinity"]);
        let ports: Vec<u16> = all.iter().map(|launch| launch.peer_port).collect();
        let mut members: Vec<Replicator> = all
            .into_iter()
            .map(|launch| launch.looking_for(&ports).start())
            .collect();
        members.iter_mut().for_each(Replicator::wait_ready);
        wait_linked(&members);
        Self { members, folder }
    }

    /// The shop in front of one of them.
    fn shop(
        &self,
        handler: &str,
        member: &Replicator,
        command: impl Fn(&Replicator, u16) -> Command,
    ) -> Shop {
        let port = free_port();
        let log = self.folder.path().join(format!("{}-{port}.log", member.name));
        let output = File::create(&log).unwrap();
        let child = command(member, port)
            .env("PORT", port.to_string())
            .env("REDIS_PORT", member.port.to_string())
            .env("MEMCACHED_PORT", member.memcached_port.to_string())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{handler} cannot be started ({error}): run replicator/tests/install")
            });
        let mut shop = Shop {
            process: Process(child),
            port,
            log,
            handler: handler.to_owned(),
        };
        shop.wait_until_it_answers();
        shop
    }

    /// Everything that a user may notice.
    fn check(&self, handler: &str, command: impl Fn(&Replicator, u16) -> Command) {
        let shops = [&self.members[0], &self.members[1]].map(|member| self.shop(handler, member, &command));
        a_user_is_known_on_both_until_the_logout(&shops);
        for member in &self.members {
            // A handler that needs what is not there would work today and fail at the first use of it.
            assert_eq!(
                member.state()["unsupported_commands"],
                serde_json::json!({}),
                "{handler}"
            );
        }
    }

    /// As [`Self::check`], and with a lock that holds across replicas.
    fn check_locking(&self, handler: &str, command: impl Fn(&Replicator, u16) -> Command) {
        self.check(handler, &command);
        let shops = [&self.members[0], &self.members[1]].map(|member| self.shop(handler, member, &command));
        nothing_is_lost_between_replicas(&shops);
    }
}

/// An application with a session handler.
struct Shop {
    process: Process,
    port: u16,
    log: PathBuf,
    handler: String,
}

impl Shop {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_until_it_answers(&mut self) {
        let start = std::time::Instant::now();
        while http::request(self.port, "GET", "/state", None).is_none() {
            let ended = self.process.0.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended: {}", self.handler, self.log());
            assert!(
                start.elapsed() < support::PATIENCE,
                "{} does not answer: {}",
                self.handler,
                self.log()
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

/// A browser: it keeps its cookie and follows the user from replica to replica.
#[derive(Clone, Default)]
struct Browser {
    cookie: Option<String>,
}

impl Browser {
    /// Who the shop thinks it is, and how many items are in the cart.
    fn ask(&mut self, shop: &Shop, method: &str, path: &str) -> (String, u32) {
        let response = http::request(shop.port, method, path, self.cookie.as_deref());
        let Some(Response {
            status: 200,
            cookie,
            body,
        }) = response
        else {
            panic!(
                "{}: {method} {path} ended with {response:?}: {}",
                shop.handler,
                shop.log()
            );
        };
        self.cookie = cookie.or_else(|| self.cookie.take());
        let (user, items) = body.trim_end_matches('\n').rsplit_once(' ').unwrap();
        (user.to_owned(), items.parse().unwrap())
    }

    fn log_in(&mut self, shop: &Shop, user: &str) {
        assert_eq!(
            self.ask(shop, "POST", &format!("/login?user={user}")).0,
            user,
            "{}",
            shop.handler
        );
    }

    fn state(&mut self, shop: &Shop) -> (String, u32) {
        self.ask(shop, "GET", "/state")
    }
}

fn a_user_is_known_on_both_until_the_logout(shops: &[Shop; 2]) {
    let [a, b] = shops;
    let is = |user: &str, items: u32| (user.to_owned(), items);
    let handler = &a.handler;
    let mut alice = Browser::default();
    // A cart is filled before the login, which gives the session a new id.
    assert_eq!(alice.ask(a, "POST", "/add"), is("", 1), "{handler}");
    let before_login = alice.clone();
    alice.log_in(a, "alice");
    assert_eq!(
        alice.state(b),
        is("alice", 1),
        "{handler}: the login on A is seen on B"
    );
    for items in (2..10).step_by(2) {
        assert_eq!(alice.ask(b, "POST", "/add"), is("alice", items), "{handler}");
        assert_eq!(alice.ask(a, "POST", "/add"), is("alice", items + 1), "{handler}");
    }
    let mut bob = Browser::default();
    bob.log_in(b, "bob");
    assert_eq!(
        bob.state(a),
        is("bob", 0),
        "{handler}: the login on B is seen on A"
    );
    let mut stolen = alice.clone();
    assert_eq!(alice.ask(b, "POST", "/logout").0, "", "{handler}");
    assert_eq!(stolen.state(a).0, "", "{handler}: the logout on B is seen on A");
    // Neither a write with the old cookie nor the id from before the login brings anybody back.
    stolen.ask(a, "POST", "/add");
    assert_eq!(stolen.state(b).0, "", "{handler}: a logout is final");
    for shop in shops {
        assert_eq!(
            before_login.clone().state(shop).0,
            "",
            "{handler}: the id from before the login is worth nothing"
        );
        assert_eq!(bob.state(shop), is("bob", 0), "{handler}: others stay logged in");
    }
}

/// Requests of one user on both replicas at the same time: each adds one to the cart, and the handler's lock keeps them
/// from overwriting each other's session.
fn nothing_is_lost_between_replicas(shops: &[Shop; 2]) {
    let mut user = Browser::default();
    user.log_in(&shops[0], "carol");
    std::thread::scope(|scope| {
        for shop in shops {
            let mut tab = user.clone();
            scope.spawn(move || (0..ADDED_AT_ONCE).for_each(|_| drop(tab.ask(shop, "POST", "/add"))));
        }
    });
    let all = u32::try_from(2 * ADDED_AT_ONCE).unwrap();
    assert_eq!(
        user.state(&shops[0]),
        ("carol".to_owned(), all),
        "{}",
        shops[0].handler
    );
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/handlers")
        .join(path)
}

/// The folder of what `tests/install` got.
fn installed(part: &str) -> PathBuf {
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/install"))
        .args(["where", part])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{part} is not installed: run replicator/tests/install"
    );
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
}

fn php(settings: &[String], port: u16) -> Command {
    let mut command = Command::new("php");
    let common = [
        "session.use_strict_mode=1",
        "error_reporting=E_ALL",
        "display_errors=1",
        "html_errors=0",
    ];
    for setting in common.into_iter().chain(settings.iter().map(String::as_str)) {
        command.args(["-d", setting]);
    }
    command
        .args(["-S", &format!("127.0.0.1:{port}")])
        .arg(source("php/shop.php"));
    command
}

#[test]
fn php_redis() {
    let replicas = Replicas::start();
    let over_tcp = |member: &Replicator| {
        vec![
            "session.save_handler=redis".to_owned(),
            format!("session.save_path=\"tcp://127.0.0.1:{}\"", member.port),
        ]
    };
    replicas.check("PHP, redis over TCP", |member, port| php(&over_tcp(member), port));
    replicas.check("PHP, redis over a UNIX socket", |member, port| {
        let path = format!("session.save_path=\"unix://{}\"", member.unix_socket().display());
        php(&["session.save_handler=redis".to_owned(), path], port)
    });
    replicas.check_locking("PHP, redis with locking", |member, port| {
        let locking = [
            "redis.session.locking_enabled=1",
            "redis.session.lock_expire=60",
            "redis.session.lock_retries=-1",
        ];
        php(
            &[over_tcp(member), locking.map(str::to_owned).to_vec()].concat(),
            port,
        )
    });
}

#[test]
fn php_memcached() {
    let replicas = Replicas::start();
    for (name, binary) in [("PHP, memcached, binary", "1"), ("PHP, memcached, text", "0")] {
        replicas.check_locking(name, |member, port| {
            let settings = [
                "session.save_handler=memcached".to_owned(),
                format!("session.save_path=127.0.0.1:{}", member.memcached_port),
                format!("memcached.sess_binary_protocol={binary}"),
                "memcached.sess_lock_retries=200".to_owned(),
            ];
            php(&settings, port)
        });
    }
}

#[test]
fn python() {
    let replicas = Replicas::start();
    let python = installed("python").join("bin/python");
    for (script, argument) in [
        ("django_shop.py", "django"),
        ("django_shop.py", "django-redis"),
        ("django_shop.py", "django-memcached"),
        ("flask_shop.py", "redis"),
        ("flask_shop.py", "memcached"),
        ("starlette_shop.py", "starsessions"),
    ] {
        replicas.check(&format!("{script} with {argument}"), |_, _| {
            let mut command = Command::new(&python);
            command.arg("-B").arg(source("python").join(script)).arg(argument);
            command
        });
    }
}

#[test]
fn node() {
    let replicas = Replicas::start();
    let folder = installed("node");
    for store in [
        "connect-redis 9, node-redis 6",
        "connect-redis 8, node-redis 5",
        "connect-redis 8, ioredis 6",
        "connect-redis 7, node-redis 4",
        "connect-redis 7, ioredis 5",
        "connect-memcached 3",
    ] {
        replicas.check(store, |_, _| {
            let mut command = Command::new("node");
            command
                .arg(source("node/shop.js"))
                .arg(store)
                .env("HANDLERS", &folder);
            command
        });
    }
}

#[test]
fn go() {
    let replicas = Replicas::start();
    let program = installed("go").join("shop");
    for handler in ["scs, go-redis", "scs, redigo", "gorilla, redistore"] {
        replicas.check(handler, |_, _| {
            let mut command = Command::new(&program);
            command.arg(handler);
            command
        });
    }
}

#[test]
fn java() {
    let replicas = Replicas::start();
    let jar = installed("java").join("shop.jar");
    for (client, repository) in [
        ("lettuce", "default"),
        ("jedis", "default"),
        ("lettuce", "indexed"),
    ] {
        replicas.check(
            &format!("Spring Session, {client}, {repository} repository"),
            |member, port| {
                let mut command = Command::new("java");
                // Started often and living shortly: compiling well would cost more than it gains.
                command.args(["-XX:TieredStopAtLevel=1", "-jar"]).arg(&jar);
                command.arg(format!("--server.port={port}"));
                command.arg(format!("--spring.data.redis.port={}", member.port));
                command.arg(format!("--spring.data.redis.client-type={client}"));
                command.arg(format!(
                    "--spring.session.data.redis.repository-type={repository}"
                ));
                command
            },
        );
    }
}

#[test]
fn tomcat() {
    let replicas = Replicas::start();
    let jars = installed("tomcat").join("lib/*");
    for update_mode in ["DEFAULT", "AFTER_REQUEST"] {
        replicas.check(
            &format!("Redisson's Tomcat manager, updateMode {update_mode}"),
            |member, _| {
                let mut command = Command::new("java");
                command.arg("-XX:TieredStopAtLevel=1").arg("-cp").arg(&jars);
                let folder = format!("tomcat-{update_mode}-{}", member.name);
                command
                    .arg("shop.Shop")
                    .arg(replicas.folder.path().join(folder))
                    .arg(update_mode);
                command
            },
        );
    }
}

#[test]
fn ruby() {
    let replicas = Replicas::start();
    for handler in [
        "redis-rack",
        "dalli",
        "rails, redis_store",
        "rails, redis_cache_store",
    ] {
        replicas.check(&format!("Ruby, {handler}"), |_, _| {
            let mut command = Command::new("ruby");
            command.arg(source("ruby/shop.rb")).arg(handler);
            command
        });
    }
}
