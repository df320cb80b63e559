//! What a server says of itself and of the others: `CLUSTER NODES`, `CLUSTER INFO` and `INFO`
//! (<https://valkey.io/commands/cluster-nodes/>).

use std::collections::BTreeMap;

use super::slots::Slots;
use crate::store::replication::info::Link;
use crate::store::replication::{Role, State as Replication};

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct State {
    /// The name by which the others know it. It stays as long as the file in which the server keeps it.
    pub id: String,
    /// Random name of the process.
    pub run: String,
    /// Everybody that it knows, itself included.
    pub nodes: Vec<Node>,
    /// Whether it serves: it is not cut off from most primaries.
    pub serves: bool,
    /// Its connection to its primary; nothing in it if it is one itself.
    pub link: Link,
    /// How far it is in the history of changes, in bytes.
    pub offset: i64,
    /// Keys that it holds.
    pub keys: i64,
    /// Bytes in use.
    pub used: i64,
    /// Bytes at which it refuses writes.
    pub max: i64,
    /// Whether it still reads its data from its volume, or those that its primary sent.
    pub loading: bool,
    /// Whether it cannot write to its volume. A primary then refuses writes.
    pub disk_failed: bool,
    /// Whether it has got everything from a primary since its process started.
    pub warm: bool,
    /// Whether it lets further clients in.
    pub admits: bool,
    /// Whether it moves slots to another server as a whole.
    pub moves_whole: bool,
    /// Whether it does so now.
    pub is_exporting: bool,
    /// Why it could not do so the last time.
    pub export_failed: Option<String>,
}

/// The least that `maxclients` may be set to: those that are there already are more.
pub const FEWEST_CLIENTS: i64 = 1;

/// The first version of Valkey that moves slots as a whole (`CLUSTER MIGRATESLOTS`).
const MOVES_WHOLE: u32 = 9;

/// A server as another one knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Node {
    /// Its name.
    pub id: String,
    /// Its address.
    pub ip: String,
    /// Its port.
    pub port: u16,
    /// The port at which servers talk to each other.
    pub bus: u16,
    /// The name that it announces.
    pub host: String,
    /// Whether it is the one that says this.
    pub myself: bool,
    /// Whether it is not known yet: the name is none that it has given itself.
    pub handshake: bool,
    /// Whether most of the others take it for failed.
    pub failed: bool,
    /// Whom it follows.
    pub primary: Option<String>,
    /// Age of what it says of slots: of two that claim the same one, the newer one is right.
    pub epoch: i64,
    /// Slots that it serves.
    pub slots: Slots,
    /// Slots that it gives away, each with who is to get it. Told by the server itself only.
    pub migrating: Vec<(u16, String)>,
    /// Slots that it is to get, each with who has it. Told by the server itself only.
    pub importing: Vec<(u16, String)>,
}

/// Whether a server moves slots as a whole, by what it says of its version.
pub fn moves_whole(info: &BTreeMap<String, String>) -> bool {
    let version = info.get("valkey_version");
    version
        .and_then(|version| version.split('.').next()?.parse::<u32>().ok())
        .is_some_and(|major| major >= MOVES_WHOLE)
}

impl State {
    /// Reads the answers to `CLUSTER NODES`, `CLUSTER INFO` and `INFO`. Nothing if they do not say who the server is.
    pub fn read(nodes: &str, cluster: &str, info: &BTreeMap<String, String>) -> Option<Self> {
        let nodes: Vec<Node> = nodes.lines().filter_map(Node::read).collect();
        let id = nodes.iter().find(|node| node.myself)?.id.clone();
        let replication = Replication::from_info(info)?;
        let number = |name: &str| info.get(name).and_then(|value| value.parse::<i64>().ok());
        let serves = cluster.lines().any(|line| line.trim() == "cluster_state:ok");
        let warm = replication.is_warm();
        Some(Self {
            id,
            run: replication.run,
            nodes,
            serves,
            link: match replication.role {
                Role::Primary => Link::default(),
                Role::Replica(link) => link,
            },
            offset: replication.offset,
            keys: replication.keys,
            admits: number("maxclients").is_none_or(|most| most > FEWEST_CLIENTS),
            moves_whole: moves_whole(info),
            is_exporting: false,
            export_failed: None,
            used: number("used_memory").unwrap_or_default(),
            max: number("maxmemory").unwrap_or_default(),
            loading: replication.loading,
            disk_failed: replication.disk_failed,
            warm,
        })
    }

    /// What it says of itself.
    pub fn myself(&self) -> Option<&Node> {
        self.nodes.iter().find(|node| node.myself)
    }

    /// What it says of another one.
    pub fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id && !node.handshake)
    }

    /// Whom it follows.
    pub fn primary(&self) -> Option<&str> {
        self.myself()?.primary.as_deref()
    }

    /// Whether it follows somebody, who may be gone.
    pub fn is_replica(&self) -> bool {
        self.primary().is_some()
    }

    /// Slots that it says it serves.
    pub fn slots(&self) -> Slots {
        self.myself().map(|node| node.slots.clone()).unwrap_or_default()
    }

    /// Whether it knows nobody and has nothing.
    pub fn is_blank(&self) -> bool {
        self.nodes.len() == 1 && self.keys == 0 && !self.is_replica() && self.slots().is_empty()
    }
}

impl Node {
    /// Reads a line: `ID IP:PORT@BUS[,HOST[,…]] FLAGS PRIMARY PING PONG EPOCH LINK SLOT…`.
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let mut node = Self {
            id: words.next()?.to_owned(),
            ..Self::default()
        };
        let mut address = words.next()?.split(',');
        let (ip, port) = address.next()?.rsplit_once(':')?;
        ip.clone_into(&mut node.ip);
        let (port, bus) = port.split_once('@')?;
        node.port = port.parse().ok()?;
        node.bus = bus.parse().ok()?;
        address.next().unwrap_or_default().clone_into(&mut node.host);
        for flag in words.next()?.split(',') {
            match flag {
                "myself" => node.myself = true,
                "handshake" => node.handshake = true,
                "fail" => node.failed = true,
                _ => {}
            }
        }
        node.primary = words.next().filter(|primary| *primary != "-").map(str::to_owned);
        let mut words = words.skip(2);
        node.epoch = words.next()?.parse().ok()?;
        // Whether it is connected; that says little, see `meet`.
        words.next()?;
        for slots in words {
            if let Some(moved) = slots.strip_prefix('[').and_then(|slots| slots.strip_suffix(']')) {
                if let Some((slot, to)) = moved.split_once("->-") {
                    node.migrating.push((slot.parse().ok()?, to.to_owned()));
                } else if let Some((slot, from)) = moved.split_once("-<-") {
                    node.importing.push((slot.parse().ok()?, from.to_owned()));
                }
                continue;
            }
            let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
            node.slots
                .add(&Slots::of([first.parse().ok()?..=last.parse().ok()?]));
        }
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Valkey 9.1 and Redis 7.0 print it.
    const NODES: &str = "\
        aa 10.0.0.1:6379@16379,larder-0-0.larder-members.kitchen.svc,,shard-id=x myself,master - 0 0 3 connected 0-5460 5470 [93->-bb] [77-<-cc]\n\
        bb 10.0.0.2:6379@16379,larder-1-0.larder-members.kitchen.svc slave,fail cc 1 2 2 disconnected\n\
        cc fd00::5:6379@16379 master,fail? - 1 2 2 connected 5471-16383\n\
        dd 10.0.0.9:6379@16379 handshake - 1 0 0 disconnected\n";

    #[test]
    fn nodes_are_read() {
        let info = BTreeMap::from([("role".to_owned(), "master".to_owned())]);
        let state = State::read(NODES, "cluster_state:ok\r\n", &info).unwrap();
        assert_eq!(state.id, "aa");
        assert!(state.serves && !state.is_replica() && !state.is_blank());
        assert_eq!(state.slots().to_string(), "0-5460,5470");
        let myself = state.myself().unwrap();
        assert_eq!(
            (&myself.migrating, &myself.importing),
            (&vec![(93, "bb".to_owned())], &vec![(77, "cc".to_owned())])
        );
        let other = state.node("bb").unwrap();
        assert!(other.failed && other.primary.as_deref() == Some("cc"));
        assert_eq!(other.host, "larder-1-0.larder-members.kitchen.svc");
        let third = state.node("cc").unwrap();
        let told = (third.ip.as_str(), third.port, third.bus, third.failed);
        assert_eq!(told, ("fd00::5", 6379, 16379, false));
        assert_eq!(state.node("dd"), None, "it is not known yet");
    }

    #[test]
    fn who_does_not_say_who_it_is_says_nothing() {
        let info = BTreeMap::from([("role".to_owned(), "master".to_owned())]);
        assert_eq!(State::read("", "", &info), None);
    }
}
