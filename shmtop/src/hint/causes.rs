//! Which finding is another's cause, found by whom they are about: with a thousand clients that all suffer, comparing each finding with each
//! other is a million comparisons.

use std::collections::{HashMap, HashSet};

use super::rules;
use crate::model::{Finding, Model, Severity};

/// The first finding of each severity and above, by place in the list.
type First = [Option<usize>; 3];

/// A rule and whom it speaks of.
type Of<T> = HashMap<(&'static str, T), First>;

/// The findings of one list, by rule and whom they reach.
pub(super) struct Causes<'f> {
    findings: &'f [Finding],
    /// Of each rule, those that explain it.
    explained_by: HashMap<&'static str, Vec<&'static str>>,
    /// Who is connected to whom.
    talks: HashMap<u32, HashSet<u32>>,
    of_connection: Of<u64>,
    /// Processes that they are about or that talk to those. Of those that name a connection, and of those that name none.
    of_process: Of<u32>,
    of_process_alone: Of<u32>,
    /// What is said of the host: where it stands, and the processes that it reaches; `None`: all.
    hosts: Vec<(usize, Option<HashSet<u32>>)>,
}

/// Notes a finding of this severity, which comes after all that are noted.
fn note(first: &mut First, severity: Severity, at: usize) {
    for place in &mut first[..=severity as usize] {
        place.get_or_insert(at);
    }
}

impl<'f> Causes<'f> {
    pub(super) fn of(findings: &'f [Finding], model: &Model) -> Self {
        let mut explained_by: HashMap<&'static str, Vec<&'static str>> = HashMap::new();
        for rule in rules() {
            for id in rule.explains {
                explained_by.entry(id).or_default().push(rule.id);
            }
        }
        let mut talks: HashMap<u32, HashSet<u32>> = HashMap::new();
        for e in &model.endpoints {
            for c in &e.clients {
                talks.entry(e.pid).or_default().insert(c.peer_pid);
                talks.entry(c.peer_pid).or_default().insert(e.pid);
            }
        }
        let mut causes = Self {
            findings,
            explained_by,
            talks,
            of_connection: HashMap::new(),
            of_process: HashMap::new(),
            of_process_alone: HashMap::new(),
            hosts: Vec::new(),
        };
        // Of many about one process the first of each severity reaches whomever the others do.
        let mut spread: HashSet<(&str, Severity, u32, bool)> = HashSet::new();
        for (i, f) in findings.iter().enumerate() {
            let (pid, connection) = (f.subject.pid, f.subject.connection_id);
            if let Some(id) = connection {
                let first = causes.of_connection.entry((f.id, id)).or_default();
                note(first, f.severity, i);
            }
            let Some(pid) = pid else {
                let about = f.about.as_ref();
                let reached = about.map(|pids| pids.iter().flat_map(|p| causes.near(*p)).collect());
                causes.hosts.push((i, reached));
                continue;
            };
            if !spread.insert((f.id, f.severity, pid, connection.is_some())) {
                continue;
            }
            for near in causes.near(pid) {
                looked();
                let first = causes.of_process.entry((f.id, near)).or_default();
                note(first, f.severity, i);
                if connection.is_none() {
                    let first = causes.of_process_alone.entry((f.id, near)).or_default();
                    note(first, f.severity, i);
                }
            }
        }
        causes
    }

    /// A process and those at the other ends of its connections.
    fn near(&self, pid: u32) -> Vec<u32> {
        let others = self.talks.get(&pid).into_iter().flatten().copied();
        std::iter::once(pid)
            .chain(others.filter(|o| *o != pid))
            .collect()
    }

    /// The first in the list that explains this one, and is as grave.
    pub(super) fn first_of(&self, symptom: &Finding) -> Option<usize> {
        let ids = self.explained_by.get(symptom.id)?;
        let grave = symptom.severity as usize;
        let mut best: Option<usize> = None;
        let mut offer = |at: Option<usize>| best = best.into_iter().chain(at).min();
        for id in ids {
            looked();
            let subject = &symptom.subject;
            match (subject.pid, subject.connection_id) {
                (Some(pid), Some(connection)) => {
                    let same = self.of_connection.get(&(*id, connection));
                    offer(same.and_then(|first| first[grave]));
                    let alone = self.of_process_alone.get(&(*id, pid));
                    offer(alone.and_then(|first| first[grave]));
                }
                (Some(pid), None) => {
                    let near = self.of_process.get(&(*id, pid));
                    offer(near.and_then(|first| first[grave]));
                }
                // There is one of each rule.
                (None, _) => offer(self.of_host(id, symptom)),
            }
        }
        for (i, reached) in &self.hosts {
            let cause = &self.findings[*i];
            let explains = ids.contains(&cause.id) && cause.severity >= symptom.severity;
            if explains && reaches(reached, symptom) {
                offer(Some(*i));
            }
        }
        best
    }

    /// The first finding of rule `id` about somebody whom what is said of the host reaches.
    fn of_host(&self, id: &str, symptom: &Finding) -> Option<usize> {
        let about = symptom.about.as_ref();
        let reached: Option<HashSet<u32>> =
            about.map(|pids| pids.iter().flat_map(|p| self.near(*p)).collect());
        let mut all = self.findings.iter();
        all.position(|f| {
            let pid = f.subject.pid;
            f.id == id
                && f.severity >= symptom.severity
                && pid.is_some_and(|pid| reached.as_ref().is_none_or(|r| r.contains(&pid)))
        })
    }
}

/// Whether what is said of the host, and reaches these, can have this consequence.
fn reaches(reached: &Option<HashSet<u32>>, symptom: &Finding) -> bool {
    let reaches = |pid: u32| reached.as_ref().is_none_or(|r| r.contains(&pid));
    match (symptom.subject.pid, &symptom.about) {
        (Some(pid), _) => reaches(pid),
        (None, Some(pids)) => pids.iter().any(|pid| reaches(*pid)),
        (None, None) => true,
    }
}

#[cfg(not(test))]
fn looked() {}

#[cfg(test)]
thread_local! {
    static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
fn looked() {
    LOOKS.set(LOOKS.get() + 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Endpoint, Subject, build};
    use crate::sample::{Page, Sample};
    use proptest::prelude::*;
    use transport::stats::{Role, Slot, SlotKind, SlotState, Snapshot};

    const SERVER: u32 = 1;

    /// A server and so many clients, of pids 2 and up.
    fn model(clients: u32) -> Model {
        let slot = |id: u32, peer_pid| {
            let mut slot = Slot {
                index: id,
                ..Slot::default()
            };
            slot.info.kind = SlotKind::Connection;
            slot.info.state = SlotState::Open;
            slot.info.connection_id = u64::from(id) + 1;
            slot.info.peer_pid = peer_pid;
            slot
        };
        let server = Snapshot {
            role: Role::Server,
            slots: (0..clients).map(|n| slot(n, n + 2)).collect(),
            ..Snapshot::default()
        };
        let client = |n: u32| Snapshot {
            role: Role::Client,
            slots: vec![slot(n, SERVER)],
            ..Snapshot::default()
        };
        let clients = (0..clients).map(|n| Page::read(n + 2, client(n)));
        let sample = Sample {
            pages: std::iter::once(Page::read(SERVER, server))
                .chain(clients)
                .collect(),
            ..Sample::default()
        };
        build(None, &sample)
    }

    /// As it is meant: each is compared with each.
    fn plain(findings: &[Finding], symptom: &Finding, model: &Model) -> Option<usize> {
        let explains = |id: &str| rules().find(|r| r.id == id).map_or(&[][..], |r| r.explains);
        findings.iter().position(|f| {
            explains(f.id).contains(&symptom.id)
                && f.severity >= symptom.severity
                && concerns(f, symptom, model)
        })
    }

    fn concerns(cause: &Finding, symptom: &Finding, model: &Model) -> bool {
        let (a, b) = (&cause.subject, &symptom.subject);
        if let (Some(a), Some(b)) = (a.connection_id, b.connection_id) {
            return a == b;
        }
        let reaches = |host: &Finding, pid: u32| {
            let about = host.about.as_ref();
            about.is_none_or(|pids| pids.iter().any(|p| related(*p, pid, model)))
        };
        match (a.pid, b.pid) {
            (Some(a), Some(b)) => related(a, b, model),
            // What is said about the host reaches those it is about, and who they talk to.
            (None, Some(pid)) => reaches(cause, pid),
            (Some(pid), None) => reaches(symptom, pid),
            (None, None) => match &symptom.about {
                Some(pids) => pids.iter().any(|pid| reaches(cause, *pid)),
                None => true,
            },
        }
    }

    fn related(a: u32, b: u32, model: &Model) -> bool {
        let talks = |e: &Endpoint, to: u32| e.clients.iter().any(|c| c.peer_pid == to);
        let mut all = model.endpoints.iter();
        a == b || all.any(|e| (e.pid == a && talks(e, b)) || (e.pid == b && talks(e, a)))
    }

    fn finding(
        id: &'static str,
        severity: Severity,
        pid: Option<u32>,
        client: Option<u32>,
    ) -> Finding {
        let subject = Subject {
            pid,
            client,
            connection_id: client.map(|c| u64::from(c) + 1),
            ..Subject::default()
        };
        Finding::bare(id, severity, subject)
    }

    /// One of the host, of a process, or of a connection, whose subject is its server.
    fn any_finding() -> impl Strategy<Value = Finding> {
        let ids: Vec<&'static str> = rules().map(|r| r.id).collect();
        let severity = prop_oneof![
            Just(Severity::Info),
            Just(Severity::Warn),
            Just(Severity::Crit)
        ];
        let about = prop::option::of(prop::collection::vec(1u32..7, 0..3));
        (prop::sample::select(ids), severity, 0u32..12, about).prop_map(
            |(id, severity, whom, about)| match whom {
                0..3 => Finding {
                    about,
                    ..finding(id, severity, None, None)
                },
                3..8 => finding(id, severity, Some(whom - 2), None),
                _ => finding(id, severity, Some(SERVER), Some(whom - 8)),
            },
        )
    }

    proptest! {
        #[test]
        fn the_cause_is_the_one_that_comparing_each_with_each_finds(
            findings in prop::collection::vec(any_finding(), 0..40),
        ) {
            let model = model(4);
            let causes = Causes::of(&findings, &model);
            for f in &findings {
                prop_assert_eq!(causes.first_of(f), plain(&findings, f, &model), "{:?}", f);
            }
        }
    }

    #[test]
    fn twice_as_many_that_suffer_are_twice_the_work() {
        let looks = |clients: u32| {
            let model = model(clients);
            let rows = (0..clients).flat_map(|n| {
                let of = |id, client| finding(id, Severity::Warn, Some(SERVER), client);
                let own = |id| finding(id, Severity::Warn, Some(n + 2), None);
                [
                    own("idle-burn"),
                    own("yield-storm"),
                    of("ring-full", Some(n)),
                    of("tail-spread", Some(n)),
                ]
            });
            let findings: Vec<Finding> = rows.collect();
            LOOKS.set(0);
            let causes = Causes::of(&findings, &model);
            let found = findings.iter().filter_map(|f| causes.first_of(f));
            assert_eq!(
                found.count(),
                2 * clients as usize,
                "of each, a storm and a tail"
            );
            LOOKS.get()
        };
        let (few, many) = (looks(200), looks(400));
        assert!(many <= few * 2 + 100, "{few} looks of 200, {many} of 400");
    }
}
