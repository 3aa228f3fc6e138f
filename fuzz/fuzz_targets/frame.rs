//! Any bytes as a stream of frames, cut anywhere: frames within their limits or an error, never a panic.
//!
//! `.ci/fuzz 120 frame`
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| transport::fuzzing::frame(bytes));
