//! The ticket office on Tomcat 10.1 as Debian packages it, with a base folder of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use session_operator::api::session_policy::Framework;

use crate::sandbox::Sandbox;
use crate::store::Store;
use crate::trial::{Folder, Trial, repository};

const HOME: &str = "/usr/share/tomcat10";
const BASE: &str = "/srv/tickets";

#[tokio::test]
async fn sessions_and_objects_that_change_in_place() -> Result<()> {
    let folder = Folder::new("tomcat")?;
    let store = Store::start(folder.path()).await?;
    let mut trial = tickets(folder.path())?;
    trial.ttl_seconds = Some(600);
    trial.run(&store).await
}

#[tokio::test]
async fn without_a_preset_everybody_is_lost() -> Result<()> {
    let folder = Folder::new("tomcat-none")?;
    tickets(folder.path())?.run_without().await
}

/// Lays out what the Containerfile of the ticket office does.
fn tickets(folder: &Path) -> Result<Trial> {
    let app = repository().join("e2e/apps/tickets");
    let base = folder.join("base");
    let mut sandbox = Sandbox::new(folder).writable(&base, BASE);
    for (name, value) in [
        ("CATALINA_HOME", HOME),
        ("CATALINA_BASE", BASE),
        ("CATALINA_OPTS", "-XX:+UseSerialGC -Xmx192m"),
    ] {
        sandbox.image.insert(name.to_owned(), value.to_owned());
    }
    let trial = Trial::new(Framework::Tomcat, sandbox, "e2e/apps/tickets/drill.yaml")?;
    for name in ["logs", "temp", "work", "webapps"] {
        fs::create_dir_all(base.join(name))?;
    }
    run("cp", &["-r", &path(&app.join("conf")), &path(&base.join("conf"))])?;
    run(
        "cp",
        &["-r", &path(&app.join("web")), &path(&base.join("webapps/ROOT"))],
    )?;
    let server = base.join("conf/server.xml");
    let port = format!("port=\"{}\" address=\"127.0.0.1\"", trial.port);
    fs::write(
        &server,
        fs::read_to_string(&server)?.replace("port=\"8080\"", &port),
    )?;
    let mut compile = vec![
        "-cp".to_owned(),
        format!("{HOME}/lib/servlet-api.jar"),
        "-d".to_owned(),
        path(&base.join("webapps/ROOT/WEB-INF/classes")),
    ];
    for source in fs::read_dir(app.join("src/tickets"))? {
        compile.push(path(&source?.path()));
    }
    run("javac", &compile.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(trial.server(&[&format!("{HOME}/bin/catalina.sh"), "run"]))
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .context(program.to_owned())?;
    ensure!(output.status.success(), "{program} {arguments:?}: {output:?}");
    Ok(())
}
