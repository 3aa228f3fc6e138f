//! Which CPUs a program keeps to.
//!
//! Pinning is for measuring: the exchange takes a CPU, the traders those that share a cache with it. Which, [`placement`] decides.
//! Threads inherit the mask of the thread that starts them, which is how the transport's own threads are reached.

mod placement;

use std::str::FromStr;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::failure::Failure;
use placement::{Host, Placement};

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
    /// Keeps the calling thread, and those it starts, to the exchange's CPUs. Says once where and why.
    pub(crate) fn exchange(&self, workers: usize) -> Result<(), Failure> {
        match self {
            Self::Off => Ok(()),
            Self::Auto => {
                let placement = Placement::choose(&allowed()?, workers, Host);
                crate::note(format_args!("exchange: {}", placement.says()));
                pin(placement.exchange.iter().copied())
            }
            Self::Cpus(cpus) => pin(cpus.iter().copied()),
        }
    }

    /// Keeps the calling thread to the CPU of trader thread number `index`. The first says where all are, and why.
    pub(crate) fn trader(&self, index: usize) -> Result<(), Failure> {
        let placement;
        let cpus = match self {
            Self::Off => return Ok(()),
            Self::Auto => {
                // As an exchange with one worker sees it: the two programs agree without talking to each other.
                placement = Placement::choose(&allowed()?, 1, Host);
                if index == 0 {
                    crate::note(format_args!("trader: {}", placement.says()));
                }
                &placement.traders
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
