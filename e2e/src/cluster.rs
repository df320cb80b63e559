//! The running test cluster: a client for its API, and the verbs of `e2e/cluster/cluster`.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use session_operator::drill::Report;
use tokio::process::Command;

/// The `NodePort` of Traefik, the same on every node.
pub const TRAEFIK_PORT: u16 = 30080;

/// NodePort of the Traefik that reads ingress-nginx annotations, the same on every node.
pub const TRAEFIK_NGINX_PORT: u16 = 30082;

/// `NodePort` of the Envoy that Contour configures, the same on every node.
pub const CONTOUR_PORT: u16 = 30084;

/// A running cluster.
#[derive(Clone)]
pub struct Cluster {
    /// Client with the rights of an administrator.
    pub client: kube::Client,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Folder with what the cluster's processes write, among it `audit.log`.
    pub logs: PathBuf,
}

impl Cluster {
    /// The cluster that `CLUSTER_SUFFIX` names.
    ///
    /// # Errors
    /// When it is not up.
    pub async fn running() -> Result<Self> {
        // `env` prints shell lines; a shell takes their quotes off.
        let script = r#"eval "$("$0" env)" && printf '%s\n' "$KUBECONFIG" "$CLUSTER_LOGS""#;
        let printed = output(Command::new("bash").arg("-euc").arg(script).arg(entry_point())).await?;
        let mut lines = printed.lines();
        let (Some(kubeconfig), Some(logs)) = (lines.next(), lines.next()) else {
            bail!("`cluster env` printed no KUBECONFIG or no CLUSTER_LOGS");
        };
        Ok(Self {
            client: client(Path::new(kubeconfig)).await?,
            kubeconfig: PathBuf::from(kubeconfig),
            logs: PathBuf::from(logs),
        })
    }

    /// Runs a verb of the cluster's script and gives what it prints on standard output.
    ///
    /// # Errors
    /// When it fails; the error has what it printed.
    pub async fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        output(Command::new(entry_point()).args(arguments)).await
    }

    /// A loopback address that leads to a port of the cluster's first node.
    pub async fn expose(&self, port: u16) -> Result<SocketAddr> {
        let address = self.run(["expose", &port.to_string()]).await?;
        address
            .trim()
            .parse()
            .with_context(|| format!("`cluster expose {port}` printed {address:?}"))
    }

    /// Runs the drill's program inside a node's network, for tests in which the client's address matters.
    /// `program` is its path, for tests `env!("CARGO_BIN_EXE_drill")`; `arguments` are its own, without `--json`.
    pub async fn drill_from(&self, node: &str, program: &str, arguments: &[&str]) -> Result<Report> {
        let mut all = vec!["exec-net", node, program, "--json"];
        all.extend(arguments);
        let json = self.run(all).await?;
        serde_json::from_str(&json).context("the drill's report is not readable")
    }
}

/// A client from a kubeconfig file.
async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let read =
        Kubeconfig::read_from(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
    let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

fn entry_point() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/cluster")
}

async fn output(command: &mut Command) -> Result<String> {
    let ended = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let ended = ended.with_context(|| format!("cannot start {command:?}"))?;
    if !ended.status.success() {
        let errors = String::from_utf8_lossy(&ended.stderr);
        bail!(
            "{:?} failed ({}): {}",
            command.as_std(),
            ended.status,
            errors.trim()
        );
    }
    Ok(String::from_utf8(ended.stdout)?)
}
