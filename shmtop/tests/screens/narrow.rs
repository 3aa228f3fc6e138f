//! What a narrow or small terminal keeps: who, how much, what is wrong and the way back, whole or not at all.

use shmtop::ui::{FindingId, State, Status, View};

use super::{at, fixture, live, opened, render, screen, text};

fn header(status: &Status, width: u16) -> String {
    let model = fixture::exchange();
    let drawn = text(&render(&model, &State::default(), status, width, 3).0);
    drawn.lines().next().unwrap().to_owned()
}

fn words(drawn: &str) -> String {
    drawn.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_first_line_says_who_and_how_much_before_what_is_there_to_be_looked_up() {
    let slowed = Status {
        slowed: Some("slowed".to_owned()),
        ..live()
    };
    for status in [live(), slowed] {
        for width in 40..200 {
            let line = header(&status, width);
            for part in ["exchange", "16 clients", "293 k req/s", "●"] {
                assert!(line.contains(part), "{width}: {line}");
            }
            let is_whole = line.contains("(4711)") || !line.contains('(');
            assert!(is_whole, "{width}: {line}");
            let later = [" live", "self ", "12:04", "shmtop "];
            let has_more = later.iter().any(|part| line.contains(part));
            let has_all = line.contains("1 socket") && line.contains("10.9 GiB/s");
            assert!(has_all || !has_more, "{width}: {line}");
        }
        assert!(header(&status, 80).contains("16 clients, 1 socket"));
    }
    for width in 12..40 {
        let line = header(&live(), width);
        assert!(line.contains("exchange "), "{width}: {line}");
    }
}

#[test]
fn a_name_that_is_too_long_is_seen_to_be_cut() {
    let mut model = fixture::exchange();
    model.endpoints[0].name = "an-exchange-with-a-long-name-of-its-own".to_owned();
    for width in 8..40 {
        let drawn = screen(&model, &State::default(), width, 3);
        let line = drawn.lines().next().unwrap();
        assert!(line.contains("… ●"), "{width}: {line}");
    }
}

#[test]
fn what_is_open_has_its_way_back_in_the_last_line() {
    let model = fixture::exchange();
    let hint = State {
        finding: Some(FindingId::of(&model.findings[0])),
        ..at(View::Hints)
    };
    let help = State {
        help: true,
        ..State::default()
    };
    for state in [opened(&model, 1), hint, help] {
        for ascii in [false, true] {
            let state = State {
                ascii,
                ..state.clone()
            };
            for width in [30, 40, 60, 80, 120] {
                let drawn = screen(&model, &state, width, 15);
                let keys = drawn.lines().last().unwrap();
                assert!(keys.contains("Esc back"), "{width}: {keys}");
            }
        }
    }
}

#[test]
fn what_bounds_the_number_of_clients_is_said_at_any_width() {
    let model = fixture::exchange();
    for width in [40, 60, 80, 120] {
        let drawn = screen(&model, &at(View::Limits), width, 40);
        let said = words(&drawn);
        assert!(
            said.contains("room for 0 more clients, bounded by fds")
                || said.contains("room for 0 more clients bounded by fds"),
            "{drawn}"
        );
        let fds = "61 of 64; one more client takes 3: room for 0";
        assert!(said.contains(fds), "{width}: {drawn}");
    }
}

#[test]
fn of_hints_that_do_not_fit_the_selected_one_is_whole_and_the_others_are_counted() {
    let mut model = fixture::exchange();
    let mut findings = model.findings.to_vec();
    for i in 0..9 {
        let mut more = findings[1].clone();
        more.subject.client = Some(100 + i);
        more.subject.connection_id = Some(u64::from(100 + i));
        findings.push(more);
    }
    model.findings = findings.clone().into();
    for finding in &findings {
        let state = State {
            selected_hint: Some(FindingId::of(finding)),
            ..at(View::Hints)
        };
        for (width, height) in [(40, 15), (80, 15)] {
            let drawn = screen(&model, &state, width, height);
            let fix = finding.fix.lines().next().unwrap();
            assert!(words(&drawn).contains(fix), "{drawn}");
            assert!(drawn.contains(" more"), "{drawn}");
        }
    }
}

#[test]
fn with_room_for_less_than_a_hint_its_cure_is_what_stays() {
    let mut model = fixture::exchange();
    model.findings[0].says = "one word after the other ".repeat(20);
    let drawn = screen(&model, &at(View::Hints), 40, 12);
    assert!(drawn.contains("kill -CONT 4242"), "{drawn}");
    assert!(drawn.contains('…'), "{drawn}");
}

#[test]
fn a_thread_is_named_below_its_process_and_not_by_a_name_that_is_cut() {
    let mut model = fixture::two_servers();
    // Two of one name are told apart by their pids.
    model.endpoints[1].name = "exchange".to_owned();
    for width in [60, 80, 120, 200] {
        let drawn = screen(&model, &at(View::Perf), width, 60);
        for caption in ["exchange (4711)", "exchange (5100)"] {
            let found = drawn.matches(caption).count();
            assert_eq!(found, 2, "in each table, at {width}: {drawn}");
        }
        assert!(drawn.contains("\n poller 0 "), "{drawn}");
        assert!(drawn.contains("\n client 5 "), "{drawn}");
    }
}

#[test]
fn why_a_thread_is_not_seen_is_said_at_any_width() {
    let mut model = fixture::healthy();
    let why = shmtop::Why::no_permission("the process is another user's");
    let client: &mut shmtop::model::Client = &mut model.endpoints[0].clients[2];
    client.thread = Err(why);
    for width in [60, 80, 120] {
        let drawn = screen(&model, &at(View::Perf), width, 40);
        assert!(
            drawn.contains("client 3  – the process is another user's"),
            "{drawn}"
        );
    }
}

#[test]
fn where_the_ends_run_and_what_bounds_is_whole_at_40_and_60() {
    let model = fixture::exchange();
    for width in [44, 60, 80] {
        let drawn = screen(&model, &opened(&model, 1), width, 30);
        let place = "thread 4261 on CPU 1 ⇄ server 4719 on CPU 0, two cores, same L3";
        assert!(words(&drawn).contains(place), "{drawn}");
    }
    let mut model = fixture::healthy();
    model.endpoints[0].limits.room_fds = Ok(60_000);
    model.endpoints[0].limits.room_memory = Ok(60_000);
    model.endpoints[0].admission.max_clients = 1_024;
    let drawn = screen(&model, &State::default(), 40, 15);
    assert!(
        drawn.contains("room for 1008 more (max clients)"),
        "{drawn}"
    );
}

#[test]
fn what_is_below_is_counted_in_a_line_of_its_own() {
    let model = fixture::exchange();
    for height in 10..30 {
        let drawn = screen(&model, &opened(&model, 1), 40, height);
        for line in drawn.lines().filter(|l| l.contains("more")) {
            assert!(!line.contains(['╰', '│']), "{height}: {drawn}");
        }
    }
}

#[test]
fn the_machine_is_told_whole_at_any_width() {
    let mut model = fixture::exchange();
    for clocked in [false, true] {
        if clocked {
            for cpu in &mut model.host.cpus {
                cpu.frequency_khz = Ok((2_400_000, 3_600_000));
            }
        }
        for width in 40..=200 {
            let drawn = words(&screen(&model, &at(View::Host), width, 60));
            for part in [
                "build-7 kernel 6.18.0 virtual machine",
                "64 % busy 0.4 % stolen",
                "1.80 over 1 min, 1.20 over 5, 0.70 over 15",
                "11 % of the last 10 s a task waited for a CPU",
                " available of ",
            ] {
                assert!(drawn.contains(part), "{width}, {part}: {drawn}");
            }
            let frequency = drawn.contains("stolen 2.4 of 3.6 GHz");
            assert_eq!(frequency, clocked, "{width}: {drawn}");
        }
    }
}
