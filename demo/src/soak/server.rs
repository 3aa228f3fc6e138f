//! The server of a soak: checks every request, remembers the last number of each client's sessions, answers.

use std::collections::VecDeque;
use std::io::BufRead;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use transport::{Config, Membrane, Reply};

use super::message::Request;
use super::process::{say, starve};
use super::tally::Tally;
use crate::failure::Failure;

/// Clients are told apart by their number, which is below this.
pub(super) const MAX_CLIENTS: usize = 256;
/// Largest message of a soak.
pub(super) const MAX_MESSAGE: usize = 2 << 20;

/// Sessions of a client that are remembered. More than one: what a client that was killed, or gave its connection up, had sent is
/// still taken from its rings or socket while its successor's first requests come in over another connection.
const SESSIONS: usize = 64;

/// Sessions of a client, the newest last, each with the last number seen in it.
type Sessions = VecDeque<(u64, u64)>;

struct Seen {
    sessions: Vec<Mutex<Sessions>>,
    lost: AtomicU64,
    duplicated: AtomicU64,
    corrupted: AtomicU64,
}

impl Seen {
    fn new() -> Self {
        Self {
            sessions: (0..MAX_CLIENTS).map(|_| Mutex::default()).collect(),
            lost: AtomicU64::new(0),
            duplicated: AtomicU64::new(0),
            corrupted: AtomicU64::new(0),
        }
    }

    fn note(&self, request: &Request) {
        let Some(sessions) = self.sessions.get(request.client as usize) else {
            self.corrupted.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sessions
            .iter_mut()
            .rev()
            .find(|(session, _)| *session == request.session);
        let before = match known {
            Some((_, last)) => std::mem::replace(last, request.number.max(*last)),
            None => {
                if sessions.len() == SESSIONS {
                    sessions.pop_front();
                }
                sessions.push_back((request.session, request.number));
                0
            }
        };
        match request.number.checked_sub(before) {
            Some(0) | None => {
                self.duplicated.fetch_add(1, Ordering::Relaxed);
            }
            Some(step) => {
                self.lost.fetch_add(step - 1, Ordering::Relaxed);
            }
        }
    }

    fn tally(&self) -> Tally {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally {
            lost: load(&self.lost),
            duplicated: load(&self.duplicated),
            corrupted: load(&self.corrupted),
            ..Tally::default()
        }
    }
}

/// How often it says what it counted, so that little of that is forgotten when it is killed.
const SAYS_EVERY: Duration = Duration::from_millis(100);

/// Serves until standard input ends; says `ready`, then what it counted, every now and then and with each line that it reads.
pub(super) fn run(dir: &Path) -> Result<(), Failure> {
    set_pdeathsig(Signal::SIGKILL).map_err(|e| Failure::io("PR_SET_PDEATHSIG", &e.into()))?;
    let seen = Arc::new(Seen::new());
    let config = Config {
        name: "soak".into(),
        ring_bytes: 8 << 20,
        max_message_bytes: MAX_MESSAGE,
        // A stopped client may be in the middle of it.
        handshake_timeout: Duration::from_secs(10),
        stats_dir: Some(dir.join("stats")),
        ..Config::default()
    };
    let noting = Arc::clone(&seen);
    let membrane = Membrane::bind(dir.join("s"), &config, move |request, reply: &mut Reply<'_>| {
        thread_local! {
            static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
        }
        let Some(read) = Request::read(request) else {
            noting.corrupted.fetch_add(1, Ordering::Relaxed);
            reply.fail("a request with a wrong byte");
            return;
        };
        noting.note(&read);
        BUFFER.with_borrow_mut(|buffer| {
            read.answer(buffer);
            if reply.extend_from_slice(buffer).is_err() {
                reply.fail("the reply asked for is too large");
            }
        });
    })
    .map_err(|e| Failure::from(&e))?;
    say("ready")?;
    let counted = Arc::clone(&seen);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(SAYS_EVERY);
            if say(&counted.tally().say()).is_err() {
                return;
            }
        }
    });
    for line in std::io::stdin().lock().lines() {
        starve(&line.map_err(|e| Failure::io("standard input", &e))?);
        say(&seen.tally().say())?;
    }
    membrane.shutdown();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(requests: impl IntoIterator<Item = (u64, u64)>) -> (u64, u64) {
        let seen = Seen::new();
        for (session, number) in requests {
            seen.note(&Request {
                client: 3,
                session,
                number,
                reply: 16,
            });
        }
        let tally = seen.tally();
        (tally.lost, tally.duplicated)
    }

    #[test]
    fn what_a_killed_client_had_sent_may_come_between_its_successors_requests() {
        assert_eq!(
            seen([
                (7, 1),
                (7, 2),
                (8, 1),
                (7, 3),
                (8, 2),
                (7, 4),
                (9, 1),
                (8, 3)
            ]),
            (0, 0)
        );
    }

    #[test]
    fn a_gap_and_a_number_seen_before_are_counted_in_every_session() {
        assert_eq!(seen([(7, 1), (8, 2), (7, 4), (8, 3)]), (3, 0));
        assert_eq!(
            seen([(7, 1), (8, 1), (7, 1), (7, 2), (8, 2), (7, 1)]),
            (0, 2)
        );
    }

    #[test]
    fn as_many_sessions_as_are_remembered_may_overlap() {
        let overlapping = (1..=2).flat_map(|number| (0..SESSIONS as u64).map(move |s| (s, number)));
        assert_eq!(seen(overlapping), (0, 0));
    }
}
