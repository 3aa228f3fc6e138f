//! What keys and clicks do.

use shmtop::model::Model;
use shmtop::ui::{Action, ClientId, Effect, FindingId, SortKey, State, TimeMove, View, update};

use super::{fixture, live, render, text};

fn press(state: &mut State, model: &Model, actions: &[Action]) -> Effect {
    let mut last = Effect::Redraw;
    for action in actions {
        last = update(state, *action, model);
    }
    last
}

#[test]
fn escape_closes_one_thing_after_the_other_and_never_quits() {
    let model = fixture::exchange();
    let mut state = State::default();
    press(
        &mut state,
        &model,
        &[Action::Down, Action::Open, Action::Help],
    );
    assert!(state.help && state.client.is_some());
    for _ in 0..10 {
        assert_eq!(press(&mut state, &model, &[Action::Back]), Effect::Redraw);
    }
    assert!(!state.help && state.client.is_none());
    assert_eq!(state.view, View::Overview);
    assert_eq!(press(&mut state, &model, &[Action::Quit]), Effect::Quit);
}

#[test]
fn the_selection_stays_with_its_client_when_the_order_changes() {
    let model = fixture::exchange();
    let mut state = State::default();
    press(&mut state, &model, &[Action::Down, Action::Down]);
    let chosen = state.selected.clone().unwrap();
    press(
        &mut state,
        &model,
        &[Action::SortBy(SortKey::P99), Action::Invert, Action::Open],
    );
    assert_eq!(state.client, Some(chosen));
}

#[test]
fn a_filter_narrows_while_it_is_typed_and_escape_shows_all_again() {
    let model = fixture::exchange();
    let mut state = State::default();
    let rows = |state: &State| {
        let groups = shmtop::ui::rows::groups(&model, state);
        shmtop::ui::rows::flat(&groups).len()
    };
    press(&mut state, &model, &[Action::Filter]);
    for c in "socket".chars() {
        press(&mut state, &model, &[Action::Type(c)]);
    }
    assert_eq!(rows(&state), 1);
    press(&mut state, &model, &[Action::Open]);
    assert!(
        !state.typing && state.client.is_none(),
        "Enter keeps the filter, no more"
    );
    press(&mut state, &model, &[Action::Back]);
    assert_eq!(rows(&state), 16);
}

#[test]
fn keys_that_leave_the_filter_end_its_typing() {
    let model = fixture::exchange();
    for leave in [Action::NextView, Action::Show(View::Host), Action::Help] {
        let mut state = State::default();
        press(&mut state, &model, &[Action::Filter, Action::Type('7')]);
        press(&mut state, &model, &[leave]);
        assert!(!state.typing, "{leave:?}");
        assert_eq!(state.filter, "7", "{leave:?}");
    }
    let mut state = State::default();
    press(&mut state, &model, &[Action::Filter, Action::Type('7')]);
    press(&mut state, &model, &[Action::Help, Action::Back]);
    assert!(
        !state.help && state.filter == "7",
        "Escape closes the help first"
    );
}

/// Draws, and lets the state know what the runtime lets it know.
fn shown(state: &mut State, model: &Model, width: u16, height: u16) -> String {
    let (buffer, hits) = render(model, state, &live(), width, height);
    (state.page, state.last_scroll) = (hits.page, hits.last_scroll);
    state.sortable = hits.sortable();
    text(&buffer)
}

#[test]
fn one_key_up_from_the_end_of_any_page_moves_it() {
    let model = fixture::exchange();
    let client = ClientId::of(&model.endpoints[0], &model.endpoints[0].clients[0]);
    let at = |view| State {
        view,
        ..State::default()
    };
    let help = State {
        help: true,
        ..State::default()
    };
    let opened = State {
        client: Some(client),
        ..State::default()
    };
    let hint = State {
        finding: Some(FindingId::of(&model.findings[0])),
        ..at(View::Hints)
    };
    let pages = [View::Limits, View::Perf, View::Host].map(at);
    for mut state in pages.into_iter().chain([help, opened, hint]) {
        let begin = shown(&mut state, &model, 100, 14);
        press(&mut state, &model, &[Action::Last]);
        let end = shown(&mut state, &model, 100, 14);
        assert_ne!(begin, end, "{state:?}");
        press(&mut state, &model, &[Action::PageDown, Action::Last]);
        assert_eq!(shown(&mut state, &model, 100, 14), end, "{state:?}");
        press(&mut state, &model, &[Action::Up]);
        assert_ne!(shown(&mut state, &model, 100, 14), end, "{state:?}");
    }
}

#[test]
fn what_is_open_closes_when_it_is_gone_and_the_keys_go_on_to_work() {
    let mut model = fixture::exchange();
    let mut state = State::default();
    press(&mut state, &model, &[Action::Down, Action::Open]);
    assert_eq!(state.close_gone(&model), None, "it is there");
    let server: &mut shmtop::model::Endpoint = &mut model.endpoints[0];
    server.clients.remove(1);
    let said = state.close_gone(&model).expect("it is gone");
    assert!(said.contains("client that was open is gone"), "{said}");
    press(&mut state, &model, &[Action::Down, Action::Open]);
    let next = ClientId::of(&model.endpoints[0], &model.endpoints[0].clients[2]);
    assert_eq!(state.client, Some(next));

    press(
        &mut state,
        &model,
        &[Action::Show(View::Hints), Action::Open],
    );
    let id = state.finding.clone().expect("one is open").id;
    model.findings.remove(0);
    assert_eq!(
        state.close_gone(&model),
        Some(format!("{id} holds no more"))
    );
    press(&mut state, &model, &[Action::Open]);
    assert_eq!(state.finding, Some(FindingId::of(&model.findings[0])));
}

#[test]
fn the_selected_hint_stays_selected_when_another_comes_in_above_it() {
    let mut model = fixture::exchange();
    let mut state = State::default();
    press(
        &mut state,
        &model,
        &[Action::Show(View::Hints), Action::Down],
    );
    let chosen = FindingId::of(&model.findings[1]);
    let top = model.findings.remove(0);
    press(&mut state, &model, &[Action::Open]);
    assert_eq!(state.finding, Some(chosen.clone()));
    press(&mut state, &model, &[Action::Back]);
    model.findings.insert(0, top);
    press(&mut state, &model, &[Action::Open]);
    assert_eq!(state.finding, Some(chosen));
}

#[test]
fn a_click_does_what_the_key_for_that_place_does() {
    let model = fixture::exchange();
    let (buffer, hits) = render(&model, &State::default(), &live(), 120, 40);
    let screen = text(&buffer);
    let find = |what: &str| {
        let (y, line) = screen
            .lines()
            .enumerate()
            .find(|(_, l)| l.contains(what))
            .unwrap_or_else(|| panic!("{what} is not on the screen"));
        let x = line.find(what).map(|i| line[..i].chars().count()).unwrap();
        (x as u16, y as u16)
    };
    let (x, y) = find("p99.9");
    assert_eq!(hits.at(x, y), Some(Action::SortBy(SortKey::P999)));
    let (x, y) = find("3 limits");
    assert_eq!(hits.at(x, y), Some(Action::Show(View::Limits)));
    let (x, y) = find("4242 has been stopped");
    assert_eq!(hits.at(x, y), Some(Action::Show(View::Hints)));
    let (x, y) = find("■ 7");
    let row = hits.at(x, y).unwrap();
    let mut state = State::default();
    press(&mut state, &model, &[row]);
    assert!(state.client.is_none(), "the first click selects");
    press(&mut state, &model, &[row]);
    assert!(state.client.is_some(), "the second one opens");
}

#[test]
fn freezing_and_moving_in_time_are_the_runtimes_business() {
    let model = fixture::exchange();
    let mut state = State::default();
    let mut effect = |a| update(&mut state, a, &model);
    assert_eq!(effect(Action::Freeze), Effect::Time(TimeMove::Toggle));
    for (action, moves) in [
        (Action::StepBack, TimeMove::Step(-1)),
        (Action::StepForward, TimeMove::Step(1)),
        (Action::JumpBack, TimeMove::Seconds(-10)),
        (Action::JumpForward, TimeMove::Seconds(10)),
    ] {
        assert_eq!(effect(action), Effect::Time(moves), "{action:?}");
    }
    assert_eq!(effect(Action::Faster), Effect::Rate(1));
    assert_eq!(effect(Action::Slower), Effect::Rate(-1));
    assert_eq!(effect(Action::Suspend), Effect::Suspend);
}
