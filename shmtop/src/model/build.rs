//! One model out of two samples: a pure function. What needs a longer memory (histories, since when, findings) is added by
//! [`super::builder`].

use transport::stats::{ProcessCounters, Role, SlotKind, SlotState, Snapshot, Via};

use super::build_client::{client, thread_of};
use super::join::{Pair, is_connection, key};
use super::{
    Admission, Client, Endpoint, Model, Poller, Shared, Totals, Unreadable, machine, measure,
};
use crate::history::History;
use crate::rate::Span;
use crate::reading::{Reading, Why};
use crate::sample::{Fact, Page, PageContent, Sample};
use crate::text;

/// The model of `now`, with rates over the time since `before`.
pub(crate) fn build(before: Option<&Sample>, now: &Sample) -> Model {
    let pair = Pair::new(before, now);
    let mut endpoints: Vec<Shared<Endpoint>> = Vec::new();
    let mut unreadable = Vec::new();
    for (number, page) in now.pages.iter().enumerate() {
        match page.snapshot() {
            Some(snapshot) => endpoints.push(endpoint(&pair, number, page, snapshot).into()),
            None => unreadable.push(no_page(page)),
        }
    }
    endpoints
        .sort_by(|a, b| (a.role, &a.name, a.pid, &a.key).cmp(&(b.role, &b.name, b.pid, &b.key)));
    let viewer_cpu = before.ok_or_else(machine::first).and_then(|b| {
        let span = Span::between(b.time.monotonic_ns, now.time.monotonic_ns)?;
        let cpus = now.host.cpus.len().max(1) as u64;
        span.cpu_share(b.viewer.cpu_ns, now.viewer.cpu_ns, cpus)
    });
    Model {
        at_ns: now.time.monotonic_ns,
        at_realtime_ns: now.time.realtime_ns,
        interval_ns: pair.span.map(Span::ns).ok_or_else(machine::first),
        host: machine::host(&pair).into(),
        endpoints,
        unreadable,
        unsearched: now.discovery.scan.known().map_or(0, |scan| scan.denied),
        viewer_is_root: now.viewer.euid == 0,
        viewer_cpu,
        ..Model::empty()
    }
}

fn no_page(page: &Page) -> Unreadable {
    let (why, version) = match &page.content {
        PageContent::Permission(why) => (Why::no_permission(text::clean(why)), None),
        PageContent::Incompatible { page, viewer } => (
            Why::not_there(format!(
                "page layout {}.{}, this shmtop reads {}",
                page.0,
                page.1,
                text::layouts(*viewer)
            )),
            Some(*page),
        ),
        PageContent::Hostile(why) => (
            Why::not_there(format!("no stats page: {}", text::clean(why))),
            None,
        ),
        PageContent::Unreadable(why) => (Why::not_there(text::clean(why)), None),
        PageContent::Read(_) => (Why::not_applicable("readable"), None),
    };
    Unreadable {
        pid: (page.pid != 0).then_some(page.pid),
        name: text::clean(&page.link),
        why,
        version,
    }
}

fn endpoint<'a>(
    pair: &Pair<'a>,
    number: usize,
    page: &'a Page,
    snapshot: &'a Snapshot,
) -> Endpoint {
    let now_ns = pair.now.time.monotonic_ns;
    let mut clients: Vec<Shared<Client>> = snapshot
        .slots
        .iter()
        .filter(|s| is_connection(s))
        .map(|slot| client(pair, &pair.side(number, page, snapshot, slot)).into())
        .collect();
    clients.sort_by_key(|c| (c.number, c.slot));
    let heartbeat = match (snapshot.role, snapshot.process.heartbeat_ns) {
        (Role::Client, _) => Err(Why::not_applicable("a client has no housekeeping thread")),
        (_, 0) => Err(Why::not_yet("its housekeeping has not run yet")),
        (_, at) => Ok(now_ns.saturating_sub(at)),
    };
    let comm = pair
        .now
        .process(page.pid)
        .map(|p| text::clean(&p.comm))
        .filter(|c| !c.is_empty());
    let name = text::clean(&snapshot.name);
    Endpoint {
        key: key(page, snapshot),
        comm: comm.unwrap_or_else(|| name.clone()),
        name,
        pid: page.pid,
        role: snapshot.role,
        uid: snapshot.uid,
        place: place(pair.now, page.pid),
        socket_path: text::path(&snapshot.socket_path),
        library: text::clean(&snapshot.library),
        version: snapshot.version,
        debug_build: snapshot.debug_build,
        age_ns: now_ns.saturating_sub(snapshot.created_monotonic_ns),
        heartbeat_age_ns: heartbeat,
        process: machine::process(pair, page.pid),
        limits: machine::limits(pair, page.pid, snapshot),
        pollers: pollers(pair, number, page, snapshot),
        totals: totals(&clients),
        clients,
        admission: admission(snapshot, now_ns),
        torn_slots: snapshot.torn,
    }
}

/// Where the process lives, if that is not where the viewer lives: "docker 3f2ab9c41d22, pid 1 inside".
fn place(now: &Sample, pid: u32) -> Option<String> {
    let (process, viewer) = (now.process(pid)?, &now.viewer);
    let (there, here) = (&process.place, &viewer.place);
    let other = |a: &Fact<u64>, b: &Fact<u64>| match (a.known(), b.known()) {
        (Some(a), Some(b)) => a != b,
        _ => false,
    };
    let other_pids = other(&process.pid_ns_inode, &viewer.pid_ns_inode);
    let kinds: Vec<&str> = [
        ("pid", other_pids),
        ("mount", other(&there.mnt_ns_inode, &here.mnt_ns_inode)),
        ("net", other(&there.net_ns_inode, &here.net_ns_inode)),
    ]
    .into_iter()
    .filter_map(|(kind, differs)| differs.then_some(kind))
    .collect();
    let mut parts = Vec::new();
    match &there.container {
        Some(container) if there.container != here.container => parts.push(text::clean(container)),
        _ if kinds.is_empty() => return None,
        _ => parts.push(format!("other {} namespace", kinds.join("+"))),
    }
    if let Some(inner) = there.inner_pid.filter(|_| other_pids) {
        parts.push(format!("pid {inner} inside"));
    }
    Some(parts.join(", "))
}

/// The server's waiters: its pollers, or in thread-per-client mode the thread of each connection.
fn pollers<'a>(
    pair: &Pair<'a>,
    number: usize,
    page: &'a Page,
    snapshot: &'a Snapshot,
) -> Vec<Poller> {
    let now_ns = pair.now.time.monotonic_ns;
    let is_waiter = |s: &&transport::stats::Slot| match s.info.kind {
        SlotKind::Poller => s.info.state != SlotState::Closed,
        SlotKind::Connection => {
            snapshot.role == Role::Server && is_connection(s) && s.info.poller_slot.is_none()
        }
    };
    let slots = snapshot.slots.iter().filter(is_waiter);
    slots
        .map(|slot| {
            let side = pair.side(number, page, snapshot, slot);
            let wait = measure::wait(&side, now_ns);
            let thread = thread_of(pair, page.pid, slot.info.tid);
            Poller {
                slot: slot.index,
                number: match slot.info.kind {
                    SlotKind::Poller => slot.info.connection_id,
                    SlotKind::Connection => u64::from(slot.info.client_number),
                },
                is_of_client: slot.info.kind == SlotKind::Connection,
                tid: slot.info.tid,
                polls_per_s: measure::past(&side)
                    .and_then(|(old, span)| span.per_second(old.wait.polls, slot.wait.polls)),
                time: measure::time(&side, &wait, 0.0, thread.as_deref().ok()),
                wait,
                thread,
                progress_age_ns: match slot.req.last_progress_ns {
                    0 => Err(Why::not_yet("nothing has moved yet")),
                    at => Ok(now_ns.saturating_sub(at)),
                },
            }
        })
        .collect()
}

pub(super) fn totals(clients: &[Shared<Client>]) -> Totals {
    let sum = |f: fn(&Client) -> &Reading<f64>| -> Reading<f64> {
        let known: Vec<f64> = clients.iter().filter_map(|c| f(c).clone().ok()).collect();
        match (clients.first(), known.is_empty()) {
            (Some(c), true) => f(c).clone(),
            // From 0.0: an empty sum of floats is -0.0, and "-0 req/s" is what a reader would see.
            _ => Ok(known.iter().fold(0.0, |sum, v| sum + v)),
        }
    };
    let add = |f: fn(&Client) -> Reading<u64>| {
        clients
            .iter()
            .filter_map(|c| f(c).ok())
            .fold(0u64, u64::saturating_add)
    };
    let shm = clients.iter().filter(|c| c.transport == Via::Shm).count();
    Totals {
        clients: clients.len(),
        shm,
        socket: clients.len() - shm,
        requests_per_s: sum(|c| &c.requests_per_s),
        bytes_per_s: sum(|c| &c.bytes_per_s),
        ring_reserved_bytes: add(|c| c.tx.capacity_bytes.clone())
            .saturating_add(add(|c| c.rx.capacity_bytes.clone())),
        ring_touched_bytes: add(|c| c.tx.touched_bytes.clone())
            .saturating_add(add(|c| c.rx.touched_bytes.clone())),
        // Of some of them it would be a number of nothing.
        in_flight: clients.iter().try_fold(0u64, |sum, c| {
            let in_flight = c.in_flight.clone()?;
            Ok(sum.saturating_add(in_flight))
        }),
        history: History::default(),
    }
}

fn admission(snapshot: &Snapshot, now_ns: u64) -> Admission {
    let p = &snapshot.process;
    let rejected = rejected(snapshot);
    Admission {
        max_clients: p.max_clients,
        pending: p.pending_handshakes,
        oldest_pending_ns: match p.oldest_pending_ns {
            0 => 0,
            at => now_ns.saturating_sub(at),
        },
        accepted: p.accepted,
        handshakes: p.handshakes,
        upgrades: p.upgrades,
        fallbacks: p.fallbacks,
        rejected: rejected
            .iter()
            .map(|(_, n)| n)
            .fold(0, |a, n| a.saturating_add(*n)),
        rejected_by: rejected,
        accept_errors: p.accept_errors,
        fds_per_client: p.fds_per_client,
        ring_bytes: p.ring_bytes,
        handshake_max_ns: p.handshake_max_ns,
    }
}

/// Refused handshakes since start, by kind.
pub(crate) fn rejected(snapshot: &Snapshot) -> [(&'static str, u64); 8] {
    rejected_of(&snapshot.process)
}

/// The same, of counters kept from earlier.
pub(crate) fn rejected_of(p: &ProcessCounters) -> [(&'static str, u64); 8] {
    [
        ("magic", p.rejected_magic),
        ("version", p.rejected_version),
        ("layout", p.rejected_layout),
        ("uid", p.rejected_uid),
        ("timeout", p.rejected_timeout),
        ("full", p.rejected_full),
        ("pending", p.rejected_pending),
        ("resources", p.rejected_resources),
    ]
}
