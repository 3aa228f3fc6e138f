//! Any bytes as a recording, and any text as a recording's frames with lengths and checksums that are right: an error, or samples of which a
//! model, its findings and every report can be made, without control characters. Never a panic.
//!
//! The first byte decides: odd, and what follows are frames' payloads, split at 0xff; even, and it is the file itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmtop::judge::Judge;
use shmtop::recording::{Recorder, Recording};
use shmtop::report;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    if first % 2 == 0 {
        return play(rest);
    }
    let mut file = Vec::new();
    Recorder::new(&mut file).expect("a vector takes all");
    for payload in rest.split(|b| *b == 0xff) {
        file.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        file.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        file.extend_from_slice(payload);
    }
    play(&file);
});

fn play(bytes: &[u8]) {
    let Ok(mut recording) = Recording::new(bytes, "x\u{1b}[31m") else {
        return;
    };
    assert!(!recording.name().contains('\u{1b}'));
    let mut judge = Judge::new();
    let mut last = None;
    while let Ok(Some(sample)) = recording.next_sample() {
        let model = judge.push(sample);
        let text = report::doctor_text(&model, "");
        assert!(
            !text.chars().any(|c| c.is_control() && c != '\n'),
            "{text:?}"
        );
        last = Some(model);
    }
    if let Some(model) = last {
        let _ = report::snapshot_json(&model).to_string();
        let _ = report::doctor_json(&model).to_string();
    }
}
