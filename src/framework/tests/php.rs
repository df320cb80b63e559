use insta::assert_yaml_snapshot;

use super::fixture::World;
use crate::api::conditions::reasons;
use crate::api::session_policy::Framework;

fn world() -> World {
    World::new(Framework::Php).fact("redis", "6.2.0")
}

fn names(world: &World) -> Vec<String> {
    world
        .parts()
        .env
        .into_iter()
        .map(|variable| variable.name)
        .collect()
}

#[test]
fn one_server_with_an_authority_and_a_user_of_its_own() {
    assert_yaml_snapshot!(world().summary());
}

#[test]
fn a_cluster_with_a_life_of_sessions() {
    let mut world = world().endpoint(|endpoint| {
        endpoint.cluster = true;
        endpoint.members = vec!["sessions-0-0.sessions-members.web.svc".to_owned()];
    });
    world.ttl_seconds = Some(1440);
    assert_yaml_snapshot!(world.summary());
}

#[test]
fn the_save_path_says_what_the_store_is() {
    let path = |change: fn(&mut crate::framework::Endpoint)| {
        let keys = world().endpoint(change).keys();
        keys.get("php-save-path").cloned().expect("the key")
    };
    let plain = path(|endpoint| {
        endpoint.tls = false;
        endpoint.own_authority = false;
        endpoint.username = None;
        endpoint.password = Some("secret".to_owned());
        endpoint.host = "2001:db8::1".to_owned();
    });
    assert_eq!(
        plain,
        "tcp://[2001:db8::1]:6379?prefix=shop%3A&timeout=5&read_timeout=5&auth=secret"
    );
    let open = path(|endpoint| endpoint.password = None);
    assert!(!open.contains("auth"), "{open}");
    let public = path(|endpoint| endpoint.own_authority = false);
    assert!(
        public.starts_with("tls://") && !public.contains("stream"),
        "{public}"
    );
    let cluster = path(|endpoint| {
        endpoint.own_authority = false;
        endpoint.cluster = true;
    });
    assert!(
        cluster.contains("stream[verify_peer]=1"),
        "without an option of the stream it would be plain text: {cluster}"
    );
}

#[test]
fn folders_are_added_to_those_that_are_read() {
    let folder = "/session-operator/agent/session";
    let table = [
        ("{name: app}", None, "$(PHP_INI_SCAN_DIR):", ":"),
        (
            "{name: app}",
            Some(":/opt/ini"),
            "$(PHP_INI_SCAN_DIR):",
            ":/opt/ini:",
        ),
        ("{name: app}", Some("/a$(B)"), "$(PHP_INI_SCAN_DIR):", "/a$$(B):"),
        ("{name: app}", Some(""), "$(PHP_INI_SCAN_DIR):", ""),
        (
            "{name: app, env: [{name: PHP_INI_SCAN_DIR, value: ''}]}",
            None,
            "",
            ":",
        ),
        (
            "{name: app, env: [{name: PHP_INI_SCAN_DIR, valueFrom: {configMapKeyRef: {name: a, key: b}}}]}",
            None,
            "$(PHP_INI_SCAN_DIR):",
            ":",
        ),
    ];
    for (container, image, when_set, when_unset) in table {
        let mut world = world().container(container);
        if let Some(value) = image {
            world = world.fact("env.PHP_INI_SCAN_DIR", value);
        }
        let extend = world.parts().extend;
        assert_eq!(extend.len(), 1);
        assert_eq!(
            extend[0].when_set,
            format!("{when_set}{folder}"),
            "{container} {image:?}"
        );
        assert_eq!(
            extend[0].when_unset,
            format!("{when_unset}{folder}"),
            "{container} {image:?}"
        );
    }
}

/// phpredis before 6.0 ignores `stream[cafile]` of the save path.
#[test]
fn an_old_extension_trusts_by_a_variable() {
    for (version, set) in [("5.3.7", true), ("", true), ("6.0.0", false), ("10.1.0", false)] {
        let world = world().fact("redis", version);
        assert_eq!(
            names(&world).contains(&"SSL_CERT_FILE".to_owned()),
            set,
            "{version}"
        );
    }
    let public = world()
        .fact("redis", "5.3.7")
        .endpoint(|endpoint| endpoint.own_authority = false);
    assert_eq!(names(&public).len(), 2);
    let cluster = world()
        .fact("redis", "5.3.7")
        .endpoint(|endpoint| endpoint.cluster = true);
    assert_eq!(names(&cluster).len(), 2);
}

#[test]
fn an_old_extension_under_fpm_trusts_by_a_file() {
    let world = world().fact("redis", "5.3.7").fact("fpm", "yes");
    let extend = world.parts().extend;
    assert!(
        extend[0]
            .when_unset
            .ends_with(":/session-operator/agent/authority"),
        "{extend:?}"
    );
    for (fact, setting) in [
        ("autoPrepend", "auto_prepend_file"),
        ("openBasedir", "open_basedir"),
    ] {
        let refusal = World::new(Framework::Php)
            .fact("redis", "5.3.7")
            .fact("fpm", "yes")
            .fact(fact, "/srv")
            .refused();
        assert_eq!(refusal.reason, reasons::HANDLER_MISSING);
        assert!(
            refusal.message.contains(&format!("the image sets {setting}"))
                && refusal.message.contains("phpredis 6"),
            "{}",
            refusal.message
        );
    }
}

#[test]
fn an_old_extension_with_other_authorities_is_refused() {
    let of_image = world()
        .fact("redis", "5.3.7")
        .fact("env.SSL_CERT_FILE", "/ca.pem");
    let of_container = world()
        .fact("redis", "5.3.7")
        .container("{name: app, env: [{name: SSL_CERT_FILE, value: /ca.pem}]}");
    for world in [of_image, of_container] {
        let refusal = world.refused();
        assert_eq!(refusal.reason, reasons::ENV_CONFLICT);
        assert!(
            refusal.message.starts_with("container app: SSL_CERT_FILE"),
            "{}",
            refusal.message
        );
    }
}
