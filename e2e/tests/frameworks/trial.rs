//! One application, one preset, one store: users log in, every process is killed and started again, and nobody is lost.

use std::cell::RefCell;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use e2e::wait::eventually;
use http::header::COOKIE;
use http::{HeaderValue, Method};
use session_operator::api::session_policy::Framework;
use session_operator::drill::account::Class;
use session_operator::drill::application::{Step, Values};
use session_operator::drill::client::{Answer, Call, Client};
use session_operator::drill::{Application, Drill, Options, Report, Target};
use session_operator::framework::{Endpoint, Facts, Parts, Subject, preset};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::sandbox::Sandbox;
use crate::store::{Place, free_port};

/// How long an application may take to start on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(2);

/// How long an answer may take there, in seconds that nobody would wait elsewhere.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long a server that is asked to end may take; what holds it up holds it up for ever.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Somebody who is not logged in.
const NOBODY: Values<'_> = Values { user: "nobody", n: 0 };

const MEMBERS: u32 = 6;
const LEAVERS: u32 = 2;

/// A folder that goes with its test; it stays where the test fails, for a look.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("frameworks-{}-{name}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("files of the failed test are in {}", self.0.display());
        } else if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}

/// What a trial needs to know.
pub struct Trial {
    pub framework: Framework,
    pub sandbox: Sandbox,
    /// The servers, in the order in which they start; `PORT` in an argument is the port on which users come.
    pub servers: Vec<Vec<String>>,
    /// How users use it.
    pub application: Application,
    pub settings_module: Option<String>,
    pub ttl_seconds: Option<i32>,
    /// The port, if the servers cannot take any.
    pub port: u16,
}

impl Trial {
    pub fn new(framework: Framework, sandbox: Sandbox, drill: &str) -> Result<Self> {
        let application = fs::read_to_string(repository().join(drill)).with_context(|| drill.to_owned())?;
        Ok(Self {
            framework,
            sandbox,
            servers: Vec::new(),
            application: Application::from_yaml(&application)?,
            settings_module: None,
            ttl_seconds: None,
            port: free_port()?,
        })
    }

    pub fn server(mut self, command: &[&str]) -> Self {
        let port = self.port.to_string();
        self.servers.push(
            command
                .iter()
                .map(|argument| argument.replace("PORT", &port))
                .collect(),
        );
        self
    }

    /// Injects, and lets users through the death of every process.
    pub async fn run(mut self, store: &impl Place) -> Result<()> {
        let parts = self.inject(store).await?;
        let report = self.drill().await?;
        let table = report.table();
        println!("{table}");
        ensure!(
            report.count(Class::Kept) == MEMBERS,
            "not everybody was kept with {parts:?}:\n{table}\nthe application logged: {}",
            self.logged()
        );
        ensure!(
            report.count(Class::LoggedOut) == LEAVERS,
            "logouts did not last:\n{table}"
        );
        let keys = store.keys_of_ours(MEMBERS as usize).await?;
        if let Some(wanted) = self.ttl_seconds {
            let ttl = store.life(&keys[0]).await?;
            let wanted = i64::from(wanted);
            ensure!((wanted - 60..=wanted).contains(&ttl), "{}: {ttl} s", keys[0]);
        }
        Ok(())
    }

    /// Without a preset the same application loses everybody: else a trial would prove nothing.
    pub async fn run_without(self) -> Result<()> {
        let table = self.drill().await?;
        ensure!(
            table.count(Class::Lost) == MEMBERS,
            "sessions survive without a store:\n{}",
            table.table()
        );
        Ok(())
    }

    /// Adds what the preset asks for.
    pub async fn inject(&mut self, store: &impl Place) -> Result<Parts> {
        let preset = preset(self.framework);
        let facts = match preset.preflight(store.endpoint().engine, self.settings_module.as_deref()) {
            Some(preflight) => facts(&self.sandbox.preflight(&preflight).await?)?,
            None => Facts::new(),
        };
        println!("facts: {facts:?}");
        let endpoint = store.endpoint();
        let mut binding = preset.binding_keys(&endpoint, self.ttl_seconds);
        binding.extend(service_binding(&endpoint));
        let shown = Endpoint {
            password: None,
            ..endpoint
        };
        let parts = preset
            .parts(&Subject {
                container: &self.sandbox.container,
                volumes: &[],
                ttl_seconds: self.ttl_seconds,
                binding: "trial-session",
                endpoint: &shown,
                facts: &facts,
                settings_module: self.settings_module.as_deref(),
            })
            .map_err(|refusal| anyhow!("refused: {}", refusal.message))?;
        self.sandbox
            .add(parts.clone(), binding, store.authority().as_deref())
            .await?;
        Ok(parts)
    }

    async fn drill(&self) -> Result<Report> {
        let options = Options {
            members: MEMBERS,
            leavers: LEAVERS,
            period: Duration::from_millis(200),
            write_every: 3,
            before: Duration::from_secs(1),
            settle: Duration::from_secs(2),
            timeout: ANSWER_LIMIT,
            ..Options::default()
        };
        let target = self.target()?;
        let running = Mutex::new(self.start().await?);
        let drill = Drill::new(self.application.clone(), target, options)?;
        let report = drill
            .run("every process killed", async |_| {
                let mut running = running.lock().await;
                for mut server in running.drain(..) {
                    server.kill().await.map_err(|error| error.to_string())?;
                }
                *running = self.start().await.map_err(|error| format!("{error:#}"))?;
                Ok::<(), String>(())
            })
            .await;
        report.with_context(|| format!("the application logged: {}", self.logged()))
    }

    fn target(&self) -> Result<Target> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        Ok(Target::http(address, &format!("localhost:{}", self.port))?)
    }

    /// What somebody who is not logged in gets to see.
    pub async fn page(&self) -> Result<String> {
        let _running = self.start().await?;
        let question = self.application.check.request.call(NOBODY, &[]);
        let answer = self.ask(question.map_err(|reason| anyhow!(reason))?).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// What somebody who comes with a cookie gets to see.
    pub async fn answer_to(&self, cookie: &str) -> Result<Answer> {
        let mut answer = None;
        self.while_it_runs(async || {
            answer = Some(self.ask_with(cookie).await?);
            Ok(())
        })
        .await?;
        answer.context("an answer")
    }

    /// Does something while the servers run.
    pub async fn while_it_runs(&self, work: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
        let _running = self.start().await?;
        work().await
    }

    /// What somebody who comes with a cookie gets to see of servers that run.
    pub async fn ask_with(&self, cookie: &str) -> Result<Answer> {
        let request = &self.application.check.request;
        let cookie = (COOKIE, HeaderValue::from_str(cookie)?);
        let question = Call::new(Method::GET, &request.path, vec![cookie], Vec::new().into());
        self.ask(question.map_err(|reason| anyhow!(reason))?).await
    }

    /// Somebody who keeps their cookies.
    pub fn visitor(&self) -> Result<Client> {
        Ok(Client::new(self.target()?, false, ANSWER_LIMIT))
    }

    /// What somebody who logs in is answered.
    pub async fn log_in(&self, visitor: &mut Client, user: &str) -> Result<Answer> {
        take(&self.application.login, visitor, user).await
    }

    /// What somebody who puts something into their session is answered.
    pub async fn write(&self, visitor: &mut Client, user: &str) -> Result<Answer> {
        let write = self.application.write.as_ref().context("nothing is written")?;
        take(&write.request, visitor, user).await
    }

    /// A server that has served somebody and is asked to end does so by itself: nothing that was added keeps it alive.
    pub async fn ends_when_asked(&self) -> Result<()> {
        let mut running = self.start().await?;
        for server in &mut running {
            let pid = server.id().context("a server has ended")?;
            let innermost = innermost(pid)?;
            let asked = Command::new("kill")
                .args(["-TERM", &innermost.to_string()])
                .status()
                .await?;
            ensure!(asked.success(), "process {innermost} cannot be asked to end");
            let ended = timeout(END_LIMIT, server.wait()).await;
            ended
                .map_err(|_| anyhow!("a server goes on {END_LIMIT:?} after SIGTERM: {}", self.logged()))??;
        }
        Ok(())
    }

    async fn ask(&self, question: Call) -> Result<Answer> {
        let answer = self.visitor()?.send(&question).await;
        answer.map_err(|failure| anyhow!("no page: {failure}"))
    }

    /// Waits until nobody listens any more: the kernel ends what a killed sandbox contained a moment after it.
    async fn port_is_free(&self) -> Result<()> {
        eventually("the port of killed servers to be free", START_LIMIT, || async {
            let listening = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, self.port));
            Ok(listening.map(|_| ()).map_err(|error| error.to_string()))
        })
        .await
    }

    async fn start(&self) -> Result<Vec<Child>> {
        self.port_is_free().await?;
        let mut running = Vec::new();
        for server in &self.servers {
            running.push(self.sandbox.start(server)?);
        }
        let running = RefCell::new(running);
        // Some listen long before they serve.
        let question = self
            .application
            .check
            .request
            .call(NOBODY, &[])
            .map_err(|reason| anyhow!(reason))?;
        let target = self.target()?;
        let serves = eventually("the server serves", START_LIMIT, || async {
            for server in running.borrow_mut().iter_mut() {
                if let Some(status) = server.try_wait()? {
                    bail!("a server ended with {status}");
                }
            }
            let answer = Client::new(target.clone(), false, ANSWER_LIMIT)
                .send(&question)
                .await;
            Ok(match answer {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("status {}", answer.status)),
                Err(failure) => Err(failure.to_string()),
            })
        })
        .await;
        serves.with_context(|| format!("the application logged: {}", self.logged()))?;
        Ok(running.into_inner())
    }

    /// The end of what the servers have printed.
    fn logged(&self) -> String {
        let log = fs::read_to_string(self.sandbox.log()).unwrap_or_else(|error| error.to_string());
        let lines: Vec<&str> = log.lines().rev().take(40).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// A step of the application, taken by somebody.
async fn take(step: &Step, visitor: &mut Client, user: &str) -> Result<Answer> {
    let question = step.call(Values { user, n: 1 }, &[]);
    let answer = visitor.send(&question.map_err(|reason| anyhow!(reason))?).await;
    answer.map_err(|failure| anyhow!("no page: {failure}"))
}

/// The process at the end of a chain of only children: what runs in a sandbox (proc(5), `children`).
fn innermost(pid: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let mut children = children.split_whitespace();
    match (children.next(), children.next()) {
        (None, _) => Ok(pid),
        (Some(child), None) => innermost(child.parse()?),
        (Some(_), Some(_)) => bail!("process {pid} has several children"),
    }
}

/// The keys of the Service Binding specification that every binding Secret has.
fn service_binding(endpoint: &Endpoint) -> impl Iterator<Item = (String, String)> + use<> {
    [
        ("host", Some(endpoint.host.clone())),
        ("port", Some(endpoint.port.to_string())),
        ("username", endpoint.username.clone()),
        ("password", endpoint.password.clone()),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key.to_owned(), value?)))
}

fn facts(answer: &serde_json::Value) -> Result<Facts> {
    let facts = answer
        .get("facts")
        .ok_or_else(|| anyhow!("the preflight fails: {answer}"))?;
    Ok(serde_json::from_value(facts.clone())?)
}

/// Where this repository lies.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
