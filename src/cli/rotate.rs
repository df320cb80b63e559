//! `rotate`: asks for other passwords or certificates of a store, and waits until only these are good.

use std::time::{Duration, Instant};

use clap::Args;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::{CliError, ConnectionArgs, output};
use crate::api::session_store::{Engine, Rotation, RotationPhase, StoreTls};
use crate::api::{ROTATE_CERTIFICATES_ANNOTATION, ROTATE_PASSWORDS_ANNOTATION, SessionStore};

/// Pause between looks at the rotation.
const PERIOD: Duration = Duration::from_secs(1);

/// Arguments of `rotate`.
#[derive(Args, Debug)]
pub struct RotateArgs {
    /// Name of the SessionStore; of one that was made for a policy, POLICY-sessions
    name: String,

    /// Rotate the store's authority and certificate instead of passwords
    #[arg(long)]
    certificates: bool,

    /// Do not wait until it is over
    #[arg(long)]
    no_wait: bool,

    /// Longest wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    timeout: u64,
}

/// Asks for a rotation, and watches it.
pub async fn run(args: &RotateArgs, connection: &ConnectionArgs) -> Result<(), CliError> {
    let client = connection.client().await?;
    let stores: Api<SessionStore> = Api::default_namespaced(client.clone());
    let store = read(&client, &stores, &args.name).await?;
    if store.spec.engine == Engine::Memcached {
        return Err(format!(
            "SessionStore {} has neither passwords nor certificates, as its spec.engine is Memcached",
            args.name
        )
        .into());
    }
    if args.certificates && store.spec.tls == StoreTls::Disabled {
        return Err(format!(
            "SessionStore {} has no certificates, as its spec.tls is Disabled",
            args.name
        )
        .into());
    }
    let request = jiff::Timestamp::now().to_string();
    let (name, what) = if args.certificates {
        (ROTATE_CERTIFICATES_ANNOTATION, "certificates")
    } else {
        (ROTATE_PASSWORDS_ANNOTATION, "passwords")
    };
    let annotation = json!({"metadata": {"annotations": {name: request}}});
    stores
        .patch(&args.name, &PatchParams::default(), &Patch::Merge(&annotation))
        .await
        .map_err(|error| super::status::explain(&error))?;
    eprintln!("{}: {what} are rotated", args.name);
    if args.no_wait {
        return Ok(());
    }
    wait(&client, &stores, args, &request).await
}

async fn read(client: &Client, stores: &Api<SessionStore>, name: &str) -> Result<SessionStore, CliError> {
    let found = stores
        .get_opt(name)
        .await
        .map_err(|error| super::status::explain(&error))?;
    found.ok_or_else(|| {
        let namespace = client.default_namespace();
        format!("SessionStore {name} does not exist in namespace {namespace}; see kubectl get sessionstores")
            .into()
    })
}

async fn wait(
    client: &Client,
    stores: &Api<SessionStore>,
    args: &RotateArgs,
    request: &str,
) -> Result<(), CliError> {
    let begun = Instant::now();
    let mut said = String::new();
    loop {
        let store = read(client, stores, &args.name).await?;
        let rotation = store
            .status
            .and_then(|status| status.rotation)
            .unwrap_or_default();
        let rotation = if args.certificates {
            rotation.certificates
        } else {
            rotation.passwords
        };
        let (done, sentence) = progress(rotation.as_ref(), request);
        if sentence != said {
            eprintln!("{}", output::printable(&format!("{}: {sentence}", args.name)));
            said = sentence;
        }
        if done {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(args.timeout) {
            return Err(format!(
                "the rotation is not over after {} s; it goes on, see status.rotation of SessionStore {}",
                args.timeout, args.name
            )
            .into());
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Whether it is over, and a sentence about how far it is.
fn progress(rotation: Option<&Rotation>, request: &str) -> (bool, String) {
    let Some(rotation) = rotation.filter(|rotation| rotation.request == request) else {
        return (false, "waiting for the operator".to_owned());
    };
    let sentence = match (rotation.phase, &rotation.waits_for) {
        (RotationPhase::Finished, _) => "done: only the new ones are good".to_owned(),
        (phase, Some(waits_for)) => format!("{phase:?}: {waits_for}"),
        (phase, None) => format!("{phase:?}"),
    };
    (rotation.phase == RotationPhase::Finished, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_rotation_is_not_taken_for_this_one() {
        let rotation = |phase| Rotation {
            request: "now".to_owned(),
            phase,
            started_at: String::new(),
            finished_at: None,
            waits_for: Some("a pod".to_owned()),
        };
        let over = rotation(RotationPhase::Finished);
        assert!(progress(Some(&over), "now").0);
        assert!(!progress(Some(&over), "later").0);
        assert!(!progress(None, "now").0);
        let (done, sentence) = progress(Some(&rotation(RotationPhase::Replacing)), "now");
        assert_eq!((done, sentence.as_str()), (false, "Replacing: a pod"));
    }
}
