//! Rows 1, 2, 3, 4 and 6, and the end of 17: a client that went through the handshake and then misuses the memory it shares. Its connection is
//! ended and counted, or goes on where no harm is done; others are served meanwhile, and nothing is leaked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use transport::error::CloseReason;
use transport::stats::{Slot, SlotState};

use crate::payload;
use crate::rogue::{
    BYE, CONSUMED, Client, EMPTY, FULL, HEAD, Memory, PADDING, PRODUCED, REPLIES, REQUEST_RECORD,
    STREAMED, TAIL, WINDOW, commit, message,
};
use crate::role::{Process, WATCHDOG};
use crate::watch::{Held, held, within};
use crate::world::{Ended, World, mix, ready};

struct Attacked {
    world: World,
    server: Process,
    bystander: transport::Synapse,
    before: Held,
}

impl Attacked {
    fn new() -> Self {
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

    fn rogue(&self) -> Client {
        Client::connect(&self.world.path())
    }

    fn slot(&self, connection: u64) -> Slot {
        let page = self.world.page(&self.server);
        let slot = page
            .slots
            .iter()
            .find(|s| s.info.connection_id == connection);
        slot.expect("its slot").clone()
    }

    /// The server has ended the connection, said why in its page, given everything back, and serves the others.
    fn has_ended(&mut self, mut rogue: Client, what: &str) {
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

    fn all_is_well(&mut self, what: &str) {
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
fn ask(number: u64, reply: usize) -> Vec<u8> {
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

/// How long the noisy ones go on: enough for millions of stores.
const NOISE: Duration = Duration::from_millis(400);

#[test]
fn a_length_that_flips_while_it_is_read_is_read_once() {
    let mut attacked = Attacked::new();
    let (mut flips, mut served, mut ended) = (0, [0, 0], 0);
    // Between two that are possible: the server takes one or the other, and answers that one. Then with one that is not, which
    // must end the connection or not have been seen; and between a record and nothing.
    for lengths in [
        [16, 5000],
        [16, u32::MAX.into()],
        [20_000, 20_001],
        [5000, 0xff_ffff_ffff],
    ] {
        let begun = std::time::Instant::now();
        'connections: while begun.elapsed() < NOISE {
            let mut rogue = attacked.rogue();
            for id in 1..200u64 {
                rogue.rings.make_room_for(&[0; 20_000]);
                let at = rogue.rings.place();
                rogue.rings.prepare(id, &payload::request(id, 5000, 8));
                let [one, other] = lengths.map(|length| commit(REQUEST_RECORD, length));
                let memory = Arc::clone(&rogue.rings.memory);
                // Nothing behind the shorter one either.
                let shorter = lengths[0].min(lengths[1]).next_multiple_of(8) as usize;
                memory.word(at + 16 + shorter).store(0, Ordering::Relaxed);
                let flip = move |memory: &Memory, n: u64| {
                    memory
                        .word(at)
                        .store(if n & 1 == 0 { one } else { other }, Ordering::Release);
                };
                let mut closed = false;
                flips += while_scribbling(&memory, flip, || {
                    rogue.rings.wake();
                    while rogue.rings.receive().is_none() && !closed {
                        closed = rogue.raw.is_closed_within(Duration::from_micros(50));
                    }
                });
                if closed {
                    ended += 1;
                    continue 'connections;
                }
                // What the server released tells which length it took.
                let head = rogue.rings.out(HEAD).load(Ordering::Acquire);
                let taken = head - rogue.rings.tail;
                let sizes = lengths.map(|length| 16 + length.next_multiple_of(8));
                let which = sizes.iter().position(|size| *size == taken);
                served[which.unwrap_or_else(|| panic!("{taken} bytes taken of {sizes:?}"))] += 1;
                rogue.rings.tail = head;
                memory.word(rogue.rings.place()).store(0, Ordering::Release);
                rogue.rings.out(TAIL).store(head, Ordering::Release);
            }
        }
        attacked.all_is_well(&format!("{lengths:?}"));
    }
    println!("{flips} flips, {served:?} requests served by length, {ended} connections ended");
    assert!(
        served[0] > 0 && served[1] > 0 && ended > 0,
        "{served:?} {ended}"
    );
}

/// Calls `scribble` on the shared memory with growing numbers until `work` is done; returns how often.
fn while_scribbling(
    memory: &Arc<Memory>,
    scribble: impl Fn(&Memory, u64) + Send + 'static,
    work: impl FnOnce(),
) -> u64 {
    let stop = Arc::new(AtomicBool::new(false));
    let (memory, stopped) = (Arc::clone(memory), Arc::clone(&stop));
    let (begun, has_begun) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut n = 0;
        while !stopped.load(Ordering::Relaxed) {
            scribble(&memory, n);
            if n == 0 {
                begun.send(()).expect("somebody waits");
            }
            n += 1;
        }
        n
    });
    has_begun.recv().expect("the scribbler");
    work();
    stop.store(true, Ordering::Relaxed);
    thread.join().expect("the scribbler")
}

#[test]
fn a_payload_that_changes_under_the_handler_is_a_private_copy() {
    let mut attacked = Attacked::new();
    let mut rogue = attacked.rogue();
    let memory = Arc::clone(&rogue.rings.memory);
    let mut changes = 0;
    for id in 1..150u64 {
        let mut request = b"twice".to_vec();
        request.resize(6000, 7);
        rogue.rings.make_room_for(&request);
        let at = rogue.rings.place() + 24;
        changes += while_scribbling(
            &memory,
            move |memory, n| {
                (0..5).for_each(|i| memory.word(at + i * 1000).store(n, Ordering::Relaxed))
            },
            || {
                assert_eq!(
                    rogue.call(id, &request),
                    b"same",
                    "the handler saw its request change"
                )
            },
        );
    }
    assert!(changes > 1000, "{changes}");
    println!("{changes} changes while handlers read");
    drop(rogue);
    attacked.all_is_well("scribbled payloads");
}

#[test]
fn whatever_stands_in_the_memory_the_server_lives() {
    let mut attacked = Attacked::new();
    let (mut dice, mut ended) = (99u64, 0);
    let begun = std::time::Instant::now();
    let mut scribbled = 0;
    while begun.elapsed() < 3 * NOISE {
        let mut rogue = attacked.rogue();
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let seed = dice;
        let memory = Arc::clone(&rogue.rings.memory);
        let length = memory.length;
        // Anything anywhere, more often in the control words, and often what could be a record.
        let scribble = move |memory: &Memory, n: u64| {
            let mut x = seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            x ^= x >> 29;
            let at = if x & 1 == 0 {
                (x >> 8) as usize % 0x800
            } else {
                (x >> 8) as usize % (length - 8)
            };
            let value = match x >> 60 {
                0..8 => commit(1 + (x >> 40 & 3), (x >> 20) & 0x7fff) | (x >> 59 & 1) << 40,
                8..12 => x & 0x1_fff8,
                _ => x,
            };
            memory.word(at & !7).store(value, Ordering::Relaxed);
        };
        scribbled += while_scribbling(&memory, scribble, || {
            for id in 1..20 {
                rogue.rings.send(id, &payload::request(id, 3000, 3000));
                std::thread::yield_now();
            }
            if rogue.raw.is_closed_within(Duration::from_millis(120)) {
                ended += 1;
            }
        });
        drop(rogue);
        attacked.all_is_well("scribbled memory");
    }
    assert!(ended > 0, "no connection was ended");
    println!("{scribbled} words scribbled, {ended} connections ended");
}

#[test]
fn nobody_shrinks_or_grows_the_rings() {
    let mut attacked = Attacked::new();
    let mut rogue = attacked.rogue();
    for size in [0, 1, 4096, rogue.rings.memory.length as i64 - 1, 1 << 30] {
        assert_eq!(
            nix::unistd::ftruncate(rogue.fd(), size),
            Err(nix::errno::Errno::EPERM)
        );
    }
    assert_eq!(rogue.call(1, &ask(1, 8)), payload::expected(1, 8));
    drop(rogue);
    attacked.all_is_well("ftruncate");
}

#[test]
fn nobody_punches_holes_into_the_rings_and_zeros_are_no_record() {
    use nix::fcntl::{FallocateFlags, fallocate};
    let mut attacked = Attacked::new();
    let mut rogue = attacked.rogue();
    let (mut refused, mut made) = (0, 0);
    for id in 1..200 {
        rogue.rings.send(id, &payload::request(id, 5000, 5000));
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(rogue.fd(), flags, 0, rogue.rings.memory.length as i64) {
            Err(nix::errno::Errno::EPERM) => refused += 1,
            Ok(()) => made += 1,
            Err(e) => panic!("{e}"),
        }
        assert!(rogue.rings.await_record().2 == payload::expected(id, 5000));
    }
    println!("{refused} holes refused, {made} made");
    assert_eq!(made, 0, "holes were made, as before Linux 5.1");
    // Where the kernel has no such seal, or the peer simply stores zeros: an index with nothing behind it.
    rogue.rings.prepare(500, &ask(500, 8));
    let zeroed = rogue.rings.place();
    rogue.rings.memory.word(zeroed).store(0, Ordering::Release);
    rogue
        .rings
        .out(TAIL)
        .store(rogue.rings.tail + 32, Ordering::Release);
    attacked.has_ended(rogue, "a record that was zeroed");
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
