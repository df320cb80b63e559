//! One user: makes the requests of an application and enters the answers into the account.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cookie_store::CookieStore;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::account::{Account, Failure, Observation, Role};
use super::application::{Application, Locator, Step, Values};
use super::client::{Answer, Client};
use super::progress::Counters;

/// How often a question is repeated that has to be answered: login, logout, the final check.
const ATTEMPTS: u32 = 5;

/// What is the same for all users of a drill.
#[derive(Debug)]
pub(super) struct Shared {
    pub application: Application,
    pub counters: Arc<Counters>,
    pub begun: Instant,
    pub retry_pause: Duration,
}

impl Shared {
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub fn pod(&self, answer: &Answer) -> Option<String> {
        find(self.application.pod.as_ref()?, answer)
    }
}

/// What a locator finds; an answer in which it cannot look has nothing of the kind.
fn find(locator: &Locator, answer: &Answer) -> Option<String> {
    locator.first(answer).unwrap_or(None)
}

/// One user, with browser and account.
#[derive(Debug)]
pub(super) struct User {
    shared: Arc<Shared>,
    client: Client,
    pub account: Account,
    /// Times of answered requests, in microseconds.
    pub latencies: Vec<u32>,
    pub requests: u32,
    writes: u32,
    /// Cookies from before the logout; each later check of a leaver begins with them.
    old_cookies: Option<CookieStore>,
}

/// How a step ended.
enum Ended {
    /// As it should.
    Done(Answer),
    /// The application answered something else: nobody is logged in, or the input was refused.
    Refused(Answer),
    /// There is nothing to go by.
    Failed(Failure),
}

impl User {
    pub fn new(shared: Arc<Shared>, client: Client, name: &str, role: Role) -> Self {
        Self {
            shared,
            client,
            account: Account::new(name, role),
            latencies: Vec::new(),
            requests: 0,
            writes: 0,
            old_cookies: None,
        }
    }

    /// Logs in, writes, looks; a leaver then logs out.
    pub async fn prepare(&mut self, writes: u32) {
        self.log_in().await;
        if !self.account.is_logged_in() {
            return;
        }
        for _ in 0..writes {
            self.write().await;
        }
        self.check().await;
        if self.account.role() == Role::Leaver {
            self.log_out().await;
        }
    }

    /// Uses the application at a steady pace until told to stop; the first request comes after `offset`.
    pub async fn go_on(
        &mut self,
        mut stop: watch::Receiver<bool>,
        offset: Duration,
        period: Duration,
        write_every: u32,
    ) {
        if !self.account.is_logged_in() {
            return;
        }
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + offset, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn: u32 = 0;
        loop {
            tokio::select! {
                biased;
                // Also ends when the drill itself is gone.
                _ = stop.wait_for(|stop| *stop) => return,
                _ = ticks.tick() => {}
            }
            turn = turn.wrapping_add(1);
            let writes = self.account.role() == Role::Member && turn.checked_rem(write_every) == Some(0);
            if writes {
                self.write().await;
            } else {
                self.check().await;
            }
        }
    }

    /// Asks until there is an answer, a bounded number of times.
    pub async fn final_check(&mut self) {
        self.account.begin_final_check();
        for attempt in 0..ATTEMPTS {
            if !self.account.is_logged_in() || self.account.answered() {
                return;
            }
            if attempt > 0 {
                tokio::time::sleep(self.shared.retry_pause).await;
            }
            self.check().await;
        }
    }

    async fn log_in(&mut self) {
        let shared = Arc::clone(&self.shared);
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(self.shared.retry_pause).await;
            }
            match self.perform(&shared.application.login).await {
                Ended::Done(answer) => {
                    self.enter(Some(&answer), Observation::LoggedIn);
                    shared.counters.log_in();
                    return;
                }
                Ended::Refused(answer) => {
                    self.enter(Some(&answer), Observation::LoginRefused(answer.status));
                    return;
                }
                Ended::Failed(failure) => self.enter(None, Observation::Failed(failure)),
            }
        }
    }

    async fn log_out(&mut self) {
        let shared = Arc::clone(&self.shared);
        let Some(step) = &shared.application.logout else {
            return;
        };
        self.old_cookies = Some(self.client.cookies());
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(self.shared.retry_pause).await;
            }
            match self.perform(step).await {
                Ended::Done(answer) => {
                    self.enter(Some(&answer), Observation::LoggedOut);
                    return;
                }
                Ended::Refused(answer) => {
                    self.enter(None, Observation::Failed(Failure::Status(answer.status)));
                }
                Ended::Failed(failure) => self.enter(None, Observation::Failed(failure)),
            }
        }
    }

    async fn write(&mut self) {
        let shared = Arc::clone(&self.shared);
        let Some(write) = &shared.application.write else {
            return self.check().await;
        };
        self.writes += 1;
        let item = Values {
            user: self.account.name(),
            n: self.writes,
        }
        .fill(&write.item);
        match self.perform(&write.request).await {
            Ended::Done(answer) => self.enter(Some(&answer), Observation::Wrote(item)),
            // The refusal does not tell whether the session is gone; the check does.
            Ended::Refused(_) => self.check().await,
            Ended::Failed(failure) => self.enter(None, Observation::WriteUnsure(item, failure)),
        }
    }

    async fn check(&mut self) {
        if let Some(cookies) = &self.old_cookies {
            self.client.set_cookies(cookies.clone());
        }
        let shared = Arc::clone(&self.shared);
        let check = &shared.application.check;
        match self.perform(&check.request).await {
            Ended::Done(answer) if answer.status < 300 => {
                let user = check.user.first(&answer);
                let items = check.items.as_ref().map(|items| items.all(&answer)).transpose();
                match (user, items) {
                    (Ok(user), Ok(items)) => self.enter(Some(&answer), Observation::Seen { user, items }),
                    _ => self.enter(None, Observation::Failed(Failure::Unreadable)),
                }
            }
            Ended::Done(answer) | Ended::Refused(answer) => {
                self.enter(
                    Some(&answer),
                    Observation::Seen {
                        user: None,
                        items: None,
                    },
                );
            }
            Ended::Failed(failure) => self.enter(None, Observation::Failed(failure)),
        }
    }

    fn enter(&mut self, answer: Option<&Answer>, observation: Observation) {
        let pod = answer.and_then(|answer| self.shared.pod(answer));
        let was_lost = self.account.is_lost();
        if matches!(observation, Observation::Failed(_) | Observation::WriteUnsure(..)) {
            self.shared.counters.fail();
        }
        self.account
            .enter(self.shared.now_ms(), pod.as_deref(), observation);
        if self.account.is_lost() && !was_lost {
            self.shared.counters.lose();
        }
    }

    async fn perform(&mut self, step: &Step) -> Ended {
        let mut fields = Vec::new();
        if let Some(page) = &step.page {
            let Ok(call) = page.call(self.values()) else {
                return Ended::Failed(Failure::Unreadable);
            };
            let answer = match self.send(&call).await {
                Ok(answer) => answer,
                Err(failure) => return Ended::Failed(failure),
            };
            for (name, locator) in &page.fields {
                match locator.first(&answer) {
                    Ok(Some(value)) => fields.push((name.clone(), value)),
                    _ if answer.status < 400 => return Ended::Refused(answer),
                    _ => return Ended::Failed(Failure::Status(answer.status)),
                }
            }
        }
        // Validated with the application; a name that makes it invalid would be the drill's own.
        let Ok(call) = step.call(self.values(), &fields) else {
            return Ended::Failed(Failure::Unreadable);
        };
        match self.send(&call).await {
            Ok(answer) if step.accepts(answer.status) => Ended::Done(answer),
            // 419: Laravel's answer to an expired session; 422: input refused.
            Ok(answer) if matches!(answer.status, 200..=399 | 401 | 403 | 419 | 422) => {
                Ended::Refused(answer)
            }
            Ok(answer) => Ended::Failed(Failure::Status(answer.status)),
            Err(failure) => Ended::Failed(failure),
        }
    }

    fn values(&self) -> Values<'_> {
        Values {
            user: self.account.name(),
            n: self.writes,
        }
    }

    async fn send(&mut self, call: &super::client::Call) -> Result<Answer, Failure> {
        self.requests += 1;
        self.shared.counters.request();
        let answer = self.client.send(call).await?;
        self.latencies
            .push(u32::try_from(answer.took.as_micros()).unwrap_or(u32::MAX));
        Ok(answer)
    }
}
