//! What the ring costs by itself: no socket, no waiting policy, no statistics. `cargo bench -p transport` runs it; an argument keeps only the
//! rows whose name contains it.
//!
//! The ring's sources are compiled into this program as they stand, since they are private to the crate and since the library that
//! `cargo bench` links has the fault points of the crate's tests in it. First the ring is checked against a plain queue, then it is timed;
//! what is reported are percentiles over batches of a
//! thousand, and for round trips over single ones. Left out: everything above the ring, which
//! `compare/` measures.

/// The ring has places where tests stop it; here they are nothing.
macro_rules! fault_point {
    ($point:ident) => {};
}

/// What the ring's sources expect under this name.
mod error {
    pub(crate) use transport::error::Poison;
}

#[path = "../src/limits.rs"]
#[allow(dead_code, unreachable_pub, reason = "the ring needs one of them")]
mod limits;

#[path = "../src/ring"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the roles have more calls than are timed here, and their unit tests run elsewhere"
)]
mod ring {
    pub(crate) mod consumer;
    pub(crate) mod plan;
    pub(crate) mod producer;
    pub(crate) mod storage;
}

/// Stands in for the crate's own mapping: shared memory of this process.
mod mem {
    pub(crate) mod mapping {
        use memmap2::{MmapOptions, MmapRaw};
        use nix::sys::memfd::{MFdFlags, memfd_create};

        #[derive(Debug)]
        pub(crate) struct Mapping(MmapRaw);

        impl Mapping {
            pub(crate) fn new(bytes: usize) -> std::io::Result<Self> {
                let fd = memfd_create(c"ring-bench", MFdFlags::MFD_CLOEXEC)?;
                nix::unistd::ftruncate(&fd, bytes as i64)?;
                MmapOptions::new().len(bytes).map_raw(&fd).map(Self)
            }
            pub(crate) fn ptr(&self) -> *mut u8 {
                self.0.as_mut_ptr()
            }
            pub(crate) fn len(&self) -> usize {
                self.0.len()
            }
        }
    }
}

use std::collections::VecDeque;
use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use mem::mapping::Mapping;
use ring::consumer::Consumer;
use ring::plan::{Kind, Plan};
use ring::producer::{NoSlot, Producer};
use ring::storage::{Direction, Mapped, connection_bytes};

const CAPACITY: usize = 32 << 20;
const LARGEST: usize = 2 << 20;
/// Operations between two looks at the clock, batches per row.
const BATCH: u64 = 1000;
const BATCHES: usize = 400;

struct Pair {
    tx: Producer<Mapped>,
    rx: Consumer<Mapped>,
}

/// A fresh connection's two rings: ours to produce and theirs to consume, and the way back.
fn connection() -> (Pair, Pair) {
    let mapping = Arc::new(Mapping::new(connection_bytes(CAPACITY)).expect("shared memory"));
    let plan = Plan::new(CAPACITY, LARGEST);
    let tx = |direction| Producer::new(Mapped::new(&mapping, direction, CAPACITY), plan);
    let rx = |direction| Consumer::new(Mapped::new(&mapping, direction, CAPACITY), plan);
    let (up, down) = (Direction::Request, Direction::Reply);
    (
        Pair {
            tx: tx(up),
            rx: rx(down),
        },
        Pair {
            tx: tx(down),
            rx: rx(up),
        },
    )
}

/// Sends, waiting while the ring is full.
#[inline(always)]
fn send(tx: &mut Producer<Mapped>, id: u64, payload: &[u8]) {
    loop {
        match tx.push(Kind::Request, id, payload) {
            Ok(_) => return,
            Err(NoSlot::Full { .. }) => spin_loop(),
            Err(NoSlot::Poisoned(poison)) => panic!("{poison:?}"),
        }
    }
}

/// Receives into `buffer`, waiting while there is nothing: id and length.
#[inline(always)]
fn receive(rx: &mut Consumer<Mapped>, buffer: &mut [u8]) -> (u64, usize) {
    loop {
        let Some(record) = rx.peek().expect("a sound ring") else {
            spin_loop();
            continue;
        };
        while !rx.read(&record, buffer).expect("a sound ring") {
            spin_loop();
        }
        rx.release(&record);
        return (record.id, record.length);
    }
}

/// Payload number `n`: size and bytes depend on it.
fn payload(n: u64) -> Vec<u8> {
    let size = match n % 5 {
        0 => n * 7 % 100,
        1 => n * 131 % 5_000,
        2 => n * 7919 % 70_000,
        3 => 8 * 1024 + n % 3,
        _ => n * 15_485_863 % (1 << 20),
    };
    (0..size).map(|i| (i ^ n) as u8).collect()
}

/// The ring beside a plain queue, on one thread; then between two, the consumer comparing with what it knows was sent.
fn check() {
    let (mut a, mut b) = connection();
    let mut queue = VecDeque::new();
    let mut buffer = vec![0; LARGEST];
    for n in 0..3_000u64 {
        let sent = payload(n);
        if n % 3 != 2 && a.tx.push(Kind::Request, n, &sent).is_ok() {
            queue.push_back((n, sent));
        } else if let Some((id, expected)) = queue.pop_front() {
            let found = receive(&mut b.rx, &mut buffer);
            assert!(found == (id, expected.len()) && buffer[..found.1] == expected[..]);
        }
    }
    let (mut a, mut b) = connection();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..3_000).for_each(|n| send(&mut a.tx, n, &payload(n))));
        for n in 0..3_000 {
            let (id, length) = receive(&mut b.rx, &mut buffer);
            assert!(id == n && buffer[..length] == payload(n)[..], "record {n}");
        }
    });
}

/// The first two CPUs this process may use; one twice if there is only one.
fn cpus() -> (usize, usize) {
    let set = sched_getaffinity(Pid::from_raw(0)).expect("own affinity");
    let mut allowed = (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false));
    let first = allowed.next().unwrap_or(0);
    (first, allowed.next().unwrap_or(first))
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .expect("a CPU that is allowed");
}

/// Prints one row.
fn row(name: &str, mut ns: Vec<f64>, bytes: usize) {
    ns.sort_by(f64::total_cmp);
    let at = |share: f64| ns[((ns.len() - 1) as f64 * share) as usize];
    let rate = if bytes > 0 {
        format!("{:8.2} GB/s", bytes as f64 / at(0.5))
    } else {
        String::new()
    };
    println!(
        "{name:<52} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {rate}",
        at(0.05),
        at(0.5),
        at(0.9),
        at(0.99)
    );
}

/// Times `operation` in batches: ns per operation of each batch.
fn batches(mut operation: impl FnMut(u64)) -> Vec<f64> {
    let mut n = 0;
    let mut batch = |count: u64| {
        let begin = Instant::now();
        for _ in 0..count {
            operation(n);
            n += 1;
        }
        begin.elapsed().as_nanos() as f64 / count as f64
    };
    // Pages, caches and predictors first.
    for _ in 0..BATCHES / 4 {
        batch(BATCH);
    }
    (0..BATCHES).map(|_| batch(BATCH)).collect()
}

/// Everything on one thread: instructions and copies, no traffic between cores.
fn alone(size: usize) -> Vec<f64> {
    let (mut a, mut b) = connection();
    let (sent, mut buffer) = (vec![7; size], vec![0; LARGEST]);
    batches(|n| {
        send(&mut a.tx, n, black_box(&sent));
        black_box(receive(&mut b.rx, &mut buffer));
    })
}

/// Round trips between two cores, one at a time.
fn round_trips(size: usize, (one, other): (usize, usize)) -> Vec<f64> {
    const TRIPS: u64 = 100_000;
    let (mut a, mut b) = connection();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            pin(other);
            let mut buffer = vec![0; LARGEST];
            for _ in 0..TRIPS {
                let (id, length) = receive(&mut b.rx, &mut buffer);
                send(&mut b.tx, id, &buffer[..length]);
            }
        });
        let timing = scope.spawn(move || {
            pin(one);
            let (sent, mut buffer) = (vec![7; size], vec![0; LARGEST]);
            let mut times = Vec::with_capacity(TRIPS as usize);
            let mut last = Instant::now();
            for n in 0..TRIPS {
                send(&mut a.tx, n, &sent);
                black_box(receive(&mut a.rx, &mut buffer));
                let now = Instant::now();
                times.push((now - last).as_nanos() as f64);
                last = now;
            }
            times.split_off(TRIPS as usize / 10)
        });
        timing.join().expect("the timing thread")
    })
}

/// One way between two cores as fast as it goes: ns per record, and the share of reservations that looked at the consumer's index.
fn stream(size: usize, (one, other): (usize, usize)) -> (Vec<f64>, f64) {
    let (mut a, mut b) = connection();
    let total = (BATCHES + BATCHES / 4) as u64 * BATCH;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            pin(other);
            let mut buffer = vec![0; LARGEST];
            for _ in 0..total {
                black_box(receive(&mut b.rx, &mut buffer));
            }
        });
        let timing = scope.spawn(move || {
            pin(one);
            let (sent, mut looks) = (vec![7; size], 0u64);
            let times = batches(|n| {
                loop {
                    match a.tx.push(Kind::Request, n, &sent) {
                        Ok(()) => break looks += u64::from(a.tx.take_look().is_some()),
                        Err(NoSlot::Full { .. }) => spin_loop(),
                        Err(NoSlot::Poisoned(poison)) => panic!("{poison:?}"),
                    }
                }
            });
            (times, looks as f64 / total as f64)
        });
        timing.join().expect("the timing thread")
    })
}

/// A bare cache line between the same cores, to hold the rest against.
fn line((one, other): (usize, usize)) -> Vec<f64> {
    #[repr(align(128))]
    struct Line(AtomicU64);
    let line = Line(AtomicU64::new(0));
    let total = (BATCHES + BATCHES / 4) as u64 * BATCH;
    let turn = |from: u64| {
        while line.0.load(Ordering::Acquire) != from {
            spin_loop();
        }
        line.0.store(from + 1, Ordering::Release);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(other);
            (0..total).for_each(|n| turn(2 * n + 1));
        });
        let timing = scope.spawn(|| {
            pin(one);
            batches(|n| turn(2 * n))
        });
        timing.join().expect("the timing thread")
    })
}

fn main() {
    // Cargo passes `--bench`; anything else is a filter.
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| filter.as_deref().is_none_or(|filter| name.contains(filter));
    let begin = Instant::now();
    check();
    println!(
        "checked against a plain queue in {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    println!(
        "{:<52} {:>9} {:>9} {:>9} {:>9}",
        "ns", "p5", "p50", "p90", "p99"
    );
    let cpus = cpus();
    let two = cpus.0 != cpus.1;
    if two {
        row("a bare cache line, there and back", line(cpus), 0);
    } else {
        println!("one CPU only: nothing between cores is timed");
    }
    for size in [8, 64, 1024, 4096, 20_000, 100_000] {
        let name = format!("{size} B, send and receive on one thread");
        if wanted(&name) {
            row(&name, alone(size), size);
        }
    }
    for size in [64, 1024, 20_000].into_iter().filter(|_| two) {
        let name = format!("{size} B, round trip between two cores");
        if wanted(&name) {
            row(&name, round_trips(size, cpus), 2 * size);
        }
    }
    for size in [64, 1024, 20_000].into_iter().filter(|_| two) {
        let name = format!("{size} B, one way between two cores");
        if wanted(&name) {
            let (times, looked) = stream(size, cpus);
            row(&name, times, size);
            println!(
                "{:<52} {:>8.4} %",
                "    looked at the consumer's index",
                looked * 100.0
            );
        }
    }
    if two {
        row("a bare cache line, once more", line(cpus), 0);
    }
    if begin.elapsed() > Duration::from_secs(120) {
        println!("this took unusually long: the machine is busy, and the figures are about that");
    }
}
