//! From many findings to few: causes swallow their symptoms, and rules that concern many speak once.

use std::collections::{HashMap, HashSet};

use super::causes::Causes;
use super::rules;
use crate::model::{Explained, Finding, Model, Subject};

/// So many clients are named one by one.
const CLIENTS_NAMED: usize = 8;

/// Moves each finding that a graver or equal one explains under its cause.
pub(super) fn fold_symptoms(findings: Vec<Finding>, model: &Model) -> Vec<Finding> {
    let causes = Causes::of(&findings, model);
    let cause: Vec<Option<usize>> = findings.iter().map(|f| causes.first_of(f)).collect();
    let root_of = |i: usize| {
        let mut at = i;
        // The catalogue's `explains` has no cycle (a test sees to it); the bound is for the day it has.
        for _ in 0..8 {
            match cause[at] {
                Some(next) => at = next,
                None => break,
            }
        }
        at
    };
    let root: Vec<usize> = (0..findings.len()).map(root_of).collect();
    let mut out: Vec<Option<Finding>> = findings.iter().cloned().map(Some).collect();
    for (i, &r) in root.iter().enumerate() {
        if i == r {
            continue;
        }
        let symptom = &findings[i];
        if let Some(Some(cause)) = out.get_mut(r) {
            cause.explains.push(Explained {
                id: symptom.id,
                subject: symptom.subject.clone(),
                says: symptom.says.clone(),
            });
        }
        out[i] = None;
    }
    out.into_iter().flatten().collect()
}

/// Windows in a row in which somebody else must be worse by half, before it speaks for all: of sixteen clients that suffer alike another one is the
/// worst every second, and a sentence that is about somebody else each time can't be read.
const OUTDONE_WINDOWS: u32 = 3;
const OUTDONE: f64 = 1.5;

/// Who speaks for all in a rule that speaks once, and for how many windows somebody else has been worse.
#[derive(Debug)]
pub(super) struct Speaker {
    id: &'static str,
    subject: Subject,
    outdone: u32,
}

/// Of the rules that speak once for all, the worst case, with the others beside it; who speaks is kept in `speakers` from window to window. Of the
/// processes that were asked for, if it is any of those: their numbers are what the reader wants.
pub(super) fn speak_once(
    findings: Vec<Finding>,
    asked_for: &[u32],
    speakers: &mut Vec<Speaker>,
) -> Vec<Finding> {
    let once: HashSet<&str> = rules().filter(|r| r.once).map(|r| r.id).collect();
    // States are causes (a step and its errno, a build); numbers are how much of it.
    let states = |f: &Finding| -> Vec<Option<String>> {
        f.evidence.iter().map(|e| e.text.clone()).collect()
    };
    let mut groups: Vec<Vec<Finding>> = Vec::new();
    let mut known: HashMap<_, usize> = HashMap::new();
    for f in findings {
        if !once.contains(f.id) {
            groups.push(vec![f]);
            continue;
        }
        let group = known.entry((f.id, f.severity, states(&f)));
        let group = *group.or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(f);
    }
    let before = std::mem::take(speakers);
    let speak = |mut group: Vec<Finding>| {
        if !once.contains(group[0].id) {
            return group.swap_remove(0);
        }
        let speaker = speaker(&group, asked_for, &before);
        let mut kept = group.remove(speaker.0);
        speakers.push(speaker.1);
        for mut other in group {
            kept.since_ns = kept.since_ns.min(other.since_ns);
            kept.since_realtime_ns = kept.since_realtime_ns.min(other.since_realtime_ns);
            kept.also.push(other.subject);
            kept.explains.append(&mut other.explains);
        }
        if !kept.also.is_empty() {
            kept.says += &match clients(&kept) {
                Some(numbers) => format!(" (clients {numbers})"),
                None => format!(" (and {} more)", kept.also.len()),
            };
        }
        kept
    };
    groups.into_iter().map(speak).collect()
}

/// Place of the one that speaks for a group, and what to remember of it.
fn speaker(group: &[Finding], asked_for: &[u32], before: &[Speaker]) -> (usize, Speaker) {
    let asked = |f: &Finding| f.subject.pid.is_some_and(|p| asked_for.contains(&p));
    let worth = |f: &Finding| f.evidence.first().map_or(0.0, |e| e.value);
    let of = |i: usize, outdone| {
        let (id, subject) = (group[i].id, group[i].subject.clone());
        (
            i,
            Speaker {
                id,
                subject,
                outdone,
            },
        )
    };
    // The first of those that are equally bad.
    let worst = (1..group.len()).fold(0, |worst, i| {
        let key = |i: usize| (asked(&group[i]), worth(&group[i]));
        if key(i) > key(worst) { i } else { worst }
    });
    let spoke = |i: &usize| {
        let is = |s: &&Speaker| s.id == group[*i].id && s.subject == group[*i].subject;
        before.iter().find(is).map(|s| (*i, s.outdone))
    };
    let Some((last, outdone)) = (0..group.len()).find_map(|i| spoke(&i)) else {
        return of(worst, 0);
    };
    let outdone = if worth(&group[worst]) > worth(&group[last]) * OUTDONE {
        outdone + 1
    } else {
        0
    };
    if outdone >= OUTDONE_WINDOWS || asked(&group[last]) != asked(&group[worst]) {
        return of(worst, 0);
    }
    of(last, outdone)
}

/// `1, 2, 3` if all of it is about clients of one endpoint, and they are few.
fn clients(f: &Finding) -> Option<String> {
    let all = || std::iter::once(&f.subject).chain(&f.also);
    if all().any(|s| s.pid != f.subject.pid) || f.also.len() >= CLIENTS_NAMED {
        return None;
    }
    let mut numbers: Vec<u32> = all().map(|s| s.client).collect::<Option<_>>()?;
    numbers.sort_unstable();
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    Some(numbers.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Evidence, Severity};

    const PIDS: [u32; 3] = [7, 8, 9];

    /// Who speaks in each of so many windows, when the three wait so many ms/s each.
    fn speakers(windows: impl IntoIterator<Item = [f64; 3]>, asked_for: &[u32]) -> Vec<u32> {
        let mut before = Vec::new();
        let mut spoke = |delays: [f64; 3]| {
            let found = PIDS.iter().zip(delays).filter(|(_, delay)| *delay > 0.0);
            let findings = found.map(|(pid, delay)| finding(*pid, delay)).collect();
            let said = speak_once(findings, asked_for, &mut before);
            assert_eq!(said.len(), 1);
            said[0].subject.pid.unwrap()
        };
        windows.into_iter().map(&mut spoke).collect()
    }

    fn finding(pid: u32, delay: f64) -> Finding {
        Finding {
            id: "run-delay",
            severity: Severity::Warn,
            subject: Subject {
                pid: Some(pid),
                ..Subject::default()
            },
            also: Vec::new(),
            about: None,
            says: "waits".to_owned(),
            evidence: vec![Evidence {
                name: "run delay".to_owned(),
                value: delay,
                text: None,
                unit: "%",
                source: String::new(),
                threshold: String::new(),
            }],
            fix: String::new(),
            clears: "",
            explains: Vec::new(),
            since_ns: 0,
            since_realtime_ns: 0,
        }
    }

    #[test]
    fn of_those_that_suffer_alike_the_same_one_speaks_until_another_is_worse_for_long_or_it_has_gone()
     {
        let alike = [
            [50., 60., 55.],
            [55., 50., 70.],
            [90., 50., 50.],
            [50., 51., 90.],
        ];
        assert_eq!(speakers(alike, &[]), [8; 4]);
        let worse = [
            [50., 60., 55.],
            [50., 60., 95.],
            [50., 60., 95.],
            [50., 60., 95.],
        ];
        assert_eq!(speakers(worse, &[]), [8, 8, 8, 9]);
        let for_a_moment = [[50., 60., 55.], [50., 60., 95.], [50., 60., 60.]].repeat(3);
        assert_eq!(speakers(for_a_moment, &[]), [8; 9]);
        let gone = [[50., 60., 55.], [50., 0., 55.], [50., 60., 55.]];
        assert_eq!(speakers(gone, &[]), [8, 9, 9]);
        assert_eq!(speakers(alike, &[7]), [7; 4], "asked for");
    }
}
