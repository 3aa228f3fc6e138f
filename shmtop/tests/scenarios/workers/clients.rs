//! Where the clients' threads may have run decides whether it was others who used a worker's CPU.

use super::*;

#[test]
fn the_worker_whose_cpu_others_use_is_found_beside_one_that_waits_about_as_long() {
    let of = |tid, ms| format!("thread {tid} waited {ms} ms/s for a core");
    for (cpus, expected) in [
        ([cpu(50, 10), cpu(60, 65)], of(OTHER, 60)),
        ([cpu(60, 10), cpu(20, 65)], of(OTHER, 20)),
        ([cpu(50, 65), cpu(60, 10)], of(POLLER, 50)),
        // Both: the first, and with its own number.
        ([cpu(50, 65), cpu(60, 65)], of(POLLER, 50)),
    ] {
        let says = says(&after(cpus, Clients::Elsewhere)).unwrap_or_default();
        assert!(says.contains(&expected), "{says:?}, not {expected:?}");
    }
    let well = after(WELL, Clients::Elsewhere);
    assert_eq!(says(&well), None);
}

#[test]
fn where_clients_that_move_about_may_have_used_it_nobody_knows_who_did() {
    let model = after(CROWDED, Clients::Floating);
    assert_eq!(says(&model), None);
    assert!(why(&model).is_some_and(|w| w.contains("threads move from CPU to CPU")));
    // Those that have moved nowhere have used no other CPU, whatever they may.
    let says_of = says(&after(CROWDED, Clients::Settled));
    assert!(says_of.is_some_and(|s| s.contains("waited 50 ms/s")));
    // Wherever they were, it was not others; and where they are is enough for all of it.
    for (cpus, clients) in [(WELL, Clients::Floating), (CROWDED, Clients::Gathered)] {
        let model = after(cpus, clients);
        assert_eq!((says(&model), why(&model)), (None, None));
    }
}
