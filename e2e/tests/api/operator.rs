//! The operator under test: the real binary, as a process, with a token of the chart's service account.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::LazyLock;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::audit::{self, Request};
use crate::stage::{self, RELEASE, Stage, printed, run_folder, setting};
use crate::wait::until;

/// Ports for probes: below those that the kernel gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 12_000..20_000;

/// The operator that most tests share. It ends when `e2e/stage` does.
static SHARED: LazyLock<Operator> = LazyLock::new(|| {
    stage::MAIN.install_chart(RELEASE, &[]);
    stage::MAIN.apply_manifests(&stage::cluster_manifest("traefik-crds.yaml"));
    stage::MAIN.apply_manifests(HTTP_PROXY_CRD);
    stage::MAIN.apply_manifests(CLASSES);
    Operator::start(&stage::MAIN, RELEASE, &[])
});

/// The kind of Contour.
pub const HTTP_PROXY_CRD: &str = include_str!("http-proxy-crd.yaml");

/// Ingress classes as the controllers' own charts make them; `apisix` stands for one that no adapter knows.
pub const CLASSES: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: traefik}
spec: {controller: traefik.io/ingress-controller}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
spec: {controller: k8s.io/ingress-nginx}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: apisix}
spec: {controller: apisix.apache.org/apisix-ingress}
";

/// The operator binary.
pub fn binary() -> PathBuf {
    PathBuf::from(setting("API_TEST_OPERATOR"))
}

/// A running operator.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    record: PathBuf,
    /// Where its log goes.
    pub log: PathBuf,
    /// Begin of its identity in the lease.
    name: String,
    port: u16,
    stage: &'static Stage,
    /// Names its token in the audit log.
    credential: String,
}

impl Operator {
    /// The shared operator, ready.
    pub async fn shared() -> &'static Self {
        // Off the runtime: the first caller runs kubectl and helm for some seconds.
        let shared: &'static Self = tokio::task::spawn_blocking(|| &*SHARED).await.unwrap();
        shared.until_ready().await;
        shared
    }

    /// Starts an operator with the rights of the chart installed in `namespace`, whose lease it uses.
    pub fn start(stage: &'static Stage, namespace: &str, watched: &[&str]) -> Self {
        Self::start_with(stage, namespace, watched, &[])
    }

    /// [`Self::start`], with more arguments for the operator.
    pub fn start_with(stage: &'static Stage, namespace: &str, watched: &[&str], more: &[String]) -> Self {
        let kubeconfig = stage.account_kubeconfig(namespace, RELEASE);
        let credential = credential(&kubeconfig);
        let port = free_port();
        let name = format!("operator-{namespace}-{port}");
        let log = run_folder().join(format!("{name}.log"));
        let mut command = Command::new(binary());
        command
            .arg("run")
            .args(["--lease-namespace", namespace, "--lease-name", RELEASE])
            .args(["--http-port", &port.to_string(), "--identity", &name])
            .args([
                "--log-format",
                "human",
                "--log-level",
                "info,session_operator=debug",
            ])
            .env("KUBECONFIG", &kubeconfig)
            .stdin(std::process::Stdio::null())
            .stdout(File::create(&log).unwrap())
            .stderr(File::options().append(true).open(&log).unwrap());
        if !watched.is_empty() {
            command.args(["--namespaces", &watched.join(",")]);
        }
        command.args(more);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", binary().display()));
        // What a killed test leaves running, e2e/stage ends by this record.
        let record = run_folder().join("pids").join(child.id().to_string());
        std::fs::write(&record, &name).unwrap();
        Self {
            child,
            record,
            log,
            name,
            port,
            stage,
            credential,
        }
    }

    /// Waits until its caches are filled.
    pub async fn until_ready(&self) {
        until(
            &format!("/readyz of the operator ({})", self.log.display()),
            || async {
                let answer = self.get("/readyz").await?;
                answer.starts_with("HTTP/1.1 200").then_some(()).ok_or(answer)
            },
        )
        .await;
    }

    /// Waits until it leads.
    pub async fn until_leading(&self) {
        until(
            &format!("the operator to lead ({})", self.log.display()),
            || async {
                let leads = self.metric("session_operator_leader").await?;
                (leads >= 1.0)
                    .then_some(())
                    .ok_or_else(|| "it does not lead".to_owned())
            },
        )
        .await;
    }

    /// The sum of a metric over all its labels.
    pub async fn metric(&self, name: &str) -> Result<f64, String> {
        let text = self.get("/metrics").await?;
        let values = text
            .lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with([' ', '{']))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(values.sum())
    }

    /// Finished reconciles so far.
    pub async fn reconciles(&self) -> f64 {
        self.metric("session_operator_reconcile_total").await.unwrap()
    }

    /// Waits until `more` reconciles have ended since there were `before`, and none runs or waits.
    pub async fn until_reconciled(&self, before: f64, more: f64) {
        until("reconciles to end", || async {
            let now = self.metric("session_operator_reconcile_total").await?;
            let busy = self.metric("session_operator_reconcile_in_flight").await?
                + self.metric("session_operator_queue_depth").await?;
            (now >= before + more && busy == 0.0)
                .then_some(())
                .ok_or_else(|| format!("{} reconciles, {busy} under way", now - before))
        })
        .await;
    }

    async fn get(&self, path: &str) -> Result<String, String> {
        let exchange = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        match tokio::time::timeout(Duration::from_secs(5), exchange).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    }

    /// Every finished request of this process, as the API server saw it.
    pub fn requests(&self) -> Vec<Request> {
        audit::requests(&self.stage.audit_log, |request| {
            request.credential == self.credential && request.is_of_an_operator()
        })
    }

    /// Its requests that change something, the lease apart.
    pub fn writes(&self) -> Vec<Request> {
        let mut writes = self.requests();
        writes.retain(|request| request.is_write() && request.resource != "leases");
        writes
    }

    /// Its resident memory in MB.
    pub fn resident_mb(&self) -> f64 {
        let bytes = e2e::process::resident_of(&self.proc()).unwrap();
        #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
        let bytes = bytes.expect("it runs") as f64;
        bytes / 1e6
    }

    /// How long it has computed (utime and stime of proc(5), in ticks of 10 ms).
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(self.proc().join("stat")).unwrap();
        let fields = stat.rsplit_once(") ").unwrap().1;
        let ticks = fields.split(' ').skip(11).take(2);
        Duration::from_millis(ticks.map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
    }

    /// What the kernel says of it.
    fn proc(&self) -> PathBuf {
        PathBuf::from("/proc").join(self.child.id().to_string())
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        kill.args(["-s", name, &self.child.id().to_string()]);
        printed(kill);
    }

    /// Waits for it to end by itself.
    pub async fn until_ended(&mut self) -> ExitStatus {
        let child = std::sync::Mutex::new(&mut self.child);
        until("the operator to end", || async {
            child
                .lock()
                .unwrap()
                .try_wait()
                .unwrap()
                .ok_or_else(|| "it runs".to_owned())
        })
        .await
    }

    /// Whether a lease names it as the holder.
    pub fn is_called(&self, holder: &str) -> bool {
        holder.starts_with(&self.name)
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Asks it to end and waits until it has.
    pub async fn stop(mut self) {
        self.signal("TERM");
        let status = self.until_ended().await;
        assert!(
            status.success(),
            "the operator ended with {status}; log: {}",
            self.log.display()
        );
    }

    /// Ends it at once.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // A panic in drop during unwinding would hide the test's own: the record is left for e2e/stage then.
        if self.child.kill().is_ok() && self.child.wait().is_ok() {
            _ = std::fs::remove_file(&self.record);
        }
    }
}

/// What the audit log calls the token of a kubeconfig.
fn credential(kubeconfig: &std::path::Path) -> String {
    let mut whoami = Command::new("kubectl");
    whoami
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["auth", "whoami", "--output", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&printed(whoami)).unwrap();
    let extra = &answer["status"]["userInfo"]["extra"];
    extra["authentication.kubernetes.io/credential-id"][0]
        .as_str()
        .unwrap_or_else(|| panic!("the token has no credential id: {answer}"))
        .to_owned()
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    std::iter::repeat_with(|| fastrand::u16(PORTS))
        .find(|port| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok())
        .unwrap()
}
