//! A poller for each CPU while clients crowd them all with requests that are expensive, each serving the clients that wait on its CPU.
//!
//! A client that gives its CPU away while it waits is served best from there: who has its turn next is the poller, no other CPU has to be
//! woken, and requests and replies stay in that CPU's caches. Clients that wait so in a blocking call tell where (`Word::Cpu`). With CPUs to spare
//! one poller that spins beside its clients is best. Where requests are cheap, one poller has time for all, and treats
//! them more evenly than the kernel spreads them.

use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::Shared;
use super::clients::Table;
use super::pause::{Pause, REFUSED};
use super::pool::{self, Load};
use crate::config::WaitPolicy;
use crate::record;
use crate::shm::{Inbox, MAX_CONNECTIONS};

/// More CPUs have one poller as ever: not measured.
const MOST_CPUS: usize = 16;
/// Clients per CPU that make a crowd, and below which it is none any more.
const CROWD_PER_CPU: usize = 4;
const FEW_PER_CPU: usize = 2;
/// A client that asks for less than one part in so many of what the busiest does is no part of a crowd. Of 16 alike the slowest had 0.3 of the quickest at worst.
const LITTLE: u64 = 8;
/// What a request takes of a poller at least, and what they take of the wall clock together, for it to be worth while: 64 B take some 0.5 µs,
/// 20,000 B 2 µs. While spread, three quarters of the one and half of the other do.
const EXPENSIVE_NS: u64 = 1_000;
const BUSY_PERCENT: u64 = 25;
/// Looks in a row (0.1 s each) that must find it worth while: one during which a client leaves counts its time, and not its requests.
const CONVINCING: u32 = 2;
/// Looks without a crowd before the pollers are gathered, and between two tries.
const PATIENCE: u32 = 10;

/// What the control thread remembers of it.
pub(super) struct Spread {
    /// While there is a crowd: each CPU's poller.
    seats: Vec<Seat>,
    /// Looks without a crowd, while spread; else looks to pass before the next try.
    patience: u32,
    /// Looks in a row that found enough to do for more pollers.
    much: u32,
    last: Work,
    /// How long it is not tried again, since a thread was refused.
    refused: Pause,
}

impl Default for Spread {
    fn default() -> Self {
        Self {
            seats: Vec::new(),
            patience: 0,
            much: 0,
            last: Work::default(),
            refused: Pause::new(REFUSED, Duration::MAX),
        }
    }
}

/// What had been done at a look.
#[derive(Clone, Copy, Default)]
struct Work {
    at_ns: u64,
    useful_ns: u64,
    requests: u64,
}

impl Work {
    /// Whether the requests since `last` were dear enough, each and in sum, for a poller on each CPU. With `spread` on already, less is enough.
    fn is_much(self, last: Self, spread: bool) -> bool {
        let useful = self.useful_ns.saturating_sub(last.useful_ns);
        // Of clients that have gone the requests are missing: then it is not known.
        let Some(requests @ 1..) = self.requests.checked_sub(last.requests) else {
            return false;
        };
        let (each, percent) = if spread {
            (EXPENSIVE_NS * 3 / 4, BUSY_PERCENT / 2)
        } else {
            (EXPENSIVE_NS, BUSY_PERCENT)
        };
        useful / requests >= each && useful * 100 >= percent * (self.at_ns - last.at_ns)
    }
}

struct Seat {
    cpu: usize,
    inbox: Arc<Inbox>,
}

impl Spread {
    pub(super) fn is_on(&self) -> bool {
        !self.seats.is_empty()
    }

    /// Looks at where the active clients wait, ten times a second. What it finds may be a crowd to [`Self::begin`] with, once the table is
    /// let go of: threads are started then, and nobody who connects waits for that.
    #[must_use]
    pub(super) fn keep(
        &mut self,
        shared: &Arc<Shared>,
        table: &Table,
        pool: Load,
        now_ns: u64,
    ) -> Option<Vec<usize>> {
        let config = &shared.config;
        if config.workers != 0 || config.thread_per_client || config.wait != WaitPolicy::Adaptive {
            return None;
        }
        let shm = || table.by_key.values().filter_map(|c| c.shm.as_ref());
        let asking = || shm().filter_map(|s| Some((s.house.crowds()?, s.house.requests())));
        let most = asking().map(|(_, requests)| requests).max().unwrap_or(0);
        let clients = || asking().filter_map(|client| busy(client, most));
        let work = Work {
            at_ns: now_ns,
            useful_ns: pool.useful_ns,
            requests: shm().map(|s| record::requests_from_ring(&s.slot)).sum(),
        };
        let last = std::mem::replace(&mut self.last, work);
        let much = work.is_much(last, !self.seats.is_empty());
        self.much = if much { self.much.saturating_add(1) } else { 0 };
        if self.seats.is_empty() {
            let passed = Duration::from_nanos(now_ns.saturating_sub(last.at_ns));
            // Nothing is allocated for a few clients: requests of theirs allocate nothing.
            return (self.is_time(passed) && clients().count() >= 2 * CROWD_PER_CPU)
                .then(|| clients().collect());
        }
        let waiting: Vec<usize> = clients().collect();
        if self.is_over(much, &waiting) {
            self.end(table);
        }
        for shm in shm() {
            let cpu = shm.house.crowds();
            if let Some(seat) = self.seats.iter().find(|seat| cpu == Some(seat.cpu)) {
                shm.ends.move_to(&seat.inbox);
            }
        }
        None
    }

    /// While not spread, once a look, which comes so long after the last: whether it is to be tried.
    fn is_time(&mut self, passed: Duration) -> bool {
        self.patience = self.patience.saturating_sub(1);
        self.refused.pass(passed);
        self.much >= CONVINCING && self.patience == 0 && self.refused.is_over()
    }

    /// While spread: whether looks enough in a row have found too little to do for so many pollers, or clients that no longer crowd their CPUs.
    fn is_over(&mut self, much: bool, clients: &[usize]) -> bool {
        let cpus: Vec<usize> = self.seats.iter().map(|seat| seat.cpu).collect();
        self.patience = if much && is_crowd(clients, &cpus, FEW_PER_CPU) {
            0
        } else {
            self.patience + 1
        };
        self.patience >= PATIENCE
    }

    /// A poller for each CPU, if these clients crowd them all.
    pub(super) fn begin(&mut self, shared: &Arc<Shared>, clients: &[usize]) {
        let cpus = allowed_cpus();
        if !(2..=MOST_CPUS).contains(&cpus.len()) || !is_crowd(clients, &cpus, CROWD_PER_CPU) {
            return;
        }
        // A quota for fewer CPUs than there are.
        let whole = std::thread::available_parallelism().is_ok_and(|n| n.get() >= cpus.len());
        match whole.then(|| pool::first(shared, cpus.len())) {
            Some(Ok(inboxes)) => {
                self.refused.forget();
                self.seats = cpus
                    .into_iter()
                    .zip(inboxes)
                    .map(|(cpu, inbox)| Seat { cpu, inbox })
                    .collect();
                for seat in &self.seats {
                    seat.inbox.set_seat(Some(seat.cpu));
                }
            }
            // No thread to be had, or not the CPUs: one poller does.
            Some(Err(_)) => self.refused.begin(),
            None => self.patience = PATIENCE,
        }
    }

    /// Back to one poller, or as few as there must be. The others sleep until they are needed again.
    fn end(&mut self, table: &Table) {
        for seat in &self.seats {
            seat.inbox.set_seat(None);
        }
        let connections = table.by_key.values().filter_map(|c| c.shm.as_ref());
        for (n, shm) in connections.enumerate() {
            // More than one can sleep on, and the second has them.
            let seat = self.seats.get(n / MAX_CONNECTIONS);
            if let Some(seat) = seat.or(self.seats.last()) {
                shm.ends.move_to(&seat.inbox);
            }
        }
        (self.seats, self.patience) = (Vec::new(), 0);
    }
}

/// Where a client waits, of (CPU, requests since the last look), unless it asks for little beside one that asks for so `much`. A few who are always there and many who
/// think make CPUs with as many clients on each, and a poller for each would give the few who have one nearly to themselves several times what others get.
fn busy((cpu, requests): (usize, u64), much: u64) -> Option<usize> {
    (requests >= much / LITTLE).then_some(cpu)
}

/// Whether clients wait on all of these CPUs, so many on each in the mean and half as many at least, and no CPU has nearly all of them: that is one
/// thread with many connections, or a kernel that has put them together. Who says to be on another CPU is none of them.
fn is_crowd(clients: &[usize], cpus: &[usize], per_cpu: usize) -> bool {
    let on = |cpu: &usize| clients.iter().filter(|c| *c == cpu).count();
    let all: usize = cpus.iter().map(on).sum();
    let (least, most) = (cpus.iter().map(on).min(), cpus.iter().map(on).max());
    all >= per_cpu * cpus.len()
        && least.is_some_and(|n| n >= per_cpu.div_ceil(2))
        && most.is_some_and(|n| n * 4 <= all * 3)
}

fn allowed_cpus() -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new();
    };
    (0..CpuSet::count())
        .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .collect()
}

#[cfg(test)]
mod tests;
