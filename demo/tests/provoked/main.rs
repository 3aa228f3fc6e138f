//! Faults provoked for real, and what `shmtop doctor -f json` says of them: the hint is named first, by its cause, within ten
//! seconds, with numbers and a command that contains the real pids; and when the fault is gone nothing at warn or above is left.
//!
//! `cargo test -p demo --test provoked [-- HINT-ID…]`. What needs root, or a file that this machine does not have, is skipped and says why.
//! What fails has the machine to itself once more, and that decides. What is not seen then either, while other programs have the CPUs, is
//! skipped, too, and named in the closing lines; if that is more than a few, the run fails.
//! The program also plays those who misbehave (`parts`), so it has its own main instead of libtest's. Provocations share
//! the time as far as the CPUs allow.

#[path = "../common/mod.rs"]
mod common;
mod connection;
mod cpu;
mod doctor;
mod kernel;
mod limits;
mod listed;
mod load;
mod memory;
mod page;
mod parts;
mod peer;
mod ring;
mod tally;
mod verdict;
mod view;
mod wait;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::Place;
use load::{Load, STARVED};
use tally::{End, Tally};

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
            Self::Patience | Self::Little => 12,
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
    listed::PROVOCATIONS,
    wait::PROVOCATIONS,
    cpu::PROVOCATIONS,
];

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
    let known = FAMILIES.iter().map(|f| f.len()).sum::<usize>();
    let filtered_out = known - all().count();
    // Nobody asks for any of ours: `cargo test NAME` asks all programs for a test of that name.
    if filtered_out == known {
        return Tally::default().close(started.elapsed(), known);
    }
    std::thread::spawn(|| {
        std::thread::sleep(WATCHDOG);
        eprintln!("watchdog: something hangs");
        std::process::exit(1);
    });
    let tally = Tally::default();
    let provoke = |p: &Provocation, run: Run| tally.add(p.id, provoke(p, run));
    let last = Run::Last;
    provoke(
        &alone("an-idle-exchange", doctor::look_at_the_machine),
        last,
    );
    let provoke_all = |needs: Needs| {
        let these: Vec<&Provocation> = all().filter(|p| p.needs == needs).collect();
        let next = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..needs.at_once() {
                s.spawn(|| {
                    while let Some(p) = these.get(next.fetch_add(1, Ordering::Relaxed)) {
                        provoke(p, Run::First);
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
    // Neighbours change what a provocation meets: what failed beside them has the machine to itself once, and that decides.
    let again = tally.take_again(|id| all().any(|p| p.id == id));
    for p in all().filter(|p| again.contains(&p.id)) {
        provoke(p, last);
    }
    provoke(&alone("without-faults", doctor::without_faults), last);
    tally.close(started.elapsed(), filtered_out)
}

/// What was not seen in its first run has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    First,
    Last,
}

fn provoke(p: &Provocation, run: Run) -> End {
    let before = Load::now();
    let started = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| (p.run)(&Place::new())));
    let seconds = started.elapsed().as_secs_f64();
    let others = before.others();
    // Of a failure the panic's own words are on stderr already.
    let (end, word) = match result {
        Ok(Ok(())) => (End::Passed, "ok".to_owned()),
        Ok(Err(why)) => (End::Impossible, format!("ignored, SKIPPED: {why}")),
        Err(_) if others > STARVED => (
            End::Starved,
            "ignored, SKIPPED: others had the CPUs".to_owned(),
        ),
        Err(_) => (End::Failed, "FAILED".to_owned()),
    };
    let is_decided = run == Run::Last || matches!(end, End::Passed | End::Impossible);
    let (what, word) = if is_decided {
        ("test", word.as_str())
    } else {
        ("at first,", "not seen; once more, alone, at the end")
    };
    println!(
        "{what} {} ... {word} ({seconds:.1} s; others took {:.0} % of the CPUs)",
        p.id,
        others * 100.0
    );
    end
}
