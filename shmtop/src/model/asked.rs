//! Whose endpoints somebody asked for, and which findings belong to those.

use std::collections::{BTreeSet, HashSet};

use transport::stats::Role;

use super::{Client, Endpoint, Finding, LeftOut, Model, Shared, Subject};

/// Whose endpoints somebody asked for: everybody's if nothing is said. It is made of a whole model, since rules compare those that
/// were asked for with all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Only of these processes, unless there are none.
    pub pids: Vec<u32>,
    /// Only with this in their names, in letters of either size.
    pub name: Option<String>,
}

impl Choice {
    /// Whether everybody's endpoints are wanted.
    pub fn is_everything(&self) -> bool {
        self.pids.is_empty() && self.name.is_none()
    }

    /// Whether an endpoint of this process and name is wanted.
    pub fn wants(&self, pid: u32, name: &str) -> bool {
        (self.pids.is_empty() || self.pids.contains(&pid))
            && self
                .name
                .as_ref()
                .is_none_or(|n| name.to_lowercase().contains(&n.to_lowercase()))
    }

    /// Leaves the endpoints that are wanted, and what is said of them.
    pub fn select(&self, model: &mut Model) {
        if self.is_everything() {
            return;
        }
        let (wanted, others): (Vec<_>, Vec<_>) = std::mem::take(&mut model.endpoints)
            .into_iter()
            .partition(|e| self.wants(e.pid, &e.name));
        model.others = others.len();
        let pids: BTreeSet<u32> = wanted.iter().map(|e| e.pid).collect();
        let servers = others.iter().filter(|e| e.role == Role::Server);
        model.endpoints = wanted;
        let processes = model.processes_of_connections();
        let serves = |e: &Shared<Endpoint>| {
            let theirs = e.clients.iter().filter_map(|c| {
                let by_pid = pids.get(&c.peer_pid);
                let pid = processes.get(&c.connection_id).or(by_pid)?;
                Some((*pid, c.connection_id))
            });
            let (clients, connections): (Vec<u32>, Vec<u64>) = theirs.unzip();
            (!clients.is_empty()).then(|| LeftOut {
                key: e.key.clone(),
                clients,
                connections,
            })
        };
        model.left_out = servers.filter_map(serves).collect::<Vec<_>>().into();
        // A client's row has its best place at the server; when the client is asked for and its server is not, the row stands with
        // the client.
        let servers = model.endpoints.iter().filter(|e| e.role == Role::Server);
        let clients = servers.flat_map(|e| &e.clients);
        let at_servers: HashSet<u64> = clients.map(|c| c.connection_id).collect();
        for e in &mut model.endpoints {
            let apart = |c: &Client| c.shown_at_server && !at_servers.contains(&c.connection_id);
            if e.clients.iter().any(|c| apart(c)) {
                for c in e.clients.iter_mut().filter(|c| apart(c)) {
                    c.shown_at_server = false;
                }
            }
        }
        let unreadable = model.unreadable.len();
        model
            .unreadable
            .retain(|u| u.pid.is_none_or(|p| self.wants(p, &u.name)));
        model.others_unreadable = unreadable - model.unreadable.len();
        let unreadable = model.unreadable.iter().filter_map(|u| u.pid);
        // Who was asked for and has died has no endpoint any more, but left others behind.
        let none = unreadable.chain(self.pids.iter().copied());
        let asked = Asked::new(model.endpoints.iter().map(|e| &**e), none);
        model.findings.retain(|f| asked.finding(f));
        model.unknown.retain(|u| asked.subject(&u.subject));
    }
}

/// Processes that were asked for, their connections, and who is at the other end of those.
pub(crate) struct Asked {
    pids: BTreeSet<u32>,
    peers: BTreeSet<u32>,
    connections: BTreeSet<u64>,
}

impl Asked {
    /// Of their endpoints, and the pids of those that have none to be read.
    pub(crate) fn new<'e>(
        endpoints: impl Iterator<Item = &'e Endpoint> + Clone,
        others: impl Iterator<Item = u32>,
    ) -> Self {
        let clients = endpoints.clone().flat_map(|e| &e.clients);
        Self {
            pids: endpoints.map(|e| e.pid).chain(others).collect(),
            peers: clients.clone().map(|c| c.peer_pid).collect(),
            connections: clients.map(|c| c.connection_id).collect(),
        }
    }

    /// Whether a subject is one of them, a connection of theirs, or the host.
    pub(crate) fn subject(&self, s: &Subject) -> bool {
        s.pid.is_none_or(|pid| self.pids.contains(&pid))
            || s.connection_id
                .is_some_and(|id| self.connections.contains(&id))
    }

    /// Whether a finding is theirs. What is said about the host may be about somebody else on it; and a cause elsewhere counts if
    /// they bear its consequences; or if it is one that it came from.
    pub(crate) fn finding(&self, f: &Finding) -> bool {
        let theirs = |pid: &u32| self.pids.contains(pid) || self.peers.contains(pid);
        let about = f.about.as_ref().map(|pids| pids.iter().any(theirs));
        if f.subject.pid.is_none() {
            return about != Some(false);
        }
        self.subject(&f.subject)
            || about == Some(true)
            || f.also.iter().any(|s| self.subject(s))
            || f.explains.iter().any(|x| self.subject(&x.subject))
    }
}
