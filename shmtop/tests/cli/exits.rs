//! Exit codes that tell a script what it watched has come to.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::channel;

use crate::{WATCHDOG, pair, run, started};

#[test]
fn nothing_to_look_at_is_exit_3() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["ps", "--name", "no-such-endpoint"][..],
        &["snapshot", "--name", "no-such-endpoint", "-d", "1ms"],
        &["doctor", "--name", "no-such-endpoint"],
        &["check", "--name", "no-such-endpoint", "--assert", "rps>0"],
        &["--name", "no-such-endpoint", "-d", "1ms"],
    ] {
        let (code, _, err) = run(dir.path(), args);
        assert_eq!(code, 3, "{args:?}: {err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

#[test]
fn a_process_that_was_asked_for_in_vain_is_not_passed_over_beside_one_that_is_there() {
    let p = pair();
    let pid = std::process::id().to_string();
    // Above the kernel's largest. By name as well: of this process are all servers of tests that run beside this one, and end.
    let both = ["-p", &pid, "-p", "1073741824", "--name", &p.name];
    for args in [
        &["ps"][..],
        &["snapshot", "-d", "1ms"],
        &["doctor", "--for", "1ms"],
        &["check", "--for", "1ms", "--assert", "clients>0"],
        &["record", "-n", "1", "x.rec"],
    ] {
        let file = p.dir.path().join("x.rec");
        let args: Vec<&str> = args
            .iter()
            .map(|a| {
                if *a == "x.rec" {
                    file.to_str().unwrap()
                } else {
                    a
                }
            })
            .collect();
        let (code, out, err) = run(p.dir.path(), &[&args[..], &both].concat());
        assert_eq!(code, 3, "{args:?}: {err}");
        // What is there is told all the same, but no verdict on half of what was asked about.
        assert_eq!(out.is_empty(), args[0] == "check", "{args:?}: {out}");
        assert!(err.contains("there is no process 1073741824"), "{err}");
    }
}

#[test]
fn a_recording_without_what_was_asked_for_is_exit_3_and_says_nothing_of_this_machine() {
    let p = pair();
    let file = p.dir.path().join("x.rec");
    let file = file.to_str().unwrap();
    let record = ["record", file, "-n", "2", "-d", "10ms", "--name", &p.name];
    let (code, _, err) = run(p.dir.path(), &record);
    assert_eq!(code, 0, "{err}");
    for args in [
        &["replay", file][..],
        &["replay", file, "--at", "0s"],
        &["diff", file, file],
    ] {
        let (code, _, err) = run(p.dir.path(), &[args, &["--name", "no-such"]].concat());
        assert_eq!(code, 3, "{args:?}: {err}");
        assert!(err.contains("x.rec: no endpoint in it matches"), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

#[test]
fn an_assertion_decides_the_exit_code() {
    let p = pair();
    let check = |expr: &str| {
        run(
            p.dir.path(),
            &[
                "check", "--name", &p.name, "--for", "100ms", "--assert", expr,
            ],
        )
    };
    let (code, out, _) = check("shm_clients >= 1 && socket_clients == 0 && stalls == 0");
    assert_eq!(code, 0, "{out}");
    assert!(out.starts_with("holds: "), "{out}");
    // Not how many: the tests share this process, and its page as a client has the connections of all that run.
    let (code, out, _) = check("shm_clients < 1");
    assert_eq!(code, 1);
    assert!(
        out.contains("fails: ") && out.contains("shm_clients = "),
        "{out}"
    );
    let (code, out, _) = check("p99_us < 1000000000");
    assert_eq!(code, 1, "no request ran meanwhile: unknown is not fine");
    assert!(out.contains("unknown: "), "{out}");
    let (code, out, _) = check("crits == 0");
    assert_eq!(
        code, 1,
        "no rule had the time to answer: unknown is not fine"
    );
    assert!(out.contains("crits = unknown: needs "), "{out}");
}

#[test]
fn a_reader_that_leaves_early_does_not_turn_a_failed_assertion_into_exit_0() {
    let p = pair();
    let args = [
        "check",
        "--name",
        &p.name,
        "--for",
        "50ms",
        "--assert",
        "shm_clients > 1",
    ];
    let (code, err) = unread(p.dir.path(), &args);
    assert_eq!(code, Some(1), "{err}");
}

#[test]
fn a_reader_that_leaves_early_does_not_turn_what_is_missing_into_exit_0() {
    let p = pair();
    let pid = std::process::id().to_string();
    // Above the kernel's largest; and by name, as above.
    let both = ["-p", &pid, "-p", "1073741824", "--name", &p.name];
    let file = p.dir.path().join("x.rec");
    let record = ["record", file.to_str().unwrap(), "-n", "1"];
    for args in [
        &["ps"][..],
        &["ps", "-f", "json"],
        &["snapshot", "-d", "1ms"],
        &["snapshot", "-d", "1ms", "-n", "9", "-f", "csv"],
        &["-d", "1ms"],
        &record,
    ] {
        let (code, err) = unread(p.dir.path(), &[args, &both].concat());
        assert_eq!(code, Some(3), "{args:?}: {err}");
    }
    let endless = ["snapshot", "-d", "1ms", "-n", "1000000"];
    let endless = [&endless[..], &["-p", &pid, "--name", &p.name]].concat();
    let (code, err) = unread(p.dir.path(), &endless);
    assert_eq!(code, Some(0), "{err}");
}

/// Runs to the end with nobody to read what it prints: exit code and stderr.
fn unread(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut child = started(dir, args);
    drop(child.stdout.take());
    let (done, ended) = channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    let out = ended.recv_timeout(WATCHDOG).expect("it hangs").unwrap();
    (
        out.status.code(),
        String::from_utf8_lossy(&out.stderr).into_owned(),
    )
}

#[test]
fn a_watched_server_that_ends_is_exit_6() {
    ends_with_6(&[]);
}

#[test]
fn a_watched_server_that_ends_is_exit_6_also_where_no_client_matches_the_filter() {
    ends_with_6(&["-f", "json", "--filter", "nobody-is-called-so"]);
}

fn ends_with_6(flags: &[&str]) {
    let mut p = pair();
    let mut args = vec!["snapshot", "--name", &p.name, "-d", "10ms"];
    args.extend(["-n", "1000000"]);
    args.extend(flags);
    let mut child = started(p.dir.path(), &args);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    drop(p.server.take());
    let (done, ended) = channel();
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        let _ = out.read_to_end(&mut rest);
        done.send(child.wait_with_output())
    });
    let out = ended.recv_timeout(WATCHDOG).expect("it ends").unwrap();
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(6), "{err}");
    assert!(err.contains("ended while it was watched"), "{err}");
}

#[test]
fn of_a_server_that_ended_the_doctor_does_not_say_that_nothing_is_wrong() {
    let mut p = pair();
    let child = started(
        p.dir.path(),
        &["doctor", "--name", &p.name, "-d", "10ms", "--for", "50s"],
    );
    // It has seen the server's page, and not only its client's, once that is mapped.
    let page = format!("{}-{}", std::process::id(), p.name);
    let page = std::fs::metadata(p.dir.path().join(page)).unwrap().ino();
    let is_it = |line: &str| line.split_whitespace().nth(4) == Some(&page.to_string());
    let maps = format!("/proc/{}/maps", child.id());
    let start = std::time::Instant::now();
    while !std::fs::read_to_string(&maps).unwrap().lines().any(is_it) {
        assert!(start.elapsed() < WATCHDOG, "it never looked");
        std::thread::yield_now();
    }
    drop(p.server.take());
    let (done, ended) = channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    let out = ended.recv_timeout(WATCHDOG).expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(6), "{said}");
    assert!(!said.contains("nothing wrong"), "{said}");
}
