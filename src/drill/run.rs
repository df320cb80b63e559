//! The course of a drill: log in, go on, let the event happen, go on, ask everybody for the last time.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};

use super::account::Role;
use super::application::{self, Application};
use super::client::{Client, Target};
use super::newcomers;
use super::progress::{Counters, Phase};
use super::report::{Entry, EventTimes, Frame, Mark, Report, Unbalanced};
use super::user::{Shared, User};

/// How many users there are, and how they behave.
#[derive(Clone, Debug)]
pub struct Options {
    /// Users who stay logged in.
    pub members: u32,
    /// Users who log out before the event; needs a logout in the application.
    pub leavers: u32,
    /// Time between two requests of one user.
    pub period: Duration,
    /// Every so-manieth request of a member is a write; 0 = none.
    pub write_every: u32,
    /// Writes right after the login.
    pub initial_writes: u32,
    /// Users who log in, or are asked for the last time, at once.
    pub at_once: usize,
    /// Limit for one request.
    pub timeout: Duration,
    /// Pause before a question that has to be answered (login, logout, final check) is repeated; the default is long
    /// enough for a proxy to notice that a pod is gone.
    pub retry_pause: Duration,
    /// Whether a user keeps the connection; otherwise each request has its own.
    pub keep_alive: bool,
    /// Use before the event.
    pub before: Duration,
    /// Use after the event.
    pub settle: Duration,
    /// Limit for the event.
    pub event_limit: Duration,
    /// Time between two newcomers from the beginning of the event until all has settled; absent = none come.
    pub newcomer_period: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            members: 50,
            leavers: 0,
            period: Duration::from_secs(1),
            write_every: 5,
            initial_writes: 2,
            at_once: 16,
            timeout: Duration::from_secs(5),
            retry_pause: Duration::from_secs(1),
            keep_alive: true,
            before: Duration::from_secs(5),
            settle: Duration::from_secs(5),
            event_limit: Duration::from_mins(5),
            newcomer_period: None,
        }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The application cannot be driven.
    #[error("the application cannot be driven")]
    Application(#[from] application::Error),
    /// Options that do not fit.
    #[error("{0}")]
    Options(&'static str),
    /// The event failed; what users saw of it means nothing.
    #[error("event {name:?} failed")]
    Event {
        /// Name of the event.
        name: String,
        /// Its own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The event took too long.
    #[error("event {name:?} did not end within {limit:?}")]
    EventLimit {
        /// Name of the event.
        name: String,
        /// The limit.
        limit: Duration,
    },
    /// A user's task ended by a fault of the drill.
    #[error("a user's task failed")]
    Task(#[from] JoinError),
    /// The books do not balance.
    #[error("the account of users does not add up")]
    Unbalanced(#[from] Unbalanced),
}

/// Where an event notes what it does; cheap to clone.
#[derive(Clone, Debug)]
pub struct Marks {
    begun: Instant,
    marks: Arc<Mutex<Vec<Mark>>>,
}

impl Marks {
    /// Marks whose times count from now.
    pub fn begin() -> Self {
        Self::since(Instant::now())
    }

    fn since(begun: Instant) -> Self {
        Self {
            begun,
            marks: Arc::default(),
        }
    }

    /// Notes something, with the pod that it is about if there is one; the time is now.
    pub fn note(&self, what: &str, pod: Option<&str>) {
        let at_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mark = Mark {
            at_ms,
            what: what.to_owned(),
            pod: pod.map(str::to_owned),
        };
        self.marks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(mark);
    }

    pub(super) fn take(&self) -> Vec<Mark> {
        std::mem::take(&mut *self.marks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A drill, ready to run.
#[derive(Debug)]
pub struct Drill {
    application: Application,
    target: Target,
    options: Options,
    counters: Arc<Counters>,
}

impl Drill {
    /// A drill of an application.
    ///
    /// # Errors
    /// When no requests can be made of the application, or options do not fit it.
    pub fn new(application: Application, target: Target, options: Options) -> Result<Self, Error> {
        application.validate()?;
        if options.leavers > 0 && application.logout.is_none() {
            return Err(Error::Options(
                "leavers need an application with a logout: describe it, or set leavers to 0",
            ));
        }
        if options.period.is_zero() || options.newcomer_period.is_some_and(|period| period.is_zero()) {
            return Err(Error::Options("the time between two requests has to be above 0"));
        }
        if options.at_once == 0 {
            return Err(Error::Options(
                "at least one user at once has to be allowed to log in",
            ));
        }
        Ok(Self {
            application,
            target,
            options,
            counters: Arc::default(),
        })
    }

    /// Counters, for [`super::progress::Line`].
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Runs the drill around an event.
    ///
    /// # Errors
    /// When the event fails; what users meet is no error but the content of the report.
    pub async fn run<E, F, X>(self, event_name: &str, event: E) -> Result<Report, Error>
    where
        E: FnOnce(Marks) -> F,
        F: Future<Output = Result<(), X>>,
        X: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let started = jiff::Timestamp::now().to_string();
        let Self {
            application,
            target,
            options,
            counters,
        } = self;
        let shared = Arc::new(Shared {
            application,
            counters,
            begun: Instant::now(),
            retry_pause: options.retry_pause,
        });
        let users = log_everybody_in(&shared, &target, &options).await?;

        shared.counters.enter(Phase::Before);
        let (stop, stopped) = watch::channel(false);
        let mut going_on = go_on(users, &options, &stopped);
        tokio::time::sleep(options.before).await;

        shared.counters.enter(Phase::During);
        let from_ms = shared.now_ms();
        let newcomers = options.newcomer_period.map(|period| {
            let coming = newcomers::keep_coming(
                Arc::clone(&shared),
                target.clone(),
                options.timeout,
                period,
                stopped.clone(),
            );
            JoinSet::from_iter([coming])
        });
        let marks = Marks::since(shared.begun);
        tokio::time::timeout(options.event_limit, event(marks.clone()))
            .await
            .map_err(|_| Error::EventLimit {
                name: event_name.to_owned(),
                limit: options.event_limit,
            })?
            .map_err(|e| Error::Event {
                name: event_name.to_owned(),
                source: e.into(),
            })?;
        let event = EventTimes {
            name: event_name.to_owned(),
            from_ms,
            to_ms: shared.now_ms(),
        };

        shared.counters.enter(Phase::Settling);
        tokio::time::sleep(options.settle).await;
        stop.send_replace(true);
        let users = collect(&mut going_on).await?;
        let newcomers = match newcomers {
            Some(mut coming) => coming.join_next().await.transpose()?.unwrap_or_default(),
            None => Vec::new(),
        };

        shared.counters.enter(Phase::FinalCheck);
        let mut users = each(users, options.at_once, Work::FinalCheck).await?;
        users.sort_by_key(|(index, _)| *index);
        let entries: Vec<Entry> = users
            .into_iter()
            .map(|(_, user)| Entry {
                requests: user.requests,
                latencies: user.latencies,
                account: user.account,
            })
            .collect();
        let frame = Frame {
            application: shared.application.name.clone(),
            url: target.url().to_owned(),
            started,
            duration_ms: shared.now_ms(),
            event,
            newcomers,
            marks: marks.take(),
        };
        Ok(Report::assemble(frame, &entries)?)
    }
}

/// Users with their numbers, which give the order of the report.
type Numbered = Vec<(u32, User)>;

async fn log_everybody_in(
    shared: &Arc<Shared>,
    target: &Target,
    options: &Options,
) -> Result<Numbered, Error> {
    let users = (0..options.members + options.leavers).map(|index| {
        let role = if index < options.members {
            Role::Member
        } else {
            Role::Leaver
        };
        let client = Client::new(target.clone(), options.keep_alive, options.timeout);
        (
            index,
            User::new(Arc::clone(shared), client, &format!("user{}", index + 1), role),
        )
    });
    let writes = options.initial_writes;
    shared.counters.enter(Phase::LoggingIn);
    each(users.collect(), options.at_once, Work::Prepare(writes)).await
}

/// What users do one batch after the other.
#[derive(Clone, Copy)]
enum Work {
    /// Log in and write so many items.
    Prepare(u32),
    /// Ask for the last time.
    FinalCheck,
}

/// Lets every user do something, `at_once` of them at a time.
async fn each(users: Numbered, at_once: usize, work: Work) -> Result<Numbered, Error> {
    let permits = Arc::new(Semaphore::new(at_once));
    let mut tasks = JoinSet::new();
    for (index, mut user) in users {
        let permits = Arc::clone(&permits);
        tasks.spawn(async move {
            // The semaphore is never closed; without a permit the user would only go at the same time as others.
            let _permit = permits.acquire().await;
            match work {
                Work::Prepare(writes) => user.prepare(writes).await,
                Work::FinalCheck => user.final_check().await,
            }
            (index, user)
        });
    }
    collect(&mut tasks).await
}

fn go_on(users: Numbered, options: &Options, stopped: &watch::Receiver<bool>) -> JoinSet<(u32, User)> {
    let mut tasks = JoinSet::new();
    for (index, mut user) in users {
        let (stopped, period, write_every) = (stopped.clone(), options.period, options.write_every);
        // The golden ratio spreads any number of users evenly over one period.
        let offset = period.mul_f64((f64::from(index) * 0.618_034).fract());
        tasks.spawn(async move {
            user.go_on(stopped, offset, period, write_every).await;
            (index, user)
        });
    }
    tasks
}

async fn collect(tasks: &mut JoinSet<(u32, User)>) -> Result<Numbered, Error> {
    let mut users = Vec::with_capacity(tasks.len());
    while let Some(user) = tasks.join_next().await {
        users.push(user?);
    }
    Ok(users)
}
