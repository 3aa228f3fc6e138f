//! Broken connections, said once: when an exchange dies all its clients notice within moments, and sixteen equal
//! lines would hide the one fact.

use std::time::{Duration, Instant};

/// How long equal losses are collected. Short against the second within which they must be reported.
const COLLECT: Duration = Duration::from_millis(100);

/// Losses and recoveries that have not been said yet.
pub(super) struct Losses {
    /// How long clients try to reconnect; zero if they don't.
    patience: Duration,
    due: Option<Instant>,
    /// Reason, clients, requests.
    lost: Vec<(String, usize, usize)>,
    back: usize,
}

impl Losses {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            due: None,
            lost: Vec::new(),
            back: 0,
        }
    }

    /// A client lost its connection, and so many requests with it.
    pub(super) fn lost(&mut self, reason: String, unknown: usize, now: Instant) {
        self.due.get_or_insert(now + COLLECT);
        match self.lost.iter_mut().find(|(known, ..)| *known == reason) {
            Some((_, clients, requests)) => {
                *clients += 1;
                *requests += unknown;
            }
            None => self.lost.push((reason, 1, unknown)),
        }
    }

    /// A client is connected again.
    pub(super) fn back(&mut self, now: Instant) {
        self.due.get_or_insert(now + COLLECT);
        self.back += 1;
    }

    /// When [`Self::due`] will have something to say.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due
    }

    /// What is to be said by now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        if self.due.is_some_and(|due| due <= now) {
            self.rest()
        } else {
            Vec::new()
        }
    }

    /// All that has not been said.
    pub(super) fn rest(&mut self) -> Vec<String> {
        self.due = None;
        let then = if self.patience.is_zero() {
            String::new()
        } else {
            format!("; trying to reconnect for {:?}", self.patience)
        };
        let mut lines: Vec<_> = std::mem::take(&mut self.lost)
            .into_iter()
            .map(|(reason, clients, requests)| {
                let unknown = match requests {
                    0 => String::new(),
                    1 => ", outcome of 1 request unknown".into(),
                    n => format!(", outcome of {n} requests unknown"),
                };
                format!("connection lost ({reason}) by {clients} client(s){unknown}{then}")
            })
            .collect();
        let back = std::mem::take(&mut self.back);
        if back > 0 {
            lines.push(format!("{back} client(s) connected again"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_lose_the_same_exchange_are_one_sentence() {
        let now = Instant::now();
        let mut losses = Losses::new(Duration::ZERO);
        for _ in 0..16 {
            losses.lost("peer closed or died".into(), 2, now);
        }
        assert!(losses.due(now).is_empty(), "still collecting");
        assert_eq!(
            losses.due(now + COLLECT),
            [
                "connection lost (peer closed or died) by 16 client(s), outcome of 32 requests unknown"
            ]
        );
        assert!(losses.rest().is_empty(), "said once");
        losses.lost("shut down".into(), 0, now);
        assert_eq!(
            losses.rest(),
            ["connection lost (shut down) by 1 client(s)"],
            "nothing was asked"
        );
    }
}
