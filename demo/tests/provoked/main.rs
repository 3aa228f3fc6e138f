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
mod run;
mod tally;
mod verdict;
mod view;
mod wait;

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use common::Place;
use run::{Run, provoke, side_by_side};
use tally::Tally;

/// `Err`: why it can't be provoked here.
type Outcome = Result<(), String>;

/// What is still to be seen of those whom a fault befell.
type Look = Box<dyn FnOnce(&Place) + Send>;

/// What a provocation needs of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// Next to nothing, for more than a minute.
    Patience,
    /// Next to nothing: mostly a doctor that waits.
    Little,
    /// One CPU.
    Cpu,
    /// All CPUs.
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
    steps: Steps,
}

/// What it consists of.
enum Steps {
    /// The fault, and what is left when it has gone.
    Whole(fn(&Place) -> Outcome),
    /// The fault alone. What is left needs next to nothing, and is looked at beside others, in the same place.
    Fault(fn(&Place) -> Result<Look, String>),
}

type Whole = fn(&Place) -> Outcome;

const fn provocation(id: &'static str, needs: Needs, run: Whole) -> Provocation {
    let steps = Steps::Whole(run);
    Provocation { id, needs, steps }
}

const fn together(id: &'static str, run: Whole) -> Provocation {
    provocation(id, Needs::Little, run)
}

const fn in_pairs(id: &'static str, run: Whole) -> Provocation {
    provocation(id, Needs::Cpu, run)
}

const fn alone(id: &'static str, run: Whole) -> Provocation {
    provocation(id, Needs::Machine, run)
}

type Fault = fn(&Place) -> Result<Look, String>;

const fn alone_at_first(id: &'static str, run: Fault) -> Provocation {
    let (needs, steps) = (Needs::Machine, Steps::Fault(run));
    Provocation { id, needs, steps }
}

const fn beside_all(id: &'static str, run: Fault) -> Provocation {
    let (needs, steps) = (Needs::Patience, Steps::Fault(run));
    Provocation { id, needs, steps }
}

static FAMILIES: &[&[Provocation]] = &[
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

/// What has no fault, and is looked at whatever was asked for; the last comes after what it sums up.
static ALWAYS: [Provocation; 2] = [
    together("an-idle-exchange", doctor::look_at_the_machine),
    together(WITHOUT_FAULTS, doctor::without_faults),
];

const WITHOUT_FAULTS: &str = "without-faults";

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
    let complete = |p, run| {
        if let Some(left) = provoke(p, run, &tally) {
            left.look(run, &tally);
        }
    };
    // Whoever has to be a minute old has its minute while the machine is others'. What is left to be looked at needs little.
    let later = Mutex::new(Vec::new());
    let begin = |p| {
        let left = provoke(p, Run::First, &tally);
        later.lock().expect("no panic").extend(left);
    };
    for needs in [Needs::Patience, Needs::Machine, Needs::Cpu] {
        let these = all().filter(|p| p.needs == needs);
        side_by_side(needs, these.collect(), begin);
    }
    let mut little: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for left in later.into_inner().expect("no panic") {
        little.push(Box::new(|| left.look(Run::First, &tally)));
    }
    for p in ALWAYS
        .iter()
        .chain(all().filter(|p| p.needs == Needs::Little))
    {
        little.push(Box::new(|| complete(p, Run::First)));
    }
    side_by_side(Needs::Little, little, |job| job());
    // Neighbours change what a provocation meets: what failed beside them has the machine to itself once, and that decides.
    let known = || all().chain(&ALWAYS);
    let again = tally.take_again(|id| known().any(|p| p.id == id));
    for p in known() {
        if again.contains(&p.id) || (p.id == WITHOUT_FAULTS && doctor::is_somebody_left()) {
            complete(p, Run::Last);
        }
    }
    tally.close(started.elapsed(), filtered_out)
}
