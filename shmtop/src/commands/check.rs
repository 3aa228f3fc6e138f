//! `check`: assertions on the figures of a watch, for CI.

use super::settings::Settings;
use super::{Failure, Outcome, plain, say_before_verdict, watch};
use crate::check::{Expr, Summary, Watch};

/// Every hint that fired at any time of a watch, a line each, the gravest first: what it said, when first, and how long it held.
fn hints_that_fired(samples: u64, summary: &Summary) -> String {
    let mut seen: Vec<_> = summary.findings().iter().collect();
    seen.sort_by_key(|(_, s)| std::cmp::Reverse(s.severity));
    let mut out = format!("{samples} samples, {} hints fired\n", seen.len());
    for (id, s) in seen {
        out += &format!(
            "  {} {id}: {} (first after {:.1} s, in {} of {samples} samples)\n",
            s.severity.name(),
            s.says,
            s.first_s,
            s.samples
        );
    }
    out
}

/// Watches for `period`, and judges each assertion.
pub(super) fn check(
    settings: &Settings,
    period: std::time::Duration,
    asserts: &[String],
) -> Outcome {
    super::format(settings, "check")?;
    let mut exprs = Vec::new();
    for text in asserts {
        exprs.push(Expr::parse(text).map_err(|e| Failure::Usage(format!("--assert: {e}")))?);
    }
    let mut watch = watch::Look::new(settings);
    let mut figures = Watch::default();
    watch.run(period, |sample, model| {
        figures.look(sample, model);
        Ok(())
    })?;
    let died = watch.nobody_died();
    // Who has died has no page any more either, and that is not what is to be said of him.
    match died {
        Ok(()) => watch.endpoints()?,
        Err(_) if watch.model.endpoints.is_empty() => return died,
        Err(_) => {}
    }
    let summary = figures.summary(|m| settings.select(m));
    let mut failed = false;
    let of_hints = ["crits", "warns", "infos"];
    let asks = |e: &Expr| e.figures().iter().any(|f| of_hints.contains(f));
    for (expr, text) in exprs.iter().zip(asserts) {
        let holds = expr.holds(&|name| summary.get(name));
        let shown: Vec<String> = expr
            .figures()
            .into_iter()
            .map(|name| match summary.get(name) {
                Ok(v) => format!("{name} = {v:.3}"),
                Err(why) => format!("{name} = unknown: {why}"),
            })
            .collect();
        let word = match holds {
            Ok(true) => "holds",
            Ok(false) => "fails",
            Err(_) => "unknown",
        };
        failed |= holds != Ok(true);
        let clean: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        say_before_verdict(&format!("{word}: {clean}   ({})\n", shown.join(", ")))?;
    }
    if exprs.iter().any(asks) {
        say_before_verdict(&plain(
            settings,
            hints_that_fired(figures.samples(), &summary),
        ))?;
    }
    // Whatever holds: of what has died it is no verdict.
    died?;
    if failed {
        Err(Failure::Findings)
    } else {
        Ok(())
    }
}
