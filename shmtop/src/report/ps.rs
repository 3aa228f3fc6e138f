//! `ps`: what is running.

use serde_json::{Value, json};
use transport::stats::Role;

use super::json::{role, unreadable};
use super::table::align;
use crate::model::{Endpoint, Model};
use crate::text;

/// Connections that the page of a client process has room for; it is silent on those beyond.
const ROOM: usize = 128;

/// One line per endpoint, and one per page that can't be read.
pub fn ps(model: &Model) -> String {
    let head = [
        "ROLE", "NAME", "PID", "UID", "CLIENTS", "REFUSED", "VIA", "UP", "BUILD", "WHERE", "SOCKET",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(model.endpoints.iter().map(|e| line(e, model)));
    let mut out = align(&rows, &[0, 1, 6, 8, 9, 10]);
    for u in &model.unreadable {
        let pid = u.pid.map_or("?".into(), |p| p.to_string());
        out += &format!("not readable: {} (pid {pid}): {}\n", u.name, u.why);
    }
    out
}

fn line(e: &Endpoint, model: &Model) -> [String; 11] {
    let t = &e.totals;
    let via = match (t.shm, t.socket) {
        (0, 0) => "–".into(),
        (n, 0) => format!("{n} shm"),
        (0, n) => format!("{n} socket"),
        (a, b) => format!("{a} shm, {b} socket"),
    };
    let clients = match e.role {
        Role::Server => format!("{}/{}", t.clients, e.admission.max_clients),
        Role::Client => match unlisted(e, model) {
            Some(0) => t.clients.to_string(),
            Some(more) => format!("{} of {}", t.clients, t.clients + more),
            None => format!("{}+", t.clients),
        },
    };
    let refused = match e.role {
        Role::Server => e.admission.rejected.to_string(),
        Role::Client => "–".into(),
    };
    [
        role(e.role).into(),
        e.name.clone(),
        e.pid.to_string(),
        e.uid.to_string(),
        clients,
        refused,
        via,
        text::ns(e.age_ns),
        if e.debug_build { "debug" } else { "release" }.into(),
        e.place.clone().unwrap_or_else(|| "here".into()),
        e.socket_path.clone(),
    ]
}

/// How many connections a client process has that its own page has no room for: its servers' pages show them. `None` if it may have some
/// and no server's page that shows its connections can be seen.
fn unlisted(e: &Endpoint, model: &Model) -> Option<usize> {
    // A page with room to spare shows all, but for those that are just being made.
    if e.role == Role::Server || e.totals.clients < ROOM {
        return Some(0);
    }
    let servers = model.endpoints.iter().filter(|s| s.role == Role::Server);
    let served = servers.flat_map(|s| &s.clients);
    let served = served.filter(|c| c.peer_pid == e.pid).count();
    served.checked_sub(e.totals.clients)
}

/// The same as JSON.
pub fn ps_json(model: &Model) -> Value {
    let endpoints: Vec<Value> = model
        .endpoints
        .iter()
        .map(|e| {
            let unlisted = unlisted(e, model);
            let mut endpoint = json!({
                "name": e.name, "pid": e.pid, "role": role(e.role), "uid": e.uid, "place": e.place,
                "clients": e.totals.clients, "shm": e.totals.shm, "socket": e.totals.socket,
                "unlisted": unlisted, "rejected": e.admission.rejected,
                "age_ns": e.age_ns, "socket_path": e.socket_path,
            });
            if unlisted.is_none() {
                endpoint["why"] =
                    "its page is full, and no page of a server shows as many connections of it"
                        .into();
            }
            endpoint
        })
        .collect();
    json!({ "schema": 1, "endpoints": endpoints, "unreadable": unreadable(model) })
}
