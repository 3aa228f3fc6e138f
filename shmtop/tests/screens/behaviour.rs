//! What must be true of every screen, whatever its size.

use shmtop::history::HeatColumn;
use shmtop::model::{Bound, Choice, ClientState, Endpoint, LeftOut, Model};
use shmtop::ui::{ClientId, FindingId, State, Status, ThemeName, TimeMove, Timeline, View};
use transport::stats::Role;

use super::fixture::SECOND;
use super::{fixture, live, render, text};

/// Every state of the screen that looks different.
fn states(model: &Model) -> Vec<State> {
    let mut all: Vec<State> = View::ALL
        .into_iter()
        .map(|view| State {
            view,
            ..State::default()
        })
        .collect();
    all.push(State {
        help: true,
        ..State::default()
    });
    all.push(State {
        expanded: true,
        ..State::default()
    });
    all.push(State {
        typing: true,
        filter: "sock".to_owned(),
        ..State::default()
    });
    all.push(State {
        filter: "nobody".to_owned(),
        ..State::default()
    });
    if let Some(e) = model.endpoints.first() {
        for c in &e.clients {
            all.push(State {
                client: Some(ClientId::of(e, c)),
                scroll: 3,
                ..State::default()
            });
        }
    }
    for f in &model.findings {
        all.push(State {
            view: View::Hints,
            finding: Some(FindingId::of(f)),
            ..State::default()
        });
    }
    all
}

#[test]
fn no_size_is_too_small_or_too_odd() {
    for model in [
        fixture::exchange(),
        fixture::nothing(),
        fixture::two_servers(),
        Model::empty(),
    ] {
        for state in states(&model) {
            for width in [0, 1, 2, 3, 5, 9, 20, 40, 79, 97, 151, 300] {
                for height in [0, 1, 2, 3, 4, 7, 8, 10, 19, 60] {
                    render(&model, &state, &live(), width, height);
                }
            }
        }
    }
}

#[test]
fn the_sentence_that_matters_never_leaves_the_second_line() {
    let model = fixture::exchange();
    for state in states(&model) {
        for (width, height) in [(200, 60), (120, 40), (80, 24), (40, 10), (40, 3), (30, 2)] {
            let screen = text(&render(&model, &state, &live(), width, height).0);
            let second = screen.lines().nth(1).unwrap();
            assert!(second.contains("✖ "), "{width}×{height}: {second}");
            assert!(second.contains("pid 4242"), "{width}×{height}: {second}");
        }
    }
}

#[test]
fn events_per_message_stand_beside_the_messages_of_the_same_interval() {
    let mut model = fixture::healthy();
    // A glance has found no request since; what is counted per message is of the last whole window.
    for client in &mut model.endpoints[0].clients {
        client.requests_per_s = Ok(0.0);
    }
    let state = State {
        view: View::Perf,
        ..State::default()
    };
    let screen = text(&render(&model, &state, &live(), 120, 60).0);
    let per_message = screen.split("Per message").nth(1).expect("the table");
    let first = per_message.lines().find(|l| l.contains("client 1 "));
    let first = first.expect("its row");
    assert!(first.contains("51.7 k") && first.contains("1.1"), "{first}");
}

#[test]
fn ascii_is_ascii_on_every_screen() {
    let status = Status {
        frozen_ns: Some(1_500_000_000),
        ..live()
    };
    for model in [
        fixture::exchange(),
        fixture::nothing(),
        fixture::two_servers(),
    ] {
        for mut state in states(&model) {
            state.ascii = true;
            for (width, height) in [(200, 60), (80, 24), (40, 10)] {
                let screen = text(&render(&model, &state, &status, width, height).0);
                assert!(screen.is_ascii(), "{screen}");
                assert!(!screen.contains("???"), "{screen}");
            }
        }
    }
}

#[test]
fn without_colour_no_cell_has_a_colour_and_states_still_differ_by_shape() {
    let model = fixture::exchange();
    for mut state in states(&model) {
        state.theme = ThemeName::Mono;
        let (buffer, _) = render(&model, &state, &live(), 120, 40);
        for cell in &buffer.content {
            assert_eq!(cell.fg, ratatui::style::Color::Reset);
            assert_eq!(cell.bg, ratatui::style::Color::Reset);
        }
    }
    let screen = text(&render(&model, &State::default(), &live(), 120, 40).0);
    for (number, mark) in [(1, '●'), (7, '■'), (11, '○'), (16, '▲')] {
        let row = screen.lines().find(|l| {
            l.trim_start_matches([' ', '›'])
                .starts_with(&format!("{mark} {number} "))
        });
        assert!(row.is_some(), "client {number} with {mark}:\n{screen}");
    }
}

#[test]
fn with_nothing_running_the_screen_says_what_to_type() {
    let screen = text(&render(&fixture::nothing(), &State::default(), &live(), 120, 40).0);
    assert!(screen.contains("cargo run --release --bin demo"));
    assert!(screen.contains("cargo run --release --bin exchange"));
    assert!(!screen.contains("CLIENT"), "no empty table");
}

#[test]
fn before_anything_was_checked_nothing_is_said_to_be_well() {
    let mut model = fixture::healthy();
    let line = |model: &Model| {
        let screen = text(&render(model, &State::default(), &live(), 80, 24).0);
        screen.lines().nth(1).expect("a second line").to_owned()
    };
    assert!(line(&model).contains("✓ nothing wrong"));
    model.checked = Vec::new().into();
    model.needs_s = 3;
    assert_eq!(line(&model).trim(), "○ nothing checked yet: needs 3 s more");
}

#[test]
fn who_was_there_last_is_told_while_nobody_is_there() {
    let after = |s: u64, mut model: Model| {
        model.at_ns += s * SECOND;
        model.at_realtime_ns += s * SECOND;
        std::sync::Arc::new(model)
    };
    let mut clients = fixture::exchange();
    for e in clients.endpoints.iter_mut() {
        let client: &mut Endpoint = e;
        client.role = Role::Client;
    }
    let mut time = Timeline::default();
    time.push(after(0, fixture::nothing()));
    assert_eq!(time.left(), None, "nobody ever was");
    time.push(after(1, fixture::exchange()));
    assert_eq!(time.left(), None, "they are there");
    // Clients outlive it for a moment.
    time.push(after(2, clients));
    time.push(after(3, fixture::nothing()));
    time.push(after(4, fixture::nothing()));
    let left = time.left().expect("somebody was");
    assert_eq!(left.who, "exchange (4711) has gone");
    assert_eq!(left.at_realtime_ns, fixture::NOW_REALTIME + SECOND);
    time.go(TimeMove::Step(-2));
    assert_eq!(time.left(), None, "the moment that is looked at counts");
}

#[test]
fn clients_whose_server_has_gone_are_no_empty_table() {
    let mut model = fixture::exchange();
    for e in model.endpoints.iter_mut() {
        let client: &mut Endpoint = e;
        (client.role, client.name) = (Role::Client, "trader".to_owned());
        client.clients.clear();
    }
    model.at_ns += SECOND;
    let mut time = Timeline::default();
    time.push(fixture::exchange().into());
    time.push(model.clone().into());
    let status = Status {
        left: time.left(),
        ..live()
    };
    let screen = text(&render(&model, &State::default(), &status, 120, 40).0);
    assert!(
        screen.contains("exchange (4711) has gone; last seen at"),
        "{screen}"
    );
    assert!(
        screen.contains("trader (4711) has no connection"),
        "{screen}"
    );
}

/// What is left of `before` without its first server: of its clients the first two, each a process of its own without a connection.
fn without_the_first_server(mut before: Model) -> Model {
    before.at_ns += SECOND / 5;
    let server = before.endpoints.remove(0);
    for client in server.clients.iter().take(2) {
        let mut alone = (*server).clone();
        (alone.role, alone.name) = (Role::Client, "trader".to_owned());
        (alone.pid, alone.key.pid) = (client.peer_pid, client.peer_pid);
        alone.clients.clear();
        before.endpoints.push(alone.into());
    }
    before
}

#[test]
fn from_its_first_moment_without_their_server_clients_are_not_said_to_be_well() {
    for before in [
        fixture::healthy(),
        fixture::two_servers(),
        fixture::exchange(),
    ] {
        let after = without_the_first_server(before.clone());
        let mut time = Timeline::default();
        time.push(before.clone().into());
        assert_eq!(time.lost(), None);
        time.push(after.clone().into());
        let status = Status {
            lost: time.lost(),
            ..live()
        };
        for (view, width, height) in [
            (View::Overview, 80, 24),
            (View::Overview, 200, 10),
            (View::Perf, 120, 40),
            (View::Hints, 120, 40),
        ] {
            let state = State {
                view,
                ..State::default()
            };
            let screen = text(&render(&after, &state, &status, width, height).0);
            let second = screen.lines().nth(1).unwrap();
            assert!(
                second.starts_with(" ✖ exchange (4711) has gone; trader (")
                    && second.contains(" and 1 more are without a server"),
                "{screen}"
            );
            let well = ["nothing wrong", "Nothing is wrong"];
            assert!(!well.iter().any(|w| screen.contains(w)), "{screen}");
        }
        // Frozen at the moment before, all is as it was.
        time.go(TimeMove::Step(-1));
        assert_eq!(time.lost(), None);
        time.go(TimeMove::Toggle);
        assert!(time.lost().is_some());
        // The same where the server was there and others were asked for.
        let mut asked = after.clone();
        asked.at_ns = before.at_ns;
        let server = &before.endpoints[0];
        let clients = server.clients.iter().map(|c| c.peer_pid);
        asked.left_out = vec![LeftOut {
            key: server.key.clone(),
            clients: clients.collect(),
            connections: Vec::new(),
        }]
        .into();
        let mut its_clients = Timeline::default();
        its_clients.push(asked.into());
        assert_eq!(its_clients.lost(), None);
        its_clients.push(after.clone().into());
        assert_eq!(its_clients.lost(), time.lost());
        // They found another one.
        let mut again = before;
        again.at_ns = after.at_ns + SECOND;
        again.endpoints[0].key.pid += 1;
        time.push(again.into());
        assert_eq!(time.lost(), None);
    }
}

/// A glance between the two finds the connections gone and the page still there.
#[test]
fn a_server_that_closes_its_connections_before_it_goes_leaves_clients_behind_too() {
    let before = fixture::healthy();
    for (closing_s, is_missed) in [(1, true), (5, false)] {
        let mut time = Timeline::default();
        time.push(before.clone().into());
        let mut closing = before.clone();
        closing.at_ns += closing_s * SECOND;
        closing.endpoints[0].clients.clear();
        time.push(closing.clone().into());
        let mut after = without_the_first_server(before.clone());
        after.at_ns = closing.at_ns + SECOND;
        time.push(after.into());
        assert_eq!(time.lost().is_some(), is_missed, "{closing_s} s before");
    }
}

/// Either end of a connection knows the pid of the other in its own namespace.
#[test]
fn clients_of_a_server_in_another_container_are_left_behind_too() {
    let mut before = fixture::healthy();
    let mut after = without_the_first_server(before.clone());
    let served: Vec<_> = before.endpoints[0]
        .clients
        .iter()
        .take(2)
        .cloned()
        .collect();
    let clients = after.endpoints.iter_mut().rev().take(2).rev();
    for (e, mut row) in clients.zip(served) {
        let client: &mut Endpoint = e;
        (row.role, row.peer_pid) = (Role::Client, 7);
        client.clients = vec![row.clone()];
        before.endpoints.push(client.clone().into());
        row.state = ClientState::Dead;
        client.clients = vec![row];
    }
    for (n, c) in before.endpoints[0].clients.iter_mut().enumerate() {
        c.peer_pid = 10 + n as u32;
    }
    let mut time = Timeline::default();
    let (mut asked, own) = (before.clone(), after.clone());
    time.push(before.into());
    time.push(after.into());
    let lost = time.lost().expect("two are without a server");
    assert_eq!(lost.more, 1);
    // The same where the clients were asked for.
    let pids = own.endpoints.iter().filter(|e| e.role == Role::Client);
    Choice {
        pids: pids.map(|e| e.pid).collect(),
        name: None,
    }
    .select(&mut asked);
    let mut time = Timeline::default();
    time.push(asked.into());
    time.push(own.into());
    assert_eq!(time.lost(), Some(lost));
}

#[test]
fn who_pays_for_a_ring_is_told_from_either_end() {
    let mut model = fixture::healthy();
    let e: &mut Endpoint = &mut model.endpoints[0];
    e.limits.memory_group = Ok("/sys/fs/cgroup/own".to_owned());
    let mut charged = |role| {
        let e: &mut Endpoint = &mut model.endpoints[0];
        e.role = role;
        e.clients[0].role = role;
        let state = State {
            client: Some(ClientId::of(e, &e.clients[0])),
            ..State::default()
        };
        let screen = text(&render(&model, &state, &live(), 200, 60).0);
        let line = screen.lines().find(|l| l.contains("charged to"));
        line.expect("the fact").to_owned()
    };
    let line = charged(Role::Server);
    assert!(line.contains("▶ – its page is not shown  ◀ /own"), "{line}");
    let line = charged(Role::Client);
    assert!(line.contains("▶ /own  ◀ – its page is not shown"), "{line}");
}

#[test]
fn a_server_thread_of_one_client_is_not_called_a_poller() {
    let mut model = fixture::exchange();
    let server: &mut Endpoint = &mut model.endpoints[0];
    let mut own = server.pollers[0].clone();
    (own.number, own.is_of_client) = (16, true);
    server.pollers.push(own);
    let state = State {
        view: View::Perf,
        ..State::default()
    };
    let screen = text(&render(&model, &state, &live(), 120, 40).0);
    assert!(screen.contains("poller 0 ") && screen.contains("server of 16 "));
    assert!(!screen.contains("poller 16"));
}

#[test]
fn numbers_that_nobody_can_have_counted_do_not_end_the_dashboard() {
    let mut model = fixture::exchange();
    let e = &mut model.endpoints[0];
    let c = &mut e.clients[0];
    (c.timeouts, c.late_replies, c.errors) = (Ok(u64::MAX), Ok(u64::MAX), 1);
    let from_ns = c.history.latest().unwrap().at_ns;
    let at_ns = from_ns + SECOND;
    let buckets = (100..160).map(|bucket| (bucket, u64::MAX)).collect();
    c.history.push_heat(HeatColumn {
        from_ns,
        at_ns,
        buckets,
    });
    let id = ClientId::of(&model.endpoints[0], &model.endpoints[0].clients[0]);
    let state = State {
        client: Some(id),
        ..State::default()
    };
    let screen = text(&render(&model, &state, &live(), 120, 60).0);
    assert!(
        screen.contains(&format!("{} timeouts", u64::MAX)),
        "{screen}"
    );
}

#[test]
fn a_missing_value_is_a_dash_with_a_reason_where_it_is_opened() {
    let model = fixture::exchange();
    let e = &model.endpoints[0];
    let socket = e.clients.iter().find(|c| c.number == 16).unwrap();
    let state = State {
        client: Some(ClientId::of(e, socket)),
        ..State::default()
    };
    let screen = text(&render(&model, &state, &live(), 120, 60).0);
    assert!(
        screen.contains("– on the socket there is no ring"),
        "{screen}"
    );
    assert!(screen.contains("no PMU"), "{screen}");
    assert!(
        screen.contains("memfd_create → EMFILE, 64 of 64"),
        "{screen}"
    );
}

#[test]
fn a_client_with_nothing_to_do_is_bound_by_nothing() {
    let model = fixture::two_servers();
    let of = |bound: Bound| {
        let mut clients = model.rows().filter(|(_, c)| c.verdict.bound == bound);
        let (e, c) = clients.next().unwrap();
        let state = State {
            client: Some(ClientId::of(e, c)),
            ..State::default()
        };
        text(&render(&model, &state, &live(), 120, 40).0)
    };
    let idle = of(Bound::Idle);
    assert!(
        idle.contains(" idle since ") && !idle.contains("bound by"),
        "{idle}"
    );
    assert!(of(Bound::Handler).contains(" bound by handler since "));
}
