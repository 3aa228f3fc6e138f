//! A process that is killed while it is watched is exit 6 and a death in the figures; one that closes its connections is neither.

use std::path::Path;

use nix::sys::signal::Signal;
use shmtop::recording::Recording;

use crate::actors::{Process, Stage, run, until};

/// A check that has looked once, and sleeps until it looks again.
fn check(stage: &Stage, period: &str, more: &[&str]) -> Process {
    let args = [&["check", "--for", period, "-d", "100ms"], more].concat();
    let check = Process::start(stage.shmtop(&args));
    check.has_looked_at(2);
    check
}

const DEATHS: [&str; 4] = ["--assert", "deaths==0", "--assert", "errors==0"];

#[test]
fn a_client_that_is_killed_while_its_server_is_watched_is_a_death_and_exit_6() {
    let stage = Stage::new();
    let exchange = stage.exchange();
    let trader = stage.trader("2 ping --think 1ms");
    let pid = exchange.pid().to_string();
    let check = check(&stage, "4s", &[&["-p", &pid], &DEATHS[..]].concat());
    trader.signal(Signal::SIGKILL);
    let (_, _, _) = trader.finish();
    let (code, out, err) = check.finish();
    assert_eq!(code, Some(6), "{out}{err}");
    assert!(out.contains("fails: deaths==0   (deaths = 2.000)"), "{out}");
    assert!(out.contains("holds: errors==0"), "{out}");
    assert!(
        err.contains("trader (pid ")
            && err.contains("ended while it was watched and left its connections open"),
        "{err}"
    );
}

#[test]
fn of_two_that_were_asked_for_one_that_is_killed_is_exit_6_and_the_rest_is_judged() {
    let stage = Stage::new();
    let exchange = stage.exchange();
    let trader = stage.trader("1 ping --think 1ms");
    let pids = [exchange.pid().to_string(), trader.pid().to_string()];
    let both = ["-p", &pids[0], "-p", &pids[1]];
    let check = check(&stage, "4s", &[&both, &DEATHS[..]].concat());
    trader.signal(Signal::SIGKILL);
    trader.finish();
    let (code, out, err) = check.finish();
    assert_eq!(code, Some(6), "{out}{err}");
    assert!(out.contains("fails: deaths==0   (deaths = 1.000)"), "{out}");
    assert!(
        err.contains("trader (pid ") && err.contains("ended while it was watched"),
        "{err}"
    );
}

#[test]
fn a_server_that_is_killed_while_its_client_is_watched_is_exit_6() {
    let stage = Stage::new();
    let exchange = stage.exchange();
    // One that gave up would be a process that ended while it was watched, and 6 as well.
    let mut trader = stage.trader("1 ping --think 1ms --reconnect 600s");
    let pid = trader.pid().to_string();
    let doctor =
        Process::start(stage.shmtop(&["doctor", "--for", "8s", "-d", "100ms", "-p", &pid]));
    doctor.has_looked_at(2);
    let check = check(&stage, "4s", &[&["-p", &pid], &DEATHS[..]].concat());
    exchange.signal(Signal::SIGKILL);
    exchange.finish();
    for watch in [check, doctor] {
        let (code, out, err) = watch.finish();
        assert_eq!(code, Some(6), "{out}{err}");
        assert!(err.contains("exchange (pid "), "{err}");
    }
    assert!(!trader.has_ended());
}

#[test]
fn a_client_that_is_killed_while_its_server_is_recorded_is_exit_6_and_the_recording_goes_on() {
    let stage = Stage::new();
    let exchange = stage.exchange();
    let trader = stage.trader("1 ping --think 1ms");
    let pid = exchange.pid().to_string();
    let path = stage.dir().join("death.rec");
    let args = ["record", path.to_str().unwrap(), "-d", "100ms", "-p", &pid];
    let mut record = Process::start(stage.shmtop(&args));
    record.has_looked_at(2);
    trader.signal(Signal::SIGKILL);
    trader.finish();
    let before = frames(&path).unwrap();
    until("samples after its end", || {
        (frames(&path)? > before + 3).then_some(())
    });
    assert!(!record.has_ended());
    record.signal(Signal::SIGINT);
    let (code, out, err) = record.finish();
    assert_eq!(code, Some(6), "{out}{err}");
    assert!(
        err.contains("trader (pid ") && err.contains("left its connections open"),
        "{err}"
    );
}

/// How many samples a recording has, while it grows.
fn frames(path: &Path) -> Option<u64> {
    let mut recording = Recording::open(path).ok()?;
    while recording.next_sample().unwrap().is_some() {}
    Some(recording.frames())
}

#[test]
fn a_server_that_is_killed_and_started_again_has_died_all_the_same() {
    let stage = Stage::new();
    let exchange = stage.exchange();
    let _trader = stage.trader("1 ping --think 1ms");
    let check = check(&stage, "4s", &[&["--name", "e"], &DEATHS[..]].concat());
    exchange.signal(Signal::SIGKILL);
    exchange.finish();
    let _again = stage.exchange();
    let (code, out, err) = check.finish();
    assert_eq!(code, Some(6), "{out}{err}");
    assert!(err.contains("exchange (pid "), "{err}");
}

#[test]
fn a_client_that_closes_its_connections_and_ends_has_not_died() {
    let stage = Stage::new();
    let exchange = stage.exchange();
    // It must be there at the first look and gone before the last: seconds to spare on both sides.
    let mut trader = stage.actor(&[], "trader 2 ping --think 1ms --duration 8s --name trader");
    trader.line("SHM UPGRADE SUCCESS");
    let pid = exchange.pid().to_string();
    let check = check(&stage, "16s", &[&["-p", &pid], &DEATHS[..]].concat());
    let (code, out, err) = trader.finish();
    assert_eq!(code, Some(0), "{out}{err}");
    let (code, out, err) = check.finish();
    assert_eq!(code, Some(0), "{out}{err}");
    let (code, out, err) = run(stage.shmtop(&["ps", "-p", &pid]));
    assert_eq!(code, Some(0), "{out}{err}");
}

#[test]
fn a_recording_of_a_process_ends_with_it_and_is_told_by_what_it_holds() {
    let stage = Stage::new();
    let exchange = stage.exchange();
    let pid = exchange.pid().to_string();
    let path = stage.dir().join("end.rec");
    let file = path.to_str().unwrap();
    let record = Process::start(stage.shmtop(&["record", file, "-d", "50ms", "-p", &pid]));
    until("samples", || (frames(&path)? > 3).then_some(()));
    exchange.signal(Signal::SIGKILL);
    exchange.finish();
    let (code, out, err) = record.finish();
    assert_eq!(code, Some(6), "{out}{err}");
    assert!(out.contains(" samples in "), "{out}");
    let (code, out, err) = run(stage.shmtop(&["replay", file, "--at", "0s"]));
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(
        out.contains("s more to answer everything: choose a later --at"),
        "{out}"
    );
    let mut end = Recording::open(&path).unwrap();
    let mut times = Vec::new();
    while let Some(sample) = end.next_sample().unwrap() {
        times.push(sample.time.monotonic_ns);
    }
    let length_us = (times[times.len() - 1] - times[0]) / 1000;
    let (code, _, err) = run(stage.shmtop(&["replay", file, "--at", &format!("{length_us}us")]));
    assert_eq!(code, Some(3), "{err}");
    assert!(
        err.contains("there is no endpoint in it at that moment"),
        "{err}"
    );
}
