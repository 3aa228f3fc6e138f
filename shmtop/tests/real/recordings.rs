//! Recordings of real runs: what was named live is named again at the same time, the difference is named, and no crash costs more than
//! the frame it interrupts.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use serde_json::Value;
use shmtop::recording::Recording;

use crate::actors::{Process, Stage, run, until};

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_nanos() as u64
}

/// Time that a recording covers so far, in ns, and its samples; as long as nobody damages it, it can be read while it grows.
fn covers(path: &Path) -> Option<(u64, u64)> {
    let mut recording = Recording::open(path).ok()?;
    let mut times = Vec::new();
    while let Some(sample) = recording.next_sample().unwrap() {
        times.push(sample.time.monotonic_ns);
    }
    Some((times.last()? - times.first()?, recording.frames()))
}

fn json(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|e| panic!("{e}: {out}"))
}

/// Findings of this id in a doctor's document.
fn of<'d>(document: &'d Value, id: &str) -> Vec<&'d Value> {
    let hints = document["hints"].as_array().unwrap();
    hints.iter().filter(|h| h["id"] == id).collect()
}

#[test]
fn a_fault_is_named_on_replay_when_it_was_named_live_and_the_diff_names_it_too() {
    let stage = Stage::new();
    let exchange = stage.exchange();
    let trader = stage.trader("1 ping --think 1ms");
    let pid = exchange.pid().to_string();
    let file = |name: &str| stage.dir().join(name).to_str().unwrap().to_owned();
    let (before, after) = (file("before.rec"), file("after.rec"));
    let shmtop = |args: &[&str]| run(stage.shmtop(&[args, &["-p", &pid]].concat()));
    let (code, _, err) = shmtop(&["record", &before, "-d", "250ms", "--for", "3s"]);
    assert_eq!(code, Some(0), "{err}");

    let mut record = Process::start(stage.shmtop(&["record", &after, "-d", "250ms", "-p", &pid]));
    until("three quiet seconds on record", || {
        covers(Path::new(&after)).filter(|(ns, _)| *ns > 3_000_000_000)
    });
    // Its time runs from here, so that the fault falls into it however long the recorder took to start.
    let live = Process::start(stage.shmtop(&["doctor", "-f", "json", "--for", "6s", "-p", &pid]));
    live.has_looked_at(2);
    let stopped_at = now_ns();
    trader.signal(Signal::SIGSTOP);
    let (_, out, err) = live.finish();
    let live = json(&out);
    let named = of(&live, "peer-stopped");
    assert_eq!(named.len(), 1, "{out}{err}");
    let live_since = named[0]["since_realtime_ns"].as_u64().unwrap();
    record.signal(Signal::SIGINT);
    assert!(record.line("after.rec: ").contains(" samples in "));
    let (code, ..) = record.finish();
    assert_eq!(
        code,
        Some(0),
        "Ctrl-C ends a recording as it is meant to end"
    );

    let (code, out, err) = shmtop(&["replay", &after, "-f", "json"]);
    assert_eq!(code, Some(1), "there are findings: {err}");
    let told = json(&out);
    let events = told["events"].as_array().unwrap();
    let fires: Vec<&Value> = events
        .iter()
        .filter(|e| e["event"] == "fires" && e["hint"]["id"] == "peer-stopped")
        .collect();
    assert_eq!(fires.len(), 1, "{out}");
    let fired = fires[0]["at_realtime_ns"].as_u64().unwrap();
    assert!(fired > stopped_at, "not before it happened");
    let since = fires[0]["hint"]["since_realtime_ns"].as_u64().unwrap();
    // The two looked at different moments, each with windows of a second.
    assert!(
        since.abs_diff(live_since) < 2_000_000_000,
        "{since} {live_since}"
    );

    let at_ms = fires[0]["at_ns"].as_u64().unwrap() / 1_000_000;
    let at = |ms: u64| {
        let (_, out, err) = shmtop(&["replay", &after, "--at", &format!("{ms}ms"), "-f", "json"]);
        assert!(!out.is_empty(), "{err}");
        json(&out)
    };
    assert!(of(&at(2_500), "peer-stopped").is_empty());
    let then = at(at_ms);
    assert_eq!(then["hints"][0]["id"], "peer-stopped", "{then}");
    let (code, _, err) = shmtop(&["replay", &after, "--at", "1h"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("it is only"), "{err}");

    let (code, out, err) = shmtop(&["diff", &before, &after]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("only in after.rec: crit peer-stopped: "),
        "{out}"
    );
    let (_, out, _) = shmtop(&["diff", &after, &after]);
    assert!(!out.contains("only in"), "{out}");
}

#[test]
fn a_recorder_that_is_killed_anywhere_leaves_every_whole_frame() {
    let stage = Stage::new();
    let exchange = stage.exchange();
    let pid = exchange.pid().to_string();
    for round in 0..8u64 {
        let path = stage.dir().join(format!("{round}.rec"));
        let file = path.to_str().unwrap();
        let record = Process::start(stage.shmtop(&["record", file, "-d", "1ms", "-p", &pid]));
        let frames = until("frames", || {
            covers(&path).map(|(_, n)| n).filter(|n| *n > 3 + round)
        });
        record.signal(Signal::SIGKILL);
        record.finish();
        let (_, out, err) = run(stage.shmtop(&["replay", file, "-p", &pid]));
        let after = covers(&path).unwrap().1;
        assert!(after >= frames);
        assert!(
            out.contains(&format!("{round}.rec: {after} samples")),
            "{out}{err}"
        );
    }
}

#[test]
fn a_damaged_recording_is_one_sentence_and_exit_2() {
    let stage = Stage::new();
    let exchange = stage.exchange();
    let pid = exchange.pid().to_string();
    let path = stage.dir().join("whole.rec");
    let file = path.to_str().unwrap();
    let (code, _, err) = run(stage.shmtop(&["record", file, "-n", "3", "-d", "10ms", "-p", &pid]));
    assert_eq!(code, Some(0), "{err}");
    let whole = std::fs::read(&path).unwrap();
    // What was read before the damage is told, too.
    let mut bytes = whole.clone();
    *bytes.last_mut().unwrap() ^= 1;
    let last = stage.dir().join("last.rec");
    std::fs::write(&last, bytes).unwrap();
    let (code, out, err) = run(stage.shmtop(&["replay", last.to_str().unwrap(), "-f", "json"]));
    assert_eq!((code, err.lines().count()), (Some(2), 1), "{err}");
    let told = json(&out);
    assert_eq!(told["samples"], 2);
    assert!(
        told["damaged"].as_str().unwrap().contains("frame 3"),
        "{out}"
    );
    let broken = stage.dir().join("broken.rec");
    let broken = broken.to_str().unwrap();
    for at in [0, 9, 17, 21, 30, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x1b;
        std::fs::write(broken, bytes).unwrap();
        for args in [&["replay", broken][..], &["diff", file, broken]] {
            let (code, _, err) = run(stage.shmtop(args));
            let cut = err.is_empty() && (16..24).contains(&at);
            assert!(code == Some(2) || cut, "byte {at}: {code:?} {err}");
            assert!(cut || err.lines().count() == 1, "byte {at}: {err}");
        }
    }
}
