//! `diff A B`: the figures of two watches side by side.

use super::table::align;
use crate::check::{FIGURES, Summary};
use crate::reading::Reading;

/// Figures of two watches and the change; a figure that neither has is left out.
pub fn diff(names: (&str, &str), a: &Summary, b: &Summary) -> String {
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
