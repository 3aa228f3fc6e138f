//! `doctor`: findings with their evidence, the limits, and what could not be checked.

use serde_json::{Value, json};

use crate::model::{Evidence, Finding, Model, Severity, Subject};
use crate::reading::Reading;
use crate::text;

/// The findings as JSON, schema 1.
pub fn doctor_json(model: &Model) -> Value {
    let hints: Vec<Value> = model.findings.iter().map(hint_json).collect();
    let unknown: Vec<Value> = model
        .unknown
        .iter()
        .map(|u| json!({ "id": u.id, "why": u.why.to_string(), "subject": subject(&u.subject) }))
        .collect();
    json!({
        "schema": 1,
        "hints": hints,
        "unknown": unknown,
        "unreadable": super::json::unreadable(model),
        "checked": *model.checked,
        "needs_s": model.needs_s,
    })
}

fn subject(s: &Subject) -> Value {
    json!({ "endpoint": s.endpoint, "pid": s.pid, "client": s.client })
}

/// One finding as JSON, as in `hints` of [`doctor_json`].
pub fn hint_json(f: &Finding) -> Value {
    json!({
        "id": f.id,
        "severity": f.severity.name(),
        "subject": subject(&f.subject),
        "says": f.says,
        "evidence": f.evidence.iter().map(evidence).collect::<Vec<_>>(),
        "also": f.also.iter().map(subject).collect::<Vec<_>>(),
        "fix": f.fix,
        "explains": explained(f),
        "since_realtime_ns": f.since_realtime_ns,
    })
}

/// Ids of what a finding explains, each once.
fn explained(f: &Finding) -> Vec<&'static str> {
    let mut ids: Vec<&'static str> = Vec::new();
    for x in &f.explains {
        if !ids.contains(&x.id) {
            ids.push(x.id);
        }
    }
    ids
}

fn evidence(e: &Evidence) -> Value {
    let value = match &e.text {
        Some(text) => Value::from(text.as_str()),
        None => serde_json::Number::from_f64(e.value).map_or(Value::Null, Value::Number),
    };
    json!({ "name": e.name, "value": value, "unit": e.unit, "source": e.source, "threshold": e.threshold })
}

/// The findings, limits and gaps as text.
/// `longer` is what to do where the time was too short.
pub fn doctor_text(model: &Model, longer: &str) -> String {
    let mut out = String::new();
    for f in &model.findings {
        out += &finding_text(f);
    }
    if model.findings.is_empty() {
        out += "nothing wrong was found, as far as could be checked\n";
    }
    out += &limits(model);
    for (i, u) in model.unreadable.iter().enumerate() {
        let pid = u.pid.map_or("?".into(), |p| p.to_string());
        let gap = if i == 0 { "\n" } else { "" };
        out += &format!("{gap}not readable: {} (pid {pid}): {}\n", u.name, u.why);
    }
    let mut whys: Vec<(String, Vec<&str>)> = Vec::new();
    for u in &model.unknown {
        let why = u.why.to_string();
        match whys.iter_mut().find(|(w, _)| *w == why) {
            Some((_, ids)) if !ids.contains(&u.id) => ids.push(u.id),
            Some(_) => {}
            None => whys.push((why, vec![u.id])),
        }
    }
    if model.needs_s > 0 {
        out += &format!(
            "\nneeds {} s more to answer everything: {longer}\n",
            model.needs_s
        );
    }
    let all = if whys.is_empty() { "all " } else { "" };
    out += &format!("\nchecked {all}{} rules", model.checked.len());
    if whys.is_empty() {
        out += "\n";
    } else {
        out += "; not checked:\n";
        for (why, ids) in whys {
            out += &format!("  {}: {why}\n", ids.join(", "));
        }
    }
    out
}

/// One finding, its evidence and its consequences.
pub fn finding_text(f: &Finding) -> String {
    let mark = match f.severity {
        Severity::Crit => "✖",
        Severity::Warn => "▲",
        Severity::Info => "•",
    };
    let mut out = format!("{mark} {} {}: {}\n", f.severity.name(), f.id, f.says);
    for e in &f.evidence {
        let value = match &e.text {
            Some(t) => t.clone(),
            None => quantity(e.value, e.unit),
        };
        let against = match e.against(|n| quantity(n, e.unit)) {
            none if none.is_empty() => none,
            against => format!(" ({against})"),
        };
        out += &format!("    {} = {value}{against}   [{}]\n", e.name, e.source);
    }
    for id in explained(f) {
        let mut same = f.explains.iter().filter(|x| x.id == id);
        let first = same.next().map_or("", |x| x.says.as_str());
        let more = match same.count() {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        out += &format!("    explains {id}: {first}{more}\n");
    }
    if !f.fix.is_empty() {
        out += &format!("    do: {}\n", f.fix);
    }
    out
}

fn quantity(value: f64, unit: &str) -> String {
    match unit {
        "ns" if value >= 0.0 => text::ns(value as u64),
        "bytes" if value >= 0.0 => text::bytes(value as u64),
        "%" => format!("{value:.1} %"),
        _ => {
            let number = if value == value.trunc() && value.abs() < 1e15 {
                format!("{value:.0}")
            } else {
                format!("{value:.2}")
            };
            format!("{number} {unit}").trim_end().to_owned()
        }
    }
}

fn limits(model: &Model) -> String {
    let mut out = String::new();
    for e in &model.endpoints {
        if e.role != transport::stats::Role::Server {
            continue;
        }
        let l = &e.limits;
        out += &format!("\nlimits of {} (pid {})\n", e.name, e.pid);
        let fds = match l.fds_beyond {
            0 => "fds".into(),
            1 => "fds (1 more is open beyond the limit)".into(),
            n => format!("fds ({n} more are open beyond the limit)"),
        };
        out += &limit(&fds, &l.fds_used, &l.fds_soft, &l.room_fds, |v| {
            v.to_string()
        });
        out += &limit(
            "memory",
            &l.memory_current_bytes,
            &l.memory_max_bytes,
            &l.room_memory,
            text::bytes,
        );
        out += &format!(
            "  rings: {} reserved, {} touched\n",
            text::bytes(e.totals.ring_reserved_bytes),
            text::bytes(e.totals.ring_touched_bytes)
        );
    }
    if let Ok(shmmax) = model.host.shmmax_bytes {
        let met = if shmmax >= 1 << 30 { "met" } else { "not met" };
        let shown = match shmmax {
            // Near 2^64, as the kernel has it where nobody set it.
            n if n >= 1 << 60 => "unlimited".into(),
            n => text::bytes(n),
        };
        out += &format!(
            "  kernel.shmmax {shown}: the \"at least 1 GiB\" check is {met}; it bounds SysV segments, not these rings\n"
        );
    }
    out
}

/// One line: use, limit, and how many more clients that leaves room for; or why that can't be said.
fn limit(
    name: &str,
    used: &Reading<u64>,
    most: &Reading<u64>,
    room: &Reading<u64>,
    show: fn(u64) -> String,
) -> String {
    match (used, most) {
        (Ok(used), Ok(most)) => {
            let room = room
                .as_ref()
                .map_or(String::new(), |n| format!(", room for {n} more clients"));
            format!("  {name}: {} of {}{room}\n", show(*used), show(*most))
        }
        (_, Err(why)) | (Err(why), _) => format!("  {name}: – {why}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_has_the_unit_of_what_is_compared_with_it() {
        let evidence =
            |value, unit, threshold: &str| Evidence::number("x", value, unit, "there", threshold);
        let finding = Finding {
            evidence: vec![
                evidence(5.7e9, "ns", "> 1000000000"),
                evidence(1e6, "bytes", "< 67108864"),
                evidence(97.0, "%", "> 95"),
                evidence(3.0, "", ">= 2"),
                evidence(3.0, "ns", "as long as it takes"),
            ],
            ..Finding::bare("steal", Severity::Warn, Subject::default())
        };
        let text = finding_text(&finding);
        for shown in [
            "x = 5.7 s (> 1.0 s) ",
            "(< 64 MiB) ",
            "(> 95 %) ",
            "x = 3 (>= 2) ",
            "(as long as it takes) ",
        ] {
            assert!(text.contains(shown), "{shown}: {text}");
        }
    }
    #[test]
    fn the_mark_of_a_finding_is_the_one_that_the_readme_names() {
        let readme = include_str!("../../../README.md");
        for severity in [Severity::Info, Severity::Warn, Severity::Crit] {
            let text = finding_text(&Finding::bare("steal", severity, Subject::default()));
            let (mark, _) = text.split_once(' ').unwrap();
            let says = format!("`{mark}` {}", severity.name());
            assert!(readme.contains(&says), "{says}");
        }
    }
}
