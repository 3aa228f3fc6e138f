//! Where in time the user wants to be, as typed after `@`.

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jump {
    /// Time of day on the user's clock, in seconds; of the day that is looked at.
    Clock(u32),
    /// Since the first look, or the beginning of the recording, in ns.
    Since(u64),
}

/// Letters of what can be typed, and how many at most.
pub(super) const LETTERS: &str = "0123456789:.smh";
pub(super) const LONGEST: usize = 12;
const DAY_S: u32 = 86_400;
const SECOND_NS: f64 = 1e9;

impl Jump {
    /// `12:04` and `12:04:31`; `90s`, `1.5m`, `2h`. `None` if it is neither, or not yet.
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains(':') {
            let parts: Option<Vec<u32>> = text.split(':').map(|p| p.parse().ok()).collect();
            let (h, m, s) = match parts?[..] {
                [h, m] => (h, m, 0),
                [h, m, s] => (h, m, s),
                _ => return None,
            };
            return (h < 24 && m < 60 && s < 60).then(|| Self::Clock(h * 3_600 + m * 60 + s));
        }
        let (number, seconds) = match text.split_at_checked(text.len().checked_sub(1)?)? {
            (number, "s") => (number, 1.0),
            (number, "m") => (number, 60.0),
            (number, "h") => (number, 3_600.0),
            _ => return None,
        };
        let number: f64 = number.parse().ok().filter(|n| *n >= 0.0)?;
        // A float too large for it becomes the largest.
        Some(Self::Since((number * seconds * SECOND_NS) as u64))
    }

    /// The moment on CLOCK_MONOTONIC, ns. `began_ns` is the first look on that clock; `here` the moment that is looked at, on it and in ns
    /// since 1970; `offset_s` what the user's clock is ahead of UTC.
    pub fn at_ns(self, began_ns: u64, here: (u64, u64), offset_s: i64) -> u64 {
        match self {
            Self::Since(ns) => began_ns.saturating_add(ns),
            Self::Clock(wanted_s) => {
                let day_ns = u64::from(DAY_S) * 1_000_000_000;
                let shift_ns = offset_s.rem_euclid(i64::from(DAY_S)) as u64 * 1_000_000_000;
                let of_day_ns = here.1.saturating_add(shift_ns) % day_ns;
                let wanted_ns = u64::from(wanted_s) * 1_000_000_000;
                (here.0.saturating_add(wanted_ns)).saturating_sub(of_day_ns)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_of_day_or_a_time_since_the_beginning() {
        assert_eq!(Jump::parse("12:04:31"), Some(Jump::Clock(43_471)));
        assert_eq!(Jump::parse("00:10"), Some(Jump::Clock(600)));
        assert_eq!(Jump::parse("1.5m"), Some(Jump::Since(90_000_000_000)));
        assert_eq!(Jump::parse("0s"), Some(Jump::Since(0)));
        for bad in [
            "", ":", "s", "12", "24:00", "12:60", "1:2:3:4", "..s", "-1s", "12:4x", "µ",
        ] {
            assert_eq!(Jump::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_time_of_day_is_found_from_wherever_one_looks() {
        const S: u64 = 1_000_000_000;
        // 12:04:31 UTC, and 500 s since boot: on a clock that is two hours ahead 14:04:31.
        let here = (500 * S, (19_000 * 86_400 + 43_471) * S + 7);
        let at = |text, offset_s| Jump::parse(text).map(|j| j.at_ns(100 * S, here, offset_s));
        assert_eq!(at("12:04:31", 0), Some(500 * S - 7));
        assert_eq!(at("14:04:21", 7_200), Some(490 * S - 7));
        assert_eq!(at("10:05:31", -7_200), Some(560 * S - 7));
        assert_eq!(at("20s", 7_200), Some(120 * S));
    }
}
