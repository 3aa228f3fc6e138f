use super::*;

/// Found after so many looks; remembers what was done to it.
struct After {
    looks: u64,
    parks: u64,
    tends: u64,
    gone_after_tends: u64,
}

impl Look for After {
    type Found = &'static str;
    fn look(&mut self) -> Option<&'static str> {
        self.looks = self.looks.saturating_sub(1);
        (self.looks == 0).then_some("found")
    }
    fn park(&mut self, limit: Duration) {
        self.parks += 1;
        std::thread::park_timeout(limit);
    }
    fn tend(&mut self) -> Option<&'static str> {
        self.tends += 1;
        (self.tends >= self.gone_after_tends).then_some("gone")
    }
}

fn after(looks: u64) -> After {
    After {
        looks,
        parks: 0,
        tends: 0,
        gone_after_tends: u64::MAX,
    }
}

#[test]
fn a_quick_answer_is_met_spinning_and_costs_no_system_call() {
    let mut target = after(5);
    let (found, waited) = Waiter::new(WaitPolicy::Spin).wait(&mut target, Duration::from_secs(60));
    assert_eq!(
        (found, waited.spins, waited.rung),
        (Some("found"), 5, Rung::Spin)
    );
    assert_eq!((waited.yields, waited.sleeps, target.parks), (0, 0, 0));
}

#[test]
fn one_who_was_woken_gets_the_cpu_before_anything_is_spun() {
    let begun = std::time::Instant::now();
    let (mut waiter, (found, w)) = loop {
        let mut waiter = Waiter::new(WaitPolicy::Adaptive);
        let woken = std::time::Instant::now();
        waiter.has_woken();
        let waited = waiter.wait(&mut after(1), Duration::from_secs(60));
        // Where others had the CPU between the two, the wake was forgotten.
        let soon = woken.elapsed() < Duration::from_nanos(WOKEN_FOR_NS);
        if soon || begun.elapsed().as_secs() > 20 {
            break (waiter, waited);
        }
    };
    assert_eq!((found, w.spins, w.yields), (Some("found"), 0, 1));
    assert_eq!((w.rung, waiter.crowded()), (Rung::Yield, false));
    // Once.
    let (_, w) = waiter.wait(&mut after(5), Duration::from_secs(60));
    assert_eq!((w.spins, w.yields), (5, 0));
}

#[test]
fn a_wait_long_after_somebody_was_woken_yields_to_nobody() {
    let mut waiter = Waiter::new(WaitPolicy::Adaptive);
    waiter.has_woken();
    // Answered at once, and nothing was waited for since.
    waiter.woke = Some(Ticks::from_count(0));
    let (_, w) = waiter.wait(&mut after(5), Duration::from_secs(60));
    assert_eq!((w.spins, w.yields), (5, 0));
}

#[test]
fn a_wait_in_which_the_counter_begins_anew_ends_and_looks_whether_there_is_somebody() {
    crate::clock::init();
    let mut target = after(u64::MAX);
    let mut progress = Progress::begin(Waited::default(), Duration::from_secs(60), None);
    assert!(!progress.over() && progress.tend(&mut target).is_none() && target.tends == 0);
    // As if it had begun at a later time than now, by ticks of at least a tenth of a nanosecond.
    progress.start = Ticks::from_count(progress.now.count() + (1 << 40));
    assert!(progress.over());
    assert!(progress.tend(&mut target).is_none());
    assert_eq!(target.tends, 1);
}

#[test]
fn who_rests_parks_at_once_and_only_once_and_still_looks_whether_there_is_somebody() {
    let waiter = Waiter::new(WaitPolicy::Adaptive);
    let mut target = after(1);
    let (found, w) = waiter.rest(&mut target, Duration::ZERO);
    assert_eq!((found, target.parks), (Some("found"), 1));
    assert_eq!((w.spins, w.yields, w.sleeps), (0, 0, 1));
    assert_eq!(w.rung, Rung::Sleep);
    let mut target = after(2);
    let begun = std::time::Instant::now();
    assert_eq!(waiter.rest(&mut target, Duration::ZERO).0, None);
    // Where others had the CPU meanwhile, it was time to.
    let tends = u64::from(begun.elapsed() >= Duration::from_nanos(progress::TEND_AFTER_NS));
    assert!(target.parks == 1 && target.tends <= tends);
    let mut target = after(u64::MAX);
    let limit = Duration::from_nanos(progress::TEND_AFTER_NS + 1_000_000);
    waiter.rest(&mut target, limit);
    assert_eq!(target.tends, 1);
}

#[test]
fn a_client_in_a_crowd_spins_for_a_few_answers_and_then_gives_the_cpu_away() {
    let mut waiter = Waiter::of_client(WaitPolicy::Adaptive);
    waiter.crowd = Crowd::of_many();
    let mut waits = || waiter.wait(&mut after(5), Duration::from_secs(60)).1;
    let yields: Vec<_> = (0..6).map(|_| waits().yields > 0).collect();
    let turn = [false, false, true];
    assert_eq!(yields, [turn, turn].concat());
    // A poller, or who waits for many: never.
    let mut waiter = Waiter::new(WaitPolicy::Adaptive);
    waiter.crowd = Crowd::of_many();
    let (_, w) = waiter.wait(&mut after(1), Duration::from_secs(60));
    assert_eq!((w.spins, w.yields), (0, 1));
}

#[test]
fn only_who_waits_adaptively_leaves_the_cpu_that_a_server_wants() {
    struct Asked(After, usize);
    impl Look for Asked {
        type Found = &'static str;
        fn look(&mut self) -> Option<&'static str> {
            self.0.look()
        }
        fn park(&mut self, limit: Duration) {
            self.0.park(limit);
        }
        fn tend(&mut self) -> Option<&'static str> {
            self.0.tend()
        }
        fn is_to_leave(&self) -> Option<usize> {
            Some(self.1)
        }
    }
    for (policy, moves) in [
        (WaitPolicy::Adaptive, true),
        (WaitPolicy::Park, false),
        (WaitPolicy::DOCUMENT, false),
    ] {
        let waits = move || {
            let cpu = super::super::migration::keep_to_one_cpu();
            let mut waiter = Waiter::new(policy);
            waiter.crowd = Crowd::of_many_and_busy();
            waiter.wait(&mut Asked(after(1), cpu), Duration::from_secs(60));
            waiter.crowd.has_moved()
        };
        let moved = std::thread::spawn(waits).join().expect("no panic");
        assert_eq!(moved, moves, "{policy:?}");
    }
}

#[test]
fn yields_that_take_long_outlast_neither_a_peer_nor_the_deadline() {
    /// As in a crowd: between two looks others have the CPU for a while.
    struct Crowded(After);
    impl Look for Crowded {
        type Found = &'static str;
        fn look(&mut self) -> Option<&'static str> {
            std::thread::sleep(Duration::from_millis(1));
            self.0.look()
        }
        fn park(&mut self, limit: Duration) {
            self.0.park(limit);
        }
        fn tend(&mut self) -> Option<&'static str> {
            self.0.tend()
        }
    }
    let policy = WaitPolicy::Ladder {
        spins: 0,
        yields: 100_000,
        sleep: Duration::from_micros(1),
    };
    let mut target = Crowded(After {
        gone_after_tends: 1,
        ..after(u64::MAX)
    });
    let (found, waited) = Waiter::new(policy).wait(&mut target, Duration::from_secs(60));
    assert_eq!((found, waited.sleeps), (Some("gone"), 0));
    let mut target = Crowded(after(u64::MAX));
    let (found, waited) = Waiter::new(policy).wait(&mut target, Duration::from_millis(20));
    assert_eq!(found, None);
    assert!(waited.yields < 1000, "{waited:?}");
}

#[test]
fn a_long_sleep_of_a_ladder_does_not_outlast_the_deadline() {
    let policy = WaitPolicy::Ladder {
        spins: 1,
        yields: 1,
        sleep: Duration::from_secs(86_400),
    };
    // Without the cut, the test never ends.
    let (found, waited) = Waiter::new(policy).wait(&mut after(u64::MAX), Duration::from_millis(1));
    assert_eq!((found, waited.sleeps), (None, 1));
}

#[test]
fn the_documents_ladder_is_followed_to_the_letter() {
    let mut target = after(100 + 900 + 1 + 100 + 7);
    let (found, waited) =
        Waiter::new(WaitPolicy::DOCUMENT).wait(&mut target, Duration::from_secs(60));
    assert_eq!(found, Some("found"));
    assert_eq!((waited.spins, waited.yields, waited.sleeps), (200, 907, 1));
    assert_eq!(target.parks, 0, "the document sleeps, it does not park");
}

#[test]
fn adaptive_ends_parked_when_nothing_comes_and_never_sleeps_blindly() {
    let mut target = after(u64::MAX);
    let begun = std::time::Instant::now();
    let limit = Duration::from_millis(20);
    let (found, waited) = loop {
        let (found, waited) = Waiter::new(WaitPolicy::Adaptive).wait(&mut target, limit);
        // The yields before may take longer than that where others want the CPU.
        if target.parks > 0 || begun.elapsed().as_secs() > 20 {
            break (found, waited);
        }
    };
    assert_eq!((found, waited.rung), (None, Rung::Sleep));
    assert_eq!(waited.sleeps, target.parks);
}

#[test]
fn every_policy_notices_that_there_is_nobody_left_to_wait_for() {
    for policy in [
        WaitPolicy::Adaptive,
        WaitPolicy::Spin,
        WaitPolicy::Park,
        WaitPolicy::DOCUMENT,
    ] {
        let mut target = After {
            looks: u64::MAX,
            parks: 0,
            tends: 0,
            gone_after_tends: 1,
        };
        let (found, _) = Waiter::new(policy).wait(&mut target, Duration::from_secs(600));
        assert_eq!(found, Some("gone"), "{policy:?}");
    }
}

#[test]
fn waits_of_any_limit_notice_together_that_there_is_nobody_left_to_wait_for() {
    for policy in [
        WaitPolicy::Adaptive,
        WaitPolicy::Spin,
        WaitPolicy::Park,
        WaitPolicy::DOCUMENT,
    ] {
        for limit in [Duration::ZERO, Duration::from_millis(1)] {
            let mut target = After {
                gone_after_tends: 3,
                ..after(u64::MAX)
            };
            let mut waiter = Waiter::new(policy);
            let begun = std::time::Instant::now();
            let mut waits = 0;
            while waiter.wait(&mut target, limit).0.is_none() {
                waits += 1;
                // Each lasts as long as it may at least.
                let more = begun.elapsed().as_secs() < 20 && (limit.is_zero() || waits < 170);
                assert!(more, "{policy:?} {limit:?}");
            }
            // And not in each of them.
            let least = 2 * Duration::from_nanos(progress::TEND_AFTER_NS);
            assert!(begun.elapsed() > least, "{policy:?} {limit:?}");
        }
    }
}

#[test]
fn one_of_many_that_answers_does_not_hide_that_the_waits_for_the_others_are_in_vain() {
    let mut waiter = Waiter::new(WaitPolicy::Adaptive);
    let mut tends = 0;
    // A millisecond each at least.
    for _ in 0..60 {
        for looks in [u64::MAX, 100] {
            let mut target = after(looks);
            waiter.wait(&mut target, Duration::from_millis(1));
            tends += target.tends;
        }
    }
    assert!(tends > 0);
}

#[test]
fn a_limit_that_is_over_before_the_spin_budget_is_no_longer_than_that() {
    let mut waiter = Waiter::new(WaitPolicy::Adaptive);
    let (found, w) = waiter.wait(&mut after(u64::MAX), Duration::from_nanos(1));
    assert_eq!((found, w.yields, w.sleeps), (None, 0, 0));
}

#[test]
fn who_has_no_time_at_all_neither_spins_nor_gives_the_cpu_away() {
    for policy in [
        WaitPolicy::Adaptive,
        WaitPolicy::Spin,
        WaitPolicy::Park,
        WaitPolicy::DOCUMENT,
    ] {
        let mut target = after(u64::MAX);
        let (found, waited) = Waiter::new(policy).wait(&mut target, Duration::ZERO);
        assert_eq!((found, target.parks), (None, 0), "{policy:?}");
        assert_eq!(waited, Waited::default(), "{policy:?}");
    }
}

#[test]
fn the_time_of_a_wait_is_booked_to_its_rungs() {
    let mut target = after(u64::MAX);
    let begun = std::time::Instant::now();
    let (_, w) = Waiter::new(WaitPolicy::Adaptive).wait(&mut target, Duration::from_millis(30));
    let wall = begun.elapsed().as_nanos() as f64;
    let booked = (w.spin_ns + w.yield_ns + w.sleep_ns) as f64;
    assert!((booked / wall - 1.0).abs() < 0.2, "{booked} of {wall}");
}
