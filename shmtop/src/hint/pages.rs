//! Rules about the pages of rings: faults, swap, huge pages, strangers who hold them.

use std::collections::BTreeMap;

use transport::stats::{Role, Slot, Via};

use super::fix::{self, note, on_host, sudo, sysctl, write_as_root};
use super::perf::waits;
use super::swap::RING_SWAPPED;
use super::whom::Whom;
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::{Client, Endpoint, Severity, Shared, touched};
use crate::rate::Span;
use crate::reading::{Reading, Why};
use crate::sample::Sample;
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[
    FAULTS_ON_PATH,
    RING_SWAPPED,
    HUGEPAGE_SHORT,
    SHMEM_THP,
    RING_LEAKED,
];

rule! {
    /// Memory of a ring that is new costs each side a fault per page, lap by lap until the window is reached, and that is warm-up. Faults
    /// beyond those pages are paid on the path of requests. Only the threads that serve or ask count: what a process does beside has faults of its own. So has
    /// a client's thread that does other work between its requests: only of one that spends most of its CPU time waiting is it known that they are
    /// on the path. A rate of 100 per second is the floor. Where NUMA balancing is on, the kernel takes pages away to see which node uses them, the
    /// rings' as well: if it has made as many faults as that, they are its: info. They are counted for the machine alone, and it takes pages by CPU
    /// time: of what others may have as well, twice the share that the ring threads have of that time is taken to be theirs.
    FAULTS_ON_PATH = "faults-on-path", Warn, "page faults on the path of requests";
    fires: "more than 10 page faults of its ring threads per 1000 messages, and more than 100 per second, beyond the pages of the rings that were touched for the first time; info of a client whose threads wait for less than half of their CPU time, or where their share of what NUMA balancing made is as many";
    quiet: "warm-up: laps of a ring through memory that is new, which double until they reach the window";
    fix: "prefault the rings; keep buffers instead of freeing them";
    check: Endpoint(faults_on_path);
}

fn faults_on_path(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let requests = e.totals.requests_per_s.clone()?;
    let page = ctx.page(e)?;
    let is_on_ring = |tid| page.slots.iter().any(|s| s.info.tid == tid);
    let faults = faults_of_ring_threads(e, is_on_ring)?;
    if requests < 1000.0 || faults < 100.0 || faults <= 0.01 * 2.0 * requests {
        return QUIET;
    }
    let old = ctx.old_page(e)?;
    let theirs = connections(ctx.sample, e.role);
    let theirs_before = connections(ctx.before()?, e.role);
    let walked = page.slots.iter().map(|now| {
        let id = &now.info.connection_id;
        let same = |o: &&Slot| o.index == now.index && o.info.connection_id == *id;
        let peer = theirs_before.get(id).copied().zip(theirs.get(id).copied());
        let before = old.slots.iter().find(same);
        before.map_or(u64::MAX, |before| new_memory(before, now, peer))
    });
    let walked = walked.fold(0, u64::saturating_add);
    let seconds = ctx
        .sample
        .time
        .monotonic_ns
        .saturating_sub(ctx.before()?.time.monotonic_ns) as f64
        / 1e9;
    // Each page walked for the first time costs a fault, and the walk goes on while the page is read.
    let new = 1.25 * (walked / 4096) as f64 / seconds.max(0.1);
    let is_many = |faults: f64| faults - new >= 100.0 && faults - new > 0.01 * 2.0 * requests;
    if !is_many(faults) {
        return QUIET;
    }
    let waits = |tid| {
        let mut rows = e.clients.iter();
        rows.any(|c| matches!(&c.thread, Ok(t) if t.tid == tid) && waits(e, c) >= 0.5)
    };
    let (of_whom, severity) = match e.role {
        Role::Client if !is_many(faults_of_ring_threads(e, waits)?) => {
            ("; they may be of code of its own", Severity::Info)
        }
        _ => ("", Severity::Warn),
    };
    let hinted = hint_faults(ctx).unwrap_or(0.0);
    let own = hinted * share_of_cpu_time(ctx, e, is_on_ring);
    // What it reads is root's, whatever perf_event_paranoid says.
    let look = format!("{}perf trace -F all -p {} -- sleep 1", sudo(ctx), e.pid);
    let (of_whom, severity, fix) = match is_many(faults - own) {
        true => (of_whom, severity, look),
        false => (
            "; the kernel makes as many, of all processes, to see which node uses a page",
            Severity::Info,
            format!(
                "{look}   # if they are in memory that it has had for long: {}sysctl kernel.numa_balancing=0, for the whole machine{}",
                sudo(ctx),
                match on_host(ctx) {
                    "" => String::new(),
                    on_host => format!(", {on_host}"),
                }
            ),
        ),
    };
    let faults = faults - new;
    let fire = Fire::new(
        format!(
            "{} (pid {}): {:.0} page faults per 1000 messages{of_whom}",
            e.name,
            e.pid,
            faults / (2.0 * requests) * 1000.0
        ),
        fix,
    )
    .number(
        "page faults",
        faults,
        "1/s",
        format!("/proc/{}/task/*/stat of its ring threads", e.pid),
        format!("> {:.0}", (0.02 * requests).max(100.0)),
    );
    let fire = match hinted > 0.0 {
        true => fire.number(
            "of all processes, NUMA balancing",
            hinted,
            "1/s",
            "/proc/vmstat numa_hint_faults",
            "",
        ),
        false => fire,
    };
    fire.at(severity).fires()
}

/// Page faults per second, of all processes, on pages that the kernel has taken away to see which node uses them.
fn hint_faults(ctx: &Context<'_>) -> Reading<f64> {
    let (old, new) = (&ctx.before()?.host, &ctx.sample.host);
    let span = Span::between(old.at_ns, new.at_ns)?;
    span.per_second(old.numa_hint_faults.get()?, new.numa_hint_faults.get()?)
}

/// What part of the kernel's hint faults its threads may have, at most: they go by CPU time, and not every program touches as much of what is taken away.
fn share_of_cpu_time(ctx: &Context<'_>, e: &Endpoint, counts: impl Fn(u32) -> bool) -> f64 {
    let Ok(threads) = &e.process.threads else {
        return 1.0;
    };
    let mut own = 0.0;
    for t in threads.iter().filter(|t| counts(t.tid)) {
        match &t.cpu {
            Ok(cpu) => own += cpu,
            Err(_) => return 1.0,
        }
    }
    let all = ctx.model.host.cpus.iter().map(|c| c.busy.clone());
    match all.sum::<Reading<f64>>() {
        Ok(all) if all > 0.0 => (2.0 * own / all).min(1.0),
        _ => 1.0,
    }
}

/// Page faults per second of the threads that count.
fn faults_of_ring_threads(e: &Endpoint, counts: impl Fn(u32) -> bool) -> Reading<f64> {
    let mut sum = 0.0;
    for t in e.process.threads.as_ref().map_err(Why::clone)? {
        if counts(t.tid) {
            sum += t.faults_per_s.clone()?;
        }
    }
    Ok(sum)
}

/// What the other ends of connections say of them, by connection.
fn connections(sample: &Sample, own: Role) -> BTreeMap<u64, &Slot> {
    let pages = sample.pages.iter().filter_map(|p| p.snapshot());
    pages
        .filter(|page| page.role != own)
        .flat_map(|page| &page.slots)
        .map(|slot| (slot.info.connection_id, slot))
        .collect()
}

/// Laps double from 16 KiB to the whole of a ring, so this many may be in new memory: 12 of one of 32 MiB.
fn new_laps(capacity: u64) -> u64 {
    (capacity >> 14)
        .checked_ilog2()
        .map_or(1, |doublings| u64::from(doublings) + 1)
}

/// Bytes of a connection's rings that one end walked for the first time between two looks; `peer` is what the other end said at both.
fn new_memory(before: &Slot, now: &Slot, peer: Option<(&Slot, &Slot)>) -> u64 {
    let grown = |old: &Slot, new: &Slot, capacity| {
        touched(&new.tx, capacity).saturating_sub(touched(&old.tx, capacity))
    };
    let capacity = now.info.rx_capacity;
    // Not by the index: it passes padding, up to a whole ring at once, which nobody touches.
    let records = now.rx.rx_record_bytes;
    let read = records.saturating_sub(before.rx.rx_record_bytes);
    let laps = before.rx.rx_index.checked_div(capacity);
    let written = match peer {
        Some((old, new)) => grown(old, new, capacity),
        None if laps.is_some_and(|n| n < new_laps(capacity)) => capacity,
        None => 0,
    };
    grown(before, now, now.info.tx_capacity).saturating_add(read.min(written))
}

rule! {
    /// Asked for and not given, since none were free or the server's cgroup allows none (`hugetlb.2MB.max`, 0 in a pod that requests no huge
    /// pages): the rings then have 4 KiB pages and work, at more TLB misses.
    HUGEPAGE_SHORT = "hugepage-short", Warn, "huge pages were asked for and none were free";
    fires: "the page says that huge pages were asked for but short";
    quiet: "not asked for";
    fix: "sudo sysctl vm.nr_hugepages=N";
    once: true;
    check: Client(hugepage_short);
}

fn hugepage_short(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    if c.huge_pages != 2 {
        return QUIET;
    }
    let pool = ctx.sample.host.huge_pages.get().unwrap_or_default();
    let size = if pool.size_bytes == 0 {
        2 << 20
    } else {
        pool.size_bytes
    };
    let wanted = e.admission.ring_bytes.div_ceil(size).max(1);
    // Those that other rings have reserved and not touched yet are nobody's to take.
    let free = pool.free.saturating_sub(pool.reserved);
    let short = e.clients.iter().filter(|c| c.huge_pages == 2).count() as u64;
    let needed = (pool.total.saturating_sub(free)).saturating_add(wanted.saturating_mul(short));
    let (of_wanted, fix) = if needed > pool.total {
        let fix = sysctl(ctx, &format!("vm.nr_hugepages={needed}"), "");
        (format!("{free} of {wanted} huge pages"), fix)
    } else {
        // They came later, or are not for that server: never fewer than there are.
        let again = format!(
            "let {} connect again   # unless the cgroup of {} allows none: hugetlb.2MB.max",
            Whom::client(ctx, e, c).name,
            Whom::server(ctx, e, c).name
        );
        (format!("no huge pages when it came, {free} now,"), again)
    };
    Fire::new(
        format!(
            "client {}: {of_wanted} of {} free; its rings use 4 KiB pages",
            c.number,
            text::bytes(size)
        ),
        fix,
    )
    .number(
        "free huge pages",
        free as f64,
        "",
        "/proc/meminfo HugePages_Free less HugePages_Rsvd",
        format!("< {wanted}"),
    )
    .fires()
}

/// Whom the kernel gives transparent huge pages of shared memory.
const THP_SETTING: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

rule! {
    /// Shared memory gets transparent huge pages only where shmem_enabled allows and, unless it says `always`, the program asks for them, as the
    /// library does with Config::huge_pages; one without the other changes nothing. It pays for large rings at gigabytes per second; small
    /// messages stay in the cache anyway.
    SHMEM_THP = "shmem-thp", Info, "large rings without huge pages";
    fires: "rings of 2 MiB or more in 4 KiB pages, above 1 GB/s, where shmem_enabled is never, or advise and nobody asked for huge pages";
    quiet: "small messages, or the rings have huge pages";
    fix: "Config::huge_pages = true (exchange: --huge-pages), and where shmem_enabled is never: echo advise | sudo tee /sys/kernel/mm/transparent_hugepage/shmem_enabled";
    once: true;
    check: Endpoint(shmem_thp);
}

fn shmem_thp(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let setting = ctx.sample.host.shmem_enabled.as_reading()?;
    let bytes = e.totals.bytes_per_s.clone()?;
    let small = |c: &&Shared<Client>| c.transport == Via::Shm && matches!(c.huge_pages, 0 | 2);
    let rows = || e.clients.iter().filter(small);
    let touched = rows()
        .flat_map(|c| [c.tx.touched_bytes.clone(), c.rx.touched_bytes.clone()])
        .flatten()
        .max()
        .unwrap_or(0);
    if e.role != Role::Server || bytes <= 1e9 || touched < 2 << 20 {
        return QUIET;
    }
    // Asked for, and none were free: hugepage-short says so.
    let asked = rows().any(|c| c.huge_pages == 2);
    let start = "start it with Config::huge_pages = true (exchange: --huge-pages)";
    let advise = write_as_root(ctx, "advise", THP_SETTING);
    let (because, fix) = match (setting.as_str(), asked) {
        ("never", true) => (
            "shmem_enabled is never",
            format!(
                "{advise}{}",
                note(ctx, "then let its clients connect again")
            ),
        ),
        ("never", false) => (
            "shmem_enabled is never",
            format!("{advise}{}", note(ctx, &format!("then {start}"))),
        ),
        ("advise", false) => ("nobody asked for huge pages", start.to_owned()),
        _ => return QUIET,
    };
    Fire::new(
        format!(
            "{} (pid {}) moves {}/s through rings with 4 KiB pages: {because}",
            e.name,
            e.pid,
            text::bytes(bytes as u64)
        ),
        fix,
    )
    .number(
        "bytes",
        bytes,
        "bytes/s",
        "stats page: tx_bytes, rx_bytes",
        "> 1e9",
    )
    .state("shmem_enabled", setting.clone(), THP_SETTING)
    .fires()
}

rule! {
    /// The transport closes a ring's descriptor once it is mapped, so nobody should hold one. Whoever does got it by fork and can
    /// read all messages. All processes are looked at every 5 s at most, those that were found to hold one each second: three windows are
    /// longer than a fork + exec takes.
    RING_LEAKED = "ring-leaked", Warn, "a stranger holds a ring";
    fires: "a process that is neither peer nor viewer holds the ring's memfd for more than 2 s";
    quiet: "the window between fork and exec";
    fix: "see what it is; close the ring there, with O_CLOEXEC in what forks";
    check: Client(ring_leaked);
}

fn ring_leaked(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let slot = ctx.slot(e, c)?;
    if slot.info.ring_inode == 0 {
        return Err(Why::not_applicable("no ring"));
    }
    let holders = ctx.sample.discovery.ring_holders.as_reading()?;
    let stranger = holders.iter().find(|h| {
        h.inode == slot.info.ring_inode
            && h.pid != e.pid
            && h.pid != c.peer_pid
            && h.pid != ctx.sample.viewer.pid
    });
    let Some(h) = stranger else { return QUIET };
    Fire::new(
        format!(
            "{} (pid {}) inherited the ring of client {} and can read it",
            text::clean(&h.comm),
            h.pid,
            c.number
        ),
        format!(
            "{}ls -l /proc/{}/fd   # a child that needs it no more: end it; and in its parent: open what must not be inherited with O_CLOEXEC",
            fix::sudo_for(ctx, h.pid),
            h.pid
        ),
    )
    .number(
        "inode",
        h.inode as f64,
        "",
        format!("/proc/{}/fd", h.pid),
        "",
    )
    .fires()
}
