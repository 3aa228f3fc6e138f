//! From many findings to few: causes swallow their symptoms, and rules that concern many speak once.

use std::collections::{HashMap, HashSet};

use super::rules;
use crate::model::{Endpoint, Explained, Finding, Model};

/// So many clients are named one by one.
const CLIENTS_NAMED: usize = 8;

/// Moves each finding that a graver or equal one explains under its cause.
pub(super) fn fold_symptoms(findings: Vec<Finding>, model: &Model) -> Vec<Finding> {
    let explains: HashMap<&str, &[&str]> = rules().map(|r| (r.id, r.explains)).collect();
    let cause_of = |i: usize| {
        findings.iter().position(|f| {
            let me = &findings[i];
            f.id != me.id
                && explains.get(f.id).is_some_and(|ids| ids.contains(&me.id))
                && f.severity >= me.severity
                && concerns(f, me, model)
        })
    };
    let mut root: Vec<usize> = (0..findings.len()).collect();
    for (i, slot) in root.iter_mut().enumerate() {
        let mut at = i;
        // The catalogue's `explains` has no cycle (a test sees to it); the bound is for the day it has.
        for _ in 0..8 {
            match cause_of(at) {
                Some(next) => at = next,
                None => break,
            }
        }
        *slot = at;
    }
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

/// Of the rules that speak once for all, the worst case, with the others beside it. Of the processes that were asked for, if it is
/// any of those: their numbers are what the reader wants.
pub(super) fn speak_once(findings: Vec<Finding>, asked_for: &[u32]) -> Vec<Finding> {
    let once: HashSet<&str> = rules().filter(|r| r.once).map(|r| r.id).collect();
    let worth = |f: &Finding| {
        let asked = f.subject.pid.is_some_and(|p| asked_for.contains(&p));
        (asked, f.evidence.first().map_or(0.0, |e| e.value))
    };
    let mut out: Vec<Finding> = Vec::new();
    for f in findings {
        // States are causes (a step and its errno, a build); numbers are how much of it.
        let states = |f: &Finding| -> Vec<Option<String>> {
            f.evidence.iter().map(|e| e.text.clone()).collect()
        };
        let same =
            |o: &&mut Finding| o.id == f.id && o.severity == f.severity && states(o) == states(&f);
        let Some(kept) = out.iter_mut().find(same).filter(|_| once.contains(f.id)) else {
            out.push(f);
            continue;
        };
        let mut other = f;
        if worth(&other) > worth(kept) {
            std::mem::swap(kept, &mut other);
        }
        kept.since_ns = kept.since_ns.min(other.since_ns);
        kept.since_realtime_ns = kept.since_realtime_ns.min(other.since_realtime_ns);
        kept.also.append(&mut other.also);
        kept.also.push(other.subject);
        kept.explains.append(&mut other.explains);
    }
    for f in out.iter_mut().filter(|f| !f.also.is_empty()) {
        f.says += &match clients(f) {
            Some(numbers) => format!(" (clients {numbers})"),
            None => format!(" (and {} more)", f.also.len()),
        };
    }
    out
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

/// Whether a cause can have this consequence.
fn concerns(cause: &Finding, symptom: &Finding, model: &Model) -> bool {
    let (a, b) = (&cause.subject, &symptom.subject);
    if let (Some(a), Some(b)) = (a.connection_id, b.connection_id) {
        return a == b;
    }
    match (a.pid, b.pid) {
        (Some(a), Some(b)) => related(a, b, model),
        // What is said about the host reaches those it is about, and who they talk to.
        (None, Some(pid)) => reaches(cause, pid, model),
        (Some(pid), None) => reaches(symptom, pid, model),
        (None, None) => match &symptom.about {
            Some(pids) => pids.iter().any(|pid| reaches(cause, *pid, model)),
            None => true,
        },
    }
}

fn reaches(host: &Finding, pid: u32, model: &Model) -> bool {
    let about = host.about.as_ref();
    about.is_none_or(|pids| pids.iter().any(|p| related(*p, pid, model)))
}

/// The same process, or the other end of a connection.
fn related(a: u32, b: u32, model: &Model) -> bool {
    let talks = |e: &Endpoint, to: u32| e.clients.iter().any(|c| c.peer_pid == to);
    a == b
        || model
            .endpoints
            .iter()
            .any(|e| (e.pid == a && talks(e, b)) || (e.pid == b && talks(e, a)))
}
