//! Looks at every server of a store, all at once and for a bounded time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod as CorePod;
use kube::ResourceExt;

use super::{Address, Member, Pod, Server, State};
use crate::store::build::{CONTAINER, PORT};
use crate::store::client::{Authority, Connection, Credentials, Endpoint, Failure, Password, Rights, open};
use crate::store::names::{Names, ROLE_LABEL};

/// Limit for one server's answer. It answers from memory; one that needs longer serves nobody.
pub const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// Label by which a StatefulSet's pods tell from which template they were made.
const REVISION_LABEL: &str = "controller-revision-hash";

/// How servers are reached, and as whom they follow each other.
#[derive(Clone, Debug)]
pub struct Access {
    /// The name that certificates are for.
    pub host: String,
    /// Who vouches for certificates; `None`: no TLS.
    pub tls: Option<Authority>,
    /// The operator's user; if a server does not know the first, it may know the second.
    pub credentials: Vec<Credentials>,
    /// Users of applications, and what they may do.
    pub users: Rights,
    /// Name of the user by which servers follow each other.
    pub follower: String,
    /// Its password.
    pub password: Password,
}

impl Access {
    /// A connection to a server as the operator.
    pub async fn connect(&self, address: &Address) -> Result<Connection, Failure> {
        let endpoint = Endpoint {
            host: self.host.clone(),
            port: address.port,
            address: Some(address.host.clone()),
            tls: self.tls.clone(),
        };
        let mut last = None;
        for credentials in &self.credentials {
            match open(&endpoint, credentials).await {
                Err(failure @ Failure::Authentication { .. }) => last = Some(failure),
                other => return other,
            }
        }
        Err(last.unwrap_or(Failure::Unreachable {
            server: endpoint.server(),
            cause: "no credentials".to_owned(),
        }))
    }
}

/// What servers are asked.
pub trait Answer: Sized + Send {
    /// Asks one.
    fn ask(connection: &mut Connection) -> impl Future<Output = Result<Self, Failure>> + Send;

    /// Ends what an operator that is gone may have left, before one is asked for the first time over a connection.
    fn settle(_: &mut Connection) -> impl Future<Output = Result<(), Failure>> + Send {
        std::future::ready(Ok(()))
    }
}

impl Answer for State {
    async fn ask(connection: &mut Connection) -> Result<Self, Failure> {
        state(connection).await
    }

    /// A replica that was to take over when its operator ended lets writes wait for ever, its primary's among them. First it has to
    /// refuse those of clients again.
    async fn settle(connection: &mut Connection) -> Result<(), Failure> {
        connection.refuse_writes_as_replica(true).await?;
        connection.release_writes().await
    }
}

/// Connections that are kept from one look to the next.
#[derive(Debug, Default)]
pub struct Connections(HashMap<String, (Address, Connection)>);

impl Connections {
    /// Forgets connections, as the way in has changed.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Asks servers, by name of their pods.
    pub async fn look<T: Answer>(
        &mut self,
        access: &Access,
        servers: &[(String, Address)],
    ) -> BTreeMap<String, Server<T>> {
        let looks = servers.iter().map(|(name, address)| {
            let kept = self
                .0
                .remove(name)
                .filter(|(known, _)| known == address)
                .map(|(_, connection)| connection);
            async move { (name, address, look(access, address, kept).await) }
        });
        let mut seen = BTreeMap::new();
        for (name, address, (server, connection)) in futures::future::join_all(looks).await {
            if let Some(connection) = connection {
                self.0.insert(name.clone(), (address.clone(), connection));
            }
            seen.insert(name.clone(), server);
        }
        seen
    }
}

async fn look<T: Answer>(
    access: &Access,
    address: &Address,
    kept: Option<Connection>,
) -> (Server<T>, Option<Connection>) {
    if address.host.is_empty() {
        return (Server::Down, None);
    }
    tokio::time::timeout(LOOK_TIMEOUT, ask(access, address, kept))
        .await
        .unwrap_or_else(|_| {
            (
                Server::Silent(format!("no answer within {} s", LOOK_TIMEOUT.as_secs())),
                None,
            )
        })
}

async fn ask<T: Answer>(
    access: &Access,
    address: &Address,
    kept: Option<Connection>,
) -> (Server<T>, Option<Connection>) {
    // A connection that broke since the last look tells nothing of the server that is there now.
    if let Some(mut connection) = kept
        && let Ok(answer) = T::ask(&mut connection).await
    {
        return (Server::Answers(answer), Some(connection));
    }
    let answer = async {
        let mut connection = access.connect(address).await?;
        T::settle(&mut connection).await?;
        let answer = T::ask(&mut connection).await?;
        Ok::<_, Failure>((answer, connection))
    };
    match answer.await {
        Ok((answer, connection)) => (Server::Answers(answer), Some(connection)),
        Err(Failure::Unreachable { .. }) => (Server::Down, None),
        Err(failure) => (Server::Silent(failure.explain()), None),
    }
}

/// What a server says of itself.
pub async fn state(connection: &mut Connection) -> Result<State, Failure> {
    let info = connection.info().await?;
    State::from_info(&info).ok_or_else(|| connection.nonsense("INFO"))
}

/// The servers that there are or are to be, without what they answer.
pub fn members(
    names: &Names,
    servers: usize,
    pods: &BTreeMap<usize, Arc<CorePod>>,
    set: Option<&StatefulSet>,
    has_volume: impl Fn(usize) -> bool,
) -> Vec<Member> {
    let count = pods
        .keys()
        .next_back()
        .map_or(servers, |last| servers.max(last + 1));
    let revision = set.and_then(current_revision);
    (0..count)
        .filter(|ordinal| *ordinal < servers || pods.contains_key(ordinal))
        .map(|ordinal| {
            let name = names.member(ordinal);
            let pod = pods.get(&ordinal);
            Member {
                pod: pod.map(|pod| facts(pod, revision)).unwrap_or_default(),
                address: Address {
                    host: pod
                        .and_then(|pod| pod.status.as_ref()?.pod_ip.clone())
                        .unwrap_or_default(),
                    port: PORT,
                    announced: names.member_host(&name),
                },
                server: Server::Down,
                leaving: ordinal >= servers,
                volume: has_volume(ordinal),
                name,
            }
        })
        .collect()
}

/// The revision that pods are to be made from, once the StatefulSet's controller has seen the present template.
pub fn current_revision(set: &StatefulSet) -> Option<&str> {
    let status = set.status.as_ref()?;
    (status.observed_generation >= set.metadata.generation)
        .then_some(status.update_revision.as_deref())
        .flatten()
}

/// What is known of a pod. `revision` is the one that it is to be made from, if that is known.
pub fn facts(pod: &CorePod, revision: Option<&str>) -> Pod {
    let labels = pod.labels();
    let status = pod.status.as_ref();
    let container = status
        .into_iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .find(|container| container.name == CONTAINER);
    let running = container.is_some_and(|container| {
        container
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some())
    });
    Pod {
        uid: pod.uid(),
        started: running || container.is_some_and(|container| container.restart_count > 0),
        running,
        terminating: pod.metadata.deletion_timestamp.is_some(),
        outdated: revision.is_some_and(|revision| {
            labels
                .get(REVISION_LABEL)
                .is_some_and(|made_from| made_from != revision)
        }),
        label: labels.get(ROLE_LABEL).cloned(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(change: impl FnOnce(&mut serde_json::Value)) -> Arc<CorePod> {
        let mut pod = json!({
            "metadata": {"name": "larder-1", "uid": "u-1", "labels": {"controller-revision-hash": "larder-b"}},
            "spec": {"containers": [], "nodeName": "node2"},
            "status": {
                "podIP": "10.0.0.7",
                "containerStatuses": [{
                    "name": "server", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}
                }]
            }
        });
        change(&mut pod);
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn set(observed_generation: i64) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "larder", "generation": 2},
            "status": {"replicas": 2, "observedGeneration": observed_generation, "updateRevision": "larder-b"}
        }))
        .unwrap()
    }

    fn member_of(pod: Arc<CorePod>, set: &StatefulSet) -> Member {
        let names = Names::new("kitchen", "larder");
        let mut members = members(&names, 2, &[(1, pod)].into(), Some(set), |_| false);
        assert_eq!(members.len(), 2);
        assert_eq!(
            members[0].pod,
            Pod::default(),
            "the first is not there, and asked for"
        );
        members.remove(1)
    }

    #[test]
    fn a_member_is_what_its_pod_says() {
        let member = member_of(pod(|_| {}), &set(2));
        assert_eq!(
            member.pod,
            Pod {
                uid: Some("u-1".to_owned()),
                started: true,
                running: true,
                terminating: false,
                outdated: false,
                label: None,
                node: Some("node2".to_owned()),
            }
        );
        assert_eq!(member.address.host, "10.0.0.7");
        assert_eq!(member.address.announced, "larder-1.larder-members.kitchen.svc");
    }

    #[test]
    fn a_pod_is_outdated_once_the_present_template_has_its_revision() {
        let old = || {
            pod(|pod| {
                pod["metadata"]["labels"] =
                    json!({"controller-revision-hash": "larder-a", "session-operator.dev/role": "primary"});
            })
        };
        let member = member_of(old(), &set(2));
        assert!(member.pod.outdated);
        assert_eq!(member.pod.label.as_deref(), Some("primary"));
        assert!(
            !member_of(old(), &set(1)).pod.outdated,
            "the template is not looked at yet"
        );
    }

    #[test]
    fn a_server_that_waits_to_be_started_again_has_run_and_does_not_run() {
        let waiting = pod(|pod| {
            let status = &mut pod["status"]["containerStatuses"][0];
            status["restartCount"] = json!(1);
            status["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        });
        let member = member_of(waiting, &set(2));
        assert!(member.pod.started && !member.pod.running);
        let pending = pod(|pod| pod["status"] = json!({"phase": "Pending"}));
        let member = member_of(pending, &set(2));
        assert!(!member.pod.started && !member.pod.running && member.address.host.is_empty());
    }

    #[test]
    fn servers_that_are_to_go_are_looked_at_until_they_are_gone() {
        let names = Names::new("kitchen", "larder");
        let pods = [(0, pod(|_| {})), (2, pod(|_| {}))].into();
        let members = members(&names, 2, &pods, None, |ordinal| ordinal == 2);
        let told: Vec<_> = members
            .iter()
            .map(|member| (member.name.as_str(), member.leaving, member.volume))
            .collect();
        assert_eq!(
            told,
            [
                ("larder-0", false, false),
                ("larder-1", false, false),
                ("larder-2", true, true)
            ]
        );
    }
}
