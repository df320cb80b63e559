//! What several servers' words come to: who has which slots, and what became of those that do not answer.

use std::collections::{BTreeMap, BTreeSet};

use super::slots::Slots;
use super::{Member, Node, Observation, State};

/// A server that others know and that does not answer, by its name there. A server that came back as a new one is known by its
/// former name, too.
#[derive(Debug)]
pub struct Ghost<'a> {
    /// By which name the others know it.
    pub id: &'a str,
    /// Whose it was, if that one is still there or to be.
    pub member: Option<&'a Member>,
    /// Slots of which nobody that answers says that it serves them, and somebody that this one does.
    pub slots: Slots,
    /// Whom it follows.
    pub primary: Option<&'a str>,
    /// Whether it is proven that it does not come back: another process runs in its place, or none does.
    pub gone: bool,
}

impl Ghost<'_> {
    /// What to call it.
    pub fn name(&self) -> &str {
        self.member.map_or(self.id, |member| member.name.as_str())
    }
}

/// All of it.
#[derive(Debug)]
pub struct Survey<'a> {
    /// What was seen.
    pub seen: &'a Observation,
    /// Those that do not answer.
    pub ghosts: Vec<Ghost<'a>>,
    /// Slots of which some primary that answers says that it serves them.
    pub served: Slots,
}

impl<'a> Survey<'a> {
    /// Looks through what was seen.
    pub fn of(seen: &'a Observation) -> Self {
        let mut served = Slots::default();
        for member in seen.members.iter().filter(|member| member.is_owner()) {
            if let Some(state) = member.state() {
                served.add(&state.slots());
            }
        }
        let ids: BTreeSet<&str> = seen.members.iter().filter_map(Member::id).collect();
        let mut known: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
        for state in seen.members.iter().filter_map(Member::state) {
            for node in &state.nodes {
                if !node.handshake && !ids.contains(node.id.as_str()) {
                    known.entry(&node.id).or_default().push(node);
                }
            }
        }
        let ghosts = known
            .into_iter()
            .map(|(id, told)| ghost(seen, &served, id, &told))
            .collect();
        Self { seen, ghosts, served }
    }

    /// Servers that answer, each with what it says.
    pub fn answering(&self) -> impl Iterator<Item = (&'a Member, &'a State)> + use<'a> {
        let members = self.seen.members.iter();
        members.filter_map(|member| Some((member, member.state()?)))
    }

    /// The primary of a shard that has slots.
    pub fn owner(&self, shard: usize) -> Option<&'a Member> {
        self.answering()
            .filter(|(member, _)| member.shard == shard && member.is_owner())
            .max_by_key(|(_, state)| state.slots().len())
            .map(|(member, _)| member)
    }

    /// Servers that answer and follow the one of this name.
    pub fn followers<'s>(&'s self, id: &'s str) -> impl Iterator<Item = (&'a Member, &'a State)> + 's {
        self.answering()
            .filter(move |(_, state)| state.primary() == Some(id))
    }

    /// Servers that do not answer, may come back, and follow the one of this name.
    pub fn absent_followers<'s>(&'s self, id: &'s str) -> impl Iterator<Item = &'s Ghost<'a>> + 's {
        self.ghosts
            .iter()
            .filter(move |ghost| !ghost.gone && ghost.primary == Some(id))
    }

    /// Slots that nobody has, present or not.
    pub fn unowned(&self) -> Slots {
        let mut slots = Slots::all();
        slots.remove(&self.served);
        for ghost in &self.ghosts {
            slots.remove(&ghost.slots);
        }
        slots
    }

    /// Whether most of those that have slots answer, so that they can elect.
    pub fn has_majority(&self) -> bool {
        let present = self.answering().filter(|(member, _)| member.is_owner()).count();
        let absent = self.ghosts.iter().filter(|ghost| !ghost.slots.is_empty()).count();
        present > absent
    }

    /// Numbers of all shards of which there are servers.
    pub fn shards(&self) -> BTreeSet<usize> {
        self.seen.members.iter().map(|member| member.shard).collect()
    }

    /// Servers of a shard that do not follow its leader with everything.
    pub fn lacking(&self, shard: usize) -> Vec<&'a str> {
        let leader = super::decide::leader(self, shard);
        let members = self.seen.members.iter();
        let lacking = members.filter(|member| {
            member.shard == shard
                && !member.leaving
                && leader.is_none_or(|leader| {
                    (leader.name != member.name && !member.is_synced(leader)) || !self.is_known(member)
                })
        });
        lacking.map(|member| member.name.as_str()).collect()
    }

    /// Whether a server and every primary know each other, and it knows what its own one serves. Primaries vote for none that they
    /// have not heard of, and nobody stands for slots that he has not heard of.
    pub fn is_known(&self, member: &Member) -> bool {
        let Some(state) = member.state() else { return false };
        self.answering()
            .filter(|(owner, _)| owner.is_owner())
            .all(|(_, of_owner)| {
                let Some(owner) = state.node(&of_owner.id) else {
                    return false;
                };
                let is_followed = state.primary() == Some(of_owner.id.as_str());
                of_owner.node(&state.id).is_some() && (!is_followed || owner.slots == of_owner.slots())
            })
    }

    /// What is not as it is to be, as sentences: slots that nobody serves, servers that do not do their part. The server `but` is
    /// not looked at.
    pub fn troubles(&self, but: Option<&str>) -> Vec<String> {
        let mut troubles = Vec::new();
        let missing = usize::from(super::slots::COUNT) - self.served.len();
        if missing > 0 {
            troubles.push(format!(
                "{missing} of {} slots have no primary",
                super::slots::COUNT
            ));
        }
        for shard in self.shards() {
            let lacking = self.lacking(shard).into_iter().filter(|name| but != Some(*name));
            troubles.extend(lacking.map(|name| {
                format!("{name} does not have everything of shard {shard}, or is not known to all primaries")
            }));
        }
        troubles
    }
}

fn ghost<'a>(seen: &'a Observation, served: &Slots, id: &'a str, told: &[&'a Node]) -> Ghost<'a> {
    let host = told.iter().find(|node| !node.host.is_empty());
    let member = host.and_then(|node| {
        let mut members = seen.members.iter();
        members.find(|member| member.address.announced == node.host)
    });
    let mut slots = Slots::default();
    for node in told {
        slots.add(&node.slots);
    }
    slots.remove(served);
    // What most recently was said.
    let latest = told.iter().max_by_key(|node| node.epoch);
    Ghost {
        id,
        slots,
        primary: latest.and_then(|node| node.primary.as_deref()),
        gone: match (host, member) {
            // Nobody has said who it is.
            (None, _) => false,
            // There is no such pod, nor is there to be one.
            (Some(_), None) => true,
            (Some(_), Some(member)) => member.state().is_some() || !member.may_return(),
        },
        member,
    }
}
