//! Processes, as this machine sees them; those of the cluster are among them.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Resident memory of every process whose command line begins so, by pid. Kubelet's `rssBytes` would leave out the pages of the
/// binary itself.
///
/// # Errors
/// When there is no such process.
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
        let Some(bytes) = resident_of(&folder)? else {
            continue;
        };
        let pid = folder.file_name().unwrap_or_default();
        found.push((pid.to_string_lossy().into_owned(), bytes));
    }
    ensure!(
        !found.is_empty(),
        "no process {command_line:?} on this machine: is the cluster elsewhere?"
    );
    Ok(found)
}

/// Resident memory in bytes (`VmRSS` of proc(5): anonymous and file pages) of the process with a folder in `/proc`; nothing if it
/// has ended.
///
/// # Errors
/// When the kernel does not say.
pub fn resident_of(folder: &Path) -> Result<Option<u64>> {
    let Ok(status) = std::fs::read_to_string(folder.join("status")) else {
        return Ok(None);
    };
    let kilobytes = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    let kilobytes = kilobytes.with_context(|| format!("{} has no VmRSS", folder.display()))?;
    Ok(Some(kilobytes * 1024))
}
