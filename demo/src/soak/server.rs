//! The server of a soak: checks every request, remembers the last number of each client's session, answers.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use transport::{Config, Membrane, Reply};

use super::message::Request;
use super::tally::Tally;
use crate::failure::Failure;

/// Clients are told apart by their number, which is below this.
pub(super) const MAX_CLIENTS: usize = 256;
/// Largest message of a soak.
pub(super) const MAX_MESSAGE: usize = 2 << 20;

/// What is remembered of a client: its session, and the last number seen in it.
type Last = (u64, u64);

struct Seen {
    last: Vec<Mutex<Last>>,
    lost: AtomicU64,
    duplicated: AtomicU64,
    corrupted: AtomicU64,
}

impl Seen {
    fn note(&self, request: &Request) {
        let Some(entry) = self.last.get(request.client as usize) else {
            self.corrupted.fetch_add(1, Ordering::Relaxed);
            return;
        };
        // Poisoned is impossible: nothing below panics.
        let Ok(mut last) = entry.lock() else { return };
        if last.0 != request.session {
            *last = (request.session, 0);
        }
        match request.number.checked_sub(last.1) {
            Some(0) | None => {
                self.duplicated.fetch_add(1, Ordering::Relaxed);
            }
            Some(step) => {
                self.lost.fetch_add(step - 1, Ordering::Relaxed);
                last.1 = request.number;
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

/// Serves until standard input ends; says `ready`, then what it counted with each line that it reads.
pub(super) fn run(dir: &Path) -> Result<(), Failure> {
    set_pdeathsig(Signal::SIGKILL).map_err(|e| Failure::io("PR_SET_PDEATHSIG", &e.into()))?;
    let seen = std::sync::Arc::new(Seen {
        last: (0..MAX_CLIENTS).map(|_| Mutex::default()).collect(),
        lost: AtomicU64::new(0),
        duplicated: AtomicU64::new(0),
        corrupted: AtomicU64::new(0),
    });
    let config = Config {
        name: "soak".into(),
        ring_bytes: 8 << 20,
        max_message_bytes: MAX_MESSAGE,
        // A stopped client may be in the middle of it.
        handshake_timeout: Duration::from_secs(10),
        stats_dir: Some(dir.join("stats")),
        ..Config::default()
    };
    let noting = std::sync::Arc::clone(&seen);
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
    let say = |line: &str| {
        let mut out = std::io::stdout();
        writeln!(out, "{line}")
            .and_then(|()| out.flush())
            .map_err(|e| Failure::io("printing", &e))
    };
    say("ready")?;
    for line in std::io::stdin().lock().lines() {
        super::client::starve(&line.map_err(|e| Failure::io("standard input", &e))?);
        say(&seen.tally().say())?;
    }
    membrane.shutdown();
    Ok(())
}
