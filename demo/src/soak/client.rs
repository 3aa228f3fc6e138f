//! A client of a soak: one connection after the other, each with its own sizes, depth and transport, every reply checked.

use std::collections::VecDeque;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use transport::error::{Lost, RequestError};
use transport::{Config, RequestId, Synapse, TransportChoice, WaitPolicy};

use super::dice::Dice;
use super::message::{REPLY_HEAD, REQUEST_HEAD, Request};
use super::process::{say, starve};
use super::server::MAX_MESSAGE;
use super::tally::Tally;
use crate::failure::Failure;

/// How often the soak is told.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// How often in a row a reply may be waited for in vain (300 ms each) on a connection that lives before it counts as lost: far
/// longer than anybody is stopped. Counted, not timed: somebody may stop the whole soak for a while.
const PATIENCE: u32 = 200;
/// Largest message of a connection, in bytes.
const SIZES: [u64; 10] = [
    64,
    64,
    64,
    64,
    256,
    256,
    4096,
    20_000,
    200_000,
    MAX_MESSAGE as u64,
];
/// Once in so many requests all are given up, and one is sent that is too large.
const ODD_ONCE_IN: u64 = 20_000;
/// Connections after which all that is made once has been made.
const WARM: u64 = 3;

struct Client {
    number: u32,
    config: Config,
    path: std::path::PathBuf,
    dice: Dice,
    tally: Tally,
    told: Instant,
    resting: Arc<AtomicBool>,
    /// Descriptors after the first connections.
    fds: Option<usize>,
}

/// What a connection carries.
struct Plan {
    depth: usize,
    largest: u64,
    until: Instant,
}

/// Runs until standard input ends. `rest` there: disconnects, says `resting`, and waits for `go`.
pub(super) fn run(dir: &Path, number: u32, seed: u64) -> Result<(), Failure> {
    set_pdeathsig(Signal::SIGKILL).map_err(|e| Failure::io("PR_SET_PDEATHSIG", &e.into()))?;
    let resting = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&resting);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match line.as_str() {
                "rest" => heard.store(true, Ordering::Relaxed),
                "go" => heard.store(false, Ordering::Relaxed),
                other => starve(other),
            }
        }
        std::process::exit(0);
    });
    let mut client = Client {
        number,
        config: Config {
            name: format!("soak-{number}"),
            ring_bytes: 8 << 20,
            max_message_bytes: MAX_MESSAGE,
            // Shorter than some stops, longer than others.
            request_timeout: Duration::from_millis(300),
            handshake_timeout: Duration::from_secs(2),
            stats_dir: Some(dir.join("stats")),
            ..Config::default()
        },
        path: dir.join("s"),
        dice: Dice::new(seed ^ u64::from(number) << 32 ^ u64::from(std::process::id())),
        tally: Tally::default(),
        told: Instant::now(),
        resting,
        fds: None,
    };
    loop {
        if client.resting.load(Ordering::Relaxed) {
            client.rest()?;
        }
        client.session()?;
        client.check_descriptors();
    }
}

/// A reply came: it must be that of the oldest request in flight.
fn arrived(tally: &mut Tally, oldest: Option<(RequestId, Request)>, id: RequestId, bytes: &[u8]) {
    match oldest {
        Some((expected, request)) if expected == id => {
            tally.messages += 1;
            tally.bytes += bytes.len() as u64;
            tally.corrupted += u64::from(!request.is_answered_by(bytes));
        }
        _ => tally.corrupted += 1,
    }
}

impl Client {
    fn tell(&mut self) -> Result<(), Failure> {
        self.told = Instant::now();
        say(&self.tally.say())
    }

    fn rest(&mut self) -> Result<(), Failure> {
        self.tell()?;
        say("resting")?;
        while self.resting.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// One connection, from connecting to the end.
    fn session(&mut self) -> Result<(), Failure> {
        self.config.transport = match self.dice.below(10) {
            0 => TransportChoice::Socket,
            _ => TransportChoice::Auto,
        };
        self.config.wait = match self.dice.below(6) {
            0 => WaitPolicy::Park,
            1 => WaitPolicy::DOCUMENT,
            _ => WaitPolicy::Adaptive,
        };
        let Ok(mut synapse) = Synapse::connect(&self.path, &self.config) else {
            // Nobody there, or no descriptor, at the moment. With jitter, as the guide says.
            std::thread::sleep(Duration::from_millis(1 + self.dice.below(20)));
            return Ok(());
        };
        self.tally.sessions += 1;
        // Mostly small ones: they find the races. Sometimes as large as may be, for a shorter time.
        let largest = SIZES[self.dice.below(SIZES.len() as u64) as usize];
        let most_ms = if largest > 256 { 300 } else { 3000 };
        let plan = Plan {
            depth: [1, 4, 32, 256, 256][self.dice.below(5) as usize],
            largest,
            until: Instant::now() + Duration::from_millis(200 + self.dice.below(most_ms)),
        };
        self.exchange(&mut synapse, &plan)
    }

    fn size(&mut self, plan: &Plan, least: usize) -> usize {
        let largest = plan.largest.max(least as u64);
        least + self.dice.below(largest - least as u64 + 1) as usize
    }

    fn exchange(&mut self, synapse: &mut Synapse, plan: &Plan) -> Result<(), Failure> {
        let session = self.dice.next();
        let mut flying: VecDeque<(RequestId, Request)> = VecDeque::new();
        let mut buffer = Vec::new();
        let mut odd_in = 1 + self.dice.below(2 * ODD_ONCE_IN);
        let (mut number, mut in_vain) = (0, 0);
        loop {
            let now = Instant::now();
            if now.duration_since(self.told) > TELL_EVERY {
                self.tell()?;
            }
            let ending = now > plan.until || self.resting.load(Ordering::Relaxed);
            if ending && flying.is_empty() {
                return Ok(());
            }
            while !ending && flying.len() < plan.depth {
                let length = self.size(plan, REQUEST_HEAD);
                let reply = self.size(plan, REPLY_HEAD) as u32;
                let request = Request {
                    client: self.number,
                    session,
                    number: number + 1,
                    reply,
                };
                request.write(length, &mut buffer);
                match synapse.submit(&buffer) {
                    Ok(id) => {
                        number += 1;
                        self.tally.bytes += length as u64;
                        flying.push_back((id, request));
                    }
                    Err(RequestError::Full { .. }) => break,
                    // A stopped server has taken a part of it from the socket. It is given up, and its rest goes out before the next one.
                    Err(RequestError::Timeout { .. }) => {
                        number += 1;
                        self.tally.cancelled += 1;
                        break;
                    }
                    Err(error) => return self.over(error, &flying),
                }
                odd_in -= 1;
                if odd_in == 0 {
                    odd_in = 1 + self.dice.below(2 * ODD_ONCE_IN);
                    self.tally.cancelled += synapse.cancel_all() as u64;
                    flying.clear();
                    match synapse.submit(&vec![0; MAX_MESSAGE + 1]) {
                        Err(RequestError::TooLarge { .. }) => self.tally.refused += 1,
                        other => {
                            crate::note(format_args!(
                                "soak client {}: too large, and {other:?}",
                                self.number
                            ));
                            self.tally.corrupted += 1;
                        }
                    }
                }
            }
            if flying.is_empty() {
                // Only cancelled ones are in the way.
                std::thread::yield_now();
                match synapse.try_receive() {
                    Ok(None) => {}
                    Ok(Some(_)) => self.tally.duplicated += 1,
                    Err(error) => return self.over(error, &flying),
                }
                continue;
            }
            match synapse.receive() {
                Ok((id, bytes)) => {
                    in_vain = 0;
                    arrived(&mut self.tally, flying.pop_front(), id, bytes);
                    // What else is there already, so that time is looked at once for many.
                    for _ in 1..plan.depth / 2 {
                        match synapse.try_receive() {
                            Ok(Some((id, bytes))) => {
                                arrived(&mut self.tally, flying.pop_front(), id, bytes);
                            }
                            Ok(None) => break,
                            Err(RequestError::Remote { .. }) => drop(flying.pop_front()),
                            Err(error) => return self.over(error, &flying),
                        }
                    }
                }
                // The server found a wrong byte, and counts it.
                Err(RequestError::Remote { .. }) => drop(flying.pop_front()),
                Err(RequestError::Timeout { .. }) if in_vain < PATIENCE => in_vain += 1,
                Err(RequestError::Timeout { .. }) => {
                    self.tally.lost += flying.len() as u64;
                    return Ok(());
                }
                Err(error) => return self.over(error, &flying),
            }
        }
    }

    /// The connection is lost: what was in flight is unknown, and the error says how much that is.
    fn over(
        &mut self,
        error: RequestError,
        flying: &VecDeque<(RequestId, Request)>,
    ) -> Result<(), Failure> {
        match error {
            // Over the socket, a request that a stopped server has taken half of is the end of the connection, too.
            RequestError::Disconnected {
                in_flight, reason, ..
            } if matches!(&reason, Lost::PeerGone)
                || matches!(&reason, Lost::Io(e) if e.kind() == std::io::ErrorKind::TimedOut) =>
            {
                self.tally.unknown += flying.len() as u64;
                self.tally.lost += (flying.len() as u64).abs_diff(in_flight as u64);
            }
            // Poisoned, a bad frame, a fork: none of that has been injected.
            other => {
                crate::note(format_args!("soak client {}: {other}", self.number));
                self.tally.corrupted += 1;
            }
        }
        Ok(())
    }

    /// After a connection there are as many descriptors as after the last.
    fn check_descriptors(&mut self) {
        // At the limit even this can't be looked at.
        let Ok(dir) = std::fs::read_dir("/proc/self/fd") else {
            return;
        };
        let now = dir.count();
        if self.tally.sessions < WARM {
            return;
        }
        let before = *self.fds.get_or_insert(now);
        if now > before {
            self.tally.leaked_fds += (now - before) as u64;
            self.fds = Some(now);
        }
    }
}
