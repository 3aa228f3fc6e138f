//! Both halves of the handshake over a faulty channel, then each against a peer that sends anything: never one
//! side on shared memory while the other serves the socket, every run ends, never a panic.
//!
//! `.ci/fuzz 120 handshake`
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| transport::fuzzing::handshake(bytes));
