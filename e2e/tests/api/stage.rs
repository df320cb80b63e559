//! The two API servers that the tests run against, as `e2e/stage api` has started them.
//!
//! Nothing but etcd and kube-apiserver runs there: no controller reacts to anything, so whatever changes was changed
//! by a test or by an operator under test.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::wait::LIMIT;

/// The top folder of the repository.
static REPOSITORY: LazyLock<PathBuf> = LazyLock::new(|| {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
});

/// Serves one operator for all namespaces, which most tests share.
pub static MAIN: LazyLock<Stage> = LazyLock::new(|| Stage::from_environment("MAIN"));

/// Serves tests that start operators of their own or disturb the API server.
pub static FAULTS: LazyLock<Stage> = LazyLock::new(|| Stage::from_environment("FAULTS"));

/// One API server.
#[derive(Debug)]
pub struct Stage {
    /// Names the run of `e2e/cluster/cluster`.
    suffix: String,
    /// Kubeconfig of an administrator.
    pub kubeconfig: PathBuf,
    /// The API server's audit log.
    pub audit_log: PathBuf,
}

/// The value of an environment variable that `e2e/stage` sets.
pub fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: these tests need API servers and a built operator; run `make test-api`, or ONLY=name make test-api")
    })
}

/// Folder for the logs and process records of this run.
pub fn run_folder() -> PathBuf {
    PathBuf::from(setting("API_TEST_RUN"))
}

impl Stage {
    fn from_environment(name: &str) -> Self {
        Self {
            suffix: setting(&format!("API_TEST_{name}_SUFFIX")),
            kubeconfig: setting(&format!("API_TEST_{name}_KUBECONFIG")).into(),
            audit_log: setting(&format!("API_TEST_{name}_AUDIT_LOG")).into(),
        }
    }

    /// A client with all rights. Each test makes its own: a client lives on the runtime that made it.
    pub async fn client(&self) -> Client {
        client_of(&self.kubeconfig).await
    }

    /// Runs kubectl as administrator and returns what it prints.
    pub fn kubectl<A: AsRef<OsStr>>(&self, arguments: &[A]) -> String {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        printed(command)
    }

    /// Applies manifests by server-side apply; other tests may apply the same ones at the same time.
    pub fn apply_manifests(&self, yaml: &str) {
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["apply", "--server-side", "--force-conflicts", "--filename", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(yaml.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "kubectl apply: {}", text(&output.stderr));
    }

    /// Installs the chart's objects (accounts, roles, CRD; no controller makes pods here) into a namespace of their
    /// own. `watched` empty = all namespaces.
    pub fn install_chart(&self, namespace: &str, watched: &[&str]) {
        self.install_chart_with(namespace, watched, &[]);
    }

    /// [`Self::install_chart`], with more arguments for Helm.
    pub fn install_chart_with(&self, namespace: &str, watched: &[&str], more: &[&str]) {
        let mut command = Command::new("helm");
        command
            .args(["template", RELEASE])
            .arg(REPOSITORY.join("charts/session-operator"))
            .args(["--namespace", namespace, "--kube-version", "1.33.0"])
            // What Helm finds out by itself when it has a cluster: the mode of injection follows from it.
            .args(["--api-versions", "v1/Pod"]);
        if self.serves_admission_policies() {
            command.args([
                "--api-versions",
                "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy",
            ]);
        }
        if !watched.is_empty() {
            command.args(["--set", &format!("watchNamespaces={{{}}}", watched.join(","))]);
        }
        command.args(more);
        let manifests = printed(command);
        self.apply_manifests(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n"
        ));
        self.apply_manifests(&manifests);
        self.until_served(POLICY_CRD);
    }

    /// Whether this API server has MutatingAdmissionPolicies.
    pub fn serves_admission_policies(&self) -> bool {
        self.kubectl(&["get", "--raw", "/apis/admissionregistration.k8s.io/v1"])
            .contains("mutatingadmissionpolicies")
    }

    /// Brings the custom resource back into the state that the chart gives it.
    pub fn restore_policy_crd(&self) {
        let file = REPOSITORY.join(format!("crds/{POLICY_CRD}.yaml"));
        self.apply_manifests(&std::fs::read_to_string(file).unwrap());
        self.until_served(POLICY_CRD);
    }

    /// Waits until a custom resource is served.
    pub fn until_served(&self, crd: &str) {
        // Not `kubectl wait`: it fails on a definition that has no condition at all yet.
        let path = "jsonpath={.status.conditions[?(@.type==\"Established\")].status}";
        let deadline = Instant::now() + LIMIT;
        while self.kubectl(&["get", "crd", crd, "--output", path]) != "True" {
            assert!(Instant::now() < deadline, "{crd} is not established");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Deletes a custom resource with all its objects, if it is there.
    pub fn delete_crd(&self, crd: &str) {
        self.kubectl(&["delete", "crd", crd, "--ignore-not-found", "--timeout=90s"]);
    }

    /// Writes a kubeconfig with a token of a service account and returns its path.
    pub fn account_kubeconfig(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.kubectl(&["--namespace", namespace, "create", "token", account]);
        let raw = self.kubectl(&["config", "view", "--raw", "--minify", "--output", "json"]);
        let mut config: serde_json::Value = serde_json::from_str(&raw).unwrap();
        config["users"] = serde_json::json!([{"name": account, "user": {"token": token.trim()}}]);
        config["contexts"][0]["context"]["user"] = account.into();
        config["contexts"][0]["context"]["namespace"] = namespace.into();
        let path = run_folder().join(format!(
            "{account}-{namespace}-{:08x}.kubeconfig",
            fastrand::u32(..)
        ));
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Kills the API server, starts it again and waits until it is ready.
    pub fn restart_api_server(&self) {
        let killed = jiff::Timestamp::now();
        self.cluster("kill-apiserver");
        self.cluster("start-apiserver");
        let window = format!("{killed} {}\n", jiff::Timestamp::now());
        let mut record = File::options()
            .create(true)
            .append(true)
            .open(self.outages())
            .unwrap();
        record.write_all(window.as_bytes()).unwrap();
    }

    /// When the API server was not ready, by tests' own doing: from, to.
    pub fn windows_of_outages(&self) -> Vec<(jiff::Timestamp, jiff::Timestamp)> {
        let record = match std::fs::read_to_string(self.outages()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
            record => record.unwrap(),
        };
        let windows = record.lines().map(|line| line.split_once(' ').unwrap());
        windows
            .map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap()))
            .collect()
    }

    fn outages(&self) -> PathBuf {
        run_folder().join(format!("{}.outages", self.suffix))
    }

    /// Runs a verb of `e2e/cluster/cluster` on this stage.
    fn cluster(&self, verb: &str) {
        let mut command = Command::new(REPOSITORY.join("e2e/cluster/cluster"));
        command.args(["--stage", "api", "--suffix", &self.suffix, verb]);
        printed(command);
    }
}

/// Release name of the chart; with this one the names of its objects are those of the chart.
pub const RELEASE: &str = "session-operator";

/// Name of the custom resource definition of policies.
pub const POLICY_CRD: &str = "sessionpolicies.session-operator.dev";

/// A manifest of the test cluster.
pub fn cluster_manifest(name: &str) -> String {
    std::fs::read_to_string(REPOSITORY.join("e2e/cluster/manifests").join(name)).unwrap()
}

/// A client with the rights of a kubeconfig.
pub async fn client_of(kubeconfig: &std::path::Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

/// Runs a command that has to succeed and returns what it prints.
pub fn printed(mut command: Command) -> String {
    let output = run(&mut command);
    assert!(
        output.status.success(),
        "{command:?} failed: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Runs a command.
pub fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

/// Output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
