//! Rows stand in the order of what is shown in them.

use shmtop::Why;
use shmtop::model::{Client, Model};
use shmtop::ui::{ClientId, SortKey, State};

use super::{fixture, live, render, text};

/// The cells below the title `from`, up to where `to` begins, from the top, sorted by `sort`.
fn column(model: &Model, sort: SortKey, from: &str, to: &str) -> Vec<String> {
    let state = State {
        sort,
        ..State::default()
    };
    let screen = text(&render(model, &state, &live(), 200, 60).0);
    let mut lines = screen.lines().skip_while(|l| !l.contains("CLIENT"));
    let titles = lines.next().expect("titles");
    let place = |title: &str| {
        let byte = titles
            .find(title)
            .unwrap_or_else(|| panic!("{title}: {titles}"));
        titles[..byte].chars().count()
    };
    let (from, to) = (place(from), place(to));
    lines
        .take_while(|l| !l.trim().is_empty())
        .map(|l| {
            let cell: String = l.chars().take(to).skip(from).collect();
            cell.trim().to_owned()
        })
        .collect()
}

fn client(model: &mut Model, number: u32) -> &mut Client {
    let clients = &mut model.endpoints[0].clients;
    let client = clients.iter_mut().find(|c| c.number == number);
    client.expect("that client")
}

#[test]
fn one_busy_moment_is_not_what_a_rate_is_sorted_by() {
    let mut model = fixture::healthy();
    // A glance in which it did a hundred times as much as in the second that is shown.
    let c = client(&mut model, 9);
    c.requests_per_s = Ok(2_600_000.0);
    c.bytes_per_s = Ok(2e12);
    for sort in [SortKey::Requests, SortKey::Bytes] {
        let rows = column(&model, sort, "CLIENT", " PEER");
        assert!(rows[0].contains("● 1"), "{rows:?}");
    }
}

#[test]
fn percentiles_are_sorted_by_those_that_are_shown() {
    let mut model = fixture::healthy();
    for c in &mut model.endpoints[0].clients {
        let c: &mut Client = c;
        // Too few for a p99.9: that of ten seconds is shown, and there the clients stand the other way round.
        let number = u64::from(c.number);
        let mut interval = c.rtt.interval.clone().expect("it was timed");
        let mut recent = interval;
        (interval.count, interval.p999) = (900, 1_000_000 * number);
        (recent.count, recent.p999) = (20_000, 30_000 - 1_000 * number);
        (c.rtt.interval, c.rtt.recent) = (Ok(interval), Ok(recent));
    }
    let rows = column(&model, SortKey::P999, "p99.9", "BOUND");
    let wanted: Vec<String> = (0..rows.len()).map(|i| format!("{} µs", 29 - i)).collect();
    assert_eq!(rows, wanted);
}

#[test]
fn of_one_that_stands_still_the_state_is_shown_and_sorted_by() {
    let model = fixture::exchange();
    let bound = column(&model, SortKey::Bound, "BOUND", "REQ/s, 60");
    assert!(bound.contains(&"stopped".to_owned()), "{bound:?}");
    assert!(bound.is_sorted(), "{bound:?}");
    let waits = column(&model, SortKey::Wait, "WAIT", "HANDLER");
    let stopped = waits.iter().position(|w| w.starts_with("for "));
    let counted = waits.iter().rposition(|w| w.contains('░'));
    assert!(stopped > counted, "nothing was counted of it: {waits:?}");
}

#[test]
fn what_is_missing_comes_last() {
    let mut model = fixture::healthy();
    client(&mut model, 5).requests_per_s = Err(Why::not_yet("needs 1 s more"));
    let rows = column(&model, SortKey::Requests, "CLIENT", " PEER");
    assert!(rows.last().expect("rows").ends_with('5'), "{rows:?}");
}

#[test]
fn the_count_below_the_percentiles_is_of_the_values_that_they_are_out_of() {
    let mut model = fixture::healthy();
    let c = client(&mut model, 1);
    let mut interval = c.rtt.interval.clone().expect("it was timed");
    let mut recent = interval;
    (interval.count, recent.count) = (900, 12_000);
    (c.rtt.interval, c.rtt.recent) = (Ok(interval), Ok(recent));
    let endpoint = &model.endpoints[0];
    let state = State {
        client: Some(ClientId::of(endpoint, &endpoint.clients[0])),
        ..State::default()
    };
    let screen = text(&render(&model, &state, &live(), 120, 40).0);
    assert!(screen.contains("12.0 k timed in 10 s"), "{screen}");
}
