//! Limits and headroom: what bounds the number of clients, and what only looks as if it did.

use ratatui::style::Modifier;

use super::Scene;
use super::columns::{Align, Column};
use super::format::{bytes, missing, percent};
use super::pen::{Pen, Piece, width, wrap};
use super::sheet::{Row, Sheet};
use crate::model::{Endpoint, Shared};
use crate::reading::{Reading, WhyKind};
use crate::ui::Theme;
use transport::stats::Role;

/// The check of the project's document: 16 clients × 2 × 32 MiB.
const DOCUMENT_SHMMAX: u64 = 1 << 30;
/// The check of the project's document on open files.
const DOCUMENT_NOFILE: u64 = 1024;

/// Draws the view.
pub(super) fn draw(pen: &mut Pen<'_>, scene: &Scene<'_>) -> usize {
    let theme = scene.theme();
    let room = usize::from(pen.area().width.saturating_sub(2));
    let model = scene.model;
    let mut sheet = Sheet::default();
    // What decides first; a long list of processes last.
    for server in model.endpoints.iter().filter(|e| e.role == Role::Server) {
        headroom(&mut sheet, theme, server, room);
    }
    sheet.title(theme, "This machine");
    machine(&mut sheet, scene, room);
    sheet.title(theme, "Per process");
    if model.endpoints.is_empty() {
        let none = match model.others {
            0 => "  no process uses the transport now",
            _ => "  what was asked for is not there",
        };
        sheet.line(vec![(none.to_owned(), theme.dim)]);
    } else {
        processes(&mut sheet, theme, &model.endpoints, room);
    }
    sheet.draw(pen, scene)
}

fn cell<T>(theme: &Theme, r: &Reading<T>, wide: usize, show: impl FnOnce(&T) -> String) -> Piece {
    match r {
        Ok(v) => (show(v), theme.text),
        Err(why) => (missing(why, wide).to_owned(), theme.faint),
    }
}

/// A limit: that none is set is an answer.
fn limit<T>(theme: &Theme, r: &Reading<T>, wide: usize, show: impl FnOnce(&T) -> String) -> Piece {
    match r {
        Err(why) if why.kind == WhyKind::NotApplicable => ("no limit".to_owned(), theme.dim),
        r => cell(theme, r, wide, show),
    }
}

/// Its name, and where it lives if that is not here.
fn named(e: &Endpoint) -> String {
    match &e.place {
        Some(place) => format!("{} in {place}", e.name),
        None => e.name.clone(),
    }
}

fn processes(sheet: &mut Sheet, theme: &Theme, endpoints: &[Shared<Endpoint>], room: usize) {
    let c = |key, title, width, most, align, rank| Column {
        key,
        title,
        width,
        most,
        align,
        rank,
    };
    let columns = [
        c(0, "process", 12, 48, Align::Left, 0),
        c(1, "pid", 7, 8, Align::Right, 1),
        c(2, "fds used", 8, 9, Align::Right, 0),
        c(3, "allowed", 9, 9, Align::Right, 0),
        c(4, "hard", 9, 9, Align::Right, 7),
        c(5, "cgroup mem", 10, 10, Align::Right, 3),
        c(6, "of", 10, 10, Align::Right, 4),
        c(7, "CPU quota", 9, 9, Align::Right, 5),
        c(8, "throttled", 9, 9, Align::Right, 6),
        c(9, "memlock", 9, 10, Align::Right, 8),
        c(10, "fsize", 9, 10, Align::Right, 9),
        c(11, "address sp.", 11, 11, Align::Right, 10),
        c(12, "rss", 9, 9, Align::Right, 2),
    ];
    let size = |b: &u64| bytes(*b as f64);
    let none = |r: &Reading<u64>, wide| match r {
        Ok(b) => (bytes(*b as f64), theme.text),
        Err(why) if why.kind == WhyKind::NotApplicable => ("unlimited".to_owned(), theme.dim),
        Err(why) => (missing(why, wide).to_owned(), theme.faint),
    };
    let rows = endpoints
        .iter()
        .map(|e| {
            let l = &e.limits;
            let used = match (&l.fds_used, &l.fds_soft) {
                (Ok(u), Ok(s)) if *s > 0 && *u as f64 / *s as f64 > 0.8 => {
                    (format!("▲ {u}"), theme.warn)
                }
                (r, _) => cell(theme, r, 8, u64::to_string),
            };
            Row::Cells(vec![
                (named(e), theme.accent),
                (e.pid.to_string(), theme.dim),
                used,
                limit(theme, &l.fds_soft, 9, u64::to_string),
                limit(theme, &l.fds_hard, 9, u64::to_string),
                cell(theme, &l.memory_current_bytes, 10, size),
                none(&l.memory_max_bytes, 10),
                limit(theme, &l.cpu_quota, 9, |q| format!("{q:.2} CPU")),
                cell(theme, &l.throttled, 9, |t| percent(*t)),
                none(&l.memlock_bytes, 9),
                none(&l.fsize_bytes, 9),
                none(&l.as_bytes, 11),
                cell(theme, &e.process.rss_bytes, 9, size),
            ])
        })
        .collect();
    sheet.table(theme, &columns, rows, room);
}

/// Room for more clients of one server, with the limit that decides.
fn headroom(sheet: &mut Sheet, theme: &Theme, e: &Endpoint, room: usize) {
    sheet.title(theme, &format!("Room at {} ({})", named(e), e.pid));
    let l = &e.limits;
    let a = &e.admission;
    if let Some((n, what)) = super::room::room(e) {
        let style = if n == 0 { theme.warn } else { theme.good };
        let style = style.add_modifier(Modifier::BOLD);
        let clients = if n == 1 { "client" } else { "clients" };
        let mut said = vec![
            ("  room for ".to_owned(), theme.dim),
            (n.to_string(), style),
            (format!(" more {clients}"), theme.dim),
        ];
        let bounded = vec![
            (", bounded by ".to_owned(), theme.dim),
            (what.to_owned(), theme.text),
        ];
        // What bounds it is half of the answer.
        let cells = said.iter().chain(&bounded).map(|(t, _)| width(t));
        if cells.sum::<usize>() <= room {
            said.extend(bounded);
            sheet.line(said);
        } else {
            sheet.line(said);
            sheet.text(&format!("bounded by {what}"), theme.text, room, 4);
        }
    }
    let mut line = |label: &str, value: String| labelled(sheet, theme, room, label, &value);
    line(
        "clients",
        format!("{} of {} at most", e.totals.clients, a.max_clients),
    );
    let fds = match (&l.fds_used, &l.fds_soft) {
        (Ok(used), Ok(soft)) => format!(
            "{used} of {soft}{}; one more client takes {}: room for {}",
            match l.fds_beyond {
                0 => String::new(),
                n => format!(" ({n} more open beyond the limit)"),
            },
            a.fds_per_client,
            l.room_fds
                .as_ref()
                .map_or_else(|why| format!("– {why}"), u64::to_string)
        ),
        (Err(why), _) | (_, Err(why)) => format!("– {why}"),
    };
    line("file descriptors", fds);
    let memory = match (&l.memory_current_bytes, &l.memory_max_bytes) {
        (Ok(current), Ok(max)) => format!(
            "{} of {} in its cgroup; one more client takes {}: room for {}",
            bytes(*current as f64),
            bytes(*max as f64),
            bytes(a.ring_bytes as f64),
            l.room_memory
                .as_ref()
                .map_or_else(|why| format!("– {why}"), u64::to_string)
        ),
        (_, Err(why)) | (Err(why), _) => {
            format!(
                "– {why}; one more client takes {}",
                bytes(a.ring_bytes as f64)
            )
        }
    };
    line("memory", memory);
    line(
        "rings",
        format!(
            "{} reserved, {} ever touched",
            bytes(e.totals.ring_reserved_bytes as f64),
            bytes(e.totals.ring_touched_bytes as f64)
        ),
    );
    let mut admitted = format!(
        "{} accepted, {} to shared memory, {} fell back, {} refused",
        a.accepted, a.upgrades, a.fallbacks, a.rejected
    );
    if a.accept_errors > 0 {
        admitted.push_str(&format!(", {} could not be accepted", a.accept_errors));
    }
    line("since start", admitted);
}

/// With less room than this, values beside their labels would be columns of single words.
const NARROW: usize = 56;

/// A label and its value, in as many lines as it takes: beside it, or below it where there is little room.
fn labelled(sheet: &mut Sheet, theme: &Theme, room: usize, label: &str, value: &str) {
    if room < NARROW {
        sheet.text(label, theme.dim, room, 2);
        sheet.text(value, theme.text, room, 4);
        return;
    }
    for (i, text) in wrap(value, room.saturating_sub(20)).into_iter().enumerate() {
        let label = if i == 0 { label } else { "" };
        sheet.line(vec![
            (format!("  {label:<18}"), theme.dim),
            (text, theme.text),
        ]);
    }
}

fn machine(sheet: &mut Sheet, scene: &Scene<'_>, room: usize) {
    let theme = scene.theme();
    let host = &scene.model.host;
    let mut line = |label: &str, value: String| labelled(sheet, theme, room, label, &value);
    let shmmax = match &host.shmmax_bytes {
        Err(why) => format!("– {why}"),
        Ok(max) => {
            let shown = if *max >= 1 << 60 {
                "unlimited".to_owned()
            } else {
                bytes(*max as f64)
            };
            let met = if *max >= DOCUMENT_SHMMAX {
                "met"
            } else {
                "not met"
            };
            format!(
                "{shown}: the check “at least 1 GiB” is {met}, but does not matter: kernel.shmmax governs SysV \
                 segments, not memfd rings"
            )
        }
    };
    line("shmmax", shmmax);
    let nofile: Vec<u64> = scene
        .model
        .endpoints
        .iter()
        .filter_map(|e| e.limits.fds_soft.as_ref().ok().copied())
        .collect();
    if let Some(least) = nofile.into_iter().min() {
        let met = if least > DOCUMENT_NOFILE {
            "met"
        } else {
            "not met"
        };
        line(
            "ulimit -n",
            format!(
                "{least} for the tightest process: the check “above 1024” is {met}; what matters is used against allowed"
            ),
        );
    }
    let files = match &host.files {
        Ok((used, max)) if *max >= 1 << 60 => format!("{used} open, no limit"),
        Ok((used, max)) => format!("{used} of {max}"),
        Err(why) => format!("– {why}"),
    };
    line("files, system", files);
    let dev_shm = match &host.dev_shm_bytes {
        Ok((used, size)) => format!(
            "{} of {} used: no limit of the rings, which are memfds and not files there",
            bytes(*used as f64),
            bytes(*size as f64)
        ),
        Err(why) => format!("– {why}"),
    };
    line("/dev/shm", dev_shm);
    let memory = match (&host.memory_available_bytes, &host.memory_total_bytes) {
        (Ok(free), Ok(total)) => {
            format!(
                "{} available of {}",
                bytes(*free as f64),
                bytes(*total as f64)
            )
        }
        (Err(why), _) | (_, Err(why)) => format!("– {why}"),
    };
    line("memory", memory);
}
