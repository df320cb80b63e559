//! Who listens to what.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::reply::{Protocol, Writer};
use crate::front::mailbox::Mailbox;
use crate::store::glob;

/// Subscriptions of one connection.
const MAX_SUBSCRIPTIONS: usize = 1_024;

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The name of a channel.
    Channel,
    /// A glob of such names.
    Pattern,
}

#[derive(Debug)]
struct Subscriber {
    mailbox: Rc<Mailbox>,
    protocol: Protocol,
}

/// Subscribers of one channel or pattern, by connection.
type Subscribers = BTreeMap<u64, Subscriber>;

/// All subscriptions.
#[derive(Debug, Default)]
pub struct Channels {
    by_name: BTreeMap<Vec<u8>, Subscribers>,
    by_pattern: BTreeMap<Vec<u8>, Subscribers>,
    joined: BTreeMap<u64, BTreeSet<(Place, Vec<u8>)>>,
}

impl Channels {
    fn at(&mut self, place: Place) -> &mut BTreeMap<Vec<u8>, Subscribers> {
        match place {
            Place::Channel => &mut self.by_name,
            Place::Pattern => &mut self.by_pattern,
        }
    }

    /// Subscribes a connection; `false` when it has too many subscriptions.
    pub fn join(
        &mut self,
        client: u64,
        mailbox: &Rc<Mailbox>,
        protocol: Protocol,
        place: Place,
        name: &[u8],
    ) -> bool {
        let joined = self.joined.entry(client).or_default();
        let entry = (place, name.to_vec());
        if !joined.contains(&entry) && joined.len() >= MAX_SUBSCRIPTIONS {
            return false;
        }
        joined.insert(entry);
        let subscriber = Subscriber {
            mailbox: Rc::clone(mailbox),
            protocol,
        };
        self.at(place)
            .entry(name.to_vec())
            .or_default()
            .insert(client, subscriber);
        true
    }

    /// Ends one subscription.
    pub fn part(&mut self, client: u64, place: Place, name: &[u8]) {
        if let Some(joined) = self.joined.get_mut(&client) {
            joined.remove(&(place, name.to_vec()));
            if joined.is_empty() {
                self.joined.remove(&client);
            }
        }
        let names = self.at(place);
        if let Some(subscribers) = names.get_mut(name) {
            subscribers.remove(&client);
            if subscribers.is_empty() {
                names.remove(name);
            }
        }
    }

    /// Ends all subscriptions of a connection.
    pub fn leave(&mut self, client: u64) {
        for (place, name) in self.joined.remove(&client).unwrap_or_default() {
            self.part(client, place, &name);
        }
    }

    /// How many subscriptions a connection has.
    pub fn count(&self, client: u64) -> usize {
        self.joined.get(&client).map_or(0, BTreeSet::len)
    }

    /// What a connection is subscribed to.
    pub fn joined(&self, client: u64, place: Place) -> Vec<Vec<u8>> {
        let joined = self.joined.get(&client).into_iter().flatten();
        joined
            .filter(|(of, _)| *of == place)
            .map(|(_, name)| name.clone())
            .collect()
    }

    /// Whether anybody listens.
    pub fn is_empty(&self) -> bool {
        self.joined.is_empty()
    }

    /// Names of the channels that somebody is subscribed to.
    pub fn channels(&self) -> impl Iterator<Item = &[u8]> {
        self.by_name.keys().map(Vec::as_slice)
    }

    /// Subscribers of a channel, patterns not counted.
    pub fn subscribers(&self, name: &[u8]) -> usize {
        self.by_name.get(name).map_or(0, BTreeMap::len)
    }

    /// Number of patterns.
    pub fn patterns(&self) -> usize {
        self.by_pattern.len()
    }

    /// Delivers a message; gives how many subscriptions it reached.
    pub fn publish(&self, channel: &[u8], message: &[u8]) -> usize {
        let mut reached = 0;
        for subscriber in self.by_name.get(channel).into_iter().flat_map(BTreeMap::values) {
            deliver(subscriber, &[b"message", channel, message]);
            reached += 1;
        }
        for (pattern, subscribers) in &self.by_pattern {
            if glob::matches(pattern, channel) {
                for subscriber in subscribers.values() {
                    deliver(subscriber, &[b"pmessage", pattern, channel, message]);
                    reached += 1;
                }
            }
        }
        reached
    }
}

fn deliver(subscriber: &Subscriber, parts: &[&[u8]]) {
    let mut encoded = Vec::new();
    let mut writer = Writer::new(&mut encoded, subscriber.protocol);
    writer.push(parts.len());
    for part in parts {
        writer.bulk(part);
    }
    subscriber.mailbox.publish(&encoded);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_channels_and_patterns_in_each_connections_protocol() {
        let mut channels = Channels::default();
        let (one, two) = (Rc::new(Mailbox::new(1_000)), Rc::new(Mailbox::new(1_000)));
        assert!(channels.join(1, &one, Protocol::Resp2, Place::Channel, b"news"));
        assert!(channels.join(2, &two, Protocol::Resp3, Place::Pattern, b"n*"));
        assert_eq!(channels.publish(b"news", b"x"), 2);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        one.fetch(&mut first);
        two.fetch(&mut second);
        assert_eq!(first, b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\nx\r\n");
        assert_eq!(
            second,
            b">4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$1\r\nx\r\n"
        );
        channels.leave(1);
        channels.leave(2);
        assert!(channels.is_empty());
        assert_eq!(channels.publish(b"news", b"x"), 0);
        assert_eq!((channels.channels().count(), channels.patterns()), (0, 0));
    }
}
