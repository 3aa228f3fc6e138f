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
            Unlisted::All(0) => t.clients.to_string(),
            Unlisted::All(more) => format!("{} of {}", t.clients, t.clients + more),
            Unlisted::AtLeast(more) => format!("{}+", t.clients + more),
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

/// How many connections a client process has that its own page has no room for: its servers' pages show them.
enum Unlisted {
    All(usize),
    /// There may be more, and no page that can be seen shows them.
    AtLeast(usize),
}

impl Unlisted {
    fn why(&self) -> Option<String> {
        match self {
            Self::All(_) => None,
            Self::AtLeast(0) => Some("its page is full, and no page of a server that can be seen shows more connections of it".into()),
            Self::AtLeast(more) => Some(format!(
                "its page is full; the servers' pages that can be seen show {more} more connections of it, and there may be others"
            )),
        }
    }
}

fn unlisted(e: &Endpoint, model: &Model) -> Unlisted {
    // A page with room to spare shows all, but for those that are just being made.
    if e.role == Role::Server || e.totals.clients < ROOM {
        return Unlisted::All(0);
    }
    let servers = model.endpoints.iter().filter(|s| s.role == Role::Server);
    let shown = servers.flat_map(|s| &s.clients).map(|c| c.peer_pid);
    let left_out = model.left_out.iter().flat_map(|s| &s.clients).copied();
    let served = shown.chain(left_out).filter(|pid| *pid == e.pid).count();
    let is_all =
        model.unreadable.is_empty() && model.others_unreadable == 0 && model.unsearched == 0;
    match served.checked_sub(e.totals.clients) {
        Some(more) if is_all => Unlisted::All(more),
        more => Unlisted::AtLeast(more.unwrap_or(0)),
    }
}

/// The same as JSON.
pub fn ps_json(model: &Model) -> Value {
    let endpoints: Vec<Value> = model
        .endpoints
        .iter()
        .map(|e| {
            let unlisted = unlisted(e, model);
            let all = match unlisted {
                Unlisted::All(more) => Some(more),
                Unlisted::AtLeast(_) => None,
            };
            let mut endpoint = json!({
                "name": e.name, "pid": e.pid, "role": role(e.role), "uid": e.uid, "place": e.place,
                "clients": e.totals.clients, "shm": e.totals.shm, "socket": e.totals.socket,
                "unlisted": all, "rejected": e.admission.rejected,
                "age_ns": e.age_ns, "socket_path": e.socket_path,
            });
            if let Some(why) = unlisted.why() {
                endpoint["why"] = why.into();
            }
            endpoint
        })
        .collect();
    json!({ "schema": 1, "endpoints": endpoints, "unreadable": unreadable(model) })
}
