//! Threads and counters: what the kernel says about every thread that serves or uses a ring, and what the hardware
//! counted on it, per second and per message, or the sentence that says why it counted nothing.

use super::Scene;
use super::columns::{Align, Column};
use super::format::{count, missing, percent};
use super::pen::{Pen, Piece};
use super::sheet::{Row, Sheet};
use transport::stats::Role;

use crate::model::{Client, Endpoint, Shared, ThreadView};
use crate::reading::Reading;
use crate::ui::Theme;

/// Draws the view.
pub(super) fn draw(pen: &mut Pen<'_>, scene: &Scene<'_>) -> usize {
    let theme = scene.theme();
    let room = usize::from(pen.area().width.saturating_sub(2));
    let mut sheet = Sheet::default();
    let hardware = &scene.model.host.hardware_counters;
    match hardware {
        Ok(()) => sheet.text(
            &format!(
                "● the hardware counts, in user space only{}",
                shared(scene, room)
            ),
            theme.good,
            room,
            0,
        ),
        Err(why) => {
            // As the reason says it: "no PMU: the hypervisor hides the hardware counters".
            sheet.text(&format!("– {why}"), theme.info, room, 0);
            sheet.text(
                "Cache reads and misses of every level, instructions and cycles can't be had; what the kernel counts stands below.",
                theme.dim,
                room,
                2,
            );
        }
    }
    sheet.title(theme, "Threads, per second of wall time");
    threads(&mut sheet, scene, room, hardware.is_ok());
    sheet.title(theme, "Per message");
    messages(&mut sheet, scene, room, hardware.is_ok());
    sheet.draw(pen, scene)
}

/// Says what it means if some thread's counters shared the PMU with others.
fn shared(scene: &Scene<'_>, room: usize) -> &'static str {
    if room < 70 {
        return "";
    }
    let threads = scene
        .model
        .rows()
        .filter_map(|(_, c)| c.thread.as_ref().ok());
    let mut shares = threads.filter_map(|t| t.counters.counted_share.as_ref().ok());
    if shares.any(|s| *s < 0.995) {
        "; others use the counters too, so that rates are estimates from the share of time that was counted"
    } else {
        ""
    }
}

fn cell(theme: &Theme, r: &Reading<f64>, wide: usize, show: impl FnOnce(f64) -> String) -> Piece {
    match r {
        Ok(v) => (show(*v), theme.text),
        Err(why) => (missing(why, wide).to_owned(), theme.faint),
    }
}

/// The columns of the threads. What the kernel counts is always there; the hardware's part only where there is one, and
/// then it is worth more than names.
fn columns(hardware: bool) -> Vec<Column<usize>> {
    let c = |key, title, width, most, align, rank| Column {
        key,
        title,
        width,
        most,
        align,
        rank,
    };
    let mut columns = vec![
        c(0, "whose", 12, 20, Align::Left, 0),
        c(1, "tid", 7, 8, Align::Right, 6),
        c(2, "comm", 10, 16, Align::Left, 14),
        c(3, "st", 2, 2, Align::Left, 12),
        c(4, "CPU", 3, 4, Align::Right, 7),
        c(5, "busy", 6, 7, Align::Right, 0),
        c(6, "no core", 7, 8, Align::Right, 1),
        c(7, "ctx sw", 6, 8, Align::Right, 2),
        c(8, "forced", 6, 8, Align::Right, 8),
        c(9, "migr.", 6, 7, Align::Right, 9),
        c(10, "faults", 6, 8, Align::Right, 5),
    ];
    if hardware {
        columns.extend([
            c(11, "cycles", 6, 8, Align::Right, 4),
            c(12, "instr.", 6, 8, Align::Right, 3),
            c(13, "per cycle", 9, 9, Align::Right, 3),
            c(14, "cache refs", 10, 10, Align::Right, 4),
            c(15, "misses", 6, 8, Align::Right, 1),
            c(16, "missed", 6, 7, Align::Right, 10),
            c(17, "counted", 7, 8, Align::Right, 11),
            c(19, "L1 miss", 7, 7, Align::Right, 12),
            c(20, "LLC miss", 8, 8, Align::Right, 11),
        ]);
    }
    columns.push(c(18, "sleeps in", 9, 28, Align::Left, 15));
    columns
}

/// One thread's cells, in the order of [`columns`]' keys, or why there are none.
fn row(theme: &Theme, who: String, thread: &Reading<Shared<ThreadView>>) -> Row {
    let t = match thread {
        Ok(thread) => thread,
        Err(why) => {
            let why = format!("  – {why}");
            return Row::Line(vec![(who, theme.accent), (why, theme.faint)]);
        }
    };
    let mut row = vec![(who, theme.accent)];
    row.push((t.tid.to_string(), theme.dim));
    row.push((t.comm.clone(), theme.text));
    row.push(match &t.state {
        Ok(s) => (s.to_string(), theme.text),
        Err(why) => (missing(why, 2).to_owned(), theme.faint),
    });
    row.push(match &t.last_cpu {
        Ok(cpu) => (cpu.to_string(), theme.text),
        Err(why) => (missing(why, 3).to_owned(), theme.faint),
    });
    row.push(cell(theme, &t.cpu, 6, percent));
    let mut waits = cell(theme, &t.run_delay, 7, percent);
    if t.run_delay.as_ref().is_ok_and(|delay| *delay > 0.01) {
        waits.1 = theme.warn;
    }
    row.push(waits);
    let switches = t.voluntary_per_s.clone();
    let switches = switches.and_then(|v| Ok(v + t.involuntary_per_s.clone()?));
    row.push(cell(theme, &switches, 6, count));
    row.push(cell(theme, &t.involuntary_per_s, 6, count));
    row.push(cell(theme, &t.migrations_per_s, 6, count));
    row.push(cell(theme, &t.faults_per_s, 6, count));
    let c = &t.counters;
    row.push(cell(theme, &c.cycles_per_s, 6, count));
    row.push(cell(theme, &c.instructions_per_s, 6, count));
    let per_cycle = c.instructions_per_cycle();
    row.push(cell(theme, &per_cycle, 9, |v| format!("{v:.2}")));
    row.push(cell(theme, &c.cache_references_per_s, 10, count));
    row.push(cell(theme, &c.cache_misses_per_s, 6, count));
    row.push(cell(theme, &c.miss_ratio(), 6, percent));
    row.push(cell(theme, &c.counted_share, 7, percent));
    row.push(match &t.wchan {
        Ok(w) => (w.clone(), theme.dim),
        Err(why) => (missing(why, 9).to_owned(), theme.faint),
    });
    row.push(cell(theme, &c.l1d_miss_ratio, 6, percent));
    row.push(cell(theme, &c.llc_miss_ratio, 6, percent));
    Row::Cells(row)
}

/// Adds the rows of each endpoint, below its name and pid where there are several; one alone stands in the header.
fn by_endpoint(scene: &Scene<'_>, mut rows_of: impl FnMut(&Endpoint, &mut Vec<Row>)) -> Vec<Row> {
    let shown = |e: &&Shared<Endpoint>| {
        e.role == Role::Server || e.clients.iter().any(|c| !c.shown_at_server)
    };
    let theme = scene.theme();
    let captioned = scene.model.endpoints.iter().filter(shown).count() > 1;
    let mut all = Vec::new();
    for e in scene.model.endpoints.iter().filter(shown) {
        let mut rows = Vec::new();
        rows_of(e, &mut rows);
        if captioned && !rows.is_empty() {
            let pid = format!(" ({})", e.pid);
            all.push(Row::Line(vec![
                (e.name.clone(), theme.title),
                (pid, theme.dim),
            ]));
        }
        all.append(&mut rows);
    }
    all
}

/// The clients of an endpoint that have a row: those of a client process that its server doesn't show.
fn clients(e: &Endpoint) -> impl Iterator<Item = &Client> {
    let clients = e.clients.iter().map(|c| &**c);
    clients.filter(|c| e.role == Role::Server || !c.shown_at_server)
}

fn threads(sheet: &mut Sheet, scene: &Scene<'_>, room: usize, hardware: bool) {
    let theme = scene.theme();
    let rows = by_endpoint(scene, |e, rows| {
        for p in &e.pollers {
            let what = if p.is_of_client {
                "server of"
            } else {
                "poller"
            };
            rows.push(row(theme, format!("{what} {}", p.number), &p.thread));
        }
        for client in clients(e) {
            let who = format!("client {}", client.number);
            rows.push(row(theme, who, &client.thread));
            if e.pollers.is_empty() {
                let who = format!("  its server {}", client.number);
                rows.push(row(theme, who, &client.server_thread));
            }
        }
    });
    sheet.table(theme, &columns(hardware), rows, room);
}

fn messages(sheet: &mut Sheet, scene: &Scene<'_>, room: usize, hardware: bool) {
    let theme = scene.theme();
    let c = |key, title, width, most, rank| Column {
        key,
        title,
        width,
        most,
        align: if key == 0 { Align::Left } else { Align::Right },
        rank,
    };
    let mut columns = vec![
        c(0, "client", 12, 26, 0),
        c(1, "messages/s", 10, 10, 0),
        c(2, "page faults", 11, 11, 2),
        c(3, "ctx switches", 12, 12, 1),
    ];
    if hardware {
        columns.extend([
            c(4, "instr.", 7, 9, 2),
            c(5, "cache refs", 10, 10, 3),
            c(6, "cache misses", 12, 12, 0),
            c(8, "L1d misses", 10, 10, 5),
            c(9, "LLC misses", 10, 10, 3),
            c(7, "counted", 7, 8, 4),
        ]);
    }
    let small = |v: f64| {
        if v > 0.0 && v < 0.05 {
            format!("{v:.4}")
        } else {
            count(v)
        }
    };
    let row = |client: &Client| {
        let p = &client.perf;
        Row::Cells(vec![
            (format!("client {}", client.number), theme.accent),
            cell(theme, &p.messages_per_s, 10, count),
            cell(theme, &p.faults_per_message, 11, small),
            cell(theme, &p.context_switches_per_message, 12, small),
            cell(theme, &p.instructions_per_message, 7, small),
            cell(theme, &p.cache_references_per_message, 10, small),
            cell(theme, &p.cache_misses_per_message, 12, small),
            cell(theme, &p.counted_share, 7, percent),
            cell(theme, &p.l1d_misses_per_message, 10, small),
            cell(theme, &p.llc_misses_per_message, 10, small),
        ])
    };
    let rows = by_endpoint(scene, |e, rows| rows.extend(clients(e).map(row)));
    sheet.table(theme, &columns, rows, room);
}
