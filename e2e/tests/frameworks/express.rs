//! The kitchen, as a CommonJS module and as an ES module.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use session_operator::api::session_policy::Framework;

use crate::memcached::Memcached;
use crate::sandbox::{Sandbox, variable};
use crate::store::{Place, Store};
use crate::trial::{Folder, Trial, repository};

const WORKDIR: &str = "/srv/kitchen";

/// Longer than the preset waits for an answer.
const SILENT: Duration = Duration::from_secs(7);

/// How long a server refuses writes.
const REFUSES: Duration = Duration::from_secs(2);

/// A cookie that the kitchen has signed.
const SOMEBODY: &str = "connect.sid=s%3Aguest1.EIdUO2z6YJly2xrfO5eHRRZKbVXw22mAof6f2fKzlOw";

#[tokio::test]
async fn a_common_js_module() -> Result<()> {
    let folder = Folder::new("express-cjs")?;
    let store = Store::start(folder.path()).await?;
    let mut trial = kitchen(folder.path(), "server.cjs")?;
    trial.ttl_seconds = Some(600);
    trial.run(&store).await
}

/// The connection to the store is no reason for a process to stay when its server is closed.
#[tokio::test]
async fn a_closed_server_ends() -> Result<()> {
    let folder = Folder::new("express-end")?;
    let store = Store::start(folder.path()).await?;
    let mut trial = kitchen(folder.path(), "server.cjs")?;
    trial.inject(&store).await?;
    trial.ends_when_asked().await
}

/// express-session answers users whether or not it could write.
#[tokio::test]
async fn what_is_written_while_the_store_is_away_is_there_when_it_is_back() -> Result<()> {
    let folder = Folder::new("express-away")?;
    let store = Store::start(folder.path()).await?;
    let mut trial = kitchen(folder.path(), "server.cjs")?;
    trial.inject(&store).await?;
    trial
        .while_it_runs(async || {
            let (mut ada, mut grace) = (trial.visitor()?, trial.visitor()?);
            // As a server that is lost with its node, for longer than an answer is waited for.
            store.signal("STOP").await?;
            let back = async {
                tokio::time::sleep(SILENT).await;
                store.signal("CONT").await
            };
            let (answer, back) = tokio::join!(trial.log_in(&mut ada, "ada"), back);
            back?;
            ensure!(answer?.status == 303);
            store.keys_of_ours(1).await?;
            // As one that has handed over, and whose client does not know it yet.
            store.ask(&["REPLICAOF", "127.0.0.1", "1"]).await?;
            let back = async {
                tokio::time::sleep(REFUSES).await;
                store.ask(&["REPLICAOF", "NO", "ONE"]).await
            };
            let (answer, back) = tokio::join!(trial.log_in(&mut grace, "grace"), back);
            back?;
            ensure!(answer?.status == 303);
            store.keys_of_ours(2).await.map(|_| ())
        })
        .await
}

/// A request that cannot write waits, and its user may have gone on meanwhile.
#[tokio::test]
async fn a_write_that_is_late_undoes_nothing_that_came_after_it() -> Result<()> {
    let folder = Folder::new("express-late")?;
    let store = Store::start(folder.path()).await?;
    let mut trial = kitchen(folder.path(), "server.cjs")?;
    trial.inject(&store).await?;
    trial
        .while_it_runs(async || {
            let mut ada = trial.visitor()?;
            trial.log_in(&mut ada, "ada").await?;
            let keys = store.keys_of_ours(1).await?;
            let key = keys.first().context("a session")?;
            store.ask(&["REPLICAOF", "127.0.0.1", "1"]).await?;
            // As if the user logged out at a pod that knows the present primary already.
            let logout = async {
                tokio::time::sleep(REFUSES).await;
                store.ask(&["CONFIG", "SET", "replica-read-only", "no"]).await?;
                store.ask(&["DEL", key]).await?;
                store.ask(&["REPLICAOF", "NO", "ONE"]).await
            };
            let (written, ended) = tokio::join!(trial.write(&mut ada, "ada"), logout);
            ended?;
            written?;
            let left = store.keys().await?;
            ensure!(left.is_empty(), "who has logged out is back: {left:?}");
            Ok(())
        })
        .await
}

#[tokio::test]
async fn memcached() -> Result<()> {
    let folder = Folder::new("express-memcached")?;
    let store = Memcached::start().await?;
    let mut trial = kitchen(folder.path(), "server.mjs")?;
    trial.ttl_seconds = Some(600);
    trial.run(&store).await
}

#[tokio::test]
async fn a_closed_server_ends_with_memcached() -> Result<()> {
    let folder = Folder::new("express-memcached-end")?;
    let store = Memcached::start().await?;
    let mut trial = kitchen(folder.path(), "server.cjs")?;
    trial.inject(&store).await?;
    trial.ends_when_asked().await
}

#[tokio::test]
async fn nobody_is_logged_out_because_memcached_is_away() -> Result<()> {
    let folder = Folder::new("express-memcached-away")?;
    let mut store = Memcached::start().await?;
    let mut trial = kitchen(folder.path(), "server.cjs")?;
    trial.inject(&store).await?;
    trial
        .while_it_runs(async || {
            let ended = trial.ask_with(SOMEBODY).await?;
            ensure!(ended.status == 200, "the session has ended: {ended:?}");
            store.stop().await?;
            for _ in 0..5 {
                let away = trial.ask_with(SOMEBODY).await?;
                ensure!(
                    away.status == 500,
                    "nobody knows whether the session has ended: {away:?}"
                );
            }
            let _store = store.start_again().await?;
            let back = trial.ask_with(SOMEBODY).await?;
            ensure!(back.status == 200, "it is not used again: {back:?}");
            Ok(())
        })
        .await
}

/// With options of the image, which have to stay in force.
#[tokio::test]
async fn an_es_module() -> Result<()> {
    let folder = Folder::new("express-esm")?;
    let store = Store::start(folder.path()).await?;
    let mut trial = kitchen(folder.path(), "server.mjs")?;
    trial
        .sandbox
        .image
        .insert("NODE_OPTIONS".to_owned(), "--title=kitchen".to_owned());
    trial.run(&store).await
}

#[tokio::test]
async fn without_a_preset_everybody_is_lost() -> Result<()> {
    let folder = Folder::new("express-none")?;
    kitchen(folder.path(), "server.mjs")?.run_without().await
}

/// An application with a store of its own keeps that: nothing arrives in ours.
#[tokio::test]
async fn a_store_of_the_application_is_left_alone() -> Result<()> {
    let folder = Folder::new("express-own")?;
    let store = Store::start(folder.path()).await?;
    let mut trial = kitchen(folder.path(), "own.cjs")?;
    fs::write(
        folder.path().join("kitchen/own.cjs"),
        "const session = require('express-session');
class Own extends session.MemoryStore {}
require('./kitchen.cjs')(require('express'), (options) => session({ ...options, store: new Own() }))
  .listen(Number(process.env.PORT), process.env.ADDRESS);
",
    )?;
    trial.inject(&store).await?;
    trial.run_without().await?;
    ensure!(
        store.keys().await?.is_empty(),
        "sessions are in a store that the application did not choose"
    );
    Ok(())
}

/// The application with its packages, in a folder of the test's own.
fn kitchen(folder: &Path, entry: &str) -> Result<Trial> {
    let app = folder.join("kitchen");
    fs::create_dir_all(&app)?;
    for file in ["kitchen.cjs", "server.cjs", "server.mjs"] {
        fs::copy(repository().join("e2e/apps/kitchen").join(file), app.join(file))?;
    }
    fs::create_dir_all(app.join("node_modules"))?;
    let mut sandbox = Sandbox::new(folder)
        .writable(&app, WORKDIR)
        .show(&packages()?, &format!("{WORKDIR}/node_modules"));
    sandbox.workdir = Some(WORKDIR.to_owned());
    let mut trial =
        Trial::new(Framework::Express, sandbox, "e2e/apps/kitchen/drill.yaml")?.server(&["node", entry]);
    let image = &mut trial.sandbox.image;
    image.insert("PORT".to_owned(), trial.port.to_string());
    image.insert("ADDRESS".to_owned(), "127.0.0.1".to_owned());
    Ok(trial)
}

/// Express and express-session, installed once for all tests.
fn packages() -> Result<PathBuf> {
    static INSTALLED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| install().map_err(|error| format!("{error:#}")));
    installed.clone().map_err(anyhow::Error::msg)
}

fn install() -> Result<PathBuf> {
    let folder = PathBuf::from(variable("FRAMEWORK_TEST_PACKAGES")?).join("kitchen");
    fs::create_dir_all(&folder)?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(
            repository().join("e2e/apps/kitchen").join(file),
            folder.join(file),
        )?;
    }
    let output = Command::new("npm")
        .args(["ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&folder)
        .output()
        .context("npm")?;
    ensure!(output.status.success(), "npm ci: {output:?}");
    Ok(folder.join("node_modules"))
}
