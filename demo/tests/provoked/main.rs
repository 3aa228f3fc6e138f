//! Faults provoked for real, and what `shmtop doctor -f json` says of them: the hint is named first, by its cause, within ten
//! seconds, with numbers and a command that contains the real pids; and when the fault is gone nothing at warn or above is left.
//!
//! `cargo test -p demo --test provoked [-- HINT-ID…]`. What needs root, or a file that this machine does not have, is skipped and says why.
//! The program also plays those who misbehave (`parts`), so it has its own main instead of libtest's. Provocations that
//! want the CPUs for themselves run one after the other; the rest share the time, a few at once.

#[path = "../common/mod.rs"]
mod common;
mod connection;
mod cpu;
mod doctor;
mod kernel;
mod limits;
mod memory;
mod page;
mod parts;
mod peer;
mod ring;
mod verdict;
mod view;
mod wait;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::Place;

/// `Err`: why it can't be provoked here.
type Outcome = Result<(), String>;

/// One hint and the fault that makes it speak; or a verdict.
struct Provocation {
    /// The hint.
    id: &'static str,
    /// Wants the CPUs, or changes what all others see.
    alone: bool,
    run: fn(&Place) -> Outcome,
}

/// Shares the time with others.
const fn together(id: &'static str, run: fn(&Place) -> Outcome) -> Provocation {
    Provocation {
        id,
        alone: false,
        run,
    }
}

/// Has the machine for itself.
const fn alone(id: &'static str, run: fn(&Place) -> Outcome) -> Provocation {
    Provocation {
        id,
        alone: true,
        run,
    }
}

const FAMILIES: &[&[Provocation]] = &[
    memory::PROVOCATIONS,
    connection::PROVOCATIONS,
    limits::PROVOCATIONS,
    peer::PROVOCATIONS,
    ring::PROVOCATIONS,
    view::PROVOCATIONS,
    verdict::PROVOCATIONS,
    wait::PROVOCATIONS,
    cpu::PROVOCATIONS,
];

/// Provocations at once; each is mostly a doctor that waits.
const AT_ONCE: usize = 8;

fn is_hint(id: &str) -> bool {
    shmtop::hint::rules().any(|r| r.id == id)
}

/// Ends a hang; all of it takes half as long.
const WATCHDOG: Duration = Duration::from_secs(900);

fn main() -> ExitCode {
    kernel::close_inherited();
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = parts::play(&words) {
        return code;
    }
    let wanted = |p: &&Provocation| {
        let mut ids = words.iter().filter(|w| !w.starts_with('-')).peekable();
        ids.peek().is_none() || ids.any(|id| *id == p.id)
    };
    let all = || FAMILIES.iter().flat_map(|f| f.iter()).filter(wanted);
    if words.iter().any(|w| w == "--list") {
        for p in all() {
            println!("{}: test", p.id);
        }
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    std::thread::spawn(|| {
        std::thread::sleep(WATCHDOG);
        eprintln!("watchdog: something hangs");
        std::process::exit(1);
    });
    doctor::look_at_the_machine();
    let ends = Mutex::new(Vec::new());
    let shared: Vec<&Provocation> = all().filter(|p| !p.alone).collect();
    let next = AtomicUsize::new(0);
    let provoke = |p: &Provocation| {
        let end = provoke(p);
        ends.lock().expect("no panic").push((p.id, end));
    };
    std::thread::scope(|s| {
        for _ in 0..AT_ONCE {
            s.spawn(|| {
                while let Some(p) = shared.get(next.fetch_add(1, Ordering::Relaxed)) {
                    provoke(p);
                }
            });
        }
    });
    all().filter(|p| p.alone).for_each(provoke);
    let ends = ends.into_inner().expect("no panic");
    let those = |wanted: End| {
        let ids = ends.iter().filter(|(_, end)| *end == wanted);
        ids.map(|(id, _)| *id).collect::<Vec<_>>()
    };
    let failed = those(End::Failed);
    println!(
        "\n{} of {} hints provoked, {} failed, {} skipped, in {:.0} s",
        those(End::Passed).iter().filter(|id| is_hint(id)).count(),
        shmtop::hint::rules().count(),
        failed.len(),
        those(End::Skipped).len(),
        started.elapsed().as_secs_f64()
    );
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    Skipped,
}

fn provoke(p: &Provocation) -> End {
    let started = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| (p.run)(&Place::new())));
    let seconds = started.elapsed().as_secs_f64();
    let (end, word) = match result {
        Ok(Ok(())) => (End::Passed, "ok".to_owned()),
        Ok(Err(why)) => (End::Skipped, format!("skipped: {why}")),
        // The panic's own words are on stderr already.
        Err(_) => (End::Failed, "FAILED".to_owned()),
    };
    println!("provoked {} … {word} ({seconds:.1} s)", p.id);
    end
}
