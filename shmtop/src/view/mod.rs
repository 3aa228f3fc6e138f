//! Draws the model: one file per region of the screen, each borrows model and state read-only.
//!
//! [`draw`] is called by the runtime for every frame that differs, by the snapshot tests and by the example that makes
//! the picture in the README. It returns where a click means something; nothing else leaves a frame.

use std::collections::HashSet;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::model::{Bound, Client, ClientState, Model, Severity};
use crate::ui::{Action, SortKey, State, Status, Theme, View};

pub(crate) mod ascii;
pub mod bars;
mod calm;
mod cells;
mod chart;
mod client;
mod clients;
mod columns;
mod facts;
mod footer;
pub mod format;
mod header;
mod help;
mod hint;
mod hints;
mod host;
mod limits;
mod panels;
mod pen;
mod perf;
mod placement;
mod room;
mod sheet;
mod titles;
mod top;

use pen::Pen;
use transport::stats::Via;

/// What a frame shows.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// What is known.
    pub model: &'a Model,
    /// What the user looks at.
    pub state: &'a State,
    /// How the picture came about.
    pub status: &'a Status,
}

impl Scene<'_> {
    fn theme(&self) -> &'static Theme {
        Theme::of(self.state.theme)
    }
}

/// Where a click means something, and how many rows a page has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    areas: Vec<(Rect, Action)>,
    /// Rows shown at once: what PgUp and PgDn move by.
    pub page: usize,
    /// How far what is shown can be scrolled.
    pub last_scroll: usize,
    /// Connections whose numbers are on the screen.
    pub connections: HashSet<u64>,
}

impl Hits {
    /// What a click there means; what was drawn last lies on top.
    pub fn at(&self, x: u16, y: u16) -> Option<Action> {
        self.areas
            .iter()
            .rev()
            .find(|(area, _)| area.contains((x, y).into()))
            .map(|(_, action)| *action)
    }

    /// What the columns can be sorted by.
    pub fn sortable(&self) -> Vec<SortKey> {
        let keys = self.areas.iter().filter_map(|(_, action)| match action {
            Action::SortBy(key) => Some(*key),
            _ => None,
        });
        keys.collect()
    }

    fn add(&mut self, area: Rect, action: Action) {
        self.areas.push((area, action));
    }
}

/// Draws one frame. Any size is fine; what doesn't fit is left out in the order of importance.
pub fn draw(frame: &mut Frame<'_>, scene: &Scene<'_>) -> Hits {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    let mut hits = Hits::default();
    {
        let mut pen = Pen::new(buffer, area);
        let used = top::draw(&mut pen, scene, &mut hits);
        let bottom = if area.height >= 8 {
            footer::draw(&mut pen, scene, &mut hits)
        } else {
            0
        };
        let gap = u16::from(area.height >= 16 && used > 1);
        let body = Rect {
            y: area.y + (used + gap).min(area.height),
            height: area.height.saturating_sub(used + gap + bottom),
            ..area
        };
        let mut body = pen.part(body);
        hits.page = usize::from(body.area().height.saturating_sub(2)).max(1);
        match scene.state.view {
            _ if scene.state.help => hits.last_scroll = help::draw(&mut body, scene),
            View::Overview | View::Perf if scene.model.endpoints.is_empty() => {
                calm::draw(&mut body, scene);
            }
            View::Overview => match client::find(scene) {
                Some((endpoint, client)) => {
                    hits.connections.insert(client.connection_id);
                    hits.last_scroll = client::draw(&mut body, scene, endpoint, client);
                }
                None => clients::draw(&mut body, scene, &mut hits),
            },
            View::Hints => match hint::find(scene) {
                Some(finding) => hits.last_scroll = hint::draw(&mut body, scene, finding),
                None => hints::draw(&mut body, scene, &mut hits),
            },
            View::Limits => hits.last_scroll = limits::draw(&mut body, scene),
            View::Perf => hits.last_scroll = perf::draw(&mut body, scene),
            View::Host => hits.last_scroll = host::draw(&mut body, scene),
        }
    }
    if scene.state.ascii {
        ascii::fold(buffer);
    }
    hits
}

/// Shape and style of a severity.
fn severity_mark(theme: &Theme, severity: Severity) -> (&'static str, Style) {
    match severity {
        Severity::Crit => ("✖", theme.crit),
        Severity::Warn => ("▲", theme.warn),
        Severity::Info => ("•", theme.info),
    }
}

/// Shape and style of a client: what it does, and whether it has what it asked for.
fn client_mark(theme: &Theme, client: &Client) -> (&'static str, Style) {
    match client.state {
        ClientState::Dead => ("✖", theme.crit),
        ClientState::Stopped => ("■", theme.crit),
        ClientState::Stalled => ("■", theme.warn),
        _ if client.wanted == Via::Shm && client.transport == Via::Socket => ("▲", theme.warn),
        ClientState::Active => ("●", theme.good),
        ClientState::Idle => ("○", theme.dim),
    }
}

/// Style of a verdict: what bounds a client is no fault, so it is as quiet as a number. Whether it is one, the rules say.
fn bound_style(theme: &Theme, bound: Bound) -> Style {
    match bound {
        // On the socket by choice is as good as anything; by accident, the table's VIA says so.
        Bound::Idle | Bound::Unknown => theme.dim,
        Bound::Consumer
        | Bound::Scheduler
        | Bound::Socket
        | Bound::Producer
        | Bound::Handler
        | Bound::Memory => theme.text,
    }
}
