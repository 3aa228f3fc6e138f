//! A poller for each client while they all think for long between their requests, and sleep for the answers.
//!
//! Such a request takes two wake-ups, and where they happen is what it costs. One poller for all runs where the last client woke it, often on
//! another, halted CPU than the next client does; and since it works for all of them, it has had more than its share of the CPU, so that of those who wake up together it
//! comes last. One that works for a single client runs where that client runs, as soon as that one waits. With clients that are busy
//! it is the other way round: one poller answers many of them per switch.

mod rule;

use std::collections::BTreeMap;
use std::sync::Arc;

use rule::{Rule, Seen};

use super::Shared;
use super::clients::{Key, ShmPart, Table};
use super::pool::{self, Load};
use crate::config::WaitPolicy;
use crate::shm::Inbox;
use crate::wait::futex;

/// What the control thread remembers of it.
#[derive(Default)]
pub(super) struct Pairs {
    rule: Rule,
    /// While in pairs: the pollers. The first is that of all, otherwise.
    inboxes: Vec<Arc<Inbox>>,
    /// Whose client each is, by its place there.
    of: BTreeMap<Key, usize>,
    last_ns: u64,
    last_useful_ns: u64,
}

impl Pairs {
    pub(super) fn is_on(&self) -> bool {
        !self.inboxes.is_empty()
    }

    /// Looks at how busy the clients are, ten times a second; `spread`: they have a poller for each CPU. Returns how many pollers to start
    /// with [`Self::begin`], once the table is unlocked; `None` if none are missing.
    #[must_use]
    pub(super) fn keep(
        &mut self,
        shared: &Shared,
        table: &Table,
        pool: Load,
        spread: bool,
        now_ns: u64,
    ) -> Option<usize> {
        let config = &shared.config;
        if config.workers != 0 || config.thread_per_client || config.wait != WaitPolicy::Adaptive {
            return None;
        }
        let first = self.last_ns == 0;
        let seen = Seen {
            pollers: pool.pollers,
            ..self.see(pool.useful_ns, table, now_ns)
        };
        if first {
            // Nothing to compare with.
            return None;
        }
        // A poller that looks again and again is enough.
        let blind = futex::is_one_word_only();
        if spread || blind || !self.rule.wants(seen, self.is_on()) {
            self.end(table);
            return None;
        }
        self.pair(table);
        self.rule
            .more(seen, seen.clients + self.stuck(), self.inboxes.len())
    }

    /// Pollers that nobody is to be given: whose client has gone, while they are still in its handler.
    fn stuck(&self) -> usize {
        let places = 0..self.inboxes.len();
        places
            .filter(|p| !self.is_taken(*p) && !self.is_free(*p))
            .count()
    }

    fn is_taken(&self, place: usize) -> bool {
        self.of.values().any(|taken| *taken == place)
    }

    /// Whether it can be given to a client. The first one also serves those who have none of their own.
    fn is_free(&self, place: usize) -> bool {
        !self.is_taken(place) && (place == 0 || self.inboxes[place].load() == 0)
    }

    /// Has so many pollers; the next look gives them to those who have none.
    pub(super) fn begin(&mut self, shared: &Arc<Shared>, clients: usize) {
        match pool::first(shared, clients) {
            Ok(inboxes) => {
                self.rule.had();
                self.inboxes = inboxes;
                self.inboxes.iter().for_each(|i| i.set_paired(true));
            }
            // No thread to be had: it goes on with those there are.
            Err(_) => self.rule.refused(),
        }
    }

    fn see(&mut self, useful_ns: u64, table: &Table, now_ns: u64) -> Seen {
        let mut seen = Seen {
            useful_ns: useful_ns.saturating_sub(self.last_useful_ns),
            ns: now_ns.saturating_sub(self.last_ns),
            ..Seen::default()
        };
        (self.last_ns, self.last_useful_ns) = (now_ns, useful_ns);
        for (_, shm) in on_shm(table) {
            let requests = shm.house.requests();
            seen.clients += 1;
            seen.most = seen.most.max(requests);
            if requests > 0 {
                let sleeps = shm.house.crowds().is_some();
                *(if sleeps {
                    &mut seen.asleep
                } else {
                    &mut seen.awake
                }) += 1;
            }
        }
        seen
    }

    /// Each client its poller, as far as there are some. The others keep the one they have.
    fn pair(&mut self, table: &Table) {
        self.of.retain(|key, _| table.by_key.contains_key(key));
        for (key, shm) in on_shm(table) {
            let place = self.of.get(&key).copied();
            let free = || (0..self.inboxes.len()).find(|place| self.is_free(*place));
            if let Some(place) = place.or_else(free) {
                self.of.insert(key, place);
                shm.ends.move_to(&self.inboxes[place]);
            }
        }
    }

    /// Back to one poller for all. The others sleep until they are needed again.
    fn end(&mut self, table: &Table) {
        self.inboxes.iter().for_each(|i| i.set_paired(false));
        if let Some(first) = self.inboxes.first() {
            on_shm(table).for_each(|(_, shm)| shm.ends.move_to(first));
        }
        self.inboxes.clear();
        self.of.clear();
    }
}

fn on_shm(table: &Table) -> impl Iterator<Item = (Key, &ShmPart)> {
    let clients = table.by_key.iter();
    clients.filter_map(|(key, client)| Some((*key, client.shm.as_ref()?)))
}

#[cfg(test)]
mod tests;
