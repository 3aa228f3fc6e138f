//! The machine: its CPUs with load, steal and frequency, its clock, its memory; unknown things with their reason.

use super::Scene;
use super::bars::{TRACK, filled};
use super::format::{bytes, duration, or_why, percent};
use super::pen::{Pen, Piece, width};
use super::sheet::Sheet;
use crate::model::{CpuView, HostView};
use crate::reading::Reading;
use crate::ui::Theme;

/// Draws the view.
pub(super) fn draw(pen: &mut Pen<'_>, scene: &Scene<'_>) -> usize {
    let theme = scene.theme();
    let host = &scene.model.host;
    let room = usize::from(pen.area().width.saturating_sub(2));
    let mut sheet = Sheet::default();
    let what = match &host.hypervisor {
        Ok(true) => "virtual machine".to_owned(),
        Ok(false) => "no hypervisor".to_owned(),
        Err(why) => format!("– {why}"),
    };
    let kernel = format!("   kernel {}", or_why(&host.kernel, String::clone));
    let name = or_why(&host.name, String::clone);
    let machine = vec![
        (name, theme.accent),
        (kernel, theme.text),
        (format!("   {what}"), theme.dim),
    ];
    sheet.flow(machine, room, 2);
    sheet.title(theme, "CPUs");
    let unclocked = same_reason(&host.cpus);
    for cpu in &host.cpus {
        let (mut line, more) = cpu_line(theme, cpu, &host.cpus, unclocked.is_none(), room);
        let wide = |pieces: &[Piece]| pieces.iter().map(|(text, _)| width(text)).sum::<usize>();
        if wide(&line) + wide(&more) <= room {
            line.extend(more);
            sheet.line(line);
        } else {
            sheet.line(line);
            let indented = [(" ".repeat(7), theme.dim)].into_iter().chain(more);
            sheet.flow(indented.collect(), room, 10);
        }
    }
    if host.cpus.len() > 1 && one_llc(&host.cpus) {
        sheet.text("all share one last-level cache", theme.dim, room, 2);
    }
    if let Some(why) = unclocked {
        sheet.text(&format!("– frequency: {why}"), theme.dim, room, 2);
    }
    sheet.title(theme, "Load");
    load(&mut sheet, theme, host, room);
    sheet.title(theme, "Clock and memory");
    let mut line = |label: &str, value: String| {
        let pieces = vec![(format!("  {label:<14}"), theme.dim), (value, theme.text)];
        sheet.flow(pieces, room, 16);
    };
    let why = |w: &crate::reading::Why| format!("– {w}");
    line(
        "clock source",
        host.clocksource.clone().unwrap_or_else(|w| why(&w)),
    );
    let cost = host.clock_cost_ns.as_ref();
    line(
        "a timestamp",
        cost.map_or_else(why, |ns| duration(*ns as f64)),
    );
    let memory = match (&host.memory_available_bytes, &host.memory_total_bytes) {
        (Ok(free), Ok(total)) => {
            format!(
                "{} available of {}",
                bytes(*free as f64),
                bytes(*total as f64)
            )
        }
        (Err(w), _) | (_, Err(w)) => why(w),
    };
    line("memory", memory);
    line(
        "NUMA nodes",
        host.numa_nodes.as_ref().map_or_else(why, u32::to_string),
    );
    let paranoid = host.perf_paranoid.as_ref();
    line("perf_paranoid", paranoid.map_or_else(why, i64::to_string));
    sheet.draw(pen, scene)
}

/// Load averages, and how much of the time tasks waited for something.
fn load(sheet: &mut Sheet, theme: &Theme, host: &HostView, room: usize) {
    let averages = or_why(&host.load, |[one, five, fifteen]| {
        format!("{one:.2} over 1 min, {five:.2} over 5, {fifteen:.2} over 15")
    });
    let pieces = vec![
        (format!("  {:<14}", "load"), theme.dim),
        (averages, theme.text),
    ];
    sheet.flow(pieces, room, 16);
    let names = [
        ("CPU pressure", "a task waited for a CPU"),
        ("memory", "a task waited for memory"),
        ("I/O", "a task waited for I/O"),
    ];
    for ((name, what), pressure) in names.into_iter().zip(&host.pressure) {
        let mut line = vec![(format!("  {name:<14}"), theme.dim)];
        match pressure {
            Ok(share) => {
                let style = if *share > 0.1 { theme.warn } else { theme.text };
                line.push((format!("{:>5}", percent(*share)), style));
                line.push((format!(" of the last 10 s {what}"), theme.dim));
            }
            Err(why) => line.push((format!("– {why}"), theme.dim)),
        }
        sheet.flow(line, room, 16);
    }
}

/// The reason if no CPU's frequency is known and all give the same one: said once instead of on every line.
fn same_reason(cpus: &[CpuView]) -> Option<&str> {
    let first = cpus.first()?.frequency_khz.as_ref().err()?;
    cpus.iter()
        .all(|c| c.frequency_khz.as_ref().err() == Some(first))
        .then_some(&*first.text)
}

/// Whether all CPUs share their last-level cache.
fn one_llc(cpus: &[CpuView]) -> bool {
    cpus.iter().all(|c| c.llc.is_ok() && c.llc == cpus[0].llc)
}

/// Whom it shares a core and a cache with, and its memory node.
fn topology(cpu: &CpuView, cpus: &[CpuView]) -> String {
    let mut parts = Vec::new();
    let list = |ids: &[u32]| {
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        ids.join(", ")
    };
    if let Ok(siblings) = &cpu.siblings {
        let others: Vec<u32> = siblings.iter().copied().filter(|s| *s != cpu.id).collect();
        if !others.is_empty() {
            parts.push(format!("core with {}", list(&others)));
        }
    }
    if let Ok(llc) = &cpu.llc {
        // One for all is said once, below.
        if !one_llc(cpus) {
            parts.push(format!("L3 of {llc}"));
        }
    }
    let nodes = |c: &&CpuView| c.node.as_ref().ok() != cpu.node.as_ref().ok();
    if let Ok(node) = &cpu.node
        && cpus.iter().any(|c| nodes(&c))
    {
        parts.push(format!("node {node}"));
    }
    parts.join(", ")
}

/// One CPU: what it does, and what comes behind that or, where there is no room, below; `clocked` unless no CPU's frequency is known, which is then
/// said once.
fn cpu_line(
    theme: &Theme,
    cpu: &CpuView,
    cpus: &[CpuView],
    clocked: bool,
    room: usize,
) -> (Vec<Piece>, Vec<Piece>) {
    let right = topology(cpu, cpus);
    let clock = if clocked { 30 } else { 0 };
    let (alone, beside) = (35, 41 + clock + right.len());
    let wide = match room.saturating_sub(beside) {
        6.. => room - beside,
        _ => room.saturating_sub(alone),
    };
    let wide = wide.clamp(3, 40);
    let share = |r: &Reading<f64>| match r {
        Ok(v) => (format!("{:>6}", percent(*v)), theme.text),
        Err(_) => (format!("{:>6}", "–"), theme.faint),
    };
    let busy = cpu.busy.as_ref().ok().copied().unwrap_or(0.0);
    let bar = filled(wide, busy);
    let rest: String = std::iter::repeat_n(TRACK, wide - bar.chars().count().min(wide)).collect();
    let mut line = vec![
        (format!("  CPU {:<4}", cpu.id), theme.dim),
        (bar, theme.request),
        (rest, theme.faint),
        share(&cpu.busy),
        (" busy ".to_owned(), theme.dim),
    ];
    let (text, mut style) = share(&cpu.steal);
    if cpu.steal.as_ref().is_ok_and(|s| *s > 0.01) {
        style = theme.warn;
    }
    line.push((text, style));
    line.push((" stolen".to_owned(), theme.dim));
    let mut more = Vec::new();
    match &cpu.frequency_khz {
        _ if !clocked => {}
        Ok((now, max)) => {
            let ghz = |khz: u64| khz as f64 / 1e6;
            more.push((
                format!("   {:.1} of {:.1} GHz", ghz(*now), ghz(*max)),
                theme.text,
            ));
            if let Ok(governor) = &cpu.governor {
                more.push((format!(" {governor}"), theme.dim));
            }
        }
        Err(_) => more.push(("   – GHz".to_owned(), theme.faint)),
    }
    if !right.is_empty() {
        more.push((format!("   {right}"), theme.dim));
    }
    if let Ok(n) = &cpu.thermal_throttles
        && *n > 0
    {
        more.push((format!("   throttled {n}×"), theme.warn));
    }
    (line, more)
}
