//! `diff A B`: the hints that came or went between two watches, then their figures side by side.

use super::table::align;
use crate::check::{FIGURES, Figure, Kind, Seen, Summary};
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
    for (name, list, other) in [
        (names.1, only(b, a), (names.0, a)),
        (names.0, only(a, b), (names.1, b)),
    ] {
        // Of one that was too short for a rule to answer nobody knows whether it has it, too.
        let unasked = match other.1.answered() {
            true => String::new(),
            false => format!(" ({} is too short to say)", other.0),
        };
        for (id, seen) in list {
            let more = match seen.subjects {
                0 | 1 => String::new(),
                n => format!(" (and {} more)", n - 1),
            };
            out += &format!(
                "only in {name}: {} {id}: {}{more}{unasked}\n",
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
    let mut rows = vec![["FIGURE", names.0, names.1, "CHANGE", "NOISE", ""].map(str::to_owned)];
    for f in FIGURES {
        let (x, y) = (a.get(f.name), b.get(f.name));
        if x.is_err() && y.is_err() {
            continue;
        }
        let [change, noise, verdict] = match (&x, &y) {
            (Ok(x), Ok(y)) => change(f, (*x, a), (*y, b)),
            _ => ["–".into(), String::new(), String::new()],
        };
        rows.push([
            f.name.to_owned(),
            cell(&x),
            cell(&y),
            change,
            noise,
            verdict,
        ]);
    }
    align(&rows, &[0, 5])
}

fn cell(value: &Reading<f64>) -> String {
    match value {
        Ok(v) if *v == v.trunc() && v.abs() < 1e15 => format!("{v:.0}"),
        Ok(v) if v.abs() >= 100.0 => format!("{v:.0}"),
        Ok(v) if v.abs() >= 0.1 => format!("{v:.3}"),
        // Two figures: that two shares of a thousandth differ is not to be seen in 0.000 and 0.000.
        Ok(v) => {
            let zeros = -v.abs().log10().floor();
            format!("{v:.*}", (zeros as usize + 1).min(9))
        }
        Err(_) => "–".into(),
    }
}

/// Standard errors from which two values are not the same.
const SURE: f64 = 3.0;

/// Change, noise, verdict. Two runs of the same thing differ as well, and how much is what the two recordings say themselves: each is
/// cut into up to 16 parts, whose values spread. Only what exceeds three standard errors of both, and of a percentile the
/// sixteenth that its histogram's buckets are wide, is better or worse. Of findings the longer recording has the better chance to see some
/// that don't last: that it has more says nothing.
fn change(f: &Figure, (x, a): (f64, &Summary), (y, b): (f64, &Summary)) -> [String; 3] {
    let long_alike = (a.seconds() / b.seconds() - 1.0).abs() < 0.02;
    let (x, y, per) = match f.kind {
        // Counted over watches of any length: what is compared is how often.
        Kind::Events if a.seconds() > 0.0 && b.seconds() > 0.0 => {
            let per = if long_alike { "" } else { " per time" };
            (x / a.seconds(), y / b.seconds(), per)
        }
        _ => (x, y, ""),
    };
    if x == y {
        return ["=".into(), String::new(), String::new()];
    }
    let text = if x == 0.0 && matches!(f.kind, Kind::Events | Kind::Distinct) {
        "new".into()
    } else if x == 0.0 {
        format!("{:+.3}", y - x)
    } else {
        format!("{:+.1} %{per}", (y - x) / x.abs() * 100.0)
    };
    let noise = match f.kind {
        Kind::State => None,
        Kind::Distinct => Some(0.0),
        // What never happened in one of them is news, however seldom it is.
        Kind::Events if x == 0.0 || y == 0.0 => Some(0.0),
        // Events that have nothing to do with each other: as many as the square root of their number by chance.
        Kind::Events => Some(SURE * (x / a.seconds() + y / b.seconds()).sqrt()),
        Kind::Mean | Kind::Percentile | Kind::Largest => {
            let both = a.noise(f.name).zip(b.noise(f.name));
            both.map(|(a, b)| SURE * a.hypot(b))
        }
    };
    let noise = match f.kind {
        Kind::Percentile => noise.map(|n| n.max(Kind::BUCKET * x.abs().max(y.abs()))),
        _ => noise,
    };
    let verdict = match (noise, f.good) {
        (_, 0) => "",
        (None, _) => "too short to say",
        (Some(noise), _) if (y - x).abs() <= noise => "",
        _ if f.kind == Kind::Distinct && !long_alike && (y > x) == (b.seconds() > a.seconds()) => {
            ""
        }
        _ if (y > x) == (f.good > 0) => "better",
        _ => "worse",
    };
    let shown = match noise {
        Some(n) if n > 0.0 && x != 0.0 && f.good != 0 => format!("±{:.1} %", n / x.abs() * 100.0),
        Some(n) if n > 0.0 && f.good != 0 => format!("±{n:.3}"),
        _ => String::new(),
    };
    [text, shown, verdict.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change of a figure from (value, seconds of the watch) to another, and what it is called.
    fn verdict(name: &str, a: (f64, f64), b: (f64, f64)) -> [String; 2] {
        let figure = FIGURES.iter().find(|f| f.name == name).unwrap();
        let long = |seconds| Summary::default().lasting(seconds);
        let [change, _, verdict] = change(figure, (a.0, &long(a.1)), (b.0, &long(b.1)));
        [change, verdict]
    }

    #[test]
    fn the_same_sick_machine_is_not_better_for_being_watched_for_longer() {
        assert_eq!(verdict("crits", (12.0, 60.0), (12.0, 600.0)), ["=", ""]);
        assert_eq!(verdict("warns", (0.0, 60.0), (1.0, 600.0)), ["new", ""]);
        assert_eq!(
            verdict("warns", (1.0, 600.0), (0.0, 60.0)),
            ["-100.0 %", ""]
        );
        for (a, b) in [(60.0, 60.0), (600.0, 60.0)] {
            assert_eq!(verdict("warns", (0.0, a), (1.0, b)), ["new", "worse"]);
        }
        for (a, b) in [(60.0, 60.0), (60.0, 600.0)] {
            assert_eq!(verdict("warns", (2.0, a), (1.0, b)), ["-50.0 %", "better"]);
        }
        // Events go by time.
        assert_eq!(verdict("errors", (600.0, 60.0), (6000.0, 600.0)), ["=", ""]);
    }

    #[test]
    fn two_small_shares_that_differ_are_not_shown_alike() {
        for (value, shown) in [
            (0.0, "0"),
            (0.000_061, "0.000061"),
            (0.000_091, "0.000091"),
            (0.037, "0.037"),
            (0.5, "0.500"),
            (2.839, "2.839"),
            (1_212.3, "1212"),
            (-0.000_5, "-0.00050"),
        ] {
            assert_eq!(cell(&Ok(value)), shown);
        }
    }
}
