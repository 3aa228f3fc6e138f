//! How many more clients fit into a server, and which limit says so: one answer for the footer and the limits page.

use crate::model::Endpoint;

/// Room left, and what bounds it: the smallest of what is known.
pub(super) fn room(server: &Endpoint) -> Option<(u64, &'static str)> {
    let limits = &server.limits;
    let most = server.admission.max_clients;
    let places = (most > 0).then(|| most.saturating_sub(server.totals.clients as u64));
    [
        (limits.room_fds.as_ref().ok().copied(), "fds"),
        (limits.room_memory.as_ref().ok().copied(), "memory"),
        (places, "max clients"),
    ]
    .into_iter()
    .filter_map(|(n, what)| Some((n?, what)))
    .min_by_key(|(n, _)| *n)
}
