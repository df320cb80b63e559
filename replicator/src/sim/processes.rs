//! Pods and their processes: how they start, stop and stand still.

use std::collections::BTreeSet;

use super::world::{Event, Process, World};
use crate::core::{Core, Input, NodeId, NodeInfo, Now, TicketId};

impl World {
    /// A new pod, with a process in it.
    pub(super) fn start_pod(&mut self) -> usize {
        let pod = self.next_pod;
        self.next_pod += 1;
        self.pods.insert(pod, None);
        self.start_process(pod);
        pod
    }

    pub(super) fn start_process(&mut self, pod: usize) {
        let number = self.processes.len();
        let id = NodeId(self.random.next() | 1);
        let name = format!("pod-{pod}");
        let skew = i64::try_from(self.random.below(2 * self.scenario.skew_ms + 1)).unwrap_or(0)
            - i64::try_from(self.scenario.skew_ms).unwrap_or(0);
        self.met.skewed += u64::from(skew.abs() > 100);
        let info = NodeInfo {
            id,
            address: name.clone(),
            name,
            zone: format!("zone-{}", pod % 2),
            machine: format!("machine-{}", pod % 4),
            started_ms: self.wall_ms(),
        };
        let mut config = self.scenario.config(number);
        (self.settings)(&mut config);
        let now = Now {
            wall_ms: self.wall_ms().saturating_add_signed(skew),
            mono_ms: self.now_us / 1_000,
        };
        let slow = self.random.per_mille(100);
        self.met.slow += u64::from(slow);
        self.processes.push(Process {
            core: Core::new(config, info, self.random.next(), now),
            pod,
            alive: true,
            ready: false,
            paused: false,
            drained: false,
            homes_taken: 0,
            skew_ms: skew,
            tick_us: u64::MAX,
            backlog: Vec::new(),
            slow_us: if slow { self.random.range(1_000, 20_000) } else { 0 },
        });
        self.pods.insert(pod, Some(number));
        self.log(|| format!("p{number} starts in pod-{pod} as {id:?}"));
        let others: Vec<usize> = (0..number)
            .filter(|p| self.processes.get(*p).is_some_and(|p| p.alive))
            .collect();
        self.discover(number);
        for other in others {
            let delay = self.random.range(1_000, 60_000);
            self.after(delay, Event::Connect { a: number, b: other });
        }
        self.schedule_tick(number);
    }

    /// Ends a process. What it knew is lost, and so are the requests it was serving.
    pub(super) fn kill(&mut self, process: usize, noticed: bool) {
        let Some(one) = self.processes.get_mut(process).filter(|p| p.alive) else {
            return;
        };
        one.alive = false;
        one.ready = false;
        one.backlog.clear();
        self.log(|| format!("p{process} is gone"));
        self.break_links(process, noticed);
        let lost: Vec<(usize, TicketId)> = self
            .waiting
            .keys()
            .filter(|(p, _)| *p == process)
            .copied()
            .collect();
        for key in lost {
            if let Some(request) = self.waiting.remove(&key) {
                self.request_lost(request);
            }
        }
    }

    /// Lets a process that stood still go on.
    pub(super) fn resume(&mut self, process: usize) {
        let Some(one) = self.processes.get_mut(process) else {
            return;
        };
        one.paused = false;
        one.tick_us = u64::MAX;
        let backlog = std::mem::take(&mut one.backlog);
        self.log(|| format!("p{process} goes on"));
        for event in backlog {
            self.input(process, event);
        }
        self.schedule_tick(process);
    }

    /// Discovery answers a process: where there are other pods.
    pub(super) fn discover(&mut self, process: usize) {
        let own = self.processes.get(process).map(|p| p.pod);
        let addresses: BTreeSet<String> = self
            .pods
            .keys()
            .filter(|pod| Some(**pod) != own)
            .map(|pod| format!("pod-{pod}"))
            .collect();
        self.tell(
            process,
            &Input::Discovered {
                addresses: &addresses,
            },
        );
    }

    /// Processes that a request can come to.
    pub(super) fn endpoints(&self) -> Vec<usize> {
        let leaving = |p: usize| self.leaving.iter().any(|l| l.process == p);
        (0..self.processes.len())
            .filter(|p| self.processes.get(*p).is_some_and(|one| one.alive && one.ready) && !leaving(*p))
            .collect()
    }
}
