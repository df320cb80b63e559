//! What a drill found: for machines as JSON, for people as a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::account::{Account, Class, Failure, FailureAt, Loss, Role, State};
use super::table::{self, Cell};

/// Everything that a drill found. Times are in milliseconds since it began, unless they say otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Name of the application.
    pub application: String,
    /// The URL that users see.
    pub url: String,
    /// When the drill began, RFC 3339.
    pub started: String,
    /// How long it took.
    pub duration_ms: u64,
    /// What happened, and when.
    pub event: EventTimes,
    /// Users in all: those who stay, and those who logged out before the event.
    pub users: u32,
    /// How many of them logged out before the event.
    pub leavers: u32,
    /// Users by class; the sum equals `users`.
    pub classes: BTreeMap<Class, u32>,
    /// Requests of all users, those that failed included.
    pub requests: u64,
    /// Failed requests by kind.
    pub failures: BTreeMap<String, u64>,
    /// How often a session was served by another pod than before.
    pub moves: u64,
    /// How long answers took.
    pub latency: Latency,
    /// The pods that answered, by name.
    pub pods: Vec<PodSummary>,
    /// Visitors without cookies during the event.
    pub newcomers: Vec<Newcomer>,
    /// What the event noted.
    pub marks: Vec<Mark>,
    /// Every user.
    pub people: Vec<Person>,
}

/// An event's name and times.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventTimes {
    /// What happened.
    pub name: String,
    /// Beginning.
    pub from_ms: u64,
    /// End.
    pub to_ms: u64,
}

/// Quantiles (nearest rank) of the time from connecting or sending to the last byte of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// Median, in microseconds.
    pub p50_us: u32,
    /// 99th percentile, in microseconds.
    pub p99_us: u32,
    /// Maximum, in microseconds.
    pub max_us: u32,
}

/// What one pod had to do with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSummary {
    /// Name, as the application tells it.
    pub name: String,
    /// Users whose sessions it had when the event began.
    pub users_before: u32,
    /// Users whose sessions it had at the end.
    pub users_after: u32,
    /// Users whose sessions were lost after this pod had had them.
    pub lost: u32,
    /// Answers to users.
    pub requests: u64,
    /// Newcomers that landed here.
    pub newcomers: u32,
    /// When the last of them was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_newcomer_ms: Option<u64>,
}

/// A visitor without cookies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Newcomer {
    /// When the request was sent.
    pub at_ms: u64,
    /// The pod that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Why there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Something that the event noted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// When.
    pub at_ms: u64,
    /// What.
    pub what: String,
    /// The pod that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// One user.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// Name.
    pub name: String,
    /// What became of the session.
    pub class: Class,
    /// What the user was there for.
    pub role: Role,
    /// The pod that had the session when the event began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_before: Option<String>,
    /// The pod that had the session last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_after: Option<String>,
    /// Number of moves.
    pub moves: u32,
    /// Requests made.
    pub requests: u32,
    /// The first loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// What is wrong, for the classes corrupted and loginFailed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Failed requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<FailureAt>,
    /// Stretches of requests that were alike: from, to, index into `pods`, state, number of requests.
    pub timeline: Vec<Stretch>,
}

/// One stretch of a time line: from, to, index into `pods`, state, number of requests.
pub type Stretch = (u64, u64, Option<u32>, State, u32);

/// The books do not balance, which is a fault of the drill.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{users} users, but the classes hold {classified}")]
pub struct Unbalanced {
    users: usize,
    classified: usize,
}

/// What [`Report::assemble`] needs beside the accounts.
#[derive(Debug)]
pub(super) struct Frame {
    pub application: String,
    pub url: String,
    pub started: String,
    pub duration_ms: u64,
    pub event: EventTimes,
    pub newcomers: Vec<Newcomer>,
    pub marks: Vec<Mark>,
}

/// One user's part of the report.
#[derive(Debug)]
pub(super) struct Entry {
    pub account: Account,
    pub requests: u32,
    pub latencies: Vec<u32>,
}

impl Report {
    /// Puts a report together.
    pub(super) fn assemble(frame: Frame, entries: &[Entry]) -> Result<Self, Unbalanced> {
        let names: Vec<String> = {
            let segments = entries.iter().flat_map(|entry| entry.account.timeline());
            let of_users = segments.filter_map(|segment| segment.pod.clone());
            let of_newcomers = frame.newcomers.iter().filter_map(|newcomer| newcomer.pod.clone());
            of_users
                .chain(of_newcomers)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect()
        };
        let mut latencies: Vec<u32> = entries
            .iter()
            .flat_map(|entry| entry.latencies.iter().copied())
            .collect();
        let people: Vec<Person> = entries
            .iter()
            .map(|entry| Person::new(entry, frame.event.from_ms, &names))
            .collect();
        let mut classes: BTreeMap<Class, u32> = Class::ALL.into_iter().map(|class| (class, 0)).collect();
        let mut failures = BTreeMap::new();
        for person in &people {
            *classes.entry(person.class).or_default() += 1;
            for failed in &person.failures {
                *failures.entry(failed.failure.to_string()).or_default() += 1;
            }
        }
        let report = Self {
            application: frame.application,
            url: frame.url,
            started: frame.started,
            duration_ms: frame.duration_ms,
            event: frame.event,
            users: count(people.iter()),
            leavers: count(people.iter().filter(|person| person.role == Role::Leaver)),
            classes,
            requests: people.iter().map(|person| u64::from(person.requests)).sum(),
            failures,
            moves: people.iter().map(|person| u64::from(person.moves)).sum(),
            latency: Latency::of(&mut latencies),
            pods: names
                .iter()
                .zip(0..)
                .map(|(n, i)| PodSummary::new(n, i, &people, &frame.newcomers))
                .collect(),
            newcomers: frame.newcomers,
            marks: frame.marks,
            people,
        };
        let classified = report.classes.values().map(|&n| n as usize).sum();
        if classified == entries.len() {
            Ok(report)
        } else {
            Err(Unbalanced {
                users: entries.len(),
                classified,
            })
        }
    }

    /// Number of users in a class.
    pub fn count(&self, class: Class) -> u32 {
        self.classes.get(&class).copied().unwrap_or(0)
    }

    /// Number of failed requests.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Names of the users whose sessions a pod had when the event began.
    pub fn users_before(&self, pod: &str) -> BTreeSet<&str> {
        let here = self
            .people
            .iter()
            .filter(|person| person.pod_before.as_deref() == Some(pod));
        here.map(|person| person.name.as_str()).collect()
    }

    /// Names of the users of a class.
    pub fn names(&self, class: Class) -> BTreeSet<&str> {
        self.people
            .iter()
            .filter(|person| person.class == class)
            .map(|person| person.name.as_str())
            .collect()
    }

    /// Newcomers that were sent after a time and landed on a pod.
    pub fn newcomers_on<'a>(&'a self, pod: &'a str, after_ms: u64) -> impl Iterator<Item = &'a Newcomer> {
        self.newcomers
            .iter()
            .filter(move |n| n.at_ms > after_ms && n.pod.as_deref() == Some(pod))
    }

    /// The report for people: users by class, requests, pods.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} at {}: {}, {} users, {:.1} s\n\n",
            self.application,
            self.url,
            self.event.name,
            self.users,
            seconds(self.duration_ms)
        );
        let header: Vec<&str> = Class::ALL.into_iter().map(Class::label).collect();
        let row = Class::ALL
            .into_iter()
            .map(|class| Cell::number(&self.count(class)))
            .collect();
        text.push_str(&table::render(&header, &[row]));
        let failures: Vec<String> = self
            .failures
            .iter()
            .map(|(kind, n)| format!("{kind} {n}"))
            .collect();
        let failures = if failures.is_empty() {
            String::new()
        } else {
            format!(" ({})", failures.join(", "))
        };
        let ms = |us: u32| f64::from(us) / 1000.0;
        // Writing to a String does not fail.
        let _infallible = writeln!(
            text,
            "\n{} requests, {} failed{failures}, {} moves, latency p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms\n",
            self.requests,
            self.failed(),
            self.moves,
            ms(self.latency.p50_us),
            ms(self.latency.p99_us),
            ms(self.latency.max_us)
        );
        let rows: Vec<Vec<Cell>> = self.pods.iter().map(PodSummary::row).collect();
        let header = [
            "pod",
            "users before",
            "users after",
            "lost",
            "requests",
            "newcomers",
            "last newcomer",
        ];
        text.push_str(&table::render(&header, &rows));
        for mark in &self.marks {
            let pod = mark.pod.as_deref().unwrap_or_default();
            let _infallible = writeln!(text, "{:>7.1} s  {} {pod}", seconds(mark.at_ms), mark.what);
        }
        text
    }
}

impl Person {
    fn new(entry: &Entry, event_ms: u64, pods: &[String]) -> Self {
        let account = &entry.account;
        let index = |pod: &String| {
            pods.binary_search(pod)
                .ok()
                .and_then(|index| u32::try_from(index).ok())
        };
        let segments = account.timeline().iter();
        Self {
            name: account.name().to_owned(),
            class: account.class(),
            role: account.role(),
            pod_before: account.pod_before(event_ms).map(str::to_owned),
            pod_after: account.pod_before(u64::MAX).map(str::to_owned),
            moves: account.moves(),
            requests: entry.requests,
            loss: account.loss().cloned(),
            trouble: account.trouble().map(str::to_owned),
            failures: account.failures().to_vec(),
            timeline: segments
                .map(|s| {
                    (
                        s.from_ms,
                        s.to_ms,
                        s.pod.as_ref().and_then(index),
                        s.state,
                        s.requests,
                    )
                })
                .collect(),
        }
    }

    /// Whether the session was there at the end.
    fn is_there(&self) -> bool {
        matches!(self.class, Class::Kept | Class::Moved)
    }
}

impl PodSummary {
    fn new(name: &str, index: u32, people: &[Person], newcomers: &[Newcomer]) -> Self {
        let here = |pod: &Option<String>| pod.as_deref() == Some(name);
        let answers = people
            .iter()
            .flat_map(|person| &person.timeline)
            .filter(|stretch| stretch.2 == Some(index));
        Self {
            name: name.to_owned(),
            users_before: count(
                people
                    .iter()
                    .filter(|p| p.role == Role::Member && here(&p.pod_before)),
            ),
            users_after: count(people.iter().filter(|p| p.is_there() && here(&p.pod_after))),
            lost: count(
                people
                    .iter()
                    .filter_map(|p| p.loss.as_ref())
                    .filter(|loss| here(&loss.pod_before)),
            ),
            requests: answers.map(|stretch| u64::from(stretch.4)).sum(),
            newcomers: count(newcomers.iter().filter(|n| here(&n.pod))),
            last_newcomer_ms: newcomers.iter().filter(|n| here(&n.pod)).map(|n| n.at_ms).max(),
        }
    }

    fn row(&self) -> Vec<Cell> {
        let last = self
            .last_newcomer_ms
            .map_or_else(String::new, |at| format!("{:.1} s", seconds(at)));
        vec![
            Cell::text(&self.name),
            Cell::number(&self.users_before),
            Cell::number(&self.users_after),
            Cell::number(&self.lost),
            Cell::number(&self.requests),
            Cell::number(&self.newcomers),
            Cell::number(&last),
        ]
    }
}

impl Latency {
    /// Sorts the times and takes the quantiles by nearest rank.
    fn of(times: &mut [u32]) -> Self {
        times.sort_unstable();
        let rank = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100);
            times.get(rank.saturating_sub(1)).copied().unwrap_or(0)
        };
        Self {
            p50_us: rank(50),
            p99_us: rank(99),
            max_us: rank(100),
        }
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "for people, with one decimal")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        assert_eq!(Latency::of(&mut []), Latency::default());
        assert_eq!(
            Latency::of(&mut [7]),
            Latency {
                p50_us: 7,
                p99_us: 7,
                max_us: 7
            }
        );
        let mut times: Vec<u32> = (1..=200).rev().collect();
        assert_eq!(
            Latency::of(&mut times),
            Latency {
                p50_us: 100,
                p99_us: 198,
                max_us: 200
            }
        );
    }
}
