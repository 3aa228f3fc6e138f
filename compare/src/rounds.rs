//! Runs everything in rounds, A B C A B C …, so that drift meets all alike; then again whatever missed the common regime.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::conductor;
use crate::probe::Regime;
use crate::results::{Figures, Run};
use crate::subject::Subject;
use crate::workload::Workload;

/// Runs in the common regime that a subject should have.
const ENOUGH: usize = 3;

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

impl Schedule<'_> {
    /// Runs it all; `done` is told of each run.
    pub(crate) fn run(&self, mut done: impl FnMut(&Run)) -> Vec<Run> {
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
                        return runs;
                    }
                }
            }
        }
        // As many more tries as there were rounds: a regime that does not come back is not waited for.
        for round in self.rounds + 1..=2 * self.rounds {
            for workload in &self.workloads {
                for subject in self.lacking(&runs, workload) {
                    if !one(&mut runs, round, workload, subject) {
                        return runs;
                    }
                }
            }
        }
        runs
    }

    fn one(&self, round: usize, workload: &Workload, subject: &'static dyn Subject) -> Run {
        let work = workload.work(self.seconds, self.depth);
        let outcome = conductor::run(self.exe, subject, work, self.cpus, &mut ());
        let lines_ns = outcome
            .as_ref()
            .map_or_else(|_| Vec::new(), |outcome| outcome.lines_ns.clone());
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
    let text = match (&run.figures, &run.failed) {
        (Some(f), _) => format!(
            "{:>12.0}/s  p50 {:>9.2} µs  p99 {:>10.2} µs  fair {:>4.2}  {:.3} CPUs",
            f.requests_per_s,
            f.p50_ns.unwrap_or(0) as f64 / 1000.0,
            f.p99_ns.unwrap_or(0) as f64 / 1000.0,
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
