//! Threads and counters: what the kernel says about every thread that serves or uses a ring, and what the hardware
//! counted per message, or the sentence that says why it counted nothing.

use super::Scene;
use super::columns::{Align, Column};
use super::format::{count, missing, percent};
use super::pen::{Pen, Piece};
use super::sheet::Sheet;
use crate::model::{Client, ThreadView};
use crate::reading::Reading;
use crate::ui::Theme;

/// Draws the view.
pub(super) fn draw(pen: &mut Pen<'_>, scene: &Scene<'_>) {
    let theme = scene.theme();
    let room = usize::from(pen.area().width.saturating_sub(2));
    let model = scene.model;
    let mut sheet = Sheet::default();
    match &model.host.hardware_counters {
        Ok(()) => sheet.line(vec![
            ("● ".to_owned(), theme.good),
            ("hardware counters are there".to_owned(), theme.text),
        ]),
        Err(why) => {
            sheet.text(
                &format!("– no hardware counters: {why}"),
                theme.warn,
                room,
                0,
            );
            sheet.text(
                "Cache misses, instructions and cycles can't be had; what the kernel counts itself stands below.",
                theme.dim,
                room,
                2,
            );
        }
    }
    sheet.title(theme, "Threads");
    threads(&mut sheet, scene, room);
    sheet.title(theme, "Per message");
    messages(&mut sheet, scene, room);
    sheet.draw(pen, scene);
}

fn cell(theme: &Theme, r: &Reading<f64>, wide: usize, show: impl FnOnce(f64) -> String) -> Piece {
    match r {
        Ok(v) => (show(*v), theme.text),
        Err(why) => (missing(why, wide).to_owned(), theme.faint),
    }
}

fn threads(sheet: &mut Sheet, scene: &Scene<'_>, room: usize) {
    let theme = scene.theme();
    let c = |key, title, width, most, align, rank| Column {
        key,
        title,
        width,
        most,
        align,
        rank,
    };
    let columns = [
        c(0, "whose", 12, 26, Align::Left, 0),
        c(1, "thread", 7, 8, Align::Right, 1),
        c(2, "name", 10, 16, Align::Left, 8),
        c(3, "st", 2, 2, Align::Left, 6),
        c(4, "CPU", 3, 4, Align::Right, 3),
        c(5, "on core", 7, 8, Align::Right, 0),
        c(6, "waits for", 9, 9, Align::Right, 0),
        c(7, "vol. csw/s", 10, 10, Align::Right, 4),
        c(8, "invol./s", 8, 8, Align::Right, 5),
        c(9, "migr./s", 7, 7, Align::Right, 7),
        c(10, "sleeps in", 9, 24, Align::Left, 9),
    ];
    let row = |who: String, t: &Reading<ThreadView>| -> Vec<Piece> {
        let mut row = vec![(who, theme.accent)];
        match t {
            Err(why) => {
                row.push(("–".to_owned(), theme.faint));
                row.push((why.to_string(), theme.faint));
            }
            Ok(t) => {
                let delay = t.run_delay.as_ref().ok().copied().unwrap_or(0.0);
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
                row.push(cell(theme, &t.cpu, 7, percent));
                let mut waits = cell(theme, &t.run_delay, 9, percent);
                if delay > 0.01 {
                    waits.1 = theme.warn;
                }
                row.push(waits);
                row.push(cell(theme, &t.voluntary_per_s, 10, count));
                row.push(cell(theme, &t.involuntary_per_s, 8, count));
                row.push(cell(theme, &t.migrations_per_s, 7, count));
                row.push(match &t.wchan {
                    Ok(w) => (w.clone(), theme.dim),
                    Err(why) => (missing(why, 9).to_owned(), theme.faint),
                });
            }
        }
        row
    };
    let mut rows = Vec::new();
    for e in &scene.model.endpoints {
        for p in &e.pollers {
            rows.push(row(format!("{} poller {}", e.name, p.number), &p.thread));
        }
    }
    for (e, client) in scene.model.rows() {
        rows.push(row(
            format!("{} client {}", e.name, client.number),
            &client.thread,
        ));
        if e.pollers.is_empty() {
            rows.push(row(
                format!("  its server {}", client.number),
                &client.server_thread,
            ));
        }
    }
    sheet.table(theme, &columns, rows, room);
}

fn messages(sheet: &mut Sheet, scene: &Scene<'_>, room: usize) {
    let theme = scene.theme();
    let c = |key, title, width, most, rank| Column {
        key,
        title,
        width,
        most,
        align: if key == 0 { Align::Left } else { Align::Right },
        rank,
    };
    let columns = [
        c(0, "client", 12, 26, 0),
        c(1, "messages/s", 10, 10, 0),
        c(2, "cache misses", 12, 12, 0),
        c(3, "instr/cycle", 11, 11, 1),
        c(4, "counted", 8, 8, 4),
        c(5, "page faults", 11, 11, 2),
        c(6, "ctx switches", 12, 12, 3),
    ];
    let small = |v: f64| {
        if v > 0.0 && v < 0.05 {
            format!("{v:.4}")
        } else {
            count(v)
        }
    };
    let row = |who: String, client: &Client| {
        let p = &client.perf;
        vec![
            (who, theme.accent),
            cell(theme, &client.requests_per_s, 10, count),
            cell(theme, &p.cache_misses_per_message, 12, small),
            cell(theme, &p.instructions_per_cycle, 11, |v| format!("{v:.2}")),
            cell(theme, &p.counted_share, 8, percent),
            cell(theme, &p.faults_per_message, 11, small),
            cell(theme, &p.context_switches_per_message, 12, small),
        ]
    };
    let rows = scene
        .model
        .rows()
        .map(|(e, client)| row(format!("{} client {}", e.name, client.number), client))
        .collect();
    sheet.table(theme, &columns, rows, room);
}
