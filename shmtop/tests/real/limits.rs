//! What a server says no to can be seen, and a viewer that is stopped is nobody's concern.

use std::io::Read;
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::actors::{Process, Stage, WATCHDOG, run, until};

fn endpoint(stage: &Stage, command: &[&str], pid: u32) -> Value {
    let pid_text = pid.to_string();
    let (_, out, err) = run(stage.shmtop(&[command, &["-f", "json", "-p", &pid_text]].concat()));
    let document: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    let all = document["endpoints"].as_array().unwrap();
    let found = all.iter().find(|e| e["pid"] == pid);
    found.unwrap_or_else(|| panic!("{document}")).clone()
}

#[test]
fn refusals_are_counted_by_kind_in_snapshot_ps_and_doctor() {
    let stage = Stage::new();
    let mut exchange = stage.actor(&[], "exchange --name exchange --max-clients 2");
    exchange.line("exchange: listening on ");
    let (pid, pid_text) = (exchange.pid(), exchange.pid().to_string());
    let _inside = [
        stage.trader("1 ping --think 1ms"),
        stage.trader("1 ping --think 1ms"),
    ];
    let doctor = &["doctor", "--for", "4s", "-p", &pid_text];
    let mut doctor = Process::start(stage.shmtop(doctor));
    let mut refused = 0;
    until("doctor to end", || {
        let mut stream = UnixStream::connect(stage.dir().join("x.sock")).unwrap();
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        let mut said = Vec::new();
        // Told why, then hung up on; a reset says no as well.
        let _ = stream.read_to_end(&mut said);
        refused += 1;
        doctor.has_ended().then_some(())
    });
    let (code, out, err) = doctor.finish();
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(
        out.contains("handshake-rejected") && out.contains("× full"),
        "{out}{err}"
    );
    assert!(out.contains("Config::max_clients above 2"), "{out}");

    let admission = endpoint(&stage, &["snapshot", "-d", "100ms"], pid)["admission"].take();
    assert_eq!(admission["rejected"], refused, "{admission}");
    assert_eq!(admission["rejected_by"]["full"], refused, "{admission}");
    assert_eq!(endpoint(&stage, &["ps"], pid)["rejected"], refused);
    let (_, table, err) = run(stage.shmtop(&["ps", "-p", &pid_text]));
    let [head, line] = [0, 1].map(|n| table.lines().nth(n).unwrap_or_else(|| panic!("{err}")));
    let column = |word: &str| head.split_whitespace().position(|w| w == word).unwrap();
    let cell = |word: &str| line.split_whitespace().nth(column(word)).unwrap();
    assert_eq!(cell("CLIENTS"), "2/2", "{table}");
    assert_eq!(cell("REFUSED"), refused.to_string(), "{table}");
}

/// Requests that the server's clients have had answered.
fn messages(stage: &Stage, pid: u32) -> u64 {
    let server = endpoint(stage, &["snapshot", "-d", "10ms"], pid);
    let clients = server["clients"].as_array().unwrap();
    let of = |c: &Value| c["rtt_since_start_ns"]["count"].as_u64();
    clients.iter().filter_map(of).sum()
}

#[test]
fn a_stopped_shmtop_holds_up_neither_traffic_nor_newcomers() {
    let stage = Stage::new();
    let exchange = stage.exchange();
    let pid = exchange.pid();
    let _trader = stage.trader("1 ping");
    let file = stage.dir().join("watched.rec");
    let (file_text, pid_text) = (file.to_str().unwrap(), pid.to_string());
    // Stopped at different moments: in the middle of a look, mostly, with a look every millisecond.
    let mut stopped = Vec::new();
    for round in 0..6 {
        let file = format!("{file_text}{round}");
        let args = ["record", &file, "-d", "1ms", "-p", &pid_text];
        let viewer = Process::start(stage.shmtop(&args));
        until("samples", || {
            std::fs::metadata(&file).ok().filter(|m| m.len() > 20_000)
        });
        viewer.signal(Signal::SIGSTOP);
        until("it to be stopped", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", viewer.pid())).ok()?;
            stat.rsplit_once(") ")?.1.starts_with('T').then_some(())
        });
        stopped.push(viewer);
    }
    let before = messages(&stage, pid);
    until("traffic to go on", || {
        (messages(&stage, pid) > before + 1000).then_some(())
    });
    // On shared memory, as ever.
    let _newcomer = stage.trader("1 ping --think 1ms");
    assert_eq!(endpoint(&stage, &["ps"], pid)["shm"], 2);
    drop(stopped);
    let before = messages(&stage, pid);
    until("traffic to go on", || {
        (messages(&stage, pid) > before + 1000).then_some(())
    });
}
