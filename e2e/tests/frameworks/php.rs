//! The shop on the three servers of PHP, with phpredis as Debian packages it.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use session_operator::api::session_policy::Framework;

use crate::memcached::Memcached;
use crate::sandbox::Sandbox;
use crate::store::{Place, Store};
use crate::trial::{Folder, Trial, repository};

const DRILL: &str = "e2e/apps/shop/drill.yaml";

/// The shop's code where its image has it, and folders to write to.
fn sandbox(folder: &Path) -> Result<Sandbox> {
    Sandbox::new(folder)
        .show(&repository().join("e2e/apps/shop"), "/srv/shop")
        .scratch("/run/apache2")?
        .scratch("/var/lib/php/sessions")
}

#[tokio::test]
async fn the_built_in_server() -> Result<()> {
    let folder = Folder::new("php-cli")?;
    let store = Store::start(folder.path()).await?;
    let mut trial = built_in(folder.path())?;
    trial.ttl_seconds = Some(600);
    trial.run(&store).await
}

#[tokio::test]
async fn without_a_preset_everybody_is_lost() -> Result<()> {
    let folder = Folder::new("php-none")?;
    let mut trial = built_in(folder.path())?;
    // A new pod has empty folders; here the new process gets another one each time.
    trial.servers = vec![
        ["sh", "-c", &format!(
            "mkdir /tmp/sessions && exec php -d session.save_path=/tmp/sessions -S 127.0.0.1:{} -t /srv/shop/public",
            trial.port
        )]
        .map(str::to_owned)
        .to_vec(),
    ];
    trial.run_without().await
}

fn built_in(folder: &Path) -> Result<Trial> {
    let trial = Trial::new(Framework::Php, sandbox(folder)?, DRILL)?;
    Ok(trial.server(&["php", "-S", "127.0.0.1:PORT", "-t", "/srv/shop/public"]))
}

#[tokio::test]
async fn a_module_of_apache_with_ini_folders_of_the_container() -> Result<()> {
    let folder = Folder::new("php-apache")?;
    let store = Store::start(folder.path()).await?;
    let mut sandbox = sandbox(folder.path())?;
    sandbox.container = serde_json::from_value(serde_json::json!({
        "name": "web", "env": [{"name": "PHP_INI_SCAN_DIR", "value": ":/run/apache2"}],
    }))?;
    let trial = Trial::new(Framework::Php, sandbox, DRILL)?;
    let trial = apache(trial, folder.path(), |config| config)?;
    trial.run(&store).await
}

/// An application that shows its warnings, as with the official images, and does not look whether its session started.
#[tokio::test]
async fn the_password_is_on_no_page_while_the_store_is_away() -> Result<()> {
    let folder = Folder::new("php-warning")?;
    let store = Store::start(folder.path()).await?;
    let page = folder.path().join("page.php");
    fs::write(&page, "<?php session_start(); echo 'a page';")?;
    fs::create_dir(folder.path().join("ini"))?;
    fs::write(folder.path().join("ini/own.ini"), "display_errors = On\n")?;
    let mut sandbox = sandbox(folder.path())?
        .show(&page, "/srv/page.php")
        .show(&folder.path().join("ini"), "/srv/ini");
    sandbox.container = serde_json::from_value(serde_json::json!({
        "name": "web", "env": [{"name": "PHP_INI_SCAN_DIR", "value": ":/srv/ini"}],
    }))?;
    let mut trial =
        Trial::new(Framework::Php, sandbox, DRILL)?.server(&["php", "-S", "127.0.0.1:PORT", "/srv/page.php"]);
    trial.inject(&store).await?;
    drop(store);
    let shown = trial.page().await?;
    ensure!(
        shown.contains("a page") && !shown.contains("auth"),
        "the page says: {shown}"
    );
    Ok(())
}

/// As Debian sets it up: workers without the master's environment.
#[tokio::test]
async fn fpm_behind_apache() -> Result<()> {
    let folder = Folder::new("php-fpm")?;
    let store = Store::start(folder.path()).await?;
    fpm(folder.path())?.run(&store).await
}

#[tokio::test]
async fn memcached_under_the_built_in_server() -> Result<()> {
    let folder = Folder::new("php-memcached")?;
    let store = Memcached::start().await?;
    let mut trial = built_in(folder.path())?;
    trial.ttl_seconds = Some(600);
    trial.run(&store).await?;
    // Locks go with their requests.
    let left = store.keys_of_ours(0).await?;
    ensure!(left.iter().all(|key| !key.contains(":lock.")), "{left:?}");
    ensure!(
        store.count("cmd_touch").await? > 0,
        "what is read only is prolonged"
    );
    Ok(())
}

#[tokio::test]
async fn memcached_under_fpm() -> Result<()> {
    let folder = Folder::new("php-memcached-fpm")?;
    let store = Memcached::start().await?;
    fpm(folder.path())?.run(&store).await
}

/// With workers without the master's environment.
fn fpm(folder: &Path) -> Result<Trial> {
    fs::write(
        folder.join("fpm.conf"),
        "[global]\nerror_log = /dev/stderr\n[www]\nlisten = /run/apache2/fpm\npm = static\npm.max_children = 4\nclear_env = yes\n",
    )?;
    let sandbox = sandbox(folder)?.show(&folder.join("fpm.conf"), "/srv/fpm.conf");
    let trial = Trial::new(Framework::Php, sandbox, DRILL)?.server(&[
        "php-fpm8.2",
        "--nodaemonize",
        "--fpm-config",
        "/srv/fpm.conf",
    ]);
    apache(trial, folder, |config| {
        config
            .replace(
                "LoadModule php_module modules/libphp8.2.so",
                "LoadModule proxy_module modules/mod_proxy.so\nLoadModule proxy_fcgi_module modules/mod_proxy_fcgi.so",
            )
            .replace(
                "SetHandler application/x-httpd-php",
                "SetHandler \"proxy:unix:/run/apache2/fpm|fcgi://localhost\"",
            )
    })
}

/// Apache with the shop's own configuration, on another port.
fn apache(mut trial: Trial, folder: &Path, change: impl FnOnce(String) -> String) -> Result<Trial> {
    let config = fs::read_to_string(repository().join("e2e/apps/shop/apache/httpd.conf"))?;
    let config = change(config.replace("Listen 8080", &format!("Listen 127.0.0.1:{}", trial.port)));
    let file = folder.join("httpd.conf");
    fs::write(&file, config)?;
    trial.sandbox = trial.sandbox.show(&file, "/srv/httpd.conf");
    Ok(trial.server(&["apache2", "-f", "/srv/httpd.conf", "-D", "FOREGROUND"]))
}
