//! Cluster emulation: one node that owns all slots, at the address that the client dialled. Clients that are
//! configured for a cluster work unchanged and never hear MOVED.

use super::{Context, Plan, Planned, Refusal, at, shown};
use crate::front::resp::request::Arguments;

/// Number of slots.
const SLOTS: i64 = 16_384;

/// READONLY, READWRITE, ASKING
pub fn accept<'a>(context: &mut Context<'_>, _: Arguments<'a>) -> Planned<'a> {
    context.writer.ok();
    Ok(Plan::Written)
}

/// CLUSTER subcommand …
pub fn cluster<'a>(context: &mut Context<'_>, arguments: Arguments<'a>) -> Planned<'a> {
    let subcommand = at(&arguments, 1)?;
    let word = subcommand.to_ascii_lowercase();
    let (host, port) = dialled(context);
    match (word.as_slice(), arguments.len()) {
        (b"slots", 2) => {
            context.writer.array(1);
            context.writer.array(3);
            context.writer.integer(0);
            context.writer.integer(SLOTS - 1);
            context.writer.array(4);
            context.writer.bulk(host.as_bytes());
            context.writer.integer(port);
            context.writer.bulk(context.server.run_id.as_bytes());
            context.writer.map(0);
        }
        (b"shards", 2) => shards(context, &host, port),
        (b"nodes", 2) => {
            let line = format!(
                "{} {host}:{port}@0 myself,master - 0 0 1 connected 0-{}\n",
                context.server.run_id,
                SLOTS - 1
            );
            context.writer.verbatim(&line);
        }
        (b"info", 2) => context.writer.verbatim(
            "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\n\
             cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:1\r\ncluster_size:1\r\n\
             cluster_current_epoch:1\r\ncluster_my_epoch:1\r\n",
        ),
        (b"myid", 2) => context.writer.bulk(context.server.run_id.as_bytes()),
        (b"keyslot", 3) => context.writer.integer(i64::from(slot_of(at(&arguments, 2)?))),
        (b"slots" | b"shards" | b"nodes" | b"info" | b"myid" | b"keyslot", _) => {
            return Err(Refusal::Arity(format!(
                "cluster|{}",
                String::from_utf8_lossy(&word)
            )));
        }
        _ => {
            return Err(Refusal::Subcommand {
                command: "CLUSTER",
                name: shown(subcommand),
            });
        }
    }
    Ok(Plan::Written)
}

fn shards(context: &mut Context<'_>, host: &str, port: i64) {
    let run_id = context.server.run_id.clone();
    let writer = &mut context.writer;
    writer.array(1);
    writer.map(2);
    writer.bulk(b"slots");
    writer.array(2);
    writer.integer(0);
    writer.integer(SLOTS - 1);
    writer.bulk(b"nodes");
    writer.array(1);
    writer.map(7);
    writer.bulk(b"id");
    writer.bulk(run_id.as_bytes());
    writer.bulk(b"port");
    writer.integer(port);
    for (name, value) in [("ip", host), ("endpoint", host), ("role", "master")] {
        writer.bulk(name.as_bytes());
        writer.bulk(value.as_bytes());
    }
    writer.bulk(b"replication-offset");
    writer.integer(0);
    writer.bulk(b"health");
    writer.bulk(b"online");
}

/// The address that the client dialled. Over a UNIX socket there is none: clients then go on with the one they have.
fn dialled(context: &Context<'_>) -> (String, i64) {
    let local = context
        .server
        .clients
        .get(&context.state.id)
        .map(|info| info.local.as_str());
    match local.and_then(|local| local.rsplit_once(':')) {
        Some((host, port)) => (
            host.trim_matches(['[', ']']).to_owned(),
            port.parse().unwrap_or_default(),
        ),
        None => (String::new(), 0),
    }
}

/// The slot of a key: CRC16 of the part between the first `{` and the next `}`, or of all of it.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let length = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..length).filter(|tag| !tag.is_empty())
    });
    crc16(tag.unwrap_or(key)) % 16_384
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                crc << 1 ^ 0x1021
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12_182);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"{user1000}.followers"));
        assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % 16_384);
        assert_eq!(slot_of(b"foo{{bar}}zap"), crc16(b"{bar") % 16_384);
    }
}
