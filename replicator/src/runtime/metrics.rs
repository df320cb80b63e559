//! Metrics in OpenMetrics' text. The event loop counts in plain numbers; they become metrics when somebody asks.

use std::fmt;
use std::sync::atomic::AtomicU64;

use hyper::header::HeaderValue;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode as encode_text;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::node::Node;
use crate::core::Stats as CoreStats;
use crate::front::resp::command::TABLE;
use crate::front::stats::{Histogram, LATENCY_BUCKETS, Stats};

/// What OpenMetrics text is called in HTTP.
pub const CONTENT_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// A family with one label.
type Labels = Vec<(&'static str, String)>;

/// The metrics of this moment.
///
/// # Errors
/// Never in practice: the text goes into memory.
pub fn encode(node: &Node) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("session_replicator");
    let core = node.core.stats();
    front(&mut registry, &node.server.stats);
    sessions(&mut registry, &core, node);
    members(&mut registry, &core, node);
    upstream(&mut registry, node);
    let mut out = String::new();
    encode_text(&mut out, &registry)?;
    Ok(out)
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter = Counter::<u64, AtomicU64>::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: impl TryInto<i64>) {
    let gauge = Gauge::<i64>::default();
    gauge.set(value.try_into().unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

fn counters(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: impl IntoIterator<Item = (String, u64)>,
) {
    let family = Family::<Labels, Counter>::default();
    for (value, count) in values {
        family.get_or_create(&vec![(label, value)]).inc_by(count);
    }
    registry.register(name, help, family);
}

fn front(registry: &mut Registry, stats: &Stats) {
    let called = TABLE
        .iter()
        .zip(&stats.commands)
        .filter(|(_, count)| **count > 0)
        .map(|(spec, count)| (spec.name.to_owned(), *count));
    counters(registry, "commands", "Redis commands by name", "command", called);
    let named = |map: &std::collections::BTreeMap<&'static str, u64>| {
        map.iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect::<Vec<_>>()
    };
    counters(
        registry,
        "memcached_commands",
        "memcached commands by name",
        "command",
        named(&stats.memcached),
    );
    counters(
        registry,
        "unsupported_commands",
        "Commands that are not spoken here, by name: the application uses the sidecar for more than sessions",
        "command",
        named(&stats.unsupported),
    );
    counters(
        registry,
        "error_replies",
        "Error replies by their first word",
        "code",
        named(&stats.errors),
    );
    for (name, help, value) in [
        (
            "protocol_errors",
            "Connections ended because their input was no request",
            stats.protocol_errors,
        ),
        (
            "connections_accepted",
            "Client connections accepted",
            stats.connections_accepted,
        ),
        (
            "connections_refused",
            "Client connections turned away at the limit",
            stats.connections_refused,
        ),
        (
            "connections_idle",
            "Client connections ended for being idle",
            stats.connections_idle,
        ),
        (
            "connections_overflowed",
            "Client connections ended because they did not read their replies",
            stats.connections_overflowed,
        ),
        ("hits", "Look-ups that found a value", stats.hits),
        ("misses", "Look-ups that found nothing", stats.misses),
    ] {
        counter(registry, name, help, value);
    }
    gauge(
        registry,
        "connections",
        "Client connections open",
        stats.connections_open,
    );
    registry.register_collector(Box::new(Latency {
        name: "command_latency",
        help: "From reading requests to having sent their replies",
        histogram: stats.latency.clone(),
    }));
    registry.register_collector(Box::new(Latency {
        name: "remote_command_latency",
        help: "Duration of commands that waited for other members",
        histogram: stats.latency_remote.clone(),
    }));
}

fn sessions(registry: &mut Registry, core: &CoreStats, node: &Node) {
    gauge(
        registry,
        "ready",
        "Whether the pod should get requests",
        u8::from(node.phase.is_ready()),
    );
    gauge(
        registry,
        "entries",
        "Entries, those of deleted keys not counted",
        core.entries - core.tombstones.min(core.entries),
    );
    gauge(
        registry,
        "tombstones",
        "Deleted keys that are still remembered",
        core.tombstones,
    );
    gauge(
        registry,
        "used_bytes",
        "Bytes that sessions take",
        core.used_bytes,
    );
    gauge(
        registry,
        "limit_bytes",
        "Bytes that sessions may take; 0 for no limit",
        node.server.settings.memory_limit,
    );
    gauge(
        registry,
        "homes",
        "Partitions that this member decides about",
        core.homes,
    );
    gauge(
        registry,
        "pending",
        "Commands that wait for other members",
        core.pending,
    );
    let counts = &core.counters;
    for (name, help, value) in [
        (
            "conflicts",
            "States that arrived and lost against what was here",
            counts.conflicts,
        ),
        (
            "forwarded",
            "Commands decided at another member",
            counts.forwarded,
        ),
        (
            "repaired",
            "Entries that a comparison of digests brought here",
            counts.repaired,
        ),
        (
            "evicted",
            "Sessions removed because of the memory limit",
            counts.evicted,
        ),
        ("expired", "Sessions that expired here", counts.expired),
        ("locks_granted", "Locks granted here", counts.locks_granted),
        (
            "locks_taken_back",
            "Locks granted here that were not confirmed in time, and taken back",
            counts.locks_taken_back,
        ),
        (
            "homes_taken",
            "Partitions that this member became the home of",
            counts.homes_taken,
        ),
        (
            "homes_taken_over",
            "Partitions taken over without the old home",
            counts.homes_taken_over,
        ),
    ] {
        counter(registry, name, help, value);
    }
}

fn members(registry: &mut Registry, core: &CoreStats, node: &Node) {
    let states = Family::<Labels, Gauge>::default();
    for member in &core.members {
        let state = if member.suspect {
            "suspect"
        } else {
            member.state.name()
        };
        states.get_or_create(&vec![("state", state.to_owned())]).inc();
    }
    registry.register("members", "Other members by state", states);
    let lag = Family::<Labels, Gauge>::default();
    for member in core.members.iter().filter(|member| member.linked) {
        let changes = i64::try_from(member.lag).unwrap_or(i64::MAX);
        lag.get_or_create(&vec![("member", member.name.clone())])
            .set(changes);
    }
    registry.register("lag_changes", "Changes that a member has not confirmed", lag);
    let links = &node.links;
    gauge(registry, "links", "Links to other members", links.len());
    for (name, help, value) in [
        (
            "link_sent_bytes",
            "Bytes sent to other members, before TLS",
            links.sent_bytes,
        ),
        (
            "link_received_bytes",
            "Bytes received from other members, after TLS",
            links.received_bytes,
        ),
        (
            "link_sent_frames",
            "Frames sent to other members",
            links.sent_frames,
        ),
        (
            "link_received_frames",
            "Frames received from other members",
            links.received_frames,
        ),
    ] {
        counter(registry, name, help, value);
    }
}

fn upstream(registry: &mut Registry, node: &Node) {
    let (Some(stats), Some(shared)) = (node.core.upstream_stats(), &node.upstream) else {
        return;
    };
    let copy = *shared.copy.borrow();
    for (name, help, value) in [
        (
            "upstream_connected",
            "Whether the last attempt to write to the upstream store came through",
            u64::from(stats.connected),
        ),
        (
            "upstream_pending_changes",
            "Changes that are not in the upstream store yet",
            stats.pending,
        ),
        (
            "upstream_copy_in_running",
            "Whether everything is being copied from the upstream store",
            u64::from(copy.running),
        ),
        (
            "upstream_copy_in_seen",
            "Keys that the present or last copy from the upstream store has come upon",
            copy.seen,
        ),
        (
            "upstream_copy_in_present",
            "Of those, keys that are here",
            copy.present,
        ),
        (
            "upstream_copy_out_running",
            "Whether everything is being copied to the upstream store",
            u64::from(stats.copying),
        ),
        (
            "upstream_copy_out_entries",
            "Entries that the present or last copy to the upstream store has put on their way",
            stats.copied,
        ),
    ] {
        gauge(registry, name, help, value);
    }
    counter(
        registry,
        "upstream_written_changes",
        "Changes that are in the upstream store",
        stats.written,
    );
    let lookups = [
        ("found", stats.fetched),
        ("missing", stats.missed),
        ("failed", stats.failed),
    ];
    counters(
        registry,
        "upstream_lookups",
        "Look-ups in the upstream store by their result",
        "result",
        lookups.map(|(result, count)| (result.to_owned(), count)),
    );
}

/// A histogram that was counted elsewhere.
#[derive(Debug)]
struct Latency {
    name: &'static str,
    help: &'static str,
    histogram: Histogram,
}

impl Collector for Latency {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let bounds = LATENCY_BUCKETS.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.histogram.counts).collect();
        let count = self.histogram.counts.iter().sum();
        encoder
            .encode_descriptor(self.name, self.help, Some(&Unit::Seconds), MetricType::Histogram)?
            .encode_histogram::<Labels>(self.histogram.sum, count, &buckets, None)
    }
}
