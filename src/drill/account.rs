//! One user's account: from what was observed to what became of the session. Pure: no I/O, no clock.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What became of one user's session. Every user is in exactly one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// There all the time, always on the same pod.
    Kept,
    /// There all the time, on more than one pod.
    Moved,
    /// At least once nobody was logged in where this user was.
    Lost,
    /// There, but with wrong contents, or somebody else's.
    Corrupted,
    /// The last question was never answered.
    Unknown,
    /// Never logged in.
    LoginFailed,
    /// Logged out by the user, and the session stayed away.
    LoggedOut,
    /// Logged out by the user, and the session came back.
    BackAfterLogout,
}

impl Class {
    /// Every class, in the order of reports.
    pub const ALL: [Self; 8] = [
        Self::Kept,
        Self::Moved,
        Self::Lost,
        Self::Corrupted,
        Self::Unknown,
        Self::LoginFailed,
        Self::LoggedOut,
        Self::BackAfterLogout,
    ];

    /// Heading in tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Moved => "moved",
            Self::Lost => "lost",
            Self::Corrupted => "corrupted",
            Self::Unknown => "unknown",
            Self::LoginFailed => "login failed",
            Self::LoggedOut => "logged out",
            Self::BackAfterLogout => "back after logout",
        }
    }
}

/// Why a request gave nothing to go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// Connection refused.
    Refused,
    /// No route, no address, or another failure to connect.
    Unreachable,
    /// No complete answer within the limit.
    Timeout,
    /// The connection ended before the answer did.
    Closed,
    /// TLS could not be agreed upon.
    Tls,
    /// An answer that is not HTTP, or in which the locators could not look.
    Unreadable,
    /// A status that is not the application's answer to a user, such as 502.
    Status(u16),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Timeout => f.write_str("timeout"),
            Self::Closed => f.write_str("closed"),
            Self::Tls => f.write_str("tls"),
            Self::Unreadable => f.write_str("unreadable"),
            Self::Status(status) => write!(f, "status {status}"),
        }
    }
}

impl FromStr for Failure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "refused" => Self::Refused,
            "unreachable" => Self::Unreachable,
            "timeout" => Self::Timeout,
            "closed" => Self::Closed,
            "tls" => Self::Tls,
            "unreadable" => Self::Unreadable,
            other => {
                let status = other
                    .strip_prefix("status ")
                    .and_then(|status| status.parse().ok());
                Self::Status(status.ok_or_else(|| format!("{other:?} is no kind of failure"))?)
            }
        })
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Failure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// What a user is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Stays logged in.
    Member,
    /// Logs out before the event; the old cookies are tried ever after.
    Leaver,
}

/// What one answer showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The login was accepted.
    LoggedIn,
    /// The login was refused by the application, with this status.
    LoginRefused(u16),
    /// The write of this item was accepted.
    Wrote(String),
    /// The write of this item failed in a way that leaves open whether it was done.
    WriteUnsure(String, Failure),
    /// The logout was accepted.
    LoggedOut,
    /// A check was answered.
    Seen {
        /// Who is logged in.
        user: Option<String>,
        /// What the session holds, if the application tells.
        items: Option<Vec<String>>,
    },
    /// A request gave nothing to go by.
    Failed(Failure),
}

/// What a stretch of a user's time line was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// The session was there.
    In,
    /// Nobody was logged in.
    Out,
    /// Wrong contents or a wrong user.
    Wrong,
    /// Requests failed.
    Failing,
}

/// Consecutive requests of one user with the same pod and state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First request, in milliseconds since the drill began.
    pub from_ms: u64,
    /// Last request.
    pub to_ms: u64,
    /// The pod that answered, if it could be told.
    pub pod: Option<String>,
    /// What was seen.
    pub state: State,
    /// Number of requests.
    pub requests: u32,
}

/// The first time that a session was not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// When, in milliseconds since the drill began.
    pub at_ms: u64,
    /// The pod that last had the session.
    pub pod_before: Option<String>,
    /// The pod that did not have it.
    pub pod: Option<String>,
    /// Whether the session was there again later, as happens when requests of one user reach any pod.
    pub seen_again: bool,
}

/// A failure and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureAt {
    /// In milliseconds since the drill began.
    pub at_ms: u64,
    /// What failed.
    pub failure: Failure,
}

/// How far a user has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Outside,
    LoggedIn,
    LoggedOut,
}

/// The account of one user.
#[derive(Clone, Debug)]
pub struct Account {
    name: String,
    role: Role,
    stage: Stage,
    /// Items that have to be in the session, because their write was accepted.
    certain: BTreeSet<String>,
    /// Items that may be in the session, because their write was not answered.
    unsure: BTreeSet<String>,
    /// The pod that was last seen to have the session.
    pod: Option<String>,
    moves: u32,
    loss: Option<Loss>,
    back: bool,
    trouble: Option<String>,
    /// Whether the question asked last was answered.
    answered_last: bool,
    failures: Vec<FailureAt>,
    timeline: Vec<Segment>,
}

impl Account {
    /// The account of a user who has done nothing yet.
    pub fn new(name: &str, role: Role) -> Self {
        Self {
            name: name.to_owned(),
            role,
            stage: Stage::Outside,
            certain: BTreeSet::new(),
            unsure: BTreeSet::new(),
            pod: None,
            moves: 0,
            loss: None,
            back: false,
            trouble: None,
            answered_last: false,
            failures: Vec::new(),
            timeline: Vec::new(),
        }
    }

    /// Enters what was observed at a time (milliseconds since the drill began, never decreasing), and the pod that
    /// answered.
    pub fn enter(&mut self, at_ms: u64, pod: Option<&str>, observation: Observation) {
        match observation {
            Observation::LoggedIn => {
                if self.stage == Stage::Outside {
                    // What was seen before is about nobody's session.
                    self.trouble = None;
                    self.answered_last = false;
                    self.stage = Stage::LoggedIn;
                }
                self.present(at_ms, pod);
            }
            Observation::LoginRefused(status) => {
                self.trouble
                    .get_or_insert_with(|| format!("login refused with status {status}"));
                self.stretch(at_ms, pod, State::Out);
            }
            Observation::Wrote(item) => {
                self.certain.insert(item);
                self.present(at_ms, pod);
            }
            Observation::WriteUnsure(item, failure) => {
                self.unsure.insert(item);
                self.fail(at_ms, failure);
            }
            Observation::LoggedOut => {
                // A member who was logged out did not ask for it: the next check shows a loss.
                if self.role == Role::Leaver && self.stage == Stage::LoggedIn {
                    self.stage = Stage::LoggedOut;
                }
                self.answered_last = false;
                self.stretch(at_ms, pod, State::Out);
            }
            Observation::Seen { user, items } => {
                self.answered_last = true;
                self.see(at_ms, pod, user.as_deref(), items.as_deref());
            }
            Observation::Failed(failure) => self.fail(at_ms, failure),
        }
    }

    /// Says that the final question is asked now: answers from before do not count for it.
    pub fn begin_final_check(&mut self) {
        self.answered_last = false;
    }

    /// Whether the question asked last was answered.
    pub fn answered(&self) -> bool {
        self.answered_last
    }

    /// Whether the login was accepted.
    pub fn is_logged_in(&self) -> bool {
        self.stage != Stage::Outside
    }

    /// Whether the session was found missing while it should have been there.
    pub fn is_lost(&self) -> bool {
        self.loss.is_some()
    }

    /// The user's class by what is known now.
    pub fn class(&self) -> Class {
        if self.stage == Stage::Outside {
            Class::LoginFailed
        } else if self.trouble.is_some() {
            Class::Corrupted
        } else if self.back {
            Class::BackAfterLogout
        } else if self.loss.is_some() {
            Class::Lost
        } else if !self.answered_last || (self.role == Role::Leaver && self.stage != Stage::LoggedOut) {
            Class::Unknown
        } else if self.role == Role::Leaver {
            Class::LoggedOut
        } else if self.moves > 0 {
            Class::Moved
        } else {
            Class::Kept
        }
    }

    /// The pod that last had the session before a time. What was seen in the very millisecond counts as later: an
    /// event can show its effect in the millisecond in which it began.
    pub fn pod_before(&self, at_ms: u64) -> Option<&str> {
        let earlier = self.timeline.iter().take_while(|segment| segment.from_ms < at_ms);
        earlier
            .filter(|segment| segment.state == State::In)
            .filter_map(|segment| segment.pod.as_deref())
            .last()
    }

    /// Name of the user.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the user is there for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// How often the session was served by another pod than before.
    pub fn moves(&self) -> u32 {
        self.moves
    }

    /// The first loss.
    pub fn loss(&self) -> Option<&Loss> {
        self.loss.as_ref()
    }

    /// What is wrong, for [`Class::Corrupted`] and [`Class::LoginFailed`].
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Failures in order of time.
    pub fn failures(&self) -> &[FailureAt] {
        &self.failures
    }

    /// The time line, in order.
    pub fn timeline(&self) -> &[Segment] {
        &self.timeline
    }

    fn see(&mut self, at_ms: u64, pod: Option<&str>, user: Option<&str>, items: Option<&[String]>) {
        let Some(user) = user else {
            if self.stage == Stage::LoggedIn && self.loss.is_none() {
                let pod = pod.map(str::to_owned);
                self.loss = Some(Loss {
                    at_ms,
                    pod_before: self.pod.clone(),
                    pod,
                    seen_again: false,
                });
            }
            self.stretch(at_ms, pod, State::Out);
            return;
        };
        if user != self.name {
            self.spoil(at_ms, pod, format!("logged in as {user}"));
        } else if self.stage == Stage::LoggedOut {
            self.back = true;
            self.stretch(at_ms, pod, State::In);
        } else if let Some(loss) = &mut self.loss {
            // After a loss the contents say nothing: writes may have gone to a pod that had no session.
            loss.seen_again = true;
            self.present(at_ms, pod);
        } else if let Some(difference) = items.and_then(|items| self.difference(items)) {
            self.spoil(at_ms, pod, difference);
        } else {
            self.present(at_ms, pod);
        }
    }

    fn difference(&self, items: &[String]) -> Option<String> {
        let found: BTreeSet<&String> = items.iter().collect();
        if let Some(missing) = self.certain.iter().find(|item| !found.contains(item)) {
            return Some(format!("{missing} is missing"));
        }
        if let Some(strange) = items
            .iter()
            .find(|item| !self.certain.contains(*item) && !self.unsure.contains(*item))
        {
            return Some(format!("{strange:?} was never written"));
        }
        (found.len() < items.len()).then(|| "an item is there twice".to_owned())
    }

    fn spoil(&mut self, at_ms: u64, pod: Option<&str>, what: String) {
        self.trouble.get_or_insert(what);
        self.stretch(at_ms, pod, State::Wrong);
    }

    fn present(&mut self, at_ms: u64, pod: Option<&str>) {
        if let Some(pod) = pod
            && self.pod.as_deref() != Some(pod)
        {
            self.moves += u32::from(self.pod.is_some());
            self.pod = Some(pod.to_owned());
        }
        self.stretch(at_ms, pod, State::In);
    }

    fn fail(&mut self, at_ms: u64, failure: Failure) {
        self.failures.push(FailureAt { at_ms, failure });
        self.stretch(at_ms, None, State::Failing);
    }

    fn stretch(&mut self, at_ms: u64, pod: Option<&str>, state: State) {
        match self.timeline.last_mut() {
            Some(last) if last.state == state && last.pod.as_deref() == pod => {
                last.to_ms = at_ms;
                last.requests += 1;
            }
            _ => self.timeline.push(Segment {
                from_ms: at_ms,
                to_ms: at_ms,
                pod: pod.map(str::to_owned),
                state,
                requests: 1,
            }),
        }
    }
}
