//! What was promised and what was measured, and the page that says so.

use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use session_operator::api::{Event, Outcome, Survival};
use session_operator::drill::{Class, Report};

use crate::events::Case;
use crate::{LEAVERS, MEMBERS, Place, page};

/// The repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The page, in the repository.
const PAGE: &str = "docs/survival.md";

/// One event with sessions in one place, for all applications.
pub struct Row {
    /// Where sessions were.
    pub place: Place,
    /// What happened.
    pub case: Case,
    /// Of each application what its policy's status said before, and what its users met; nothing if its sessions cannot be kept
    /// there.
    pub cells: Vec<Option<(Survival, Report)>>,
}

/// All rows.
pub struct Record {
    apps: Vec<&'static str>,
    /// The commit that is measured.
    commit: String,
    rows: Vec<Row>,
}

/// Users who are still logged in with all that they had.
fn stayed(report: &Report) -> u32 {
    report.count(Class::Kept) + report.count(Class::Moved)
}

fn measured(report: &Report) -> Outcome {
    match stayed(report) {
        MEMBERS => Outcome::Kept,
        0 => Outcome::Lost,
        _ => Outcome::Partly,
    }
}

/// Who lost something, where and how.
fn losses(report: &Report) -> String {
    let pod = |index: Option<u32>| {
        let pod = index.and_then(|index| report.pods.get(usize::try_from(index).ok()?));
        pod.map_or("?", |pod| pod.name.as_str())
    };
    let worse = report
        .people
        .iter()
        .filter(|person| person.loss.is_some() || person.trouble.is_some());
    let lines = worse.map(|person| {
        let moves: Vec<String> = person
            .timeline
            .iter()
            .map(|(from, to, on, state, _)| format!("{from}-{to} ms {} {state:?}", pod(*on)))
            .collect();
        let failed: Vec<String> = person
            .failures
            .iter()
            .map(|failure| format!("{} ms {}", failure.at_ms, failure.failure))
            .collect();
        format!(
            "{}: {}, {:?}; {}; failed: {}",
            person.name,
            person.trouble.as_deref().unwrap_or_default(),
            person.loss,
            moves.join(", "),
            failed.join(", ")
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// How good an outcome is.
fn rank(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::NotApplicable => 0,
        Outcome::Lost => 1,
        Outcome::Partly => 2,
        Outcome::Kept => 3,
    }
}

impl Row {
    fn cell(report: &Report) -> String {
        let mut cell = format!("{} of {MEMBERS}", stayed(report));
        if report.failed() > 0 {
            // Writing to a String does not fail.
            let _infallible = write!(cell, ", {} failed", report.failed());
        }
        cell
    }

    /// What was promised: the outcome, the same for all applications unless status says otherwise.
    fn promised(&self) -> String {
        let promises = self.cells.iter().flatten();
        let outcomes: BTreeSet<String> = promises
            .map(|(promise, _)| format!("{:?}", promise.outcome))
            .collect();
        let mut promised = outcomes.into_iter().collect::<Vec<_>>().join(" or ");
        if let Some(says) = self.case.says {
            let _infallible = write!(promised, ", this way {says:?}");
        }
        promised
    }

    /// What the users of whom met that is worse than promised, in a line each.
    fn shortfalls(&self, apps: &[&'static str]) -> Vec<String> {
        let each = self.measured(apps);
        let each = each.filter(|(_, promise, report)| self.is_worse(promise, report));
        each.map(|(app, _, report)| {
            format!(
                "{app}, {}: {} lost, {} with something missing",
                self.case.what,
                report.count(Class::Lost),
                report.count(Class::Corrupted)
            )
        })
        .collect()
    }

    /// Applications whose sessions were there, each with what was promised and met.
    fn measured<'a>(
        &'a self,
        apps: &'a [&'static str],
    ) -> impl Iterator<Item = (&'static str, &'a Survival, &'a Report)> {
        let cells = apps.iter().zip(&self.cells);
        cells.filter_map(|(app, cell)| cell.as_ref().map(|(promise, report)| (*app, promise, report)))
    }

    fn is_worse(&self, promise: &Survival, report: &Report) -> bool {
        let wanted = self.case.says.unwrap_or(promise.outcome);
        rank(measured(report)) < rank(wanted) || report.count(Class::LoggedOut) != LEAVERS
    }

    fn worse<'a>(&'a self, apps: &'a [&'static str]) -> impl Iterator<Item = String> + 'a {
        self.measured(apps).filter_map(|(app, promise, report)| {
            let wanted = self.case.says.unwrap_or(promise.outcome);
            self.is_worse(promise, report).then(|| {
                format!(
                    "{app}, {} ({:?}): promised {wanted:?} ({}), measured {:?}:\n{}\n{}",
                    self.case.what,
                    self.place,
                    promise.message,
                    measured(report),
                    report.table(),
                    losses(report)
                )
            })
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = self.cells.iter().map(|cell| {
            let cell = cell.as_ref();
            cell.map_or_else(|| "–".to_owned(), |(_, report)| Self::cell(report))
        });
        let cells: Vec<String> = cells.collect();
        write!(
            f,
            "| {:?} | {} | {} | {} |",
            self.case.event,
            self.case.what,
            self.promised(),
            cells.join(" | ")
        )
    }
}

impl Record {
    /// An empty one.
    pub fn new(apps: Vec<&'static str>) -> Result<Self> {
        let mut commit = git(&["rev-parse", "--short=10", "HEAD"])?;
        if !git(&["status", "--porcelain", "--", ".", &format!(":!{PAGE}")])?.is_empty() {
            commit.push_str(", with changes that are not committed");
        }
        Ok(Self {
            apps,
            commit,
            rows: Vec::new(),
        })
    }

    /// One more row.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// What came out worse than promised.
    pub fn worse(&self) -> Vec<String> {
        self.rows.iter().flat_map(|row| row.worse(&self.apps)).collect()
    }

    /// Writes what was measured of a place into the page. What the page says of others stays.
    pub fn write(&self, place: Place) -> Result<()> {
        let path = Path::new(ROOT).join(PAGE);
        let page = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let page = page::with(&page, place, &self.section(place)?);
        std::fs::write(&path, page).with_context(|| format!("writing {}", path.display()))
    }

    /// Of one application: strategies and events, promised and measured.
    pub fn summary(&self, app: &str) -> String {
        let mut events: Vec<(Event, &str)> = Vec::new();
        let mut places: Vec<Place> = Vec::new();
        for row in &self.rows {
            let event = (row.case.event, row.case.what);
            if !events.contains(&event) {
                events.push(event);
            }
            if !places.contains(&row.place) {
                places.push(row.place);
            }
        }
        let mut table = vec![
            ["event".to_owned(), "what was done".to_owned()]
                .into_iter()
                .chain(places.iter().map(|place| place.title().to_owned()))
                .collect::<Vec<_>>(),
        ];
        for event in events {
            let mut line = vec![format!("{:?}", event.0), event.1.to_owned()];
            line.extend(places.iter().map(|place| {
                let row = self
                    .rows
                    .iter()
                    .find(|row| row.place == *place && (row.case.event, row.case.what) == event);
                let cell = row.and_then(|row| Some((row, row.cells.first()?.as_ref()?)));
                cell.map_or_else(
                    || "-".to_owned(),
                    |(row, (_, report))| format!("{}: {}", row.promised(), Row::cell(report)),
                )
            }));
            table.push(line);
        }
        let width = |column: usize| {
            let cells = table.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let mut text = format!("{app}: promised, and how many of {MEMBERS} users kept their sessions\n\n");
        for line in &table {
            let cells = line.iter().enumerate();
            let padded: Vec<String> = cells
                .map(|(column, cell)| format!("{cell:<width$}", width = width(column)))
                .collect();
            let _infallible = writeln!(text, "{}", padded.join("  ").trim_end());
        }
        text
    }

    /// When a place was measured, its rows, and what was worse than promised.
    fn section(&self, place: Place) -> Result<String> {
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.place == place).collect();
        let first = rows.first().and_then(|row| row.cells.iter().flatten().next());
        let (_, report) = first.context("no row was measured")?;
        let date = report.started.get(..10).unwrap_or_default();
        let mut section = format!(
            "At commit {}, {date}.\n\n| event | what was done | promised | {} |\n|---|---|---|{}\n",
            self.commit,
            self.apps.join(" | "),
            "---|".repeat(self.apps.len())
        );
        for row in &rows {
            let _infallible = writeln!(section, "{row}");
        }
        let worse = rows.iter().flat_map(|row| row.shortfalls(&self.apps));
        let worse: Vec<String> = worse.map(|line| format!("* {line}\n")).collect();
        if !worse.is_empty() {
            let _infallible = write!(section, "\nWorse than promised:\n\n{}", worse.concat());
        }
        Ok(section)
    }
}

fn git(arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(ROOT)
        .output()
        .context("starting git")?;
    ensure!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
