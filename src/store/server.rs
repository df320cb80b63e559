//! Between apply and status: tells the running server of its users and certificate, and asks how it is.

use std::collections::{BTreeMap, BTreeSet};

use super::acl::{ADMIN, Users};
use super::build::PORT;
use super::client::{
    Authority, Connection, Credentials, Endpoint, Failure, MARKS_OF_FEWER_RIGHTS, Password,
    RIGHTS_WITHOUT_MAP, connect,
};
use super::material::Material;
use super::memory::Memory;
use super::names::Names;
use super::replication::info::disk_failed;
use super::validate::Validated;
use crate::certificates;

/// Only a setting that changes makes the server read its certificates again; this one does no harm.
const RELOADING_SETTING: &str = "tls-session-cache-timeout";

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Version.
    pub version: String,
    /// Bytes in use.
    pub used: i64,
    /// Bytes at which it refuses writes.
    pub max: i64,
    /// Connected clients, without the operator.
    pub clients: i64,
    /// Keys evicted since it started.
    pub evicted: i64,
    /// Whether it knows its users as they are to be.
    pub users_are_current: bool,
    /// Whether it presents the certificate that is in the Secret. The mounted file is up to two minutes behind.
    pub certificate_is_current: bool,
    /// Why the last write to the append-only file failed, if it did.
    pub disk_failed: bool,
}

/// The server at `address`, as the operator reaches it: one pod, by the name that clients use.
pub fn endpoint(store: &Validated, material: &Material, address: &str) -> Endpoint {
    Endpoint {
        host: store.names.host(),
        port: PORT,
        address: Some(address.to_owned()),
        tls: material
            .tls
            .as_ref()
            .map(|tls| Authority::Own(tls.trusted.clone())),
    }
}

/// Talks to a server, called as its pod. All users of `material` exist when this succeeds, now and after a restart; unless
/// `is_closed`, for a server that is just giving up or taking over and has shut them out for that.
pub async fn tend(
    names: &Names,
    server: &str,
    material: &Material,
    endpoint: &Endpoint,
    memory: &Memory,
    is_closed: bool,
) -> Result<Facts, Failure> {
    let mut connection = connect_as_admin(endpoint, material).await?;
    let info = connection.info().await?;
    let text = |name: &str| info.get(name).cloned().unwrap_or_default();
    let number = |name: &str| text(name).parse::<i64>().unwrap_or_default();

    let digest = xxhash_rust::xxh64::xxh64(material.users.file().as_bytes(), 0);
    let run = text("run_id");
    let key = format!("{}/{}", names.namespace(), names.store());
    let present = present(&connection.acl_list().await?);
    let is_told = memory.was_told(&key, server, &run, digest) && present == expected(&material.users);
    if !is_told && !is_closed {
        tell(&mut connection, &material.users, &present).await?;
        memory.note_told(&key, server, &run, digest);
    }
    if let (Some(login), true) = (&material.replication, material.relinks) {
        connection.relink(&login.password).await?;
    }
    Ok(Facts {
        version: info
            .get("valkey_version")
            .cloned()
            .unwrap_or_else(|| text("redis_version")),
        used: number("used_memory"),
        max: number("maxmemory"),
        clients: (number("connected_clients") - 1).max(0),
        evicted: number("evicted_keys"),
        users_are_current: is_told || !is_closed,
        certificate_is_current: is_current(&mut connection, material).await?,
        disk_failed: disk_failed(&info),
    })
}

/// Connects as the operator's own user: with its password, or the one before, which the server may still know.
pub(super) async fn connect_as_admin(
    endpoint: &Endpoint,
    material: &Material,
) -> Result<Connection, Failure> {
    let credentials = |password: &Password| Credentials {
        username: Some(ADMIN.to_owned()),
        password: Some(password.clone()),
    };
    match (
        connect(endpoint, &credentials(&material.admin.password)).await,
        &material.former_admin,
    ) {
        (Err(Failure::Authentication { .. }), Some(former)) => connect(endpoint, &credentials(former)).await,
        (outcome, _) => outcome,
    }
}

/// Users by name with the hashes of their passwords, whether they are let in, and the mark of fewer rights, from the lines of `ACL LIST`.
fn present(lines: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    lines
        .iter()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let name = words.next()?.to_owned();
            let telling = words.filter_map(|word| match word {
                "on" | "off" => Some(word),
                word if MARKS_OF_FEWER_RIGHTS.contains(&word) || RIGHTS_WITHOUT_MAP.contains(&word) => {
                    Some(MARKS_OF_FEWER_RIGHTS[0])
                }
                word => word.starts_with('#').then_some(word),
            });
            Some((name, telling.map(str::to_owned).collect()))
        })
        .collect()
}

fn expected(users: &Users) -> BTreeMap<String, BTreeSet<String>> {
    let lines: Vec<String> = users.file().lines().map(str::to_owned).collect();
    present(&lines)
}

async fn tell(
    connection: &mut Connection,
    users: &Users,
    present: &BTreeMap<String, BTreeSet<String>>,
) -> Result<(), Failure> {
    let rules = users.rules();
    for (name, rules) in &rules {
        // One command, so that nobody sees a user without its rights.
        let mut whole = vec!["reset".to_owned()];
        whole.extend(rules.iter().cloned());
        connection.acl_set_user(name, &whole).await?;
    }
    for name in present.keys().filter(|name| !rules.contains_key(*name)) {
        connection.acl_delete_user(name).await?;
    }
    connection.acl_save().await
}

/// Whether the server presents the certificate of the Secret; makes it read its files anew if not.
async fn is_current(connection: &mut Connection, material: &Material) -> Result<bool, Failure> {
    let Some(tls) = &material.tls else { return Ok(true) };
    let wanted = certificates::der(&tls.server.certificate).ok();
    if connection.certificate == wanted {
        return Ok(true);
    }
    let present = connection.config(&[RELOADING_SETTING]).await?;
    let next = if present.get(RELOADING_SETTING).is_some_and(|value| value == "300") {
        "301"
    } else {
        "300"
    };
    connection.set_config(RELOADING_SETTING, next).await?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::certificates::{self, Pair, Usage};
    use crate::store::acl::hash;
    use crate::store::login::Login;
    use crate::store::material;
    use crate::store::testing::{Certificates, Server};

    fn names() -> Names {
        Names::new("kitchen", "larder")
    }

    fn with_prefixes(admin: &Password, prefixes: &[&str]) -> Material {
        Material {
            admin: Login {
                password: admin.clone(),
                next: None,
                made: None,
            },
            former_admin: None,
            replication: None,
            relinks: false,
            logins: BTreeMap::new(),
            users: Users {
                admin: BTreeSet::from([hash(admin.reveal())]),
                replication: None,
                cluster: false,
                prefixes: prefixes
                    .iter()
                    .map(|prefix| ((*prefix).to_owned(), BTreeSet::from([hash(prefix)])))
                    .collect(),
            },
            tls: None,
            obsolete: BTreeSet::new(),
        }
    }

    /// A server with a users' file of its own, and that file.
    fn server(material: &Material) -> (Server, PathBuf) {
        let file = std::env::temp_dir().join(format!("session-operator-users-{:016x}", fastrand::u64(..)));
        std::fs::write(&file, material.users.file()).unwrap();
        (Server::plain(&["--aclfile", file.to_str().unwrap()]), file)
    }

    async fn may_log_in(server: &Server, prefix: &str) -> bool {
        let credentials = Credentials {
            username: Some(format!("app-{prefix}")),
            password: Some(Password::new(prefix)),
        };
        connect(&server.endpoint(), &credentials).await.is_ok()
    }

    #[tokio::test]
    async fn users_come_and_go_on_the_running_server_and_in_its_file() {
        let admin = Password::new("admin");
        let first = with_prefixes(&admin, &["shop"]);
        let (server, file) = server(&first);
        let memory = Memory::default();
        let endpoint = server.endpoint();
        let facts = tend(&names(), "larder-0", &first, &endpoint, &memory, false)
            .await
            .unwrap();
        assert!(facts.version.starts_with("7."), "{facts:?}");
        assert_eq!((facts.clients, facts.evicted, facts.disk_failed), (0, 0, false));

        let second = with_prefixes(&admin, &["blog"]);
        tend(&names(), "larder-0", &second, &endpoint, &memory, false)
            .await
            .unwrap();
        assert!(may_log_in(&server, "blog").await && !may_log_in(&server, "shop").await);
        let saved = Users::parse(&std::fs::read_to_string(&file).unwrap());
        assert_eq!(saved, second.users);

        // What somebody else did to the users is undone, although this server was told before.
        let mut somebody = connect_as_admin(&endpoint, &second).await.unwrap();
        somebody.acl_delete_user("app-blog").await.unwrap();
        somebody
            .acl_set_user("intruder", &["on".to_owned(), "nopass".to_owned()])
            .await
            .unwrap();
        tend(&names(), "larder-0", &second, &endpoint, &memory, false)
            .await
            .unwrap();
        assert!(may_log_in(&server, "blog").await);
        let users = present(&somebody.acl_list().await.unwrap());
        assert_eq!(users, expected(&second.users));

        // A user who is shut out, or may not read, is so no more, unless that is meant.
        let rights = second.users.rights();
        somebody.let_in_without_reads(&rights).await.unwrap();
        somebody.shut_out(&rights).await.unwrap();
        tend(&names(), "larder-0", &second, &endpoint, &memory, true)
            .await
            .unwrap();
        assert!(!may_log_in(&server, "blog").await);
        somebody.let_in(&rights).await.unwrap();
        assert_eq!(
            present(&somebody.acl_list().await.unwrap()),
            expected(&second.users)
        );
        somebody.let_in_without_reads(&rights).await.unwrap();
        assert_ne!(
            present(&somebody.acl_list().await.unwrap()),
            expected(&second.users)
        );
        somebody.shut_out(&rights).await.unwrap();
        tend(&names(), "larder-0", &second, &endpoint, &memory, false)
            .await
            .unwrap();
        assert!(may_log_in(&server, "blog").await);
        assert_eq!(
            present(&somebody.acl_list().await.unwrap()),
            expected(&second.users)
        );
        std::fs::remove_file(file).unwrap();
    }

    #[tokio::test]
    async fn a_new_password_of_the_operator_is_told_with_the_one_before() {
        let first = with_prefixes(&Password::new("first"), &[]);
        let (server, file) = server(&first);
        let memory = Memory::default();
        let endpoint = server.endpoint();
        let mut second = with_prefixes(&Password::new("second"), &[]);
        let refused = tend(&names(), "larder-0", &second, &endpoint, &memory, false).await;
        assert!(
            matches!(refused, Err(Failure::Authentication { .. })),
            "{refused:?}"
        );
        second.former_admin = Some(first.admin.password.clone());
        tend(&names(), "larder-0", &second, &endpoint, &memory, false)
            .await
            .unwrap();
        second.former_admin = None;
        tend(&names(), "larder-0", &second, &endpoint, &memory, false)
            .await
            .unwrap();
        std::fs::remove_file(file).unwrap();
    }

    #[tokio::test]
    async fn two_passwords_are_good_for_whoever_is_in_and_whoever_comes() {
        let admin = Password::new("admin");
        let mut material = with_prefixes(&admin, &["old"]);
        let (server, file) = server(&material);
        let as_shop = |password: &str| {
            let credentials = Credentials {
                username: Some("app-old".to_owned()),
                password: Some(Password::new(password)),
            };
            let endpoint = server.endpoint();
            async move { connect(&endpoint, &credentials).await }
        };
        let mut client = as_shop("old").await.unwrap();
        let (memory, endpoint) = (Memory::default(), server.endpoint());
        for (good, refused) in [(&["old", "new"][..], None), (&["new"], Some("old"))] {
            let hashes = good.iter().map(|password| hash(password)).collect();
            material.users.prefixes.insert("old".to_owned(), hashes);
            let facts = tend(&names(), "larder-0", &material, &endpoint, &memory, false)
                .await
                .unwrap();
            assert!(facts.users_are_current);
            for password in good {
                as_shop(password).await.unwrap();
            }
            if let Some(password) = refused {
                assert!(as_shop(password).await.is_err());
            }
            // Who is in stays, whatever becomes of his password.
            client.ping().await.unwrap();
            let saved = Users::parse(&std::fs::read_to_string(&file).unwrap());
            assert_eq!(saved, material.users, "a server that is restarted knows the same");
        }
        material.users.prefixes.clear();
        let facts = tend(&names(), "larder-0", &material, &endpoint, &memory, true)
            .await
            .unwrap();
        assert!(
            !facts.users_are_current,
            "one that shuts its users out is not told"
        );
        std::fs::remove_file(file).unwrap();
    }

    #[tokio::test]
    async fn a_running_server_takes_up_a_new_certificate() {
        let before = Certificates::new("localhost");
        let admin = Password::new("admin");
        let mut material = with_prefixes(&admin, &[]);
        let file = std::env::temp_dir().join(format!("session-operator-users-{:016x}", fastrand::u64(..)));
        std::fs::write(&file, material.users.file()).unwrap();
        let server = Server::tls(&before, &["--aclfile", file.to_str().unwrap()]);
        let authority = certificates::authority("larder", jiff::Timestamp::now()).unwrap();
        let after = certificates::leaf(
            &authority,
            &["localhost".to_owned()],
            Usage::Server,
            jiff::Timestamp::now(),
        )
        .unwrap();
        material.tls = Some(material::Certificates {
            trusted: format!("{}{}", authority.certificate, before.authority),
            authority,
            former: None,
            server: Pair {
                certificate: before.certificate.clone(),
                key: before.key.clone(),
            },
        });
        let trusted = material.tls.as_ref().unwrap().trusted.clone();
        let endpoint = server.tls_endpoint(&trusted);
        let memory = Memory::default();
        let facts = tend(&names(), "larder-0", &material, &endpoint, &memory, false)
            .await
            .unwrap();
        assert!(facts.certificate_is_current);

        // In the Secret; then, later, in the mounted file.
        material.tls.as_mut().unwrap().server = after.clone();
        let facts = tend(&names(), "larder-0", &material, &endpoint, &memory, false)
            .await
            .unwrap();
        assert!(!facts.certificate_is_current, "the file still is the former one");
        std::fs::write(server.folder.join("cert"), &after.certificate).unwrap();
        std::fs::write(server.folder.join("key"), &after.key).unwrap();
        tend(&names(), "larder-0", &material, &endpoint, &memory, false)
            .await
            .unwrap();
        let facts = tend(&names(), "larder-0", &material, &endpoint, &memory, false)
            .await
            .unwrap();
        assert!(facts.certificate_is_current);
        std::fs::remove_file(file).unwrap();
    }
}
