//! Arguments of the operator. Each can also be given as an environment variable.
//!
//! The variables have a long prefix because Kubernetes sets variables such as `HTTP_PORT` in every pod of a namespace
//! that has a Service named `http`.

use clap::{Args, Parser, Subcommand};

use super::Scope;
use super::telemetry::LogArgs;
use crate::store::settings::StoreArgs;

/// Sets up session affinity around existing Deployments, as session policies say.
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
    /// Fail if a session policy still needs the operator to undo it (for the chart's pre-delete hook)
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
        env = "SESSION_OPERATOR_WATCH_NAMESPACES",
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
        long, env = "SESSION_OPERATOR_LEADER_ELECT", value_name = "BOOL", action = clap::ArgAction::Set,
        default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true
    )]
    pub leader_elect: bool,

    /// Namespace of the lease [default: the pod's own, or the kubeconfig's]
    #[arg(long, env = "SESSION_OPERATOR_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Name of the lease
    #[arg(
        long,
        env = "SESSION_OPERATOR_LEASE_NAME",
        value_name = "NAME",
        default_value = "session-operator"
    )]
    pub lease_name: String,

    /// Name of this replica in the lease and in Events; a random suffix is added [default: the name of the pod or the host]
    #[arg(long, env = "SESSION_OPERATOR_IDENTITY", value_name = "NAME")]
    pub identity: Option<String>,

    /// Port for /livez, /readyz and /metrics, on all addresses
    #[arg(
        long,
        env = "SESSION_OPERATOR_HTTP_PORT",
        value_name = "PORT",
        default_value_t = 8080
    )]
    pub http_port: u16,

    /// What is put into pods.
    #[command(flatten)]
    pub injection: InjectionArgs,

    /// The webhook.
    #[command(flatten)]
    pub webhook: WebhookArgs,

    /// Stores.
    #[command(flatten)]
    pub stores: StoreArgs,
}

/// What is put into pods.
#[derive(Args, Clone, Debug)]
pub struct InjectionArgs {
    /// Image with the files that framework presets bring into pods
    #[arg(
        long,
        env = "SESSION_OPERATOR_AGENTS_IMAGE",
        value_name = "IMAGE",
        default_value = concat!("session-agents:", env!("CARGO_PKG_VERSION"))
    )]
    pub agents_image: String,

    /// Image of the sidecar that keeps sessions in pods
    #[arg(
        long,
        env = "SESSION_OPERATOR_REPLICATOR_IMAGE",
        value_name = "IMAGE",
        default_value = concat!("session-replicator:", env!("CARGO_PKG_VERSION"))
    )]
    pub replicator_image: String,

    /// Pull policy of these images [default: the API server's]
    #[arg(
        long,
        env = "SESSION_OPERATOR_AGENTS_IMAGE_PULL_POLICY",
        value_name = "POLICY"
    )]
    pub agents_image_pull_policy: Option<String>,

    /// Secrets with the credentials for that image, in the namespace of each application, separated by commas
    #[arg(
        long,
        env = "SESSION_OPERATOR_AGENTS_PULL_SECRETS",
        value_name = "NAME,…",
        value_delimiter = ','
    )]
    pub agents_pull_secrets: Vec<String>,
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

/// Arguments of the webhook that injects into pods.
#[derive(Args, Clone, Debug)]
pub struct WebhookArgs {
    /// Port of the webhook that injects into pods, on all addresses [default: no webhook]
    #[arg(
        long, env = "SESSION_OPERATOR_WEBHOOK_PORT", value_name = "PORT",
        requires_all = ["webhook_configuration", "webhook_secret", "webhook_names"]
    )]
    pub webhook_port: Option<u16>,

    /// MutatingWebhookConfiguration that leads to the webhook
    #[arg(long, env = "SESSION_OPERATOR_WEBHOOK_CONFIGURATION", value_name = "NAME")]
    pub webhook_configuration: Option<String>,

    /// Secret for the webhook's key, in the namespace of the lease
    #[arg(long, env = "SESSION_OPERATOR_WEBHOOK_SECRET", value_name = "NAME")]
    pub webhook_secret: Option<String>,

    /// DNS names by which the API server reaches the webhook
    #[arg(
        long,
        env = "SESSION_OPERATOR_WEBHOOK_NAMES",
        value_name = "NAME,…",
        value_delimiter = ','
    )]
    pub webhook_names: Vec<String>,

    /// Life of the webhook's certificate in seconds; it is replaced when two thirds have passed
    #[arg(
        long, env = "SESSION_OPERATOR_WEBHOOK_CERTIFICATE_SECONDS", value_name = "SECONDS",
        default_value_t = 90 * 24 * 60 * 60, value_parser = clap::value_parser!(u32).range(20..)
    )]
    pub webhook_certificate_seconds: u32,
}

/// Arguments of `self-test`.
#[derive(Args, Clone, Debug)]
pub struct SelfTestArgs {
    /// Where the operator acts.
    #[command(flatten)]
    pub scope: ScopeArgs,

    /// Namespace of the lease [default: the pod's own, or the kubeconfig's]
    #[arg(long, env = "SESSION_OPERATOR_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Name of the lease
    #[arg(
        long,
        env = "SESSION_OPERATOR_LEASE_NAME",
        value_name = "NAME",
        default_value = "session-operator"
    )]
    pub lease_name: String,

    /// MutatingWebhookConfiguration that leads to the operator's webhook [default: there is no webhook]
    #[arg(long, env = "SESSION_OPERATOR_WEBHOOK_CONFIGURATION", value_name = "NAME")]
    pub webhook_configuration: Option<String>,

    /// Secret for the webhook's key, in the namespace of the lease
    #[arg(long, env = "SESSION_OPERATOR_WEBHOOK_SECRET", value_name = "NAME")]
    pub webhook_secret: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["session-operator"], arguments].concat())
    }

    #[test]
    fn definitions_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_the_default_and_takes_the_same_arguments() {
        let bare = parse(&["--namespaces=b,a,b", "--http-port=81", "--log-format=json"]).unwrap();
        assert!(bare.command.is_none());
        let Some(Command::Run(explicit)) =
            parse(&["run", "--namespaces=b,a,b", "--http-port=81", "--log-format=json"])
                .unwrap()
                .command
        else {
            panic!("run is a subcommand");
        };
        for run in [&bare.run, &explicit] {
            assert_eq!(
                run.scope(),
                Scope::Namespaces(vec!["a".to_owned(), "b".to_owned()])
            );
            assert_eq!(run.http_port, 81);
            assert!(run.leader_elect);
        }
    }

    #[test]
    fn no_namespace_means_all() {
        assert_eq!(parse(&[]).unwrap().run.scope(), Scope::All);
        assert_eq!(parse(&["--namespaces="]).unwrap().run.scope(), Scope::All);
        assert_eq!(
            parse(&["--namespaces= a ,"]).unwrap().run.scope(),
            Scope::Namespaces(vec!["a".to_owned()])
        );
    }

    #[test]
    fn leader_election_is_switched_off_by_value() {
        for (arguments, expected) in [(&["--leader-elect=false"], false), (&["--leader-elect"], true)] {
            assert_eq!(
                parse(arguments).unwrap().run.leader_elect,
                expected,
                "{arguments:?}"
            );
        }
        assert!(parse(&["--leader-elect=maybe"]).is_err());
    }

    #[test]
    fn identities_differ_even_with_the_same_name() {
        let run = parse(&["--identity=pod-1"]).unwrap().run;
        let (first, second) = (run.identity(), run.identity());
        assert!(first.starts_with("pod-1_") && second.starts_with("pod-1_"));
        assert_ne!(first, second);
    }
}
