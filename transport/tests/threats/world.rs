//! A directory with a socket, a server process and client processes, and what the two roles do.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use transport::error::RequestError;
use transport::stats::Snapshot;
use transport::{Config, Membrane, Synapse, TransportChoice, WaitPolicy};

use crate::harm::{arm, arm_if, forbid, needs_no_client};
use crate::payload;
use crate::role::{self, Process, Start, command, parameter, required, say};
use crate::watch;

/// Small rings: they wrap all the time.
pub(crate) const RING_BYTES: usize = 64 << 10;
/// Above three pieces of a streamed record.
pub(crate) const MAX_MESSAGE: usize = 20_000;

/// A place for one server and its clients.
pub(crate) struct World {
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    /// The server's socket.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// Where servers announce their pages.
    pub(crate) fn stats(&self) -> PathBuf {
        self.dir.path().join("stats")
    }

    /// A server process, to be started.
    pub(crate) fn server(&self) -> Start {
        self.role("server")
    }

    /// A client process, to be started.
    pub(crate) fn client(&self) -> Start {
        self.role("client")
    }

    fn role(&self, role: &str) -> Start {
        role::start(role).with("DIR", self.dir.path())
    }

    /// The same settings for a connection of this process.
    pub(crate) fn config(&self) -> Config {
        config(self.dir.path())
    }

    /// A connection of this process, which must be on shared memory.
    pub(crate) fn connect(&self) -> Synapse {
        let synapse = Synapse::connect(self.path(), &self.config()).expect("a client");
        assert!(synapse.is_shm(), "{:?}", synapse.fallback());
        synapse
    }

    /// The page of a server process.
    pub(crate) fn page(&self, server: &Process) -> Snapshot {
        watch::page(&self.stats(), server.pid()).expect("a page")
    }
}

/// Starts a server and waits until it listens.
pub(crate) fn ready(server: Start) -> Process {
    let mut server = server.go();
    server.hear("ready");
    server
}

fn config(dir: &std::path::Path) -> Config {
    Config {
        name: "threats".into(),
        ring_bytes: RING_BYTES,
        max_message_bytes: MAX_MESSAGE,
        wait: WaitPolicy::Park,
        // Tests of deadlines set theirs; no other is to meet one where the CPUs are busy.
        handshake_timeout: Duration::from_secs(20),
        request_timeout: Duration::from_secs(20),
        stats_dir: Some(dir.join("stats")),
        ..Config::default()
    }
}

/// The settings of this process's role, from its parameters.
pub(crate) fn own_config() -> Config {
    let mut config = config(std::path::Path::new(&required("DIR")));
    let number = |name| parameter(name).map(|v| v.parse::<usize>().expect("a number"));
    if let Some(ms) = number("TIMEOUT_MS") {
        config.request_timeout = Duration::from_millis(ms as u64);
    }
    if let Some(ms) = number("HANDSHAKE_MS") {
        config.handshake_timeout = Duration::from_millis(ms as u64);
    }
    if let Some(bytes) = number("RING_BYTES") {
        config.ring_bytes = bytes;
    }
    if let Some(bytes) = number("MAX_MESSAGE") {
        config.max_message_bytes = bytes;
    }
    if let Some(n) = number("MAX_CLIENTS") {
        config.max_clients = n;
    }
    if let Some(n) = number("MAX_PENDING") {
        config.max_pending_per_uid = n;
    }
    if let Some(n) = number("BUDGET") {
        config.memory_budget_bytes = n as u64;
    }
    if let Some(uid) = number("ALLOW_UID") {
        config.allowed_uids = vec![uid as u32];
    }
    if parameter("ADAPTIVE").is_some() {
        config.wait = WaitPolicy::Adaptive;
    }
    config.huge_pages = parameter("HUGE").is_some();
    config.thread_per_client = parameter("THREAD_PER_CLIENT").is_some();
    config.transport = match parameter("TRANSPORT").as_deref() {
        Some("socket") => TransportChoice::Socket,
        Some("shm") => TransportChoice::Shm,
        _ => TransportChoice::Auto,
    };
    config
}

/// Role `server`: answers checked requests. Says `ready`, then for each line on its input `handled N corrupt N`.
pub(crate) fn serve() {
    arm_if(|point| !needs_no_client(point));
    forbid();
    let config = own_config();
    let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let counting = Arc::clone(&counts);
    let path = PathBuf::from(required("DIR")).join("s");
    let bound = Membrane::bind(path, &config, move |request, reply| {
        if request == b"panic" {
            // A panic as any other, but without a message on standard error.
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        if let Some(ms) = request.strip_prefix(b"wait ") {
            let ms = std::str::from_utf8(ms).ok().and_then(|t| t.parse().ok());
            std::thread::sleep(Duration::from_millis(ms.unwrap_or(0)));
            return;
        }
        if request == b"who" {
            let uid = reply.peer().uid.to_string();
            return reply.send(uid.as_bytes()).expect("within the limit");
        }
        if request.starts_with(b"twice") {
            // Read twice, with time between: a request is a private copy.
            let sum = || {
                request
                    .iter()
                    .fold(0u64, |sum, b| sum.wrapping_mul(31) + u64::from(*b))
            };
            let first = sum();
            let same = (0..20).all(|_| std::hint::black_box(sum()) == first);
            let answer: &[u8] = if same { b"same" } else { b"different" };
            return reply.extend_from_slice(answer).expect("within the limit");
        }
        if request == b"stream" {
            // Large enough to travel in pieces.
            return reply.send(&[7; MAX_MESSAGE]).expect("within the limit");
        }
        counting[0].fetch_add(1, Ordering::Relaxed);
        match payload::answer(request) {
            Ok(bytes) => reply.extend_from_slice(&bytes).expect("within the limit"),
            Err(why) => {
                counting[1].fetch_add(1, Ordering::Relaxed);
                reply.fail(why);
            }
        }
    });
    let server = match bound {
        Ok(server) => server,
        Err(e) => return say(format_args!("refused {e}")),
    };
    say(format_args!("ready"));
    arm_if(needs_no_client);
    while let Some(line) = command() {
        match line.as_str() {
            "counts" => {
                let [handled, corrupt] = [0, 1].map(|i| counts[i].load(Ordering::Relaxed));
                say(format_args!("counts handled={handled} corrupt={corrupt}"));
            }
            other => panic!("no command {other}"),
        }
    }
    server.shutdown();
}

/// How a client's run ended.
#[derive(Debug)]
#[expect(dead_code, reason = "the reasons are there to be printed")]
pub(crate) enum Ended {
    /// All done.
    Done,
    /// Not even connected.
    NotConnected(String),
    /// The connection was lost; the error named every request without a reply.
    Lost(String),
    /// Timed out; the connection lives.
    Timeout,
}

/// Rounds of a mixed workload on `client`, every reply checked: sizes from nothing to the largest, one at a time, pipelined and in
/// batches.
pub(crate) fn mix(client: &mut Synapse, rounds: u64, first: u64) -> Ended {
    let mut number = first;
    for round in 0..rounds {
        for (length, reply) in [
            (16, 8),
            (0, 0),
            (5000, 64),
            (MAX_MESSAGE, MAX_MESSAGE),
            (100, 12_000),
        ] {
            number += 1;
            let reply = if length == 0 { 0 } else { reply };
            match client.fire_bytes(&payload::request(number, length, reply)) {
                Ok(bytes) if length == 0 => {
                    assert!(bytes.is_empty(), "the reply to an empty request")
                }
                Ok(bytes) => assert!(
                    bytes == payload::expected(number, reply),
                    "reply {number} is wrong"
                ),
                Err(e) => return ended(e, 1),
            }
        }
        // More than the ring takes at once.
        let (mut sent, mut answered) = (number, number);
        let last = number + 24;
        while answered < last {
            if sent < last {
                let length = 16 + ((sent + round) * 997 % 9000) as usize;
                match client.submit(&payload::request(sent + 1, length, length)) {
                    Ok(_) => {
                        sent += 1;
                        continue;
                    }
                    Err(RequestError::Full { .. }) => {}
                    Err(e) => return ended(e, sent - answered),
                }
            }
            let length = 16 + ((answered + round) * 997 % 9000) as usize;
            match client.receive() {
                Ok((_, bytes)) => {
                    answered += 1;
                    assert!(
                        bytes == payload::expected(answered, length),
                        "reply {answered} is wrong"
                    );
                }
                Err(e) => return ended(e, sent - answered),
            }
        }
        number = last;
    }
    Ended::Done
}

/// A lost connection must say how many requests have an unknown outcome: `in_flight`, or one more, which was being sent.
fn ended(error: RequestError, unknown: u64) -> Ended {
    match error {
        RequestError::Disconnected {
            in_flight, reason, ..
        } => {
            assert!(
                in_flight as u64 <= unknown,
                "{in_flight} unknown, {unknown} asked"
            );
            Ended::Lost(reason.to_string())
        }
        RequestError::Timeout { .. } => Ended::Timeout,
        other => panic!("{other}"),
    }
}

/// Role `client`: for each `go [ROUNDS]` connects, mixes, and says how it ended; `held` after the connection was dropped.
pub(crate) fn call() {
    arm();
    forbid();
    let config = own_config();
    let path = PathBuf::from(required("DIR")).join("s");
    let mut kept = None;
    while let Some(line) = command() {
        let words: Vec<_> = line.split(' ').collect();
        let rounds = words
            .get(1)
            .map_or(u64::MAX, |n| n.parse().expect("a number"));
        match words[0] {
            // Connect and mix.
            "go" => {
                let ended = match Synapse::connect(&path, &config) {
                    Ok(mut client) => {
                        say(format_args!(
                            "connected {}",
                            if client.is_shm() { "shm" } else { "socket" }
                        ));
                        if let Some(ms) = parameter("SLOWLY") {
                            let wait = format!("wait {ms}");
                            client.fire_bytes(wait.as_bytes()).expect("a reply");
                        }
                        mix(&mut client, rounds, 0)
                    }
                    Err(e) => Ended::NotConnected(e.to_string()),
                };
                say(format_args!("ended {ended:?}"));
            }
            "connect" => match Synapse::connect(&path, &config) {
                Ok(client) => {
                    let why = client.fallback().map_or(String::new(), |f| format!(" {f}"));
                    say(format_args!(
                        "connected {}{why}",
                        if client.is_shm() { "shm" } else { "socket" }
                    ));
                    kept = Some(client);
                }
                Err(e) => say(format_args!("refused {e}")),
            },
            "mix" => {
                let begun = Instant::now();
                let ended = mix(kept.as_mut().expect("connected"), rounds, 0);
                say(format_args!("ended {ended:?} after {:?}", begun.elapsed()));
            }
            "ping" => match kept
                .as_mut()
                .expect("connected")
                .fire_bytes(&payload::request(7, 16, 8))
            {
                Ok(bytes) => {
                    assert_eq!(bytes, payload::expected(7, 8));
                    say(format_args!("pong"));
                }
                Err(e) => say(format_args!("failed {e}")),
            },
            // Requests until there is no room for more.
            "fill" => {
                let client = kept.as_mut().expect("connected");
                let filled = (1u64..)
                    .take_while(
                        |n| match client.submit(&payload::request(*n, MAX_MESSAGE, 8)) {
                            Ok(_) => true,
                            Err(RequestError::Full { .. }) => false,
                            Err(e) => panic!("{e}"),
                        },
                    )
                    .count();
                say(format_args!("filled {filled}"));
            }
            "drop" => {
                kept = None;
                say(format_args!("dropped"));
            }
            other => panic!("no command {other}"),
        }
    }
}
