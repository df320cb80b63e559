//! The library under gunicorn, under an ASGI server, and under manage.py.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use session_operator::api::session_policy::Framework;

use crate::memcached::Memcached;
use crate::sandbox::{Sandbox, variable};
use crate::store::Store;
use crate::trial::{Folder, Trial, repository};

const WORKDIR: &str = "/srv/library";
const PACKAGES: &str = "/srv/packages";

#[tokio::test]
async fn gunicorn_with_settings_that_wsgi_py_names() -> Result<()> {
    let folder = Folder::new("django-gunicorn")?;
    let store = Store::start(folder.path()).await?;
    let mut trial = library(folder.path())?.server(&served(
        "-m gunicorn --bind 127.0.0.1:PORT --workers 2 --worker-tmp-dir /tmp library.wsgi",
    ));
    trial.ttl_seconds = Some(600);
    trial.run(&store).await
}

#[tokio::test]
async fn an_asgi_server_with_settings_of_the_container() -> Result<()> {
    let folder = Folder::new("django-asgi")?;
    let store = Store::start(folder.path()).await?;
    let mut trial = library(folder.path())?.server(&served(
        "-m uvicorn --host 127.0.0.1 --port PORT library.asgi:application",
    ));
    trial.sandbox.container = serde_json::from_value(json!({
        "name": "web",
        "env": [
            {"name": "DJANGO_SETTINGS_MODULE", "value": "library.settings"},
            {"name": "PYTHONPATH", "value": PACKAGES},
        ],
    }))?;
    trial.sandbox.image.remove("PYTHONPATH");
    trial.run(&store).await
}

#[tokio::test]
async fn manage_py_with_settings_of_the_policy() -> Result<()> {
    let folder = Folder::new("django-manage")?;
    let store = Store::start(folder.path()).await?;
    let mut trial = library(folder.path())?.server(&served("manage.py runserver --noreload 127.0.0.1:PORT"));
    trial.settings_module = Some("library.settings".to_owned());
    trial.run(&store).await
}

/// Django's own engine logs users out while the store does not answer; see `agents/django`.
#[tokio::test]
async fn nobody_is_logged_out_because_the_store_is_away() -> Result<()> {
    let folder = Folder::new("django-away")?;
    let store = Store::start(folder.path()).await?;
    let mut trial = library(folder.path())?.server(&served(
        "-m gunicorn --bind 127.0.0.1:PORT --workers 1 --worker-tmp-dir /tmp library.wsgi",
    ));
    trial.inject(&store).await?;
    let cookie = "sessionid=abcdefghijklmnopqrstuvwxyz012345";
    let ended = trial.answer_to(cookie).await?;
    ensure!(
        ended.status == 200 && ended.headers.contains_key("set-cookie"),
        "the session has ended, and so does the cookie: {ended:?}"
    );
    drop(store);
    let away = trial.answer_to(cookie).await?;
    ensure!(
        away.status == 500 && !away.headers.contains_key("set-cookie"),
        "nobody knows whether the session has ended: {away:?}"
    );
    Ok(())
}

#[tokio::test]
async fn memcached() -> Result<()> {
    let folder = Folder::new("django-memcached")?;
    let store = Memcached::start().await?;
    let mut trial = library(folder.path())?.server(&served(
        "-m gunicorn --bind 127.0.0.1:PORT --workers 2 --threads 2 --worker-tmp-dir /tmp library.wsgi",
    ));
    trial.ttl_seconds = Some(600);
    trial.run(&store).await
}

/// pymemcache can take a server that did not answer a moment ago for one that has nothing.
#[tokio::test]
async fn nobody_is_logged_out_because_memcached_is_away() -> Result<()> {
    let folder = Folder::new("django-memcached-away")?;
    let mut store = Memcached::start().await?;
    let mut trial = library(folder.path())?.server(&served(
        "-m gunicorn --bind 127.0.0.1:PORT --workers 1 --worker-tmp-dir /tmp library.wsgi",
    ));
    trial.inject(&store).await?;
    let cookie = "sessionid=abcdefghijklmnopqrstuvwxyz012345";
    trial
        .while_it_runs(async || {
            let ended = trial.ask_with(cookie).await?;
            ensure!(
                ended.status == 200 && ended.headers.contains_key("set-cookie"),
                "the session has ended, and so does the cookie: {ended:?}"
            );
            store.stop().await?;
            for _ in 0..5 {
                let away = trial.ask_with(cookie).await?;
                ensure!(
                    away.status == 500 && !away.headers.contains_key("set-cookie"),
                    "nobody knows whether the session has ended: {away:?}"
                );
            }
            let _store = store.start_again().await?;
            let back = trial.ask_with(cookie).await?;
            ensure!(back.status == 200, "it is not used again: {back:?}");
            Ok(())
        })
        .await
}

#[tokio::test]
async fn without_a_preset_everybody_is_lost() -> Result<()> {
    let folder = Folder::new("django-none")?;
    let trial = library(folder.path())?.server(&served("manage.py runserver --noreload 127.0.0.1:PORT"));
    trial.run_without().await
}

/// As in the image: the database is made when the container starts, and with another one it is empty.
fn served(server: &str) -> [&str; 4] {
    [
        "sh",
        "-c",
        "python3 manage.py migrate --verbosity 0 && exec python3 $0",
        server,
    ]
}

/// The application with its packages where its image has them.
fn library(folder: &Path) -> Result<Trial> {
    let mut sandbox = Sandbox::new(folder)
        .show(&repository().join("e2e/apps/library"), WORKDIR)
        .show(&packages()?, PACKAGES);
    sandbox.workdir = Some(WORKDIR.to_owned());
    for (name, value) in [
        ("PYTHONPATH", PACKAGES),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        // Gone with its process, as an emptyDir is with its pod.
        ("LIBRARY_DATA", "/tmp"),
    ] {
        sandbox.image.insert(name.to_owned(), value.to_owned());
    }
    Trial::new(Framework::Django, sandbox, "e2e/apps/library/drill.yaml")
}

/// Django and its servers, installed once for all tests.
fn packages() -> Result<PathBuf> {
    static INSTALLED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| install().map_err(|error| format!("{error:#}")));
    installed.clone().map_err(anyhow::Error::msg)
}

fn install() -> Result<PathBuf> {
    let folder = PathBuf::from(variable("FRAMEWORK_TEST_PACKAGES")?).join("library");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let output = Command::new("pip3")
        .args([
            "--disable-pip-version-check",
            "--quiet",
            "install",
            "--require-hashes",
            "--no-deps",
            "--target",
        ])
        .arg(&folder)
        .arg("--requirement")
        .arg(repository().join("e2e/apps/library/requirements.txt"))
        .output()
        .context("pip3")?;
    ensure!(output.status.success(), "pip3 install: {output:?}");
    Ok(folder)
}
