//! Numbers for people: a unit on each, and never more letters than the column has, so that nothing jitters.
//!
//! Every view formats through here. The tests hold what each function writes at most, to which columns are
//! sized. Missing values are [`missing`]'s business.

use crate::reading::{Reading, Why, WhyKind};

/// Three figures at most: one decimal below 100, none above, as the eye compares magnitudes and not digits.
fn figures(value: f64) -> String {
    if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// Nothing below 0: not −0 either, which is what an empty sum of floats is.
fn positive(value: f64) -> f64 {
    if value > 0.0 { value } else { 0.0 }
}

/// A number of things: `0`, `7.3`, `992`, `26.1 k`, `4.1 M`.
pub fn count(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let mut v = positive(value);
    if v < 999.5 {
        return if v == v.trunc() || v >= 99.95 {
            format!("{v:.0}")
        } else {
            format!("{v:.1}")
        };
    }
    for unit in ["k", "M", "G", "T"] {
        v /= 1e3;
        if v < 999.5 {
            return format!("{} {unit}", figures(v));
        }
    }
    format!("{} P", figures(v / 1e3))
}

/// Bytes in binary units: `992 B`, `64 KiB`, `1.5 MiB`, `15.4 GiB`.
pub fn bytes(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let mut v = positive(value);
    if v < 999.5 {
        return format!("{v:.0} B");
    }
    for unit in ["KiB", "MiB", "GiB", "TiB"] {
        v /= 1024.0;
        if v < 999.5 {
            return if v == v.trunc() {
                format!("{v:.0} {unit}")
            } else {
                format!("{} {unit}", figures(v))
            };
        }
    }
    format!("{} PiB", figures(v / 1024.0))
}

/// A duration in ns with the unit that fits: `310 ns`, `1.2 µs`, `14 µs`, `4.2 s`, `3 m 12 s` is [`age`].
pub fn duration(ns: f64) -> String {
    if !ns.is_finite() {
        return "–".to_owned();
    }
    let v = positive(ns);
    if v < 999.5 {
        return format!("{v:.0} ns");
    }
    for (unit, scale) in [("µs", 1e3), ("ms", 1e6), ("s", 1e9)] {
        let scaled = v / scale;
        if scaled < 9.95 {
            return format!("{scaled:.1} {unit}");
        }
        if scaled < 999.5 {
            return format!("{scaled:.0} {unit}");
        }
    }
    let minutes = v / 60e9;
    if minutes < 999.5 {
        format!("{minutes:.0} m")
    } else {
        format!("{:.0} h", minutes / 60.0)
    }
}

/// A long time in two units: `4.2 s`, `3 m 12 s`, `5 h 07 m`, `12 d 4 h`.
pub fn age(ns: u64) -> String {
    let s = ns / 1_000_000_000;
    match s {
        0..60 => duration(ns as f64),
        60..3_600 => format!("{} m {:02} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {:02} m", s / 3_600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3_600 % 24),
    }
}

/// A share (0..=1) as whole percent; one decimal below 10 % when it is not 0, so that 0.4 % is not "0 %"; 100 % is all of it.
pub fn percent(share: f64) -> String {
    if !share.is_finite() {
        return "–".to_owned();
    }
    let p = positive(share) * 100.0;
    if p > 0.0 && p < 0.05 {
        "<.1 %".to_owned()
    } else if p > 0.0 && p < 9.95 {
        format!("{p:.1} %")
    } else if (99.5..100.0).contains(&p) {
        ">99 %".to_owned()
    } else {
        format!("{p:.0} %")
    }
}

/// A share as whole percent without decimals, for narrow columns beside a bar.
pub fn whole_percent(share: f64) -> String {
    let p = (share.clamp(0.0, 9.99) * 100.0).round();
    if share > 0.0 && p == 0.0 {
        "<1%".to_owned()
    } else if share < 1.0 && p == 100.0 {
        ">99%".to_owned()
    } else {
        format!("{p:.0}%")
    }
}

/// MiB/s without its unit, which stands in the column's title.
pub fn mib(bytes_per_s: f64) -> String {
    let v = positive(bytes_per_s) / f64::from(1 << 20);
    if v > 0.0 && v < 0.05 {
        "<0.1".to_owned()
    } else if v < 9.95 && v != v.trunc() {
        format!("{v:.1}")
    } else if v < 99_999.5 {
        format!("{v:.0}")
    } else {
        count(v)
    }
}

/// Short mark of a missing value, for a table cell: the reason in a word, or only a dash where there is no room.
pub fn missing(why: &Why, width: usize) -> &'static str {
    let word = match why.kind {
        WhyKind::NotYet => "– not yet",
        WhyKind::NoPermission => "– denied",
        WhyKind::NotVisible => "– unseen",
        WhyKind::NotThere => "– none",
        WhyKind::NotApplicable => "–",
        WhyKind::Gap => "– gap",
    };
    if word.chars().count() <= width {
        word
    } else {
        "–"
    }
}

/// The value formatted, or a dash with the whole reason.
pub fn or_why<T>(reading: &Reading<T>, show: impl FnOnce(&T) -> String) -> String {
    match reading {
        Ok(value) => show(value),
        Err(why) => format!("– {why}"),
    }
}

/// `1 client`, `2 clients`.
pub fn plural(n: usize, one: &str) -> String {
    if n == 1 {
        format!("1 {one}")
    } else {
        format!("{n} {one}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Letters of [`count`] at most, for values below 10¹⁸.
    const COUNT_WIDTH: usize = 6;
    /// Letters of [`duration`] at most, for values below 100 days.
    const DURATION_WIDTH: usize = 6;
    /// Letters of [`bytes`] at most, below an EiB.
    const BYTES_WIDTH: usize = 8;
    /// Letters of [`percent`] at most, for shares up to 9.99.
    const PERCENT_WIDTH: usize = 5;

    /// Magnitudes around every change of unit.
    fn magnitudes() -> impl Iterator<Item = f64> {
        (0..18).flat_map(|e| {
            let p = 10f64.powi(e);
            [0.0, 0.04, 0.96, 0.994, 0.9996, 1.0, 1.04, 5.55, 9.94, 9.96].map(|m| m * p)
        })
    }

    #[test]
    fn no_number_is_wider_than_its_column() {
        for v in magnitudes() {
            assert!(count(v).chars().count() <= COUNT_WIDTH, "{v}: {}", count(v));
            assert!(bytes(v).chars().count() <= BYTES_WIDTH, "{v}: {}", bytes(v));
            if v < 8e15 {
                let d = duration(v);
                assert!(d.chars().count() <= DURATION_WIDTH, "{v}: {d}");
            }
        }
        for i in 0..9_990 {
            let share = f64::from(i) / 1_000.0;
            assert!(percent(share).chars().count() <= PERCENT_WIDTH);
            assert!(whole_percent(share).chars().count() <= 4);
        }
    }

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(count(26_149.0), "26.1 k");
        assert_eq!(count(412_300.0), "412 k");
        assert_eq!(count(992.0), "992");
        assert_eq!(count(999.7), "1.0 k");
        assert_eq!(bytes(1023.0), "1.0 KiB");
        assert_eq!(bytes(32.0 * 1024.0 * 1024.0), "32 MiB");
        assert_eq!(duration(1_240.0), "1.2 µs");
        assert_eq!(duration(14_100.0), "14 µs");
        assert_eq!(duration(999_700.0), "1.0 ms");
        assert_eq!(age(192_000_000_000), "3 m 12 s");
        assert_eq!(percent(0.004), "0.4 %");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(whole_percent(0.001), "<1%");
        // What is nearly full is not full.
        assert_eq!(percent(0.999_6), ">99 %");
        assert_eq!(whole_percent(0.996), ">99%");
        assert_eq!(
            (percent(1.0), whole_percent(1.0)),
            ("100 %".into(), "100%".into())
        );
    }

    #[test]
    fn an_empty_sum_is_a_plain_zero() {
        let none: f64 = [0f64; 0].iter().sum();
        assert_eq!(count(none), "0");
        assert_eq!(bytes(none), "0 B");
        assert_eq!(mib(none), "0");
        assert_eq!(percent(none), "0 %");
        assert_eq!(duration(none), "0 ns");
    }

    #[test]
    fn a_value_that_is_no_number_is_a_dash_and_not_a_zero() {
        assert_eq!(count(f64::NAN), "–");
        assert_eq!(duration(f64::INFINITY), "–");
        assert_eq!(percent(f64::NAN), "–");
    }
}
