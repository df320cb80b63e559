//! The network between processes: it loses, repeats, delays and cuts off.

use bytes::Bytes;

use super::world::{Event, World};

impl World {
    pub(super) fn transmit(&mut self, from: usize, link: u64, frame: &Bytes) {
        let Some(&(a, b)) = self.links.get(&link) else {
            return;
        };
        let to = if a == from { b } else { a };
        self.met.frames += 1;
        self.met.bytes += u64::try_from(frame.len()).unwrap_or_default();
        if self.cut.contains(&(from, to)) {
            self.met.cut_frames += 1;
            return;
        }
        if self.random.per_mille(self.scenario.drop_per_mille) {
            self.met.dropped += 1;
            return;
        }
        let slow = |p: usize| self.processes.get(p).map_or(0, |p| p.slow_us);
        let mut delay = 200 + slow(from) + slow(to);
        if self.random.per_mille(self.scenario.reorder_per_mille) {
            self.met.reordered += 1;
            delay += self.random.range(1_000, 80_000);
        }
        let copies = if self.random.per_mille(self.scenario.duplicate_per_mille) {
            2
        } else {
            1
        };
        for copy in 0..copies {
            self.met.duplicated += copy;
            let delay = delay + copy * self.random.range(1_000, 500_000);
            self.after(
                delay,
                Event::Frame {
                    link,
                    to,
                    bytes: frame.clone(),
                },
            );
        }
    }

    pub(super) fn close(&mut self, link: u64, by: usize) {
        let Some((a, b)) = self.links.remove(&link) else {
            return;
        };
        self.linked.remove(&(a, b));
        let other = if a == by { b } else { a };
        self.after(1_000, Event::LinkDown { link, to: other });
        self.after(1_000_000, Event::Connect { a, b });
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        let usable = |p: usize| self.processes.get(p).is_some_and(|p| p.alive);
        if !usable(a) || !usable(b) || self.linked.contains(&(a, b)) {
            return;
        }
        let stands = |p: usize| self.processes.get(p).is_some_and(|p| p.paused);
        if self.cut.contains(&(a, b)) || self.cut.contains(&(b, a)) || stands(a) || stands(b) {
            self.after(500_000, Event::Connect { a, b });
            return;
        }
        self.next_link += 1;
        let link = self.next_link;
        self.links.insert(link, (a, b));
        self.linked.insert((a, b));
        self.after(
            100,
            Event::LinkUp {
                link,
                to: a,
                dialled: true,
            },
        );
        self.after(
            150,
            Event::LinkUp {
                link,
                to: b,
                dialled: false,
            },
        );
    }

    /// Breaks all links of a process; its peers notice, if `noticed`.
    pub(super) fn break_links(&mut self, process: usize, noticed: bool) {
        let broken: Vec<(u64, (usize, usize))> = self
            .links
            .iter()
            .filter(|(_, (a, b))| *a == process || *b == process)
            .map(|(link, pair)| (*link, *pair))
            .collect();
        for (link, (a, b)) in broken {
            self.links.remove(&link);
            self.linked.remove(&(a, b));
            for to in [a, b] {
                if noticed {
                    let delay = self.random.range(500, 30_000);
                    self.after(delay, Event::LinkDown { link, to });
                }
            }
            self.after(500_000, Event::Connect { a, b });
        }
    }
}
