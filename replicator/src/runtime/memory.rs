//! How much memory there is: the container's limit, or the machine's where there is none.

use std::fs;
use std::path::Path;

/// What is left for everything but sessions: connections, links, the allocator's own.
const HEADROOM_PERCENT: u64 = 25;

/// Bytes for sessions. 0, for no limit, only where the system tells nothing.
pub fn limit() -> usize {
    limit_below(Path::new("/"))
}

fn limit_below(root: &Path) -> usize {
    let container = [
        // cgroup v2, then v1; inside a container its own group is mounted as the root.
        "sys/fs/cgroup/memory.max",
        "sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .into_iter()
    .filter_map(|file| fs::read_to_string(root.join(file)).ok())
    .find_map(|text| text.trim().parse::<u64>().ok());
    let machine = fs::read_to_string(root.join("proc/meminfo"))
        .ok()
        .and_then(|text| machine_bytes(&text));
    // Without a limit v1 says a number near 2^63, v2 says `max`.
    let bytes = container.into_iter().chain(machine).min().unwrap_or(0);
    usize::try_from(bytes / 100 * (100 - HEADROOM_PERCENT)).unwrap_or(usize::MAX)
}

fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit_of(files: &[(&str, &str)]) -> usize {
        let name = format!("session-replicator-memory-{}-{}", std::process::id(), files.len());
        let root = std::env::temp_dir().join(name);
        for (file, text) in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let limit = limit_below(&root);
        if root.exists() {
            fs::remove_dir_all(&root).unwrap();
        }
        limit
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:        1000 kB\nMemFree: 1 kB\n");

    #[test]
    fn the_smaller_of_container_and_machine_counts() {
        assert_eq!(
            limit_of(&[("sys/fs/cgroup/memory.max", "400000\n"), MACHINE]),
            300_000
        );
        assert_eq!(
            limit_of(&[
                (
                    "sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "9223372036854771712\n"
                ),
                MACHINE,
                ("x", "")
            ]),
            768_000
        );
        assert_eq!(limit_of(&[]), 0);
    }
}
