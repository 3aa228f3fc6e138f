//! `diff A B`: the hints that came or went between two watches, then their figures side by side.

use super::table::align;
use crate::check::{FIGURES, Seen, Summary};
use crate::reading::Reading;

/// What changed from one watch to the other: hints first, since they name it; then figures, except those that neither has.
pub fn diff(names: (&str, &str), a: &Summary, b: &Summary) -> String {
    let mut out = String::new();
    let only = |x: &Summary, y: &Summary| -> Vec<(&'static str, Seen)> {
        let mut list: Vec<_> = x
            .findings()
            .iter()
            .filter(|(id, seen)| {
                y.findings()
                    .get(*id)
                    .is_none_or(|s| s.severity < seen.severity)
            })
            .map(|(id, seen)| (*id, seen.clone()))
            .collect();
        list.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.severity));
        list
    };
    for (name, list) in [(names.1, only(b, a)), (names.0, only(a, b))] {
        for (id, seen) in list {
            let more = match seen.subjects {
                0 | 1 => String::new(),
                n => format!(" (and {} more)", n - 1),
            };
            out += &format!(
                "only in {name}: {} {id}: {}{more}\n",
                seen.severity.name(),
                seen.says
            );
        }
    }
    let both: Vec<&str> = a
        .findings()
        .iter()
        .filter(|(id, seen)| {
            b.findings()
                .get(*id)
                .is_some_and(|s| s.severity == seen.severity)
        })
        .map(|(id, _)| *id)
        .collect();
    if !both.is_empty() {
        out += &format!("in both: {}\n", both.join(", "));
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out + &figures(names, a, b)
}

fn figures(names: (&str, &str), a: &Summary, b: &Summary) -> String {
    let mut rows = vec![[
        "FIGURE".to_owned(),
        names.0.to_owned(),
        names.1.to_owned(),
        "CHANGE".to_owned(),
        String::new(),
    ]];
    for f in FIGURES {
        let (x, y) = (a.get(f.name), b.get(f.name));
        if x.is_err() && y.is_err() {
            continue;
        }
        let (change, verdict) = match (&x, &y) {
            (Ok(x), Ok(y)) => change(*x, *y, f.good),
            _ => ("–".into(), String::new()),
        };
        rows.push([f.name.to_owned(), cell(&x), cell(&y), change, verdict]);
    }
    align(&rows, &[0, 4])
}

fn cell(value: &Reading<f64>) -> String {
    match value {
        Ok(v) if *v == v.trunc() && v.abs() < 1e15 => format!("{v:.0}"),
        Ok(v) if v.abs() >= 100.0 => format!("{v:.0}"),
        Ok(v) => format!("{v:.3}"),
        Err(_) => "–".into(),
    }
}

fn change(x: f64, y: f64, good: i8) -> (String, String) {
    if x == y {
        return ("=".into(), String::new());
    }
    let text = if x == 0.0 {
        format!("{:+.3}", y - x)
    } else {
        format!("{:+.1} %", (y - x) / x.abs() * 100.0)
    };
    // Below 5 % two runs of the same thing differ as well.
    let noise = x != 0.0 && ((y - x) / x).abs() < 0.05;
    let verdict = match ((y > x) == (good > 0), good, noise) {
        (_, 0, _) | (_, _, true) => "",
        (true, ..) => "better",
        (false, ..) => "worse",
    };
    (text, verdict.into())
}
