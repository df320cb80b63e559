//! Puts the parts of a running operator together.

use kube::{Client, Config};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::args::{InjectionArgs, RunArgs};
use super::http::{self, Readiness, Served};
use super::leader::{Elector, Leadership};
use super::metrics::Metrics;
use super::shutdown::{Shutdown, Signals};
use super::{client, leader};
use crate::api::{GROUP, VERSION};
use crate::store::settings::StoreArgs;

/// How the operator names itself to the API server.
const USER_AGENT: &str = concat!("session-operator/", env!("CARGO_PKG_VERSION"));

/// Pause between looks whether the custom resource is served yet.
const CRD_POLL_PERIOD: std::time::Duration = std::time::Duration::from_secs(2);

/// Resource name of a `SessionPolicy` in discovery.
const POLICIES: &str = "sessionpolicies";

/// What controllers run on. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    /// Client to the API server. Refuses writes while this replica does not lead.
    pub client: Client,
    /// Whether this replica leads.
    pub leadership: Leadership,
    /// Metrics.
    pub metrics: Metrics,
    /// What /readyz waits for.
    pub readiness: Readiness,
    /// The request to stop.
    pub shutdown: Shutdown,
    /// Namespaces to act in.
    pub scope: Scope,
    /// Name of this replica, as in the lease; for the reporter of Events.
    pub identity: String,
    /// What is put into pods.
    pub injection: InjectionArgs,
    /// Whether a webhook of the operator injects it.
    pub webhook: bool,
    /// What the installation says about stores.
    pub stores: StoreArgs,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("scope", &self.scope)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Namespaces in which policies are looked for and objects are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All namespaces; needs a `ClusterRole`.
    All,
    /// These only, sorted and without duplicates; needs a Role in each.
    Namespaces(Vec<String>),
}

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum Error<E: std::error::Error + 'static> {
    /// There is no client.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// Signal handlers cannot be registered.
    #[error("cannot register signal handlers: {0}")]
    Signals(#[source] std::io::Error),
    /// The port for probes and metrics cannot be had.
    #[error(
        "cannot listen on port {port} for probes and metrics: {source}; choose another one by --http-port"
    )]
    Bind {
        /// The port.
        port: u16,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The HTTP server stopped.
    #[error("the server for probes and metrics stopped: {0}")]
    Http(#[source] std::io::Error),
    /// Leadership is lost.
    #[error(transparent)]
    Leader(leader::Error),
    /// A task of the runtime panicked.
    #[error("a task of the runtime failed: {0}")]
    Task(#[source] JoinError),
    /// The controllers failed.
    #[error(transparent)]
    Controllers(E),
    /// The controllers ended although nobody asked them to.
    #[error("the controllers ended without being asked to")]
    ControllersEnded,
    /// Reconciles did not end in time after the request to stop.
    #[error("reconciles did not end within {} s of the request to stop", super::shutdown::SHUTDOWN_TIMEOUT.as_secs())]
    ShutdownOverdue,
    /// A second signal came.
    #[error("stopped at once by a second signal")]
    Interrupted,
}

/// Runs the operator until it is asked to stop or cannot go on. `controllers` runs all controllers and returns after
/// [`Shutdown::requested`], when the reconciles under way have ended.
///
/// Every error means that the process has to end; it does not write any more when this returns.
pub async fn run<F, E>(args: RunArgs, controllers: impl FnOnce(Runtime) -> F) -> Result<(), Error<E>>
where
    F: Future<Output = Result<(), E>>,
    E: std::error::Error + 'static,
{
    let signals = Signals::register().map_err(Error::Signals)?;
    let listener = http::bind(args.http_port).await.map_err(|source| Error::Bind {
        port: args.http_port,
        source,
    })?;
    let (elector, runtime) = set_up(&args, client::infer_config().await?)?;
    let mut server = tokio::spawn(http::serve(
        listener,
        Served {
            readiness: runtime.readiness.clone(),
            metrics: runtime.metrics.clone(),
            leadership: runtime.leadership.clone(),
        },
    ));
    let shutdown = runtime.shutdown.clone();
    let release = CancellationToken::new();
    // In tasks of their own, so that neither waits while a reconcile computes.
    let mut election = tokio::spawn(elect(elector, release.clone()));

    let outcome = tokio::select! {
        biased;
        ended = &mut election => return Err(election_error(ended).unwrap_or(Error::ControllersEnded)),
        stopped = &mut server => Err(match stopped {
            Ok(Err(error)) => Error::Http(error),
            Ok(Ok(())) => Error::Http(std::io::ErrorKind::NotConnected.into()),
            Err(error) => Error::Task(error),
        }),
        () = shutdown.listen(signals) => Err(Error::Interrupted),
        () = shutdown.overdue() => Err(Error::ShutdownOverdue),
        ended = work(runtime, controllers) => match ended {
            Err(error) => Err(Error::Controllers(error)),
            Ok(()) if shutdown.is_requested() => Ok(()),
            Ok(()) => Err(Error::ControllersEnded),
        },
    };
    // Whatever the reason: the controllers are gone now, so the lease can go to somebody else at once.
    release.cancel();
    let released = election_error(election.await).map_or(Ok(()), Err);
    server.abort();
    outcome.and(released)
}

/// Makes what controllers run on, and the candidate for the lease if there is an election.
fn set_up(args: &RunArgs, config: Config) -> Result<(Option<Elector>, Runtime), client::Error> {
    let metrics = Metrics::new();
    let identity = args.identity();
    let scope = args.scope();
    let lease_namespace = args
        .lease_namespace
        .as_deref()
        .unwrap_or(&config.default_namespace);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        identity,
        ?scope,
        lease = format!("{lease_namespace}/{}", args.lease_name),
        leader_elect = args.leader_elect,
        "starting"
    );
    let (elector, leadership) = if args.leader_elect {
        // The elector writes before it leads; its client is the only one without the gate.
        let ungated = client::build(config.clone(), USER_AGENT, &metrics, Leadership::unlimited())?;
        let (elector, leadership) = Elector::new(ungated, lease_namespace, &args.lease_name, &identity);
        (Some(elector), leadership)
    } else {
        (None, Leadership::unlimited())
    };
    let runtime = Runtime {
        client: client::build(config, USER_AGENT, &metrics, leadership.clone())?,
        leadership,
        metrics,
        readiness: Readiness::default(),
        shutdown: Shutdown::default(),
        scope,
        identity,
        injection: args.injection.clone(),
        webhook: args.webhook.webhook_port.is_some(),
        stores: args.stores.clone(),
    };
    Ok((elector, runtime))
}

/// Holds the election until `release`; without a candidate only waits for that.
async fn elect(elector: Option<Elector>, release: CancellationToken) -> Result<(), leader::Error> {
    if let Some(elector) = elector {
        elector.run(release).await
    } else {
        release.cancelled().await;
        Ok(())
    }
}

/// The error with which the election ended, if any.
fn election_error<E>(ended: Result<Result<(), leader::Error>, JoinError>) -> Option<Error<E>>
where
    E: std::error::Error + 'static,
{
    match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(Error::Leader(error)),
        Err(error) => Some(Error::Task(error)),
    }
}

/// Waits for the custom resource, then runs the controllers.
async fn work<F, E>(runtime: Runtime, controllers: impl FnOnce(Runtime) -> F) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
{
    let crd = runtime
        .readiness
        .wait_for(format!("custom resource {POLICIES}.{GROUP}"));
    tokio::select! {
        () = runtime.shutdown.requested() => return Ok(()),
        () = established(&runtime.client) => crd.arrived(),
    }
    controllers(runtime).await
}

/// Resolves when the API server serves `SessionPolicies`: discovery lists a custom resource once it is established, and
/// everybody may read discovery.
async fn established(client: &Client) {
    let mut told = false;
    loop {
        match serves_policies(client).await {
            Ok(true) => return,
            Ok(false) if !told => {
                told = true;
                tracing::warn!(
                    "the custom resource {POLICIES}.{GROUP}/{VERSION} is not served; waiting for it to be installed"
                );
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(
                error = client::explain(&error),
                "cannot read which resources the API server serves"
            ),
        }
        tokio::time::sleep(CRD_POLL_PERIOD).await;
    }
}

/// Whether the API server serves `SessionPolicies` in our version.
pub async fn serves_policies(client: &Client) -> kube::Result<bool> {
    match client
        .list_api_group_resources(&format!("{GROUP}/{VERSION}"))
        .await
    {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == POLICIES)),
        Err(error) if client::is_not_found(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
