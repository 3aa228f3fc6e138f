//! A ring whose other side writes anything anywhere: records are checked, copies bounded, calls end.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    transport::fuzzing::ring_consumer(bytes);
});
