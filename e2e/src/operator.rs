//! The operator that is installed.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use tokio::time::sleep;

use crate::Cluster;
use crate::wait::eventually;

/// Its release, namespace, Deployment and lease are all called so.
pub const NAME: &str = "session-operator";

/// A renewal of the lease so much later is none of a former leader's.
const RENEWED: Duration = Duration::from_secs(1);

/// How long it may take until an operator leads: a lease, and a container that is started again with a pause.
const LEADER_LIMIT: Duration = Duration::from_mins(2);

/// By then it has looked at every store, and said what it saw.
const LOOKED: Duration = Duration::from_secs(4);

/// Waits until a replica leads after this moment and has looked at all stores: until then status says what the former one saw.
///
/// # Errors
/// When that does not come about in time.
pub async fn leads(cluster: &Cluster) -> Result<()> {
    let since = jiff::Timestamp::now() + RENEWED;
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), NAME);
    eventually("an operator to lead", LEADER_LIMIT, || async {
        let spec = leases.get(NAME).await?.spec.unwrap_or_default();
        let is_new = spec.renew_time.as_ref().is_some_and(|time| time.0 > since);
        Ok(if is_new { Ok(()) } else { Err(spec) })
    })
    .await?;
    sleep(LOOKED).await;
    Ok(())
}
