//! Any bytes as a stats page: an error or a snapshot that a viewer can show, never a panic.
//!
//! `.ci/fuzz 120 stats_page`. The seeds in `corpus/stats_page` are written and replayed by `transport/tests/stats_hostile/main.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use transport::stats::{Histogram, reader::parse, schema};

fuzz_target!(|bytes: &[u8]| {
    let Ok(seen) = parse(bytes) else { return };
    assert!(seen.slots.len() <= schema::MAX_SLOTS);
    let mut all = Histogram::default();
    let texts = [&seen.name, &seen.socket_path, &seen.library].into_iter();
    let names = seen.slots.iter().flat_map(|slot| {
        for histogram in [&slot.rtt, &slot.handler, &slot.park] {
            let _ = (histogram.quantile(0.99), histogram.mean());
            assert_eq!(histogram.since(histogram).unwrap().count(), 0);
            all.merge(histogram);
        }
        slot.unknown
            .iter()
            .map(|(name, _)| name)
            .chain([&slot.info.peer_name])
    });
    for text in texts.chain(names).chain(&seen.missing) {
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
});
