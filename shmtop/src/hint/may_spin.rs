//! Who may spin without being seen at it: the other ends of connections, where their pages can't be read.

use std::collections::BTreeSet;

use transport::stats::{Role, Via};

use super::Context;
use super::context::Waiter;
use super::ring::hidden;
use super::sched::{DELAY, SPINNER};
use crate::reading::Why;
use crate::sample::{Process, Thread};

/// Why nobody knows whether processes whose pages can't be seen spin, where a ring thread waits for a core, and with those there would be more spinners
/// than CPUs that it may use, or than its quota.
pub(super) fn unseen(ctx: &Context<'_>, online: &[u32]) -> Option<Why> {
    let hidden = all_hidden(ctx);
    if hidden.is_empty() {
        return None;
    }
    let waiters = ctx.waiters();
    let spinners: Vec<&Waiter<'_>> = waiters.iter().filter(|w| w.spin > SPINNER).collect();
    let crowded = |spinners: usize, hidden: &[&Hidden<'_>], room: f64| {
        let all = spinners + hidden.len();
        !hidden.is_empty() && all > 1 && all as f64 > room
    };
    let waiting = waiters
        .iter()
        .filter(|w| w.run_delay().is_some_and(|delay| delay > DELAY));
    for w in waiting {
        let cpus = w.cpus_of(online);
        let there: Vec<_> = hidden.iter().filter(|h| h.may_run_on(&cpus)).collect();
        let meets = |s: &&&Waiter<'_>| !s.cpus_of(online).is_disjoint(&cpus);
        if crowded(
            spinners.iter().filter(meets).count(),
            &there,
            cpus.len() as f64,
        ) {
            return Some(too_many(&there));
        }
        for (path, quota) in ctx.quotas_of(w) {
            let there: Vec<_> = hidden.iter().filter(|h| h.may_be_in(&path)).collect();
            let shares = |s: &&&Waiter<'_>| ctx.quotas_of(s).iter().any(|(p, _)| *p == path);
            if crowded(spinners.iter().filter(shares).count(), &there, quota) {
                return Some(too_many(&there));
            }
        }
    }
    None
}

/// Whether two or more spin, or may, and wait for a core as far as is known: where the CPUs are not, nobody can say whether they have enough of them.
pub(super) fn may_meet(ctx: &Context<'_>) -> bool {
    let waiters = ctx.waiters();
    let (spinners, others): (Vec<_>, Vec<_>) = waiters.iter().partition(|w| w.spin > SPINNER);
    let waits = |w: &&Waiter<'_>| w.run_delay().is_some_and(|delay| delay > DELAY);
    if spinners.len() > 1 && spinners.iter().any(|w| w.run_delay().is_none() || waits(w)) {
        return true;
    }
    let hidden = all_hidden(ctx).len();
    hidden > 0 && spinners.len() + hidden > 1 && spinners.iter().chain(&others).any(waits)
}

fn too_many(hidden: &[&Hidden<'_>]) -> Why {
    let servers = hidden.iter().filter(|h| h.role == Role::Server).count();
    let who = match (hidden.len() - servers, servers) {
        (1, 0) => "a client spins".to_owned(),
        (n, 0) => format!("{n} clients spin"),
        (0, 1) => "a server spins".to_owned(),
        (0, n) => format!("{n} servers spin"),
        (n, servers) => format!("{} servers and clients spin", n + servers),
    };
    Why::not_visible(format!(
        "ring threads wait for a core, and whether {who} can't be seen"
    ))
}

/// The other end of a connection, where its page can't be seen: it may spin there.
struct Hidden<'a> {
    role: Role,
    process: Option<&'a Process>,
}

impl Hidden<'_> {
    /// Whether a thread of it may run there, as far as that is known.
    fn may_run_on(&self, cpus: &BTreeSet<u32>) -> bool {
        let is_elsewhere = |t: &Thread| {
            let allowed = t.allowed_cpus.known();
            allowed.is_some_and(|allowed| !allowed.iter().any(|c| cpus.contains(c)))
        };
        self.process.is_none_or(|p| {
            let are_all = p.thread_count.known() == Some(&(p.threads.len() as u32));
            !are_all || !p.threads.iter().all(is_elsewhere)
        })
    }

    /// Whether it is in that group, as far as that is known.
    fn may_be_in(&self, path: &str) -> bool {
        let groups = self.process.and_then(|p| p.cgroups.cpu.known());
        groups.is_none_or(|all| all.iter().any(|g| g.path == path))
    }
}

/// Clients, one for each connection that their servers show, and servers, one for all that their clients do. Who is asked for nothing does not spin.
fn all_hidden<'a>(ctx: &Context<'a>) -> Vec<Hidden<'a>> {
    let mut servers = BTreeSet::new();
    let mut all = Vec::new();
    for e in &ctx.model.endpoints {
        for c in &e.clients {
            let is_hidden = match e.role {
                Role::Server => c.wait.clone().err().and_then(hidden).is_some(),
                Role::Client => !c.shown_at_server,
            };
            let moves = c.requests_per_s.as_ref().is_ok_and(|rate| *rate > 0.0);
            let is_asked = || ctx.slot(e, c).is_ok_and(|s| s.req.requests > s.req.replies);
            let mut is_first =
                || e.role == Role::Server || servers.insert((c.peer_pid, &e.socket_path));
            // A client that waits for a socket sleeps. A server may spin for others meanwhile.
            if is_hidden
                && (e.role == Role::Client || c.transport != Via::Socket)
                && (moves || is_asked())
                && is_first()
            {
                let role = match e.role {
                    Role::Server => Role::Client,
                    Role::Client => Role::Server,
                };
                all.push(Hidden {
                    role,
                    process: ctx.process(c.peer_pid).ok(),
                });
            }
        }
    }
    all
}
