//! How each provocation ended, and the closing lines, in libtest's form, which is what people and programs know how to read.

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

/// So many that were not seen while others had the CPUs may be left out; with more of them, the run says nothing and fails.
const LEFT_OUT_AT_MOST: usize = 6;
/// So many have a second run, alone. More than that is not the neighbours' doing.
const AGAIN_AT_MOST: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Passed,
    Failed,
    /// It failed while other programs had the CPUs.
    Starved,
    /// It can't be provoked on this machine.
    Impossible,
}

/// What became of those that have run, in the order of their ends.
#[derive(Default)]
pub(crate) struct Tally(Mutex<Ended>);

#[derive(Default)]
struct Ended {
    last: Vec<(&'static str, End)>,
    /// Ran twice.
    again: Vec<&'static str>,
}

impl Tally {
    pub(crate) fn add(&self, id: &'static str, end: End) {
        self.0.lock().expect("no panic").last.push((id, end));
    }

    /// Takes out those that have a second run, alone: what failed beside neighbours or while others had the CPUs,
    /// of those that `may` have one.
    pub(crate) fn take_again(&self, may: impl Fn(&str) -> bool) -> Vec<&'static str> {
        let ended = &mut *self.0.lock().expect("no panic");
        let again = |(id, end): &(&str, End)| matches!(end, End::Failed | End::Starved) && may(id);
        if ended.last.iter().filter(|e| again(e)).count() > AGAIN_AT_MOST {
            return Vec::new();
        }
        let (again, rest) = ended.last.iter().partition(|e| again(e));
        ended.last = rest;
        ended.again = Vec::into_iter(again).map(|(id, _)| id).collect();
        ended.again.clone()
    }

    /// Prints the closing lines.
    pub(crate) fn close(self, took: Duration, filtered_out: usize) -> ExitCode {
        let is_hint = |id: &&&str| shmtop::hint::rules().any(|r| r.id == **id);
        let hints = shmtop::hint::rules().count();
        let ended = self.0.into_inner().expect("no panic");
        let those = |wanted: End| -> Vec<&str> {
            let ids = ended.last.iter().filter(|(_, end)| *end == wanted);
            ids.map(|(id, _)| *id).collect()
        };
        let passed = those(End::Passed);
        let failed = those(End::Failed);
        let starved = those(End::Starved);
        let impossible = those(End::Impossible);
        let again = ended.again.iter().copied();
        let second: Vec<&str> = again.filter(|id| passed.contains(id)).collect();
        if !failed.is_empty() {
            println!("\nfailures:\n    {}", failed.join("\n    "));
        }
        let seen = passed.iter().filter(is_hint).count();
        println!("\nprovoked: {seen} of {hints} hints");
        let list = |what: &str, ids: &[&str]| {
            if !ids.is_empty() {
                println!("{what}: {}", ids.join(", "));
            }
        };
        list("PASSED THE SECOND TIME ONLY, alone", &second);
        list("SKIPPED, not possible here", &impossible);
        list("SKIPPED, not seen while others had the CPUs", &starved);
        let too_many =
            starved.len() > LEFT_OUT_AT_MOST || (passed.is_empty() && !starved.is_empty());
        if too_many {
            println!(
                "too many were not seen: this run proves nothing; run it on a quieter machine"
            );
        }
        let ok = failed.is_empty() && !too_many;
        println!(
            "\ntest result: {}. {} passed; {} failed; {} ignored; 0 measured; {filtered_out} filtered out; finished in {:.2}s\n",
            if ok { "ok" } else { "FAILED" },
            passed.len(),
            failed.len(),
            starved.len() + impossible.len(),
            took.as_secs_f64(),
        );
        if ok {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
