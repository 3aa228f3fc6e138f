//! Which findings belong to the processes that somebody asked for.

use std::collections::BTreeSet;

use super::{Endpoint, Finding, Subject};

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
    /// they bear its consequences.
    pub(crate) fn finding(&self, f: &Finding) -> bool {
        let theirs = |pid: &u32| self.pids.contains(pid) || self.peers.contains(pid);
        if f.subject.pid.is_none() {
            return f.about.as_ref().is_none_or(|pids| pids.iter().any(theirs));
        }
        self.subject(&f.subject)
            || f.also.iter().any(|s| self.subject(s))
            || f.explains.iter().any(|x| self.subject(&x.subject))
    }
}
