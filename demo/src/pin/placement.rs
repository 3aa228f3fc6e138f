//! Which CPUs the exchange and the traders had best keep to, and why.
//!
//! A message crosses from one CPU to the other, so what counts is the nearest cache that both share: a third-level cache costs some 80 ns
//! for a line and back, two sockets several hundred. Threads of one core share everything, but also its execution units: two that spin or copy
//! slow each other down, so they come last among the near ones.

use std::collections::BTreeSet;

/// What is known of the machine.
pub(super) trait Topology {
    /// CPUs that share the data cache of this level with `cpu`, itself included; empty if unknown.
    fn sharing(&self, cpu: usize, level: u32) -> BTreeSet<usize>;
    /// Hardware threads of the same core, itself included; empty if unknown.
    fn siblings(&self, cpu: usize) -> BTreeSet<usize>;
}

/// This machine, as in /sys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host;

impl Topology for Host {
    fn sharing(&self, cpu: usize, level: u32) -> BTreeSet<usize> {
        let cache = |index: usize, file: &str| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/cache/index{index}/{file}");
            std::fs::read_to_string(path).ok()
        };
        (0..8)
            .find(|index| {
                let is = |file, value: &str| cache(*index, file).is_some_and(|t| t.trim() == value);
                is("level", &level.to_string()) && !is("type", "Instruction")
            })
            .and_then(|index| cache(index, "shared_cpu_list"))
            .map(|list| cpus(&list))
            .unwrap_or_default()
    }

    fn siblings(&self, cpu: usize) -> BTreeSet<usize> {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        std::fs::read_to_string(path).map_or_else(|_| BTreeSet::new(), |list| cpus(&list))
    }
}

/// The kernel's way of writing lists: `0-3,8,10-11`. What can't be read is left out.
fn cpus(list: &str) -> BTreeSet<usize> {
    list.trim()
        .split(',')
        .filter_map(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            Some(from.parse().ok()?..=to.parse().ok()?)
        })
        .flatten()
        .collect()
}

/// How near a trader's CPU is to the exchange's, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Near {
    SecondLevel,
    ThirdLevel,
    SameCore,
    Far,
    Unknown,
}

impl Near {
    fn of(exchange: usize, cpu: usize, machine: &impl Topology) -> Self {
        let shares = |level| machine.sharing(exchange, level).contains(&cpu);
        if machine.siblings(exchange).contains(&cpu) {
            Self::SameCore
        } else if shares(2) {
            Self::SecondLevel
        } else if shares(3) {
            Self::ThirdLevel
        } else if machine.sharing(exchange, 3).is_empty() {
            Self::Unknown
        } else {
            Self::Far
        }
    }

    fn why(self) -> &'static str {
        match self {
            Self::SecondLevel => "cores that share its second-level cache",
            Self::ThirdLevel => "cores that share its third-level cache",
            Self::SameCore => "the other threads of its core, which share its execution units too",
            Self::Far => "no core shares a cache with it",
            Self::Unknown => "the machine does not say which share a cache",
        }
    }
}

/// Who is where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) exchange: Vec<usize>,
    /// The nearest first.
    pub(super) traders: Vec<usize>,
    near: Option<Near>,
}

impl Placement {
    /// For an exchange with `workers` threads, among the CPUs `allowed` (at least one). The exchange takes the CPU with the most near
    /// neighbours; the traders take those, or the far ones if there is no other.
    pub(super) fn choose(allowed: &[usize], workers: usize, machine: impl Topology) -> Self {
        let near = |exchange: usize| {
            let mut others: Vec<_> = allowed
                .iter()
                .filter(|cpu| **cpu != exchange)
                .map(|cpu| (Near::of(exchange, *cpu, &machine), *cpu))
                .collect();
            others.sort_unstable();
            others
        };
        let good = |others: &[(Near, usize)]| {
            let close = [Near::SecondLevel, Near::ThirdLevel];
            others.iter().filter(|(n, _)| close.contains(n)).count()
        };
        // The first of the best: programs that choose apart from each other must choose the same.
        let mut best: Option<(usize, Vec<(Near, usize)>)> = None;
        for &cpu in allowed {
            let others = near(cpu);
            if best
                .as_ref()
                .is_none_or(|(_, known)| good(&others) > good(known))
            {
                best = Some((cpu, others));
            }
        }
        let (first, others) = best.unwrap_or_default();
        let nearest = others.first().map(|(near, _)| *near);
        // Workers beyond the first take the near ones from the far end, and never the last that traders could have.
        let more = workers
            .saturating_sub(1)
            .min(others.len().saturating_sub(1));
        let group: Vec<_> = match nearest {
            Some(Near::SecondLevel | Near::ThirdLevel) => others
                .iter()
                .filter(|(n, _)| *n <= Near::ThirdLevel)
                .map(|(_, cpu)| *cpu)
                .collect(),
            _ => others.iter().map(|(_, cpu)| *cpu).collect(),
        };
        let (traders, workers) =
            group.split_at(group.len() - more.min(group.len().saturating_sub(1)));
        let mut exchange = vec![first];
        exchange.extend(workers.iter().rev());
        Self {
            exchange,
            traders: if traders.is_empty() {
                vec![first]
            } else {
                traders.to_vec()
            },
            near: nearest,
        }
    }

    /// One line.
    pub(super) fn says(&self) -> String {
        let list = |cpus: &[usize]| {
            let names: Vec<_> = cpus.iter().map(ToString::to_string).collect();
            names.join(",")
        };
        let why = self.near.map_or(
            "there is only one CPU to use, and all take turns on it",
            Near::why,
        );
        format!(
            "--pin keeps the exchange to CPU {} and traders to CPU {}: {why}",
            list(&self.exchange),
            list(&self.traders)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sockets of four cores with two threads each; CPU n and n + 8 are one core.
    struct TwoSockets;

    impl Topology for TwoSockets {
        fn sharing(&self, cpu: usize, level: u32) -> BTreeSet<usize> {
            match level {
                3 => (0..16).filter(|c| c % 8 / 4 == cpu % 8 / 4).collect(),
                _ => self.siblings(cpu),
            }
        }
        fn siblings(&self, cpu: usize) -> BTreeSet<usize> {
            [cpu % 8, cpu % 8 + 8].into()
        }
    }

    /// Nothing is known.
    struct Silent;

    impl Topology for Silent {
        fn sharing(&self, _: usize, _: u32) -> BTreeSet<usize> {
            BTreeSet::new()
        }
        fn siblings(&self, _: usize) -> BTreeSet<usize> {
            BTreeSet::new()
        }
    }

    #[test]
    fn traders_are_put_on_cores_that_share_a_cache_with_the_exchange() {
        let all: Vec<_> = (0..16).collect();
        let placement = Placement::choose(&all, 1, TwoSockets);
        assert_eq!(placement.exchange, [0]);
        // Not 8, the other thread of its core, and nobody of the other socket.
        assert_eq!(placement.traders, [1, 2, 3, 9, 10, 11]);
        assert!(
            placement.says().contains("third-level"),
            "{}",
            placement.says()
        );
    }

    #[test]
    fn the_exchange_goes_where_it_has_neighbours() {
        // One CPU of the first socket, three of the second.
        let placement = Placement::choose(&[0, 4, 5, 6], 1, TwoSockets);
        assert_eq!(
            (placement.exchange, placement.traders),
            (vec![4], vec![5, 6])
        );
        // More workers leave the traders one at least.
        let placement = Placement::choose(&[0, 4, 5, 6], 3, TwoSockets);
        assert_eq!(
            (placement.exchange, placement.traders),
            (vec![4, 6], vec![5])
        );
    }

    #[test]
    fn what_is_not_good_is_said_to_be_so() {
        for (allowed, traders, says) in [
            (&[0, 8][..], 8, "execution units"),
            (&[0, 4], 4, "no core shares a cache"),
            (&[3], 3, "only one CPU"),
        ] {
            let placement = Placement::choose(allowed, 1, TwoSockets);
            assert_eq!(placement.traders, [traders]);
            assert!(placement.says().contains(says), "{}", placement.says());
        }
        let placement = Placement::choose(&[0, 1], 1, Silent);
        assert_eq!(
            (&placement.exchange[..], &placement.traders[..]),
            (&[0][..], &[1][..])
        );
        assert!(placement.says().contains("does not say"));
    }

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(cpus("0-2,8,10-11\n"), [0, 1, 2, 8, 10, 11].into());
        assert_eq!(cpus("\n"), BTreeSet::new());
    }
}
