//! What is written here on its way there, and copies of everything.

use std::collections::BTreeSet;

use super::{Copied, Copying, Stored, UpstreamPortion, UpstreamWrite};
use crate::core::apply::{Change, What};
use crate::core::clock::{Hlc, Now};
use crate::core::command::Kind;
use crate::core::groups::is_lock;
use crate::core::io::Output;
use crate::core::node::Core;
use crate::store::Entry;

/// Bytes of entries in one portion, about.
const PORTION_BYTES: usize = 256 << 10;
/// Entries put into the stream at once when all are copied.
const COPY_ENTRIES: usize = 1_024;
/// What was written so long before a copy began is under way nowhere any more, clocks that differ included.
const COPY_OVERLAP_MS: u64 = 60_000;

impl Core {
    /// Takes a change of this member into the upstream's stream.
    pub(in crate::core) fn publish_upstream(&mut self, change: &Change) {
        let Some(upstream) = self.upstream.as_mut().filter(|upstream| !upstream.quiet) else {
            return;
        };
        let Some(entry) = self.store.entry(change.id) else {
            return;
        };
        if !upstream.concerns(entry.key()) || is_lock(&self.config.groups, entry.key()) {
            return;
        }
        let (number, dropped) = upstream.out.push(change);
        upstream.published = Some(number);
        self.upstream_released.extend(dropped);
        if upstream.out.take_reset() {
            // The ring was too short: everything has to be looked through.
            upstream.copying = Some(Copying {
                next: 0,
                all: true,
                locks: false,
                earlier: None,
                begun: Copied {
                    at: Hlc::ZERO,
                    homes: BTreeSet::new(),
                },
            });
            upstream.lagging = true;
        }
    }

    /// Begins to copy what this member is the home of: everything, or, when it has done so before, only `latest`, what may
    /// have changed since that copy was begun.
    ///
    /// Another member's write may reach the upstream before a copy of what was here a moment earlier, and then that copy
    /// is what stays. A copy of the latest, begun once nobody writes any more and everybody has everything, puts it right.
    /// Locks go along with it: a request that holds one now finds it there when it comes to its end.
    pub fn copy_upstream(&mut self, now: Now, latest: bool) {
        let begun = Copied {
            at: Hlc::from_ms(now.wall_ms.saturating_sub(COPY_OVERLAP_MS)),
            homes: self.homes.acting().collect(),
        };
        if let Some(upstream) = self.upstream.as_mut().filter(|u| u.copying.is_none()) {
            upstream.counts.copied = 0;
            upstream.copying = Some(Copying {
                next: 0,
                all: false,
                locks: latest,
                earlier: upstream.copied.clone().filter(|_| latest),
                begun,
            });
        }
    }

    /// Puts the next entries of a copy into the stream, as far as there is room.
    fn copy_on(&mut self) {
        let Some(upstream) = &mut self.upstream else {
            return;
        };
        if upstream.out.head() > upstream.out.acked() {
            return;
        }
        let Some(mut copying) = upstream.copying.take() else {
            return;
        };
        let mut entries = self.store.iter_from(copying.next);
        for (id, entry) in entries.by_ref().take(COPY_ENTRIES) {
            copying.next = id.number().saturating_add(1);
            let mine = copying.all || self.homes.acts(entry.partition());
            let is_there = copying.earlier.as_ref().is_some_and(|earlier| {
                entry.newest() < earlier.at && earlier.homes.contains(&entry.partition())
            });
            if mine
                && !is_there
                && upstream.concerns(entry.key())
                && (copying.locks || !is_lock(&self.config.groups, entry.key()))
            {
                upstream.counts.copied += 1;
                // A copy of what is there already needs no room of its own: the ring is empty.
                upstream.out.push(&Change {
                    id,
                    what: What::Whole,
                    since: Hlc::ZERO,
                });
            }
        }
        if entries.next().is_some() {
            upstream.copying = Some(copying);
        } else if !copying.all {
            upstream.copied = Some(copying.begun);
        }
    }

    /// What the upstream has to do next; to be confirmed by [`super::Input::UpstreamConfirmed`], or by
    /// [`super::Input::UpstreamLost`] when it could not be done.
    pub fn next_upstream(&mut self, now: Now) -> Option<UpstreamPortion> {
        self.copy_on();
        let Self { upstream, store, .. } = self;
        let upstream = upstream.as_mut().filter(|upstream| upstream.out.is_due())?;
        let size = |slot| store.entry(slot).map_or(0, Entry::bytes);
        let portion = upstream.out.next(PORTION_BYTES, size);
        upstream.out.sent(portion.last, PORTION_BYTES, now.mono_ms);
        let write = |change: &Change| upstream_write(store.entry(change.id)?, change.what, now.wall_ms);
        Some(UpstreamPortion {
            last: portion.last,
            writes: portion.changes.iter().filter_map(write).collect(),
        })
    }

    pub(in crate::core) fn on_upstream_confirmed(&mut self, now: Now, upto: u64, out: &mut Vec<Output>) {
        let Some(upstream) = &mut self.upstream else {
            return;
        };
        upstream.connected = true;
        let before = upstream.out.acked();
        let done = upstream.out.confirm(upto, now.mono_ms);
        upstream.counts.written += upstream.out.acked() - before;
        if upstream.out.head() == upstream.out.acked() {
            upstream.lagging = false;
        }
        self.upstream_done(now, &done, out);
    }

    pub(in crate::core) fn on_upstream_lost(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(upstream) = &mut self.upstream else {
            return;
        };
        upstream.connected = false;
        upstream.out.rewind();
        let waiters = upstream.out.take_waiters();
        self.upstream_done(now, &waiters, out);
    }

    /// Up to when everything written here is there: tombstones must stay until then, or a look-up would bring back
    /// what was deleted.
    pub(in crate::core) fn clean_upstream(&mut self, own: Hlc) -> Hlc {
        let Some(upstream) = &mut self.upstream else {
            return Hlc::MAX;
        };
        if upstream.is_clean() {
            upstream.clean_at = own;
        }
        upstream.clean_at
    }
}

fn upstream_write(entry: Entry<'_>, what: What, now_ms: u64) -> Option<UpstreamWrite> {
    let key = entry.key().to_vec();
    if entry.is_dead() {
        return Some(UpstreamWrite::Delete { key });
    }
    if !entry.is_live(now_ms) {
        // It has expired there as well.
        return None;
    }
    if let (What::Touch, Some(at_ms)) = (what, entry.expires_ms()) {
        return Some(UpstreamWrite::Expire { key, at_ms });
    }
    let stored = match entry.kind()? {
        Kind::String => Stored::String(entry.value().to_vec()),
        kind => Stored::Fields(
            kind,
            entry.fields().map(|(n, v)| (n.to_vec(), v.to_vec())).collect(),
        ),
    };
    Some(UpstreamWrite::Put {
        key,
        stored,
        expires_ms: entry.expires_ms().unwrap_or(0),
    })
}
