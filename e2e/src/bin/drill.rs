//! Drills an application from the command line: the shop, or any other that a YAML file describes.
//!
//! Without an event of the cluster it needs no Kubernetes at all.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use e2e::app::SHOP;
use session_operator::drill::event::{Event, Workload};
use session_operator::drill::progress::Line;
use session_operator::drill::{Application, Drill, Options, Target};

/// Acts as users of a web application and says what became of every session.
#[derive(Debug, Parser)]
struct Arguments {
    /// Address to connect to.
    #[arg(long, default_value = "10.90.0.1:30080")]
    target: SocketAddr,
    /// Host that users type.
    #[arg(long, default_value = "shop.test")]
    host: String,
    /// PEM file with the authorities to trust; absent = no TLS.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// YAML file that describes the application; absent = the shop.
    #[arg(long)]
    application: Option<PathBuf>,
    /// Users who stay logged in.
    #[arg(long, default_value_t = 200)]
    users: u32,
    /// Users who log out before the event.
    #[arg(long, default_value_t = 0)]
    leavers: u32,
    /// Requests of each user in a second.
    #[arg(long, default_value_t = 1.0)]
    rate: f64,
    /// Visitors without cookies in a second.
    #[arg(long, default_value_t = 0.0)]
    newcomers: f64,
    /// A connection for each request.
    #[arg(long)]
    fresh_connections: bool,
    /// Seconds before the event.
    #[arg(long, default_value_t = 5.0)]
    before: f64,
    /// Seconds after the event.
    #[arg(long, default_value_t = 5.0)]
    settle: f64,
    /// Limit for one request, in seconds.
    #[arg(long, default_value_t = 5.0)]
    timeout: f64,
    /// What happens: nothing[=SECONDS], delete-pod[=NAME], scale=REPLICAS, restart.
    #[arg(long, default_value = "nothing=5", value_parser = event)]
    event: Event,
    /// Namespace of the Deployment that the event is about.
    #[arg(long, default_value = "shop")]
    namespace: String,
    /// The Deployment that the event is about.
    #[arg(long, default_value = "shop")]
    deployment: String,
    /// Print the whole report as JSON.
    #[arg(long)]
    json: bool,
}

fn event(text: &str) -> Result<Event, String> {
    let (kind, value) = text
        .split_once('=')
        .map_or((text, None), |(kind, value)| (kind, Some(value)));
    match (kind, value) {
        ("nothing", None) => Ok(Event::Nothing(Duration::from_secs(5))),
        ("nothing", Some(seconds)) => {
            let seconds = seconds
                .parse()
                .ok()
                .and_then(|s| Duration::try_from_secs_f64(s).ok());
            seconds
                .map(Event::Nothing)
                .ok_or_else(|| "nothing=SECONDS needs a number".to_owned())
        }
        ("delete-pod", name) => Ok(Event::DeletePod(name.map(str::to_owned))),
        ("scale", Some(replicas)) => {
            let replicas = replicas.parse().ok().filter(|replicas| *replicas >= 0);
            replicas
                .map(Event::Scale)
                .ok_or_else(|| "scale=REPLICAS needs a number from 0".to_owned())
        }
        ("restart", None) => Ok(Event::Restart),
        _ => Err("expected nothing[=SECONDS], delete-pod[=NAME], scale=REPLICAS or restart".to_owned()),
    }
}

impl Arguments {
    fn options(&self) -> Result<Options> {
        let seconds = |name: &str, value: f64| {
            Duration::try_from_secs_f64(value).with_context(|| format!("--{name} {value} is no time"))
        };
        let period = |name: &str, rate: f64| {
            if rate <= 0.0 {
                bail!("--{name} {rate}: expected a number above 0");
            }
            seconds(name, 1.0 / rate)
        };
        Ok(Options {
            members: self.users,
            leavers: self.leavers,
            period: period("rate", self.rate)?,
            timeout: seconds("timeout", self.timeout)?,
            keep_alive: !self.fresh_connections,
            before: seconds("before", self.before)?,
            settle: seconds("settle", self.settle)?,
            newcomer_period: if self.newcomers == 0.0 {
                None
            } else {
                Some(period("newcomers", self.newcomers)?)
            },
            ..Options::default()
        })
    }

    fn target(&self) -> Result<Target> {
        Ok(match &self.ca {
            None => Target::http(self.target, &self.host)?,
            Some(path) => {
                let roots = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
                Target::https(self.target, &self.host, &roots)?
            }
        })
    }

    fn application(&self) -> Result<Application> {
        let Some(path) = &self.application else {
            return SHOP.application();
        };
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Application::from_yaml(&text).with_context(|| path.display().to_string())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(run()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("drill: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let arguments = Arguments::parse();
    let drill = Drill::new(
        arguments.application()?,
        arguments.target()?,
        arguments.options()?,
    )?;
    let line = Line::show(drill.counters());
    let event = &arguments.event;
    let report = if let Event::Nothing(time) = event {
        let time = *time;
        drill
            .run("nothing", async |_| {
                tokio::time::sleep(time).await;
                Ok::<_, std::convert::Infallible>(())
            })
            .await?
    } else {
        let client = kube::Client::try_default()
            .await
            .context("an event of the cluster needs KUBECONFIG")?;
        let workload = Workload::new(client, &arguments.namespace, &arguments.deployment);
        drill
            .run(&event.to_string(), async |marks| {
                workload.cause(event, &marks).await
            })
            .await?
    };
    drop(line);
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report.table());
    }
    Ok(())
}
