//! `snapshot -f json`: the whole model, schema 1.
//!
//! A value that can't be had is `null`; `why` beside it says the reason, or the reasons by name where they differ.

mod object;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use transport::stats::Role;

use object::Object;

use crate::model::measure::timed_none;
use crate::model::{
    Client, Endpoint, HostView, LimitsView, Model, Percentiles, PerfView, Poller, RingView,
    RttView, Shared, ThreadView, TimeShares, WaitView,
};
use crate::reading::{Reading, Why};

/// The document.
pub fn snapshot_json(model: &Model) -> Value {
    let mut root = Object::default();
    root.put("schema", 1)
        .put("at_realtime_ns", model.at_realtime_ns)
        .read("interval_ns", model.interval_ns.clone())
        .put("host", host(&model.host))
        .put(
            "endpoints",
            model
                .endpoints
                .iter()
                .map(|e| endpoint(e))
                .collect::<Vec<_>>(),
        )
        .put("unreadable", unreadable(model))
        .put("limits", limits(model));
    root.done()
}

/// Pages that were found and can't be shown.
pub(super) fn unreadable(model: &Model) -> Vec<Value> {
    let one = |u: &crate::model::Unreadable| json!({ "pid": u.pid, "name": u.name, "why": u.why.to_string() });
    model.unreadable.iter().map(one).collect()
}

fn host(h: &HostView) -> Value {
    let mut o = Object::default();
    o.read("name", h.name.clone())
        .read("kernel", h.kernel.clone())
        .put("cpus", h.cpus.len())
        .read("hypervisor", h.hypervisor.clone())
        .read("clocksource", h.clocksource.clone())
        .read("clock_gettime_ns", h.clock_cost_ns.clone())
        .read("memory_total_bytes", h.memory_total_bytes.clone())
        .read("memory_available_bytes", h.memory_available_bytes.clone())
        .read("perf_event_paranoid", h.perf_paranoid.clone())
        .read(
            "hardware_counters",
            h.hardware_counters.clone().map(|()| true),
        );
    let mut busy = Vec::new();
    for c in &h.cpus {
        let mut cpu = Object::default();
        cpu.put("id", c.id)
            .read("busy", c.busy.clone())
            .read("steal", c.steal.clone())
            .read("khz", c.frequency_khz.clone().map(|f| f.0))
            .read("max_khz", c.frequency_khz.clone().map(|f| f.1));
        busy.push(cpu.done());
    }
    o.put("cpu", busy);
    o.done()
}

/// `server` or `client`.
pub(super) fn role(r: Role) -> &'static str {
    match r {
        Role::Server => "server",
        Role::Client => "client",
    }
}

fn endpoint(e: &Endpoint) -> Value {
    let mut o = Object::default();
    o.put("name", e.name.as_str())
        .put("pid", e.pid)
        .put("role", role(e.role))
        .put("uid", e.uid)
        .put("place", e.place.as_deref())
        .put("comm", e.comm.as_str())
        .put("socket", e.socket_path.as_str())
        .put("library", e.library.as_str())
        .put("layout", format!("{}.{}", e.version.0, e.version.1))
        .put("debug_build", e.debug_build)
        .put("age_ns", e.age_ns)
        .read("heartbeat_age_ns", e.heartbeat_age_ns.clone())
        .put(
            "clients",
            e.clients.iter().map(|c| client(c)).collect::<Vec<_>>(),
        )
        .put("pollers", e.pollers.iter().map(poller).collect::<Vec<_>>());
    let mut totals = Object::default();
    totals
        .put("clients", e.totals.clients)
        .put("shm", e.totals.shm)
        .put("socket", e.totals.socket)
        .read("requests_per_s", e.totals.requests_per_s.clone())
        .read("bytes_per_s", e.totals.bytes_per_s.clone())
        .put("ring_reserved_bytes", e.totals.ring_reserved_bytes)
        .put("ring_touched_bytes", e.totals.ring_touched_bytes)
        .read("in_flight", e.totals.in_flight.clone());
    let a = &e.admission;
    let admits = |number: u64| match e.role {
        Role::Client if number == 0 => Err(Why::not_applicable("a client admits nobody")),
        _ => Ok(number),
    };
    let mut admission = Object::default();
    admission
        .read("max_clients", admits(a.max_clients))
        .put("pending", a.pending)
        .put("accepted", a.accepted)
        .put("handshakes", a.handshakes)
        .put("upgrades", a.upgrades)
        .put("fallbacks", a.fallbacks)
        .put("rejected", a.rejected)
        .put(
            "rejected_by",
            json!(a.rejected_by.iter().copied().collect::<BTreeMap<_, _>>()),
        )
        .put("accept_errors", a.accept_errors)
        .read("fds_per_client", admits(a.fds_per_client))
        .read("ring_bytes_per_client", admits(a.ring_bytes));
    let mut process = Object::default();
    process
        .read("state", e.process.state.clone().map(|c| c.to_string()))
        .read("cpu", e.process.cpu.clone())
        .read("rss_bytes", e.process.rss_bytes.clone())
        .read("minor_faults_per_s", e.process.minor_faults_per_s.clone())
        .read("major_faults_per_s", e.process.major_faults_per_s.clone());
    o.put("totals", totals.done())
        .put("process", process.done())
        .put("admission", admission.done());
    o.done()
}

fn client(c: &Client) -> Value {
    let mut o = Object::default();
    o.put("id", c.number)
        .put("connection_id", format!("{:016x}", c.connection_id))
        .read(
            "peer_pid",
            known(c.peer_pid, "the peer is in another pid namespace"),
        )
        .put("peer_uid", c.peer_uid)
        .put("peer_name", c.peer_name.as_str())
        .put("peer_comm", c.peer_comm.as_str())
        .put("state", c.state.name())
        .put("transport", c.transport.name())
        .put("wanted", c.wanted.name())
        .put(
            "fallback",
            c.fallback.as_ref().map_or(Value::Null, fallback),
        )
        .put("age_ns", c.age_ns)
        .put("tx", ring(&c.tx))
        .put("rx", ring(&c.rx))
        .read("requests_per_s", c.requests_per_s.clone())
        .read("bytes_per_s", c.bytes_per_s.clone())
        .read("in_flight", c.in_flight.clone())
        .read("timeouts", c.timeouts.clone())
        .read("late_replies", c.late_replies.clone())
        .put("errors", c.errors)
        .put("policy", c.wait_policy.name())
        .put("wait", wait(&c.wait))
        .put("rtt_ns", percentiles(&c.rtt.interval))
        .put("rtt_since_start_ns", percentiles(&c.rtt.since_start))
        .put("handler_ns", percentiles(&c.handler.interval))
        .put(
            "handler_since_start_ns",
            percentiles(&c.handler.since_start),
        )
        .put("perf", perf(&c.perf))
        .put("time", time(&c.time))
        .put("thread", thread(&c.thread))
        .put(
            "verdict",
            json!({ "bound": c.verdict.bound.name(), "says": c.verdict.says }),
        );
    o.done()
}

fn fallback(f: &transport::stats::FallbackFact) -> Value {
    let step = transport::error::Step::from_number(f.step).map_or("unknown", |s| s.name());
    let failed = || Why::not_applicable("no system call failed");
    let errno = (f.errno != 0).then_some(f.errno).ok_or_else(failed);
    let mut o = Object::default();
    o.put("step", step)
        .read(
            "errno_name",
            errno.clone().map(transport::error::errno_name),
        )
        .read("errno", errno)
        .read(
            "limit",
            known(f.limit, "which limit was in the way is not known"),
        )
        .read(
            "used",
            known(f.used, "how much of it was used is not known"),
        )
        .put("at_peer", f.at_peer);
    o.done()
}

/// What a page writes as 0 where it does not know.
fn known<N: Into<u64>>(number: N, why: &'static str) -> Reading<u64> {
    match number.into() {
        0 => Err(Why::not_there(why)),
        number => Ok(number),
    }
}

fn ring(r: &RingView) -> Value {
    let mut o = Object::default();
    o.read("capacity_bytes", r.capacity_bytes.clone())
        .read("occupancy_bytes", r.occupancy_bytes.clone())
        .read("high_water_bytes", r.high_water_bytes.clone())
        .read("messages_per_s", r.messages_per_s.clone())
        .read("bytes_per_s", r.bytes_per_s.clone())
        .read("cached_index_hit_ratio", r.cached_index_hit_ratio.clone())
        .read("blocked_ratio", r.blocked_ratio.clone())
        .read("touched_bytes", r.touched_bytes.clone())
        .read("window_bytes", r.window_bytes.clone())
        .read("padding_ratio", r.padding_ratio.clone())
        .read("largest_bytes", r.largest_bytes.clone())
        .read("rejected", r.rejected.clone());
    o.done()
}

/// Counts per second and ns per second.
fn wait(w: &Reading<WaitView>) -> Value {
    let part = |f: fn(&WaitView) -> &Reading<f64>| -> Reading<f64> {
        w.as_ref().map_err(Why::clone).and_then(|w| f(w).clone())
    };
    let ns = |f: fn(&WaitView) -> &Reading<f64>| part(f).map(|share| share * 1e9);
    let mut o = Object::default();
    o.read("spin", part(|w| &w.spins_per_s))
        .read("yield", part(|w| &w.yields_per_s))
        .read("sleep", part(|w| &w.sleeps_per_s))
        .read("spin_ns", ns(|w| &w.spin_share))
        .read("yield_ns", ns(|w| &w.yield_share))
        .read("sleep_ns", ns(|w| &w.sleep_share));
    o.done()
}

fn percentiles(p: &Reading<Percentiles>) -> Value {
    let part = |f: fn(&Percentiles) -> u64| p.as_ref().map(f).map_err(Why::clone);
    let count = match p {
        Err(why) if timed_none(why) => Ok(0),
        _ => part(|p| p.count),
    };
    let mut o = Object::default();
    o.read("p50", part(|p| p.p50))
        .read("p90", part(|p| p.p90))
        .read("p99", part(|p| p.p99))
        .read("p999", part(|p| p.p999))
        .read("max", part(|p| p.max))
        .read("count", count);
    o.done()
}

fn perf(p: &PerfView) -> Value {
    let mut o = Object::default();
    o.read(
        "cache_misses_per_message",
        p.cache_misses_per_message.clone(),
    )
    .read(
        "cache_references_per_message",
        p.cache_references_per_message.clone(),
    )
    .read("l1d_misses_per_message", p.l1d_misses_per_message.clone())
    .read("llc_misses_per_message", p.llc_misses_per_message.clone())
    .read(
        "instructions_per_message",
        p.instructions_per_message.clone(),
    )
    .read("instructions_per_cycle", p.instructions_per_cycle.clone())
    .read("counted_share", p.counted_share.clone())
    .read("faults_per_message", p.faults_per_message.clone())
    .read(
        "context_switches_per_message",
        p.context_switches_per_message.clone(),
    );
    o.done()
}

fn time(t: &Reading<TimeShares>) -> Value {
    let part = |f: fn(&TimeShares) -> f64| t.as_ref().map(f).map_err(Why::clone);
    let mut o = Object::default();
    o.read("useful", part(|t| t.useful))
        .read("spin", part(|t| t.spin))
        .read("yield", part(|t| t.yielding))
        .read("sleep", part(|t| t.sleep))
        .read("blocked", part(|t| t.blocked))
        .read("no_core", part(|t| t.no_core))
        .read("idle", part(|t| t.idle));
    o.done()
}

fn thread(t: &Reading<Shared<ThreadView>>) -> Value {
    let part = |f: fn(&ThreadView) -> &Reading<f64>| -> Reading<f64> {
        t.as_ref().map_err(Why::clone).and_then(|t| f(t).clone())
    };
    let mut o = Object::default();
    o.read("tid", t.as_ref().map(|t| t.tid).map_err(Why::clone))
        .read("cpu", part(|t| &t.cpu))
        .read("run_delay", part(|t| &t.run_delay))
        .read("involuntary_switches_per_s", part(|t| &t.involuntary_per_s))
        .read("migrations_per_s", part(|t| &t.migrations_per_s))
        .read(
            "last_cpu",
            t.as_ref()
                .map_err(Why::clone)
                .and_then(|t| t.last_cpu.clone()),
        );
    o.done()
}

fn poller(p: &Poller) -> Value {
    let mut o = Object::default();
    let park: &RttView = &p.wait.park;
    o.put("number", p.number)
        .put("of_client", p.is_of_client)
        .put("tid", p.tid)
        .put("policy", p.wait.policy.name())
        .put("wait", wait(&Ok(p.wait.clone())))
        .put("park_ns", percentiles(&park.interval))
        .put("time", time(&p.time))
        .put("thread", thread(&p.thread))
        .read("polls_per_s", p.polls_per_s.clone());
    o.done()
}

fn limits(model: &Model) -> Value {
    let h = &model.host;
    let mut o = Object::default();
    o.read("files_used", h.files.clone().map(|f| f.0))
        .read("files_max", h.files.clone().map(|f| f.1))
        .read("shmmax_bytes", h.shmmax_bytes.clone())
        .read(
            "shmmax_is_1_gib",
            h.shmmax_bytes.clone().map(|b| b >= 1 << 30),
        )
        .put(
            "shmmax_note",
            "bounds SysV segments; does not limit memfd rings",
        )
        .put(
            "endpoints",
            model
                .endpoints
                .iter()
                .map(|e| of_endpoint(e.pid, &e.limits))
                .collect::<Vec<_>>(),
        );
    o.done()
}

fn of_endpoint(pid: u32, l: &LimitsView) -> Value {
    let mut o = Object::default();
    o.put("pid", pid)
        .read("fds_used", l.fds_used.clone())
        .put("fds_beyond_limit", l.fds_beyond)
        .read("fds_soft", l.fds_soft.clone())
        .read("fds_hard", l.fds_hard.clone())
        .read("room_for_clients_fds", l.room_fds.clone())
        .read("room_for_clients_memory", l.room_memory.clone())
        .read("memory_max_bytes", l.memory_max_bytes.clone())
        .read("memory_current_bytes", l.memory_current_bytes.clone())
        .read("cpu_quota", l.cpu_quota.clone())
        .read("throttled_ratio", l.throttled.clone())
        .read("memlock_bytes", l.memlock_bytes.clone())
        .read("fsize_bytes", l.fsize_bytes.clone())
        .read("address_space_bytes", l.as_bytes.clone());
    o.done()
}
