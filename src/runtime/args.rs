//! Arguments of the operator. Each can also be given as an environment variable.

use clap::{Args, Parser, Subcommand};

use super::Scope;
use super::telemetry::LogArgs;

/// Sets up session affinity around existing Deployments, as `SessionPolicies` say.
#[derive(Debug, Parser)]
#[command(name = "session-operator", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Arguments of `run`, which is what happens without a subcommand.
    #[command(flatten)]
    pub run: RunArgs,

    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator (the default)
    Run(RunArgs),
    /// Print the custom resource definitions as YAML
    Crds,
    /// Fail if a `SessionPolicy` still needs the operator to undo it (for the chart's pre-delete hook)
    PreDeleteCheck(ScopeArgs),
    /// Check that the installation works: custom resources, permissions, validation (for `helm test`)
    SelfTest(SelfTestArgs),
}

/// Where to look.
#[derive(Args, Clone, Debug, Default)]
pub struct ScopeArgs {
    /// Namespaces to act in, separated by commas; none = all
    #[arg(
        long,
        env = "WATCH_NAMESPACES",
        value_name = "NAMESPACE,…",
        value_delimiter = ','
    )]
    pub namespaces: Vec<String>,
}

impl ScopeArgs {
    /// The namespaces, sorted and without duplicates.
    pub fn scope(&self) -> Scope {
        let mut namespaces: Vec<String> = self
            .namespaces
            .iter()
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        namespaces.sort();
        namespaces.dedup();
        if namespaces.is_empty() {
            Scope::All
        } else {
            Scope::Namespaces(namespaces)
        }
    }
}

/// Arguments of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Where to act.
    #[command(flatten)]
    pub scope: ScopeArgs,

    /// Elect a leader among the replicas; only the leader writes. Without election there must never be two processes
    #[arg(
        long, env = "LEADER_ELECT", value_name = "BOOL", action = clap::ArgAction::Set,
        default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true
    )]
    pub leader_elect: bool,

    /// Namespace of the lease [default: the pod's own, or the kubeconfig's]
    #[arg(long, env = "LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Name of the lease
    #[arg(
        long,
        env = "LEASE_NAME",
        value_name = "NAME",
        default_value = "session-operator"
    )]
    pub lease_name: String,

    /// Name of this replica in the lease and in Events; a random suffix is added [default: `POD_NAME` or the host name]
    #[arg(long, env = "IDENTITY", value_name = "NAME")]
    pub identity: Option<String>,

    /// Port for /livez, /readyz and /metrics, on all addresses
    #[arg(long, env = "HTTP_PORT", value_name = "PORT", default_value_t = 8080)]
    pub http_port: u16,
}

impl RunArgs {
    /// The namespaces to act in.
    pub fn scope(&self) -> Scope {
        self.scope.scope()
    }

    /// This process' name, unlike that of any other, also of the one that ran before in the same pod: that
    /// one's lease must not be taken for ours.
    pub fn identity(&self) -> String {
        let base = self
            .identity
            .clone()
            .or_else(|| std::env::var("POD_NAME").ok())
            .or_else(host_name)
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "session-operator".to_owned());
        format!("{base}_{:08x}", fastrand::u32(..))
    }
}

/// The host's name, which in a pod is the pod's.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned())
}

/// Arguments of `self-test`.
#[derive(Args, Clone, Debug)]
pub struct SelfTestArgs {
    /// Where the operator acts.
    #[command(flatten)]
    pub scope: ScopeArgs,

    /// Namespace of the lease [default: the pod's own, or the kubeconfig's]
    #[arg(long, env = "LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Name of the lease
    #[arg(
        long,
        env = "LEASE_NAME",
        value_name = "NAME",
        default_value = "session-operator"
    )]
    pub lease_name: String,
}
