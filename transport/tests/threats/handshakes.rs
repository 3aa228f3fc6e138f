//! Threats 13 and 15 to 17 as a server meets them: noise, forged versions and sizes, descriptors nobody asked for, and peers that leave after
//! every step. Each is refused, counted in the stats page, and costs the server nothing afterwards.

use std::os::fd::AsFd;
use std::time::Duration;

use crate::knocked::Knocked;
use crate::rogue::{
    BYE, COMMIT, Client, DECLINE, HELLO, MESSAGE, Memory, OFFER, READY, REFUSED, REPLY, REQUEST,
    Raw, UPGRADE, VERSION, WELCOME, header, hello, message,
};
use crate::role::WATCHDOG;
use crate::watch::within;

#[test]
fn noise_is_refused_as_no_client_of_ours_and_nothing_is_allocated_for_it() {
    let mut knocked = Knocked::new();
    let mut dice = 5u64;
    for length in [MESSAGE, 4096, 1 << 20] {
        // Before it knocks: a deadline runs from then on.
        let noise: Vec<u8> = (0..length)
            .map(|_| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (dice >> 56) as u8
            })
            .collect();
        let mut raw = knocked.knock();
        // A megabyte may not fit before the server closes.
        raw.say(&noise);
        raw.is_closed();
    }
    knocked.all_is_well(|p| p.rejected_magic, 3, "noise");
}

#[test]
fn the_last_refused_is_somebody_who_was_refused() {
    let mut knocked = Knocked::new();
    drop(knocked.knock());
    knocked.all_is_well(|p| p.accepted, 1, "one who only looked in");
    assert_eq!(knocked.counted.last_rejected_pid, 0);

    let mut raw = knocked.knock();
    raw.say(&hello(1 << 16, 20_000));
    raw.expect(WELCOME);
    raw.say(&header(REPLY, 1, 0, 0));
    raw.is_closed();
    knocked.all_is_well(|p| p.rejected_layout, 1, "a reply from a client");
    let last = knocked.counted.last_rejected_pid;
    assert_eq!(last, u64::from(std::process::id()));
}

#[test]
fn a_handshake_lasts_from_the_knock_to_the_rings() {
    let knocked = Knocked::new();
    let pause = Duration::from_millis(150);
    let client = Client::connect_after(&knocked.world.path(), pause);
    within(WATCHDOG, "the pause is part of it", || {
        let longest = knocked.world.page(&knocked.server).process.handshake_max_ns;
        (u128::from(longest) >= pause.as_nanos())
            .then_some(())
            .ok_or(longest)
    });
    drop(client);

    // Of one that asks later, and in vain, what was before is none of it.
    let hour = Duration::from_secs(2);
    let mut raw = knocked.knock();
    raw.say(&hello(1 << 16, 20_000));
    raw.expect(WELCOME);
    let call = |raw: &mut Raw, id: u64| {
        raw.say(&header(REQUEST, id, 100, 0));
        raw.say(&crate::payload::request(id, 100, 50));
        let mut reply = vec![0; 24 + 50];
        std::io::Read::read_exact(&mut raw.0, &mut reply).expect("a reply");
    };
    call(&mut raw, 1);
    std::thread::sleep(hour);
    raw.say(&message(UPGRADE, 1, &[]));
    drop(raw.expect(OFFER));
    raw.say(&message(DECLINE, 1, &[(24, 9 | 22 << 32)]));
    call(&mut raw, 2);
    let page = knocked.world.page(&knocked.server).process;
    assert_eq!(page.fallbacks, knocked.counted.fallbacks + 1);
    let longest = page.handshake_max_ns;
    assert!(u128::from(longest) < hour.as_nanos(), "{longest}");
}

#[test]
fn a_header_that_claims_gigabytes_is_refused_before_anything_is_read() {
    let mut knocked = Knocked::new();
    let mut raw = knocked.knock();
    let mut claim = hello(1 << 16, 20_000);
    claim[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    raw.say(&claim);
    knocked.refused(raw, 3, "a HELLO of 4 GiB");
    knocked.all_is_well(|p| p.rejected_layout, 1, "a HELLO of 4 GiB");
    for (kind, length) in [(REQUEST, u32::MAX), (REQUEST, 20_001), (99, 8), (HELLO, 1)] {
        let mut raw = knocked.knock();
        raw.say(&hello(1 << 16, 20_000));
        raw.expect(WELCOME);
        raw.say(&header(kind, 1, length, 0));
        raw.is_closed();
    }
    knocked.all_is_well(|p| p.rejected_magic, 4, "frames that can't be");
}

#[test]
fn another_version_is_told_both_versions() {
    let mut knocked = Knocked::new();
    for theirs in [2u32 << 16, 9 << 16 | 3, 0, u32::MAX] {
        let mut raw = knocked.knock();
        let mut forged = hello(1 << 16, 20_000);
        forged[20..24].copy_from_slice(&theirs.to_le_bytes());
        raw.say(&forged);
        let heard = raw.expect(REFUSED);
        assert_eq!(
            (heard.u32(24), heard.u32(20), heard.u32(28)),
            (2, VERSION, theirs)
        );
        raw.is_closed();
    }
    knocked.all_is_well(|p| p.rejected_version, 4, "versions");
    // A newer minor of our major is a client like any other.
    let mut raw = knocked.knock();
    let mut newer = hello(1 << 16, 20_000);
    newer[20..24].copy_from_slice(&(VERSION | 7).to_le_bytes());
    raw.say(&newer);
    raw.expect(WELCOME);
}

#[test]
fn impossible_sizes_and_messages_out_of_order_are_refused() {
    let mut knocked = Knocked::new();
    let first = |fields: &[(usize, u64)]| {
        let mut bytes = hello(1 << 16, 20_000);
        for &(at, value) in fields {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    };
    let mut firsts: Vec<(String, Vec<u8>)> =
        [0, 1, 4095, 2048, 3 << 12, (1 << 30) + 1, 1 << 31, u64::MAX]
            .map(|bytes| (format!("a ring of {bytes}"), first(&[(40, bytes)])))
            .into();
    firsts.push(("a largest message of 0".into(), first(&[(48, 0)])));
    firsts.push(("transport 0".into(), first(&[(56, 0)])));
    firsts.push(("transport 4".into(), first(&[(56, 4)])));
    firsts.push(("an attempt number".into(), first(&[(8, 1)])));
    for kind in [WELCOME, UPGRADE, OFFER, COMMIT, DECLINE, READY] {
        firsts.push((format!("kind {kind} first"), message(kind, 0, &[])));
    }
    let times = firsts.len() as u64;
    for (what, bytes) in firsts {
        let mut raw = knocked.knock();
        raw.say(&bytes);
        knocked.refused(raw, 3, &what);
    }
    knocked.all_is_well(|p| p.rejected_layout, times, "first messages");

    let later = [
        ("a second HELLO", vec![hello(1 << 16, 20_000)]),
        ("COMMIT of nothing", vec![message(COMMIT, 0, &[])]),
        (
            "UPGRADE with a wrong number",
            vec![message(UPGRADE, 2, &[])],
        ),
        ("a reply from a client", vec![header(REPLY, 1, 0, 0)]),
        ("a server's word", vec![message(READY, 0, &[])]),
    ];
    let times = later.len() as u64;
    for (what, messages) in later {
        let mut raw = knocked.knock();
        raw.say(&hello(1 << 16, 20_000));
        raw.expect(WELCOME);
        messages.iter().for_each(|m| assert!(raw.say(m), "{what}"));
        raw.is_closed();
    }
    knocked.all_is_well(|p| p.rejected_layout, times, "later messages");

    let mut raw = knocked.knock();
    raw.say(&hello(1 << 16, 20_000));
    raw.expect(WELCOME);
    raw.say(&message(UPGRADE, 1, &[]));
    raw.expect(OFFER);
    raw.say(&message(COMMIT, 2, &[]));
    raw.is_closed();
    knocked.all_is_well(|p| p.rejected_layout, 1, "COMMIT of another attempt");
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed_and_their_sender_refused() {
    let mut knocked = Knocked::new();
    for count in [1, 3, 253] {
        let (pipe, write) = std::io::pipe().unwrap();
        let fds = vec![write.as_fd(); count];
        let mut raw = knocked.knock();
        raw.say_with(&hello(1 << 16, 20_000), &fds);
        drop(fds);
        drop(write);
        knocked.refused(raw, 3, "descriptors with HELLO");
        let mut pipe = pipe;
        assert_eq!(
            std::io::Read::read(&mut pipe, &mut [0]).unwrap(),
            0,
            "all {count} are closed"
        );
    }
    knocked.all_is_well(|p| p.rejected_layout, 3, "descriptors with HELLO");
    for count in [1, 3, 253] {
        let (mut pipe, write) = std::io::pipe().unwrap();
        let mut raw = knocked.knock();
        raw.say(&hello(1 << 16, 20_000));
        raw.expect(WELCOME);
        raw.say_with(&message(UPGRADE, 1, &[]), &vec![write.as_fd(); count]);
        drop(write);
        raw.is_closed();
        assert_eq!(
            std::io::Read::read(&mut pipe, &mut [0]).unwrap(),
            0,
            "all {count} are closed"
        );
    }
    knocked.all_is_well(|p| p.rejected_layout, 3, "descriptors with UPGRADE");
}

/// What a client has said when it leaves.
fn steps(raw: &mut Raw, steps: usize) {
    let says = [
        hello(1 << 16, 20_000),
        message(UPGRADE, 1, &[]),
        message(COMMIT, 1, &[]),
    ];
    for (i, say) in says.iter().enumerate().take(steps.div_ceil(2)) {
        raw.say(say);
        if steps > 2 * i + 1 {
            raw.hear();
        }
    }
}

#[test]
fn a_client_that_leaves_after_any_step_leaves_nothing_behind() {
    let mut knocked = Knocked::with("5000");
    for _ in 0..3 {
        for done in 0..=6 {
            for by_word in [false, true] {
                let mut raw = knocked.knock();
                steps(&mut raw, done);
                if by_word {
                    raw.say(&message(BYE, 0, &[]));
                }
                drop(raw);
            }
        }
        knocked.all_is_well(|_| 0, 0, "cut connections");
    }
}

#[test]
fn one_who_never_answers_an_offer_is_closed_and_one_who_declines_goes_on_over_the_socket() {
    let mut knocked = Knocked::new();
    let mut raw = knocked.knock();
    steps(&mut raw, 4);
    raw.is_closed();
    knocked.all_is_well(|p| p.rejected_timeout, 1, "no answer to the OFFER");

    let mut raw = knocked.knock();
    steps(&mut raw, 4);
    raw.say(&message(
        DECLINE,
        1,
        &[(24, 9 | 22 << 32), (32, 5), (40, 6)],
    ));
    for id in 1..10u64 {
        let request = crate::payload::request(id, 100, 50);
        raw.say(&header(REQUEST, id, 100, 0));
        raw.say(&request);
        let mut reply = vec![0; 24 + 50];
        std::io::Read::read_exact(&mut raw.0, &mut reply).expect("a reply");
        assert_eq!(reply[..24], header(REPLY, id, 50, 0));
        assert_eq!(reply[24..], crate::payload::expected(id, 50));
    }
    let page = knocked.world.page(&knocked.server);
    let fallback = page
        .slots
        .iter()
        .find_map(|s| s.info.fallback.clone())
        .expect("a fallback");
    assert_eq!(
        (
            fallback.step,
            fallback.errno,
            fallback.limit,
            fallback.used,
            fallback.at_peer
        ),
        (9, 22, 5, 6, true)
    );
    assert_eq!(page.process.fallbacks, knocked.counted.fallbacks + 1);
    // And asks again: attempts are numbered.
    raw.say(&message(UPGRADE, 2, &[]));
    let mut offer = raw.expect(OFFER);
    let _memory = Memory::map(offer.fds.remove(0), offer.u64(40));
    raw.say(&message(COMMIT, 2, &[]));
    raw.expect(READY);
    drop(raw);
    knocked.all_is_well(|p| p.fallbacks, 1, "declined, then committed");
}

#[test]
fn a_client_that_keeps_the_rings_open_to_holes_is_closed() {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    let mut knocked = Knocked::new();
    let mut raw = knocked.knock();
    steps(&mut raw, 3);
    let offer = raw.expect(OFFER);
    // The last seal without the one that matters: nobody can add it any more.
    fcntl(&offer.fds[0], FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SEAL)).expect("not sealed yet");
    raw.say(&message(COMMIT, 1, &[]));
    raw.is_closed();
    knocked.all_is_well(|p| p.rejected_layout, 1, "rings that stay open");
    drop(Client::connect(&knocked.world.path()));
}
