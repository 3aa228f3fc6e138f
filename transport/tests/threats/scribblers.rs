//! Threats 2, 3, 4 and 6, and the last of 1: a client that writes where the server reads, at any time and anything, or takes the memory away. The
//! server acts on what it read once, and on copies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::payload;
use crate::rogue::{HEAD, Memory, REQUEST_RECORD, TAIL, commit};
use crate::rogue_clients::{Attacked, ask};

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
