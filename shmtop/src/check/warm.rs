//! Whether the rules have had the time to answer. Until then that no hint fired says nothing.
//!
//! Asked is about those who were there when the watch began: where clients come and go all the time, some rule waits for the newest at any
//! moment, and what it waits for is no reason to know nothing of the others.

use crate::model::Model;

const S: u64 = 1_000_000_000;

/// See the module.
#[derive(Default)]
pub(super) struct Warm {
    /// When they will have had it, and whether that is sure.
    until_ns: u64,
    sure: bool,
    needs_s: u32,
}

impl Warm {
    /// Takes the next model.
    pub(super) fn look(&mut self, model: &Model) {
        // Before a rule has answered, none may have seen yet whom it is about, and so how long it will take.
        if !self.sure {
            let needed_ns = u64::from(model.needs_s) * S;
            self.until_ns = model.at_ns.saturating_add(needed_ns);
            self.sure = !model.checked.is_empty();
        }
        let left_s = self.until_ns.saturating_sub(model.at_ns).div_ceil(S);
        self.needs_s = u32::try_from(left_s).map_or(model.needs_s, |s| s.min(model.needs_s));
        if self.needs_s == 0 {
            // Once they have, they have.
            (self.until_ns, self.sure) = (0, true);
        }
    }

    /// Seconds that they still need; 0 once they have had the time.
    pub(super) fn needs_s(&self) -> u32 {
        self.needs_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is still needed after models of (tenths of a second, seconds that some rule needs, whether any has answered).
    fn needs(models: impl IntoIterator<Item = (u64, u32, bool)>) -> u32 {
        let mut warm = Warm::default();
        for (tenths, needs_s, answered) in models {
            let mut model = Model::empty();
            model.at_ns = 7 * S + tenths * S / 10;
            model.needs_s = needs_s;
            model.checked = answered
                .then_some("some-hint")
                .into_iter()
                .collect::<Vec<_>>()
                .into();
            warm.look(&model);
        }
        warm.needs_s()
    }

    #[test]
    fn it_is_warm_once_no_rule_needs_more_and_stays_so_whoever_comes() {
        assert_eq!(needs([(0, 3, false)]), 3);
        // Only the first window shows that the processes are new.
        assert_eq!(needs([(0, 3, false), (10, 4, true)]), 4);
        assert_eq!(needs([(0, 3, false), (10, 2, true), (20, 1, true)]), 1);
        assert_eq!(needs([(0, 3, false), (10, 2, true), (30, 0, true)]), 0);
        assert_eq!(
            needs([(0, 3, false), (10, 4, true), (30, 0, true), (40, 4, true)]),
            0
        );
    }

    #[test]
    fn newcomers_at_any_moment_do_not_keep_it_cold() {
        let each_second = |n: u64| (0..=n).map(|t| (t * 10, 4, t > 0));
        assert_eq!(needs(each_second(4)), 1);
        assert_eq!(needs(each_second(5)), 0);
    }
}
