//! What the session looks at: 75 seconds of an exchange with 16 clients, as a recording.
//!
//! The sixteenth client found no descriptor left and works over the socket; in the last fifteen seconds the seventh is
//! stopped while replies to it pile up. Rates and tails drift, so that charts have something to show.

use std::f64::consts::TAU;

use shmtop::sample::*;
use transport::stats::*;

use crate::base::pages::histogram;
use crate::base::{Base, SERVER};

/// Last second of the recording.
pub(crate) const SECONDS: u64 = 75;
const STOPPED: u32 = 7;
const STOPPED_AT: u64 = 60;
const ON_SOCKET: u32 = 16;
const BYTES: u64 = 20_000;

/// Messages of client `n` up to second `t`: a rate of its own that swings by a third.
fn messages(n: u32, t: u64) -> u64 {
    if n == STOPPED && t > STOPPED_AT {
        return messages(n, STOPPED_AT);
    }
    let rate = match n {
        ON_SOCKET => 900.0,
        _ => 9_000.0 - 300.0 * f64::from(n),
    };
    let swing = |t: f64| 1.0 - (t * TAU / 30.0 + f64::from(n) / 3.0).cos();
    let t = t as f64;
    (rate * (t + 1.6 * (swing(t) - swing(0.0)))) as u64
}

fn ring(n: u32, t: u64, slot: &mut Slot, at_server: bool) {
    let m = messages(n, t);
    let all = 1_000_000 + m;
    slot.tx.tx_messages = all;
    slot.tx.tx_bytes = all * BYTES;
    slot.tx.tx_record_bytes = all * (BYTES + 16);
    slot.tx.tx_index_hits = all * 19 / 20;
    slot.tx.tx_index_loads = all / 20;
    slot.tx.tx_high_water_bytes = 620_000 + u64::from(n) * 9_000;
    slot.tx.tx_occupancy_bytes = (m / 7 % 12) * BYTES;
    slot.rx.rx_messages = all;
    slot.rx.rx_bytes = all * BYTES;
    slot.rx.rx_record_bytes = all * (BYTES + 16);
    slot.rx.rx_index_hits = all * 19 / 20;
    slot.rx.rx_index_loads = all / 20;
    slot.req.requests = all;
    slot.req.replies = all;
    let ms = t * 1_000_000;
    slot.wait.useful_ns = ms * 380;
    slot.wait.spin_ns = ms * (130 + u64::from(n) * 8);
    slot.wait.yield_ns = ms * 60;
    slot.wait.sleep_ns = ms * (400 - u64::from(n) * 8);
    if at_server {
        slot.house.house_rx_occupancy_bytes = (m / 7 % 12) * BYTES;
        slot.house.house_rx_high_water_bytes = slot.tx.tx_high_water_bytes;
        slot.house.house_tx_occupancy_bytes = (m / 11 % 5) * BYTES;
        slot.house.house_tx_high_water_bytes = 400_000;
        slot.handler = histogram(&[(2_600, m - m / 50), (5_200, m / 50)]);
        slot.req.handler_ns = m * 2_650;
    } else {
        let p50 = if n == ON_SOCKET { 190_000 } else { 60_000 };
        let slow = messages(n, if n == STOPPED { t.min(STOPPED_AT) } else { t } / 3) / 90;
        slot.rtt = histogram(&[
            (p50, m - m / 5 - m / 80 - slow),
            (p50 * 3 / 2, m / 5),
            (p50 * 4, m / 80),
            (p50 * 12, slow),
        ]);
    }
}

fn on_socket(slot: &mut Slot) {
    slot.info.transport = Via::Socket;
    slot.info.fallback = Some(FallbackFact {
        step: 2,
        errno: 24,
        limit: 64,
        used: 64,
        at_peer: false,
    });
    slot.info.tx_capacity = 0;
    slot.info.rx_capacity = 0;
    slot.tx = TxCounters {
        tx_messages: slot.tx.tx_messages,
        tx_bytes: slot.tx.tx_bytes,
        ..TxCounters::default()
    };
    slot.rx = RxCounters {
        rx_messages: slot.rx.rx_messages,
        rx_bytes: slot.rx.rx_bytes,
        ..RxCounters::default()
    };
    slot.house = HouseCounters::default();
}

/// The sample of second `t`.
pub(crate) fn sample(t: u64) -> Sample {
    let mut sample = Base::named("crowded").sample(t);
    let now = sample.time.monotonic_ns;
    let halted = t.saturating_sub(STOPPED_AT) * 1_000_000_000;
    for page in &mut sample.pages {
        let PageContent::Read(snapshot) = &mut page.content else {
            continue;
        };
        let at_server = snapshot.role == Role::Server;
        if at_server {
            snapshot.process.upgrades = 15;
            snapshot.process.fallbacks = 1;
        }
        for slot in &mut snapshot.slots {
            let n = slot.info.client_number;
            if n == 0 {
                continue;
            }
            ring(n, t, slot, at_server);
            if n == ON_SOCKET {
                on_socket(slot);
            }
            if n == STOPPED && halted > 0 {
                slot.req.in_flight = 3;
                slot.req.oldest_ns = now - halted;
                slot.req.last_progress_ns = now - halted;
                if at_server {
                    slot.house.house_tx_occupancy_bytes = 13_700_000;
                    slot.house.house_tx_high_water_bytes = 13_700_000;
                    slot.house.house_tx_moved_ns = now - halted;
                }
            }
        }
    }
    for process in &mut sample.processes {
        for thread in &mut process.threads {
            thread.wait_ns = Fact::Known(t * 3_000_000);
        }
        if process.pid == SERVER {
            process.fds = Fact::Known(61);
            if let Fact::Known(limits) = &mut process.limits {
                limits.nofile.soft = Some(64);
            }
        }
        if process.pid == Base::client_pid(STOPPED) && halted > 0 {
            process.state = Fact::Known('T');
        }
    }
    let why = "no PMU: the hypervisor hides it";
    for thread in &mut sample.perf {
        thread.hardware = Perf::NoPmu(why.to_owned());
        thread.software = Perf::Unavailable("not asked for: /proc has the same".to_owned());
    }
    let host = &mut sample.host;
    host.hypervisor = Fact::Known(true);
    host.load = Fact::Known(LoadAverage {
        one: 1.9,
        five: 1.6,
        fifteen: 0.9,
    });
    host.dev_shm = Fact::Known(FileSystem {
        size_bytes: 32 << 30,
        used_bytes: 24 << 20,
    });
    for (resource, avg10) in [("cpu", 4.2), ("memory", 0.0), ("io", 0.3)] {
        let some = PressureLine { avg10, total_us: 0 };
        let pressure = Pressure { some, full: None };
        host.pressure
            .insert(resource.to_owned(), Fact::Known(pressure));
    }
    for cpu in &mut host.cpus {
        cpu.llc = Fact::Known(0);
    }
    sample
}

/// Second `t` of another place: a server and four clients that spin on two CPUs.
pub(crate) fn spinning(t: u64) -> Sample {
    let mut sample = Base::named("busy").sample(t);
    for page in &mut sample.pages {
        let PageContent::Read(snapshot) = &mut page.content else {
            continue;
        };
        for slot in &mut snapshot.slots {
            slot.wait.spin_ns += t * 300_000_000;
        }
    }
    for thread in sample.processes.iter_mut().flat_map(|p| &mut p.threads) {
        thread.allowed_cpus = Fact::Known([0, 1].into_iter().collect());
        thread.wait_ns = Fact::Known(t * 31_000_000);
    }
    sample
}
