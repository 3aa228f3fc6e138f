//! Which CPUs a program keeps to.
//!
//! Pinning is for measuring: the exchange takes the first CPU that it may use, the traders share the others.
//! Threads inherit the mask of the thread that starts them, which is how the transport's own threads are reached.

use std::str::FromStr;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::failure::Failure;

/// `--pin[=CPUS]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pin {
    /// Wherever the kernel likes.
    #[default]
    Off,
    /// The exchange first, the traders behind it.
    Auto,
    /// These.
    Cpus(Vec<usize>),
}

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            list => list
                .split(',')
                .map(str::parse)
                .collect::<Result<_, _>>()
                .map(Self::Cpus)
                .map_err(|_| "CPUs are numbers with commas between them, as in --pin=0,1".into()),
        }
    }
}

impl Pin {
    /// Keeps the calling thread, and those it starts, to the exchange's CPUs.
    pub(crate) fn exchange(&self, workers: usize) -> Result<(), Failure> {
        match self {
            Self::Off => Ok(()),
            Self::Auto => pin(allowed()?.iter().copied().take(workers)),
            Self::Cpus(cpus) => pin(cpus.iter().copied()),
        }
    }

    /// Keeps the calling thread to the CPU of trader thread number `index`.
    pub(crate) fn trader(&self, index: usize) -> Result<(), Failure> {
        let all;
        let cpus = match self {
            Self::Off => return Ok(()),
            Self::Auto => {
                all = allowed()?;
                all.get(1..).filter(|rest| !rest.is_empty()).unwrap_or(&all)
            }
            Self::Cpus(cpus) => cpus,
        };
        pin(cpus.iter().copied().cycle().skip(index).take(1))
    }
}

/// CPUs that the affinity mask allows, ascending.
fn allowed() -> Result<Vec<usize>, Failure> {
    let set = sched_getaffinity(Pid::from_raw(0))
        .map_err(|e| Failure::io("sched_getaffinity", &e.into()))?;
    Ok((0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
        .collect())
}

fn pin(cpus: impl Iterator<Item = usize>) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    let mut named = Vec::new();
    for cpu in cpus {
        set.set(cpu)
            .map_err(|_| Failure::usage(format!("there is no CPU {cpu}")))?;
        named.push(cpu);
    }
    sched_setaffinity(Pid::from_raw(0), &set).map_err(|e| match e {
        nix::errno::Errno::EINVAL => Failure::usage(format!(
            "can't keep to CPU {named:?}: not among those this process may use"
        )),
        e => Failure::io("sched_setaffinity", &e.into()),
    })
}
