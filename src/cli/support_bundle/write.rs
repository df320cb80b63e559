//! From what was read to files without credentials, and those into one archive.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::collect::{Raw, Wanted};
use super::pick::text;
use super::redact::{MASK, Redactor};

/// Files by path in the archive.
pub type Files = BTreeMap<String, String>;

/// What may leave the cluster of what was read.
pub fn files(raw: &Raw, mut redactor: Redactor, wanted: &Wanted, made: jiff::Timestamp) -> Files {
    for secret in &raw.secrets {
        redactor.learn(secret);
    }
    let yaml =
        |object: &Value| serde_saphyr::to_string(object).unwrap_or_else(|error| format!("# {error}\n"));
    let mut files: Files = raw
        .objects
        .iter()
        .map(|(file, object)| (file.clone(), yaml(&redactor.object(object))))
        .collect();
    let secrets: Vec<Value> = raw.secrets.iter().map(|secret| redactor.object(secret)).collect();
    if !secrets.is_empty() {
        files.insert("secrets.yaml".to_owned(), yaml(&secrets.into()));
    }
    files.insert("events.txt".to_owned(), events(&raw.events, &redactor));
    for (file, log) in &raw.logs {
        files.insert(file.clone(), redactor.text(log).into_owned());
    }
    let mut problems = raw.problems.clone();
    problems.sort();
    problems.dedup();
    let problems = problems.iter().fold(String::new(), |mut text, problem| {
        text.push_str(&redactor.text(problem).replace('\n', " "));
        text.push('\n');
        text
    });
    files.insert("not-read.txt".to_owned(), problems);
    files.insert("README.txt".to_owned(), readme(&files, wanted, made));
    files
}

/// When an Event was last seen.
pub fn time_of(event: &Value) -> String {
    let times = [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/eventTime",
        "/metadata/creationTimestamp",
    ];
    let time = times.into_iter().map(|pointer| text(event, pointer));
    time.into_iter()
        .find(|time| !time.is_empty())
        .unwrap_or_default()
        .to_owned()
}

fn events(events: &[Value], redactor: &Redactor) -> String {
    let mut lines = String::new();
    for event in events {
        let count = event
            .pointer("/series/count")
            .or_else(|| event.get("count"))
            .and_then(Value::as_u64)
            .unwrap_or(1);
        let message = redactor.text(text(event, "/message")).replace('\n', " ");
        // Writing to a String cannot fail.
        _ = writeln!(
            lines,
            "{} {} {} {}/{} ({count}x): {message}",
            time_of(event),
            text(event, "/type"),
            text(event, "/reason"),
            text(event, "/involvedObject/kind"),
            text(event, "/involvedObject/name"),
        );
    }
    lines
}

fn readme(files: &Files, wanted: &Wanted, made: jiff::Timestamp) -> String {
    let about = match &wanted.policy {
        Some(policy) => format!("SessionPolicy {policy} of namespace {}", wanted.namespace),
        None => format!("all SessionPolicies of namespace {}", wanted.namespace),
    };
    let mut readme = format!(
        "Support bundle of kubectl session {}, made {made}, about {about}.

What was masked ({MASK}), whatever it held:
* Secrets: only names, types and keys are here, in secrets.yaml. Values of the operator's own Secrets, as far as whoever
  made this could read them, are masked wherever else they turned up.
* Values of environment variables, but for a few names that say how a program runs (such as TZ, LANG, NODE_ENV, PATH).
* Headers of probes; arguments that follow a flag such as --password; fields whose names say password, secret or token.
* In all texts and logs: credentials in URLs (scheme://user:password@), Authorization and Cookie headers, bearer tokens,
  JSON Web Tokens, private keys, and what follows password=, token= and the like.
Left out altogether: managedFields, the annotation kubectl.kubernetes.io/last-applied-configuration, and the logs of the
application's own containers.
Not masked: names of objects, hosts, addresses and images. Look through the files before you send them.

What is in it:
* versions.yaml: this program, the API server, the API groups of the cluster
* policies/, stores/, injections/: what the operator works with, conditions included
* targets/, pods/, services/, routes/, around/: the Deployments and what stands around them
* nodes/: the nodes that carry the pods, in short
* operator/, logs/operator/, logs/pods/: the operator's pods, and the last {} lines of each log
* events.txt: Events of all these objects, oldest first
* not-read.txt: what could not be read, and why; for example for want of a permission

Files:
",
        env!("CARGO_PKG_VERSION"),
        wanted.log_lines
    );
    for (file, content) in files {
        // Writing to a String cannot fail.
        _ = writeln!(readme, "{:>9} {file}", content.len());
    }
    readme
}

/// Writes the archive to a new file that only its owner may read.
///
/// # Errors
/// The file exists already, or cannot be written; what was begun is removed.
pub fn archive(files: &Files, folder: &str, path: &Path, made: jiff::Timestamp) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let written = pack(files, folder, made, file).and_then(|file| file.sync_all());
    if written.is_err() {
        std::fs::remove_file(path)?;
    }
    written
}

/// Packs the files under one folder; gives back what was written to.
pub fn pack<W: Write>(files: &Files, folder: &str, made: jiff::Timestamp, to: W) -> io::Result<W> {
    let mut archive = tar::Builder::new(GzEncoder::new(to, Compression::default()));
    for (file, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len()).unwrap_or(u64::MAX));
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(made.as_second()).unwrap_or(0));
        archive.append_data(&mut header, format!("{folder}/{file}"), content.as_bytes())?;
    }
    archive.into_inner()?.finish()
}
