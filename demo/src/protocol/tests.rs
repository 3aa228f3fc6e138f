//! What verification promises, tried on every mode and on awkward sizes.

use super::*;

const SIZES: [usize; 12] = [32, 33, 39, 40, 41, 48, 64, 287, 296, 300, 4096, 20_000];
const MODES: [Mode; 3] = [Mode::Ping, Mode::Bytes, Mode::Batch];

fn reply(script: &mut Script, sequence: u64) -> Vec<u8> {
    let mut out = Vec::new();
    answer(script.request(sequence), &mut out).expect("a sound request is answered");
    out
}

#[test]
fn every_sound_reply_is_accepted_and_as_long_as_its_request() {
    for mode in MODES {
        for size in SIZES {
            for thorough in [false, true] {
                let mut script = Script::new(mode, 0xC0FFEE, size, thorough);
                for sequence in [0, 1, 16, u64::MAX] {
                    let reply = reply(&mut script, sequence);
                    assert_eq!(reply.len(), size);
                    assert_eq!(script.check(sequence, &reply), Ok(()), "{mode:?} {size}");
                }
            }
        }
    }
}

#[test]
fn a_reply_is_still_checked_after_later_requests_were_made() {
    let mut script = Script::new(Mode::Bytes, 7, 20_000, true);
    let early = reply(&mut script, 1);
    for sequence in 2..20 {
        script.request(sequence);
    }
    assert_eq!(script.check(1, &early), Ok(()));
}

#[test]
fn any_flipped_bit_is_found_by_a_full_compare() {
    for mode in MODES {
        let mut script = Script::new(mode, 42, 700, true);
        let sound = reply(&mut script, 3);
        for at in 0..sound.len() {
            let mut bad = sound.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(script.check(3, &bad).is_err(), "{mode:?}: byte {at}");
        }
    }
}

#[test]
fn a_large_reply_is_compared_in_full_now_and_then() {
    let mut script = Script::new(Mode::Bytes, 42, 20_000, false);
    let found = (0..THOROUGH_EVERY)
        .filter(|&sequence| {
            let mut bad = reply(&mut script, sequence);
            bad[HEADER + 100] ^= 1;
            script.check(sequence, &bad).is_err()
        })
        .count();
    assert_eq!(found, 1);
}

#[test]
fn truncated_and_lengthened_replies_are_found() {
    for mode in MODES {
        let mut script = Script::new(mode, 42, 4096, false);
        let sound = reply(&mut script, 5);
        for cut in [0, 1, 31, 32, 40, 4095] {
            assert!(script.check(5, &sound[..cut]).is_err(), "{mode:?}: {cut}");
        }
        let mut long = sound.clone();
        long.push(0);
        assert!(script.check(5, &long).is_err());
        // One with a header of its own is no better.
        let other = reply(&mut Script::new(mode, 42, 4000, false), 5);
        assert!(matches!(script.check(5, &other), Err(Wrong::Length { .. })));
    }
}

#[test]
fn replies_of_other_requests_and_other_clients_are_found() {
    for mode in MODES {
        let mut mine = Script::new(mode, 1, 4096, false);
        let mut theirs = Script::new(mode, 2, 4096, false);
        let earlier = reply(&mut mine, 8);
        assert!(matches!(
            mine.check(9, &earlier),
            Err(Wrong::Sequence { .. })
        ));
        let swapped = reply(&mut theirs, 9);
        assert!(matches!(mine.check(9, &swapped), Err(Wrong::Client { .. })));
    }
}

#[test]
fn a_piece_left_over_from_an_earlier_reply_is_found() {
    for mode in MODES {
        let mut script = Script::new(mode, 42, 20_000, false);
        let old = reply(&mut script, 1);
        let new = reply(&mut script, 2);
        for from in (HEADER..20_000 - STRIDE).step_by(STRIDE) {
            let mut torn = new.clone();
            torn[from..from + STRIDE].copy_from_slice(&old[from..from + STRIDE]);
            assert!(script.check(2, &torn).is_err(), "{mode:?}: at {from}");
        }
    }
}

#[test]
fn a_request_sent_back_unanswered_is_no_reply() {
    for mode in MODES {
        let mut script = Script::new(mode, 42, 4096, false);
        let echo = script.request(1).to_vec();
        assert_eq!(script.check(1, &echo), Err(Wrong::Header));
    }
}

#[test]
fn the_exchange_refuses_damaged_requests_and_writes_nothing() {
    for mode in MODES {
        let mut script = Script::new(mode, 42, 4096, false);
        let sound = script.request(1).to_vec();
        let damage: [fn(&mut Vec<u8>); 4] = [
            |m| m.clear(),
            |m| m.truncate(100),
            |m| m[5] ^= 1,
            |m| *m.last_mut().expect("not empty") ^= 1,
        ];
        for hurt in damage {
            let mut bad = sound.clone();
            hurt(&mut bad);
            let mut out = Vec::new();
            assert!(matches!(
                answer(&bad, &mut out),
                Err(AnswerError::Request(_))
            ));
            assert!(out.is_empty());
        }
    }
}

#[test]
fn an_order_of_another_batch_is_refused() {
    let mut script = Script::new(Mode::Batch, 42, 32 + 4 * orders::BYTES, false);
    let old = script.request(1).to_vec();
    let mut bad = script.request(2).to_vec();
    bad[64..96].copy_from_slice(&old[64..96]);
    let refused = answer(&bad, &mut Vec::new());
    assert!(matches!(
        refused,
        Err(AnswerError::Request(Wrong::Order(1)))
    ));
}
