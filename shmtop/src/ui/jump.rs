//! Where in time the user wants to be, as typed after `@`.

use super::action::TimeMove;

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jump {
    /// Time of day on the user's clock, in seconds.
    Clock(u32),
    /// Since the first look, or the beginning of the recording, in ns.
    Since(u64),
}

/// Letters of what can be typed, and how many at most.
pub(super) const LETTERS: &str = "0123456789:.smh";
pub(super) const LONGEST: usize = 12;
const DAY_S: i64 = 86_400;
const SECOND_NS: u64 = 1_000_000_000;

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
        Some(Self::Since((number * seconds * SECOND_NS as f64) as u64))
    }

    /// The move to it. A time of day is that of the day that is looked at, the day before or the day after: the one in the time that was
    /// seen, else the nearest to it.
    pub fn to(self, seen: &Seen) -> TimeMove {
        let wanted_s = match self {
            Self::Since(ns) => return TimeMove::To(seen.began_ns.saturating_add(ns)),
            Self::Clock(wanted_s) => i64::from(wanted_s),
        };
        let here_s = (seen.here_realtime_ns / SECOND_NS) as i64;
        let today = (here_s + seen.offset_s).div_euclid(DAY_S);
        let moment = |day: i64| {
            let unix_s = (today + day) * DAY_S + wanted_s - seen.offset_s;
            u64::try_from(unix_s).map_or(0, |s| s.saturating_mul(SECOND_NS))
        };
        let (began, newest) = (seen.began_realtime_ns, seen.newest_realtime_ns);
        let away = |at: &u64| began.saturating_sub(*at).max(at.saturating_sub(newest));
        // A recording that is still read may well reach this evening; it has nothing of the one before it began.
        let before = Some(moment(-1)).filter(|at| !seen.reads_on || *at >= began);
        let days = [Some(moment(0)), before, Some(moment(1))];
        let nearest = days.into_iter().flatten().min_by_key(away);
        TimeMove::ToClock(nearest.unwrap_or_else(|| moment(0)))
    }
}

/// The time in which a moment is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The first look on CLOCK_MONOTONIC, ns.
    pub began_ns: u64,
    /// The same in ns since 1970.
    pub began_realtime_ns: u64,
    /// The moment that is looked at, in ns since 1970.
    pub here_realtime_ns: u64,
    /// The newest that there is, in ns since 1970.
    pub newest_realtime_ns: u64,
    /// What the user's clock is ahead of UTC, seconds.
    pub offset_s: i64,
    /// Whether there is more to read.
    pub reads_on: bool,
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
    fn a_time_of_day_is_found_on_the_users_clock_and_over_midnight() {
        const DAY: u64 = 19_000 * 86_400 * SECOND_NS;
        let seen = |began_s: u64, newest_s: u64, offset_s, reads_on| Seen {
            began_ns: 100 * SECOND_NS,
            began_realtime_ns: DAY + began_s * SECOND_NS,
            here_realtime_ns: DAY + newest_s * SECOND_NS + 7,
            newest_realtime_ns: DAY + newest_s * SECOND_NS + 7,
            offset_s,
            reads_on,
        };
        let to = |text, seen: Seen| Jump::parse(text).map(|j| j.to(&seen));
        let at = |s: u64| Some(TimeMove::ToClock(DAY + s * SECOND_NS));
        // 12:04:31 UTC: on a clock that is two hours ahead 14:04:31.
        let noon = |offset_s| seen(43_000, 43_471, offset_s, false);
        assert_eq!(to("12:04:31", noon(0)), at(43_471));
        assert_eq!(to("14:04:21", noon(7_200)), at(43_461));
        assert_eq!(to("10:04:21", noon(-7_200)), at(43_461));
        assert_eq!(to("12:05", noon(0)), at(43_500), "yet to come");
        assert_eq!(to("20s", noon(7_200)), Some(TimeMove::To(120 * SECOND_NS)));
        // Two minutes past midnight, begun at 23:50; and a recording of which no more is read than up to 23:55.
        let midnight = 86_400;
        let late = |offset_s| seen(midnight - 600, midnight + 120, offset_s, false);
        assert_eq!(to("23:58", late(0)), at(midnight - 120));
        assert_eq!(to("00:01", late(0)), at(midnight + 60));
        assert_eq!(to("01:58", late(7_200)), at(midnight - 120));
        let reads_on = seen(midnight - 600, midnight - 300, 0, true);
        assert_eq!(to("00:02", reads_on), at(midnight + 120));
        // Begun at ten in the morning: this evening it may have, the last it has not.
        let morning = |reads_on| seen(36_000, 36_300, 0, reads_on);
        assert_eq!(to("23:00", morning(true)), at(82_800));
        assert_eq!(
            to("23:00", morning(false)),
            Some(TimeMove::ToClock(DAY - 3_600 * SECOND_NS))
        );
    }
}
