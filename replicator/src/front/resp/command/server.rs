//! The server: INFO, CONFIG, TIME, and what is refused on purpose.

use std::fmt::Write as _;

use super::{Context, Plan, Planned, Refusal, at, is_word, shown};
use crate::front::resp::request::Arguments;
use crate::front::server::{REDIS_VERSION, Server};

/// TIME
pub fn time<'a>(context: &mut Context<'_>, _: Arguments<'a>) -> Planned<'a> {
    let now = context.now_ms;
    context.writer.array(2);
    context.writer.bulk((now / 1_000).to_string().as_bytes());
    context.writer.bulk((now % 1_000 * 1_000).to_string().as_bytes());
    Ok(Plan::Written)
}

/// FLUSHALL, FLUSHDB: one application's slip must not log out the users of all pods.
pub fn refused<'a>(context: &mut Context<'_>, _: Arguments<'a>) -> Planned<'a> {
    context.server.stats.count_unsupported(context.name);
    Err(Refusal::Detailed(format!(
        "ERR {} is refused: it would log out the users of every pod; delete sessions by their keys",
        context.name.to_ascii_uppercase()
    )))
}

/// ROLE
pub fn role<'a>(context: &mut Context<'_>, _: Arguments<'a>) -> Planned<'a> {
    context.writer.array(3);
    context.writer.bulk(b"master");
    context.writer.integer(0);
    context.writer.array(0);
    Ok(Plan::Written)
}

/// WAIT numreplicas timeout. Writes are acknowledged by the policy's own rule before they are answered.
pub fn wait<'a>(context: &mut Context<'_>, _: Arguments<'a>) -> Planned<'a> {
    context.writer.integer(0);
    Ok(Plan::Written)
}

/// INFO `[section …]`
pub fn info<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let all = arguments.len() == 1
        || arguments.from(1).any(|section| {
            ["all", "default", "everything"]
                .iter()
                .any(|w| is_word(section, w))
        });
    let mut text = String::new();
    for (name, write) in SECTIONS {
        if all || arguments.from(1).any(|section| is_word(section, name)) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            write(context.server, context.now_ms, &mut text);
        }
    }
    context.writer.verbatim(&text);
    Ok(Plan::Written)
}

/// Writes one section of INFO.
type Section = fn(&Server, u64, &mut String);

const SECTIONS: [(&str, Section); 9] = [
    ("server", server_section),
    ("clients", clients_section),
    ("memory", memory_section),
    ("persistence", |_, _, out| {
        lines(out, "Persistence", &[("loading", "0"), ("aof_enabled", "0")]);
    }),
    ("stats", stats_section),
    ("replication", |server, _, out| {
        lines(
            out,
            "Replication",
            &[
                ("role", "master"),
                ("connected_slaves", "0"),
                ("master_failover_state", "no-failover"),
                ("master_replid", &server.run_id),
                ("master_repl_offset", "0"),
            ],
        );
    }),
    ("errorstats", |server, _, out| {
        out.push_str("# Errorstats\r\n");
        for (word, count) in &server.stats.errors {
            line(out, &format!("errorstat_{word}"), &format!("count={count}"));
        }
    }),
    ("commandstats", commandstats_section),
    ("cluster", |_, _, out| {
        lines(out, "Cluster", &[("cluster_enabled", "0")]);
    }),
];

fn line(out: &mut String, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{name}:{value}\r\n");
}

fn lines(out: &mut String, title: &str, pairs: &[(&str, &str)]) {
    let _ = write!(out, "# {title}\r\n");
    for (name, value) in pairs {
        line(out, name, value);
    }
}

fn server_section(server: &Server, now_ms: u64, out: &mut String) {
    let uptime = now_ms.saturating_sub(server.started_ms) / 1_000;
    lines(
        out,
        "Server",
        &[
            ("redis_version", REDIS_VERSION),
            ("session_replicator_version", env!("CARGO_PKG_VERSION")),
            ("redis_mode", "standalone"),
            ("os", std::env::consts::OS),
            ("arch_bits", "64"),
            ("process_id", &std::process::id().to_string()),
            ("run_id", &server.run_id),
            ("uptime_in_seconds", &uptime.to_string()),
            ("uptime_in_days", &(uptime / 86_400).to_string()),
        ],
    );
}

fn clients_section(server: &Server, _: u64, out: &mut String) {
    lines(
        out,
        "Clients",
        &[
            ("connected_clients", &server.stats.connections_open.to_string()),
            ("maxclients", &server.settings.max_connections.to_string()),
            ("blocked_clients", "0"),
        ],
    );
}

fn memory_section(server: &Server, _: u64, out: &mut String) {
    lines(
        out,
        "Memory",
        &[
            ("used_memory", &server.used_memory.to_string()),
            ("maxmemory", &server.settings.memory_limit.to_string()),
            ("maxmemory_policy", "noeviction"),
        ],
    );
}

fn stats_section(server: &Server, _: u64, out: &mut String) {
    let stats = &server.stats;
    lines(
        out,
        "Stats",
        &[
            (
                "total_connections_received",
                &stats.connections_accepted.to_string(),
            ),
            ("total_commands_processed", &stats.total_commands().to_string()),
            ("rejected_connections", &stats.connections_refused.to_string()),
            ("keyspace_hits", &stats.hits.to_string()),
            ("keyspace_misses", &stats.misses.to_string()),
            (
                "unsupported_commands",
                &stats.unsupported.values().sum::<u64>().to_string(),
            ),
            (
                "total_error_replies",
                &stats.errors.values().sum::<u64>().to_string(),
            ),
        ],
    );
}

fn commandstats_section(server: &Server, _: u64, out: &mut String) {
    out.push_str("# Commandstats\r\n");
    for (spec, calls) in super::TABLE.iter().zip(&server.stats.commands) {
        if *calls > 0 {
            line(out, &format!("cmdstat_{}", spec.name), &format!("calls={calls}"));
        }
    }
}

/// CONFIG subcommand …
pub fn config<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let subcommand = at(&arguments, 1)?;
    if is_word(subcommand, "GET") && arguments.len() > 2 {
        let values = config_values(context.server);
        let found: Vec<&(&str, String)> = values
            .iter()
            .filter(|(name, _)| {
                arguments
                    .from(2)
                    .any(|p| crate::store::glob::matches(&p.to_ascii_lowercase(), name.as_bytes()))
            })
            .collect();
        context.writer.map(found.len());
        for (name, value) in found {
            context.writer.bulk(name.as_bytes());
            context.writer.bulk(value.as_bytes());
        }
        return Ok(Plan::Written);
    }
    if is_word(subcommand, "SET") && arguments.len() > 3 && arguments.len().is_multiple_of(2) {
        let mut words = arguments.from(2);
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            if !is_word(name, "notify-keyspace-events") {
                return Err(Refusal::Detailed(format!(
                    "ERR CONFIG SET failed (possibly related to argument '{}') - can't set immutable config",
                    shown(name)
                )));
            }
            context.server.key_events = key_event_classes(value)?;
        }
        context.writer.ok();
        return Ok(Plan::Written);
    }
    if is_word(subcommand, "RESETSTAT") && arguments.len() == 2 {
        context.writer.ok();
        return Ok(Plan::Written);
    }
    for known in ["GET", "SET", "RESETSTAT"] {
        if is_word(subcommand, known) {
            return Err(Refusal::Arity(format!("config|{}", known.to_ascii_lowercase())));
        }
    }
    Err(Refusal::Subcommand {
        command: "CONFIG",
        name: shown(subcommand),
    })
}

/// Checks the classes of key events, and gives them in the order in which Redis prints them.
fn key_event_classes(value: &[u8]) -> Result<String, Refusal> {
    const ALL: &str = "g$lshzxetd";
    const ORDER: &str = "Ag$lshzxetdKEnm";
    let value = String::from_utf8_lossy(value);
    if let Some(unknown) = value.chars().find(|class| !ORDER.contains(*class)) {
        return Err(Refusal::Detailed(format!(
            "ERR CONFIG SET failed (possibly related to argument 'notify-keyspace-events') - Invalid event \
             class character. Use 'Ag$lshzxeKEtmdn'. Found '{unknown}'"
        )));
    }
    let all = value.contains('A') || ALL.chars().all(|class| value.contains(class));
    Ok(ORDER
        .chars()
        .filter(|class| match class {
            'A' => all,
            class if ALL.contains(*class) => !all && value.contains(*class),
            class => value.contains(*class),
        })
        .collect())
}

fn config_values(server: &Server) -> Vec<(&'static str, String)> {
    let settings = &server.settings;
    vec![
        ("appendonly", "no".to_owned()),
        ("databases", settings.databases.to_string()),
        ("maxclients", settings.max_connections.to_string()),
        ("maxmemory", settings.memory_limit.to_string()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("notify-keyspace-events", server.key_events.clone()),
        ("proto-max-bulk-len", settings.limits.argument.to_string()),
        ("replica-read-only", "yes".to_owned()),
        ("save", String::new()),
        ("slave-read-only", "yes".to_owned()),
        ("timeout", settings.idle_seconds.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_key_events_are_printed_as_redis_does() {
        assert_eq!(key_event_classes(b"Egx").unwrap(), "gxE");
        assert_eq!(key_event_classes(b"KEA").unwrap(), "AKE");
        assert_eq!(key_event_classes(b"").unwrap(), "");
        assert!(key_event_classes(b"Q").is_err());
    }
}
