//! `drill`: acts as users of the application behind a policy, lets something happen to it, and holds what became of every
//! session against what the policy's status promises.

mod address;
mod description;
mod verdict;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use kube::{Api, Client};
use serde_json::json;

use self::description::DescriptionArgs;
use self::verdict::Verdict;
use super::{CliError, ConnectionArgs, output, question};
use crate::api::SessionPolicy;
use crate::drill::event::{Event, Workload};
use crate::drill::progress::Line;
use crate::drill::{Drill, Options, html};

/// Arguments of `drill`.
#[derive(Args, Debug)]
pub struct DrillArgs {
    /// The policy whose application is drilled
    #[arg(long, value_name = "NAME")]
    policy: String,

    /// What happens: rollout, pod-delete[=POD], node-drain[=NODE] (its pods of this application only), scale=REPLICAS, or
    /// nothing[=SECONDS]
    #[arg(long, default_value = "rollout", value_parser = event)]
    event: Event,

    /// How the application is used.
    #[command(flatten)]
    description: DescriptionArgs,

    /// What users type, such as <https://shop.example.com>; absent = what the policy's first route says
    #[arg(long, help_heading = "Application")]
    url: Option<url::Url>,

    /// Address to connect to instead of the one that the name in the URL has
    #[arg(long, value_name = "HOST:PORT", help_heading = "Application")]
    connect: Option<String>,

    /// PEM file with the authorities to trust; absent = the public ones
    #[arg(long, value_name = "FILE", help_heading = "Application")]
    ca: Option<PathBuf>,

    /// Users who stay logged in
    #[arg(long, default_value_t = 100, help_heading = "Users")]
    users: u32,

    /// Users who log out before the event; their sessions must not come back
    #[arg(long, default_value_t = 0, help_heading = "Users")]
    leavers: u32,

    /// Requests of each user in a second
    #[arg(long, default_value_t = 1.0, help_heading = "Users")]
    rate: f64,

    /// Seconds before the event
    #[arg(long, default_value_t = 5.0, help_heading = "Users")]
    before: f64,

    /// Seconds after the event
    #[arg(long, default_value_t = 5.0, help_heading = "Users")]
    settle: f64,

    /// Limit for one request, in seconds
    #[arg(long, default_value_t = 5.0, help_heading = "Users")]
    timeout: f64,

    /// Limit for the event, in seconds
    #[arg(long, default_value_t = 600.0, help_heading = "Users")]
    event_limit: f64,

    /// Format
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,

    /// Also write a page with a line over time for every user
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// How to show what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// Everything as JSON.
    Json,
    /// Everything as YAML.
    Yaml,
}

/// Drills the application of a policy. Sessions that were lost against the promise are an error.
pub async fn run(args: &DrillArgs, connection: &ConnectionArgs) -> Result<(), CliError> {
    // What can be wrong with the arguments is said before anybody logs in.
    let application = args.description.application()?;
    let options = args.options()?;
    let client = connection.client().await?;
    let policy = find(&client, &args.policy).await?;
    let target = address::target(&client, &policy, args).await?;
    let deployment = &policy.spec.target_ref.name;
    let workload = Workload::new(client.clone(), client.default_namespace(), deployment);
    let promise = verdict::promise(&policy, &args.event, workload.replicas().await?);
    let drill = Drill::new(application, target, options)?;
    if !args.yes && !matches!(args.event, Event::Nothing(_)) {
        let text = format!(
            "{} users will be logged in, and then: {} of Deployment {}/{deployment}. Go on? [y/N] ",
            args.users + args.leavers,
            args.event,
            client.default_namespace(),
        );
        if !question::confirmed(&text)? {
            return Err("nothing was done".into());
        }
    }
    let line = Line::show(drill.counters());
    let event = &args.event;
    let report = drill
        .run(&event.to_string(), async |marks| {
            workload.cause(event, &marks).await
        })
        .await;
    drop(line);
    let report = report.map_err(|error| chain(&error))?;
    let verdict = Verdict::new(promise, &report);
    match args.output {
        Format::Table => output::print(&output::printable(&format!(
            "{}\n{}\n",
            report.table(),
            verdict.sentence()
        )))?,
        Format::Json | Format::Yaml => {
            let whole = json!({"promised": verdict.promise(), "agrees": verdict.agrees(), "report": report});
            let text = if args.output == Format::Json {
                format!("{}\n", serde_json::to_string_pretty(&whole)?)
            } else {
                serde_saphyr::to_string(&whole)?
            };
            output::print(&text)?;
        }
    }
    if let Some(file) = &args.html {
        std::fs::write(file, html::page(&report, &verdict.sentence()))
            .map_err(|error| format!("{}: {error}", file.display()))?;
        eprintln!("written: {}", file.display());
    }
    if verdict.agrees() {
        Ok(())
    } else {
        Err("sessions fared worse than the status of the policy promises".into())
    }
}

impl DrillArgs {
    fn options(&self) -> Result<Options, CliError> {
        let seconds = |name: &str, value: f64| {
            Duration::try_from_secs_f64(value)
                .map_err(|_| format!("--{name} {value}: expected a number of seconds from 0"))
        };
        if self.rate <= 0.0 || !self.rate.is_finite() {
            return Err(format!("--rate {}: expected a number above 0", self.rate).into());
        }
        Ok(Options {
            members: self.users,
            leavers: self.leavers,
            period: seconds("rate", 1.0 / self.rate)?,
            timeout: seconds("timeout", self.timeout)?,
            before: seconds("before", self.before)?,
            settle: seconds("settle", self.settle)?,
            event_limit: seconds("event-limit", self.event_limit)?,
            ..Options::default()
        })
    }
}

async fn find(client: &Client, name: &str) -> Result<SessionPolicy, CliError> {
    let policies: Api<SessionPolicy> = Api::default_namespaced(client.clone());
    policies
        .get_opt(name)
        .await
        .map_err(|error| super::status::explain(&error))?
        .ok_or_else(|| super::status::not_found(client.default_namespace(), name))
}

/// An error with everything that led to it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn event(text: &str) -> Result<Event, String> {
    let (kind, value) = text
        .split_once('=')
        .map_or((text, None), |(kind, value)| (kind, Some(value)));
    match (kind, value) {
        ("rollout", None) => Ok(Event::Restart),
        ("pod-delete", name) => Ok(Event::DeletePod(name.map(str::to_owned))),
        ("node-drain", name) => Ok(Event::DrainNode(name.map(str::to_owned))),
        ("scale", Some(replicas)) => replicas
            .parse()
            .ok()
            .filter(|replicas| *replicas >= 0)
            .map(Event::Scale)
            .ok_or_else(|| format!("scale={replicas}: expected a number of replicas from 0")),
        ("nothing", value) => value
            .unwrap_or("10")
            .parse()
            .ok()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .map(Event::Nothing)
            .ok_or_else(|| format!("{text}: expected nothing=SECONDS")),
        _ => Err(
            "expected rollout, pod-delete[=POD], node-drain[=NODE], scale=REPLICAS or nothing[=SECONDS]"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_they_are_documented() {
        assert_eq!(event("rollout"), Ok(Event::Restart));
        assert_eq!(event("pod-delete"), Ok(Event::DeletePod(None)));
        assert_eq!(
            event("pod-delete=a-1"),
            Ok(Event::DeletePod(Some("a-1".to_owned())))
        );
        assert_eq!(
            event("node-drain=n2"),
            Ok(Event::DrainNode(Some("n2".to_owned())))
        );
        assert_eq!(event("scale=0"), Ok(Event::Scale(0)));
        assert_eq!(
            event("nothing=0.5"),
            Ok(Event::Nothing(Duration::from_millis(500)))
        );
        for bad in [
            "scale",
            "scale=-1",
            "scale=x",
            "nothing=x",
            "rollout=now",
            "meteor",
            "",
        ] {
            assert!(event(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let cause = std::io::Error::other("the cause");
        let error = crate::drill::Error::Event {
            name: "a pod deleted".to_owned(),
            source: Box::new(cause),
        };
        assert_eq!(chain(&error), "event \"a pod deleted\" failed: the cause");
    }
}
