use insta::assert_yaml_snapshot;

use super::fixture::World;
use crate::api::conditions::reasons;
use crate::api::session_policy::Framework;

fn world() -> World {
    World::new(Framework::Tomcat)
        .fact("base", "/usr/local/tomcat")
        .fact("hosts", "conf/Catalina/localhost")
        .fact("version", "10.1.60.0")
}

#[test]
fn one_jar_and_one_file_for_each_host() {
    assert_yaml_snapshot!(world().summary());
    let two = world().fact("hosts", "conf/Catalina/localhost conf/Catalina/shop.example");
    let paths: Vec<String> = two
        .parts()
        .mounts
        .into_iter()
        .map(|mount| mount.mount_path)
        .collect();
    assert_eq!(
        paths,
        [
            "/usr/local/tomcat/lib/session-operator-tomcat.jar",
            "/usr/local/tomcat/conf/Catalina/localhost/context.xml.default",
            "/usr/local/tomcat/conf/Catalina/shop.example/context.xml.default",
        ]
    );
}

#[test]
fn without_authority_or_tls_fewer_variables() {
    let names = |world: World| -> Vec<String> {
        let env = world.parts().env;
        env.into_iter().map(|variable| variable.name).collect()
    };
    let mut timed = world().endpoint(|endpoint| endpoint.own_authority = false);
    timed.ttl_seconds = Some(900);
    let timed = names(timed);
    assert!(!timed.contains(&"SESSION_OPERATOR_CA_FILE".to_owned()));
    assert!(timed.contains(&"SESSION_OPERATOR_TTL_SECONDS".to_owned()));
}

#[test]
fn a_read_only_volume_in_the_way_is_refused() {
    let table = [
        ("/usr/local/tomcat/conf", "", "configMap: {name: a}", true),
        ("/usr/local/tomcat/conf/", "", "secret: {secretName: a}", true),
        ("/usr/local/tomcat/conf", "", "emptyDir: {}", false),
        (
            "/usr/local/tomcat/conf/Catalina",
            ", readOnly: true",
            "emptyDir: {}",
            true,
        ),
        (
            "/usr/local/tomcat/conf/server.xml",
            "",
            "configMap: {name: a}",
            false,
        ),
        ("/usr/local/tomcat/webapps", "", "configMap: {name: a}", false),
    ];
    for (path, read_only, source, refused) in table {
        let mut world = world().container(&format!(
            "{{name: app, volumeMounts: [{{name: v, mountPath: {path}{read_only}}}]}}"
        ));
        world.volumes = vec![serde_saphyr::from_str(&format!("{{name: v, {source}}}")).expect("a volume")];
        assert_eq!(world.result().is_err(), refused, "{path} {source}");
        if refused {
            let refusal = world.refused();
            assert_eq!(refusal.reason, reasons::HANDLER_MISSING);
            assert!(refusal.message.contains("by subPath"), "{}", refusal.message);
        }
    }
}

#[test]
fn without_facts_nothing_is_guessed() {
    assert_eq!(
        World::new(Framework::Tomcat).refused().reason,
        reasons::PREFLIGHT_FAILED
    );
}
