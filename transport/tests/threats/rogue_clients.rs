//! Threat 1, and the end of 17: a client that went through the handshake and then breaks the rules of the rings. Its connection is ended and
//! counted, or goes on where no harm is done; others are served meanwhile, and nothing is leaked.

use std::sync::atomic::Ordering;

use transport::error::CloseReason;
use transport::stats::{Slot, SlotState};

use crate::payload;
use crate::rogue::{
    BYE, CONSUMED, Client, EMPTY, FULL, HEAD, PADDING, PRODUCED, REPLIES, REQUEST_RECORD, STREAMED,
    TAIL, WINDOW, commit, message,
};
use crate::role::{Process, WATCHDOG};
use crate::watch::{Held, held, within};
use crate::world::{Ended, World, mix, ready};

pub(crate) struct Attacked {
    pub(crate) world: World,
    pub(crate) server: Process,
    pub(crate) bystander: transport::Synapse,
    pub(crate) before: Held,
}

impl Attacked {
    pub(crate) fn new() -> Self {
        let world = World::new();
        let server = ready(world.server());
        let mut bystander = world.connect();
        assert!(matches!(mix(&mut bystander, 1, 0), Ended::Done));
        let before = held(server.pid());
        Self {
            world,
            server,
            bystander,
            before,
        }
    }

    pub(crate) fn rogue(&self) -> Client {
        Client::connect(&self.world.path())
    }

    pub(crate) fn slot(&self, connection: u64) -> Slot {
        let page = self.world.page(&self.server);
        let slot = page
            .slots
            .iter()
            .find(|s| s.info.connection_id == connection);
        slot.expect("its slot").clone()
    }

    /// The server has ended the connection, said why in its page, given everything back, and serves the others.
    pub(crate) fn has_ended(&mut self, mut rogue: Client, what: &str) {
        rogue.raw.is_closed();
        within(WATCHDOG, what, || {
            let slot = self.slot(rogue.connection);
            let poisoned = slot.info.close_reason == CloseReason::Poisoned as u32;
            let ok = slot.info.state == SlotState::Closed && poisoned && slot.rx.rx_invalid > 0;
            ok.then_some(())
                .ok_or(format!("{:?} {:?}", slot.info, slot.rx))
        });
        drop(rogue);
        self.all_is_well(what);
    }

    pub(crate) fn all_is_well(&mut self, what: &str) {
        within(WATCHDOG, what, || {
            let now = held(self.server.pid());
            let same = (now.fds, now.rings) == (self.before.fds, self.before.rings);
            same.then_some(()).ok_or(now)
        });
        assert!(
            matches!(mix(&mut self.bystander, 1, 0), Ended::Done),
            "{what}"
        );
        let counts = self.server.ask("counts", "counts");
        assert!(counts.starts_with("handled="), "{counts}");
    }
}

/// A request that asks for `reply` bytes.
pub(crate) fn ask(number: u64, reply: usize) -> Vec<u8> {
    payload::request(number, 16, reply)
}

/// Publishes `word` as the commit word of the next record and moves tail over it.
fn publish(rogue: &mut Client, word: u64) {
    let bytes = rogue.rings.prepare(1, &ask(1, 8));
    let at = rogue.rings.place();
    rogue.rings.memory.word(at).store(word, Ordering::Release);
    rogue.rings.tail += bytes;
    rogue
        .rings
        .out(TAIL)
        .store(rogue.rings.tail, Ordering::Release);
    rogue.rings.wake();
}

/// Moves on to `left` bytes before the end of the ring, with good requests.
fn approach_the_end(rogue: &mut Client, left: u64) {
    let mut id = 1000;
    while rogue.rings.left() > left {
        id += 1;
        let length = (rogue.rings.left() - left).min(8000) as usize;
        let length = length.saturating_sub(16).max(16) & !7;
        assert_eq!(
            rogue.call(id, &payload::request(id, length, 8)),
            payload::expected(id, 8)
        );
    }
}

#[test]
fn a_well_behaved_peer_made_of_the_documents_bytes_is_served() {
    let attacked = Attacked::new();
    let mut client = attacked.rogue();
    for number in 1..300 {
        let length = 16 + (number as usize * 997) % (client.max_message - 16);
        let reply = (number as usize * 331) % 20_000;
        assert!(
            client.call(number, &payload::request(number, length, reply))
                == payload::expected(number, reply)
        );
    }
    assert!(client.call(300, &[]).is_empty());
    client.raw.say(&message(BYE, 0, &[]));
    client.raw.is_closed();
}

#[test]
fn a_record_that_cannot_be_ends_the_connection_and_nothing_else() {
    let mut attacked = Attacked::new();
    let words = [
        ("kind 0", 16),
        ("kind 5", commit(5, 16)),
        ("kind 255", commit(255, 16)),
        ("a reply from a client", commit(3, 16)),
        ("an error reply from a client", commit(4, 16)),
        ("an unknown flag", commit(REQUEST_RECORD, 16) | 1 << 41),
        ("high bits", commit(REQUEST_RECORD, 16) | 1 << 63),
        ("all ones", u64::MAX),
        ("a length of 4 GiB", commit(REQUEST_RECORD, u32::MAX.into())),
        ("a length beyond the ring", commit(REQUEST_RECORD, 1 << 20)),
        (
            "a length above the largest message",
            commit(REQUEST_RECORD, 20_001),
        ),
        ("padding at the ring's start", commit(PADDING, 0)),
        (
            "a streamed record of 4 GiB",
            commit(REQUEST_RECORD, u32::MAX.into()) | STREAMED,
        ),
    ];
    for (what, word) in words {
        let mut rogue = attacked.rogue();
        publish(&mut rogue, word);
        attacked.has_ended(rogue, what);
    }
    for (what, word) in [
        (
            "a record over the end of the ring",
            commit(REQUEST_RECORD, 5000),
        ),
        (
            "a streamed record over the end",
            commit(REQUEST_RECORD, 9000) | STREAMED,
        ),
    ] {
        let mut rogue = attacked.rogue();
        approach_the_end(&mut rogue, 4000);
        publish(&mut rogue, word);
        attacked.has_ended(rogue, what);
    }
    let mut rogue = attacked.rogue();
    approach_the_end(&mut rogue, 4000);
    let start =
        rogue.rings.place() + rogue.rings.left() as usize - rogue.rings.memory.capacity as usize;
    rogue
        .rings
        .memory
        .word(start)
        .store(commit(PADDING, 0), Ordering::Release);
    publish(&mut rogue, commit(PADDING, 0));
    attacked.has_ended(rogue, "padding that leads to padding");
}

#[test]
fn an_index_out_of_range_or_moving_backwards_ends_the_connection_and_nothing_else() {
    let mut attacked = Attacked::new();
    let mut dice = 0x1234_5678_9abc_def1u64;
    let tails: Vec<(String, u64)> = [
        u64::MAX,
        0u64.wrapping_sub(8),
        1 << 63,
        (1 << 16) + 8,
        1 << 16,
        8,
        24,
    ]
    .into_iter()
    .chain(
        std::iter::repeat_with(|| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            dice
        })
        .take(8),
    )
    .map(|tail| (format!("tail {tail:#x} and no record"), tail))
    .collect();
    for (what, tail) in &tails {
        let rogue = attacked.rogue();
        rogue.rings.out(TAIL).store(*tail, Ordering::Release);
        attacked.has_ended(rogue, what);
    }
    // A head is looked at when there seems to be no room: replies of 12 KB make sure of that.
    let heads = |head: u64| [u64::MAX, 1 << 63, head + (1 << 16), 8, head + 1, dice];
    for i in 0..6 {
        let mut rogue = attacked.rogue();
        for number in 1..14 {
            assert!(rogue.call(number, &ask(number, 12_000)) == payload::expected(number, 12_000));
        }
        let bad = heads(rogue.rings.head)[i];
        rogue.rings.back(HEAD).store(bad, Ordering::Release);
        for number in 14..22 {
            rogue.rings.send(number, &ask(number, 12_000));
        }
        attacked.has_ended(rogue, &format!("head {bad:#x}"));
    }
}

#[test]
fn words_that_are_only_advice_or_claims_do_no_harm_and_wrong_ones_are_counted() {
    let mut attacked = Attacked::new();
    let mut rogue = attacked.rogue();
    let mut number = 0;
    for garbage in [u64::MAX, 1, 7, 1 << 40, 0] {
        for word in [
            PRODUCED,
            CONSUMED,
            WINDOW,
            REPLIES + PRODUCED,
            REPLIES + CONSUMED,
            REPLIES + WINDOW,
        ] {
            rogue
                .rings
                .memory
                .word(word)
                .store(garbage, Ordering::Relaxed);
        }
        for flag in [FULL, EMPTY, REPLIES + FULL, REPLIES + EMPTY] {
            rogue
                .rings
                .memory
                .flag(flag)
                .store(garbage as u32, Ordering::Relaxed);
        }
        for _ in 0..50 {
            number += 1;
            assert_eq!(
                rogue.call(number, &ask(number, 3000)),
                payload::expected(number, 3000)
            );
        }
    }
    rogue.rings.out(PRODUCED).store(1 << 50, Ordering::Relaxed);
    within(WATCHDOG, "the claim is found impossible", || {
        let slot = attacked.slot(rogue.connection);
        (slot.house.house_inconsistent > 0)
            .then_some(())
            .ok_or(slot.house)
    });
    assert_eq!(attacked.slot(rogue.connection).info.state, SlotState::Open);
    drop(rogue);
    attacked.all_is_well("claims");
}

#[test]
fn a_record_left_half_published_holds_nobody_up_and_is_taken_once_it_is_whole() {
    let mut attacked = Attacked::new();
    let request = payload::request(1, 16_000, 64);
    let mut rogue = attacked.rogue();
    let bytes = rogue.rings.prepare(1, &request);
    let (at, begin) = (rogue.rings.place(), rogue.rings.tail + 16);
    rogue
        .rings
        .memory
        .word(at)
        .store(commit(REQUEST_RECORD, 16_000) | STREAMED, Ordering::Release);
    for part in [0, 1, 4096, 9999] {
        rogue.rings.out(TAIL).store(begin + part, Ordering::Release);
        rogue.rings.wake();
        assert!(
            matches!(mix(&mut attacked.bystander, 3, 0), Ended::Done),
            "others are served, {part} bytes in"
        );
        assert!(
            rogue.rings.receive().is_none(),
            "answered before it was whole"
        );
    }
    rogue.rings.tail += bytes;
    rogue
        .rings
        .out(TAIL)
        .store(rogue.rings.tail, Ordering::Release);
    rogue.rings.wake();
    assert_eq!(rogue.rings.await_record().2, payload::expected(1, 64));
    drop(rogue);
    attacked.all_is_well("half a record, then its peer went");
}

#[test]
fn a_streamed_record_whose_index_jumps_is_refused_or_read_within_its_bounds() {
    let mut attacked = Attacked::new();
    for (i, jump) in [1u64 << 16, u64::MAX, 1 << 63, 0x7777_7777]
        .into_iter()
        .enumerate()
    {
        let mut rogue = attacked.rogue();
        assert_eq!(rogue.call(1, &ask(1, 8)), payload::expected(1, 8));
        rogue.rings.prepare(2, &payload::request(2, 16_000, 64));
        let at = rogue.rings.place();
        rogue
            .rings
            .out(TAIL)
            .store(rogue.rings.tail.wrapping_add(jump), Ordering::Release);
        rogue
            .rings
            .memory
            .word(at)
            .store(commit(REQUEST_RECORD, 16_000) | STREAMED, Ordering::Release);
        rogue.rings.wake();
        if i == 0 {
            // Far enough: the whole record is there, and so it is answered; the next look finds the index ahead of what exists.
            assert_eq!(rogue.rings.await_record().2, payload::expected(2, 64));
        }
        attacked.has_ended(rogue, &format!("tail jumps by {jump:#x}"));
    }
}

#[test]
fn a_client_on_shared_memory_that_talks_on_the_socket_is_ended() {
    let mut attacked = Attacked::new();
    for noise in [
        vec![0],
        message(BYE, 0, &[]),
        message(crate::rogue::UPGRADE, 2, &[]),
        vec![7; 5000],
    ] {
        let mut rogue = attacked.rogue();
        assert_eq!(rogue.call(1, &ask(1, 8)), payload::expected(1, 8));
        rogue.raw.say(&noise);
        rogue.raw.is_closed();
        drop(rogue);
        attacked.all_is_well("noise on the socket");
    }
}
