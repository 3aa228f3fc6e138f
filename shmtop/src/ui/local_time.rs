//! Moments on the user's wall clock; `runtime` says how far that is from UTC.

/// `12:04:31` of a moment on CLOCK_REALTIME, shifted by `offset_s`.
pub fn clock(realtime_ns: u64, offset_s: i64) -> String {
    let s = (realtime_ns / 1_000_000_000) as i64 + offset_s;
    let s = s.rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
}

/// `2026-11-26 12:04:31 +02:00` of a moment on CLOCK_REALTIME, shifted by `offset_s`: a recording is seldom of today.
pub fn stamp(realtime_ns: u64, offset_s: i64) -> String {
    let days = ((realtime_ns / 1_000_000_000) as i64 + offset_s).div_euclid(86_400);
    // Days since 1 March of year 0 (the leap day is then a year's last); 146,097 make 400 years.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (sign, minutes) = (if offset_s < 0 { '-' } else { '+' }, offset_s.abs() / 60);
    format!(
        "{year:04}-{month:02}-{day:02} {} {sign}{:02}:{:02}",
        clock(realtime_ns, offset_s),
        minutes / 60,
        minutes % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_wraps_at_midnight_in_both_directions() {
        assert_eq!(clock(0, 0), "00:00:00");
        assert_eq!(clock(0, -3_600), "23:00:00");
        assert_eq!(clock(86_399_000_000_000, 1), "00:00:00");
        assert_eq!(clock(43_471_000_000_000, 0), "12:04:31");
    }

    #[test]
    fn a_stamp_has_the_day_on_the_users_calendar() {
        let at = |s: u64, offset_s| stamp(s * 1_000_000_000, offset_s);
        assert_eq!(at(0, 0), "1970-01-01 00:00:00 +00:00");
        assert_eq!(at(0, -12_600), "1969-12-31 20:30:00 -03:30");
        // 29 February of a century that has one, and of a year that has one; the day after each.
        assert_eq!(at(951_782_400, 0), "2000-02-29 00:00:00 +00:00");
        assert_eq!(at(951_868_799, 1), "2000-03-01 00:00:00 +00:00");
        assert_eq!(at(1_709_164_800, 0), "2024-02-29 00:00:00 +00:00");
        assert_eq!(at(1_764_154_800, 7_200), "2025-11-26 13:00:00 +02:00");
    }
}
