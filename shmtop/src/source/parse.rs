//! The formats of /proc/PID/{stat,status,sched} as far as a sample needs them: text in, values out.
//!
//! Called by `process` and `thread`. procfs has a parser for the first two; these read a fifth of the fields at a
//! fraction of its cost, many times a second, and give up on broken text where that one slices out of bounds.

use super::file::{cpu_list, field, harmless};
use crate::sample::{CpuList, ThreadPolicy};
use std::str::FromStr;

/// What is used of /proc/PID/stat or /proc/PID/task/TID/stat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) comm: String,
    pub(super) state: char,
    pub(super) ppid: u32,
    pub(super) minor_faults: u64,
    pub(super) major_faults: u64,
    pub(super) utime_ticks: u64,
    pub(super) stime_ticks: u64,
    pub(super) nice: i32,
    pub(super) threads: u32,
    pub(super) start_ticks: u64,
    pub(super) last_cpu: u32,
    pub(super) rt_priority: u32,
    pub(super) policy: ThreadPolicy,
}

impl Stat {
    /// The name stands in parentheses and may hold anything, parentheses included: the last one ends it.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let open = text.iter().position(|b| *b == b'(')?;
        let close = text.iter().rposition(|b| *b == b')')?;
        let comm = harmless(text.get(open + 1..close)?);
        let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
        // Field numbers as in proc_pid_stat(5); the state is the third.
        let mut fields = [""; 42];
        for (slot, word) in fields[3..].iter_mut().zip(rest.split_ascii_whitespace()) {
            *slot = word;
        }
        fn get<T: FromStr>(fields: &[&str; 42], number: usize) -> Option<T> {
            fields[number].parse().ok()
        }
        Some(Self {
            comm,
            state: get(&fields, 3)?,
            ppid: get(&fields, 4)?,
            minor_faults: get(&fields, 10)?,
            major_faults: get(&fields, 12)?,
            utime_ticks: get(&fields, 14)?,
            stime_ticks: get(&fields, 15)?,
            nice: get(&fields, 19)?,
            threads: get(&fields, 20)?,
            start_ticks: get(&fields, 22)?,
            last_cpu: get(&fields, 39)?,
            rt_priority: get(&fields, 40)?,
            policy: policy(get(&fields, 41)?),
        })
    }
}

fn policy(number: u32) -> ThreadPolicy {
    match number {
        0 => ThreadPolicy::Other,
        1 => ThreadPolicy::Fifo,
        2 => ThreadPolicy::RoundRobin,
        3 => ThreadPolicy::Batch,
        5 => ThreadPolicy::Idle,
        6 => ThreadPolicy::Deadline,
        7 => ThreadPolicy::Ext,
        n => ThreadPolicy::Unnamed(n),
    }
}

/// /proc/PID/schedstat: ns on a CPU, ns waiting for one, turns.
pub(super) fn schedstat(text: &[u8]) -> Option<(u64, u64, u64)> {
    let mut words = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
    let mut next = || words.next()?.parse().ok();
    Some((next()?, next()?, next()?))
}

/// What is used of /proc/PID/status or /proc/PID/task/TID/status: one pass over its sixty lines. `None`: not there, or no number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// The second of four.
    pub(super) euid: Option<u32>,
    pub(super) tracer_pid: Option<u32>,
    /// End of the table of descriptors.
    pub(super) fd_table: Option<u64>,
    pub(super) size_bytes: Option<u64>,
    pub(super) locked_bytes: Option<u64>,
    pub(super) rss_bytes: Option<u64>,
    pub(super) rss_shmem_bytes: Option<u64>,
    pub(super) swap_bytes: Option<u64>,
    /// CAP_IPC_LOCK in effect.
    pub(super) may_lock: Option<bool>,
    /// The id in the innermost pid namespace, the viewer's if that is the one.
    pub(super) innermost: Option<u32>,
    /// The same, if it is in another namespace than the viewer's.
    pub(super) inner: Option<u32>,
    pub(super) allowed_cpus: Option<CpuList>,
    pub(super) voluntary_switches: Option<u64>,
    pub(super) involuntary_switches: Option<u64>,
}

/// Its number in <linux/capability.h>.
const CAP_IPC_LOCK: u32 = 14;

impl Status {
    pub(super) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            match key {
                "Uid" => {
                    let mut ids = value.split_ascii_whitespace();
                    found.euid = ids.nth(1).and_then(|id| id.parse().ok());
                }
                "TracerPid" => found.tracer_pid = value.parse().ok(),
                "FDSize" => found.fd_table = value.parse().ok(),
                "VmSize" => found.size_bytes = bytes(value),
                "VmLck" => found.locked_bytes = bytes(value),
                "VmRSS" => found.rss_bytes = bytes(value),
                "RssShmem" => found.rss_shmem_bytes = bytes(value),
                "VmSwap" => found.swap_bytes = bytes(value),
                "CapEff" => {
                    let effective = u64::from_str_radix(value, 16).ok();
                    found.may_lock = effective.map(|all| all >> CAP_IPC_LOCK & 1 == 1);
                }
                "NSpid" => {
                    let mut ids = value.split_ascii_whitespace();
                    let here = ids.next();
                    let inner = ids.next_back();
                    found.inner = inner.and_then(|id| id.parse().ok());
                    found.innermost = inner.or(here).and_then(|id| id.parse().ok());
                }
                "Cpus_allowed_list" => found.allowed_cpus = cpu_list(value),
                "voluntary_ctxt_switches" => found.voluntary_switches = value.parse().ok(),
                "nonvoluntary_ctxt_switches" => found.involuntary_switches = value.parse().ok(),
                _ => {}
            }
        }
        found
    }
}

/// "12 kB" in bytes.
fn bytes(value: &str) -> Option<u64> {
    let kb = value.strip_suffix("kB")?;
    kb.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// se.nr_migrations of a sched file.
pub(super) fn migrations(text: &str) -> Option<u64> {
    field(text, "se.nr_migrations")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TAIL: &str = "S 1 7 7 0 -1 4194560 120 0 3 0 15 16 0 0 20 -5 4 0 4200 1 1 1 0 0 0 0 0 0 0 0 0 0 0 0 17 1 50 2 0 0 0 0 0 0 0 0 0 0 0";

    #[test]
    fn a_name_cannot_forge_the_fields_after_it() {
        let text = format!("7 (x) R 99 (\u{1b}[2J)) {TAIL}\n");
        let stat = Stat::parse(text.as_bytes()).unwrap();
        assert_eq!(stat.comm, "x) R 99 (\u{fffd}[2J)");
        assert_eq!((stat.state, stat.ppid, stat.start_ticks), ('S', 1, 4200));
        assert_eq!((stat.minor_faults, stat.major_faults), (120, 3));
        assert_eq!((stat.utime_ticks, stat.stime_ticks), (15, 16));
        assert_eq!((stat.nice, stat.threads), (-5, 4));
        assert_eq!((stat.last_cpu, stat.rt_priority), (1, 50));
        assert_eq!(stat.policy, ThreadPolicy::RoundRobin);
    }

    #[test]
    fn an_inner_id_is_the_last_of_several() {
        let ids = |text: &str| {
            let status = Status::parse(text);
            (status.inner, status.innermost)
        };
        assert_eq!(ids("NSpid:\t4711\t30\t7\n"), (Some(7), Some(7)));
        assert_eq!(ids("NSpid:\t4711\n"), (None, Some(4711)));
        for none in ["NSpid:\n", "", "NSpid:\t1\tx\n"] {
            assert_eq!(ids(none), (None, None), "{none:?}");
        }
    }

    #[test]
    fn a_cut_off_stat_is_no_stat() {
        let text = format!("7 (x) {TAIL}");
        for cut in 0..text.len() - 60 {
            assert_eq!(Stat::parse(&text.as_bytes()[..cut]), None, "{cut}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Stat::parse(&text);
            let _ = schedstat(&text);
            let text = String::from_utf8_lossy(&text);
            let _ = (Status::parse(&text), migrations(&text));
        }
    }

    #[test]
    fn who_may_lock_what_it_likes_is_seen_by_its_capabilities() {
        let may = |text| Status::parse(text).may_lock;
        // Root, a container's root, nobody.
        assert_eq!(may("CapEff:\t000001ffffffffff\n"), Some(true));
        assert_eq!(may("CapEff:\t00000000a80425fb\n"), Some(false));
        assert_eq!(may("CapEff:\t0000000000004000\n"), Some(true));
        assert_eq!(may("CapPrm:\t000001ffffffffff\nCapEff:\t0\n"), Some(false));
        assert_eq!(may("CapEff:\tx\n"), None);
    }

    #[test]
    fn sizes_of_a_status_file_are_bytes() {
        let text = "Uid:\t1\t1000\t3\t4\nVmLck:\t  64 kB\nThreads:\t3\nCpus_allowed_list:\t0,2-3\n";
        let status = Status::parse(text);
        let expected = Status {
            euid: Some(1000),
            locked_bytes: Some(65536),
            allowed_cpus: Some(vec![0, 2, 3]),
            ..Status::default()
        };
        assert_eq!(status, expected);
    }
}
