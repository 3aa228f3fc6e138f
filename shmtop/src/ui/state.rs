//! What the user is looking at: view, selection, filter, order. Changed by `super::update` only.

use super::local_time::clock;
use super::theme::ThemeName;
use crate::model::listing::{Listing, SortKey};
use crate::model::{Client, Endpoint, EndpointKey, Finding, Model, Subject};

/// A screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum View {
    /// The clients.
    #[default]
    Overview,
    /// What is wrong.
    Hints,
    /// Limits and headroom.
    Limits,
    /// Threads and counters.
    Perf,
    /// The machine.
    Host,
}

impl View {
    /// All, by number.
    pub const ALL: [Self; 5] = [
        Self::Overview,
        Self::Hints,
        Self::Limits,
        Self::Perf,
        Self::Host,
    ];

    /// Name in the footer.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Hints => "hints",
            Self::Limits => "limits",
            Self::Perf => "perf",
            Self::Host => "host",
        }
    }

    /// Position in [`Self::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The view `by` further on, round and round.
    pub fn turn(self, by: isize) -> Self {
        let n = Self::ALL.len() as isize;
        Self::ALL[(self.index() as isize + by).rem_euclid(n) as usize]
    }
}

/// Names a client over refreshes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientId {
    /// Its endpoint.
    pub endpoint: EndpointKey,
    /// Its slot there.
    pub slot: u32,
    /// Its connection.
    pub connection_id: u64,
}

impl ClientId {
    /// Names this client.
    pub fn of(endpoint: &Endpoint, client: &Client) -> Self {
        Self {
            endpoint: endpoint.key.clone(),
            slot: client.slot,
            connection_id: client.connection_id,
        }
    }

    /// Whether it names this client.
    pub fn is(&self, endpoint: &Endpoint, client: &Client) -> bool {
        self.connection_id == client.connection_id
            && self.slot == client.slot
            && self.endpoint == endpoint.key
    }
}

/// Names a finding over refreshes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FindingId {
    /// Rule.
    pub id: &'static str,
    /// Whom it concerns.
    pub subject: Subject,
}

impl FindingId {
    /// Names this finding.
    pub fn of(finding: &Finding) -> Self {
        Self {
            id: finding.id,
            subject: finding.whom(),
        }
    }

    /// Whether it names this finding.
    pub fn is(&self, finding: &Finding) -> bool {
        self.id == finding.id && self.subject == finding.whom()
    }
}

/// What the user is looking at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The screen.
    pub view: View,
    /// Whether the help lies over it.
    pub help: bool,
    /// The client that is open, in the overview.
    pub client: Option<ClientId>,
    /// The finding that is open, in the hints.
    pub finding: Option<FindingId>,
    /// The selected client: it stays selected when the order changes.
    pub selected: Option<ClientId>,
    /// Selected row of the clients, if `selected` names none that is there.
    pub row: usize,
    /// The selected finding: it stays selected when others come and go above it.
    pub selected_hint: Option<FindingId>,
    /// Selected row of the hints, if `selected_hint` names none that holds.
    pub hint_row: usize,
    /// First line shown of a page that scrolls: limits, perf, host, a client, a hint, the help.
    pub scroll: usize,
    /// Words that a client must match.
    pub filter: String,
    /// Whether the filter is being typed.
    pub typing: bool,
    /// The moment that is being typed.
    pub jump: Option<String>,
    /// What the clients are sorted by.
    pub sort: SortKey,
    /// Whether in inverted order.
    pub inverted: bool,
    /// Whether rows show more.
    pub expanded: bool,
    /// Colours.
    pub theme: ThemeName,
    /// ASCII only.
    pub ascii: bool,
    /// Rows that the screen shows at once: what PgUp and PgDn move by. Set by the runtime from the last frame.
    pub page: usize,
    /// How far the page can be scrolled. Set by the runtime from the last frame.
    pub last_scroll: usize,
    /// What can be sorted by on the screen; all, if nothing is said. Set by the runtime from the last frame.
    pub sortable: Vec<SortKey>,
}

impl State {
    /// Which clients are listed, and in which order.
    pub fn listing(&self) -> Listing<'_> {
        Listing {
            filter: &self.filter,
            sort: self.sort,
            inverted: self.inverted,
        }
    }

    /// The column `by` further on that is on the screen: an order that no title tells would only make rows jump.
    pub(super) fn turned_sort(&self, by: isize) -> SortKey {
        let shown = |key: &SortKey| self.sortable.is_empty() || self.sortable.contains(key);
        let all = std::iter::successors(Some(self.sort), |key| Some(key.turn(by)));
        let mut others = all.skip(1).take(SortKey::ALL.len());
        others.find(shown).unwrap_or(self.sort)
    }

    /// Whether letters are letters.
    pub fn takes_letters(&self) -> bool {
        self.typing || self.jump.is_some()
    }

    /// Closes the client or the finding that is open if `model` has it no more: a page of something that has gone would
    /// be a table in which no key works. Says so.
    pub fn close_gone(&mut self, model: &Model) -> Option<String> {
        let client_gone = |id: &mut ClientId| !model.rows().any(|(e, c)| id.is(e, c));
        let finding_gone = |id: &mut FindingId| !model.findings.iter().any(|f| id.is(f));
        let said = if let Some(id) = self.client.take_if(client_gone) {
            format!(
                "the client that was open is gone (connection {})",
                id.connection_id
            )
        } else if let Some(id) = self.finding.take_if(finding_gone) {
            format!("{} holds no more", id.id)
        } else {
            return None;
        };
        self.scroll = 0;
        Some(said)
    }
}

/// What the runtime knows and the model doesn't: how the picture came about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Time between refreshes, ns.
    pub interval_ns: u64,
    /// Share of one CPU that shmtop uses, smoothed; `None` in the first seconds.
    pub own_cost: Option<f64>,
    /// Set while shmtop refreshes less often than asked, with the reason.
    pub slowed: Option<String>,
    /// Set while the screen is frozen: how far the shown moment lies behind the newest, ns.
    pub frozen_ns: Option<u64>,
    /// Set in a replay: name of the recording, speed, position and length in ns.
    pub replay: Option<Replay>,
    /// Seconds to add to UTC for the user's wall clock.
    pub utc_offset_s: i64,
    /// What went wrong lately, in one sentence.
    pub trouble: Option<String>,
    /// Whether there was a sample yet.
    pub ready: bool,
    /// Set while nothing is there any more that could be shown.
    pub left: Option<Left>,
    /// Set while clients are without the server that they had.
    pub lost: Option<Lost>,
}

/// A server that went away, and whom it left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The server, by name and pid.
    pub server: String,
    /// One of its clients that have none now, by name and pid.
    pub first: String,
    /// How many more there are.
    pub more: usize,
}

impl Lost {
    /// That the server has gone.
    pub fn gone(&self) -> String {
        format!("{} has gone", self.server)
    }

    /// Who is without one.
    pub fn alone(&self) -> String {
        match self.more {
            0 => format!("{} is without a server", self.first),
            n => format!("{} and {n} more are without a server", self.first),
        }
    }
}

/// Who was there last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// That they have gone, by name and pid.
    pub who: String,
    /// When it was last seen, ns since 1970.
    pub at_realtime_ns: u64,
}

impl Left {
    /// The sentence.
    pub fn gone(&self, utc_offset_s: i64) -> String {
        let when = clock(self.at_realtime_ns, utc_offset_s);
        format!("{}; last seen at {when}.", self.who)
    }
}

/// Where a replay stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replay {
    /// Name of the recording.
    pub name: String,
    /// How many times faster than life.
    pub speed: f64,
    /// Time since the recording began, ns.
    pub position_ns: u64,
    /// Whether it is being read on up to a moment that the user wants to see.
    pub seeking: bool,
    /// Whether it ended.
    pub ended: bool,
}
