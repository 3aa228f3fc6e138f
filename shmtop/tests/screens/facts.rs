//! What single facts say of a client.

use shmtop::model::{Bound, Endpoint};
use shmtop::ui::{ClientId, State, View};
use transport::stats::Role;

use super::{fixture, live, render, text};

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
