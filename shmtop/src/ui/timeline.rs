//! The models of the last minutes, and where in them the user looks: freeze and time travel, for live and replay.
//!
//! Pure: the runtime pushes models and hands [`TimeMove`]s in. Kept densely for [`DENSE_NS`], then one per second, up
//! to [`SPAN_NS`] and [`MAX_ROWS`]: a model of 16 client processes and their own pages takes some 300 KiB (measured as resident memory that grows by 0.3 MB per kept second).

use std::collections::VecDeque;
use std::sync::Arc;

use transport::stats::Role;

use super::action::TimeMove;
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

    /// Adds the next model of a recording that is read on to `goal`, a move that [`Self::go`] could not make yet. `true` if it is made: the
    /// screen then stands still where it leads once all has been read. Of a moment that is the last refresh up to it, which is held before
    /// a newer one can displace it: a hole in the recording may be longer than what is kept.
    pub fn push_towards(&mut self, goal: TimeMove, model: Arc<Model>) -> bool {
        match goal.moment(&model) {
            Some((wanted, is)) if is < wanted => {
                self.push(model);
                false
            }
            Some((wanted, is)) if is > wanted && !self.models.is_empty() => {
                self.stand_still();
                self.push(model);
                true
            }
            _ => {
                self.push(model);
                self.stand_still();
                true
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

    /// How many of `models` are older than `at_ns`.
    fn before(&self, at_ns: u64) -> usize {
        self.models.partition_point(|(m, _)| m.at_ns < at_ns)
    }

    /// The last of `models` up to this moment of CLOCK_REALTIME, and whether it lies no further on than the newest. That clock goes on in a
    /// suspend, in which the models' own stands still, and can be set back: none but the models know when it was what.
    fn on_clock(&self, wanted: u64) -> (usize, bool) {
        let clock = |i: usize| self.models[i].0.at_realtime_ns;
        let last = self.models.len() - 1;
        let passes = |i: &usize| clock(*i) <= wanted && wanted < clock(i + 1);
        match (0..last).rev().find(passes) {
            Some(i) => (i, true),
            None if wanted < clock(last) => (0, true),
            None => (last, wanted == clock(last)),
        }
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

    /// Moves. `false` if the move goes beyond the newest model: a replay then has to read on, live there is no more.
    pub fn go(&mut self, to: TimeMove) -> bool {
        let Some(here) = self.current().map(|m| m.at_ns) else {
            return false;
        };
        let (older, known) = (self.before(here), self.before(here + 1));
        let last = self.models.len() - 1;
        let (wanted, is_known) = match to {
            TimeMove::Toggle if self.is_frozen() => {
                self.still = None;
                return true;
            }
            TimeMove::Toggle => (last, true),
            TimeMove::Step(n) if n > 0 => {
                let wanted = known + n as usize - 1;
                (wanted.min(last), wanted <= last)
            }
            TimeMove::Step(n) => (older.saturating_sub(n.unsigned_abs() as usize), true),
            TimeMove::Seconds(_) | TimeMove::To(_) => {
                let wanted = match to {
                    TimeMove::Seconds(s) => {
                        here.saturating_add_signed(i64::from(s) * 1_000_000_000)
                    }
                    TimeMove::To(wanted) => wanted,
                    _ => here,
                };
                let index = self.before(wanted + 1).saturating_sub(1);
                (index, wanted <= self.models[last].0.at_ns)
            }
            TimeMove::ToClock(wanted) => self.on_clock(wanted),
        };
        let there = &self.models[wanted].0;
        // What is looked at may be older than all that is left: nothing lies behind it.
        let is_back = matches!(to, TimeMove::Step(n) | TimeMove::Seconds(n) if n < 0);
        if !is_back || there.at_ns < here {
            self.still = Some(Arc::clone(there));
        } else if self.still.is_none() {
            self.stand_still();
        }
        is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Arc<Model> {
        Arc::new(Model {
            at_ns: ms * 1_000_000,
            ..Model::empty()
        })
    }

    fn filled(seconds: u64) -> Timeline {
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
    fn steps_and_jumps_land_where_they_say_and_stop_at_the_ends() {
        let mut t = filled(60);
        assert!(t.go(TimeMove::Step(-1)));
        assert_eq!(t.current().unwrap().at_ns, 59_900_000_000);
        assert!(t.go(TimeMove::Step(1)));
        assert!(!t.go(TimeMove::Step(1)), "there is nothing newer");
        assert!(t.go(TimeMove::Seconds(-10)));
        assert_eq!(t.behind_ns(), Some(10_000_000_000));
        for _ in 0..9 {
            t.go(TimeMove::Seconds(-10));
        }
        assert!(t.current().unwrap().at_ns <= 1_000_000_000);
    }

    #[test]
    fn a_jump_lands_at_the_last_refresh_up_to_its_moment_from_wherever_one_looks() {
        let mut t = filled(60);
        for (wanted, there) in [(57_340, 57_300), (58_000, 58_000), (57_100, 57_100)] {
            assert!(t.go(TimeMove::To(wanted * 1_000_000)));
            assert_eq!(t.current().unwrap().at_ns, there * 1_000_000);
        }
        assert!(!t.go(TimeMove::To(61_000_000_000)), "a replay reads on");
        assert_eq!(t.behind_ns(), Some(0));
        t.go(TimeMove::To(0));
        assert_eq!(t.current().unwrap().at_ns, t.models[0].0.at_ns);
    }

    #[test]
    fn a_clock_that_stood_on_the_screen_is_found_again_over_a_suspend_and_a_step_of_the_clock() {
        let mut t = Timeline::default();
        // Suspended for an hour after 3 s; set back by 1,000 s after 5 s.
        let clocks = [1_000, 1_001, 1_002, 4_603, 4_604, 3_605, 3_606];
        for (i, clock) in clocks.into_iter().enumerate() {
            t.push(Arc::new(Model {
                at_ns: (i as u64 + 1) * 1_000_000_000,
                at_realtime_ns: clock * 1_000_000_000,
                ..Model::empty()
            }));
        }
        for (wanted, at_s) in [
            (1_001, 2),
            (1_002, 3),
            (2_000, 3),
            (3_605, 6),
            (4_603, 4),
            (999, 1),
        ] {
            assert!(t.go(TimeMove::ToClock(wanted * 1_000_000_000)), "{wanted}");
            assert_eq!(t.current().unwrap().at_ns, at_s * 1_000_000_000, "{wanted}");
        }
        assert!(!t.go(TimeMove::ToClock(5_000_000_000_000)), "yet to come");
    }

    #[test]
    fn a_replay_that_reads_on_stops_where_the_same_jump_leads_once_all_is_read() {
        let ticks = [500, 1_000, 1_500, 2_000, 62_000, 62_500, 63_000, 900_000];
        for (wanted, there) in [
            (1_700, 1_500),
            (1_500, 1_500),
            (62_600, 62_500),
            (30_000, 2_000),
            (700_000, 63_000),
        ] {
            let goal = TimeMove::To(wanted * 1_000_000);
            let (mut read_on, mut all) = (Timeline::default(), Timeline::default());
            read_on.push(at(500));
            assert!(!read_on.go(goal), "not read yet");
            let reached = ticks[1..]
                .iter()
                .find(|t| read_on.push_towards(goal, at(**t)));
            assert!(reached.is_some_and(|t| *t >= wanted), "{wanted}");
            assert_eq!(
                read_on.current().unwrap().at_ns,
                there * 1_000_000,
                "to {wanted}"
            );
            for tick in ticks.iter().take_while(|t| Some(*t) <= reached) {
                all.push(at(*tick));
            }
            // What a long hole displaces can't be found again.
            if wanted < 30_000 || wanted == 62_600 {
                assert!(all.go(goal));
                assert_eq!(all.current().unwrap().at_ns, there * 1_000_000, "{wanted}");
            }
        }
        let mut stepping = filled(1);
        assert!(!stepping.go(TimeMove::Step(1)));
        assert!(stepping.push_towards(TimeMove::Step(1), at(1_100)));
        assert_eq!(stepping.current().unwrap().at_ns, 1_100_000_000);
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
