//! What is shown when only some were asked for.

use shmtop::model::{Choice, Subject};
use shmtop::ui::{State, View};

use super::{at, fixture, screen};

fn asked_for(pid: u32) -> Choice {
    Choice {
        pids: vec![pid],
        name: None,
    }
}

#[test]
fn nothing_is_said_to_run_only_if_nothing_does() {
    let mut model = fixture::exchange();
    model.findings = Vec::new().into();
    asked_for(999_999).select(&mut model);
    for width in [120, 80, 40] {
        let drawn = screen(&model, &State::default(), width, 24);
        let words = drawn.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            words.contains("What was asked for (-p, --name) is not there."),
            "{drawn}"
        );
        assert!(
            words.contains("One other process uses the transport now: shmtop ps"),
            "{drawn}"
        );
        assert!(!words.contains("Nothing is running"), "{drawn}");
    }
    for view in [View::Hints, View::Limits] {
        let drawn = screen(&model, &at(view), 120, 40).to_lowercase();
        assert!(drawn.contains("what was asked for is not there"), "{drawn}");
    }
}

#[test]
fn whom_a_dead_process_left_behind_is_told_to_who_asked_for_that() {
    let mut model = fixture::exchange();
    let mut left = model.findings[0].clone();
    left.subject = Subject {
        pid: Some(4_321),
        ..Subject::default()
    };
    (left.also, left.explains) = (Vec::new(), Vec::new());
    left.about = Some(vec![999_999]);
    model.findings = vec![left].into();
    let mut others = model.clone();
    asked_for(999_998).select(&mut others);
    assert!(others.findings.is_empty());
    asked_for(999_999).select(&mut model);
    assert_eq!(model.findings.len(), 1);
}
