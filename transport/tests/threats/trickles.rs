//! Threat 14: those who take their time over a handshake. They are cut off at the deadline of their stage, and keep nobody else out.

use std::time::{Duration, Instant};

use transport::stats::ProcessCounters;

use crate::knocked::Knocked;
use crate::rogue::{MESSAGE, Raw, UPGRADE, WELCOME, hello, message};
use crate::role::WATCHDOG;
use crate::watch::within;
use crate::world::{Ended, mix};

#[test]
fn two_hundred_that_trickle_are_cut_off_and_hold_nobody_up() {
    let mut knocked = Knocked::with("1000");
    let begun = Instant::now();
    let mut slow: Vec<Option<Raw>> = (0..200).map(|_| Some(knocked.knock())).collect();
    let greeting = hello(1 << 16, 20_000);
    let mut said = 0;
    // A byte a round: far more rounds than the deadline leaves time for.
    while slow.iter().any(Option::is_some) && said < MESSAGE - 1 {
        for raw in slow.iter_mut().filter(|raw| raw.is_some()) {
            let one = raw.as_mut().expect("there");
            if !one.say(&greeting[said..=said]) || one.is_closed_within(Duration::ZERO) {
                *raw = None;
            }
        }
        said += 1;
        assert!(matches!(mix(&mut knocked.bystander, 1, 0), Ended::Done));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(
        slow.iter().all(Option::is_none),
        "still there after {said} bytes and {:?}",
        begun.elapsed()
    );
    let refused = |p: &ProcessCounters| p.rejected_timeout + p.rejected_pending;
    knocked.all_is_well(refused, 200, "trickles");
    // Of one user at most 64 are heard at a time; the others are sent away at once.
    let counted = knocked.counted;
    assert!(
        counted.rejected_timeout >= 64 && counted.rejected_pending >= 64,
        "{counted:?}"
    );
    println!(
        "{} timed out, {} sent away",
        counted.rejected_timeout, counted.rejected_pending
    );
}

#[test]
fn those_who_trickle_after_their_welcome_do_not_keep_others_out() {
    let knocked = Knocked::with("200");
    let mut slow: Vec<Raw> = (0..64)
        .map(|_| {
            let mut raw = knocked.knock();
            raw.say(&hello(1 << 16, 20_000));
            raw.expect(WELCOME);
            raw
        })
        .collect();
    // Each wants shared memory and says so, a byte at a time.
    let request = message(UPGRADE, 1, &[]);
    let mut said = 0;
    within(WATCHDOG, "a newcomer is let in", || {
        slow.iter_mut()
            .for_each(|raw| assert!(raw.say(&request[said..=said])));
        said += 1;
        assert!(said < MESSAGE, "the deadline never came");
        match transport::Synapse::connect(knocked.world.path(), &knocked.world.config()) {
            Ok(_) => Ok(()),
            Err(e) => {
                std::thread::sleep(Duration::from_millis(30));
                Err(e)
            }
        }
    });
}

#[test]
fn one_who_says_nothing_is_refused_in_time() {
    let mut knocked = Knocked::new();
    let raw = knocked.knock();
    knocked.refused(raw, 5, "silence");
    let mut raw = knocked.knock();
    raw.say(&hello(1 << 16, 20_000)[..200]);
    knocked.refused(raw, 5, "most of a HELLO");
    knocked.all_is_well(|p| p.rejected_timeout, 2, "silence");
}
