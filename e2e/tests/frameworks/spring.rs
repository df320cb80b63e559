//! The notebook on Spring Boot, with nothing but variables.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use session_operator::api::session_policy::Framework;

use crate::sandbox::{Sandbox, variable};
use crate::store::Store;
use crate::trial::{Folder, Trial, repository};

#[tokio::test]
async fn boot_with_spring_session() -> Result<()> {
    let folder = Folder::new("spring")?;
    let store = Store::start(folder.path()).await?;
    let mut trial = notes(folder.path())?;
    trial.ttl_seconds = Some(600);
    trial.run(&store).await
}

fn notes(folder: &Path) -> Result<Trial> {
    let mut sandbox = Sandbox::new(folder).show(&jar()?, "/srv/notes.jar");
    sandbox
        .image
        .insert("SERVER_ADDRESS".to_owned(), "127.0.0.1".to_owned());
    let trial = Trial::new(Framework::Spring, sandbox, "e2e/apps/notes/drill.yaml")?;
    Ok(trial.server(&[
        "java",
        "-XX:+UseSerialGC",
        "-Xmx192m",
        "-Dserver.port=PORT",
        "-jar",
        "/srv/notes.jar",
    ]))
}

/// The application, built once for all tests.
fn jar() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    let folder = PathBuf::from(variable("FRAMEWORK_TEST_PACKAGES")?).join("notes");
    std::fs::create_dir_all(&folder)?;
    for part in ["pom.xml", "src"] {
        let copied = Command::new("cp")
            .arg("-r")
            .arg(repository().join("e2e/apps/notes").join(part))
            .arg(&folder)
            .status()?;
        ensure!(copied.success(), "cp {part}: {copied}");
    }
    let output = Command::new("mvn")
        .args(["--quiet", "--batch-mode", "package"])
        .current_dir(&folder)
        .output()
        .context("mvn")?;
    ensure!(output.status.success(), "mvn package: {output:?}");
    Ok(folder.join("target/notes.jar"))
}
