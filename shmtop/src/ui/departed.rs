//! Servers that went away, and whom they left behind: what no model says by itself, as each knows only who is there.

use std::collections::{HashSet, VecDeque};

use transport::stats::Role;

use super::state::Lost;
use crate::model::{ClientState, Endpoint, EndpointKey, Model};

/// So many are kept: of a crowd that comes and goes only the last ones can matter.
const MOST: usize = 16;

/// A server that ends in good order closes its connections first: who had one so long before its end is left behind.
const CLOSING_NS: u64 = 3_000_000_000;

/// A server that is not there any more.
#[derive(Debug)]
struct Departed {
    name: String,
    pid: u32,
    /// Moment of the first model without it.
    at_ns: u64,
    /// Processes that were connected to it.
    clients: HashSet<u32>,
    /// Their connections.
    connections: HashSet<u64>,
}

/// The servers that went away last, oldest first.
#[derive(Debug, Default)]
pub(super) struct DepartedServers(VecDeque<Departed>);

impl DepartedServers {
    /// Notes which servers are missing from `now`, the next model after those of `before`, the last of which comes first.
    pub(super) fn note<'m>(
        &mut self,
        before: impl Iterator<Item = &'m Model> + Clone,
        now: &Model,
    ) {
        let Some(last) = before.clone().next() else {
            return;
        };
        let there: HashSet<&EndpointKey> = servers(now).collect();
        for key in servers(last).filter(|key| !there.contains(key)) {
            let mut gone = Departed {
                name: key.name.clone(),
                pid: key.pid,
                at_ns: now.at_ns,
                clients: HashSet::new(),
                connections: HashSet::new(),
            };
            let is_recent = |m: &&Model| last.at_ns.saturating_sub(m.at_ns) <= CLOSING_NS;
            for model in before.clone().take_while(is_recent) {
                gone.served(key, model);
            }
            self.0.push_back(gone);
            if self.0.len() > MOST {
                self.0.pop_front();
            }
        }
    }

    /// The server that went away last, up to this model, and left clients behind that are without one in it.
    pub(super) fn missed(&self, model: &Model) -> Option<Lost> {
        let mut until = self.0.iter().rev().filter(|d| d.at_ns <= model.at_ns);
        until.find_map(|gone| {
            let alone = |e: &&Endpoint| gone.clients.contains(&e.pid) && gone.was_all_of(e);
            let mut alone = model.endpoints.iter().map(|e| &**e).filter(alone);
            let first = alone.next()?;
            Some(Lost {
                server: format!("{} ({})", gone.name, gone.pid),
                first: format!("{} ({})", first.name, first.pid),
                more: alone.count(),
            })
        })
    }
}

impl Departed {
    /// Adds who was connected to it in `model`.
    fn served(&mut self, server: &EndpointKey, model: &Model) {
        if let Some(e) = model.endpoints.iter().find(|e| e.key == *server) {
            let processes = model.processes_of_connections();
            for c in &e.clients {
                let pid = processes.get(&c.connection_id).unwrap_or(&c.peer_pid);
                self.clients.insert(*pid);
                self.connections.insert(c.connection_id);
            }
        } else if let Some(other) = model.left_out.iter().find(|o| o.key == *server) {
            self.clients.extend(&other.clients);
            self.connections.extend(&other.connections);
        }
    }

    /// Whether a client process has no connection, or only dead ones to this server.
    fn was_all_of(&self, e: &Endpoint) -> bool {
        let dead = |c: &crate::model::Client| {
            c.state == ClientState::Dead && self.connections.contains(&c.connection_id)
        };
        e.role == Role::Client && e.clients.iter().all(|c| dead(c))
    }
}

/// The servers of a model, shown or not.
fn servers(model: &Model) -> impl Iterator<Item = &EndpointKey> {
    let shown = model.endpoints.iter().filter(|e| e.role == Role::Server);
    let others = model.left_out.iter().map(|o| &o.key);
    shown.map(|e| &e.key).chain(others)
}
