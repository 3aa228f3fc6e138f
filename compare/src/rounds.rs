//! Runs everything in rounds, A B C A B C …, so that drift meets all alike; then again whatever missed the common regime.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::conductor;
use crate::probe::Regime;
use crate::results::{ENOUGH, Figures, Run};
use crate::subject::Subject;
use crate::workload::Workload;

/// What to measure.
pub(crate) struct Schedule<'a> {
    pub(crate) exe: &'a Path,
    pub(crate) subjects: Vec<&'static dyn Subject>,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) depth: usize,
    /// No run begins that would probably end later.
    pub(crate) budget: Duration,
    pub(crate) cpus: Option<(usize, usize)>,
}

/// How far a schedule came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// To its end.
    Complete,
    /// The budget ended in this of the rounds.
    InRound(usize),
    /// The budget ended when all rounds had been run, and runs that were left out were being repeated.
    InRepeats,
}

impl Schedule<'_> {
    /// Runs it all; `done` is told of each run.
    pub(crate) fn run(&self, mut done: impl FnMut(&Run)) -> (Vec<Run>, Ended) {
        let begin = Instant::now();
        let mut runs = Vec::new();
        let mut longest = Duration::ZERO;
        let mut one =
            |runs: &mut Vec<Run>, round, workload: &Workload, subject: &'static dyn Subject| {
                if begin.elapsed() + longest > self.budget {
                    return false;
                }
                let from = Instant::now();
                let run = self.one(round, workload, subject);
                // One that hung says nothing about the next.
                if run.failed.is_none() {
                    longest = longest.max(from.elapsed());
                }
                done(&run);
                runs.push(run);
                true
            };
        for round in 1..=self.rounds {
            for workload in &self.workloads {
                for subject in self.subjects.iter().filter(|s| workload.is_for(**s)) {
                    if !one(&mut runs, round, workload, *subject) {
                        return (runs, Ended::InRound(round));
                    }
                }
            }
        }
        // As many more tries as there were rounds: a regime that does not come back is not waited for.
        for round in self.rounds + 1..=2 * self.rounds {
            for workload in &self.workloads {
                for subject in self.lacking(&runs, workload) {
                    if !one(&mut runs, round, workload, subject) {
                        return (runs, Ended::InRepeats);
                    }
                }
            }
        }
        (runs, Ended::Complete)
    }

    fn one(&self, round: usize, workload: &Workload, subject: &'static dyn Subject) -> Run {
        let work = workload.work(self.seconds, self.depth);
        let outcome = conductor::run(self.exe, subject, work, self.cpus, &mut ());
        let (lines_ns, probed) = outcome.as_ref().map_or_else(
            |_| (Vec::new(), None),
            |outcome| (outcome.lines_ns.clone(), Some(outcome.probed)),
        );
        let (figures, failed) = match outcome {
            Ok(outcome) => (Some(Figures::of(&outcome)), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Run {
            round,
            workload: workload.id,
            subject: subject.id(),
            regime: Regime::of(&lines_ns),
            lines_ns,
            probed,
            figures,
            failed,
        }
    }

    /// Subjects with too few runs in the regime that most runs of the workload were in.
    fn lacking(&self, runs: &[Run], workload: &Workload) -> Vec<&'static dyn Subject> {
        let count = |subject: Option<&str>, regime| {
            runs.iter()
                .filter(|run| run.workload == workload.id && run.regime == regime && run.is_quiet())
                .filter(|run| subject.is_none_or(|id| run.subject == id))
                .count()
        };
        let common = [Regime::Siblings, Regime::Far, Regime::Near]
            .into_iter()
            .max_by_key(|&regime| count(None, regime));
        let enough = ENOUGH.min(self.rounds);
        self.subjects
            .iter()
            .copied()
            .filter(|subject| workload.is_for(*subject))
            .filter(|subject| {
                common.is_some_and(|regime| {
                    count(None, regime) > 0 && count(Some(subject.id()), regime) < enough
                })
            })
            .filter(|subject| {
                !runs.iter().any(|run| {
                    run.subject == subject.id()
                        && run.workload == workload.id
                        && run.failed.is_some()
                })
            })
            .collect()
    }
}

/// A line per run, for those who wait.
pub(crate) fn narrate(run: &Run) {
    let us = |ns: Option<f64>| ns.map_or_else(|| "–".into(), |ns| format!("{:.2}", ns / 1000.0));
    let text = match (&run.figures, &run.failed) {
        (Some(f), _) => format!(
            "{:>12.0}/s  p50 {:>9} µs  p99 {:>10} µs  fair {:>4.2}  {:.3} CPUs",
            f.requests_per_s,
            us(f.p50_ns),
            us(f.p99_ns),
            f.fairness.unwrap_or(1.0),
            f.cpus,
        ),
        (None, why) => format!("FAILED: {}", why.as_deref().unwrap_or("no reason")),
    };
    // Progress is for those who watch; a closed standard error is no reason to stop.
    let _ = writeln!(
        io::stderr(),
        "{:>2}  {:<10} {:<18} {:<7} {text}",
        run.round,
        run.workload,
        run.subject,
        run.regime.name()
    );
}
