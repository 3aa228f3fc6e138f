//! Threats 8 and 9: a peer killed at every labelled place. The survivor says so, gives everything back, and serves or calls the next one.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use transport::error::RequestError;
use transport::fault::Point;
use transport::stats::SlotState;

use crate::harm::fault;
use crate::role::{Process, WATCHDOG};
use crate::watch::{Held, held, is_stopped, own_page, slot_of, within};
use crate::world::{MAX_MESSAGE, World, mix, ready};

/// The promise: what a dead peer held is back within a second.
const RECLAIMED: Duration = Duration::from_secs(1);

/// How long it took each time, for people to read.
#[derive(Default)]
struct Times(Vec<Duration>);

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = |share: usize| sorted.get(sorted.len() * share / 100).copied();
        let max = sorted.last().copied().unwrap_or_default();
        let [p50, p99] = [50, 99].map(|share| at(share).unwrap_or_default());
        write!(f, "p50 {p50:?}, p99 {p99:?}, max {max:?}")
    }
}

/// Places where a client, or a server, is to be killed, and how often it passes them before: the quick version is each place, early
/// and (where one connection comes by more than once) later. `THREATS_ROUNDS` adds so many drawn at random.
fn plan(passes: fn(Point) -> bool) -> Vec<(Point, u64)> {
    let points: Vec<Point> = Point::ALL.iter().copied().filter(|p| passes(*p)).collect();
    let mut plan: Vec<(Point, u64)> = points.iter().map(|p| (*p, 1)).collect();
    plan.extend(points.iter().filter(|p| is_repeated(**p)).map(|p| (*p, 9)));
    let rounds = std::env::var("THREATS_ROUNDS").ok();
    let rounds: usize = rounds.map_or(0, |n| n.parse().expect("a number"));
    let mut dice = 0x2545_f491_4f6c_dd1du64;
    for _ in 0..rounds {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let point = points[(dice >> 8) as usize % points.len()];
        let most = match point {
            // Passed by who sleeps, or begins a new lap of the ring, and not with each message. Every policy yields before it sleeps
            // (`wait/policy.rs`), and where others want the CPU, a yield may last until what is waited for is there.
            Point::Announced | Point::Woken | Point::Committed => 9,
            _ if is_repeated(point) => 97,
            _ => 1,
        };
        let nth = 1 + dice % most;
        plan.push((point, nth));
    }
    plan
}

/// Whether one connection comes by more than once.
fn is_repeated(point: Point) -> bool {
    point as u32 >= Point::HalfFrame as u32
}

fn transport(point: Point) -> &'static str {
    if point == Point::HalfFrame {
        "socket"
    } else {
        "auto"
    }
}

/// Time in which a process keeps the promise. What it, and who looks, wait for a CPU that others have is not its fault.
struct Promise {
    pid: u32,
    begun: Instant,
    /// Of each thread: its run delay when it was first seen, nothing if it came later; and when last. One that has ended counts too.
    delays: HashMap<OsString, [Duration; 2]>,
}

impl Promise {
    fn of(pid: u32) -> Self {
        let begun = Instant::now();
        let delays = run_delays(pid).map(|(thread, delay)| (thread, [delay; 2]));
        Self {
            pid,
            begun,
            delays: delays.collect(),
        }
    }

    /// To be called often enough to see threads before they end.
    fn look(&mut self) {
        for (thread, delay) in run_delays(self.pid) {
            self.delays.entry(thread).or_default()[1] = delay;
        }
    }

    /// How long it took until now.
    fn kept(mut self, what: &str) -> Duration {
        let took = self.begun.elapsed();
        self.look();
        let delays = self.delays.values();
        let delayed: Duration = delays.map(|[first, last]| *last - *first).sum();
        assert!(
            took < RECLAIMED + delayed,
            "{what}: {took:?}, {delayed:?} of it without a CPU"
        );
        took
    }
}

/// How long each of a process's threads, and the calling one, were ready to run and had no CPU.
fn run_delays(pid: u32) -> impl Iterator<Item = (OsString, Duration)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter();
    let paths = tasks.flatten().flatten().map(|task| task.path());
    let all = paths.chain(["/proc/thread-self".into()]);
    all.filter_map(|path: std::path::PathBuf| {
        let stat = std::fs::read_to_string(path.join("schedstat")).ok()?;
        let ns = stat.split(' ').nth(1)?.parse().ok()?;
        Some((path.into_os_string(), Duration::from_nanos(ns)))
    })
}

/// Waits until `pid` holds what it held before.
fn gives_back(pid: u32, before: Held, what: &str) -> Duration {
    let mut promise = Promise::of(pid);
    within(WATCHDOG, what, || {
        promise.look();
        let now = held(pid);
        if now.fds == before.fds && now.rings == before.rings {
            Ok(())
        } else {
            Err((before, now))
        }
    });
    promise.kept(what)
}

#[test]
fn a_client_killed_anywhere_costs_its_server_nothing() {
    let world = World::new();
    let mut server = ready(world.server());
    // Another client, there all the time: it must not notice anything.
    let mut bystander = world.connect();
    let mut killed = 0;
    assert!(matches!(
        mix(&mut bystander, 1, 0),
        crate::world::Ended::Done
    ));
    let before = held(server.pid());
    let mut times = Times::default();
    let plan = plan(Point::in_client);
    for &(point, nth) in &plan {
        let what = format!("client killed at {point:?} ({}), pass {nth}", point.text());
        let mut client = world
            .client()
            .with("FAULT", fault(point, nth, "kill"))
            .with("TRANSPORT", transport(point))
            .go();
        client.tell("go");
        client.is_killed(&what, &server);
        let took = gives_back(server.pid(), before, &what);
        times.0.push(took);
        let pid = client.pid();
        let mut promise = Promise::of(server.pid());
        within(WATCHDOG, &what, || {
            promise.look();
            let page = world.page(&server);
            let open = |s: &transport::stats::Slot| s.info.state != SlotState::Closed;
            match slot_of(&page, pid) {
                Some(slot) if open(slot) => Err(format!("{:?}", slot.info)),
                // Killed before it was welcomed, it never had one.
                _ if page.process.open_clients == 1 => Ok(()),
                _ => Err(format!("{} clients", page.process.open_clients)),
            }
        });
        promise.kept(&what);
        assert!(
            matches!(mix(&mut bystander, 1, 0), crate::world::Ended::Done),
            "{what}"
        );
        assert!(
            matches!(mix(&mut world.connect(), 1, 0), crate::world::Ended::Done),
            "{what}"
        );
        gives_back(server.pid(), before, "a client that left in good order");
        killed += 1;
    }
    let counts = server.ask("counts", "counts");
    assert!(counts.ends_with(" corrupt=0"), "{counts}");
    println!(
        "{killed} clients killed, all of {} places; until all was given back: {times}",
        Point::ALL.iter().filter(|p| p.in_client()).count()
    );
}

#[test]
fn a_server_killed_anywhere_is_noticed_by_its_client_and_replaced() {
    let world = World::new();
    let mut client = world.client().go();
    let mut socket_client = world.client().with("TRANSPORT", "socket").go();
    for it in [&mut client, &mut socket_client] {
        // Its own page is made with the first connection and stays.
        let _server = ready(world.server());
        it.tell("go 1");
        it.hear("connected");
        it.hear("ended Done");
    }
    let before = [held(client.pid()), held(socket_client.pid())];
    let (mut killed, mut times) = (0, Times::default());
    for (point, nth) in plan(Point::in_server) {
        let what = format!("server killed at {point:?} ({}), pass {nth}", point.text());
        let mut server = ready(world.server().with("FAULT", fault(point, nth, "kill")));
        let (survivor, before): (&mut Process, _) = if transport(point) == "socket" {
            (&mut socket_client, before[1])
        } else {
            (&mut client, before[0])
        };
        survivor.tell("go");
        server.is_killed(&what, survivor);
        let promise = Promise::of(survivor.pid());
        loop {
            let line = survivor.line();
            match line.split_once(' ') {
                Some(("connected", _)) => {}
                Some(("ended", how)) => {
                    assert!(
                        !how.starts_with("Done") && !how.starts_with("Timeout"),
                        "{what}: {how}"
                    );
                    break;
                }
                _ => panic!("{what}: {line}"),
            }
        }
        let took = promise.kept(&what);
        times.0.push(took);
        gives_back(survivor.pid(), before, &what);
        // The path that the dead one left is taken over, and the same process connects again.
        let _next = ready(world.server());
        survivor.tell("go 1");
        survivor.hear("connected");
        survivor.hear("ended Done");
        killed += 1;
    }
    println!(
        "{killed} servers killed, all of {} places; until it was noticed: {times}",
        Point::ALL.iter().filter(|p| p.in_server()).count()
    );
}

#[test]
fn a_server_killed_while_its_client_waits_for_room_is_noticed() {
    let world = World::new();
    let mut server = ready(world.server());
    let config = transport::Config {
        // What ends the wait is to be the death.
        request_timeout: 2 * WATCHDOG,
        ..world.config()
    };
    let mut client = transport::Synapse::connect(world.path(), &config).expect("a client");
    let id = client.connection_id();
    server.signal(nix::sys::signal::Signal::SIGSTOP);
    // One that still answers would make room, or a reply that stands in the way.
    within(WATCHDOG, "the server stops", || {
        is_stopped(server.pid()).then_some(()).ok_or("it runs")
    });
    let (tell, told) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let mut sent = 0;
        let error = loop {
            match client.submit(&[7; MAX_MESSAGE]) {
                Ok(_) => sent += 1,
                Err(error) => break error,
            }
        };
        // The test may be over.
        let _ = tell.send((sent, error));
    });
    within(WATCHDOG, "the client waits for room", || {
        let page = own_page().ok_or("no page")?;
        let slot = page.slots.iter().find(|s| s.info.connection_id == id);
        let waits = slot.is_some_and(|s| s.tx.tx_blocked_since_ns > 0);
        waits.then_some(()).ok_or("no slot that waits")
    });
    server.kill();
    // It is dead from here on; how long a process takes to die is not its client's.
    let promise = Promise::of(std::process::id());
    match told.recv_timeout(WATCHDOG) {
        Ok((sent, RequestError::Disconnected { in_flight, .. })) => assert_eq!(in_flight, sent),
        other => panic!("{other:?}"),
    }
    promise.kept("killed while its client waits for room");
    waiting.join().expect("no panic");
}
