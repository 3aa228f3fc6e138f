//! A short soak: the command of `docs/testing.md` finds nothing, and would say so if it did.

mod common;

use common::Place;

#[test]
fn a_short_soak_loses_duplicates_corrupts_and_leaks_nothing() {
    let place = Place::new();
    let soak = place.run("soak", "--for 6s --pause 150ms --clients 3 --json");
    let found = soak.json();
    for bad in [
        "lost",
        "duplicated",
        "corrupted",
        "leaked_fds",
        "leaked_rings",
        "leaked_bytes",
        "crashes",
    ] {
        assert_eq!(found[bad], 0, "{bad}: {found}");
    }
    let number = |name: &str| found[name].as_u64().expect("a number");
    assert!(
        number("messages") > 1000 && number("sessions") > 3,
        "{found}"
    );
    let faults = found["faults"].as_object().expect("by name");
    assert!(
        faults
            .values()
            .filter_map(serde_json::Value::as_u64)
            .sum::<u64>()
            >= 5,
        "{found}"
    );
    assert_eq!(soak.code(), 0);
}
