//! What a preset sees of a container: the host's programs as the image, mounts of its own, an environment that is put
//! together as the kubelet does it, and a user who is not root.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Container;
use session_operator::framework::{AGENT_DIR, AGENT_VOLUME, CA_FILE, Parts, Preflight};
use tokio::process::{Child, Command};

/// Variables by name.
pub type Environment = BTreeMap<String, String>;

/// The user in the sandbox: www-data.
const USER: &str = "33";

/// A place to run an application in. Everything that runs in one ends when it is dropped.
#[derive(Clone, Debug)]
pub struct Sandbox {
    folder: PathBuf,
    /// (from, to, writable)
    binds: Vec<(PathBuf, String, bool)>,
    /// What the image sets.
    pub image: Environment,
    /// The container of the pod template.
    pub container: Container,
    /// Where commands start.
    pub workdir: Option<String>,
    added: Option<(Parts, BTreeMap<String, String>)>,
}

impl Sandbox {
    /// A sandbox with its files in a folder.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            binds: Vec::new(),
            image: [
                ("PATH", "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin"),
                ("LANG", "C.UTF-8"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            container: Container {
                name: "app".to_owned(),
                ..Container::default()
            },
            workdir: None,
            added: None,
        }
    }

    /// Shows a file or folder of the host under a path.
    pub fn show(mut self, from: &Path, to: &str) -> Self {
        self.binds.push((from.to_owned(), to.to_owned(), false));
        self
    }

    /// As [`Self::show`], and the application may write there.
    pub fn writable(mut self, from: &Path, to: &str) -> Self {
        self.binds.push((from.to_owned(), to.to_owned(), true));
        self
    }

    /// A folder that the application writes to.
    pub fn scratch(self, to: &str) -> Result<Self> {
        let from = self.folder.join(format!("scratch{}", self.binds.len()));
        fs::create_dir_all(&from)?;
        Ok(self.writable(&from, to))
    }

    /// Runs a preflight in the image, as the operator does: with the container's environment and nothing added. Gives its
    /// answer.
    pub async fn preflight(&self, preflight: &Preflight) -> Result<serde_json::Value> {
        let log = self.folder.join("termination-log");
        fs::write(&log, "")?;
        let mut sandbox = self.clone();
        sandbox
            .binds
            .push((log.clone(), "/dev/termination-log".to_owned(), true));
        let output = sandbox.command(&preflight.command)?.output().await?;
        ensure!(output.status.success(), "the preflight ends with {output:?}");
        let answer = fs::read_to_string(log)?;
        serde_json::from_str(&answer).with_context(|| format!("the preflight answers {answer:?}; {output:?}"))
    }

    /// Adds what a preset asks for: files through the program of the agents image, mounts, variables.
    pub async fn add(
        &mut self,
        parts: Parts,
        binding: BTreeMap<String, String>,
        authority: Option<&Path>,
    ) -> Result<()> {
        let volume = self.folder.join("agent");
        if let Some(folder) = parts.agent {
            install(folder, &volume).await?;
            self.binds.push((volume.clone(), AGENT_DIR.to_owned(), false));
        }
        for mount in &parts.mounts {
            ensure!(mount.name == AGENT_VOLUME, "a mount of another volume: {mount:?}");
            let from = volume.join(mount.sub_path.as_deref().unwrap_or_default());
            ensure!(from.exists(), "the agents image lacks what {mount:?} needs");
            self.binds.push((from, mount.mount_path.clone(), false));
        }
        if let Some(authority) = authority {
            self.binds.push((authority.to_owned(), CA_FILE.to_owned(), false));
        }
        self.added = Some((parts, binding));
        Ok(())
    }

    /// The environment in which the application starts.
    pub fn environment(&self) -> Result<Environment> {
        let mut variables = Variables::default();
        for variable in self.container.env.iter().flatten() {
            variables.set(&variable.name, variable.value.as_deref().unwrap_or_default());
        }
        let own = variables.0.clone();
        if let Some((parts, binding)) = &self.added {
            for variable in &parts.env {
                ensure!(
                    !own.contains_key(&variable.name),
                    "{} is defined twice",
                    variable.name
                );
                let reference = variable
                    .value_from
                    .as_ref()
                    .and_then(|from| from.secret_key_ref.as_ref());
                let Some(reference) = reference else {
                    variables.set(&variable.name, variable.value.as_deref().unwrap_or_default());
                    continue;
                };
                if let Some(value) = binding.get(&reference.key) {
                    variables.0.insert(variable.name.clone(), value.clone());
                } else {
                    let optional = reference.optional == Some(true);
                    ensure!(optional, "the binding has no key {}", reference.key);
                }
            }
            for extension in &parts.extend {
                let value = if own.contains_key(&extension.name) {
                    &extension.when_set
                } else {
                    &extension.when_unset
                };
                variables.set(&extension.name, value);
            }
        }
        let mut environment = self.image.clone();
        environment.extend(variables.0);
        Ok(environment)
    }

    /// A command in the sandbox.
    pub fn command(&self, command: &[impl AsRef<str>]) -> Result<Command> {
        let mut bwrap = Command::new("bwrap");
        bwrap
            .args(["--unshare-user", "--uid", USER, "--gid", USER])
            .args([
                "--unshare-pid",
                "--unshare-ipc",
                "--die-with-parent",
                "--new-session",
                "--clearenv",
            ])
            .args(["--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc"])
            .args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
        for name in ["bin", "sbin", "lib", "lib64"] {
            bwrap.args(["--symlink", &format!("usr/{name}"), &format!("/{name}")]);
        }
        for (from, to, writable) in &self.binds {
            bwrap.arg(if *writable { "--bind" } else { "--ro-bind" });
            bwrap.arg(from).arg(to);
        }
        for (name, value) in self.environment()? {
            bwrap.args(["--setenv", &name, &value]);
        }
        if let Some(workdir) = &self.workdir {
            bwrap.args(["--chdir", workdir]);
        }
        bwrap.arg("--").args(command.iter().map(AsRef::as_ref));
        bwrap.stdin(Stdio::null()).kill_on_drop(true);
        Ok(bwrap)
    }

    /// Starts a server in the sandbox; what it prints goes to the log.
    pub fn start(&self, command: &[impl AsRef<str>]) -> Result<Child> {
        let log = fs::File::options().create(true).append(true).open(self.log())?;
        let mut bwrap = self.command(command)?;
        bwrap.stdout(log.try_clone()?).stderr(log);
        bwrap.spawn().context("bwrap")
    }

    /// Where servers log.
    pub fn log(&self) -> PathBuf {
        self.folder.join("app.log")
    }
}

/// `session-agents install FOLDER …`, with the folders where the image has them.
async fn install(folder: &str, volume: &Path) -> Result<()> {
    let files = variable("FRAMEWORK_TEST_FILES")?;
    let program = variable("FRAMEWORK_TEST_PROGRAM")?;
    fs::create_dir_all(volume)?;
    let output = Command::new("bwrap")
        .args(["--unshare-user", "--uid", "65532", "--gid", "65532"])
        .args([
            "--ro-bind",
            &program,
            "/session-agents",
            "--ro-bind",
            &files,
            "/agents",
        ])
        .args([
            "--ro-bind",
            "/usr",
            "/usr",
            "--symlink",
            "usr/lib",
            "/lib",
            "--symlink",
            "usr/lib64",
            "/lib64",
        ])
        .arg("--bind")
        .arg(volume)
        .args([AGENT_DIR, "/session-agents", "install", folder, AGENT_DIR])
        .output()
        .await
        .context("bwrap")?;
    ensure!(output.status.success(), "session-agents: {output:?}");
    Ok(())
}

/// A variable of the stage.
pub fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run `e2e/stage frameworks`"))
}

/// Variables as the kubelet resolves them, one after the other.
#[derive(Default)]
struct Variables(Environment);

impl Variables {
    fn set(&mut self, name: &str, value: &str) {
        let value = self.expanded(value);
        self.0.insert(name.to_owned(), value);
    }

    /// `$(NAME)` of what stands before it; `$$` is one `$`; what is not known stays as it is.
    fn expanded(&self, value: &str) -> String {
        let mut result = String::new();
        let mut rest = value;
        while let Some(at) = rest.find('$') {
            let (before, after) = rest.split_at(at);
            result.push_str(before);
            let after = &after[1..];
            if let Some(more) = after.strip_prefix('$') {
                result.push('$');
                rest = more;
            } else if let Some((name, more)) = after.strip_prefix('(').and_then(|text| text.split_once(')')) {
                let unknown = || format!("$({name})");
                result.push_str(&self.0.get(name).cloned().unwrap_or_else(unknown));
                rest = more;
            } else {
                result.push('$');
                rest = after;
            }
        }
        result + rest
    }
}

#[test]
fn variables_are_expanded_as_the_kubelet_does_it() {
    let mut variables = Variables::default();
    variables.set("A", "one");
    variables.set("B", "$(A):$$(A):$A:$(C):$");
    assert_eq!(variables.0["B"], "one:$(A):$A:$(C):$");
    variables.set("A", "$(A)+two");
    assert_eq!(variables.0["A"], "one+two");
}
