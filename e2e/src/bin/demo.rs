//! Four acts with users of the shop: without a policy, with one, what its `survives` is worth, and with the sessions in a
//! store.
//!
//! Expects a cluster that is up, an ingress controller at `--target`, the operator and the shop. Leaves the policy in
//! place, so that one can look around.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;
use e2e::app::{ROLLOUT_LIMIT, Running, SHOP};
use e2e::wait::eventually;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt};
use serde_json::Value;
use session_operator::api::{self, Outcome, SessionPolicy, conditions as api_conditions};
use session_operator::drill::event::Event;
use session_operator::drill::table::{self, Cell};
use session_operator::drill::{Class, Options, Report};

const NAMESPACE: &str = "shop";
const HOST: &str = "shop.test";

/// How long the operator may take to set a policy up, or to undo it.
const POLICY_LIMIT: Duration = Duration::from_secs(30);

/// The policy of the second act.
const POLICY: &str = "\
apiVersion: session-operator.dev/v1alpha1
kind: SessionPolicy
metadata:
  name: shop
  namespace: shop
spec:
  targetRef:
    name: shop
  strategy: Sticky
";

/// What the fourth act changes in it.
const SHARED: &str = "\
spec:
  strategy: Shared
  shared:
    store:
      engine: Redis
  client:
    framework: PHP
";

/// How long it may take until a store runs and every pod of the shop uses it.
const SHARED_LIMIT: Duration = Duration::from_mins(4);

/// Plays users of the shop against a running cluster.
#[derive(Debug, Parser)]
struct Arguments {
    /// Address of the ingress controller.
    #[arg(long, default_value = "10.90.0.1:30080")]
    target: SocketAddr,
    /// Users in each act.
    #[arg(long, default_value_t = 200)]
    users: u32,
}

/// One line of the final table.
struct Act {
    name: &'static str,
    promised: String,
    report: Report,
    /// What did not come out as stated.
    wrong: Vec<String>,
}

struct Demo {
    shop: Running,
    policies: Api<SessionPolicy>,
    entry: SocketAddr,
    users: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    match play().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn play() -> Result<()> {
    let arguments = Arguments::parse();
    let client = Client::try_default()
        .await
        .context("no cluster: set KUBECONFIG, or see `e2e/cluster/cluster env`")?;
    let demo = Demo {
        shop: Running::new(&client, SHOP, NAMESPACE, HOST),
        policies: Api::namespaced(client, NAMESPACE),
        entry: arguments.target,
        users: arguments.users,
    };
    let begun = Instant::now();
    demo.reset().await?;
    let acts = [
        demo.without_policy().await?,
        demo.with_policy().await?,
        demo.pod_lost().await?,
        demo.shared().await?,
    ];
    print!("{}", closing(&acts, begun.elapsed()));
    let wrong: Vec<&str> = acts
        .iter()
        .flat_map(|act| &act.wrong)
        .map(String::as_str)
        .collect();
    ensure!(wrong.is_empty(), "not as stated: {}", wrong.join("; "));
    Ok(())
}

impl Demo {
    /// Takes back what an earlier demo left: the policy, the number of replicas.
    async fn reset(&self) -> Result<()> {
        if let Some(policy) = self.policies.get_opt("shop").await? {
            self.policies.delete("shop", &DeleteParams::default()).await?;
            let uid = policy.uid().unwrap_or_default();
            let gone = await_condition(self.policies.clone(), "shop", conditions::is_deleted(&uid));
            tokio::time::timeout(POLICY_LIMIT, gone)
                .await
                .context("the policy of an earlier demo does not go")??;
        }
        self.shop.settled().await?;
        let marks = session_operator::drill::Marks::begin();
        tokio::time::timeout(ROLLOUT_LIMIT, self.shop.workload.cause(&Event::Scale(3), &marks)).await??;
        self.shop.routed(self.entry).await
    }

    async fn drill(&self, before: u64, settle: u64, event: &Event) -> Result<Report> {
        let options = Options {
            members: self.users,
            // Gentle enough for two cores that also carry three nodes: what is shown is sessions, not load.
            period: Duration::from_secs(2),
            timeout: Duration::from_secs(10),
            before: Duration::from_secs(before),
            settle: Duration::from_secs(settle),
            ..Options::default()
        };
        let report = self.shop.drill(self.entry, options, event).await?;
        println!("{}", report.table());
        Ok(report)
    }

    async fn without_policy(&self) -> Result<Act> {
        heading("Act 1: no policy. The shop keeps sessions in files; requests go to any of its 3 pods.");
        let report = self.drill(2, 0, &Event::Nothing(Duration::from_secs(5))).await?;
        let mut wrong = Vec::new();
        if report.count(Class::Lost) * 2 <= self.users {
            wrong.push(format!(
                "act 1: {} of {} users were logged out, not most",
                report.count(Class::Lost),
                self.users
            ));
        }
        Ok(Act {
            name: "1 no policy",
            promised: "nothing".to_owned(),
            report,
            wrong,
        })
    }

    async fn with_policy(&self) -> Result<Act> {
        heading("Act 2: a SessionPolicy. The same users; then the shop is scaled from 3 to 5 pods.");
        println!("{POLICY}");
        let policy: SessionPolicy = serde_saphyr::from_str(POLICY)?;
        let applied = Instant::now();
        self.policies
            .create(&PostParams::default(), &policy)
            .await
            .context("creating the policy")?;
        let policy = self.ready().await?;
        let ready = applied.elapsed().as_millis();
        self.shop.sticky(self.entry).await?;
        println!(
            "Ready after {ready} ms, in effect at the ingress controller after {} ms.\n",
            applied.elapsed().as_millis()
        );
        let promised = promise(&policy, api::Event::ScaleUp)?;
        let report = self.drill(3, 4, &Event::Scale(5)).await?;
        let mut wrong = Vec::new();
        if promised != Outcome::Kept {
            wrong.push(format!("act 2: survives says ScaleUp {promised:?}"));
        }
        if report.count(Class::Kept) != self.users {
            wrong.push(format!(
                "act 2: {} of {} users stayed",
                report.count(Class::Kept),
                self.users
            ));
        }
        // A busy machine may be slow, but adding pods must break no request.
        let broken = report.failed() - report.failures.get("timeout").copied().unwrap_or(0);
        if broken > 0 {
            wrong.push(format!("act 2: {broken} requests failed"));
        }
        Ok(Act {
            name: "2 policy, scaled 3 to 5",
            promised: format!("ScaleUp {promised:?}"),
            report,
            wrong,
        })
    }

    async fn pod_lost(&self) -> Result<Act> {
        heading("Act 3: the policy says what it does not survive; a pod is deleted.");
        let policy = self.ready().await?;
        let survives = policy.status.as_ref().map(|status| &status.survives);
        println!(
            "kubectl -n shop get sesspol shop -o yaml\n…\n{}",
            serde_saphyr::to_string(&survives)?
        );
        let promised = promise(&policy, api::Event::PodLoss)?;
        let pods = self.shop.workload.pods().await?;
        let pod = pods
            .into_keys()
            .next()
            .ok_or_else(|| anyhow!("the shop has no pod"))?;
        let report = self.drill(3, 4, &Event::DeletePod(Some(pod.clone()))).await?;
        let expected = report.users_before(&pod);
        let lost = report.names(Class::Lost);
        println!(
            "Pod {pod} had {} users; {} users were logged out.",
            expected.len(),
            lost.len()
        );
        let mut wrong = Vec::new();
        if promised != Outcome::Lost {
            wrong.push(format!("act 3: survives says PodLoss {promised:?}"));
        }
        if expected.is_empty() || lost != expected {
            wrong.push(format!("act 3: on {pod} were {expected:?}, lost are {lost:?}"));
        }
        if report.count(Class::Kept) as usize + lost.len() != self.users as usize {
            wrong.push(format!("act 3: not everybody else stayed: {:?}", report.classes));
        }
        Ok(Act {
            name: "3 policy, pod deleted",
            promised: format!("PodLoss {promised:?}"),
            report,
            wrong,
        })
    }

    async fn shared(&self) -> Result<Act> {
        heading("Act 4: the same shop keeps its sessions in a store; then every pod is replaced.");
        println!("kubectl -n shop patch sesspol shop --type merge --patch-file …\n{SHARED}");
        let patch: Value = serde_saphyr::from_str(SHARED)?;
        let applied = Instant::now();
        self.policies
            .patch("shop", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .context("changing the policy")?;
        let policy = self.ready_within(SHARED_LIMIT).await?;
        println!(
            "Ready after {} s: a store was made, the image looked at, and every pod replaced.\n",
            applied.elapsed().as_secs()
        );
        let promised = promise(&policy, api::Event::RollingUpdate)?;
        let report = self.drill(3, 4, &Event::Restart).await?;
        let mut wrong = Vec::new();
        if promised != Outcome::Kept {
            wrong.push(format!("act 4: survives says RollingUpdate {promised:?}"));
        }
        let stayed = report.count(Class::Kept) + report.count(Class::Moved);
        if stayed != self.users {
            wrong.push(format!(
                "act 4: {stayed} of {} users stayed: {:?}",
                self.users, report.classes
            ));
        }
        Ok(Act {
            name: "4 sessions in a store, rollout",
            promised: format!("RollingUpdate {promised:?}"),
            report,
            wrong,
        })
    }

    async fn ready(&self) -> Result<SessionPolicy> {
        self.ready_within(POLICY_LIMIT).await
    }

    /// The policy, once it is Ready and its status is about its present spec.
    async fn ready_within(&self, limit: Duration) -> Result<SessionPolicy> {
        eventually("SessionPolicy shop/shop Ready", limit, || async {
            let policy = self.policies.get("shop").await?;
            let Some(status) = &policy.status else {
                return Ok(Err(policy.status));
            };
            let ready = status
                .conditions
                .iter()
                .find(|condition| condition.type_ == api_conditions::types::READY);
            let current = status.observed_generation == policy.metadata.generation;
            if current && ready.is_some_and(|condition| condition.status == "True") {
                return Ok(Ok(policy));
            }
            Ok(Err(policy.status))
        })
        .await
    }
}

fn promise(policy: &SessionPolicy, event: api::Event) -> Result<Outcome> {
    let mut survives = policy.status.iter().flat_map(|status| &status.survives);
    let Some(row) = survives.find(|row| row.event == event) else {
        bail!("status.survives says nothing of {event:?}")
    };
    Ok(row.outcome)
}

fn heading(text: &str) {
    println!("\n{text}\n{}\n", "─".repeat(text.chars().count()));
}

fn closing(acts: &[Act], took: Duration) -> String {
    let rows: Vec<Vec<Cell>> = acts
        .iter()
        .map(|act| {
            let report = &act.report;
            let count = |class| Cell::number(&report.count(class));
            let others = report.users
                - report.count(Class::Kept)
                - report.count(Class::Moved)
                - report.count(Class::Lost);
            vec![
                Cell::text(act.name),
                Cell::number(&report.users),
                count(Class::Kept),
                count(Class::Moved),
                count(Class::Lost),
                Cell::number(&others),
                Cell::number(&report.requests),
                Cell::number(&report.failed()),
                Cell::text(&act.promised),
                Cell::text(if act.wrong.is_empty() {
                    "as promised"
                } else {
                    "NOT AS PROMISED"
                }),
            ]
        })
        .collect();
    let header = [
        "act", "users", "kept", "moved", "lost", "other", "requests", "errors", "promised", "outcome",
    ];
    format!(
        "\n{}\nFour acts in {} s. To look around:\n  \
         kubectl get sesspol -A                          the policy at a glance\n  \
         kubectl -n shop get sesspol shop -o yaml        what it set up, and what sessions survive\n  \
         kubectl -n shop get service shop -o yaml        the affinity, where Traefik reads it\n  \
         kubectl -n shop delete sesspol shop             undoes it without a trace\n",
        table::render(&header, &rows),
        took.as_secs()
    )
}
