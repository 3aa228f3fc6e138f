//! Which clients are listed, in which order: filter and sort, for the overview, for moving the selection and for reports.

use std::cmp::Ordering;

use transport::stats::Role;

use super::{Client, Endpoint, Model, Quantile};
use crate::reading::Reading;

/// Which clients are listed, and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listing<'a> {
    /// Words that a client must match.
    pub filter: &'a str,
    /// What the clients are sorted by.
    pub sort: SortKey,
    /// Whether in inverted order.
    pub inverted: bool,
}

/// What the clients are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SortKey {
    /// Client number.
    #[default]
    Client,
    /// Peer's pid.
    Peer,
    /// Transport.
    Via,
    /// Requests per second.
    Requests,
    /// Bytes per second.
    Bytes,
    /// Fill of the request ring.
    RequestRing,
    /// Fill of the reply ring.
    ReplyRing,
    /// Pointer-cache hits.
    Hits,
    /// Share of time awake while waiting.
    Wait,
    /// Median round trip.
    P50,
    /// 99th percentile.
    P99,
    /// 99.9th percentile.
    P999,
    /// Verdict.
    Bound,
}

impl SortKey {
    /// All, in the order of the columns.
    pub const ALL: [Self; 13] = [
        Self::Client,
        Self::Peer,
        Self::Via,
        Self::Requests,
        Self::Bytes,
        Self::RequestRing,
        Self::ReplyRing,
        Self::Hits,
        Self::Wait,
        Self::P50,
        Self::P99,
        Self::P999,
        Self::Bound,
    ];

    /// Name on the command line and in the footer.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Peer => "peer",
            Self::Via => "via",
            Self::Requests => "requests",
            Self::Bytes => "bytes",
            Self::RequestRing => "ring",
            Self::ReplyRing => "reply-ring",
            Self::Hits => "hits",
            Self::Wait => "wait",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Bound => "bound",
        }
    }

    /// The key of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == name)
    }

    /// The key `by` columns further on, round and round.
    pub fn turn(self, by: isize) -> Self {
        let n = Self::ALL.len() as isize;
        Self::ALL[(self as isize + by).rem_euclid(n) as usize]
    }
}

/// The clients of one endpoint that pass the filter, in order.
#[derive(Debug)]
pub struct Group<'a> {
    /// The endpoint.
    pub endpoint: &'a Endpoint,
    /// Its clients.
    pub clients: Vec<&'a Client>,
}

/// Endpoints with the clients to list. A client process is left out where its server shows the same connection; a
/// server without clients is listed, unless a filter asks for clients.
pub fn groups<'a>(model: &'a Model, listing: Listing<'_>) -> Vec<Group<'a>> {
    groups_at(model, listing, At::Screen)
}

/// The same in the order of what the plain table shows.
pub(crate) fn tabulated<'a>(model: &'a Model, listing: Listing<'_>) -> Vec<Group<'a>> {
    groups_at(model, listing, At::Table)
}

/// The same in the order of what a report for programs shows: the last interval, whatever it carries.
pub(crate) fn of_interval<'a>(model: &'a Model, listing: Listing<'_>) -> Vec<Group<'a>> {
    groups_at(model, listing, At::Interval)
}

fn groups_at<'a>(model: &'a Model, listing: Listing<'_>, at: At) -> Vec<Group<'a>> {
    let words = words(listing.filter);
    let mut out = Vec::new();
    for endpoint in &model.endpoints {
        let mut clients: Vec<&Client> = endpoint
            .clients
            .iter()
            .map(|c| &**c)
            .filter(|c| endpoint.role == Role::Server || !c.shown_at_server)
            .filter(|c| matches(&words, endpoint, c))
            .collect();
        if clients.is_empty() && (endpoint.role == Role::Client || !words.is_empty()) {
            continue;
        }
        clients.sort_by(|a, b| order(listing, a, b, at));
        out.push(Group { endpoint, clients });
    }
    out
}

/// Leaves the clients that pass the filter, and the endpoints that have one: for what lists them in another way than [`groups`].
pub(crate) fn keep_matching(model: &mut Model, filter: &str) {
    let words = words(filter);
    if words.is_empty() {
        return;
    }
    model.endpoints.retain_mut(|e| {
        let clients = e.clients.iter().filter(|c| matches(&words, e, c)).cloned();
        e.clients = clients.collect();
        !e.clients.is_empty()
    });
}

/// Brings the clients of each endpoint into the order of `listing`, by the last interval: for what lists them in another way than [`groups`].
pub(crate) fn sort(model: &mut Model, listing: Listing<'_>) {
    for endpoint in &mut model.endpoints {
        endpoint
            .clients
            .sort_by(|a, b| order(listing, a, b, At::Interval));
    }
}

/// Where rows are shown, and so what they are sorted by.
#[derive(Clone, Copy)]
enum At {
    /// Rates of the last second; one that doesn't run has its state in place of what bounds it, and of what it waits for.
    Screen,
    /// Rates of the last interval; percentiles as on the screen. The state has a column of its own.
    Table,
    /// Rates and percentiles of the last interval.
    Interval,
}

fn order(listing: Listing<'_>, a: &Client, b: &Client, at: At) -> Ordering {
    let order = compare(listing.sort, a, b, at);
    let order = if listing.inverted {
        order.reverse()
    } else {
        order
    };
    order.then(a.number.cmp(&b.number))
}

fn words(filter: &str) -> Vec<String> {
    filter.split_whitespace().map(str::to_lowercase).collect()
}

/// The same clients without their groups.
pub fn flat<'a>(groups: &[Group<'a>]) -> Vec<(&'a Endpoint, &'a Client)> {
    groups
        .iter()
        .flat_map(|g| g.clients.iter().map(|c| (g.endpoint, *c)))
        .collect()
}

/// Whether a client matches all words: number, peer, transport, state, verdict, endpoint.
pub fn matches(words: &[String], endpoint: &Endpoint, client: &Client) -> bool {
    words.iter().all(|word| {
        client.number.to_string() == *word
            || client.peer_pid.to_string().starts_with(word)
            || endpoint.pid.to_string() == *word
            || client.transport.name().contains(word)
            || client.state.name().contains(word)
            || client.verdict.bound.name().contains(word)
            || client.peer_name.to_lowercase().contains(word)
            || client.peer_comm.to_lowercase().contains(word)
            || endpoint.name.to_lowercase().contains(word)
    })
}

/// Numbers sort largest first, names and ids smallest first; what is missing comes last.
fn compare(key: SortKey, a: &Client, b: &Client, at: At) -> Ordering {
    match key {
        SortKey::Client => a.number.cmp(&b.number),
        SortKey::Peer => a.peer_pid.cmp(&b.peer_pid),
        SortKey::Via => (a.transport as u8).cmp(&(b.transport as u8)),
        SortKey::Bound => bound(a, at).cmp(bound(b, at)),
        _ => {
            let (x, y) = (number(key, a, at), number(key, b, at));
            match (x, y) {
                (Some(x), Some(y)) => y.total_cmp(&x),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => Ordering::Equal,
            }
        }
    }
}

/// What stands in the column of that name.
fn bound(c: &Client, at: At) -> &'static str {
    match at {
        At::Screen if c.state.stands_still() => c.state.name(),
        _ => c.verdict.bound.name(),
    }
}

/// What is sorted by is what is shown.
fn number(key: SortKey, c: &Client, at: At) -> Option<f64> {
    fn float(r: &Reading<f64>) -> Option<f64> {
        r.as_ref().ok().copied()
    }
    let rtt = |q: Quantile| {
        let of = match at {
            At::Screen | At::Table => c.rtt.shown(q),
            At::Interval => c.rtt.interval.as_ref(),
        };
        of.ok().map(|p| q.of(p) as f64)
    };
    match (key, at) {
        (SortKey::Requests, At::Screen) => c.steady_requests_per_s().ok(),
        (SortKey::Requests, At::Table | At::Interval) => float(&c.requests_per_s),
        (SortKey::Bytes, At::Screen) => c.steady_bytes_per_s().ok(),
        (SortKey::Bytes, At::Table | At::Interval) => float(&c.bytes_per_s),
        (SortKey::RequestRing, _) => c.request_ring().fill(),
        (SortKey::ReplyRing, _) => c.reply_ring().fill(),
        (SortKey::Hits, _) => float(&c.request_ring().cached_index_hit_ratio),
        (SortKey::Wait | SortKey::P50 | SortKey::P99 | SortKey::P999, At::Screen)
            if c.state.stands_still() =>
        {
            None
        }
        (SortKey::Wait, _) => {
            let wait = c.wait.as_ref().ok()?;
            Some(float(&wait.spin_share)? + float(&wait.yield_share)?)
        }
        (SortKey::P50, _) => rtt(Quantile::P50),
        (SortKey::P99, _) => rtt(Quantile::P99),
        (SortKey::P999, _) => rtt(Quantile::P999),
        (SortKey::Client | SortKey::Peer | SortKey::Via | SortKey::Bound, _) => None,
    }
}
