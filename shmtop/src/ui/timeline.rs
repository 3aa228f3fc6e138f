//! The models of the last minutes, and where in them the user looks: freeze and time travel, for live and replay.
//!
//! Pure: the runtime pushes models and hands moves in, which `moves` makes. Kept densely for [`DENSE_NS`], then one per second, up to
//! [`SPAN_NS`] and [`MAX_ROWS`]: a model of 16 client processes and their own pages takes some 300 KiB (measured as resident memory that
//! grows by 0.3 MB per kept second).

mod moves;

use std::collections::VecDeque;
use std::sync::Arc;

use transport::stats::Role;

use super::departed::DepartedServers;
use super::state::{Left, Lost};
use crate::model::{Client, Endpoint, Model, Shared};

/// Span in which every refresh is kept.
pub const DENSE_NS: u64 = 10_000_000_000;
/// Span in which one refresh per second is kept.
pub const SPAN_NS: u64 = 300_000_000_000;
/// Most client rows in all models together, those counted once that models have in common; the oldest models go first.
/// Some 100 MB beside 16 client processes. All is there after ten minutes: five of models, and in the oldest of them what its histories
/// held before. Over 50 minutes beside 16 such processes the heap was 66 MB after 8, 72 after 10, 75 after 18 and the same after 26; later
/// it grew in steps, by 8 MB, as processes of others with pages came and went.
pub const MAX_ROWS: usize = 16_000;

/// Models by time, and the one that is looked at.
#[derive(Debug, Default)]
pub struct Timeline {
    /// With their weights.
    models: VecDeque<(Arc<Model>, usize)>,
    rows: usize,
    /// The model that the screen stands still at, kept here however many newer ones displace it from `models`; `None` = the newest,
    /// whatever comes.
    still: Option<Arc<Model>>,
    departed: DepartedServers,
}

/// Rows that `model` does not share with the one before it, and one for each endpoint.
fn weight(model: &Model, before: Option<&Model>) -> usize {
    let rows = |(i, e): (usize, &Shared<Endpoint>)| {
        let old = before.and_then(|b| b.endpoints.get(i));
        if old.is_some_and(|o| e.is_same(o)) {
            return 0;
        }
        let shared = |(k, c): &(usize, &Shared<Client>)| {
            old.and_then(|o| o.clients.get(*k))
                .is_some_and(|o| c.is_same(o))
        };
        1 + e.clients.len() - e.clients.iter().enumerate().filter(shared).count()
    };
    1 + model.endpoints.iter().enumerate().map(rows).sum::<usize>()
}

impl Timeline {
    /// Adds the newest model. One that is not newer than the last (a replay that seeks back) starts over.
    pub fn push(&mut self, model: Arc<Model>) {
        if self.newest_ns().is_some_and(|newest| newest >= model.at_ns) {
            *self = Self::default();
        }
        let before = self.models.iter().rev().map(|(m, _)| &**m);
        self.departed.note(before, &model);
        let now = model.at_ns;
        let weight = weight(&model, self.models.back().map(|(m, _)| &**m));
        self.rows += weight;
        self.models.push_back((model, weight));
        self.thin(now);
        while self.models.len() > 1
            && (self.rows > MAX_ROWS || now - self.models[0].0.at_ns > SPAN_NS)
        {
            if let Some((_, weight)) = self.models.pop_front() {
                self.rows -= weight;
            }
        }
    }

    /// Drops the model that just left the dense span if its second has one already. One per push is enough, as one
    /// leaves per push.
    fn thin(&mut self, now: u64) {
        let edge = self
            .models
            .partition_point(|(m, _)| now - m.at_ns > DENSE_NS);
        if edge >= 2 {
            let second = |(m, _): &(Arc<Model>, usize)| m.at_ns / 1_000_000_000;
            if second(&self.models[edge - 1]) == second(&self.models[edge - 2])
                && let Some((_, weight)) = self.models.remove(edge - 1)
            {
                self.rows -= weight;
            }
        }
    }

    /// The model that is looked at.
    pub fn current(&self) -> Option<&Arc<Model>> {
        self.still
            .as_ref()
            .or_else(|| self.models.back().map(|(m, _)| m))
    }

    /// Who was there last, servers first, if at the moment that is looked at nobody is: no server, and no client with a connection.
    pub fn left(&self) -> Option<Left> {
        let current = self.current()?;
        let older = self.models.range(..self.before(current.at_ns));
        let before = std::iter::once(current).chain(older.rev().map(|(m, _)| m));
        let is_server = |e: &&Shared<Endpoint>| e.role == Role::Server;
        let is_alone = |e: &Shared<Endpoint>| e.role == Role::Client && e.clients.is_empty();
        if !current.endpoints.iter().all(is_alone) {
            return None;
        }
        let served = before
            .clone()
            .find(|m| m.endpoints.iter().any(|e| is_server(&e)));
        let was = |m: &&Arc<Model>| !m.endpoints.iter().all(is_alone);
        let last = served.or_else(|| before.clone().find(was))?;
        let endpoints = last
            .endpoints
            .iter()
            .filter(|e| served.is_none() && !is_alone(e) || is_server(e));
        let first = endpoints.clone().next()?;
        let who = match endpoints.count() {
            1 => format!("{} ({}) has gone", first.name, first.pid),
            n => format!(
                "{} ({}) and {} more have gone",
                first.name,
                first.pid,
                n - 1
            ),
        };
        let at_realtime_ns = last.at_realtime_ns;
        Some(Left {
            who,
            at_realtime_ns,
        })
    }

    /// The server that clients of the model that is looked at had, and that has gone; until a rule says so, with what to do.
    pub fn lost(&self) -> Option<Lost> {
        let model = self.current()?;
        let is_said = model.findings.iter().any(|f| f.id == "server-gone");
        self.departed.missed(model).filter(|_| !is_said)
    }

    /// While frozen: how far the looked-at moment lies behind the newest.
    pub fn behind_ns(&self) -> Option<u64> {
        Some(self.newest_ns()? - self.still.as_ref()?.at_ns)
    }

    /// Moment of the newest model.
    pub fn newest_ns(&self) -> Option<u64> {
        self.models.back().map(|(m, _)| m.at_ns)
    }

    /// The newest model, whichever is looked at.
    pub fn newest(&self) -> Option<&Arc<Model>> {
        self.models.back().map(|(m, _)| m)
    }

    /// Freezes at the newest model.
    pub fn stand_still(&mut self) {
        self.still = self.models.back().map(|(m, _)| Arc::clone(m));
    }

    /// Whether the screen stands still.
    pub fn is_frozen(&self) -> bool {
        self.still.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::action::TimeMove;
    use super::*;

    pub(super) fn at(ms: u64) -> Arc<Model> {
        Arc::new(Model {
            at_ns: ms * 1_000_000,
            ..Model::empty()
        })
    }

    pub(super) fn filled(seconds: u64) -> Timeline {
        let mut t = Timeline::default();
        for tick in 1..=seconds * 10 {
            t.push(at(tick * 100));
        }
        t
    }

    #[test]
    fn a_frozen_screen_stands_still_while_samples_go_on() {
        let mut t = filled(5);
        assert!(t.go(TimeMove::Toggle));
        let frozen = t.current().unwrap().at_ns;
        for tick in 51..90 {
            t.push(at(tick * 100));
        }
        assert_eq!(t.current().unwrap().at_ns, frozen);
        assert_eq!(t.behind_ns(), Some(3_900_000_000));
        assert!(t.go(TimeMove::Toggle));
        assert_eq!(t.current().unwrap().at_ns, 8_900_000_000);
        assert_eq!(t.behind_ns(), None);
    }

    #[test]
    fn a_frozen_screen_stands_still_when_what_it_shows_is_thinned_out_or_forgotten() {
        let mut t = filled(5);
        t.push(at(5_040));
        assert!(t.go(TimeMove::Toggle));
        for tick in 51..=4_000 {
            t.push(at(tick * 100));
            assert_eq!(t.current().unwrap().at_ns, 5_040_000_000, "{tick}");
        }
        assert_eq!(t.behind_ns(), Some(394_960_000_000));
        assert!(
            t.go(TimeMove::Step(-1)),
            "nothing lies behind it, and it stays"
        );
        assert!(t.go(TimeMove::Seconds(-10)));
        assert_eq!(t.current().unwrap().at_ns, 5_040_000_000);
        assert!(t.go(TimeMove::Step(1)));
        assert_eq!(
            t.current().unwrap().at_ns,
            100_000_000_000,
            "the oldest left"
        );
    }

    #[test]
    fn the_past_is_bounded_dense_near_and_sparse_far() {
        let t = filled(1_000);
        let n = t.models.len();
        assert!((380..=420).contains(&n), "{n}");
        assert_eq!(t.rows, t.models.iter().map(|(_, w)| w).sum::<usize>());
        let newest = t.models.back().unwrap().0.at_ns;
        assert!(newest - t.models[0].0.at_ns <= SPAN_NS);
    }

    #[test]
    fn a_replay_that_seeks_back_starts_over() {
        let mut t = filled(5);
        t.push(at(100));
        assert_eq!(t.models.len(), 1);
    }
}
