//! What is said when a server, or everybody, has gone.

use shmtop::model::{Choice, ClientState, Endpoint, LeftOut, Model};
use shmtop::ui::{State, Status, TimeMove, Timeline, View};
use transport::stats::Role;

use super::fixture::SECOND;
use super::{fixture, live, render, text};

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
