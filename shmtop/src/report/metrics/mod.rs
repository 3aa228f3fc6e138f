//! Metrics for Prometheus, for `snapshot -f prom|openmetrics` and `export`: every counter of the stats page by its schema, and what
//! the model adds (percentiles, states, limits, findings).
//!
//! Two dialects of one exposition: OpenMetrics, which a Prometheus asks for, and the older text format, which `promtool check metrics`
//! and node_exporter's textfile collector read. Labels are few and bounded: endpoint, pid, role, and the client's or poller's number,
//! which the server gives again after a close; what a client is (its peer, its transport) stands in `shmtop_client_info`.

mod exposition;
mod model;
mod page;

use crate::model::{Client, Endpoint, Model};
use crate::sample::Sample;

pub use exposition::Dialect;
use exposition::{Exposition, Type, escape};

/// Clients of one endpoint that have series of their own; `shmtop_clients_without_series` counts the others. A server of a
/// thousand clients would otherwise be a hundred thousand series.
pub const MAX_CLIENTS: usize = 128;

/// The exposition, `# EOF` included.
pub fn metrics(model: &Model, sample: &Sample, dialect: Dialect) -> String {
    let mut out = Exposition::new(dialect);
    let endpoints = labelled(model);
    page::write(&mut out, &endpoints, sample);
    model::write(&mut out, &endpoints, model);
    out.finish()
}

/// An endpoint with its labels, and those of the clients that have series.
struct Labelled<'m> {
    endpoint: &'m Endpoint,
    labels: String,
    clients: Vec<(&'m Client, String)>,
    /// Slots of the pollers, which wait for the clients of a server.
    pollers: Vec<(u32, String)>,
}

/// No two endpoints, and no two clients of one, get the same labels: a Prometheus refuses the whole scrape for that.
fn labelled(model: &Model) -> Vec<Labelled<'_>> {
    let mut endpoints: Vec<&Endpoint> = model.endpoints.iter().map(|e| &**e).collect();
    endpoints.sort_by_key(|e| e.key.created_ns);
    let mut taken = std::collections::BTreeSet::new();
    let mut unique = |make: &dyn Fn(&str) -> String| {
        (1..)
            .map(|n| match n {
                1 => make(""),
                n => make(&format!("#{n}")),
            })
            .find(|labels| taken.insert(labels.clone()))
            .unwrap_or_default()
    };
    endpoints
        .into_iter()
        .map(|endpoint| {
            let e = endpoint;
            let labels = unique(&|more| {
                format!(
                    "endpoint=\"{}{more}\",pid=\"{}\",role=\"{}\"",
                    escape(&e.name),
                    e.pid,
                    super::json::role(e.role)
                )
            });
            let clients = e.clients.iter().take(MAX_CLIENTS);
            let clients = clients
                .map(|c| {
                    let own = unique(&|more| format!("{labels},client=\"{}{more}\"", c.number));
                    (&**c, own)
                })
                .collect();
            let pollers = e.pollers.iter().take(MAX_CLIENTS);
            let pollers = pollers
                .map(|p| {
                    let own = unique(&|more| format!("{labels},poller=\"{}{more}\"", p.number));
                    (p.slot, own)
                })
                .collect();
            Labelled {
                endpoint,
                labels,
                clients,
                pollers,
            }
        })
        .collect()
}
