//! The rule about too many spinners, and who is counted together.

use std::collections::{BTreeMap, BTreeSet};

use transport::config::PolicyKind;

use super::context::Waiter;
use super::fix::WAIT_WELL;
use super::may_spin::{may_meet, unseen};
use super::sched::{DELAY, OUTSIDERS, OUTSIDERS_SHARE, SPINNER};
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::reading::{Reading, Why};

/// This family.
pub(super) const RULES: &[Rule] = &[OVERSUBSCRIBED];

rule! {
    /// Spinning threads beyond the CPUs they may use take turns with the very threads they wait for. Parked waiters don't
    /// count: seventeen processes that park share two CPUs well. Whether it hurts is measured as run delay. Only threads that may run
    /// on the same CPUs, or are in a group with a quota, are counted together: programs kept to CPUs of their own don't meet, and two that are kept to
    /// one CPU have no room on those that a third may use. A quota is said to be one. And together they must want a good part of what there is: two
    /// that spin a quarter of the time fit into a quota of one CPU and a half, three of them on two CPUs, and what delays them is somebody else. Where
    /// other programs take much of these CPUs, as run-delay counts it, only what the spinners ran counts as wanted: what they waited is the others' doing.
    /// But who was told to spin and does not sleep wants a whole CPU, be others in the way or not.
    /// Waiters that adapt don't come near: two to four clients that think for 5 us to 1 ms, on two CPUs, with a server whose handler takes up to 0.3 ms, spun
    /// 4 % of the time at most in 14 runs of 13 s, and so did the server, whatever their run delay was (2 to 28 %). Three clients that were told to spin
    /// wanted 2.6 of the two CPUs, and a server that parks waited 42 to 82 % of the time for one.
    OVERSUBSCRIBED = "oversubscribed", Crit, "more spinning threads than CPUs";
    fires: "threads with a spin share above 20 % outnumber the CPUs they may use (affinity, quota), want 60 % of these (90 % of a quota) or more, and waited more than 1 % of the time for a core";
    quiet: "waiters park, or a CPU is left for each spinner, or they want less than 60 % of these (90 % of a quota)";
    fix: "fewer threads, fewer spins (Config::wait = Adaptive or Park), or more CPUs";
    explains: ["run-delay", "preempted-spinner", "quota-below-spinners", "tail-spread", "outlier-client", "yield-storm", "migrating", "oversleep"];
    check: Host(oversubscribed);
}

/// Spinners that want less than this share of a quota do not reach it.
const WANTED_OF_QUOTA: f64 = 0.9;
/// Those that want less than this share of some CPUs seldom meet there. More, and they do, since each runs when it likes.
const WANTED_OF_CPUS: f64 = 0.6;
/// A thread that runs, or waits to, for this share of the time does not sleep. What it waits is counted when it ends, so some is of the next window.
const SLEEPLESS: f64 = 0.9;

fn oversubscribed(ctx: &Context<'_>) -> Answer {
    if ctx.model.host.cpus.is_empty() {
        return match may_meet(ctx) {
            true => Err(ctx.no_cpu()),
            false => QUIET,
        };
    }
    let spinners = ctx.waiters().into_iter().filter(|w| w.spin > SPINNER);
    let online: Vec<u32> = ctx.model.host.cpus.iter().map(|c| c.id).collect();
    let mut unknown = None;
    let mut worst: Option<(f64, Crowd<'_>)> = None;
    for crowd in crowds(ctx, spinners, &online) {
        // One alone is in nobody's way; what a quota does to it has rules of its own.
        if crowd.spinners.len() < 2 || crowd.spinners.len() as f64 <= crowd.room() {
            continue;
        }
        let delays: Vec<f64> = crowd
            .spinners
            .iter()
            .filter_map(Waiter::run_delay)
            .collect();
        if delays.is_empty() {
            unknown = Some(Why::not_there(
                "run delay can't be read (/proc/PID/task/TID/schedstat)",
            ));
            continue;
        }
        let mean = delays.iter().sum::<f64>() / delays.len() as f64;
        // Where nobody waits there is enough of what they want, however much that is.
        if mean <= DELAY {
            continue;
        }
        match crowd.fits(ctx) {
            Ok(false) if worst.as_ref().is_none_or(|(w, _)| mean > *w) => {
                worst = Some((mean, crowd));
            }
            Ok(_) => {}
            Err(why) => unknown = Some(why),
        }
    }
    let Some((mean, crowd)) = worst else {
        let unknown = unknown.or_else(|| unseen(ctx, &online));
        return unknown.map_or(QUIET, Err);
    };
    let most = crowd
        .spinners
        .iter()
        .max_by(|a, b| a.spin.total_cmp(&b.spin));
    let name = most.map_or(String::new(), Waiter::name);
    let room = crowd.room();
    let pids: BTreeSet<u32> = crowd.spinners.iter().map(|w| w.endpoint.pid).collect();
    let fire = Fire::new(
        format!(
            "{} spinning threads share {}; each waited {:.0} ms/s for a core (most spinning: {name})",
            crowd.spinners.len(),
            crowd.what(),
            mean * 1000.0
        ),
        crowd.cure(),
    )
    .number(
        "spinning threads",
        crowd.spinners.len() as f64,
        "",
        "stats page: spin_ns",
        format!("> {room}"),
    )
    .number(
        "run delay, mean",
        mean * 100.0,
        "%",
        "/proc/PID/task/TID/schedstat",
        format!("> {}", DELAY * 100.0),
    );
    let fire = match &crowd.quota {
        Some((path, quota)) => fire.number("quota", *quota, "CPUs", path.clone(), ""),
        None => fire,
    };
    fire.about(pids).fires()
}

/// Parts of the CPUs that are looked at by themselves, at most.
const MOST_SETS: usize = 64;

/// Spinners that get in each other's way.
#[derive(Default)]
struct Crowd<'a> {
    spinners: Vec<Waiter<'a>>,
    /// The CPUs that each of them may use.
    allowed: Vec<BTreeSet<u32>>,
    /// All of these.
    cpus: BTreeSet<u32>,
    /// Group and its quota in CPUs, where that is what they share.
    quota: Option<(String, f64)>,
}

impl<'a> Crowd<'a> {
    /// The spinners that can't leave a part of its CPUs, for each part that is all of what one of them, or several whose CPUs overlap, may use: the
    /// others may have room elsewhere, these have not.
    fn parts(&self) -> Vec<Self> {
        let mut sets: BTreeSet<BTreeSet<u32>> = self.allowed.iter().cloned().collect();
        let singles: Vec<BTreeSet<u32>> = sets.iter().cloned().collect();
        let mut grown = singles.clone();
        while let Some(set) = grown.pop() {
            for single in &singles {
                let union: BTreeSet<u32> = set.union(single).copied().collect();
                // A machine has a handful; somebody who makes up many gets no longer search.
                if sets.len() < MOST_SETS && !set.is_disjoint(single) && sets.insert(union.clone())
                {
                    grown.push(union);
                }
            }
        }
        let parts = sets.iter().filter(|set| **set != self.cpus);
        let part = |set: &BTreeSet<u32>| {
            let all = self.spinners.iter().zip(&self.allowed);
            let inside = all.filter(|(_, allowed)| allowed.is_subset(set));
            let (spinners, allowed) = inside.map(|(w, a)| (w.clone(), a.clone())).unzip();
            Self {
                spinners,
                allowed,
                cpus: set.clone(),
                quota: None,
            }
        };
        parts.map(part).collect()
    }

    fn room(&self) -> f64 {
        let cpus = self.cpus.len() as f64;
        self.quota.as_ref().map_or(cpus, |(_, q)| q.min(cpus))
    }

    /// Whether they want so little of what they have that what delays them is somebody else.
    fn fits(&self, ctx: &Context<'_>) -> Reading<bool> {
        let wanted = match self.quota {
            Some(_) => WANTED_OF_QUOTA,
            None => WANTED_OF_CPUS,
        };
        let bar = wanted * self.room();
        let (others, doubt) = self.others(ctx);
        // An outsider lengthens what they wait, and what they spin by the wall clock.
        let least = match others {
            Some(false) => self.wants(|own| own.by_all.unwrap_or(own.by_clock)),
            _ => self.wants(|own| own.ran.unwrap_or(own.by_clock)),
        };
        let most = match others {
            Some(true) => self.wants(|own| own.ran.unwrap_or(1.0)),
            _ => self.wants(|own| own.by_all.unwrap_or(1.0)),
        };
        match (least >= bar, most >= bar) {
            (true, _) => Ok(false),
            (_, false) => Ok(true),
            _ => Err(doubt.unwrap_or_else(|| {
                Why::not_there(
                    "what some of the spinning threads use can't be read (/proc/PID/task/TID)",
                )
            })),
        }
    }

    /// Whether other programs take much of these CPUs; if that is not certain, nothing, and why.
    fn others(&self, ctx: &Context<'_>) -> (Option<bool>, Option<Why>) {
        let cpus: Vec<u32> = self.cpus.iter().copied().collect();
        let pid = self.spinners.first().map_or(0, |w| w.endpoint.pid);
        match ctx.outsiders(pid, &cpus) {
            Err(why) => (None, Some(why)),
            Ok(took) => {
                let much = |cpus| cpus >= OUTSIDERS && cpus >= OUTSIDERS_SHARE * took.busy;
                match (much(took.least), much(took.most)) {
                    (true, _) => (Some(true), None),
                    (_, false) => (Some(false), None),
                    _ => (None, Some(took.doubt)),
                }
            }
        }
    }

    /// CPUs that they want, each at most one.
    fn wants(&self, of: impl Fn(&Wanted) -> f64) -> f64 {
        let wanted = self.spinners.iter().map(Wanted::by);
        wanted.map(|own| of(&own).min(1.0)).sum()
    }

    /// What helps: who is adaptive is not told to be.
    fn cure(&self) -> String {
        let adaptive = |w: &Waiter<'_>| w.policy == PolicyKind::Adaptive;
        match self.spinners.iter().all(adaptive) {
            true => "use fewer clients, give them more CPUs, or let them park at once: Config::wait = Park (exchange, trader: --wait park)".into(),
            false => format!("start the clients and the server with {WAIT_WELL}, or use fewer clients"),
        }
    }

    fn what(&self) -> String {
        match &self.quota {
            Some((path, quota)) => format!("a quota of {quota:.2} CPUs ({path})"),
            None => match self.cpus.first() {
                Some(cpu) if self.cpus.len() == 1 => format!("CPU {cpu}"),
                _ => format!("{} CPUs", self.cpus.len()),
            },
        }
    }
}

/// What a spinner would use of a CPU, if it had one to itself.
struct Wanted {
    /// What it ran, if that is known.
    ran: Option<f64>,
    /// Spun and yielded by the wall clock, which goes on while it is kept from running.
    by_clock: f64,
    /// What it ran and waited to run, or the clock's count where that is more; not known if either of the first two is not.
    by_all: Option<f64>,
}

impl Wanted {
    fn by(w: &Waiter<'_>) -> Self {
        let ran = w.thread.and_then(|t| t.cpu.clone().ok());
        let by_clock = w.spin + w.yielding;
        let runs = ran.zip(w.run_delay()).map(|(ran, wait)| ran + wait);
        let by_all = runs.map(|runs| runs.max(by_clock));
        // Without others it would spin that much longer.
        let told_to_spin = w.policy == PolicyKind::Spin;
        if told_to_spin && by_all.unwrap_or(by_clock) >= SLEEPLESS {
            return Self {
                ran: Some(1.0),
                by_clock: 1.0,
                by_all: Some(1.0),
            };
        }
        Self {
            ran,
            by_clock,
            by_all,
        }
    }
}

/// Spinners that share CPUs with each other, directly or through a third; those among them that may run on a part of these CPUs only, for each
/// such part that is all that one of them has, or some whose CPUs overlap; and beside them those that share a quota smaller than
/// the CPUs they may use. Two programs that are kept to CPUs of their own have nothing to do with each other.
fn crowds<'w>(
    ctx: &Context<'_>,
    spinners: impl Iterator<Item = Waiter<'w>>,
    online: &[u32],
) -> Vec<Crowd<'w>> {
    let mut by_cpus: Vec<Crowd<'w>> = Vec::new();
    let mut by_quota: BTreeMap<String, Crowd<'w>> = BTreeMap::new();
    for w in spinners {
        let cpus = w.cpus_of(online);
        for (path, quota) in ctx.quotas_of(&w) {
            let crowd = by_quota.entry(path.clone()).or_default();
            crowd.quota = Some((path, quota));
            crowd.cpus.extend(&cpus);
            crowd.spinners.push(w.clone());
            crowd.allowed.push(cpus.clone());
        }
        let meets = |c: &Crowd<'_>| !c.cpus.is_disjoint(&cpus);
        let (near, far): (Vec<_>, Vec<_>) = by_cpus.into_iter().partition(meets);
        by_cpus = far;
        // It joins those that are there: a thousand of them are not moved for each that comes.
        let mut near = near.into_iter();
        let mut joined = near.next().unwrap_or_default();
        for crowd in near {
            joined.cpus.extend(crowd.cpus);
            joined.spinners.extend(crowd.spinners);
            joined.allowed.extend(crowd.allowed);
        }
        joined.cpus.extend(&cpus);
        joined.spinners.push(w);
        joined.allowed.push(cpus);
        by_cpus.push(joined);
    }
    let parts: Vec<Crowd<'w>> = by_cpus.iter().flat_map(Crowd::parts).collect();
    by_cpus.extend(parts);
    // A quota that leaves as much as the CPUs do bounds nothing of its own.
    let quotas = by_quota.into_values();
    by_cpus.extend(quotas.filter(|c| {
        c.quota
            .as_ref()
            .is_some_and(|(_, q)| *q < c.cpus.len() as f64)
    }));
    by_cpus
}
