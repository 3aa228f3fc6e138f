//! A client's turn in a crowd: how many answers it may spin for before it gives its CPU to the next.
//!
//! A yield that hands a CPU over costs several times what an answer takes from a server that has a CPU to itself. So where such a server
//! answers at once, a client sends a few requests in a row and pays one yield for all of them. Whether it does is learnt from the looks
//! themselves: after some that found nothing, none are made for a while, twice as long each time.

/// Looks for one answer, some 25 ns each: together about what a yield takes that hands the CPU over and back. A server that runs on
/// another CPU has answered a small request within a quarter of them, or within two thirds where a cache line travels far.
const LOOKS: u32 = 64;
/// Requests per turn. The last one's answer comes during the yield that ends the turn. More of them make more of a CPU (16 processes at 64 B: four
/// 1.00 M/s, three 0.96), and the others wait longer (p99.9 120 µs and 105).
const REQUESTS: u32 = 3;
/// Waits without looks at most, after looks that found nothing: what these cost is lost in that many yields.
const LONGEST_PAUSE: u32 = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Turn {
    /// Answers found spinning in this turn.
    answers: u32,
    /// Waits that are left without looks.
    pause: u32,
    next_pause: u32,
}

impl Turn {
    pub(super) const fn new() -> Self {
        Self {
            answers: 0,
            pause: 0,
            next_pause: 1,
        }
    }

    /// How often to look before the next yield. If at all, tell [`Self::looked`] what came of it.
    pub(super) fn looks(&mut self) -> u32 {
        if self.pause > 0 {
            self.pause -= 1;
            return 0;
        }
        if self.answers + 1 >= REQUESTS {
            self.answers = 0;
            return 0;
        }
        LOOKS
    }

    /// Whether the looks found an answer.
    pub(super) fn looked(&mut self, found: bool) {
        if found {
            self.answers += 1;
            self.next_pause = 1;
        } else {
            self.answers = 0;
            self.pause = self.next_pause;
            self.next_pause = (self.next_pause * 2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_after_a_few_answers_however_quickly_they_come() {
        let mut turn = Turn::new();
        for _ in 0..100 {
            for _ in 1..REQUESTS {
                assert!(turn.looks() > 0);
                turn.looked(true);
            }
            assert_eq!(turn.looks(), 0, "the next client's");
        }
    }

    #[test]
    fn looks_that_find_nothing_become_rare_and_one_that_does_brings_them_back() {
        let mut turn = Turn::new();
        let mut wait = |found: bool| {
            let looks = turn.looks();
            if looks > 0 {
                turn.looked(found);
            }
            looks
        };
        let looks: u32 = (0..10_000).map(|_| wait(false)).sum();
        assert!(looks / LOOKS < 10_000 / LONGEST_PAUSE + 10, "{looks} looks");
        while wait(true) == 0 {}
        assert!(wait(true) > 0);
    }
}
