//! What a server says of itself: `INFO`.

use std::collections::BTreeMap;

/// Least offset of a replica that has ever got something from a primary: one that has not says 0 or 1.
const SYNCED_OFFSET: i64 = 2;

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is told by itself")]
pub struct State {
    /// What it is.
    pub role: Role,
    /// Random name of the process.
    pub run: String,
    /// Name of the history of changes that it has, and of the one before a change of primary.
    pub history: [String; 2],
    /// How far in that history it is, in bytes.
    pub offset: i64,
    /// How far it has got what it has not looked at yet, as writes are held; the same as `offset` of one that follows nobody.
    pub received: i64,
    /// Keys that it holds.
    pub keys: i64,
    /// Whether it still reads its data from its volume, or those that its primary sent.
    pub loading: bool,
    /// Whether it cannot write to its volume. A primary then refuses writes.
    pub disk_failed: bool,
    /// Whether it is handing over to a replica just now.
    pub handing_over: bool,
    /// Whether it takes writes only while replicas confirm that they hear it; see [`super::guard`].
    pub guarded: bool,
    /// Host and port of each replica that is connected and has everything, as the server knows it.
    pub replicas: Vec<(String, u16)>,
}

/// What a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows another one.
    Replica(Link),
}

/// A replica's connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Whom it follows.
    pub host: String,
    /// Port of that one.
    pub port: u16,
    /// Whether it is connected.
    pub up: bool,
    /// Whether it is being sent everything.
    pub syncing: bool,
    /// Seconds since it last heard from it; -1 while it is not connected.
    pub silent: i64,
    /// Seconds since it lost it; -1 while it is connected, or never was.
    pub down_for: i64,
}

impl State {
    /// Reads the fields of `INFO`.
    pub fn from_info(info: &BTreeMap<String, String>) -> Option<Self> {
        let text = |name: &str| info.get(name).cloned().unwrap_or_default();
        let number = |name: &str| info.get(name).and_then(|value| value.parse::<i64>().ok());
        let role = match info.get("role")?.as_str() {
            "master" => Role::Primary,
            _ => Role::Replica(Link {
                host: text("master_host"),
                port: number("master_port")
                    .and_then(|port| u16::try_from(port).ok())
                    .unwrap_or_default(),
                up: text("master_link_status") == "up",
                syncing: number("master_sync_in_progress") == Some(1),
                silent: number("master_last_io_seconds_ago").unwrap_or(-1),
                down_for: number("master_link_down_since_seconds").unwrap_or(-1),
            }),
        };
        let offset = match role {
            Role::Primary => number("master_repl_offset"),
            Role::Replica(_) => number("slave_repl_offset"),
        };
        let received = match role {
            Role::Primary => None,
            Role::Replica(_) => number("slave_read_repl_offset"),
        };
        Some(Self {
            role,
            run: text("run_id"),
            history: [text("master_replid"), text("master_replid2")],
            offset: offset.unwrap_or_default(),
            received: received.or(offset).unwrap_or_default(),
            keys: keys(info),
            loading: number("loading") == Some(1),
            disk_failed: disk_failed(info),
            handing_over: info
                .get("master_failover_state")
                .is_some_and(|state| state != "no-failover"),
            // Told only then.
            guarded: info.contains_key("min_slaves_good_slaves"),
            replicas: replicas(info),
        })
    }

    /// Whether it has got everything from a primary since its process started.
    pub fn is_warm(&self) -> bool {
        self.offset >= SYNCED_OFFSET
    }

    /// Whether it is in the history `name`, or was before the last change of primary.
    pub fn is_of(&self, name: Option<&str>) -> bool {
        name.is_some_and(|name| self.history.iter().any(|known| known == name))
    }
}

/// Whether the last write to the append-only file failed.
pub fn disk_failed(info: &BTreeMap<String, String>) -> bool {
    info.get("aof_last_write_status")
        .is_some_and(|status| status != "ok")
}

/// Keys of all databases: `db0:keys=3,expires=3,avg_ttl=0`.
fn keys(info: &BTreeMap<String, String>) -> i64 {
    info.iter()
        .filter(|(name, _)| {
            name.strip_prefix("db")
                .is_some_and(|number| number.parse::<u32>().is_ok())
        })
        .filter_map(|(_, value)| field(value, "keys")?.parse::<i64>().ok())
        .sum()
}

/// Replicas that are online: `slave0:ip=10.0.0.7,port=6379,state=online,offset=28,lag=0`.
fn replicas(info: &BTreeMap<String, String>) -> Vec<(String, u16)> {
    info.iter()
        .filter(|(name, _)| {
            name.strip_prefix("slave")
                .is_some_and(|number| number.parse::<u32>().is_ok())
        })
        .filter(|(_, value)| field(value, "state") == Some("online"))
        .filter_map(|(_, value)| {
            Some((
                field(value, "ip")?.to_owned(),
                field(value, "port")?.parse().ok()?,
            ))
        })
        .collect()
}

fn field<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    value
        .split(',')
        .filter_map(|part| part.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> State {
        let info = text
            .split_whitespace()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        State::from_info(&info).unwrap()
    }

    #[test]
    fn a_primary_with_a_replica_that_has_everything_and_one_that_has_not() {
        let state = read(
            "run_id:r role:master connected_slaves:2 slave0:ip=m1.x,port=6379,state=online,offset=14,lag=1 \
             slave1:ip=10.0.0.9,port=6379,state=wait_bgsave,offset=0,lag=0 master_failover_state:no-failover \
             master_replid:aa master_replid2:bb master_repl_offset:14 db0:keys=3,expires=3,avg_ttl=0 \
             db1:keys=2,expires=0,avg_ttl=0 loading:0 aof_last_write_status:ok min_slaves_good_slaves:1",
        );
        assert!(state.guarded);
        assert_eq!(state.role, Role::Primary);
        assert_eq!(state.replicas, [("m1.x".to_owned(), 6379)]);
        assert_eq!((state.keys, state.offset), (5, 14));
        assert!(state.is_warm() && !state.loading && !state.handing_over && !state.disk_failed);
        assert!(state.is_of(Some("bb")) && !state.is_of(Some("cc")) && !state.is_of(None));
    }

    #[test]
    fn a_server_whose_volume_is_full() {
        assert!(read("role:master aof_enabled:1 aof_last_write_status:err").disk_failed);
    }

    #[test]
    fn a_server_that_just_started_is_not_warm() {
        let state = read(
            "role:slave master_host:127.0.0.1 master_port:1 master_link_status:down master_last_io_seconds_ago:-1 \
             master_sync_in_progress:0 slave_repl_offset:1 master_repl_offset:0 master_link_down_since_seconds:-1",
        );
        assert!(!state.is_warm());
        let Role::Replica(link) = state.role else {
            panic!("a replica")
        };
        assert_eq!((link.host.as_str(), link.port, link.up), ("127.0.0.1", 1, false));
    }
}
