//! The limits of control groups, and what may be told to raise one. The file is written only where nobody else keeps it: systemd has the limits of its
//! units and the engine those of its containers, and both write them back; a group above others binds those as well; and none gets more than the
//! groups above it and the machine have. Where no command is right it is a sentence.

use super::Context;
use super::fix::{sudo, write_as_root};
use crate::model::Endpoint;
use crate::sample::{CgroupVersion, CpuGroup, MemoryGroup, Process};
use crate::text;

/// A limit of bytes is told in whole ones of these.
const MIB: u64 = 1 << 20;

/// What to do about a limit.
pub(super) enum Advice {
    /// A line for a shell.
    Type(String),
    /// A sentence.
    Say(String),
}

impl Advice {
    /// With what would do as well.
    pub(super) fn or(self, other: &str) -> String {
        match self {
            Self::Type(command) => format!("{command}   # or {other}"),
            Self::Say(sentence) => format!("{sentence}; or {other}"),
        }
    }

    /// By itself.
    pub(super) fn alone(self) -> String {
        match self {
            Self::Type(text) | Self::Say(text) => text,
        }
    }
}

/// Gives a group that a process is in, or is below of, more memory: twice what it may have, and `least` at least, where those above have that.
pub(super) fn more_memory(ctx: &Context<'_>, pid: u32, group: &MemoryGroup, least: u64) -> Advice {
    let limit = |g: &MemoryGroup| g.limit_bytes.known().copied().flatten();
    let now = limit(group).unwrap_or(u64::MAX);
    let process = ctx.process(pid).ok();
    let chain = process.and_then(|p| p.cgroups.memory.known());
    let (is_own, above) = split(chain, |g| g.path == group.path);
    let machine = ctx.model.host.memory_total_bytes.clone().ok();
    let machine = machine.map(|total| (total, "the machine".to_owned()));
    let above = above
        .iter()
        .filter_map(|g| Some((limit(g)?, quoted(&g.path))));
    let most = above.chain(machine).min();
    let needed = least.div_ceil(MIB).saturating_mul(MIB);
    let to = now.saturating_mul(2).max(needed);
    let to = most.as_ref().map_or(to, |(bytes, _)| to.min(*bytes));
    let limit = Limit {
        path: &group.path,
        version: group.version,
        is_own,
        what: "memory limit",
        now: text::bytes(now),
        file: match group.version {
            CgroupVersion::V2 => "memory.max",
            CgroupVersion::V1 => "memory.limit_in_bytes",
        },
        value: to.to_string(),
        property: format!("MemoryMax={to}"),
        above: most
            .filter(|_| to < least)
            .map(|(bytes, who)| (who, text::bytes(bytes))),
    };
    limit.raise(ctx, process)
}

/// Gives a group that a process is in, or is below of, so many CPUs, or as many as those above have.
pub(super) fn more_cpus(ctx: &Context<'_>, e: &Endpoint, group: &CpuGroup, cpus: u64) -> Advice {
    let process = ctx.process(e.pid).ok();
    let chain = process.and_then(|p| p.cgroups.cpu.known());
    let (is_own, above) = split(chain, |g| g.path == group.path);
    let above = above.iter().filter_map(|g| Some((g.quota_cpus()?, g)));
    let above = above.min_by(|(a, _), (b, _)| a.total_cmp(b));
    let now = group.quota_cpus().unwrap_or(0.0);
    let to = above.map_or(cpus as f64, |(most, _)| most.min(cpus as f64));
    let period = group.period_us.get().unwrap_or(100_000);
    let quota = (to * period as f64) as u64;
    let limit = Limit {
        path: &group.path,
        version: group.version,
        is_own,
        what: "quota",
        now: format!("{now:.2} CPUs"),
        file: match group.version {
            CgroupVersion::V2 => "cpu.max",
            CgroupVersion::V1 => "cpu.cfs_quota_us",
        },
        value: match group.version {
            CgroupVersion::V2 => format!("\"{quota} {period}\""),
            CgroupVersion::V1 => quota.to_string(),
        },
        property: format!("CPUQuota={:.0}%", to * 100.0),
        above: above
            .filter(|_| to <= now)
            .map(|(most, g)| (quoted(&g.path), format!("{most:.2} CPUs"))),
    };
    limit.raise(ctx, process)
}

/// Whether a group is the first of a process's chain, and those above it.
fn split<G>(chain: Option<&Vec<G>>, is_it: impl Fn(&G) -> bool) -> (bool, &[G]) {
    let chain = chain.map_or(&[][..], Vec::as_slice);
    let at = chain.iter().position(is_it);
    (at == Some(0), at.map_or(&[][..], |at| &chain[at + 1..]))
}

/// A path in a sentence: somebody else chose it.
fn quoted(path: &str) -> String {
    text::shell(path)
}

/// A limit that is to be raised.
struct Limit<'a> {
    path: &'a str,
    version: CgroupVersion,
    /// The process is in this very group.
    is_own: bool,
    what: &'static str,
    now: String,
    file: &'static str,
    value: String,
    /// What systemd calls it, with its new value.
    property: String,
    /// Who above it has how much, where that is not enough.
    above: Option<(String, String)>,
}

/// Whose a group is.
enum Owner<'a> {
    /// The process's own, and made by hand.
    Process,
    /// A unit of systemd's, of the machine's or of a user's.
    Unit(&'a str, Option<u32>),
    /// A unit of another systemd, which runs in a container or below a unit, and where.
    UnitIn(&'a str, String),
    /// A container's, from which we look.
    Here,
    /// A container's, with its id if that is known; or a pod's.
    Container(Option<&'a str>),
    /// That of many.
    Many,
}

impl Limit<'_> {
    fn raise(self, ctx: &Context<'_>, process: Option<&Process>) -> Advice {
        let Self { what, now, .. } = &self;
        let (property, path) = (&self.property, quoted(self.path));
        const WHERE: &str =
            "where that was set (docker or podman update, resources.limits of the pod)";
        let owner = self.owner(ctx, process);
        let (name, _) = property.split_once('=').unwrap_or_default();
        match (owner, &self.above) {
            (Owner::Here, _) => Advice::Say(format!(
                "raise the {what} of this container, now {now}, from outside, {WHERE}"
            )),
            (Owner::Container(Some(id)), _) => Advice::Say(format!(
                "raise the {what} of container {id}, now {now}, {WHERE}"
            )),
            (Owner::Container(None), _) => {
                Advice::Say(format!("raise the {what} of {path}, now {now}, {WHERE}"))
            }
            (Owner::Many, _) => Advice::Say(format!(
                "{path}, whose {what} is {now}, binds others as well: move some of them elsewhere, or let who set it raise it"
            )),
            (_, Some((who, most))) => Advice::Say(format!(
                "raise the {what} of {path}, now {now}, where there is more: {who} has {most}"
            )),
            (Owner::UnitIn(unit, place), None) => Advice::Say(format!(
                "raise {name} of {}, now {now}, with systemctl inside of {place}",
                quoted(unit)
            )),
            (Owner::Unit(unit, Some(uid)), None) if uid != ctx.sample.viewer.euid => {
                Advice::Say(format!(
                    "raise {name} of {}, now {now}: a unit of user {uid}, who has a systemd of their own",
                    quoted(unit)
                ))
            }
            (Owner::Unit(unit, user), None) => {
                let call = match user {
                    Some(_) => "systemctl --user".to_owned(),
                    None => format!("{}systemctl", sudo(ctx)),
                };
                let unit = quoted(unit);
                Advice::Type(format!("{call} set-property --runtime {unit} {property}"))
            }
            (Owner::Process, None) => Advice::Type(write_as_root(
                ctx,
                &self.value,
                &format!("{}/{}", self.path, self.file),
            )),
        }
    }

    fn owner<'p>(&'p self, ctx: &Context<'_>, process: Option<&'p Process>) -> Owner<'p> {
        let inside = self.path.strip_prefix("/sys/fs/cgroup").map(|rest| {
            let depth = rest.split('/').filter(|part| !part.is_empty()).count();
            match self.version {
                CgroupVersion::V2 => depth,
                // Each controller has its own mount.
                CgroupVersion::V1 => depth.saturating_sub(1),
            }
        });
        // The kernel gives the root of all groups no limit.
        if inside == Some(0) {
            return Owner::Here;
        }
        let parts = || self.path.split('/');
        let ours = &ctx.sample.viewer.place.container;
        let container = process.and_then(|p| p.place.container.as_ref());
        let is_ours = container.is_some() && ours.as_ref() == container;
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let named = container.and_then(|c| c.rsplit_once(' '));
        let named = named.filter(|(_, id)| !id.is_empty() && id.chars().all(is_name));
        let id = named.map(|(_, id)| id);
        // A name may be one letter, an id is part of one.
        let is_its = |part: &str| {
            let part = part.strip_suffix(".scope").unwrap_or(part);
            named.is_some_and(|(engine, id)| match engine {
                "lxc" => part.strip_prefix("lxc.payload.") == Some(id),
                "machine" => part.strip_prefix("machine-") == Some(id),
                _ => part.contains(id),
            })
        };
        // Below the container's own there may be a systemd's that runs in it.
        let is_unit = |part: &str| {
            let kinds = [".service", ".scope", ".slice"];
            kinds.iter().any(|kind| part.ends_with(kind))
        };
        let mut below = parts().skip_while(|part| !is_its(part)).skip(1);
        let inside = id.filter(|_| below.any(is_unit));
        if let Some(id) = id.filter(|_| inside.is_none() && parts().any(is_its)) {
            // Ours is not the top of all where it was given the host's cgroup namespace.
            return match is_ours {
                true => Owner::Here,
                false => Owner::Container(Some(id)),
            };
        }
        // Pods, and what other schedulers keep: their scopes are no units of systemd's.
        let is_kept = |part: &str| {
            ["kubepods", "kubelet", "nomad"]
                .iter()
                .any(|p| part.starts_with(p))
        };
        if inside.is_none() && parts().any(is_kept) {
            return Owner::Container(None);
        }
        let unit = parts().next_back().unwrap_or_default();
        // systemd puts this before a name that the kernel has files of.
        let unit = unit.strip_prefix('_').unwrap_or(unit);
        let manager = |part: &str| -> Option<u32> {
            part.strip_prefix("user@")?
                .strip_suffix(".service")?
                .parse()
                .ok()
        };
        let is_leaf = |part: &str| part.ends_with(".service") || part.ends_with(".scope");
        if is_leaf(unit) {
            // A unit is below slices only, and below the manager of its user.
            let foreign = |part: &&str| is_leaf(part) && manager(part).is_none();
            let outer = parts().rev().skip(1).find(foreign);
            return match (manager(unit), inside, outer) {
                // All that a user runs.
                (Some(_), ..) => Owner::Many,
                (None, Some(id), _) if !is_ours => Owner::UnitIn(unit, format!("container {id}")),
                (None, None, Some(outer)) => Owner::UnitIn(unit, quoted(outer)),
                _ => Owner::Unit(unit, parts().find_map(manager)),
            };
        }
        match self.is_own && !unit.ends_with(".slice") {
            true => Owner::Process,
            false => Owner::Many,
        }
    }
}
