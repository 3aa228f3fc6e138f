//! Any bytes as a stream of frames, cut anywhere: frames within their limits or an error, never a panic.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run frame -- -max_len=65536 -max_total_time=120`
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| transport::fuzzing::frame(bytes));
