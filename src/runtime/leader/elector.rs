//! Drives an [`Election`] against the API server.

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::election::{Attempt, Election, LossReason, ReadOutcome, Step, Timing, WriteOutcome};
use super::{LEASE_REQUEST_TIMEOUT, Leadership, Term};
use crate::runtime::client::explain;

/// The election ended against our will. The process has to end, too.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No renewal succeeded within the renew deadline.
    #[error("lost leadership: lease {lease} could not be renewed within {} s", super::RENEW_DEADLINE.as_secs())]
    NotRenewed {
        /// namespace/name of the lease.
        lease: String,
    },
    /// The record names another holder.
    #[error("lost leadership: lease {lease} is held by {holder}")]
    TakenOver {
        /// namespace/name of the lease.
        lease: String,
        /// Identity in the record.
        holder: String,
    },
}

/// A candidate for a Lease.
#[derive(Debug)]
pub struct Elector {
    leases: Api<Lease>,
    display_name: String,
    election: Election,
    term: watch::Sender<Term>,
    leading: bool,
}

impl Elector {
    /// A candidate with its own identity for the lease `namespace/name`, and the handle that tells whether it leads.
    ///
    /// `identity` must differ between all processes that ever compete, also between one and its successor after a
    /// restart. `client` must be able to write while not leading.
    pub fn new(client: kube::Client, namespace: &str, name: &str, identity: &str) -> (Self, Leadership) {
        let (term, receiver) = watch::channel(Term::None);
        let elector = Self {
            leases: Api::namespaced(client, namespace),
            display_name: format!("{namespace}/{name}"),
            election: Election::new(name, identity, Timing::default()),
            term,
            leading: false,
        };
        (elector, Leadership { term: receiver })
    }

    /// Competes and renews until `release` is cancelled (then gives the lease back and returns `Ok`) or
    /// leadership is lost.
    pub async fn run(mut self, release: CancellationToken) -> Result<(), Error> {
        loop {
            match self.election.step(Instant::now(), jiff::Timestamp::now()) {
                // Only between requests: a renewal that is still under way would compete with the release.
                Step::SleepUntil(until) => tokio::select! {
                    () = release.cancelled() => {
                        self.give_back().await;
                        return Ok(());
                    }
                    () = tokio::time::sleep_until(until) => {}
                },
                Step::Read => self.read().await,
                Step::Write(attempt) => {
                    self.write(&attempt).await;
                    self.publish();
                }
                Step::Lost(reason) => {
                    self.term.send_replace(Term::None);
                    return Err(self.error(reason));
                }
            }
        }
    }

    async fn read(&mut self) {
        let started = Instant::now();
        let outcome = match timeout(LEASE_REQUEST_TIMEOUT, self.leases.get_opt(self.election.name())).await {
            Ok(Ok(Some(lease))) => ReadOutcome::Found(Box::new(lease)),
            Ok(Ok(None)) => ReadOutcome::Absent,
            Ok(Err(error)) => {
                tracing::warn!(
                    lease = self.display_name,
                    error = explain(&error),
                    "cannot read the lease"
                );
                ReadOutcome::Failed
            }
            Err(_) => {
                tracing::warn!(lease = self.display_name, "timeout while reading the lease");
                ReadOutcome::Failed
            }
        };
        self.election.on_read(outcome, started, Instant::now());
    }

    async fn write(&mut self, attempt: &Attempt) {
        // Counted from before the request: the API server cannot have stored it earlier.
        let started = Instant::now();
        let outcome = match timeout(LEASE_REQUEST_TIMEOUT, self.send(attempt)).await {
            Ok(Ok(lease)) => WriteOutcome::Accepted(Box::new(lease)),
            Ok(Err(kube::Error::Api(status)))
                // A create that is not found misses its namespace.
                if status.code == 409 || (status.code == 404 && matches!(attempt, Attempt::Replace(_))) =>
            {
                WriteOutcome::LostRace
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    lease = self.display_name,
                    error = explain(&error),
                    "cannot write the lease"
                );
                WriteOutcome::Failed
            }
            Err(_) => {
                tracing::warn!(lease = self.display_name, "timeout while writing the lease");
                WriteOutcome::Failed
            }
        };
        self.election.on_write(outcome, started, Instant::now());
    }

    async fn send(&self, attempt: &Attempt) -> kube::Result<Lease> {
        let params = PostParams::default();
        match attempt {
            Attempt::Create(lease) => self.leases.create(&params, lease).await,
            Attempt::Replace(lease) => self.leases.replace(self.election.name(), &params, lease).await,
        }
    }

    fn publish(&mut self) {
        let Some(until) = self.election.lead_until() else {
            return;
        };
        self.term.send_replace(Term::Until(until));
        if !self.leading {
            self.leading = true;
            tracing::info!(lease = self.display_name, "leading");
        }
    }

    /// Empties the holder, so that the next leader need not wait for the lease to run out.
    async fn give_back(&mut self) {
        self.term.send_replace(Term::None);
        let Some(record) = self.election.release(jiff::Timestamp::now()) else {
            return;
        };
        match timeout(LEASE_REQUEST_TIMEOUT, self.send(&Attempt::Replace(record))).await {
            Ok(Ok(_)) => tracing::info!(lease = self.display_name, "released the lease"),
            Ok(Err(error)) => {
                tracing::warn!(
                    lease = self.display_name,
                    error = explain(&error),
                    "cannot release the lease; it will run out"
                );
            }
            Err(_) => tracing::warn!(
                lease = self.display_name,
                "timeout while releasing the lease; it will run out"
            ),
        }
    }

    fn error(&self, reason: LossReason) -> Error {
        let lease = self.display_name.clone();
        match reason {
            LossReason::NotRenewed => Error::NotRenewed { lease },
            LossReason::TakenOver => Error::TakenOver {
                lease,
                holder: self.election.observed_holder().unwrap_or("nobody").to_owned(),
            },
        }
    }
}
