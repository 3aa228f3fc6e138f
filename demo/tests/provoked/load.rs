//! What other programs take of the CPUs while a fault is provoked: a machine that is busy with something else can't tell one
//! from the other.

use std::collections::HashMap;
use std::fs;
use std::time::Instant;

/// Share of all CPUs from which others are to blame for what was not seen.
pub(crate) const STARVED: f64 = 0.15;

/// CPU time at one moment, in the kernel's ticks.
pub(crate) struct Load {
    at: Instant,
    busy: u64,
    ours: u64,
}

impl Load {
    pub(crate) fn now() -> Self {
        Self {
            at: Instant::now(),
            busy: busy(),
            ours: ours(std::process::id()),
        }
    }

    /// The share of all CPUs that others have taken since.
    pub(crate) fn others(&self) -> f64 {
        let now = Self::now();
        let cpus = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
        // The kernel counts a hundred a second in what it shows to programs, on every machine.
        let ticks = self.at.elapsed().as_secs_f64() * 100.0 * cpus;
        let busy = now.busy.saturating_sub(self.busy);
        let others = busy.saturating_sub(now.ours.saturating_sub(self.ours));
        others as f64 / ticks.max(1.0)
    }
}

/// What all CPUs did, the host's other guests included.
fn busy() -> u64 {
    let stat = fs::read_to_string("/proc/stat").expect("/proc/stat");
    let all = stat.lines().next().expect("the sum of all CPUs");
    let mut words = all.split_whitespace().skip(1);
    let mut times = std::iter::from_fn(|| Some(words.next()?.parse::<u64>().expect("a number")));
    let [user, nice, system, _idle, _iowait, irq, soft, steal] =
        std::array::from_fn(|_| times.next().unwrap_or(0));
    user + nice + system + irq + soft + steal
}

/// What this process and those below it used, those that have ended and were waited for included.
fn ours(me: u32) -> u64 {
    let mut parents = HashMap::new();
    let mut used = HashMap::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        // One that ends meanwhile is in its parent's sum.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        let fields: Vec<u64> = after_name
            .split(' ')
            .map(|f| f.trim().parse().unwrap_or(0))
            .collect();
        // proc(5): ppid is field 4; utime, stime, cutime, cstime are 14 to 17; the name before was field 2.
        if let (Some(parent), Some(times)) = (fields.get(1), fields.get(11..15)) {
            parents.insert(pid, *parent as u32);
            used.insert(pid, times.iter().sum::<u64>());
        }
    }
    let below_me = |pid: &u32| {
        let mut at = *pid;
        while at != me {
            match parents.get(&at) {
                Some(parent) => at = *parent,
                None => return false,
            }
        }
        true
    };
    let mine = used.iter().filter(|(pid, _)| below_me(pid));
    mine.map(|(_, ticks)| ticks).sum()
}
