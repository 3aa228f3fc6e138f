//! What is told without colour and without Unicode: the order of the rows, keys, who fell back.

use shmtop::ui::{Action, SortKey, State, ThemeName, update};
use transport::stats::Via;

use super::{fixture, live, opened, render, screen, text};

/// The title that the mark of the order stands at, at the right or at the left of it.
fn marked(drawn: &str) -> Option<String> {
    let titles = drawn.lines().find(|l| l.contains("CLIENT"))?;
    let mut words = titles
        .split(' ')
        .filter(|w| w.contains(['▾', '▴']))
        .map(|w| w.trim_matches(['▾', '▴']).to_owned());
    let first = words.next();
    assert_eq!(words.next(), None, "{titles}");
    first
}

#[test]
fn the_order_is_marked_at_the_title_of_whatever_column_it_is() {
    let model = fixture::exchange();
    for width in [40, 80, 120, 200] {
        for inverted in [false, true] {
            for sort in SortKey::ALL {
                let state = State {
                    sort,
                    inverted,
                    theme: ThemeName::Mono,
                    ..State::default()
                };
                let (buffer, hits) = render(&model, &state, &live(), width, 24);
                let drawn = text(&buffer);
                match hits.sortable().contains(&sort) {
                    true => assert!(
                        marked(&drawn).is_some_and(|t| !t.is_empty()),
                        "{width} {sort:?}: {drawn}"
                    ),
                    false => assert_eq!(marked(&drawn), None, "{width} {sort:?}"),
                }
            }
        }
    }
    let by = |sort| {
        let state = State {
            sort,
            ..State::default()
        };
        marked(&screen(&model, &state, 120, 24)).unwrap()
    };
    assert_eq!(by(SortKey::Client), "CLIENT");
    assert_eq!(by(SortKey::Hits), "HIT%");
    assert_eq!(by(SortKey::Wait), "s|y|p", "the end of WAIT s|y|p");
    assert_eq!(by(SortKey::P99), "p99");
}

#[test]
fn the_key_for_the_order_walks_through_the_columns_that_are_there() {
    let model = fixture::exchange();
    for (width, columns) in [(40, 5), (80, 10), (200, SortKey::ALL.len())] {
        let mut state = State::default();
        let mut seen = Vec::new();
        for _ in 0..columns {
            let (buffer, hits) = render(&model, &state, &live(), width, 24);
            state.sortable = hits.sortable();
            seen.extend(marked(&text(&buffer)));
            update(&mut state, Action::Sort, &model);
        }
        assert_eq!(seen.len(), columns, "{width}: {seen:?}");
        assert_eq!(state.sort, SortKey::Client, "round and round");
        update(&mut state, Action::Left, &model);
        assert_eq!(state.sort, SortKey::Bound, "and back");
    }
}

#[test]
fn an_order_that_no_title_tells_is_told_in_the_last_line() {
    let model = fixture::exchange();
    let state = State {
        sort: SortKey::P999,
        ..State::default()
    };
    let keys = |width| {
        let drawn = screen(&model, &state, width, 24);
        drawn.lines().last().unwrap().to_owned()
    };
    assert!(keys(120).contains("s sort "), "{}", keys(120));
    assert!(keys(80).contains("s sorted by p99.9"), "{}", keys(80));
}

#[test]
fn in_ascii_a_key_is_named_and_not_folded_into_another_one() {
    let model = fixture::exchange();
    let ascii = |state: State| State {
        ascii: true,
        ..state
    };
    let help = ascii(State {
        help: true,
        ..State::default()
    });
    let drawn = screen(&model, &help, 120, 40);
    for line in ["Up  k ", "Down  j ", "Left  h ", "Right  l "] {
        assert!(drawn.contains(line), "{line}: {drawn}");
    }
    let drawn = screen(&model, &ascii(opened(&model, 1)), 120, 40);
    let keys = drawn.lines().last().unwrap();
    assert!(keys.contains("Left Right client"), "{keys}");
    assert!(drawn.contains("on CPU 1 - server 4719"), "{drawn}");
}

#[test]
fn clients_on_the_socket_are_loud_only_if_one_of_them_wanted_shared_memory() {
    let mut model = fixture::exchange();
    let style = |model: &shmtop::model::Model| {
        let (buffer, _) = render(model, &State::default(), &live(), 120, 24);
        let line = text(&buffer).lines().next().unwrap().to_owned();
        let byte = line.find("1 socket").unwrap();
        let x = line[..byte].chars().count() as u16;
        buffer.cell((x, 0)).unwrap().fg
    };
    let fell_back = style(&model);
    let all = &mut model.endpoints[0].clients;
    let client: &mut shmtop::model::Client = all.iter_mut().find(|c| c.number == 16).unwrap();
    client.wanted = Via::Socket;
    assert_ne!(style(&model), fell_back);
}

#[test]
fn below_the_table_a_client_on_the_socket_has_no_pictures_of_rings() {
    let model = fixture::exchange();
    let selected = |number| State {
        selected: opened(&model, number).client,
        ..State::default()
    };
    for (width, height) in [(200, 60), (160, 70), (120, 60)] {
        let drawn = screen(&model, &selected(1), width, height);
        assert!(drawn.contains("client 1: ▶ request ring"), "{drawn}");
        let drawn = screen(&model, &selected(16), width, height);
        assert!(!drawn.contains("there is no ring"), "{drawn}");
        assert!(drawn.contains("client 16: requests per second"), "{drawn}");
    }
}
