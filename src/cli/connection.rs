//! Which cluster and namespace: the flags that every kubectl plugin has.

use std::path::PathBuf;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::runtime::client;
use crate::runtime::leader::Leadership;
use crate::runtime::metrics::Metrics;

/// How the plugin names itself to the API server.
const USER_AGENT: &str = concat!("kubectl-session/", env!("CARGO_PKG_VERSION"));

/// Which cluster and namespace.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Kubeconfig file [default: $KUBECONFIG, or ~/.kube/config]
    #[arg(long, value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig [default: the current one]
    #[arg(long, value_name = "NAME", global = true)]
    pub context: Option<String>,

    /// Namespace [default: that of the context]
    #[arg(short, long, value_name = "NAME", global = true)]
    pub namespace: Option<String>,
}

impl ConnectionArgs {
    /// A client with the user's rights. Its default namespace is the one that was asked for.
    pub async fn client(&self) -> Result<Client, client::Error> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let mut config = match (&self.kubeconfig, &self.context) {
            (Some(file), _) => Config::from_custom_kubeconfig(Kubeconfig::read_from(file)?, &options).await?,
            (None, Some(_)) => Config::from_kubeconfig(&options).await?,
            (None, None) => client::infer_config().await?,
        };
        if let Some(namespace) = &self.namespace {
            config.default_namespace.clone_from(namespace);
        }
        // There is no election among users.
        client::build(config, USER_AGENT, &Metrics::new(), Leadership::unlimited())
    }
}
