//! Servers that went away, and whom they left behind: what no model says by itself, as each knows only who is there.

use std::collections::{HashSet, VecDeque};

use transport::stats::Role;

use super::state::Lost;
use crate::model::{ClientState, Endpoint, EndpointKey, Model};

/// So many are kept: of a crowd that comes and goes only the last ones can matter.
const MOST: usize = 16;

/// A server that is not there any more.
#[derive(Debug)]
struct Departed {
    name: String,
    pid: u32,
    /// Moment of the first model without it.
    at_ns: u64,
    /// Processes that were connected to it.
    clients: Vec<u32>,
}

/// The servers that went away last, oldest first.
#[derive(Debug, Default)]
pub(super) struct DepartedServers(VecDeque<Departed>);

impl DepartedServers {
    /// Notes which servers of `before` are missing from `now`, the next model.
    pub(super) fn note(&mut self, before: &Model, now: &Model) {
        let there: HashSet<&EndpointKey> = servers(now).collect();
        for key in servers(before).filter(|key| !there.contains(key)) {
            self.0.push_back(Departed {
                name: key.name.clone(),
                pid: key.pid,
                at_ns: now.at_ns,
                clients: clients_of(key, before),
            });
            if self.0.len() > MOST {
                self.0.pop_front();
            }
        }
    }

    /// The server that went away last, up to this model, and left clients behind that are without one in it.
    pub(super) fn missed(&self, model: &Model) -> Option<Lost> {
        let mut until = self.0.iter().rev().filter(|d| d.at_ns <= model.at_ns);
        until.find_map(|gone| {
            let alone = |e: &&Endpoint| gone.clients.contains(&e.pid) && is_alone(e, gone.pid);
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

/// Whether a client process has no connection, or only dead ones to `server`.
fn is_alone(e: &Endpoint, server: u32) -> bool {
    let dead = |c: &crate::model::Client| c.peer_pid == server && c.state == ClientState::Dead;
    e.role == Role::Client && e.clients.iter().all(|c| dead(c))
}

/// The servers of a model, shown or not.
fn servers(model: &Model) -> impl Iterator<Item = &EndpointKey> {
    let shown = model.endpoints.iter().filter(|e| e.role == Role::Server);
    let others = model.left_out.iter().map(|o| &o.key);
    shown.map(|e| &e.key).chain(others)
}

/// The processes connected to one of them.
fn clients_of(server: &EndpointKey, model: &Model) -> Vec<u32> {
    let shown = model.endpoints.iter().find(|e| e.key == *server);
    let other = model.left_out.iter().find(|o| o.key == *server);
    match (shown, other) {
        (Some(e), _) => e.clients.iter().map(|c| c.peer_pid).collect(),
        (None, other) => other.map_or(Vec::new(), |o| o.clients.clone()),
    }
}
