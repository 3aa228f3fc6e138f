//! The stats pages of a workload: the server's with a slot for each connection, and one for each client.

use transport::config::PolicyKind;
use transport::stats::*;

use super::{Base, CREATED_NS, Load, POLLER, S, SERVER, START_NS};

impl Base {
    pub(super) fn server_page(&self, now: u64, t: u64) -> Snapshot {
        let mut page = self.page(SERVER, Role::Server, "exchange", now);
        let n = u64::from(self.clients);
        page.process = ProcessCounters {
            max_clients: 1024,
            open_clients: n,
            accepted: n,
            handshakes: n,
            upgrades: n,
            fds_per_client: 1,
            ring_bytes: 64 << 20,
            listener_inode: 77,
            handshake_max_ns: 3_000_000,
            ..page.process
        };
        page.slots.push(Slot {
            index: 0,
            info: SlotInfo {
                state: SlotState::Open,
                kind: SlotKind::Poller,
                tid: POLLER,
                wait_policy: PolicyKind::Adaptive,
                opened_ns: CREATED_NS,
                ..SlotInfo::default()
            },
            wait: self.wait(self.server, t, n),
            req: ReqCounters {
                last_progress_ns: now,
                ..ReqCounters::default()
            },
            ..Slot::default()
        });
        for c in 1..=self.clients {
            let mut slot = self.slot(c, now, t);
            slot.index = c;
            slot.info.peer_pid = Self::client_pid(c);
            slot.info.tid = POLLER;
            slot.info.poller_slot = Some(0);
            slot.wait = WaitCounters::default();
            slot.rtt = Histogram::default();
            slot.handler = self.latency(self.p50_ns / 10, t);
            slot.req.handler_ns = t * self.rate * self.p50_ns / 10;
            slot.house = HouseCounters {
                house_ns: now - 100_000_000,
                house_rx_high_water_bytes: 8_000,
                house_tx_high_water_bytes: 8_000,
                house_rx_moved_ns: now - 100_000_000,
                house_tx_moved_ns: now - 100_000_000,
                ..HouseCounters::default()
            };
            page.slots.push(slot);
        }
        page
    }

    pub(super) fn client_page(&self, n: u32, now: u64, t: u64) -> Snapshot {
        let pid = Self::client_pid(n);
        let mut page = self.page(pid, Role::Client, "trader", now);
        let mut slot = self.slot(n, now, t);
        slot.info.peer_pid = SERVER;
        slot.info.tid = pid;
        slot.rtt = self.latency(self.p50_ns, t);
        page.slots.push(slot);
        page
    }

    fn page(&self, pid: u32, role: Role, name: &str, now: u64) -> Snapshot {
        Snapshot {
            version: (1, 0),
            pid,
            start_ticks: 90_000,
            uid: 1000,
            role,
            boot_id: "00".into(),
            pid_ns_inode: 1,
            created_monotonic_ns: CREATED_NS,
            name: name.into(),
            socket_path: "/run/x/exchange.sock".into(),
            library: "0.1.0".into(),
            process: ProcessCounters {
                heartbeat_ns: if role == Role::Server {
                    now - 100_000_000
                } else {
                    0
                },
                ..ProcessCounters::default()
            },
            ..Snapshot::default()
        }
    }

    fn slot(&self, n: u32, now: u64, t: u64) -> Slot {
        let messages = 1_000_000 + t * self.rate;
        Slot {
            info: SlotInfo {
                state: SlotState::Open,
                connection_id: 0xc000 + u64::from(n),
                client_number: n,
                transport: Via::Shm,
                wanted: Via::Shm,
                peer_uid: 1000,
                peer_start_ticks: 90_000,
                peer_name: "trader".into(),
                wait_policy: PolicyKind::Adaptive,
                tx_capacity: 32 << 20,
                rx_capacity: 32 << 20,
                max_message: 2 << 20,
                opened_ns: CREATED_NS + S,
                ring_inode: 500 + u64::from(n),
                ..SlotInfo::default()
            },
            tx: TxCounters {
                tx_messages: messages,
                tx_bytes: messages * self.bytes,
                tx_record_bytes: messages * (self.bytes + 16),
                tx_index_hits: messages * 9 / 10,
                tx_index_loads: messages / 10,
                tx_high_water_bytes: 8_000,
                tx_touched_bytes: 2 << 20,
                tx_window_bytes: 2 << 20,
                tx_largest_bytes: self.bytes,
                ..TxCounters::default()
            },
            rx: RxCounters {
                rx_messages: messages,
                rx_bytes: messages * self.bytes,
                rx_record_bytes: messages * (self.bytes + 16),
                rx_index_hits: messages * 9 / 10,
                rx_index_loads: messages / 10,
                rx_largest_bytes: self.bytes,
                ..RxCounters::default()
            },
            wait: self.wait(self.client, t, 1),
            req: ReqCounters {
                requests: messages,
                replies: messages,
                in_flight: u64::from(self.rate > 0),
                oldest_ns: if self.rate > 0 { now - 1_000 } else { 0 },
                last_progress_ns: if self.rate > 0 {
                    now - 1_000
                } else {
                    START_NS - S
                },
                sample_period: 1,
                ..ReqCounters::default()
            },
            ..Slot::default()
        }
    }

    fn wait(&self, l: Load, t: u64, clients: u64) -> WaitCounters {
        let ms = |n: u64| t * n * 1_000_000;
        let waits = t * self.rate * clients / 2;
        WaitCounters {
            waits,
            spins: ms(l.spin) / 25,
            yields: ms(l.yielding) / 500,
            sleeps: ms(l.sleep) / 1_000_000,
            spin_ns: ms(l.spin),
            yield_ns: ms(l.yielding),
            sleep_ns: ms(l.sleep),
            ended_spin: waits * 96 / 100,
            ended_yield: waits * 2 / 100,
            ended_sleep: waits * 2 / 100,
            useful_ns: ms(l.useful),
            polls: waits * 2,
            spin_budget_ns: 50_000,
            ..WaitCounters::default()
        }
    }

    /// Of each second's requests: 98.5 % around `p50_ns`, 1.4 % at four times that, 0.1 % at ten times.
    fn latency(&self, p50_ns: u64, t: u64) -> Histogram {
        let n = t * self.rate;
        histogram(&[
            (p50_ns, n - n * 15 / 1000),
            (p50_ns * 4, n * 14 / 1000),
            (p50_ns * 10, n / 1000),
        ])
    }
}

/// A histogram of (value in ns, how many).
pub(crate) fn histogram(values: &[(u64, u64)]) -> Histogram {
    let mut h = Histogram::default();
    for &(value, n) in values.iter().filter(|(_, n)| *n > 0) {
        h.merge(&Histogram {
            sum_ns: value * n,
            max_ns: value,
            buckets: vec![(transport::stats::histogram::bucket_of(value) as u16, n)],
        });
    }
    h
}
