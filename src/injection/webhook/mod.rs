//! The mutating webhook for API servers without MutatingAdmissionPolicy (Kubernetes before 1.36).
//!
//! Every replica serves it, leader or not: [`review`] answers from the object that the pod's label names, [`server`]
//! speaks TLS, [`keys`] says what the certificate has to be when, and [`rotation`] puts that into effect: a Secret that
//! all replicas read, and the authority in the webhook's configuration. Only the leader writes either.

mod keys;
mod review;
mod rotation;
mod server;

use std::sync::Arc;

use self::keys::Timing;
use self::rotation::Rotation;
use self::server::{ServingKey, serve};
use crate::runtime::args::WebhookArgs;
use crate::runtime::{Runtime, http};

/// Why the webhook ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port cannot be had.
    #[error("cannot listen on port {port} for the webhook: {source}; choose another one by --webhook-port")]
    Bind {
        /// The port.
        port: u16,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A part of the webhook panicked.
    #[error("a task of the webhook failed: {0}")]
    Task(#[source] tokio::task::JoinError),
}

/// Serves the webhook until some seconds after shutdown is requested; without a port, does nothing until then.
/// `namespace` is that of the Secret, if not the client's own.
pub async fn run(runtime: Runtime, args: WebhookArgs, namespace: Option<String>) -> Result<(), Error> {
    let shutdown = runtime.shutdown.clone();
    let (Some(port), Some(configuration), Some(secret)) =
        (args.webhook_port, args.webhook_configuration, args.webhook_secret)
    else {
        shutdown.requested().await;
        return Ok(());
    };
    let namespace = namespace.unwrap_or_else(|| runtime.client.default_namespace().to_owned());
    let listener = http::bind(port)
        .await
        .map_err(|source| Error::Bind { port, source })?;
    let key = Arc::new(ServingKey::default());
    let rotation = Rotation {
        client: runtime.client.clone(),
        leadership: runtime.leadership.clone(),
        namespace,
        secret,
        configuration,
        names: args.webhook_names,
        timing: Timing::of(args.webhook_certificate_seconds),
        key: key.clone(),
    };
    let awaited = runtime.readiness.wait_for("certificate of the webhook");
    let mut rotating = tokio::spawn(rotation.run(awaited));
    let router = review::router(runtime.client.clone());
    let ended = tokio::select! {
        () = serve(listener, key, router, shutdown.requested()) => Ok(()),
        ended = &mut rotating => match ended {
            Ok(never) => match never {},
            Err(error) => Err(Error::Task(error)),
        },
    };
    rotating.abort();
    ended
}
