//! A model written by hand: an exchange with 16 clients, one of them stopped, one on the socket; what the screens in
//! SCREENS show. Every number is chosen so that a wrong column or unit shows.

use shmtop::history::{HeatColumn, History, Point};
use shmtop::model::{
    Admission, Bound, Client, ClientState, CountersView, CpuView, Endpoint, EndpointKey, Evidence,
    Explained, Finding, HostView, LimitsView, Model, Percentiles, PerfView, Poller, ProcessView,
    RingView, RttView, Severity, Subject, ThreadView, TimeShares, Totals, UnknownRule, Verdict,
    WaitView,
};
use shmtop::sample::ThreadPolicy;
use shmtop::{Reading, Why};
use transport::stats::histogram::bucket_of;
use transport::stats::{FallbackFact, Role, Via};

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1_000_000_000;
/// "Now" on CLOCK_MONOTONIC.
pub(crate) const NOW: u64 = 5_000 * SECOND;
/// The same moment for people: 12:04:31 UTC.
pub(crate) const NOW_REALTIME: u64 = 1_700_000_000 / 86_400 * 86_400 * SECOND + 43_471 * SECOND;

fn no_pmu<T>() -> Reading<T> {
    Err(Why::not_there(
        "no PMU: the hypervisor hides the hardware counters",
    ))
}

fn on_socket<T>() -> Reading<T> {
    Err(Why::not_applicable("on the socket there is no ring"))
}

/// A minute at 10 Hz around `rate`, with a wave; nothing from `stop_s` seconds ago on.
fn history(rate: f32, p50: f32, stop_s: u64) -> History {
    let mut history = History::default();
    for tick in 0..=600u64 {
        let at_ns = NOW - 60 * SECOND + tick * SECOND / 10;
        let stopped = at_ns > NOW - stop_s * SECOND;
        let wave = 1.0 + 0.25 * ((tick as f32) / 37.0).sin();
        history.push(Point {
            at_ns,
            requests_per_s: Some(if stopped { 0.0 } else { rate * wave }),
            bytes_per_s: Some(rate * wave * 40_000.0),
            request_ring_bytes: Some(if stopped {
                13.1 * MIB as f32
            } else {
                1.0 * MIB as f32 * wave
            }),
            reply_ring_bytes: Some(0.6 * MIB as f32 * wave),
            p50_ns: Some(p50),
            p99_ns: Some(p50 * 2.2),
            hit_ratio: Some(0.94),
        });
        if tick % 10 == 0 && !stopped {
            let mut buckets: Vec<(u16, u64)> = [0.8f32, 1.0, 1.1, 1.3, 2.0, 6.0, 11.0]
                .iter()
                .zip([500u64, 9_000, 7_000, 2_000, 200, 12, 3])
                .map(|(m, n)| (bucket_of((p50 * m * wave) as u64) as u16, n))
                .collect();
            buckets.sort_unstable();
            history.push_heat(HeatColumn { at_ns, buckets });
        }
    }
    history
}

fn percentiles(p50: u64, p99: u64, p999: u64) -> Percentiles {
    Percentiles {
        p50,
        p90: p99 * 2 / 3,
        p99,
        p999,
        max: p999 * 3,
        count: 26_100,
    }
}

fn latency(p50: u64, p99: u64, p999: u64) -> RttView {
    RttView {
        interval: Ok(percentiles(p50, p99, p999)),
        recent: Ok(percentiles(p50, p99, p999)),
        since_start: Ok(percentiles(p50, p99 * 11 / 10, p999 * 8 / 7)),
    }
}

fn no_latency(why: &'static str) -> RttView {
    RttView {
        interval: Err(Why::not_yet(why)),
        recent: Err(Why::not_yet(why)),
        since_start: Ok(percentiles(1_200, 2_700, 15_000)),
    }
}

fn ring(occupancy: f64, peak: f64, rate: f64) -> RingView {
    let capacity = 32 * MIB;
    RingView {
        capacity_bytes: Ok(capacity),
        occupancy_bytes: Ok((capacity as f64 * occupancy) as u64),
        high_water_bytes: Ok((capacity as f64 * peak) as u64),
        messages_per_s: Ok(rate),
        bytes_per_s: Ok(rate * 20_000.0),
        cached_index_hit_ratio: Ok(0.94),
        index_loads_per_s: Ok(rate * 0.06),
        blocked_ratio: Ok(0.0),
        blocked_for_ns: Err(Why::not_applicable("it does not wait")),
        touched_bytes: Ok(2 * MIB + 100 * 1024),
        window_bytes: Ok(2 * MIB),
        moved_age_ns: Ok(20_000_000),
        padding_ratio: Ok(0.004),
        largest_bytes: Ok(20_000),
        mean_bytes: Ok(20_000.0),
        rejected: Ok(0),
    }
}

fn no_ring(rate: f64) -> RingView {
    RingView {
        capacity_bytes: on_socket(),
        occupancy_bytes: on_socket(),
        high_water_bytes: on_socket(),
        messages_per_s: Ok(rate),
        bytes_per_s: Ok(rate * 20_000.0),
        cached_index_hit_ratio: on_socket(),
        index_loads_per_s: on_socket(),
        blocked_ratio: on_socket(),
        blocked_for_ns: on_socket(),
        touched_bytes: on_socket(),
        window_bytes: on_socket(),
        moved_age_ns: on_socket(),
        padding_ratio: on_socket(),
        largest_bytes: Ok(20_000),
        mean_bytes: Ok(20_000.0),
        rejected: Ok(0),
    }
}

fn wait(spin: f64, yielding: f64, sleep: f64) -> WaitView {
    WaitView {
        waits_per_s: Ok(24_000.0),
        spins_per_s: Ok(2_100_000.0),
        yields_per_s: Ok(12_000.0),
        sleeps_per_s: Ok(310.0),
        spin_share: Ok(spin),
        yield_share: Ok(yielding),
        sleep_share: Ok(sleep),
        ended: Ok([0.91, 0.08, 0.01]),
        park: latency(52_000, 61_000, 140_000),
        asked_sleep_ns: Err(Why::not_applicable("it parks")),
        policy: "adaptive".to_owned(),
        crowded: true,
        spin_budget_ns: 50_000,
    }
}

fn thread(tid: u32, cpu: u32) -> ThreadView {
    ThreadView {
        tid,
        comm: "trader".to_owned(),
        state: Ok('S'),
        cpu: Ok(0.11),
        run_delay: Ok(0.003),
        voluntary_per_s: Ok(1_100.0),
        involuntary_per_s: Ok(14.0),
        migrations_per_s: Ok(0.2),
        faults_per_s: Ok(0.0),
        counters: CountersView::none(&no_pmu::<()>().unwrap_err()),
        last_cpu: Ok(cpu),
        allowed_cpus: Ok(vec![0, 1]),
        policy: Ok(ThreadPolicy::Other),
        nice: Ok(0),
        timer_slack_ns: Ok(50_000),
        wchan: Ok("futex_wait_queue".to_owned()),
    }
}

/// A healthy client.
fn client(number: u32) -> Client {
    let rate = 26_000.0 - f64::from(number) * 160.0;
    Client {
        slot: number,
        connection_id: 0x1000 + u64::from(number),
        number,
        role: Role::Server,
        shown_at_server: true,
        peer_pid: 4_235 + number,
        peer_uid: 1_000,
        peer_comm: "trader".to_owned(),
        state: ClientState::Active,
        state_for_ns: 192 * SECOND,
        transport: Via::Shm,
        wanted: Via::Shm,
        fallback: None,
        age_ns: 192 * SECOND,
        tx: ring(0.02, 0.04, rate),
        rx: ring(0.03, 0.11, rate),
        requests_per_s: Ok(rate),
        bytes_per_s: Ok(rate * 40_000.0),
        in_flight: 1,
        oldest_age_ns: Ok(900),
        timeouts: 0,
        late_replies: 0,
        errors: 0,
        wait: Ok(wait(0.42, 0.14, 0.3)),
        rtt: latency(1_200, 2_600 + u64::from(number) * 10, 14_000),
        handler: latency(400, 700, 2_100),
        handler_running_ns: Err(Why::not_applicable("no handler runs")),
        perf: PerfView {
            cache_misses_per_message: no_pmu(),
            cache_references_per_message: no_pmu(),
            l1d_misses_per_message: no_pmu(),
            llc_misses_per_message: no_pmu(),
            instructions_per_message: no_pmu(),
            instructions_per_cycle: no_pmu(),
            counted_share: no_pmu(),
            faults_per_message: Ok(0.0),
            context_switches_per_message: Ok(1.1),
        },
        time: Ok(TimeShares {
            useful: 0.38,
            spin: 0.21,
            yielding: 0.03,
            sleep: 0.35,
            blocked: 0.0,
            no_core: 0.03,
            idle: 0.0,
        }),
        thread: Ok(thread(4_260 + number, number % 2)),
        server_thread: Ok(thread(4_719, 0)),
        wait_policy: "adaptive".to_owned(),
        max_message_bytes: 2 * MIB,
        huge_pages: 0,
        verdict: Verdict {
            bound: Bound::Handler,
            since_ns: NOW - 190 * SECOND,
            says: "62 % of the round trip is the handler".to_owned(),
            evidence: Vec::new(),
        },
        doubt: None,
        history: history(rate as f32, 1_200.0, 0),
    }
}

fn stopped(number: u32) -> Client {
    let mut c = client(number);
    c.state = ClientState::Stopped;
    c.state_for_ns = 4_200_000_000;
    c.requests_per_s = Ok(0.0);
    c.bytes_per_s = Ok(0.0);
    c.rx = ring(0.41, 0.41, 0.0);
    c.tx = ring(0.0, 0.04, 0.0);
    c.tx.cached_index_hit_ratio = Err(Why::not_yet("no message in the interval"));
    c.rx.cached_index_hit_ratio = Err(Why::not_yet("no message in the interval"));
    c.in_flight = 3;
    c.oldest_age_ns = Ok(4_200_000_000);
    c.rtt = no_latency("no round trip in the interval");
    c.verdict = Verdict {
        bound: Bound::Consumer,
        since_ns: NOW - 4_200_000_000,
        says: "the peer has not read for 4.2 s; ring 41 % full and growing 0 B/s".to_owned(),
        evidence: Vec::new(),
    };
    c.history = history(25_000.0, 1_200.0, 4);
    c
}

fn on_the_socket(number: u32) -> Client {
    let mut c = client(number);
    c.transport = Via::Socket;
    c.fallback = Some(FallbackFact {
        step: 2,
        errno: 24,
        limit: 64,
        used: 64,
        at_peer: false,
    });
    c.rx = no_ring(2_100.0);
    c.tx = no_ring(2_100.0);
    c.requests_per_s = Ok(2_100.0);
    c.bytes_per_s = Ok(2_100.0 * 40_000.0);
    c.rtt = latency(41_000, 73_000, 140_000);
    c.wait = Err(Why::not_applicable("on the socket it waits in the kernel"));
    c.time = Err(Why::not_applicable("on the socket it waits in the kernel"));
    c.verdict = Verdict {
        bound: Bound::Socket,
        since_ns: NOW - 190 * SECOND,
        says: "every message takes two copies through the kernel and a wake-up".to_owned(),
        evidence: Vec::new(),
    };
    c.history = history(2_100.0, 41_000.0, 0);
    c
}

fn idle(number: u32) -> Client {
    let mut c = client(number);
    c.state = ClientState::Idle;
    c.requests_per_s = Ok(0.0);
    c.bytes_per_s = Ok(0.0);
    c.rx = ring(0.0, 0.02, 0.0);
    c.tx = ring(0.0, 0.02, 0.0);
    c.in_flight = 0;
    c.wait = Ok(wait(0.0, 0.0, 1.0));
    c.rtt = no_latency("no round trip in the interval");
    c.verdict.bound = Bound::Idle;
    c.verdict.says = "no traffic".to_owned();
    c.history = history(0.0, 1_200.0, 0);
    c
}

fn server(name: &str, pid: u32, clients: Vec<Client>) -> Endpoint {
    let sum = |f: fn(&Client) -> &Reading<f64>| {
        clients
            .iter()
            .filter_map(|c| f(c).as_ref().ok())
            .sum::<f64>()
    };
    let shm = clients.iter().filter(|c| c.transport == Via::Shm).count();
    let requests = sum(|c| &c.requests_per_s);
    Endpoint {
        key: EndpointKey {
            pid,
            start_ticks: 77,
            name: name.to_owned(),
            created_ns: NOW - 200 * SECOND,
        },
        name: name.to_owned(),
        pid,
        role: Role::Server,
        uid: 1_000,
        place: None,
        comm: name.to_owned(),
        socket_path: format!("/run/user/1000/shmtop/{name}.sock"),
        library: "transport 0.1.0".to_owned(),
        version: (1, 0),
        debug_build: false,
        age_ns: 200 * SECOND,
        heartbeat_age_ns: Ok(30_000_000),
        process: ProcessView {
            state: Ok('S'),
            cpu: Ok(0.94),
            system_share: Ok(0.08),
            rss_bytes: Ok(71 * MIB),
            minor_faults_per_s: Ok(3.0),
            major_faults_per_s: Ok(0.0),
            threads: Ok(Vec::new()),
        },
        limits: LimitsView {
            fds_used: Ok(61),
            fds_beyond: 0,
            fds_soft: Ok(64),
            fds_hard: Ok(4_096),
            room_fds: Ok(0),
            room_memory: Ok(45),
            memory_max_bytes: Ok(4_096 * MIB),
            memory_current_bytes: Ok(1_126 * MIB),
            memory_group: Ok("/sys/fs/cgroup/exchange.service".to_owned()),
            cpu_quota: Err(Why::not_applicable("no quota is set")),
            throttled: Err(Why::not_applicable("no quota is set")),
            memlock_bytes: Ok(8 * MIB),
            fsize_bytes: Err(Why::not_applicable("unlimited")),
            as_bytes: Err(Why::not_applicable("unlimited")),
        },
        pollers: vec![Poller {
            slot: 0,
            number: 0,
            tid: 4_719,
            wait: wait(0.1, 0.05, 0.2),
            polls_per_s: Ok(80_000.0),
            time: Ok(TimeShares {
                useful: 0.65,
                spin: 0.1,
                yielding: 0.05,
                sleep: 0.2,
                ..TimeShares::default()
            }),
            thread: Ok(thread(4_719, 0)),
            progress_age_ns: Ok(1_000_000),
        }],
        totals: Totals {
            clients: clients.len(),
            shm,
            socket: clients.len() - shm,
            requests_per_s: Ok(requests),
            bytes_per_s: Ok(requests * 40_000.0),
            ring_reserved_bytes: shm as u64 * 64 * MIB,
            ring_touched_bytes: 34 * MIB,
            in_flight: 18,
            history: history(requests as f32, 1_200.0, 0),
        },
        admission: Admission {
            max_clients: 64,
            accepted: 16,
            handshakes: 16,
            upgrades: 15,
            fallbacks: 1,
            fds_per_client: 3,
            ring_bytes: 64 * MIB,
            handshake_max_ns: 900_000,
            ..Admission::default()
        },
        clients,
        torn_slots: 0,
    }
}

fn findings() -> Vec<Finding> {
    let subject = |client: u32| Subject {
        endpoint: Some("exchange".to_owned()),
        pid: Some(4_711),
        client: Some(client),
        connection_id: Some(0x1000 + u64::from(client)),
    };
    let evidence = |name: &str, value: f64, unit, source: &str, threshold: &str| Evidence {
        name: name.to_owned(),
        value,
        text: None,
        unit,
        source: source.to_owned(),
        threshold: threshold.to_owned(),
    };
    vec![
        Finding {
            id: "peer-stopped",
            severity: Severity::Crit,
            also: Vec::new(),
            about: None,
            subject: subject(7),
            says: "peer 4242 is stopped (SIGSTOP) for 4.2 s, 3 requests wait".to_owned(),
            evidence: vec![
                Evidence {
                    text: Some("T (stopped)".to_owned()),
                    ..evidence("process state", 0.0, "", "/proc/4242/stat", "T or t")
                },
                evidence("requests waiting", 3.0, "", "in_flight", "> 0"),
                evidence("oldest request", 4.2e9, "ns", "oldest_ns", "> 1 s"),
            ],
            fix: "kill -CONT 4242".to_owned(),
            clears: "when the process runs again",
            explains: vec![Explained {
                id: "consumer-stalled",
                subject: subject(7),
                says: "replies wait unread for 4.2 s".to_owned(),
            }],
            since_ns: NOW - 4_200_000_000,
            since_realtime_ns: NOW_REALTIME - 4_200_000_000,
        },
        Finding {
            id: "socket-fallback",
            severity: Severity::Warn,
            also: Vec::new(),
            about: None,
            subject: subject(16),
            says: "on the socket: memfd_create → EMFILE, 64/64 fds; p50 41 µs, the others 1.2 µs"
                .to_owned(),
            evidence: vec![
                evidence("fds", 64.0, "", "/proc/4711/limits", "= 64"),
                evidence("p50 here", 41_000.0, "ns", "rtt_ns of client 16", ""),
                evidence("p50 of the others", 1_200.0, "ns", "rtt_ns", ""),
            ],
            fix: "prlimit --pid 4711 --nofile=4096".to_owned(),
            clears: "when the client reconnects and gets its rings",
            explains: Vec::new(),
            since_ns: NOW - 190 * SECOND,
            since_realtime_ns: NOW_REALTIME - 190 * SECOND,
        },
        Finding {
            id: "no-pmu",
            severity: Severity::Info,
            also: Vec::new(),
            about: None,
            subject: Subject::default(),
            says: "no hardware counters: the hypervisor hides them".to_owned(),
            evidence: Vec::new(),
            fix: "enable a vPMU for this machine".to_owned(),
            clears: "when perf_event_open works",
            explains: Vec::new(),
            since_ns: NOW - 190 * SECOND,
            since_realtime_ns: NOW_REALTIME - 190 * SECOND,
        },
    ]
}

fn host() -> HostView {
    let cpu = |id| CpuView {
        id,
        siblings: Ok(vec![id]),
        llc: Ok(0),
        node: Ok(0),
        busy: Ok(if id == 0 { 0.97 } else { 0.64 }),
        steal: Ok(0.004),
        frequency_khz: Err(Why::not_there(
            "the hypervisor shows a constant, not the frequency",
        )),
        governor: Err(Why::not_there("no cpufreq here")),
        thermal_throttles: Err(Why::not_there("no thermal_throttle here")),
    };
    HostView {
        name: Ok("build-7".to_owned()),
        kernel: Ok("6.18.0".to_owned()),
        cpus: vec![cpu(0), cpu(1)],
        hypervisor: Ok(true),
        load: Ok([1.8, 1.2, 0.7]),
        pressure: [Ok(0.114), Ok(0.0), Ok(0.002)],
        clocksource: Ok("tsc".to_owned()),
        clock_cost_ns: Ok(24),
        memory_total_bytes: Ok(16_384 * MIB),
        memory_available_bytes: Ok(12_100 * MIB),
        files: Ok((2_144, u64::MAX / 2)),
        shmmax_bytes: Ok(u64::MAX - (1 << 24)),
        dev_shm_bytes: Ok((24 << 20, 12 << 30)),
        perf_paranoid: Ok(2),
        hardware_counters: no_pmu(),
        numa_nodes: Ok(1),
    }
}

/// An exchange with 16 clients: 7 stopped, 11 idle, 16 on the socket.
pub(crate) fn exchange() -> Model {
    let clients = (1..=16)
        .map(|n| match n {
            7 => stopped(n),
            11 => idle(n),
            16 => on_the_socket(n),
            _ => client(n),
        })
        .collect();
    Model {
        at_ns: NOW,
        at_realtime_ns: NOW_REALTIME,
        interval_ns: Ok(SECOND / 10),
        host: host(),
        endpoints: vec![server("exchange", 4_711, clients)],
        findings: findings(),
        unknown: vec![
            UnknownRule {
                id: "cpu-freq-low",
                subject: Subject::default(),
                why: Why::not_there("the hypervisor hides the frequency"),
            },
            UnknownRule {
                id: "cache-misses",
                subject: Subject::default(),
                why: Why::not_there("no PMU: the hypervisor hides the hardware counters"),
            },
        ],
        checked: vec!["ring-full"; 41],
        viewer_cpu: Ok(0.004),
        ..Model::empty()
    }
}

/// The exchange on a machine with a PMU, which two of its threads share with others.
pub(crate) fn with_pmu() -> Model {
    let mut model = healthy();
    model.host.hardware_counters = Ok(());
    let exchange = &mut model.endpoints[0];
    for p in &mut exchange.pollers {
        if let Ok(t) = &mut p.thread {
            t.counters = counters(4.0, 1.0);
        }
    }
    for c in &mut exchange.clients {
        let share = if c.number < 3 { 0.62 } else { 1.0 };
        if let Ok(t) = &mut c.thread {
            t.counters = counters(f64::from(c.number) / 8.0, share);
        }
        c.perf = PerfView {
            cache_misses_per_message: Ok(12.4),
            cache_references_per_message: Ok(310.0),
            l1d_misses_per_message: Ok(96.0),
            llc_misses_per_message: Ok(11.8),
            instructions_per_message: Ok(4_100.0),
            instructions_per_cycle: Ok(1.37),
            counted_share: Ok(share),
            ..c.perf.clone()
        };
    }
    model
}

fn counters(load: f64, share: f64) -> CountersView {
    CountersView {
        cycles_per_s: Ok(load * 310e6),
        instructions_per_s: Ok(load * 424e6),
        cache_references_per_s: Ok(load * 8e6),
        cache_misses_per_s: Ok(load * 0.32e6),
        counted_share: Ok(share),
        l1d_miss_ratio: Ok(0.021),
        llc_miss_ratio: Ok(0.044),
    }
}

/// The exchange without anything wrong.
pub(crate) fn healthy() -> Model {
    let mut model = exchange();
    model.endpoints = vec![server("exchange", 4_711, (1..=16).map(client).collect())];
    model.endpoints[0].limits.fds_soft = Ok(4_096);
    model.endpoints[0].limits.room_fds = Ok(1_345);
    model.findings.clear();
    model
}

/// Two servers, one of them without clients.
pub(crate) fn two_servers() -> Model {
    let mut model = healthy();
    model.endpoints[0].clients.truncate(5);
    model.endpoints[0].totals.clients = 5;
    model.endpoints[0].totals.shm = 5;
    model
        .endpoints
        .push(server("quotes", 5_100, vec![client(1), idle(2)]));
    model.endpoints.push(server("archive", 5_200, Vec::new()));
    model
}

/// A machine on which nothing uses the transport.
pub(crate) fn nothing() -> Model {
    Model {
        at_ns: NOW,
        at_realtime_ns: NOW_REALTIME,
        interval_ns: Ok(SECOND / 10),
        host: host(),
        viewer_cpu: Ok(0.002),
        ..Model::empty()
    }
}
