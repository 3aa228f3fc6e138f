//! The machine: memory, file table, sysctls, clocksource, pressure, CPUs. Called by `World`.
//!
//! What moves is read about once a second, what somebody would have to set by hand every ten.

use super::cpu::CpuReader;
use super::file::{field, harmless, line, nonsense, number, text};
use super::{Options, clock};
use crate::reading::{Reading, Why};
use crate::sample::{
    EARLY_NS, Fact, FileNr, FileSystem, Host, HugePages, LoadAverage, Memory, Pressure,
    PressureLine, WINDOW_NS,
};
use nix::sys::utsname::uname;
use procfs::FromRead;
use std::path::{Path, PathBuf};

/// As long as the shortest window: read at the samples that close one, so that a CPU's time and that of the threads on it are of the same second however
/// the refresh jitters; long enough for a share in clock ticks to mean something.
const MOVING_NS: u64 = WINDOW_NS - EARLY_NS;
const SETTINGS_NS: u64 = 10_000_000_000;

/// Reads the machine.
#[derive(Debug)]
pub(super) struct HostReader {
    proc_root: PathBuf,
    sys_root: PathBuf,
    cpus: CpuReader,
    /// The MHz of /proc/cpuinfo; `None` on a fixture tree, which sysinfo can't be pointed at.
    system: Option<sysinfo::System>,
    nominal_khz: Reading<Vec<u64>>,
    settings_due_ns: u64,
    due_ns: u64,
    seen: Host,
}

impl HostReader {
    pub(super) fn new(options: &Options) -> Self {
        let real = options.proc_root == Path::new("/proc");
        Self {
            cpus: CpuReader::new(&options.proc_root, &options.sys_root),
            system: real.then(|| sysinfo::System::new().ok()).flatten(),
            nominal_khz: Err(Why::not_applicable("not this machine's files")),
            settings_due_ns: 0,
            due_ns: 0,
            seen: Host {
                ticks_per_second: procfs::ticks_per_second(),
                hypervisor: hypervisor(&options.proc_root).into(),
                ..Host::default()
            },
            proc_root: options.proc_root.clone(),
            sys_root: options.sys_root.clone(),
        }
    }

    /// The machine now, or up to a second ago: [`Host::at_ns`].
    pub(super) fn read(&mut self, now_ns: u64, buffer: &mut Vec<u8>) -> Host {
        if now_ns >= self.settings_due_ns {
            self.settings_due_ns = now_ns + SETTINGS_NS;
            self.settings();
        }
        if now_ns >= self.due_ns {
            self.due_ns = now_ns + MOVING_NS;
            // Many processes were read before it: the sample may have begun long ago.
            self.seen.at_ns = clock::monotonic_ns();
            self.moving(buffer);
        }
        self.seen.clone()
    }

    /// Swap in use when it was last looked at, if known.
    pub(super) fn swap_used_bytes(&self) -> Option<u64> {
        self.seen.memory.known()?.swap_used_bytes
    }

    fn settings(&mut self) {
        let sys = |name: &str| self.proc_root.join("sys").join(name);
        let seen = &mut self.seen;
        seen.hostname = line(&sys("kernel/hostname")).into();
        seen.boot_id = line(&sys("kernel/random/boot_id"))
            .map(|id| id.replace('-', ""))
            .into();
        seen.kernel = line(&sys("kernel/osrelease")).into();
        seen.machine = uname()
            .map(|name| harmless(name.machine().as_encoded_bytes()))
            .map_err(|errno| Why::not_there(format!("uname: {errno}")))
            .into();
        seen.nr_open = number(&sys("fs/nr_open")).into();
        seen.shmmax_bytes = number(&sys("kernel/shmmax")).into();
        seen.shmall_pages = number(&sys("kernel/shmall")).into();
        seen.perf_event_paranoid = number(&sys("kernel/perf_event_paranoid")).into();
        seen.memfd_noexec = number(&sys("vm/memfd_noexec")).into();
        seen.overcommit_memory = number(&sys("vm/overcommit_memory")).into();
        seen.numa_balancing = number(&sys("kernel/numa_balancing")).into();
        let clocksource = "devices/system/clocksource/clocksource0/current_clocksource";
        seen.clocksource = line(&self.sys_root.join(clocksource)).into();
        // The kernel changes to a slower one, while all runs, when it no longer trusts the first.
        seen.clock_gettime_ns = Fact::Known(clock::cost_ns());
        let shmem = self
            .sys_root
            .join("kernel/mm/transparent_hugepage/shmem_enabled");
        seen.shmem_enabled = line(&shmem)
            .and_then(|text| chosen(&text).ok_or_else(|| nonsense(&shmem)))
            .into();
        seen.numa_nodes = self.cpus.numa_nodes().into();
        self.cpus.look_who_is_isolated();
        if self.cpus.has_cpufreq() {
            self.nominal_khz = Err(Why::not_applicable("cpufreq says it better"));
        } else if let Some(system) = &mut self.system {
            // It reads all of /proc/cpuinfo for each CPU: not something to do every second.
            system.refresh_cpu_frequency();
            let khz = |c: &sysinfo::Cpu| c.frequency() * 1000;
            self.nominal_khz = Ok(system.cpus().iter().map(khz).collect());
        }
    }

    fn moving(&mut self, buffer: &mut Vec<u8>) {
        let seen = &mut self.seen;
        let cpus = self
            .cpus
            .read(buffer, &self.nominal_khz, &seen.hypervisor.get());
        seen.cpus_unknown = cpus.as_ref().err().cloned();
        seen.cpus = cpus.unwrap_or_default();
        let meminfo = meminfo(&self.proc_root.join("meminfo"));
        (seen.memory, seen.huge_pages) = match meminfo {
            Ok((memory, huge)) => (Fact::Known(memory), huge.into()),
            Err(why) => (Fact::Unknown(why.clone()), Fact::Unknown(why)),
        };
        seen.numa_hint_faults = match seen.numa_balancing.get() {
            // It takes a tenth of a millisecond, for a number that stands still where this is off.
            Ok(0) => Err(Why::not_applicable("kernel.numa_balancing is 0")),
            Ok(_) => vmstat(&self.proc_root.join("vmstat"), "numa_hint_faults"),
            Err(why) => Err(why),
        }
        .into();
        seen.file_nr = file_nr(&self.proc_root.join("sys/fs/file-nr")).into();
        seen.dev_shm = file_system(Path::new("/dev/shm")).into();
        seen.load = load(&self.proc_root.join("loadavg")).into();
        for resource in ["cpu", "io", "memory"] {
            let path = self.proc_root.join("pressure").join(resource);
            let reading = text(&path).and_then(|t| pressure(&t).ok_or_else(|| nonsense(&path)));
            seen.pressure.insert(resource.to_owned(), reading.into());
        }
    }
}

/// By the CPU's own flags; other architectures than x86 don't have this one.
fn hypervisor(proc_root: &Path) -> Reading<bool> {
    let path = proc_root.join("cpuinfo");
    let text = text(&path)?;
    let flags = field(&text, "flags").ok_or_else(|| Why::not_there("this CPU does not say"))?;
    Ok(flags.split(' ').any(|flag| flag == "hypervisor"))
}

/// "a" of "always [a] never".
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

fn meminfo(path: &Path) -> Reading<(Memory, Reading<HugePages>)> {
    let text = text(path)?;
    let all = procfs::Meminfo::from_read(text.as_bytes()).map_err(|_| nonsense(path))?;
    let memory = Memory {
        total_bytes: all.mem_total,
        available_bytes: all
            .mem_available
            .ok_or_else(|| Why::not_there("this kernel has no MemAvailable"))?,
        swap_used_bytes: Some(all.swap_total.saturating_sub(all.swap_free)),
    };
    let huge = match (all.hugepages_total, all.hugepages_free, all.hugepagesize) {
        (Some(total), Some(free), Some(size_bytes)) => Ok(HugePages {
            total,
            free,
            reserved: all.hugepages_rsvd.unwrap_or(0),
            size_bytes,
        }),
        _ => Err(Why::not_there("this kernel has no huge pages")),
    };
    Ok((memory, huge))
}

fn vmstat(path: &Path, name: &str) -> Reading<u64> {
    let text = text(path)?;
    let value = field(&text, name).and_then(|n| n.parse().ok());
    value.ok_or_else(|| nonsense(path))
}

fn file_nr(path: &Path) -> Reading<FileNr> {
    let text = line(path)?;
    let numbers: Vec<u64> = text.split_ascii_whitespace().flat_map(str::parse).collect();
    match numbers[..] {
        [allocated, free, max] => Ok(FileNr {
            used: allocated.saturating_sub(free),
            max,
        }),
        _ => Err(nonsense(path)),
    }
}

fn file_system(path: &Path) -> Reading<FileSystem> {
    let stat =
        nix::sys::statvfs::statvfs(path).map_err(|errno| super::file::why(&errno.into(), path))?;
    let block = stat.fragment_size();
    Ok(FileSystem {
        size_bytes: stat.blocks().saturating_mul(block),
        used_bytes: stat
            .blocks()
            .saturating_sub(stat.blocks_free())
            .saturating_mul(block),
    })
}

fn load(path: &Path) -> Reading<LoadAverage> {
    let text = text(path)?;
    let mut words = text.split_ascii_whitespace().map(str::parse::<f64>);
    match (words.next(), words.next(), words.next()) {
        (Some(Ok(one)), Some(Ok(five)), Some(Ok(fifteen))) => {
            Ok(LoadAverage { one, five, fifteen })
        }
        _ => Err(nonsense(path)),
    }
}

fn pressure(text: &str) -> Option<Pressure> {
    let read = |name: &str| {
        let line = field(text, name)?;
        let value = |key: &str| {
            line.split(' ')
                .find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
        };
        Some(PressureLine {
            avg10: value("avg10")?.parse().ok()?,
            total_us: value("total")?.parse().ok()?,
        })
    };
    Some(Pressure {
        some: read("some")?,
        full: read("full"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_anew_at_each_sample_that_closes_a_window() {
        let mut reader = HostReader::new(&Options::default());
        let mut read = |now_ns| reader.read(now_ns, &mut Vec::new()).at_ns;
        // As the first sample does, which begins one; the clock is the real one.
        let (first, between) = (read(1), read(MOVING_NS));
        assert_eq!(first, between);
        assert!(read(1 + MOVING_NS) > first);
    }

    #[test]
    fn what_a_clock_costs_is_measured_again_since_the_kernel_may_choose_another() {
        let mut reader = HostReader::new(&Options::default());
        let read = |reader: &mut HostReader, now_ns| reader.read(now_ns, &mut Vec::new());
        read(&mut reader, 1);
        reader.seen.clock_gettime_ns = Fact::Known(u64::MAX);
        let later = read(&mut reader, 2 + SETTINGS_NS);
        assert!(
            later
                .clock_gettime_ns
                .known()
                .is_some_and(|ns| *ns < u64::MAX)
        );
    }
}
