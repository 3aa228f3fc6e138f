//! Faults provoked for real, and what `shmtop doctor -f json` says of them: the hint is named first, by its cause, within ten
//! seconds, with numbers and a command that contains the real pids; and when the fault is gone nothing at warn or above is left.
//!
//! `cargo test -p demo --test provoked [-- HINT-ID…]`. What needs root, or a file that this machine does not have, is skipped and says why;
//! so is what was not seen while other programs had the CPUs.
//! The program also plays those who misbehave (`parts`), so it has its own main instead of libtest's. Provocations share
//! the time as far as the CPUs allow.

#[path = "../common/mod.rs"]
mod common;
mod connection;
mod cpu;
mod doctor;
mod kernel;
mod limits;
mod load;
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
use load::{Load, STARVED};

/// `Err`: why it can't be provoked here.
type Outcome = Result<(), String>;

/// What a provocation needs of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// Next to nothing, for more than a minute.
    Patience,
    /// Next to nothing: mostly a doctor that waits.
    Little,
    /// One CPU.
    Cpu,
    /// All CPUs, or that nobody else looks: it changes what all see.
    Machine,
}

impl Needs {
    /// So many go on at once.
    const fn at_once(self) -> usize {
        match self {
            Self::Patience | Self::Little => 8,
            Self::Cpu => 2,
            Self::Machine => 1,
        }
    }
}

/// One hint and the fault that makes it speak; or a verdict.
struct Provocation {
    /// The hint.
    id: &'static str,
    needs: Needs,
    run: fn(&Place) -> Outcome,
}

const fn provocation(id: &'static str, needs: Needs, run: fn(&Place) -> Outcome) -> Provocation {
    Provocation { id, needs, run }
}

const fn beside_all(id: &'static str, run: fn(&Place) -> Outcome) -> Provocation {
    provocation(id, Needs::Patience, run)
}

const fn together(id: &'static str, run: fn(&Place) -> Outcome) -> Provocation {
    provocation(id, Needs::Little, run)
}

const fn in_pairs(id: &'static str, run: fn(&Place) -> Outcome) -> Provocation {
    provocation(id, Needs::Cpu, run)
}

const fn alone(id: &'static str, run: fn(&Place) -> Outcome) -> Provocation {
    provocation(id, Needs::Machine, run)
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

fn is_hint(id: &str) -> bool {
    shmtop::hint::rules().any(|r| r.id == id)
}

/// Ends a hang; all of it takes half as long.
const WATCHDOG: Duration = Duration::from_secs(480);

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
    let ends = Mutex::new(Vec::new());
    let provoke = |p: &Provocation| {
        let end = provoke(p);
        ends.lock().expect("no panic").push((p.id, end));
    };
    provoke(&alone("an idle exchange", doctor::look_at_the_machine));
    let provoke_all = |needs: Needs| {
        let these: Vec<&Provocation> = all().filter(|p| p.needs == needs).collect();
        let next = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..needs.at_once() {
                s.spawn(|| {
                    while let Some(p) = these.get(next.fetch_add(1, Ordering::Relaxed)) {
                        provoke(p);
                    }
                });
            }
        });
    };
    std::thread::scope(|s| {
        s.spawn(|| provoke_all(Needs::Patience));
        provoke_all(Needs::Little);
        provoke_all(Needs::Cpu);
    });
    provoke_all(Needs::Machine);
    // Neighbours change what a provocation meets: what failed beside them has the machine to itself once, and that decides. It is
    // printed either way.
    let failed = |id| ends.lock().expect("no panic").contains(&(id, End::Failed));
    for p in all().filter(|p| failed(p.id)).collect::<Vec<_>>() {
        println!("once more, alone: {}", p.id);
        ends.lock().expect("no panic").retain(|(id, _)| *id != p.id);
        provoke(p);
    }
    provoke(&alone("without faults", doctor::without_faults));
    let ends = ends.into_inner().expect("no panic");
    let those = |wanted: End| {
        let ids = ends.iter().filter(|(_, end)| *end == wanted);
        ids.map(|(id, _)| *id).collect::<Vec<_>>()
    };
    let (passed, failed, skipped) = (those(End::Passed), those(End::Failed), those(End::Skipped));
    let hints = passed.iter().filter(|id| is_hint(id)).count();
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "\nprovoked: {} passed ({hints} of {} hints), {} failed, {} skipped, in {seconds:.0} s",
        passed.len(),
        shmtop::hint::rules().count(),
        failed.len(),
        skipped.len(),
    );
    if !skipped.is_empty() {
        println!("skipped: {}", skipped.join(", "));
    }
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
    let before = Load::now();
    let started = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| (p.run)(&Place::new())));
    let seconds = started.elapsed().as_secs_f64();
    let others = before.others();
    // Of a failure the panic's own words are on stderr already.
    let (end, word) = match result {
        Ok(Ok(())) => (End::Passed, "ok".to_owned()),
        Ok(Err(why)) => (End::Skipped, format!("SKIPPED: {why}")),
        Err(_) if others > STARVED => (End::Skipped, "SKIPPED: others had the CPUs".to_owned()),
        Err(_) => (End::Failed, "FAILED".to_owned()),
    };
    println!(
        "provoked {} … {word} ({seconds:.1} s; others took {:.0} % of the CPUs)",
        p.id,
        others * 100.0
    );
    end
}
