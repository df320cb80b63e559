//! Processes of the cluster, as this machine sees them.

use anyhow::{Context, Result, ensure};

/// Resident memory (`VmRSS` of proc(5): anonymous and file pages) of every process whose command line begins so, by pid. The
/// cluster's processes are this machine's. Kubelet's `rssBytes` would leave out the pages of the binary itself.
pub fn resident(command_line: &[&str]) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    let wanted = command_line.join("\0").into_bytes();
    for entry in std::fs::read_dir("/proc")? {
        let folder = entry?.path();
        // A process may end while it is looked at.
        let Ok(command) = std::fs::read(folder.join("cmdline")) else {
            continue;
        };
        if !command.starts_with(&wanted) {
            continue;
        }
        let Ok(status) = std::fs::read_to_string(folder.join("status")) else {
            continue;
        };
        let kilobytes = status.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        });
        let kilobytes: u64 = kilobytes.with_context(|| format!("{} has no VmRSS", folder.display()))?;
        found.push((
            folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            kilobytes * 1024,
        ));
    }
    ensure!(
        !found.is_empty(),
        "no process {command_line:?} on this machine: is the cluster elsewhere?"
    );
    Ok(found)
}
