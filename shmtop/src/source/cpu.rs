//! The CPUs: where their time went, how fast they run, who shares what. Called by `host`.
//!
//! Topology is read again only when the set of online CPUs changes. A VM without cpufreq says nothing about
//! frequency, and that is what is reported: the MHz of /proc/cpuinfo are a constant there.

use super::file::{Kept, cpu_list, line, nonsense, number};
use super::isolation::{Isolation, list};
use crate::reading::{Reading, Why};
use crate::sample::{Cpu, CpuJiffies, CpuList, Fact, Frequency};
use std::path::{Path, PathBuf};

/// Reads the CPUs.
#[derive(Debug)]
pub(super) struct CpuReader {
    proc_root: PathBuf,
    sys_root: PathBuf,
    sys: PathBuf,
    stat: Kept,
    seen: Vec<Cpu>,
    isolation: Isolation,
}

impl CpuReader {
    pub(super) fn new(proc_root: &Path, sys_root: &Path) -> Self {
        Self {
            sys: sys_root.join("devices/system"),
            proc_root: proc_root.to_owned(),
            sys_root: sys_root.to_owned(),
            stat: Kept::new(proc_root.join("stat"), true),
            seen: Vec::new(),
            isolation: Isolation::unknown(),
        }
    }

    /// All online CPUs. `nominal_khz` is what /proc/cpuinfo says, by CPU in order; `hypervisor` whether we are in a VM.
    pub(super) fn read(
        &mut self,
        buffer: &mut Vec<u8>,
        nominal_khz: &Reading<Vec<u64>>,
        hypervisor: &Reading<bool>,
    ) -> Reading<Vec<Cpu>> {
        let path = self.stat.path().to_owned();
        let text = String::from_utf8_lossy(self.stat.read(buffer)?);
        let jiffies = jiffies(&text).ok_or_else(|| nonsense(&path))?;
        if !jiffies
            .iter()
            .map(|(cpu, _)| cpu)
            .eq(self.seen.iter().map(|c| &c.cpu))
        {
            let shown = jiffies.iter().map(|(cpu, _)| *cpu);
            if self.online().is_some_and(|online| !shown.eq(online)) {
                return Err(Why::not_there(
                    "/proc/stat shows other CPUs than the kernel has online, as lxcfs does in a container: numbered anew",
                ));
            }
            self.seen = jiffies.iter().map(|(cpu, _)| self.topology(*cpu)).collect();
        }
        for (index, (cpu, (_, jiffies))) in self.seen.iter_mut().zip(jiffies).enumerate() {
            cpu.jiffies = jiffies;
            cpu.isolated = self.isolation.of(cpu.cpu);
            cpu.tickless = self.isolation.is_tickless(cpu.cpu);
            let dir = self.sys.join(format!("cpu/cpu{}", cpu.cpu));
            let nominal = match nominal_khz {
                Ok(all) => match all.get(index) {
                    Some(khz) if *khz > 0 => Ok(*khz),
                    _ => Err(Why::not_there("/proc/cpuinfo has no MHz")),
                },
                Err(why) => Err(why.clone()),
            };
            cpu.frequency = Frequency {
                base_khz: std::mem::take(&mut cpu.frequency.base_khz),
                ..frequency(&dir.join("cpufreq"), nominal, hypervisor)
            };
            let throttle = |file| number(&dir.join("thermal_throttle").join(file)).into();
            cpu.core_throttle_count = throttle("core_throttle_count");
            cpu.package_throttle_count = throttle("package_throttle_count");
            cpu.core_throttle_ms = throttle("core_throttle_total_time_ms");
            cpu.package_throttle_ms = throttle("package_throttle_total_time_ms");
        }
        Ok(self.seen.clone())
    }

    /// Looks which CPUs are isolated. Shown from the next [`Self::read`] on.
    pub(super) fn look_who_is_isolated(&mut self) {
        self.isolation = Isolation::read(&self.proc_root, &self.sys_root);
    }

    /// Whether a cpufreq driver is loaded.
    pub(super) fn has_cpufreq(&self) -> bool {
        self.sys.join("cpu/cpu0/cpufreq/scaling_cur_freq").exists()
    }

    /// NUMA nodes with CPUs or memory.
    pub(super) fn numa_nodes(&self) -> Reading<u32> {
        let path = self.sys.join("node/online");
        let nodes = cpu_list(&line(&path)?).ok_or_else(|| nonsense(&path))?;
        Ok(u32::try_from(nodes.len()).unwrap_or(u32::MAX))
    }

    /// By two files that no container shows its own of; `None` where they are missing.
    fn online(&self) -> Option<CpuList> {
        let cpus = |name| list(self.sys.join("cpu").join(name)).ok();
        let (mut online, offline) = (cpus("present")?, cpus("offline")?);
        online.retain(|cpu| !offline.contains(cpu));
        Some(online)
    }

    fn topology(&self, cpu: u32) -> Cpu {
        let dir = self.sys.join(format!("cpu/cpu{cpu}"));
        Cpu {
            cpu,
            siblings: list(dir.join("topology/thread_siblings_list")).into(),
            llc: last_level_cache(&dir.join("cache")).into(),
            node: node(&dir).into(),
            frequency: Frequency {
                base_khz: base_khz(&dir).into(),
                ..Frequency::default()
            },
            ..Cpu::default()
        }
    }
}

/// The "cpuN" lines of /proc/stat, by CPU.
fn jiffies(stat: &str) -> Option<Vec<(u32, CpuJiffies)>> {
    let lines = stat.lines().skip_while(|line| !line.starts_with("cpu"));
    lines
        .take_while(|line| line.starts_with("cpu"))
        .filter(|line| !line.starts_with("cpu "))
        .map(|line| {
            let mut words = line.split_ascii_whitespace();
            let cpu = words.next()?.strip_prefix("cpu")?.parse().ok()?;
            let mut next = || words.next()?.parse().ok();
            let jiffies = CpuJiffies {
                user: next()?,
                nice: next()?,
                system: next()?,
                idle: next()?,
                iowait: next()?,
                irq: next()?,
                softirq: next()?,
                steal: next()?,
            };
            Some((cpu, jiffies))
        })
        .collect()
}

/// By the driver, or by the firmware, which says it in MHz. Either may say 0 and mean that it doesn't know.
fn base_khz(dir: &Path) -> Reading<u64> {
    let said = |file, unit_khz: u64| {
        let path = dir.join(file);
        match number::<u64>(&path)? {
            0 => Err(Why::not_there(format!("{} says 0", path.display()))),
            n => Ok(n.saturating_mul(unit_khz)),
        }
    };
    said("cpufreq/base_frequency", 1).or_else(|_| said("acpi_cppc/nominal_freq", 1_000))
}

fn frequency(dir: &Path, nominal: Reading<u64>, hypervisor: &Reading<bool>) -> Frequency {
    let governor = line(&dir.join("scaling_governor")).and_then(|name| {
        if name.is_empty() {
            Err(Why::not_there(format!("no governor in {}", dir.display())))
        } else {
            Ok(name)
        }
    });
    let file = dir.join("scaling_cur_freq");
    if let Ok(khz) = number::<u64>(&file) {
        return Frequency {
            current_khz: Fact::Known(khz),
            current_source: file.display().to_string(),
            min_khz: number(&dir.join("cpuinfo_min_freq")).into(),
            max_khz: number(&dir.join("cpuinfo_max_freq")).into(),
            governor: governor.into(),
            cpuinfo_khz: nominal.into(),
            ..Frequency::default()
        };
    }
    let in_vm = matches!(hypervisor, Ok(true));
    let why = if in_vm {
        Why::not_there("hidden by the hypervisor")
    } else {
        Why::not_there(format!("no cpufreq driver: {}", dir.display()))
    };
    let unknown = || Fact::Unknown(why.clone());
    let measured = !in_vm && nominal.is_ok();
    Frequency {
        current_khz: if measured {
            nominal.clone().into()
        } else {
            unknown()
        },
        current_source: if measured {
            "/proc/cpuinfo".to_owned()
        } else {
            String::new()
        },
        min_khz: unknown(),
        max_khz: unknown(),
        governor: Fact::Unknown(why.clone()),
        cpuinfo_khz: nominal.into(),
        ..Frequency::default()
    }
}

/// The lowest CPU that shares the cache of the highest level.
fn last_level_cache(dir: &Path) -> Reading<u32> {
    let mut best: Option<(u32, PathBuf)> = None;
    for index in 0..16 {
        let cache = dir.join(format!("index{index}"));
        let Ok(level) = number::<u32>(&cache.join("level")) else {
            break;
        };
        if best.as_ref().is_none_or(|(highest, _)| level > *highest) {
            best = Some((level, cache.join("shared_cpu_list")));
        }
    }
    let Some((_, path)) = best else {
        return Err(Why::not_there(format!("no caches in {}", dir.display())));
    };
    let shared = cpu_list(&line(&path)?).ok_or_else(|| nonsense(&path))?;
    shared.first().copied().ok_or_else(|| nonsense(&path))
}

/// The "nodeN" entry of a CPU's directory.
fn node(dir: &Path) -> Reading<u32> {
    let entries = std::fs::read_dir(dir).map_err(|e| super::file::why(&e, dir))?;
    entries
        .flatten()
        .find_map(|e| e.file_name().to_str()?.strip_prefix("node")?.parse().ok())
        .ok_or_else(|| Why::not_there("this kernel knows no NUMA nodes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_frequency_of_zero_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("cpufreq/base_frequency", "0\n");
        assert!(base_khz(dir.path()).is_err());
        write("acpi_cppc/nominal_freq", "0\n");
        assert!(base_khz(dir.path()).is_err());
        write("acpi_cppc/nominal_freq", "2400\n");
        assert_eq!(base_khz(dir.path()), Ok(2_400_000));
        write("cpufreq/base_frequency", "2100000\n");
        assert_eq!(base_khz(dir.path()), Ok(2_100_000));
    }
}
