//! The screens as snapshots that somebody has looked at: text at several sizes, styles once per theme.
//!
//! Drawn from [`fixture`] into ratatui's test backend. `behaviour` holds what must be true of every screen at any
//! size; the other files each hold one subject.

mod behaviour;
mod choice;
mod expanded;
mod facts;
mod fixture;
mod gone;
mod keys;
mod narrow;
mod order;
mod replay;
mod shapes;
mod still;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};
use shmtop::model::Model;
use shmtop::ui::{ClientId, FindingId, Left, State, Status, ThemeName, View};
use shmtop::view::{Hits, Scene, draw};

/// Live at 10 Hz, UTC.
pub(crate) fn live() -> Status {
    Status {
        interval_ns: 100_000_000,
        ready: true,
        ..Status::default()
    }
}

pub(crate) fn render(
    model: &Model,
    state: &State,
    status: &Status,
    width: u16,
    height: u16,
) -> (Buffer, Hits) {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut hits = Hits::default();
    terminal
        .draw(|frame| {
            hits = draw(
                frame,
                &Scene {
                    model,
                    state,
                    status,
                },
            );
        })
        .unwrap();
    (terminal.backend().buffer().clone(), hits)
}

/// The text of a screen; blanks at the ends of lines are cut.
pub(crate) fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width.max(1));
    buffer
        .content
        .chunks(width)
        .map(|line| {
            let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
            format!("{}\n", line.trim_end())
        })
        .collect()
}

fn screen(model: &Model, state: &State, width: u16, height: u16) -> String {
    text(&render(model, state, &live(), width, height).0)
}

fn at(view: View) -> State {
    State {
        view,
        ..State::default()
    }
}

/// The client of this number, opened.
fn opened(model: &Model, number: u32) -> State {
    let endpoint = &model.endpoints[0];
    let client = endpoint
        .clients
        .iter()
        .find(|c| c.number == number)
        .unwrap();
    State {
        client: Some(ClientId::of(endpoint, client)),
        ..State::default()
    }
}

const SIZES: [(u16, u16); 4] = [(200, 60), (120, 40), (80, 24), (40, 10)];

#[test]
fn overview_at_every_size() {
    let model = fixture::exchange();
    for (width, height) in SIZES {
        insta::assert_snapshot!(
            format!("overview-{width}x{height}"),
            screen(&model, &State::default(), width, height)
        );
    }
}

#[test]
fn every_view_at_120_and_80() {
    let model = fixture::exchange();
    for (width, height) in [(120, 40), (80, 24)] {
        for view in [View::Hints, View::Limits, View::Perf, View::Host] {
            insta::assert_snapshot!(
                format!("{}-{width}x{height}", view.name()),
                screen(&model, &at(view), width, height)
            );
        }
        for number in [1, 7, 16] {
            insta::assert_snapshot!(
                format!("client-{number}-{width}x{height}"),
                screen(&model, &opened(&model, number), width, height)
            );
        }
        let hint = State {
            finding: Some(FindingId::of(&model.findings[0])),
            ..at(View::Hints)
        };
        insta::assert_snapshot!(
            format!("hint-{width}x{height}"),
            screen(&model, &hint, width, height)
        );
        let help = State {
            help: true,
            ..State::default()
        };
        insta::assert_snapshot!(
            format!("help-{width}x{height}"),
            screen(&model, &help, width, height)
        );
    }
    insta::assert_snapshot!(
        "client-1-200x60",
        screen(&model, &opened(&model, 1), 200, 60)
    );
}

#[test]
fn counters_where_the_machine_has_them() {
    let model = fixture::with_pmu();
    for (width, height) in SIZES {
        insta::assert_snapshot!(
            format!("perf-with-pmu-{width}x{height}"),
            screen(&model, &at(View::Perf), width, height)
        );
    }
    insta::assert_snapshot!(
        "client-with-pmu-120x40",
        screen(&model, &opened(&model, 1), 120, 40)
    );
}

#[test]
fn other_moments() {
    let insta_at = |name: &str, model: &Model, state: &State, status: &Status| {
        insta::assert_snapshot!(name, text(&render(model, state, status, 120, 24).0));
    };
    let plain = State::default();
    insta_at("nothing-runs", &fixture::nothing(), &plain, &live());
    let left = Status {
        left: Some(Left {
            who: "exchange (4711) has gone".to_owned(),
            at_realtime_ns: fixture::NOW_REALTIME - 12_000_000_000,
        }),
        ..live()
    };
    insta_at("gone", &fixture::nothing(), &plain, &left);
    insta_at("starting", &Model::empty(), &plain, &Status::default());
    insta_at("healthy", &fixture::healthy(), &plain, &live());
    insta_at("two-servers", &fixture::two_servers(), &plain, &live());
    let frozen = Status {
        frozen_ns: Some(12_300_000_000),
        ..live()
    };
    insta_at("frozen", &fixture::exchange(), &plain, &frozen);
    let expanded = State {
        expanded: true,
        ..State::default()
    };
    insta_at("expanded", &fixture::exchange(), &expanded, &live());
    let filtered = State {
        filter: "idle".to_owned(),
        typing: true,
        ..State::default()
    };
    insta_at(
        "filter-being-typed",
        &fixture::exchange(),
        &filtered,
        &live(),
    );
    let ascii = State {
        ascii: true,
        ..State::default()
    };
    insta_at("ascii", &fixture::exchange(), &ascii, &live());
}

#[test]
fn where_an_endpoint_lives_is_said_if_it_is_not_here() {
    let mut model = fixture::healthy();
    let client = opened(&model, 1);
    let shown = |model: &Model, state: &State| screen(model, state, 200, 60);
    let place = "docker 3f2ab9c41d22, pid 1 inside";
    for state in [&client, &at(View::Limits)] {
        assert!(!shown(&model, state).contains("inside"));
    }
    model.endpoints[0].place = Some(place.to_owned());
    for state in [&client, &at(View::Limits)] {
        assert!(shown(&model, state).contains(&format!(" in {place}")));
    }
}

/// One letter per kind of style, so that a snapshot shows where colours are.
fn styles(buffer: &Buffer) -> String {
    let mut legend: Vec<(Color, Color, Modifier)> = Vec::new();
    let width = usize::from(buffer.area.width);
    let mut out = String::new();
    for line in buffer.content.chunks(width) {
        let mut row = String::new();
        for cell in line {
            let key = (cell.fg, cell.bg, cell.modifier);
            if key == (Color::Reset, Color::Reset, Modifier::empty()) {
                row.push(' ');
                continue;
            }
            let i = legend.iter().position(|k| *k == key).unwrap_or_else(|| {
                legend.push(key);
                legend.len() - 1
            });
            row.push(char::from(b'a' + i as u8));
        }
        out.push_str(row.trim_end());
        out.push('\n');
    }
    for (i, (fg, bg, modifier)) in legend.iter().enumerate() {
        out.push_str(&format!(
            "{}: {fg:?} on {bg:?} {modifier:?}\n",
            char::from(b'a' + i as u8)
        ));
    }
    out
}

#[test]
fn colours_of_every_theme() {
    let model = fixture::exchange();
    for theme in ThemeName::ALL {
        let state = State {
            theme,
            ..State::default()
        };
        let (buffer, _) = render(&model, &state, &live(), 120, 24);
        insta::assert_snapshot!(format!("styles-{}", theme.name()), styles(&buffer));
    }
    for (width, height) in [(80, 24), (40, 10)] {
        let (buffer, _) = render(&model, &State::default(), &live(), width, height);
        insta::assert_snapshot!(format!("styles-{width}x{height}"), styles(&buffer));
    }
    let (buffer, _) = render(&model, &opened(&model, 7), &live(), 120, 40);
    insta::assert_snapshot!("styles-client", styles(&buffer));
    let (buffer, _) = render(&model, &at(View::Hints), &live(), 120, 24);
    insta::assert_snapshot!("styles-hints", styles(&buffer));
}
