//! A user's password, the one that is to follow it, and the hashes that servers are told meanwhile. Pure.

use std::collections::BTreeSet;

use super::acl::hash;
use super::client::Password;
use super::material::Error;
use crate::api::session_store::RotationPhase;

/// How somebody is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The password that its Secret gives to clients.
    pub password: Password,
    /// The one that it gives next; in the Secret already, so that it outlives the operator.
    pub next: Option<Password>,
    /// When `password` was made, which tells it from others. Absent in Secrets that know nothing of it.
    pub made: Option<String>,
}

/// What decides on a login.
pub struct Circumstances<'a> {
    /// What its Secret says, or was remembered of it.
    pub there: Option<Login>,
    /// Hashes that servers were told.
    pub former: BTreeSet<String>,
    /// The phase of a rotation that is under way.
    pub phase: Option<RotationPhase>,
    /// The time.
    pub now: jiff::Timestamp,
    /// Makes a password.
    pub random: &'a dyn Fn() -> Result<Password, Error>,
}

impl Circumstances<'_> {
    /// The login, and the hashes that servers have to know.
    ///
    /// A Secret that is lost is made again as it was. Where that is not known, it gets a new password, and clients that hold the
    /// old one must not be locked out: both are good from then on. A password that somebody wrote into the Secret replaces all
    /// others.
    pub fn decide(self) -> Result<(Login, BTreeSet<String>), Error> {
        let Some(mut login) = self.there else {
            let login = Login {
                password: (self.random)()?,
                next: None,
                made: Some(self.now.to_string()),
            };
            // While two are good, nobody knows which one is used.
            let kept = if self.phase.is_some() { usize::MAX } else { 1 };
            let mut hashes: BTreeSet<String> = self.former.into_iter().take(kept).collect();
            hashes.insert(hash(login.password.reveal()));
            return Ok((login, hashes));
        };
        let mut hashes = BTreeSet::from([hash(login.password.reveal())]);
        let is_known = self.former.is_superset(&hashes);
        if is_known && self.phase != Some(RotationPhase::Retiring) {
            hashes.extend(self.former);
        }
        let next = login.next.take();
        match self.phase {
            Some(RotationPhase::Introducing) => {
                let next = next.map_or_else(self.random, Ok)?;
                hashes.insert(hash(next.reveal()));
                login.next = Some(next);
            }
            Some(RotationPhase::Switching) => {
                if let Some(next) = next {
                    hashes.insert(hash(next.reveal()));
                    login.password = next;
                    login.made = Some(self.now.to_string());
                }
            }
            _ => {}
        }
        Ok((login, hashes))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    struct User {
        secret: Option<Login>,
        hashes: BTreeSet<String>,
    }

    impl User {
        fn new() -> Self {
            Self {
                secret: Some(Login {
                    password: Password::new("old"),
                    next: None,
                    made: Some("before".to_owned()),
                }),
                hashes: known(&["old"]),
            }
        }

        fn step(&mut self, phase: Option<RotationPhase>) -> &Login {
            let count = Cell::new(0);
            let random = || {
                count.set(count.get() + 1);
                Ok(Password::new(format!("new-{}", count.get())))
            };
            let circumstances = Circumstances {
                there: self.secret.clone(),
                former: self.hashes.clone(),
                phase,
                now: jiff::Timestamp::UNIX_EPOCH,
                random: &random,
            };
            let (login, hashes) = circumstances.decide().unwrap();
            self.hashes = hashes;
            self.secret.insert(login)
        }
    }

    fn known(passwords: &[&str]) -> BTreeSet<String> {
        passwords.iter().map(|password| hash(password)).collect()
    }

    #[test]
    fn both_passwords_are_good_from_before_the_first_client_has_the_new_one_until_none_has_the_old_one() {
        use RotationPhase::{Finished, Introducing, Replacing, Retiring, Switching};
        let mut user = User::new();
        // Each step may be done more than once: an operator may end before it has noted that it was done.
        for (phase, password, both) in [
            (None, "old", false),
            (Some(Introducing), "old", true),
            (Some(Introducing), "old", true),
            (Some(Switching), "new-1", true),
            (Some(Switching), "new-1", true),
            (Some(Replacing), "new-1", true),
            (Some(Replacing), "new-1", true),
            (Some(Retiring), "new-1", false),
            (Some(Retiring), "new-1", false),
            (Some(Finished), "new-1", false),
            (None, "new-1", false),
        ] {
            let login = user.step(phase).clone();
            assert_eq!(login.password.reveal(), password, "{phase:?}");
            let made = if password == "old" {
                "before"
            } else {
                "1970-01-01T00:00:00Z"
            };
            assert_eq!(login.made.as_deref(), Some(made), "{phase:?}");
            assert_eq!(login.next.is_some(), phase == Some(Introducing), "{phase:?}");
            let good = if both {
                known(&["old", "new-1"])
            } else {
                known(&[password])
            };
            assert_eq!(user.hashes, good, "{phase:?}");
        }
    }

    #[test]
    fn the_old_password_stays_good_at_the_switch_though_the_users_file_was_lost() {
        let mut user = User::new();
        user.step(Some(RotationPhase::Introducing));
        user.hashes.clear();
        user.step(Some(RotationPhase::Switching));
        assert_eq!(user.hashes, known(&["old", "new-1"]));
    }

    #[test]
    fn a_secret_that_is_lost_while_two_are_good_locks_nobody_out() {
        let mut user = User::new();
        user.hashes = known(&["old", "other"]);
        user.secret = None;
        user.step(Some(RotationPhase::Replacing));
        assert_eq!(user.hashes, known(&["old", "other", "new-1"]));
    }

    #[test]
    fn another_rotation_that_is_asked_for_meanwhile_ends_with_its_own_password_alone() {
        use RotationPhase::{Introducing, Replacing, Retiring, Switching};
        let mut user = User::new();
        for phase in [Introducing, Switching, Replacing] {
            user.step(Some(phase));
        }
        user.secret.as_mut().unwrap().password = Password::new("first");
        user.hashes = known(&["old", "first"]);
        user.step(Some(Introducing));
        assert_eq!(user.hashes, known(&["old", "first", "new-1"]));
        for phase in [Switching, Replacing, Retiring] {
            user.step(Some(phase));
        }
        assert_eq!(user.hashes, known(&["new-1"]));
    }
}
