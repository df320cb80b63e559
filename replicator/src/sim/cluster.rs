//! What is done to the cluster: faults, and what Kubernetes does.

use std::collections::BTreeSet;

use super::scenario::{DEAD_AFTER_MS, Fault, TTL_MS};
use super::world::{Event, Healing, Leaving, World};
use crate::core::{Input, Mode};

/// How long a terminating pod may take, µs.
const GRACE_US: u64 = 30_000_000;

impl World {
    /// A fault begins.
    pub(super) fn fault(&mut self, number: usize) {
        if self.finishing {
            return;
        }
        let Some((_, fault)) = self.scenario.faults.get(number).copied() else {
            return;
        };
        let alive: Vec<usize> = self.pods.values().flatten().copied().collect();
        let Some(victim) = self.random.pick(&alive) else {
            return;
        };
        self.log(|| format!("FAULT {fault:?} (p{victim})"));
        match fault {
            Fault::Partition { ms } => self.partition(&alive, ms),
            Fault::OneWay { ms } => {
                let cut = alive.iter().filter(|p| **p != victim).map(|p| (victim, *p));
                let cut: BTreeSet<_> = if self.random.per_mille(500) {
                    cut.collect()
                } else {
                    cut.take(1).collect()
                };
                self.met.one_way += 1;
                self.begin_cut(cut, ms);
            }
            Fault::Crash { restart_ms } => {
                let pod = self.processes.get(victim).map_or(0, |p| p.pod);
                self.met.crashes += 1;
                self.die(victim, true);
                self.after(
                    restart_ms * 1_000,
                    Event::Heal {
                        what: Healing::Restart { pod },
                    },
                );
            }
            Fault::LosePod { replace_ms } => {
                let pod = self.processes.get(victim).map_or(0, |p| p.pod);
                self.met.crashes += 1;
                self.met.lost_pods += 1;
                self.die(victim, false);
                self.pods.remove(&pod);
                self.rolling.retain(|p| *p != pod);
                self.after(
                    replace_ms * 1_000,
                    Event::Heal {
                        what: Healing::Replace,
                    },
                );
            }
            Fault::Pause { ms } => {
                self.met.pauses += 1;
                if let Some(process) = self.processes.get_mut(victim) {
                    process.paused = true;
                }
                // For the others a process that stands still for long is dead, and with it goes what it alone had.
                let paused = self.processes.iter().filter(|p| p.alive && p.paused).count();
                let dead = ms > DEAD_AFTER_MS
                    && matches!(self.scenario.mode, Mode::Backup(backups) if paused > usize::from(backups));
                if dead {
                    self.lose(true);
                } else {
                    self.disturb(true);
                }
                let what = Healing::Resume {
                    process: victim,
                    dead,
                };
                self.after(ms * 1_000, Event::Heal { what });
            }
            Fault::Roll => {
                if self.rolling.is_empty() && self.surge.is_none() {
                    self.rolling = self.pods.keys().copied().collect();
                }
            }
            Fault::Shrink => {
                self.met.shrinkings += 1;
                let leave = (alive.len() / 2).max(1);
                for process in alive.into_iter().take(leave) {
                    if self.rolling.is_empty() {
                        self.terminate(process);
                    }
                }
            }
            Fault::Scale { up } => {
                self.met.scalings += 1;
                if up {
                    self.start_pod();
                } else if alive.len() > 2 && self.rolling.is_empty() {
                    self.terminate(victim);
                }
            }
        }
    }

    fn partition(&mut self, alive: &[usize], ms: u64) {
        let mut side: BTreeSet<usize> = alive
            .iter()
            .copied()
            .filter(|_| self.random.per_mille(400))
            .collect();
        if side.is_empty() || side.len() == alive.len() {
            side = alive.iter().take(1).copied().collect();
        }
        let mut cut = BTreeSet::new();
        for a in alive {
            for b in alive {
                if side.contains(a) != side.contains(b) {
                    cut.insert((*a, *b));
                }
            }
        }
        self.met.partitions += 1;
        self.met.long_partitions += u64::from(ms > TTL_MS);
        self.begin_cut(cut, ms);
    }

    fn begin_cut(&mut self, cut: BTreeSet<(usize, usize)>, ms: u64) {
        self.lose(true);
        let now_us = self.now_us;
        for user in &mut self.users {
            user.partition_begins(now_us);
        }
        // The kernel may notice, or packets just vanish.
        if self.random.per_mille(300) {
            let touched: BTreeSet<usize> = cut.iter().map(|(a, _)| *a).collect();
            self.cut.extend(&cut);
            for process in touched {
                self.break_links(process, true);
            }
        }
        self.cut.extend(&cut);
        self.log(|| format!("cut {cut:?}"));
        self.after(
            ms * 1_000,
            Event::Heal {
                what: Healing::Cut(cut),
            },
        );
    }

    fn die(&mut self, process: usize, noticed: bool) {
        self.lose(true);
        let now_us = self.now_us;
        self.deaths_us.retain(|at_us| at_us + 15_000_000 > now_us);
        self.deaths_us.push(now_us);
        let deaths = self.deaths_us.len();
        let others = self.pods.values().flatten().copied().filter(|p| *p != process);
        let others: Vec<usize> = others.collect();
        let is_cut = |p: &usize| self.cut.contains(&(process, *p)) || self.cut.contains(&(*p, process));
        let apart = others.iter().all(is_cut).then_some(others.as_slice());
        let scenario = self.scenario.clone();
        for user in &mut self.users {
            user.member_dies(&scenario, (process, apart), deaths, now_us);
        }
        if let Some(pod) = self.processes.get(process).map(|p| p.pod)
            && self.pods.contains_key(&pod)
        {
            self.pods.insert(pod, None);
        }
        self.leaving.retain(|l| l.process != process);
        self.kill(process, noticed);
    }

    /// A fault ends.
    pub(super) fn heal(&mut self, what: Healing) {
        self.log(|| format!("heal {what:?}"));
        match what {
            Healing::Cut(cut) => {
                self.cut.retain(|pair| !cut.contains(pair));
                self.lose(false);
            }
            Healing::Restart { pod } => {
                if self.pods.get(&pod) == Some(&None) {
                    self.met.restarts += 1;
                    self.start_process(pod);
                }
                self.lose(false);
            }
            Healing::Replace => {
                self.start_pod();
                self.lose(false);
            }
            Healing::Resume { process, dead } => {
                self.resume(process);
                if dead {
                    self.lose(false);
                } else {
                    self.disturb(false);
                }
            }
        }
    }

    /// A pod is asked to end: it is taken out of the Service, and its preStop hook runs.
    fn terminate(&mut self, process: usize) {
        if self.leaving.iter().any(|l| l.process == process) {
            return;
        }
        self.log(|| format!("p{process} is to leave"));
        self.tell(process, &Input::Drain);
        // Applications end quickly or slowly.
        let grace = if self.random.per_mille(500) { 0 } else { 1_500_000 };
        self.leaving.push(Leaving {
            process,
            stop_us: self.now_us + grace,
            stopped: false,
            deadline_us: self.now_us + GRACE_US,
        });
    }

    /// What Kubernetes and the operator do now and then.
    pub(super) fn operate(&mut self) {
        self.operate_leaving();
        self.operate_roll();
        let every = self.scenario.discovery_tenths;
        let turn = usize::try_from(self.now_us / 100_000).unwrap_or_default() % every;
        for process in self.pods.values().flatten().copied().collect::<Vec<_>>() {
            if process % every == turn {
                self.discover(process);
            }
        }
        if self.scenario.hints && self.random.per_mille(100) {
            let names: Vec<String> = self.pods.keys().map(|pod| format!("pod-{pod}")).collect();
            let to: Vec<usize> = self.pods.values().flatten().copied().collect();
            for process in to {
                self.tell(process, &Input::Exists { names: names.clone() });
            }
        }
    }

    fn operate_leaving(&mut self) {
        let now_us = self.now_us;
        let mut stop = Vec::new();
        for leaving in &mut self.leaving {
            if !leaving.stopped && now_us >= leaving.stop_us {
                leaving.stopped = true;
                stop.push(leaving.process);
            }
        }
        for process in stop {
            // The application has ended: its requests are over.
            let lost: Vec<_> = self
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
            if let Some(one) = self.processes.get_mut(process) {
                one.drained = false;
                one.ready = false;
            }
            self.tell(process, &Input::Stop);
        }
        let done: Vec<usize> = self
            .leaving
            .iter()
            .filter(|l| {
                let drained = self.processes.get(l.process).is_some_and(|p| p.drained);
                l.stopped && (drained || now_us >= l.deadline_us)
            })
            .map(|l| l.process)
            .collect();
        for process in done {
            let drained = self.processes.get(process).is_some_and(|p| p.drained);
            if !drained {
                self.log(|| format!("p{process} did not finish in time"));
                let scenario = self.scenario.clone();
                let now_us = self.now_us;
                for user in &mut self.users {
                    user.member_dies(&scenario, (process, None), 2, now_us);
                }
            }
            self.leaving.retain(|l| l.process != process);
            let pod = self.processes.get(process).map_or(0, |p| p.pod);
            self.pods.remove(&pod);
            self.kill(process, true);
        }
    }

    fn operate_roll(&mut self) {
        if !self.leaving.is_empty() {
            return;
        }
        if let Some(pod) = self.surge {
            let ready = self.pods.get(&pod).copied().flatten();
            let Some(process) = ready else {
                self.surge = None;
                return;
            };
            if !self.processes.get(process).is_some_and(|p| p.ready) {
                return;
            }
            self.surge = None;
            if let Some(old) = self.rolling.pop_front()
                && let Some(process) = self.pods.get(&old).copied().flatten()
            {
                self.terminate(process);
            }
            self.met.rolls += u64::from(self.rolling.is_empty());
        } else if !self.rolling.is_empty() && !self.finishing {
            self.surge = Some(self.start_pod());
        }
    }
}
