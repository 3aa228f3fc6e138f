//! `snapshot`: one row per client, the columns of the dashboard's overview, as plain text.

use transport::stats::{Role, Via};

use crate::model::listing::{Listing, tabulated};
use crate::model::{Client, Endpoint, Model, Quantile};
use crate::reading::Reading;
use crate::text;

/// A cell that is missing.
const NONE: &str = "–";

/// The clients that `listing` lists, in its order, one block per endpoint.
pub fn table(model: &Model, listing: Listing<'_>) -> String {
    let mut out = String::new();
    for group in tabulated(model, listing) {
        let e = group.endpoint;
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&heading(e, model));
        let mut rows = vec![HEAD.map(str::to_owned)];
        rows.extend(group.clients.iter().map(|c| row(c)));
        out.push_str(&align(&rows, LEFT));
    }
    for u in &model.unreadable {
        out.push_str(&format!("{}: {}\n", u.name, u.why));
    }
    out
}

fn heading(e: &Endpoint, model: &Model) -> String {
    let interval = &model.interval_ns;
    let t = &e.totals;
    let rate = match (&t.requests_per_s, &t.bytes_per_s) {
        (Ok(r), Ok(b)) => format!(
            "   {} req/s   {}/s",
            text::count(*r),
            text::bytes(*b as u64)
        ),
        _ => String::new(),
    };
    let over = interval
        .as_ref()
        .map_or(String::new(), |ns| format!("   over {}", text::ns(*ns)));
    let what = match e.role {
        Role::Server => format!("{} clients: {} shm, {} socket", t.clients, t.shm, t.socket),
        Role::Client => match servers_of(e, model) {
            servers if servers.is_empty() => "client; its server's page is not visible".into(),
            servers => format!("client of {}", servers.join(", ")),
        },
    };
    let place = e.place.as_ref().map_or(String::new(), |p| format!("; {p}"));
    format!("{} ({}{place})   {what}{rate}{over}\n", e.name, e.pid)
}

/// The servers of a client that were seen, and not asked for.
fn servers_of(e: &Endpoint, model: &Model) -> Vec<String> {
    let ids = |c: &[u64]| e.clients.iter().any(|own| c.contains(&own.connection_id));
    let servers = model.left_out.iter().filter(|s| ids(&s.connections));
    servers
        .map(|s| format!("{} ({})", text::clean(&s.key.name), s.key.pid))
        .collect()
}

const HEAD: [&str; 13] = [
    "CLIENT", "PEER", "VIA", "STATE", "REQ/S", "MiB/S", "▶RING", "◀RING", "HIT", "P50", "P99",
    "P99.9", "BOUND BY",
];
/// Columns that start at the left.
const LEFT: &[usize] = &[2, 3, 12];

fn row(c: &Client) -> [String; 13] {
    let rate = |r: &Reading<f64>, f: fn(f64) -> String| r.as_ref().map_or(NONE.into(), |v| f(*v));
    let quantile = |q: Quantile| {
        let shown = c.rtt.shown(q);
        shown.map_or(NONE.to_owned(), |p| text::ns(q.of(p)))
    };
    let fill = |f: Option<f64>| f.map_or(NONE.to_owned(), text::percent);
    let bound = match (&c.transport, &c.fallback) {
        (Via::Socket, Some(f)) => format!("socket: {}", crate::model::verdict::fallback_text(f)),
        _ => c.verdict.bound.name().to_owned(),
    };
    [
        c.number.to_string(),
        match c.peer_pid {
            0 => NONE.into(),
            pid => pid.to_string(),
        },
        c.transport.name().into(),
        c.state.name().into(),
        rate(&c.requests_per_s, text::count),
        rate(&c.bytes_per_s, |b| format!("{:.1}", b / 1_048_576.0)),
        fill(c.request_ring().fill()),
        fill(c.reply_ring().fill()),
        rate(&c.request_ring().cached_index_hit_ratio, text::percent),
        quantile(Quantile::P50),
        quantile(Quantile::P99),
        quantile(Quantile::P999),
        bound,
    ]
}

/// Columns as wide as their widest cell, two spaces apart; `left` names those that start at the left.
pub(super) fn align<const N: usize>(rows: &[[String; N]], left: &[usize]) -> String {
    let mut width = [0usize; N];
    for row in rows {
        for (w, cell) in width.iter_mut().zip(row) {
            *w = (*w).max(text::width(cell));
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, (cell, w)) in row.iter().zip(width).enumerate() {
            let pad = " ".repeat(w - text::width(cell));
            let gap = if i == 0 { "" } else { "  " };
            line += gap;
            if left.contains(&i) {
                line += cell;
                line += &pad;
            } else {
                line += &pad;
                line += cell;
            }
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_a_name_of_wide_letters_columns_stand_where_they_do_behind_others() {
        let row = |name: &str, n: &str| [name.to_owned(), n.to_owned()];
        let rows = [row("取引所", "12"), row("exchange", "7")];
        assert_eq!(align(&rows, &[0]), "取引所    12\nexchange   7\n");
    }
}
