//! Sizes and durations as people type them, numbers as people read them.
//!
//! Called by the command lines and the report. Leaves out everything that depends on what is measured.

use std::time::Duration;

/// `20000`, `64KiB`, `32MiB`, `1GiB`; `K`, `M`, `G` mean the same powers of 1024.
///
/// # Errors
/// One sentence that says what is understood.
pub(crate) fn parse_bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = split(text);
    let shift = match unit {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => {
            return Err(format!(
                "unknown unit '{unit}': use bytes, KiB, MiB or GiB, as in 32MiB"
            ));
        }
    };
    let number: usize = number
        .parse()
        .map_err(|_| "not a size: use bytes, KiB, MiB or GiB, as in 20000 or 32MiB".to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "larger than any memory".to_owned())
}

/// `10s`, `500ms`, `1us`, `2m`, `1.5s`. A bare number is refused: seconds and milliseconds are too easily confused.
///
/// # Errors
/// One sentence that says what is understood.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let unit_ns = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3600e9,
        "" => return Err(format!("needs a unit, as in {text}s or {text}ms")),
        _ => {
            return Err(format!(
                "unknown unit '{unit}': use ns, us, ms, s, m or h, as in 10s"
            ));
        }
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "not a duration: as in 10s, 500ms, 1us".to_owned())?;
    let ns = number * unit_ns;
    // Five hundred years are no duration anybody means, and adding it to a clock would overflow.
    if !(0.0..=3.2e19 / 2.0).contains(&ns) || !number.is_finite() {
        return Err("out of range".to_owned());
    }
    Ok(Duration::from_nanos(ns as u64))
}

/// Number and unit of a text.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// Nanoseconds with three significant digits and a unit: `240 ns`, `1.20 µs`, `36.1 ms`, `2.00 s`.
pub(crate) fn show_ns(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let digits = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

/// A whole number with a thin gap every three digits: `1 250 000`.
pub(crate) fn show_count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_mean_what_they_say() {
        assert_eq!(parse_bytes("20000"), Ok(20_000));
        assert_eq!(parse_bytes("32MiB"), Ok(32 << 20));
        assert_eq!(parse_bytes("64K"), Ok(64 << 10));
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("1us"), Ok(Duration::from_micros(1)));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in ["", "x", "12Q", "-1", "99999999999999999999", "99999999999G"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        for text in ["", "x", "10", "10 weeks", "-1s", "1e400s", "99999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_duration("10").is_err_and(|e| e.contains("10s")));
    }

    #[test]
    fn numbers_keep_three_significant_digits() {
        assert_eq!(show_ns(240), "240 ns");
        assert_eq!(show_ns(1_204), "1.20 µs");
        assert_eq!(show_ns(36_149_000), "36.1 ms");
        assert_eq!(show_ns(2_000_000_000), "2.00 s");
        assert_eq!(show_count(1_250_000), "1 250 000");
        assert_eq!(show_count(7), "7");
    }
}
