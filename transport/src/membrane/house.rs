//! What the control thread does for each client on shared memory ten times a second: both rings' occupancy, who has
//! stopped moving, and how large a part of the rings the active ones should use; and who sleeps although a reply is there is woken.

use std::sync::atomic::Ordering::Relaxed;

use super::clients::{ShmPart, Table};
use crate::record;
use crate::ring::producer::{DEFAULT_WINDOW_BYTES, FIRST_WINDOW_BYTES};
use crate::shm::HouseLook;
use crate::stats::recorder::{bump, raise, set};
use crate::stats::slot::SlotWriter;

/// Memory that all active rings together should walk through. It decides the 20,000 B case: a record that has left its writer's second-level
/// cache for the shared third level is fetched sooner than one that is still dirty in the other core's. On an EPYC (1 MiB of second
/// level), near regime, one client, windows of 512 KiB gave 157 k/s, of 1 MiB 211 k/s, of 2 MiB 307 k/s and of 4 MiB as much; 16 clients are
/// indifferent between 1 and 8 MiB in all. A nearly empty 32 MiB ring walked end to end costs half the throughput.
const ACTIVE_BYTES: u64 = 4 << 20;

/// State between two looks at one client.
#[derive(Default)]
pub(super) struct House {
    last: Option<HouseLook>,
    /// Whether messages moved between the last two looks.
    pub(super) active: bool,
    /// Requests so far, and how many of them came between the last two looks.
    total: u64,
    requests: u64,
    /// When (monotonic ns) one was last seen to have come.
    asked_ns: u64,
    /// What we wrote into `handler_since_ns`; 0 if nothing.
    told_ns: u64,
}

impl House {
    /// Requests between the last two looks.
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// The CPU on which the client waits, if it says so and is active.
    pub(super) fn crowds(&self) -> Option<usize> {
        self.last.filter(|_| self.active)?.peer_cpu
    }
}

/// Looks at every client on shared memory.
pub(super) fn keep(table: &mut Table, now_ns: u64) {
    let mut active = 0u64;
    for client in table.by_key.values_mut() {
        let Some(shm) = client.shm.as_mut() else {
            continue;
        };
        active += u64::from(look(shm, now_ns));
        if shm.house.last.is_some_and(|l| l.sleeps_beside_a_reply()) {
            shm.view.wake(&client.socket);
        }
    }
    // Two rings each. Rounded to a power of two, so that it moves rarely.
    let share = ACTIVE_BYTES / (2 * active.max(1)).next_power_of_two();
    let window = share.clamp(FIRST_WINDOW_BYTES, DEFAULT_WINDOW_BYTES);
    for shm in table.by_key.values().filter_map(|c| c.shm.as_ref()) {
        shm.view.advise_window(window);
    }
}

/// Looks at one client; true if messages moved since the last time.
fn look(shm: &mut ShmPart, now_ns: u64) -> bool {
    let now = shm.view.look();
    let words = shm.slot.house();
    let active = shm
        .house
        .last
        .is_some_and(|last| last.request_consumed != now.request_consumed);
    let last = shm.house.last;
    // A ring that was empty and now holds something has moved, too: its reader's index had no reason to change yet.
    let moved = |consumed: fn(&HouseLook) -> u64, occupied: fn(&HouseLook) -> Option<u64>| {
        last.is_none_or(|last| {
            consumed(&last) != consumed(&now)
                || occupied(&last) == Some(0) && occupied(&now).is_some_and(|bytes| bytes > 0)
        })
    };
    if moved(|l| l.request_consumed, |l| l.request_occupancy) {
        set(&words.house_rx_moved_ns, now_ns);
    }
    if moved(|l| l.reply_consumed, |l| l.reply_occupancy) {
        set(&words.house_tx_moved_ns, now_ns);
    }
    match (now.request_occupancy, now.reply_occupancy) {
        (Some(request), Some(reply)) => {
            set(&words.house_rx_occupancy_bytes, request);
            raise(&words.house_rx_high_water_bytes, request);
            set(&words.house_tx_occupancy_bytes, reply);
            raise(&words.house_tx_high_water_bytes, reply);
        }
        // The client's numbers make no sense: kept out of ours, and counted.
        _ => bump(&words.house_inconsistent, 1),
    }
    set(&words.house_peer_asleep, u64::from(now.peer_asleep));
    set(&words.house_ns, now_ns);
    let total = record::requests_from_ring(&shm.slot);
    shm.house.requests = total.saturating_sub(shm.house.total);
    if shm.house.requests > 0 {
        shm.house.asked_ns = now_ns;
    }
    shm.house.total = total;
    watch_handler(&mut shm.house, &shm.slot, now_ns);
    shm.house.last = Some(now);
    shm.house.active = active;
    active
}

/// Says since when the handler runs where its thread does not: it reads the clock for the requests drawn for it only, and the one that hangs
/// is mostly another. At most one request of a connection is taken and not answered; if none came since the last look, it is the same one.
///
/// Too short by the time between two looks. Until the next one it may stand beside a later request, and be too long by that. Compared and
/// exchanged, because the handler's thread writes that word, too: only over what nobody or we have written.
fn watch_handler(house: &mut House, slot: &SlotWriter, now_ns: u64) {
    // Relaxed, here and below: numbers that publish nothing else, and after a look without change they are old.
    let has_room = slot.tx().tx_blocked_since_ns.load(Relaxed) == 0;
    let runs = house.asked_ns < now_ns && house.total > record::replies_to_ring(slot) && has_room;
    let word = &slot.req().handler_since_ns;
    if !runs && house.told_ns != 0 {
        let _ours_or_not = word.compare_exchange(house.told_ns, 0, Relaxed, Relaxed);
        house.told_ns = 0;
    } else if runs && house.told_ns == 0 {
        let told = word.compare_exchange(0, house.asked_ns, Relaxed, Relaxed);
        house.told_ns = told.map_or(0, |_| house.asked_ns);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use crate::Synapse;
    use crate::clock::monotonic_ns;
    use crate::config::WaitPolicy;
    use crate::membrane::testing::{WATCHDOG, server, server_that, until};
    use crate::stats::{PageReader, Role, Slot, registry};

    #[test]
    fn a_request_that_hangs_in_the_handler_shows_although_it_is_not_one_of_those_that_are_timed() {
        let dir = tempfile::tempdir().unwrap();
        let (held, is_held) = channel();
        let (go, gone) = channel::<()>();
        let gate = Mutex::new((held, gone));
        let (server, config) = server_that(dir.path(), WaitPolicy::Adaptive, move |request| {
            if request == b"hang" {
                let gate = gate.lock().unwrap();
                gate.0.send(()).unwrap();
                // An error: the test has failed, and the server is to end.
                let _ = gate.1.recv();
            }
        });
        let mut client = Synapse::connect(server.path(), &config).unwrap();
        let id = client.connection_id();
        // Dropped before the server, which waits for its handler.
        let go = go;
        let since = || slot_of(dir.path(), id).req.handler_since_ns;
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < WATCHDOG, "every one of them was timed");
            // In one go: so many that strides grow, and the last of them hangs.
            for _ in 0..400 {
                client.submit(b"short").unwrap();
            }
            let before_ns = monotonic_ns();
            client.submit(b"hang").unwrap();
            is_held.recv().unwrap();
            let timed = since() != 0;
            if !timed {
                until("it shows", || since() != 0);
                let (since_ns, now_ns) = (since(), monotonic_ns());
                assert!((before_ns..=now_ns).contains(&since_ns));
            }
            go.send(()).unwrap();
            for _ in 0..401 {
                client.receive().unwrap();
            }
            until("it is over", || since() == 0);
            if !timed {
                return;
            }
        }
    }

    fn slot_of(dir: &Path, connection_id: u64) -> Slot {
        let found = registry::discover(dir).unwrap();
        let pages = found.iter().filter_map(|f| PageReader::open(&f.link).ok());
        let pages = pages.filter_map(|page| page.snapshot().ok());
        let mut servers = pages.filter(|page| page.role == Role::Server);
        let mut slots = servers.next().unwrap().slots.into_iter();
        let mine = slots.find(|slot| slot.info.connection_id == connection_id);
        mine.unwrap()
    }

    #[test]
    fn what_comes_into_an_empty_ring_is_not_said_to_lie_there_since_its_reader_last_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (server, config) = server(dir.path());
        let mut client = Synapse::connect(server.path(), &config).unwrap();
        client.fire_bytes(b"first").unwrap();
        let id = client.connection_id();
        let house = || slot_of(dir.path(), id).house;
        // For a while nothing moves, and nothing lies there.
        let mut idle = house();
        until("idle", || {
            idle = house();
            idle.house_tx_occupancy_bytes == 0 && idle.house_ns > idle.house_tx_moved_ns
        });
        client.submit(b"second").unwrap();
        let mut unread = house();
        until("the reply is seen", || {
            unread = house();
            unread.house_tx_occupancy_bytes > 0
        });
        assert!(
            unread.house_tx_moved_ns > idle.house_ns,
            "{unread:?} after {idle:?}"
        );
        // Nobody reads it, and that shows.
        let mut later = house();
        until("a look later", || {
            later = house();
            later.house_ns > unread.house_ns
        });
        assert_eq!(later.house_tx_moved_ns, unread.house_tx_moved_ns);
    }
}
