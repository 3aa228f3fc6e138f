//! Moves in time: steps, jumps and moments, over what is kept.

use std::sync::Arc;

use super::Timeline;
use crate::model::Model;
use crate::ui::action::TimeMove;

impl Timeline {
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

    /// How many of `models` are older than `at_ns`.
    pub(super) fn before(&self, at_ns: u64) -> usize {
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
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, filled};
    use super::*;

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
}
