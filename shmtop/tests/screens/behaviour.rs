//! What must be true of every screen, whatever its size.

use shmtop::history::HeatColumn;
use shmtop::model::Model;
use shmtop::ui::{ClientId, FindingId, State, Status, ThemeName, View};

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
fn with_nothing_to_show_the_screen_says_what_it_could_not_search_and_what_to_type() {
    let shown = |unsearched, viewer_is_root| {
        let model = Model {
            unsearched,
            viewer_is_root,
            ..fixture::nothing()
        };
        text(&render(&model, &State::default(), &live(), 80, 24).0)
    };
    let screen = shown(12, false);
    assert!(
        screen.contains("12 processes of other users could not be searched")
            && screen.contains("sudo shmtop"),
        "{screen}"
    );
    let screen = shown(1, true);
    assert!(
        screen.contains("1 process could not be searched.") && !screen.contains("sudo"),
        "{screen}"
    );
    assert!(!shown(0, false).contains("searched"));
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
