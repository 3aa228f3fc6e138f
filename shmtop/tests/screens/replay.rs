//! Where one is in time: what a replay says of it, and going to a moment.

use shmtop::ui::state::Replay;
use shmtop::ui::{Action, Effect, Jump, State, Status, update};

use super::{fixture, live, render, text};

/// 83 s into a recording, on a clock two hours ahead of UTC.
fn replayed() -> Status {
    Status {
        replay: Some(Replay {
            name: "night.rec".to_owned(),
            speed: 2.0,
            position_ns: 83_000_000_000,
            ..Replay::default()
        }),
        utc_offset_s: 7_200,
        ..live()
    }
}

fn first_line(status: &Status, width: u16) -> String {
    let model = fixture::exchange();
    let screen = text(&render(&model, &State::default(), status, width, 24).0);
    screen.lines().next().expect("a line").to_owned()
}

#[test]
fn a_replay_says_where_it_is_of_which_day_and_by_whose_clock() {
    let line = first_line(&replayed(), 160);
    assert!(line.contains("▶ replay 83 s ×2"), "{line}");
    assert!(line.ends_with(" 2023-11-14 14:04:31 +02:00"), "{line}");
    let line = first_line(&replayed(), 120);
    assert!(line.ends_with(" 14:04:31 +02:00"), "{line}");
    assert!(
        line.contains("15 shm, 1 socket"),
        "still who is there: {line}"
    );
    let frozen = Status {
        frozen_ns: Some(60_000_000_000),
        ..replayed()
    };
    let line = first_line(&frozen, 120);
    assert!(
        line.contains("❚❚ frozen −60 s 23 s ×2"),
        "what is looked at: {line}"
    );
    assert!(line.ends_with(" 14:04:31 +02:00"), "and of when: {line}");
    let mut seeking = frozen;
    if let Some(replay) = &mut seeking.replay {
        replay.seeking = true;
    }
    let line = first_line(&seeking, 120);
    assert!(
        line.contains("▶▶ reading on, 83 s"),
        "how far it is: {line}"
    );
    let line = first_line(&live(), 120);
    assert!(line.ends_with(" 12:04:31"), "{line}");
}

#[test]
fn a_moment_is_typed_mended_and_gone_to() {
    let model = fixture::exchange();
    let mut state = State::default();
    let press = |state: &mut State, actions: &[Action]| {
        let mut last = Effect::Redraw;
        for action in actions {
            last = update(state, *action, &model);
        }
        last
    };
    press(&mut state, &[Action::Jump]);
    assert!(state.takes_letters());
    for c in "12:61q".chars() {
        press(&mut state, &[Action::Type(c)]);
    }
    assert_eq!(press(&mut state, &[Action::Open]), Effect::Redraw);
    assert_eq!(state.jump.as_deref(), Some("12:61"), "no moment: it stays");
    press(&mut state, &[Action::Erase, Action::Erase]);
    press(&mut state, &[Action::Type('0'), Action::Type('4')]);
    let screen = text(&render(&model, &state, &replayed(), 120, 24).0);
    assert!(screen.contains("@12:04█"), "{screen}");
    let went = press(&mut state, &[Action::Open]);
    assert_eq!(went, Effect::Jump(Jump::Clock(43_440)));
    assert!(!state.takes_letters());
    press(&mut state, &[Action::Jump, Action::Type('9'), Action::Back]);
    assert_eq!((state.jump, state.view), (None, State::default().view));
}
