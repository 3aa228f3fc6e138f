//! Threat 31: servers that are killed under load, many times, at the worst places. Clients of every kind account for each request: it was done,
//! or its outcome is unknown, or it was not sent; and what the servers did, which they write down first, bears each of them out.

mod clients;

use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use transport::error::RequestError;
use transport::fault::Point;
use transport::{Backoff, Config, Membrane, Synapse, TransportChoice};

use clients::{call, group, tasks};

use crate::harm::{arm, fault};
use crate::role::{Process, WATCHDOG, command, required, say};
use crate::watch::within;
use crate::world::{MAX_MESSAGE, World, own_config, ready};

const PATIENT: Backoff = Backoff {
    first: Duration::from_millis(1),
    longest: Duration::from_millis(20),
    patience: WATCHDOG,
};

/// Where a server is killed, and at which pass: with a reply half written, published and not announced, and so on; and in the middle of
/// the handshakes of those who come back.
const PLACES: [(Point, u64); 13] = [
    (Point::MidWrite, 301),
    (Point::HalfFrame, 101),
    (Point::Prepared, 251),
    (Point::BeforeTail, 401),
    (Point::AfterTail, 301),
    (Point::CommitReceived, 3),
    (Point::Peeked, 401),
    (Point::MidRead, 301),
    (Point::BeforeRelease, 251),
    (Point::ReadySent, 4),
    (Point::AfterRelease, 301),
    (Point::InHandler, 501),
    (Point::Handled, 301),
];

/// Role `ledger`: a server that writes down the number of each request before it answers.
pub(crate) fn keep() {
    arm();
    let dir = std::path::PathBuf::from(required("DIR"));
    let ledger = File::options()
        .append(true)
        .create(true)
        .open(dir.join("ledger"))
        .expect("a ledger");
    let server = Membrane::bind(dir.join("s"), &own_config(), move |request, reply| {
        // One write, to a file that outlives this process.
        (&ledger).write_all(&request[..8]).expect("the ledger");
        reply.extend_from_slice(request).expect("as large");
    })
    .expect("a server");
    say(format_args!("ready"));
    while command().is_some() {}
    server.shutdown();
}

fn ledger(world: &World) -> Vec<u64> {
    let bytes = std::fs::read(world.path().with_file_name("ledger")).unwrap_or_default();
    let (numbers, rest) = bytes.as_chunks::<8>();
    assert!(rest.is_empty(), "half a number");
    numbers.iter().map(|n| u64::from_le_bytes(*n)).collect()
}

/// A kind of client: what it is called, does, and is carried by.
type Kind = (
    &'static str,
    fn(&Load<'_>, TransportChoice) -> Outcomes,
    TransportChoice,
);

/// What all clients share.
struct Load<'a> {
    path: &'a Path,
    config: Config,
    next: AtomicU64,
    over: AtomicBool,
}

impl Load<'_> {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// A request that was never made before, and its number.
    fn request(&self) -> (u64, Vec<u8>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut request = number.to_le_bytes().to_vec();
        // Small, middling, and large enough to travel in pieces.
        request.resize([8, 100, 3000, 15_000][number as usize % 4], number as u8);
        (number, request)
    }

    fn config(&self, transport: TransportChoice) -> Config {
        Config {
            transport,
            ..self.config.clone()
        }
    }

    /// A connection, as soon as there is a server.
    fn connect(&self, transport: TransportChoice) -> Synapse {
        let config = self.config(transport);
        for pause in PATIENT.pauses() {
            match Synapse::connect(self.path, &config) {
                Ok(synapse) => return synapse,
                Err(e) => assert!(e.may_pass(), "{e}"),
            }
            std::thread::sleep(pause);
        }
        panic!("no server comes")
    }
}

/// How requests ended, by number.
#[derive(Default)]
struct Outcomes {
    done: Vec<u64>,
    unknown: Vec<u64>,
    not_sent: Vec<u64>,
}

impl Outcomes {
    fn took(&mut self, number: u64, request: &[u8], reply: &[u8]) {
        assert!(request == reply, "the reply to another request");
        self.done.push(number);
    }

    /// A request that failed without company.
    fn failed(&mut self, number: u64, error: RequestError) {
        match error {
            RequestError::Disconnected { in_flight: 1, .. } => self.unknown.push(number),
            RequestError::Disconnected { in_flight: 0, .. } => self.not_sent.push(number),
            other => panic!("{other}"),
        }
    }
}

/// Waits until the servers have written down so many more requests.
fn works(world: &World, more: usize) {
    let file = world.path().with_file_name("ledger");
    let length = || std::fs::metadata(&file).map_or(0, |m| m.len());
    let wanted = length() + 8 * more as u64;
    within(WATCHDOG, "the clients are back", || {
        let now = length();
        (now >= wanted).then_some(()).ok_or((now, wanted))
    });
}

#[test]
fn each_request_to_servers_that_are_killed_again_and_again_has_one_outcome_and_the_right_one() {
    let world = World::new();
    let server =
        || crate::role::start("ledger").with("DIR", world.path().parent().expect("a directory"));
    let path = world.path();
    let load = Load {
        path: &path,
        config: Config {
            max_message_bytes: MAX_MESSAGE,
            ..world.config()
        },
        next: AtomicU64::new(0),
        over: AtomicBool::new(false),
    };
    let (shm, socket) = (TransportChoice::Auto, TransportChoice::Socket);
    let kinds: [Kind; 7] = [
        ("calls, shm", call, shm),
        ("calls, shm", call, shm),
        ("calls, socket", call, socket),
        ("group, both", group, shm),
        ("group, both", group, shm),
        ("tasks, shm", tasks, shm),
        ("tasks, socket", tasks, socket),
    ];
    let ended = std::thread::scope(|scope| {
        let load = &load;
        let clients = kinds.map(|(_, run, transport)| scope.spawn(move || run(load, transport)));
        for (round, (point, pass)) in PLACES.into_iter().enumerate() {
            let mut killed: Process = ready(server().with("FAULT", fault(point, pass, "kill")));
            let end = killed.ends();
            assert_eq!(end.signal(), Some(libc::SIGKILL), "{point:?}: {end:?}");
            if round % 4 == 0 {
                // And one that is killed wherever it is just then.
                let mut killed = ready(server());
                works(&world, 100);
                killed.kill();
            }
        }
        let last = ready(server());
        works(&world, 100);
        load.over.store(true, Ordering::Relaxed);
        let ended: Vec<Outcomes> = clients
            .into_iter()
            .map(|c| c.join().expect("a client"))
            .collect();
        last.finish();
        ended
    });

    // Each number's outcome; what no client accounted for stays 0.
    let mut outcome = vec![0u8; load.next.load(Ordering::Relaxed) as usize];
    for ((kind, ..), outcomes) in kinds.iter().zip(&ended) {
        let count = (
            outcomes.done.len(),
            outcomes.unknown.len(),
            outcomes.not_sent.len(),
        );
        println!("{kind}: done, unknown, not sent: {count:?}");
        assert!(count.0 > 0 && count.1 > 0, "{kind}: {count:?}");
        let all = [&outcomes.done, &outcomes.unknown, &outcomes.not_sent];
        for (what, numbers) in (1..).zip(all) {
            for number in numbers {
                let before = std::mem::replace(&mut outcome[*number as usize], what);
                assert_eq!(before, 0, "{kind}: request {number} ended twice");
            }
        }
    }
    assert!(!outcome.contains(&0), "a request without an outcome");
    let mut handled = vec![0u8; outcome.len()];
    for number in ledger(&world) {
        handled[number as usize] += 1;
    }
    for (number, (outcome, handled)) in outcome.iter().zip(&handled).enumerate() {
        let right = match outcome {
            1 => *handled == 1,
            2 => *handled <= 1,
            _ => *handled == 0,
        };
        assert!(
            right,
            "request {number}: outcome {outcome} (1 done, 2 unknown, 3 not sent), handled {handled} times"
        );
    }
}
