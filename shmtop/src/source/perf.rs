//! perf_event counters per thread that owns a slot: opened once, read each time, closed when the thread is gone. Called
//! by `World`.
//!
//! A hardware group of four (counted together or not at all, never pinned); where asked for, another of four for the reads of the
//! first and the last level of cache, and a group of the kernel's own counters.
//! The perf-event crate encodes the events; the groups are opened here, because the crate's own can only observe
//! their opener, and these observe threads of other processes.
//!
//! Hardware counters leave the kernel out: the rings are user space, and so less is asked of perf_event_paranoid.
//!
//! A counted thread pays for it at each context switch: some 0.3 to 2 µs, against 2.3 µs for the hand-over itself
//! (`perf bench sched pipe` with and without a software group, 2 CPUs of a VM). /proc counts what the kernel's
//! counters do at no such price, so those are opened only where asked for.

use super::perf_group::Group;
use super::room::Room;
use crate::reading::Why;
use crate::sample::{CacheCounters, Fact, HardwareCounters, Perf, PerfThread, SoftwareCounters};
use perf_event::events::{Cache, CacheOp, CacheResult, Event, Hardware, Software, WhichCache};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;

/// Threads with open counters, at most: each holds four descriptors, or twelve where more is asked for.
const MAX_THREADS: usize = 64;
/// Descriptors of that many, as long as nobody asks for more.
pub(super) const USUAL: usize = 4 * MAX_THREADS;
/// What was denied may be allowed later, and descriptors may be free again: tried anew after this long.
const RETRY_NS: u64 = 10_000_000_000;

/// What the explanation of a refusal needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings {
    /// Whether this is a VM, if known.
    pub(super) hypervisor: Option<bool>,
    /// kernel.perf_event_paranoid, if known.
    pub(super) paranoid: Option<i32>,
}

/// All open counters, by thread.
#[derive(Debug, Default)]
pub(super) struct PerfReader {
    threads: BTreeMap<u32, Counters>,
}

#[derive(Debug)]
struct Counters {
    pid: u32,
    opened_ns: u64,
    hardware: Perf<Group>,
    /// `None`: not asked for.
    cache: Option<Perf<Group>>,
    /// `None`: not asked for.
    software: Option<Perf<Group>>,
    /// Whether the software group sees the kernel.
    kernel: bool,
}

/// A thread to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) pid: u32,
    /// The kernel's own counters as well, and the second hardware group.
    pub(super) software: bool,
}

impl PerfReader {
    /// Descriptors that it keeps open.
    pub(super) fn held(&self) -> usize {
        self.threads.values().map(Counters::held).sum()
    }

    /// The counters of `threads` by tid, as far as there is room for them; those of all other threads are closed.
    pub(super) fn read(
        &mut self,
        threads: &BTreeMap<u32, Wanted>,
        now_ns: u64,
        around: Surroundings,
        room: &mut Room,
    ) -> Vec<PerfThread> {
        self.threads.retain(|tid, open| {
            let wanted = threads.get(tid).map(|w| (w.pid, w.software));
            wanted == Some((open.pid, open.software.is_some())) && !open.wants_retry(now_ns)
        });
        let mut seen = Vec::with_capacity(threads.len());
        for (&tid, &wanted) in threads {
            let mut left = *room;
            let full = if self.threads.len() >= MAX_THREADS {
                Some(format!("more than {MAX_THREADS} threads to count"))
            } else if !left.take(Counters::most(wanted)) {
                Some("no descriptors left for it: raise ulimit -n of shmtop".to_owned())
            } else {
                None
            };
            let counters = match self.threads.entry(tid) {
                Entry::Occupied(open) => open.into_mut(),
                Entry::Vacant(free) => match full {
                    Some(why) => {
                        seen.push(PerfThread {
                            pid: wanted.pid,
                            tid,
                            hardware: Perf::Unavailable(why.clone()),
                            cache: Perf::Unavailable(why.clone()),
                            software: Perf::Unavailable(why),
                        });
                        continue;
                    }
                    None => {
                        let counters = Counters::open(wanted, tid, now_ns, around);
                        room.take(counters.held());
                        free.insert(counters)
                    }
                },
            };
            seen.push(counters.read(tid));
        }
        seen
    }
}

impl Counters {
    /// Descriptors that they take at most.
    fn most(wanted: Wanted) -> usize {
        if wanted.software { 12 } else { 4 }
    }

    fn held(&self) -> usize {
        let groups = [
            Some(&self.hardware),
            self.cache.as_ref(),
            self.software.as_ref(),
        ];
        let open = groups.into_iter().flatten().filter_map(Perf::counting);
        open.map(Group::held).sum()
    }

    fn open(wanted: Wanted, tid: u32, opened_ns: u64, around: Surroundings) -> Self {
        let hardware = [
            Hardware::CPU_CYCLES,
            Hardware::INSTRUCTIONS,
            Hardware::CACHE_REFERENCES,
            Hardware::CACHE_MISSES,
        ];
        let software = [
            Software::TASK_CLOCK,
            Software::CONTEXT_SWITCHES,
            Software::CPU_MIGRATIONS,
            Software::PAGE_FAULTS,
        ];
        let hardware = hardware.map(Event::from);
        let cache = wanted.software.then(|| {
            let group = Group::open(tid, &cache_events(), false);
            explain(group, around)
        });
        let mut kernel = true;
        let software = wanted.software.then(|| {
            let software = software.map(Event::from);
            let mut group = Group::open(tid, &software, true);
            if matches!(&group, Err(e) if is_denied(e)) {
                kernel = false;
                group = Group::open(tid, &software, false);
            }
            explain(group, around)
        });
        Self {
            pid: wanted.pid,
            opened_ns,
            hardware: explain(Group::open(tid, &hardware, false), around),
            cache,
            software,
            kernel,
        }
    }

    fn wants_retry(&self, now_ns: u64) -> bool {
        let retry = |p: &Perf<Group>| matches!(p, Perf::Denied(_) | Perf::Unavailable(_));
        now_ns >= self.opened_ns + RETRY_NS
            && (retry(&self.hardware)
                || self.cache.as_ref().is_some_and(retry)
                || self.software.as_ref().is_some_and(retry))
    }

    fn read(&mut self, tid: u32) -> PerfThread {
        let kernel = self.kernel;
        let in_kernel = |n| match kernel {
            true => Fact::Known(n),
            false => Fact::Unknown(Why::no_permission("only user space may be counted")),
        };
        PerfThread {
            pid: self.pid,
            tid,
            hardware: values(&mut self.hardware, |times, v: [u64; 4]| HardwareCounters {
                time_enabled_ns: times.0,
                time_running_ns: times.1,
                cycles: v[0],
                instructions: v[1],
                cache_references: v[2],
                cache_misses: v[3],
            }),
            cache: match &mut self.cache {
                Some(group) => values(group, |times, v: [u64; 4]| CacheCounters {
                    time_enabled_ns: times.0,
                    time_running_ns: times.1,
                    l1d_reads: v[0],
                    l1d_misses: v[1],
                    llc_reads: v[2],
                    llc_misses: v[3],
                }),
                None => {
                    Perf::Unavailable("not asked for: open a client in the dashboard".to_owned())
                }
            },
            software: match &mut self.software {
                Some(group) => values(group, |times, v: [u64; 4]| SoftwareCounters {
                    time_enabled_ns: times.0,
                    time_running_ns: times.1,
                    task_clock_ns: v[0],
                    context_switches: in_kernel(v[1]),
                    cpu_migrations: in_kernel(v[2]),
                    page_faults: v[3],
                }),
                None => Perf::Unavailable("not asked for: /proc has the same".to_owned()),
            },
        }
    }
}

/// Reads of the first and of the last level, and those that missed.
fn cache_events() -> [Event; 4] {
    let event = |which, result| Cache {
        which,
        operation: CacheOp::READ,
        result,
    };
    [
        event(WhichCache::L1D, CacheResult::ACCESS),
        event(WhichCache::L1D, CacheResult::MISS),
        event(WhichCache::LL, CacheResult::ACCESS),
        event(WhichCache::LL, CacheResult::MISS),
    ]
    .map(Event::from)
}

/// Reads a group, if it is one.
fn values<T>(group: &mut Perf<Group>, f: impl FnOnce((u64, u64), [u64; 4]) -> T) -> Perf<T> {
    match group {
        Perf::Counting(group) => match group.read() {
            Ok((times, values)) => Perf::Counting(f(times, values)),
            Err(e) => Perf::Unavailable(format!("reading the counters: {e}")),
        },
        Perf::NoPmu(why) => Perf::NoPmu(why.clone()),
        Perf::Denied(why) => Perf::Denied(why.clone()),
        Perf::Unavailable(why) => Perf::Unavailable(why.clone()),
    }
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM))
}

/// Which kind of failure it is, in words for a person.
fn explain(group: io::Result<Group>, around: Surroundings) -> Perf<Group> {
    let error = match group {
        Ok(group) => return Perf::Counting(group),
        Err(error) => error,
    };
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::ENODEV) => {
            Perf::NoPmu(match around.hypervisor {
                Some(true) => "no PMU: the hypervisor hides it".to_owned(),
                _ => "no PMU: this machine does not count that".to_owned(),
            })
        }
        Some(libc::EACCES | libc::EPERM) => Perf::Denied(match around.paranoid {
            // Level 2 still allows to count user space of one's own processes: then it is the other user's, or seccomp.
            Some(level) if level > 2 => {
                format!("perf_event_paranoid is {level}, needs ≤ 2 or CAP_PERFMON")
            }
            Some(level) => format!(
                "perf_event_paranoid is {level}: another user's process needs CAP_PERFMON (or a sandbox forbids it)"
            ),
            None => "not allowed: needs CAP_PERFMON".to_owned(),
        }),
        Some(libc::ESRCH) => Perf::Unavailable("the thread ended".to_owned()),
        Some(errno) => Perf::Unavailable(format!(
            "perf_event_open: {}",
            transport::error::errno_name(errno)
        )),
        None => Perf::Unavailable(format!("perf_event_open: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOWHERE: Surroundings = Surroundings {
        hypervisor: Some(true),
        paranoid: Some(3),
    };

    fn all_of_us() -> Wanted {
        Wanted {
            pid: std::process::id(),
            software: true,
        }
    }

    #[test]
    fn a_hidden_pmu_and_a_denied_one_are_told_apart() {
        let failed = |errno| explain(Err(io::Error::from_raw_os_error(errno)), NOWHERE);
        for errno in [libc::ENOENT, libc::EOPNOTSUPP, libc::ENODEV] {
            assert!(matches!(failed(errno), Perf::NoPmu(why) if why.contains("hypervisor")));
        }
        for errno in [libc::EACCES, libc::EPERM] {
            assert!(matches!(failed(errno), Perf::Denied(why) if why.contains("is 3, needs ≤ 2")));
        }
        let why = failed(libc::EMFILE);
        assert!(matches!(why, Perf::Unavailable(why) if why.contains("EMFILE")));
    }

    #[test]
    fn without_room_for_its_descriptors_a_thread_is_not_counted_and_that_is_said() {
        let tid = nix::unistd::gettid().as_raw() as u32;
        let threads = BTreeMap::from([(tid, all_of_us())]);
        let mut reader = PerfReader::default();
        let seen = reader.read(&threads, 1, NOWHERE, &mut Room::for_so_many(11));
        let why = seen[0].hardware.why().expect("not counted");
        assert!(why.contains("no descriptors left"), "{why}");
        let mut room = Room::for_so_many(12);
        reader.read(&threads, 2, NOWHERE, &mut room);
        let taken = reader.held();
        assert!(room.take(12 - taken), "what was opened is taken, no more");
        assert!(!room.take(1), "and no less");
    }

    #[test]
    fn software_counters_advance_while_the_thread_works() {
        let tid = nix::unistd::gettid().as_raw() as u32;
        let threads = BTreeMap::from([(tid, all_of_us())]);
        let mut reader = PerfReader::default();
        let mut look = || {
            reader
                .read(&threads, 1, NOWHERE, &mut Room::for_so_many(99))
                .remove(0)
        };
        let first = match look().software {
            Perf::Counting(counters) => counters,
            // A sandbox without perf_event_open: then the reason must be one of the typed ones.
            Perf::Denied(why) | Perf::Unavailable(why) => return eprintln!("not checked: {why}"),
            Perf::NoPmu(why) => panic!("the kernel's own counters need no PMU: {why}"),
        };
        let pages = vec![1u8; 32 << 20];
        std::hint::black_box(&pages);
        let perf = look();
        let second = perf.software.counting().unwrap();
        assert!(second.task_clock_ns > first.task_clock_ns);
        assert!(second.page_faults > first.page_faults);
        assert!(second.time_running_ns > 0);
        assert!(perf.hardware.counting().is_some() || perf.hardware.why().is_some());
        assert!(perf.cache.counting().is_some() || perf.cache.why().is_some());
    }

    #[test]
    fn counters_of_a_thread_that_is_gone_are_closed() {
        let tid = nix::unistd::gettid().as_raw() as u32;
        let mut reader = PerfReader::default();
        reader.read(
            &BTreeMap::from([(tid, all_of_us())]),
            1,
            NOWHERE,
            &mut Room::for_so_many(99),
        );
        assert_eq!(reader.threads.len(), 1);
        let hardware = Wanted {
            software: false,
            ..all_of_us()
        };
        let seen = reader.read(
            &BTreeMap::from([(tid, hardware)]),
            2,
            NOWHERE,
            &mut Room::for_so_many(99),
        );
        assert!(matches!(&seen[0].software, Perf::Unavailable(why) if why.contains("not asked")));
        assert!(
            reader
                .read(&BTreeMap::new(), 3, NOWHERE, &mut Room::for_so_many(99))
                .is_empty()
        );
        assert!(reader.threads.is_empty());
    }
}
