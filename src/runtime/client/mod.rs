//! The client to the API server: who we say we are, how long requests may take, and who may write.

mod limits;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::client::ClientBuilder;
use kube::{Client, Config};

pub use limits::{LimitedBody, LimitsLayer, LimitsService, RequestError, is_not_leader};

use super::leader::Leadership;
use super::metrics::{ApiRequestsLayer, Metrics};

/// Limit for a connection to the API server to be made: it is near, and a request about the lease, which may have to
/// connect first, has 5 s in all.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a kubeconfig nor a service account.
    #[error(
        "no way to reach a cluster: set KUBECONFIG to a kubeconfig file, or run in a pod with a service account token"
    )]
    Infer(#[from] kube::config::InferConfigError),
    /// The kubeconfig names something that is not in it, or cannot be read.
    #[error("cannot use the kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// TLS or authentication cannot be set up.
    #[error("cannot set up the client for the API server: {0}")]
    Build(#[source] kube::Error),
}

/// Settings from the environment: kubeconfig, or the pod's service account.
pub async fn infer_config() -> Result<Config, Error> {
    Ok(Config::infer().await?)
}

/// A client for `config` that says it is `user_agent`, counts its requests, limits each in time, and refuses to write
/// unless `leadership` is held.
///
/// The gate is here, below everything that writes, so that no code can forget to ask. Retries on 429, 503 and 504
/// are kube's own; the time limit bounds them.
pub fn build(
    mut config: Config,
    user_agent: &'static str,
    metrics: &Metrics,
    leadership: Leadership,
) -> Result<Client, Error> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config
        .headers
        .push((USER_AGENT, HeaderValue::from_static(user_agent)));
    let client = ClientBuilder::try_from(config)
        .map_err(Error::Build)?
        .with_layer(&LimitsLayer::new(leadership))
        .with_layer(&ApiRequestsLayer::new(metrics.clone()))
        .build();
    Ok(client)
}

/// Whether the API server says that something does not exist: an object, or the kind itself.
///
/// By the code and not by the reason: for a path that it does not serve, an API server answers with a page of text.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// What a person should read of an error: the API server's own sentence where there is one.
pub fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("the API server answered: {}", status.message),
        error => format!("the API server could not be asked: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_page_of_text_is_not_found_as_well() {
        // As kube reports an API group that is not served.
        let page = Status::failure("404 page not found", "Failed to parse error data").with_code(404);
        let object = Status::failure("sessionpolicies \"x\" not found", "NotFound").with_code(404);
        let conflict = Status::failure("changed", "Conflict").with_code(409);
        for (status, expected) in [(page, true), (object, true), (conflict, false)] {
            assert_eq!(
                is_not_found(&kube::Error::Api(status.clone().boxed())),
                expected,
                "{status:?}"
            );
        }
        let conflict = kube::Error::Api(Status::failure("changed", "Conflict").with_code(409).boxed());
        assert_eq!(explain(&conflict), "the API server answered: changed");
    }
}
