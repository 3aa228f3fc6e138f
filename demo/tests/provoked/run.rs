//! One provocation from its beginning to the line that says how it ended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;

use crate::common::Place;
use crate::load::{Load, STARVED};
use crate::tally::{End, Tally};
use crate::{Look, Needs, Provocation, Steps};

/// What was not seen in its first run has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    First,
    Last,
}

/// Does something with each, with as many at once as their needs allow.
pub(crate) fn side_by_side<T: Send>(needs: Needs, these: Vec<T>, each: impl Fn(T) + Sync) {
    let these = Mutex::new(these.into_iter());
    let next = || these.lock().expect("no panic").next();
    std::thread::scope(|s| {
        for _ in 0..needs.at_once() {
            s.spawn(|| {
                while let Some(this) = next() {
                    each(this);
                }
            });
        }
    });
}

/// A fault that has gone, and what is still to be seen.
pub(crate) struct Left {
    of: &'static Provocation,
    place: Place,
    look: Look,
    seconds: f64,
}

/// Provokes it: what is left to be seen, unless that is all.
pub(crate) fn provoke(p: &'static Provocation, run: Run, tally: &Tally) -> Option<Left> {
    let place = Place::new();
    let part = Part::of(|| match p.steps {
        Steps::Whole(whole) => whole(&place).map(|()| None),
        Steps::Fault(fault) => fault(&place).map(Some),
    });
    match part {
        Part {
            result: Ok(Ok(Some(look))),
            seconds,
            ..
        } => Some(Left {
            of: p,
            place,
            look,
            seconds,
        }),
        part => {
            tally.add(p.id, part.end(p.id, run));
            None
        }
    }
}

impl Left {
    /// Looks at it.
    pub(crate) fn look(self, run: Run, tally: &Tally) {
        let mut part = Part::of(|| {
            (self.look)(&self.place);
            Ok(())
        });
        part.seconds += self.seconds;
        tally.add(self.of.id, part.end(self.of.id, run));
    }
}

/// A part of a provocation that is over.
struct Part<T> {
    result: std::thread::Result<Result<T, String>>,
    seconds: f64,
    /// What others took of the CPUs meanwhile.
    others: f64,
}

impl<T> Part<T> {
    fn of(part: impl FnOnce() -> Result<T, String>) -> Self {
        let before = Load::now();
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(part));
        Self {
            result,
            seconds: started.elapsed().as_secs_f64(),
            others: before.others(),
        }
    }

    /// Says how the provocation ended with it.
    fn end(self, id: &str, run: Run) -> End {
        // Of a failure the panic's own words are on stderr already.
        let (end, word) = match self.result {
            Ok(Ok(_)) => (End::Passed, "ok".to_owned()),
            Ok(Err(why)) => (End::Impossible, format!("ignored, SKIPPED: {why}")),
            Err(_) if self.others > STARVED => (
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
            "{what} {id} ... {word} ({:.1} s; others took {:.0} % of the CPUs)",
            self.seconds,
            self.others * 100.0
        );
        end
    }
}
