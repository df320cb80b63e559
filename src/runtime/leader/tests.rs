//! The decision table, and electors against an API server in the same process.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;

const ME: &str = "me";

fn lease(holder: Option<&str>, version: &str) -> Lease {
    Lease {
        metadata: kube::api::ObjectMeta {
            name: Some("lease".to_owned()),
            resource_version: Some(version.to_owned()),
            ..kube::api::ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(15),
            // Far in the past: the times in the record must not count.
            renew_time: Some(MicroTime(jiff::Timestamp::UNIX_EPOCH)),
            ..LeaseSpec::default()
        }),
    }
}

fn observed(history: &[(u64, Option<Lease>)], start: Instant) -> Observed {
    let mut observed = Observed::default();
    for (second, lease) in history {
        observed.observe(
            lease.clone(),
            ME,
            &Timing::default(),
            start + Duration::from_secs(*second),
        );
    }
    observed
}

#[test]
fn decisions() {
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    let rival = |version| Some(lease(Some("rival"), version));
    let mut long = lease(Some("rival"), "1");
    long.spec.as_mut().unwrap().lease_duration_seconds = Some(60);
    let mut short = lease(Some("rival"), "1");
    short.spec.as_mut().unwrap().lease_duration_seconds = Some(1);
    let bare = Lease {
        spec: None,
        ..lease(None, "1")
    };

    for (case, history, now, expected) in [
        ("no record", vec![(0, None)], 0, Decision::Create),
        (
            "ours",
            vec![(0, Some(lease(Some(ME), "1")))],
            100,
            Decision::Renew,
        ),
        (
            "released",
            vec![(0, Some(lease(Some(""), "1")))],
            0,
            Decision::TakeOver,
        ),
        (
            "nobody's",
            vec![(0, Some(lease(None, "1")))],
            0,
            Decision::TakeOver,
        ),
        (
            "a record without spec",
            vec![(0, Some(bare))],
            0,
            Decision::TakeOver,
        ),
        (
            "first seen just now, however old its times",
            vec![(0, rival("1"))],
            0,
            Decision::Wait(at(15)),
        ),
        (
            "silent, not long enough",
            vec![(0, rival("1")), (14, rival("1"))],
            14,
            Decision::Wait(at(15)),
        ),
        (
            "silent for the lease",
            vec![(0, rival("1")), (15, rival("1"))],
            15,
            Decision::TakeOver,
        ),
        (
            "renewed meanwhile",
            vec![(0, rival("1")), (14, rival("2"))],
            15,
            Decision::Wait(at(29)),
        ),
        (
            "rival with a longer lease",
            vec![(0, Some(long))],
            15,
            Decision::Wait(at(60)),
        ),
        (
            "rival with a shorter lease than ours",
            vec![(0, Some(short))],
            2,
            Decision::Wait(at(15)),
        ),
        (
            "held, then released",
            vec![(0, rival("1")), (1, Some(lease(Some(""), "2")))],
            1,
            Decision::TakeOver,
        ),
        (
            "deleted under a holder who may not know",
            vec![(0, rival("1")), (2, None)],
            2,
            Decision::Wait(at(15)),
        ),
        (
            "deleted, and the holder's time is over",
            vec![(0, rival("1")), (2, None)],
            15,
            Decision::Create,
        ),
    ] {
        assert_eq!(
            decide(&observed(&history, start), ME, at(now)),
            expected,
            "{case}"
        );
    }
}

/// Leases as an API server keeps them, with faults on request.
#[derive(Clone, Default)]
struct Server {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    lease: Option<Value>,
    version: u64,
    requests: Vec<String>,
    /// Holders in the order in which they were written, without repetition.
    holders: Vec<String>,
    /// What happens to the next requests instead of an answer.
    faults: VecDeque<Fault>,
    /// Identities of the candidates that are cut off.
    cut_off: Vec<String>,
}

#[derive(Clone, Copy)]
enum Fault {
    /// Answers with this code.
    Code(u16),
    /// Stores, but the answer is lost.
    LoseAnswer,
}

impl Server {
    fn client(&self, identity: &str) -> Client {
        let server = self.clone();
        let identity = identity.to_owned();
        let service =
            tower::service_fn(move |request: Request<Body>| server.clone().answer(identity.clone(), request));
        Client::new(service, "default")
    }

    async fn answer(
        self,
        identity: String,
        request: Request<Body>,
    ) -> Result<Response<Body>, tower::BoxError> {
        let (parts, body) = request.into_parts();
        let sent: Value = serde_json::from_slice(&body.collect_bytes().await?).unwrap_or_default();
        let response = {
            let mut state = self.state.lock().unwrap();
            if state.cut_off.contains(&identity) {
                None
            } else {
                state
                    .requests
                    .push(format!("{} {}", parts.method, parts.uri.path()));
                match state.faults.pop_front() {
                    Some(Fault::Code(code)) => Some(status(code)),
                    Some(Fault::LoseAnswer) => {
                        state.handle(&parts.method, sent);
                        None
                    }
                    None => Some(state.handle(&parts.method, sent)),
                }
            }
        };
        match response {
            Some(response) => Ok(response),
            None => std::future::pending().await,
        }
    }

    fn holder(&self) -> String {
        let state = self.state.lock().unwrap();
        state
            .lease
            .as_ref()
            .map_or("-", |lease| lease["spec"]["holderIdentity"].as_str().unwrap())
            .to_owned()
    }
}

impl State {
    fn handle(&mut self, method: &Method, mut sent: Value) -> Response<Body> {
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
        match (method, &self.lease) {
            (&Method::GET, Some(lease)) => return ok(lease),
            (&Method::GET | &Method::PUT, None) => return status(404),
            (&Method::POST, Some(_)) => return status(409),
            (&Method::PUT, Some(lease)) if version(lease) != version(&sent) => return status(409),
            _ => {}
        }
        let holder = sent["spec"]["holderIdentity"].as_str().unwrap().to_owned();
        if self.holders.last() != Some(&holder) {
            self.holders.push(holder);
        }
        self.version += 1;
        sent["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.lease = Some(sent.clone());
        ok(&sent)
    }
}

fn ok(object: &Value) -> Response<Body> {
    Response::new(Body::from(object.to_string().into_bytes()))
}

fn status(code: u16) -> Response<Body> {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    let body =
        json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason });
    Response::builder()
        .status(StatusCode::from_u16(code).unwrap())
        .body(Body::from(body.to_string().into_bytes()))
        .unwrap()
}

struct Running {
    leadership: Leadership,
    release: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), Error>>,
}

fn start(server: &Server, identity: &str) -> Running {
    let (elector, leadership) = Elector::new(server.client(identity), "operators", "lease", identity);
    let release = CancellationToken::new();
    let task = tokio::spawn(elector.run(release.clone()));
    Running {
        leadership,
        release,
        task,
    }
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_the_other_follows_at_once_after_a_release() {
    let server = Server::default();
    let first = start(&server, "first");
    first.leadership.acquired().await;
    let second = start(&server, "second");
    for _ in 0..120 {
        seconds(1).await;
        assert!(first.leadership.is_leader() && !second.leadership.is_leader());
    }
    assert_eq!(server.holder(), "first");

    first.release.cancel();
    first.task.await.unwrap().expect("a release is no error");
    assert!(!first.leadership.is_leader());
    seconds(3).await;
    assert!(
        second.leadership.is_leader(),
        "the next look finds the lease free"
    );
    let holders = server.state.lock().unwrap().holders.clone();
    assert_eq!(holders, ["first", "", "second"], "a release empties the holder");
    let transitions =
        server.state.lock().unwrap().lease.as_ref().unwrap()["spec"]["leaseTransitions"].clone();
    assert_eq!(transitions, json!(1));
}

#[tokio::test(start_paused = true)]
async fn acquisition_is_told_once() {
    use futures::StreamExt;
    let server = Server::default();
    let (elector, leadership) = Elector::new(server.client(ME), "operators", "lease", ME);
    let acquisitions = tokio::spawn(leadership.acquisitions().collect::<Vec<()>>());
    seconds(5).await;
    assert!(!acquisitions.is_finished());
    let running = tokio::spawn(elector.run(CancellationToken::new()));
    assert_eq!(acquisitions.await.unwrap().len(), 1);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_before_the_lease_passes_on() {
    let server = Server::default();
    let first = start(&server, "first");
    first.leadership.acquired().await;
    let second = start(&server, "second");
    seconds(60).await;
    server.state.lock().unwrap().cut_off.push("first".to_owned());
    let cut = Instant::now();
    let abandoned = first
        .leadership
        .write_deadline()
        .expect("leads")
        .at_most(cut + Duration::from_hours(1));

    let error = first.task.await.unwrap().expect_err("the election is lost");
    assert_eq!(
        error.to_string(),
        "lost leadership: lease operators/lease could not be renewed within 10 s"
    );
    assert!(!first.leadership.is_leader() && !second.leadership.is_leader());
    assert!(cut.elapsed() <= RENEW_DEADLINE, "{:?}", cut.elapsed());

    second.leadership.acquired().await;
    assert!(Instant::now() > abandoned, "the last write was given up before");
    assert!(
        cut.elapsed() <= LEASE_DURATION + RETRY_PERIOD * 2,
        "{:?}",
        cut.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn leadership_ends_by_the_clock_while_the_elector_hangs() {
    let server = Server::default();
    let (elector, leadership) = Elector::new(server.client(ME), "operators", "lease", ME);
    let mut run = Box::pin(elector.run(CancellationToken::new()));
    tokio::select! {
        _ = &mut run => panic!("runs on"),
        () = leadership.acquired() => {}
    }
    // Nobody polls the elector any more.
    seconds(9).await;
    assert!(leadership.is_leader());
    seconds(1).await;
    assert!(!leadership.is_leader());
    assert!(
        matches!(run.await, Err(Error::NotRenewed { .. })),
        "it notices when it runs again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_crashed_leader_is_followed_after_its_lease() {
    let server = Server::default();
    let first = start(&server, "first");
    first.leadership.acquired().await;
    seconds(10).await;
    let second = start(&server, "second");
    seconds(10).await;
    first.task.abort();
    let crash = Instant::now();
    second.leadership.acquired().await;
    let gap = crash.elapsed();
    let slack = RETRY_PERIOD * 2;
    assert!(
        gap + slack > LEASE_DURATION && gap < LEASE_DURATION + slack,
        "{gap:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_race_is_no_leadership() {
    let server = Server::default();
    let running = start(&server, ME);
    // Between the read (there is no record) and the create somebody else creates it.
    server.state.lock().unwrap().faults = VecDeque::from([Fault::Code(404), Fault::Code(409)]);
    seconds(1).await;
    assert_eq!(server.state.lock().unwrap().requests.len(), 2);
    assert!(!running.leadership.is_leader());
    seconds(3).await;
    assert!(running.leadership.is_leader(), "it tries again at the next look");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_overtaken_stops_at_once() {
    let server = Server::default();
    let running = start(&server, ME);
    running.leadership.acquired().await;
    {
        let mut state = server.state.lock().unwrap();
        state.version += 1;
        let version = state.version.to_string();
        state.lease = Some(serde_json::to_value(lease(Some("usurper"), &version)).unwrap());
    }
    let error = running.task.await.unwrap().expect_err("overtaken");
    assert_eq!(
        error.to_string(),
        "lost leadership: lease operators/lease is held by usurper"
    );
    assert!(!running.leadership.is_leader());
}

#[tokio::test(start_paused = true)]
async fn a_foreign_edit_of_the_record_does_not_end_leadership() {
    let server = Server::default();
    let running = start(&server, ME);
    running.leadership.acquired().await;
    {
        let mut state = server.state.lock().unwrap();
        state.version += 1;
        let version = json!(state.version.to_string());
        let lease = state.lease.as_mut().unwrap();
        lease["metadata"]["annotations"] = json!({ "note": "kept" });
        lease["metadata"]["resourceVersion"] = version;
    }
    seconds(30).await;
    assert!(running.leadership.is_leader());
    let state = server.state.lock().unwrap();
    assert_eq!(
        state.lease.as_ref().unwrap()["metadata"]["annotations"]["note"],
        "kept"
    );
}

#[tokio::test(start_paused = true)]
async fn a_deleted_record_is_made_again_by_the_leader() {
    let server = Server::default();
    let first = start(&server, "first");
    first.leadership.acquired().await;
    let second = start(&server, "second");
    seconds(5).await;
    server.state.lock().unwrap().lease = None;
    for _ in 0..60 {
        seconds(1).await;
        assert!(first.leadership.is_leader() && !second.leadership.is_leader());
    }
    assert_eq!(server.holder(), "first");
}

#[tokio::test(start_paused = true)]
async fn failures_within_the_deadline_do_not_matter() {
    let server = Server::default();
    let running = start(&server, ME);
    running.leadership.acquired().await;
    for faults in [
        [Fault::Code(500), Fault::Code(500)],
        [Fault::LoseAnswer, Fault::Code(500)],
    ] {
        server.state.lock().unwrap().faults = VecDeque::from(faults);
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(running.leadership.is_leader());
        }
        assert!(
            server.state.lock().unwrap().faults.is_empty(),
            "the faults were met"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn without_election_or_without_any_right() {
    assert!(Leadership::unlimited().is_leader());
    Leadership::unlimited().acquired().await;
    assert!(!Leadership::never().is_leader());
    let waited = tokio::time::timeout(Duration::from_hours(1), Leadership::never().acquired()).await;
    assert!(waited.is_err(), "never");
}

#[test]
fn renewals_change_the_record_even_if_the_wall_clock_stands_still() {
    use super::election::{Attempt, Election, ReadOutcome, Step, WriteOutcome};
    let wall = jiff::Timestamp::UNIX_EPOCH;
    let mut now = Instant::now();
    let mut election = Election::new("lease", ME, Timing::default());
    election.on_read(ReadOutcome::Absent, now, now);
    let mut last = None;
    for version in 1..4 {
        let Step::Write(attempt) = election.step(now, wall) else {
            panic!("a write is due");
        };
        let (Attempt::Create(mut lease) | Attempt::Replace(mut lease)) = *attempt;
        let renewed = lease.spec.as_ref().unwrap().renew_time.clone().unwrap().0;
        assert!(last.is_none_or(|last| last < renewed), "{last:?} {renewed}");
        last = Some(renewed);
        lease.metadata.resource_version = Some(version.to_string());
        election.on_write(WriteOutcome::Accepted(Box::new(lease)), now, now);
        now += RETRY_PERIOD;
    }
}
