//! What stands on the screen between two samples: the last model, with the counters of a glance.
//!
//! Called by the builder. Only the rows of the glance that are shown change; everything else is the last model's, shared with it. No rule
//! looks at such a model: windows begin and end with samples.

use std::collections::HashSet;

use transport::stats::{Role, Snapshot};

use super::build::totals;
use super::build_client::{number, renewed};
use super::join::{Side, is_connection, is_of};
use super::{Model, Shared};
use crate::rate::Span;
use crate::sample::{Glance, GlancedPage, Glimpse, Page, Sample};

/// Up to so many connections are all glanced at; beyond it only those on the screen.
const ALL: usize = 64;

/// What a glance after `sample` has to read: the connections in `on_screen`, or all if they are few.
pub(super) fn wanted(sample: &Sample, on_screen: &HashSet<u64>) -> Glance {
    let pages = || {
        let read = sample.pages.iter().enumerate();
        read.filter_map(|(number, page)| Some((number, page, page.snapshot()?)))
    };
    let connections = |s: &Snapshot| s.slots.iter().filter(|s| is_connection(s)).count();
    let served = pages().filter(|(_, _, s)| s.role == Role::Server);
    let all = served.map(|(_, _, s)| connections(s)).sum::<usize>() <= ALL
        && pages().map(|(_, _, s)| connections(s)).sum::<usize>() <= 2 * ALL;
    let of_page = |(number, page, snapshot): (usize, &Page, &Snapshot)| GlancedPage {
        number,
        pid: page.pid,
        link: page.link.clone(),
        process: snapshot.process,
        connections: connections(snapshot),
        slots: snapshot
            .slots
            .iter()
            .filter(|s| is_connection(s) && (all || on_screen.contains(&s.info.connection_id)))
            .map(|slot| {
                let slot = transport::stats::Slot {
                    index: slot.index,
                    info: slot.info.clone(),
                    tx: slot.tx,
                    rx: slot.rx,
                    wait: slot.wait,
                    req: slot.req,
                    house: slot.house,
                    ..transport::stats::Slot::default()
                };
                Glimpse {
                    before: slot.clone(),
                    slot,
                }
            })
            .collect(),
    };
    Glance {
        time: sample.time,
        before_ns: sample.time.monotonic_ns,
        pages: pages().map(of_page).collect(),
        outdated: false,
    }
}

/// What a glance changed in a model.
#[derive(Default)]
pub(super) struct Changed {
    /// Rows, by endpoint and position.
    pub(super) rows: Vec<(usize, usize)>,
    /// Endpoints all of whose rows changed, and so their sums.
    pub(super) totals: Vec<usize>,
}

/// The sides of the connections of a glance, those of one page together, and the way from one side of a connection to the other.
struct Sides<'a> {
    all: Vec<Side<'a>>,
    /// By connection and role. A list in order takes a third of what a table does to make, and it is made ten times a second.
    by_connection: Vec<((u64, bool), usize)>,
}

impl<'a> Sides<'a> {
    fn of(glance: &'a Glance, sample: &'a Sample, span: Span) -> Option<Self> {
        let most = glance.pages.iter().map(|p| p.slots.len()).sum();
        let mut all = Vec::with_capacity(most);
        let mut by_connection = Vec::with_capacity(most);
        for glanced in &glance.pages {
            let page = sample.pages.get(glanced.number)?;
            let snapshot = page.snapshot()?;
            for seen in &glanced.slots {
                let id = (seen.slot.info.connection_id, snapshot.role == Role::Server);
                by_connection.push((id, all.len()));
                all.push(side(glanced.number, page, snapshot, seen, span));
            }
        }
        // Of two that claim to be the same, the first counts.
        by_connection.sort_unstable();
        Some(Self { all, by_connection })
    }

    /// The side that plays `role` in this connection.
    fn find(&self, connection_id: u64, role: Role) -> Option<&Side<'a>> {
        let id = (connection_id, role == Role::Server);
        let at = self.by_connection.partition_point(|(other, _)| *other < id);
        let (found, at) = self.by_connection.get(at)?;
        (*found == id).then(|| &self.all[*at])
    }
}

/// `last`, as of `glance`; `sample` is the one that the glance continues.
pub(super) fn glanced(last: &Model, sample: &Sample, glance: &Glance) -> Option<(Model, Changed)> {
    let now_ns = glance.time.monotonic_ns;
    let span = Span::between(glance.before_ns, now_ns).ok()?;
    let sides = Sides::of(glance, sample, span)?;
    let mut model = last.clone();
    model.at_ns = now_ns;
    model.at_realtime_ns = glance.time.realtime_ns;
    model.interval_ns = Ok(span.ns());
    let mut changed = Changed::default();
    let mut rest = &sides.all[..];
    for glanced in &glance.pages {
        let own;
        (own, rest) = rest.split_at(glanced.slots.len());
        let Some(first) = own.first() else { continue };
        let mut endpoints = model.endpoints.iter();
        let Some(e) = endpoints.position(|e| is_of(&e.key, first.page, first.snapshot)) else {
            continue;
        };
        let endpoint = &mut model.endpoints[e];
        // Of the other side.
        let role = match endpoint.role {
            Role::Server => Role::Client,
            Role::Client => Role::Server,
        };
        let mut unseen = 0;
        for s in own {
            let place = (number(s.slot), s.slot.index);
            let at = endpoint
                .clients
                .binary_search_by_key(&place, |c| (c.number, c.slot));
            let Ok(at) = at else { continue };
            if role == Role::Server && endpoint.clients[at].shown_at_server {
                // Nobody sees this row: its counters stand in the server's.
                unseen += 1;
                continue;
            }
            let other = sides.find(s.slot.info.connection_id, role);
            let row = renewed(&endpoint.clients[at], s, other, now_ns);
            endpoint.clients[at] = Shared::new(row);
            changed.rows.push((e, at));
        }
        if own.len() == glanced.connections && unseen == 0 {
            let history = std::mem::take(&mut endpoint.totals.history);
            endpoint.totals = totals(&endpoint.clients);
            endpoint.totals.history = history;
            changed.totals.push(e);
        }
    }
    Some((model, changed))
}

fn side<'a>(
    number: usize,
    page: &'a Page,
    snapshot: &'a Snapshot,
    seen: &'a Glimpse,
    span: Span,
) -> Side<'a> {
    Side {
        number,
        page,
        snapshot,
        slot: &seen.slot,
        before: Some((&seen.before, span)),
    }
}
