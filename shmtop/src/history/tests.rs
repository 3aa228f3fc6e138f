use proptest::prelude::*;

use super::chunked::CHUNK;
use super::*;

const MS: u64 = 1_000_000;

fn at(ms: u64, rate: impl Into<Option<f32>>) -> Point {
    let rate = rate.into();
    Point {
        at_ns: ms * MS,
        requests_per_s: rate,
        request_ring_bytes: rate,
        ..Point::default()
    }
}

fn rate(p: &Point) -> Option<f32> {
    p.requests_per_s
}

fn level(p: &Point) -> Option<f32> {
    p.request_ring_bytes
}

/// Looks every `every_ms`, 5 % more or less, for `ms`; no rate at the first.
fn looks(every_ms: u64, ms: u64, rate: f32) -> History {
    let mut h = History::default();
    let mut now = 1_000_000;
    h.push(Point {
        request_ring_bytes: Some(rate),
        ..at(now, None)
    });
    for i in 0u64.. {
        now += every_ms * (95 + i * 7 % 11) / 100;
        if now > 1_000_000 + ms {
            return h;
        }
        h.push(at(now, rate));
    }
    h
}

fn now(h: &History) -> u64 {
    h.latest().unwrap().at_ns
}

#[test]
fn the_past_is_bounded_whatever_the_refresh_and_keeps_the_last_minute() {
    for every_ms in [50, 100, 1_000, 10_000] {
        let h = looks(every_ms, 3_000_000, 1.0);
        let n = h.fine().count();
        assert!(n < FINE_POINTS + 2 * CHUNK, "{every_ms} ms: {n}");
        assert!(
            n < 60_000 / every_ms as usize + 3 * CHUNK,
            "{every_ms} ms: {n}"
        );
        assert!(h.means.iter().count() < MEANS + 2 * CHUNK);
        let oldest = h.fine().next().unwrap().at_ns;
        assert!(now(&h) - oldest >= 56 * SECOND_NS, "{every_ms} ms");
    }
}

#[test]
fn at_every_refresh_and_width_a_steady_rate_is_an_unbroken_line() {
    for every_ms in [50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000] {
        let h = looks(every_ms, 90_000, 7.0);
        for count in [1, 2, 7, 10, 13, 40, 60, 97, 150, 400] {
            let span = 60 * SECOND_NS;
            for (what, columns) in [
                ("means", h.means(count, now(&h), span, rate)),
                ("largest", h.largest(count, now(&h), span, level)),
                ("rates", h.rates(count, now(&h), span)),
            ] {
                assert_eq!(
                    columns,
                    vec![Some(7.0); count],
                    "{what}, every {every_ms} ms"
                );
            }
        }
    }
}

#[test]
fn only_what_was_not_known_is_a_gap() {
    let mut h = History::default();
    h.push(at(10_000, None));
    for second in 11..=20 {
        let known = !(14..=15).contains(&second);
        h.push(at(second * 1_000, known.then_some(3.0)));
    }
    let columns = h.means(12, 20 * SECOND_NS, 12 * SECOND_NS, rate);
    let (gap, v) = (None, Some(3.0));
    assert_eq!(columns, [gap, gap, v, v, v, gap, gap, v, v, v, v, v]);
    assert_eq!(columns, h.rates(12, 20 * SECOND_NS, 12 * SECOND_NS));
    let levels = h.largest(12, 20 * SECOND_NS, 12 * SECOND_NS, level);
    assert_eq!(columns, levels);
}

#[test]
fn while_the_dashboard_was_starved_counters_went_on_and_levels_were_not_seen() {
    for (starved_s, levels) in [(5, vec![Some(9.0); 5]), (20, vec![None; 20])] {
        let mut h = looks(100, 30_000, 9.0);
        let before = (now(&h) / SECOND_NS + 1) * SECOND_NS;
        let after = before + starved_s * SECOND_NS;
        h.push(at(before / MS, 9.0));
        h.push(at(after / MS, 9.0));
        let n = starved_s as usize;
        let rates = h.means(n + 2, after, (starved_s + 2) * SECOND_NS, rate);
        assert_eq!(rates, vec![Some(9.0); n + 2]);
        let seen = h.largest(n + 1, after, (starved_s + 1) * SECOND_NS, level);
        let seen = &seen[1..];
        assert_eq!(seen[n - 1], Some(9.0), "the moment itself was seen");
        assert_eq!(seen[..n - 1], levels[..n - 1]);
    }
}

#[test]
fn what_stands_in_a_column_stays_there_while_time_passes() {
    let mut h = looks(100, 70_000, 5.0);
    let mut shown: Vec<Option<f32>> = Vec::new();
    for tick in 0..60 {
        h.push(at(now(&h) / MS + 100, 5.0 + tick as f32));
        let columns = h.means(60, now(&h), 60 * SECOND_NS, rate);
        if !shown.is_empty() {
            // The newest column is still being filled.
            let same = columns[..58] == shown[..58];
            let moved = columns[..58] == shown[1..59];
            assert!(same || moved, "{columns:?} after {shown:?}");
        }
        shown = columns;
    }
}

#[test]
fn a_row_that_is_looked_at_once_a_second_has_no_gap_at_the_edge_but_one_that_stopped_has() {
    let h = looks(1_000, 90_000, 2.0);
    let columns = |later: u64| h.means(120, now(&h) + later * MS, 60 * SECOND_NS, rate);
    assert_eq!(columns(900)[119], Some(2.0));
    assert_eq!(columns(3_000)[115..], [None; 5]);
}

#[test]
fn the_number_beside_a_chart_is_the_mean_of_a_second_or_of_the_last_look() {
    let mut h = looks(100, 10_000, 4.0);
    assert_eq!(h.last_second(rate), Some(4.0));
    let then = now(&h) / MS;
    // Half of the second in one look, and the rest in two.
    h.push(at(then + 500, 10.0));
    h.push(at(then + 900, 0.0));
    h.push(at(then + 1_000, 0.0));
    assert_eq!(h.last_second(rate), Some(5.0));
    h.push(at(then + 6_000, 8.0));
    assert_eq!(h.last_second(rate), Some(8.0));
    assert_eq!(h.last_second(|p| p.bytes_per_s), None);
}

#[test]
fn where_time_runs_backwards_the_past_is_another_one() {
    let mut h = looks(100, 10_000, 4.0);
    h.push(at(500, None));
    h.push(at(600, 2.0));
    assert_eq!(h.fine().count(), 2);
    assert_eq!(h.last_second(rate), Some(2.0));
}

#[test]
fn every_second_of_the_heat_map_has_the_round_trips_of_its_time() {
    for every_ms in [950, 1_000, 1_050, 2_000, 5_000] {
        let mut h = History::default();
        let n = 60_000 / every_ms;
        for i in 0..n {
            h.push_heat(HeatColumn {
                from_ns: (100_000 + i * every_ms) * MS,
                at_ns: (100_000 + (i + 1) * every_ms) * MS,
                buckets: vec![(i as u16, 1)],
            });
        }
        let columns = h.heat(70, (100_000 + n * every_ms) * MS);
        let filled = columns.iter().take_while(|c| !c.is_empty()).count();
        let seconds = (n * every_ms / 1_000) as usize;
        assert!(
            (seconds..=seconds + 1).contains(&filled),
            "{every_ms} ms: {filled}"
        );
        let mut seen: Vec<u16> = columns.iter().flatten().map(|c| c.buckets[0].0).collect();
        seen.dedup();
        assert_eq!(
            seen,
            (0..n as u16).rev().collect::<Vec<_>>(),
            "each, in order"
        );
    }
}

#[test]
fn a_clone_keeps_its_past_while_the_original_goes_on() {
    let mut h = History::default();
    for i in 1..100 {
        h.push(at(i * 100, i as f32));
    }
    let frozen = h.clone();
    h.push(at(20_000, 1.0));
    assert_eq!(frozen.latest().unwrap().requests_per_s, Some(99.0));
    assert_eq!(frozen.fine().count(), 99);
    let mut other = frozen.clone();
    other.push(at(20_000, 2.0));
    assert_eq!(h.latest().unwrap().requests_per_s, Some(1.0));
    assert_eq!(other.latest().unwrap().requests_per_s, Some(2.0));
    assert_eq!(other.fine().count(), h.fine().count());
}

/// The mean over (begin, end] of what each ms had, as nobody would compute it: ms by ms.
fn naive(ms: &[Option<f32>], begin: usize, end: usize) -> Option<f32> {
    let known: Vec<f32> = ms[begin..end].iter().flatten().copied().collect();
    (!known.is_empty()).then(|| known.iter().sum::<f32>() / known.len() as f32)
}

proptest! {
    #[test]
    fn each_column_has_the_mean_of_its_time(
        looks in prop::collection::vec((1usize..3_000, prop::option::of(0f32..1e6)), 1..60),
        count in 1usize..50,
        step in 1usize..2_000,
    ) {
        let mut h = History::default();
        h.push(at(1, None));
        // Of each ms, what is known of it; the first has none.
        let mut ms = vec![None];
        for &(long, rate) in &looks {
            ms.extend(std::iter::repeat_n(rate, long));
            h.push(at(ms.len() as u64, rate));
        }
        let columns = h.means(count, now(&h), (count * step) as u64 * MS, rate);
        let end = ms.len().div_ceil(step) * step;
        ms.resize(end, None);
        for (i, shown) in columns.iter().rev().enumerate() {
            let (begin, end) = (end.saturating_sub((i + 1) * step), end.saturating_sub(i * step));
            let wanted = naive(&ms, begin, end);
            match (shown, wanted) {
                (Some(a), Some(b)) => prop_assert!((a - b).abs() <= b * 1e-3, "{} {}", a, b),
                (a, b) => prop_assert_eq!(*a, b),
            }
        }
    }
}
