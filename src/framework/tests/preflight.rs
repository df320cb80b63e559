//! The scripts run in a shell, with files of the test's own in place of an image's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::api::session_policy::Framework;
use crate::api::session_store::Engine;
use crate::framework::preset;

/// Folders in which the scripts look for things; in tests they lie elsewhere.
const FOLDERS: [&str; 6] = ["/etc/", "/usr/", "/opt/", "/var/", "/bin", "/sbin"];

/// The files of an image.
struct Image(PathBuf);

impl Image {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("preflight-{}-{name}", std::process::id()));
        fs::create_dir_all(root.join("usr/bin")).expect("a folder");
        fs::create_dir_all(root.join("work")).expect("a folder");
        Self(root)
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        self
    }

    /// A program that prints a text.
    fn program(self, path: &str, output: &str) -> Self {
        self.file(path, &format!("#!/bin/sh\ncat <<'END'\n{output}\nEND\n"))
    }

    fn script(&self, framework: Framework, engine: Engine) -> String {
        let preflight = preset(framework).preflight(engine, None).expect("a preflight");
        let [shell, option, script] = preflight.command.as_slice() else {
            panic!("{:?}", preflight.command)
        };
        assert_eq!((shell.as_str(), option.as_str()), ("sh", "-c"));
        let root = self.0.display();
        let mut script = script.replace("/dev/termination-log", &format!("{root}/answer"));
        for folder in FOLDERS {
            for before in [" ", "=", ":", "("] {
                script = script.replace(&format!("{before}{folder}"), &format!("{before}{root}{folder}"));
            }
        }
        script
    }

    /// What the script answers.
    fn answer(&self, framework: Framework, env: &[(&str, &str)]) -> Value {
        self.answer_for(Engine::Valkey, framework, env)
    }

    /// What it answers for a store of an engine.
    fn answer_for(&self, engine: Engine, framework: Framework, env: &[(&str, &str)]) -> Value {
        let run = Command::new("/bin/sh")
            .args(["-c", &self.script(framework, engine)])
            .current_dir(self.0.join("work"))
            .env_clear()
            // The tools that the scripts use, and none of the frameworks that this machine may have.
            .env("PATH", self.tools())
            .envs(env.iter().copied())
            .output()
            .expect("sh");
        assert!(run.status.success(), "{run:?}");
        assert!(run.stderr.is_empty(), "{}", String::from_utf8_lossy(&run.stderr));
        let answer = fs::read_to_string(self.0.join("answer")).expect("an answer");
        assert!(answer.len() <= 4096, "the kubelet cuts it");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    fn tools(&self) -> PathBuf {
        let tools = self.0.join("tools");
        if !tools.is_dir() {
            fs::create_dir(&tools).expect("a folder");
            for tool in ["sed", "tr", "grep", "cat"] {
                let of_host = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(tool));
                let path = of_host.iter().find(|path| path.exists()).expect(tool);
                std::os::unix::fs::symlink(path, tools.join(tool)).expect("a link");
            }
        }
        tools
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("the folder goes");
    }
}

const INFO: &str = "phpinfo()
Scan this dir for additional .ini files => SCAN
auto_prepend_file => no value => no value
open_basedir => /srv:/tmp => /srv:/tmp
Redis Version => 5.3.7";

fn text<'a>(answer: &'a Value, pointer: &str) -> &'a str {
    answer
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("{pointer}: {answer}"))
}

#[test]
fn php_on_the_command_line_tells_of_itself() {
    let image = Image::new("cli").program("usr/bin/php", INFO);
    let answer = image.answer(
        Framework::Php,
        &[("PHP_INI_SCAN_DIR", "a\"b\\c\n$(d)"), ("SSL_CERT_FILE", "")],
    );
    assert_eq!(text(&answer, "/facts/redis"), "5.3.7");
    assert_eq!(text(&answer, "/facts/openBasedir"), "/srv:/tmp");
    assert_eq!(text(&answer, "/facts/autoPrepend"), "");
    assert_eq!(text(&answer, "/facts/fpm"), "");
    assert_eq!(text(&answer, "/facts/env.PHP_INI_SCAN_DIR"), "a\"b\\c$(d)");
    assert_eq!(text(&answer, "/facts/env.SSL_CERT_FILE"), "");
}

const MEMCACHED_INFO: &str = "phpinfo()
PHP Version => 8.2.29
Scan this dir for additional .ini files => SCAN

memcached

memcached support => enabled
Version => 3.2.0
libmemcached headers version => 1.0.18
SASL support => yes
Session support => SESSIONS

Directive => Local Value => Master Value
memcached.sess_locking => On => On

mysqlnd

Version => mysqlnd 8.2.29";

#[test]
fn php_for_memcached_needs_another_extension() {
    let ask = |image: &Image| image.answer_for(Engine::Memcached, Framework::Php, &[]);
    let with = |name: &str, sessions: &str| {
        let info = MEMCACHED_INFO.replace("SESSIONS", sessions);
        ask(&Image::new(name).program("usr/bin/php", &info))
    };
    let answer = with("memcached", "yes");
    assert_eq!(text(&answer, "/facts/memcached"), "3.2.0");
    assert_eq!(answer.pointer("/facts/redis"), None);
    let answer = with("memcached-without-sessions", "no");
    assert!(
        text(&answer, "/missing").contains("built without sessions"),
        "{answer}"
    );
    for (tool, remedy) in [
        (
            "docker-php-ext-enable",
            "pecl install memcached && docker-php-ext-enable memcached",
        ),
        ("apk", "php*-pecl-memcached"),
        ("apt-get", "apt-get install -y php-memcached"),
    ] {
        let image = Image::new(&format!("memcached-missing-{tool}"))
            .program("usr/bin/php", INFO)
            .program(&format!("usr/bin/{tool}"), "");
        let answer = ask(&image);
        assert_eq!(
            text(&answer, "/missing"),
            "PHP in this image has no memcached extension"
        );
        assert!(text(&answer, "/remedy").contains(remedy), "{answer}");
    }
}

#[test]
fn php_without_the_extension_is_told_how_to_get_it() {
    for (tool, remedy) in [
        ("docker-php-ext-enable", "pecl install redis"),
        ("apk", "apk add"),
        ("apt-get", "apt-get install -y php-redis"),
    ] {
        let image = Image::new(&format!("missing-{tool}"))
            .program("usr/bin/php", "phpinfo()")
            .program(&format!("usr/bin/{tool}"), "");
        let answer = image.answer(Framework::Php, &[]);
        assert_eq!(
            text(&answer, "/missing"),
            "PHP in this image has no redis extension"
        );
        assert!(text(&answer, "/remedy").contains(remedy), "{answer}");
    }
}

/// Debian enables extensions per server.
#[test]
fn the_server_must_load_the_extension_and_not_only_the_command_line() {
    let image = Image::new("debian");
    let scanned = format!("{}/etc/php/8.2/cli/conf.d", image.0.display());
    let image = image
        .program("usr/bin/php", &INFO.replace("SCAN", &scanned))
        .file(
            "etc/php/8.2/apache2/conf.d/10-opcache.ini",
            "zend_extension=opcache.so\n",
        );
    let answer = image.answer(Framework::Php, &[]);
    assert!(
        text(&answer, "/missing").contains("not enabled for apache2"),
        "{answer}"
    );
    assert!(
        text(&answer, "/remedy").contains("phpenmod -s apache2 redis"),
        "{answer}"
    );
    let image = image.file(
        "etc/php/8.2/apache2/conf.d/20-redis.ini",
        "; redis\nextension=redis.so\n",
    );
    assert_eq!(text(&image.answer(Framework::Php, &[]), "/facts/redis"), "5.3.7");
}

#[test]
fn without_a_command_line_fpm_is_asked() {
    let image = Image::new("fpm").program("usr/sbin/php-fpm8.2", INFO);
    let answer = image.answer(Framework::Php, &[]);
    assert_eq!(text(&answer, "/facts/redis"), "5.3.7");
    assert_eq!(text(&answer, "/facts/fpm"), "yes");
}

#[test]
fn with_a_module_of_apache_alone_its_settings_are_read() {
    let image = Image::new("module").file("usr/lib/apache2/modules/libphp.so", "");
    let answer = image.answer(Framework::Php, &[]);
    assert!(text(&answer, "/missing").contains("as a module"), "{answer}");
    let image = image.file(
        "usr/local/etc/php/conf.d/docker-php-ext-redis.ini",
        "extension=redis\n",
    );
    let answer = image.answer(Framework::Php, &[]);
    assert_eq!(text(&answer, "/facts/redis"), "", "the version stays unknown");
}

#[test]
fn an_image_without_php_is_told_apart() {
    let answer = Image::new("nothing").answer(Framework::Php, &[]);
    assert!(text(&answer, "/missing").contains("no PHP"), "{answer}");
    assert!(
        text(&answer, "/remedy").contains("spec.client.containers"),
        "{answer}"
    );
}

#[test]
fn a_pool_that_outranks_us_is_named() {
    let image = Image::new("pool").program("usr/sbin/php-fpm", INFO).file(
        "etc/php-fpm.d/www.conf",
        "[www]\nphp_value[session.save_handler] = files\n",
    );
    let answer = image.answer(Framework::Php, &[]);
    assert!(
        text(&answer, "/missing").contains("php-fpm.d/www.conf"),
        "{answer}"
    );
    let image = image.file(
        "etc/php-fpm.d/www.conf",
        "[www]\n;php_value[session.save_handler] = files\n",
    );
    assert_eq!(text(&image.answer(Framework::Php, &[]), "/facts/redis"), "5.3.7");
}

const SERVER_XML: &str = r#"<Server port="-1">
  <!-- <Host name="old.example"/> -->
  <Service name="Catalina">
    <Engine name="Catalina" defaultHost="localhost">
      <!--
      <Host name="older.example">
      -->
      <Host appBase="webapps"
            name="localhost" unpackWARs="true"/><Host name='shop.example' appBase="x"/>
    </Engine>
  </Service>
</Server>"#;

fn tomcat(name: &str, version: &str) -> Image {
    Image::new(name)
        .file("usr/local/tomcat/lib/catalina.jar", "")
        .file("usr/local/tomcat/conf/server.xml", SERVER_XML)
        .program(
            "usr/bin/java",
            &format!("Server version: Apache Tomcat\nServer number:  {version}"),
        )
}

#[test]
fn tomcat_tells_its_hosts_and_where_they_are() {
    let image = tomcat("tomcat", "10.1.60.0");
    let answer = image.answer(Framework::Tomcat, &[]);
    assert_eq!(
        text(&answer, "/facts/base"),
        format!("{}/usr/local/tomcat", image.0.display())
    );
    assert_eq!(
        text(&answer, "/facts/hosts"),
        "conf/Catalina/localhost conf/Catalina/shop.example"
    );
    assert_eq!(text(&answer, "/facts/version"), "10.1.60.0");
}

#[test]
fn tomcat_as_debian_lays_it_out_is_found() {
    let image = Image::new("tomcat-debian")
        .file("usr/share/tomcat10/lib/catalina.jar", "")
        .file("var/lib/tomcat10/conf/server.xml", SERVER_XML)
        .program("usr/bin/java", "Server number:  10.1.60.0");
    let answer = image.answer(Framework::Tomcat, &[]);
    assert_eq!(
        text(&answer, "/facts/base"),
        format!("{}/var/lib/tomcat10", image.0.display())
    );
    let elsewhere = image.file(
        "srv/base/conf/server.xml",
        "<Engine name=\"E\"><Host name=\"h\"/></Engine>",
    );
    let base = format!("{}/srv/base", elsewhere.0.display());
    let answer = elsewhere.answer(Framework::Tomcat, &[("CATALINA_BASE", &base)]);
    assert_eq!(text(&answer, "/facts/base"), base);
    assert_eq!(text(&answer, "/facts/hosts"), "conf/E/h");
}

#[test]
fn a_tomcat_that_does_not_fit_is_told_apart() {
    let nothing = Image::new("tomcat-nothing").answer(Framework::Tomcat, &[]);
    assert!(text(&nothing, "/missing").contains("no Tomcat"), "{nothing}");
    for (version, name) in [("9.0.98.0", "Tomcat 9.0.98"), ("11.0.1.0", "Tomcat 11.0.1")] {
        let answer = tomcat(&format!("tomcat-{version}"), version).answer(Framework::Tomcat, &[]);
        assert!(text(&answer, "/missing").contains(name), "{answer}");
    }
    let taken = tomcat("tomcat-taken", "10.1.1.0")
        .file(
            "usr/local/tomcat/conf/Catalina/localhost/context.xml.default",
            "<Context/>",
        )
        .answer(Framework::Tomcat, &[]);
    assert!(
        text(&taken, "/missing").contains("localhost/context.xml.default exists"),
        "{taken}"
    );
}

/// A Python that answers as one with Django would, by what it is asked to run.
fn python(name: &str, versions: &str, engine: &str) -> Image {
    Image::new(name).file(
        "usr/bin/python3",
        &format!(
            "#!/bin/sh\ncase $2 in\n'import django') ;;\n*get_version*) echo '{versions}' ;;\n*SESSION_ENGINE*) echo '{engine}' ;;\n*) exit 9 ;;\nesac\n"
        ),
    )
}

#[test]
fn django_tells_its_version_and_what_is_set() {
    let image = python("django", "3.11 5.2.8", "django.contrib.sessions.backends.db");
    let env = [
        ("DJANGO_SETTINGS_MODULE", "library.settings"),
        ("PYTHONPATH", "/srv/packages"),
    ];
    let answer = image.answer(Framework::Django, &env);
    assert_eq!(text(&answer, "/facts/settings"), "library.settings");
    assert_eq!(text(&answer, "/facts/django"), "5.2.8");
    assert_eq!(text(&answer, "/facts/env.PYTHONPATH"), "/srv/packages");
}

#[test]
fn a_django_that_does_not_fit_is_told_apart() {
    let env = [("DJANGO_SETTINGS_MODULE", "library.settings")];
    let table = [
        ("old", "3.11 3.2.19", "", "Django 3.2.19"),
        ("older", "3.8 5.2.8", "", "Python 3.8"),
        (
            "engine",
            "3.11 5.2.8",
            "library.sessions",
            "engine of its own, library.sessions",
        ),
    ];
    for (name, versions, engine, wanted) in table {
        let answer = python(&format!("django-{name}"), versions, engine).answer(Framework::Django, &env);
        assert!(text(&answer, "/missing").contains(wanted), "{answer}");
    }
    let nothing = Image::new("django-none").answer(Framework::Django, &env);
    assert!(
        text(&nothing, "/missing").contains("can import Django"),
        "{nothing}"
    );
}

#[test]
fn the_settings_module_is_found_in_the_application_s_files() {
    for (name, file, line) in [
        (
            "manage",
            "work/manage.py",
            "    os.environ.setdefault(\"DJANGO_SETTINGS_MODULE\", \"shop.settings\")",
        ),
        (
            "wsgi",
            "work/shop/wsgi.py",
            "os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'",
        ),
    ] {
        let image = python(&format!("django-{name}"), "3.11 5.2.8", "").file(file, line);
        let answer = image.answer(Framework::Django, &[]);
        assert_eq!(text(&answer, "/facts/settings"), "shop.settings", "{answer}");
    }
    let answer = python("django-unnamed", "3.11 5.2.8", "").answer(Framework::Django, &[]);
    assert!(
        text(&answer, "/missing").contains("no settings module"),
        "{answer}"
    );
    assert!(
        text(&answer, "/remedy").contains("spec.client.settingsModule"),
        "{answer}"
    );
}

fn node(name: &str, version: &str, session: &str) -> Image {
    Image::new(name).file(
        "usr/bin/node",
        &format!("#!/bin/sh\n[ -z \"$NODE_OPTIONS\" ] || exit 9\ncase $1 in\n--version) echo {version} ;;\n-p) echo '{session}' ;;\nesac\n"),
    )
}

#[test]
fn express_tells_its_versions_and_options() {
    let answer = node("express", "v20.20.2", "1.19.0")
        .answer(Framework::Express, &[("NODE_OPTIONS", "--trace-warnings")]);
    assert_eq!(text(&answer, "/facts/node"), "v20.20.2");
    assert_eq!(text(&answer, "/facts/expressSession"), "1.19.0");
    assert_eq!(text(&answer, "/facts/env.NODE_OPTIONS"), "--trace-warnings");
}

#[test]
fn an_express_that_does_not_fit_is_told_apart() {
    for (version, fits) in [
        ("v16.20.2", false),
        ("v18.18.2", false),
        ("v18.19.0", true),
        ("v24.1.0", true),
    ] {
        let answer = node(&format!("express-{version}"), version, "1.19.0").answer(Framework::Express, &[]);
        assert_eq!(answer.get("facts").is_some(), fits, "{version}: {answer}");
    }
    let bundled = node("express-bundled", "v20.1.0", "").answer(Framework::Express, &[]);
    assert!(
        text(&bundled, "/remedy").contains("out of the bundle"),
        "{bundled}"
    );
    let nothing = Image::new("express-none").answer(Framework::Express, &[]);
    assert!(text(&nothing, "/missing").contains("no node"), "{nothing}");
}
