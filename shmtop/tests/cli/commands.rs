//! What the other commands promise, one by one: recordings, metrics over HTTP, what packagers need.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::{WATCHDOG, pair, run, shmtop};

#[test]
fn a_link_among_the_pages_that_leads_elsewhere_is_said_and_not_followed() {
    let p = pair();
    let secret = p.dir.path().join("secret");
    std::fs::write(&secret, "SHMTOP01 not to be read").unwrap();
    // By a path as short everywhere: what is said of a long one is cut short.
    std::os::unix::fs::symlink("secret", p.dir.path().join("4711-stray")).unwrap();
    let (code, out, err) = run(p.dir.path(), &["ps"]);
    assert_eq!(code, 0, "{err}");
    let line = out.lines().find(|l| l.contains("4711-stray")).unwrap();
    assert!(
        line.contains("not to a descriptor of process 4711"),
        "{line}"
    );
    let (_, out, _) = run(p.dir.path(), &["doctor", "--for", "1ms", "-f", "json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        document["unreadable"][0]["name"], "4711-stray",
        "{document}"
    );
}

#[test]
fn a_doctor_that_had_too_little_time_says_so_instead_of_guessing() {
    let p = pair();
    let (code, out, _) = run(
        p.dir.path(),
        &["doctor", "--name", &p.name, "--for", "100ms", "-f", "json"],
    );
    assert_eq!(code, 0);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert!(document["needs_s"].as_u64().unwrap() > 0);
    assert!(!document["unknown"].as_array().unwrap().is_empty());
}

#[test]
fn a_recording_can_be_replayed_compared_and_is_never_overwritten() {
    let p = pair();
    let file = p.dir.path().join("a.rec");
    let file = file.to_str().unwrap();
    let record = ["record", file, "-n", "3", "-d", "10ms", "--name", &p.name];
    let (code, out, err) = run(p.dir.path(), &record);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("3 samples"), "{out}");
    assert_eq!(run(p.dir.path(), &record).0, 2, "the file exists");
    let (_, out, err) = run(p.dir.path(), &["replay", file, "--name", &p.name]);
    assert!(out.contains("a.rec: 3 samples"), "{out}{err}");
    let (code, out, err) = run(p.dir.path(), &["diff", file, file, "--name", &p.name]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("shm_clients") && out.contains('='), "{out}");
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn metrics_are_served_over_http() {
    let p = pair();
    let mut child = Killed(
        shmtop(
            p.dir.path(),
            &["export", "--listen", "127.0.0.1:0", "--name", &p.name],
        )
        .stdout(Stdio::piped())
        .spawn()
        .unwrap(),
    );
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line
        .trim()
        .strip_prefix("shmtop: metrics at http://")
        .unwrap();
    let address = address.strip_suffix("/metrics").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert!(reply.contains("shmtop_requests_total{endpoint=\"echo-") && reply.ends_with("# EOF\n"));
}

#[test]
fn what_packagers_need_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    for (args, part) in [
        (&["completions", "bash"][..], "_shmtop()"),
        (&["man"], ".TH shmtop"),
        // Of a command: there is no page of its own to point at.
        (&["man"], "\\fB\\-\\-assert\\fR \\fI<EXPR>"),
        (&["config"], "theme = \"dark\""),
        (&["explain"], "fd-headroom"),
        (&["explain", "run-delay"], "explains: preempted-spinner"),
        (&["--help"], "Exit codes: 0 fine"),
    ] {
        let (code, out, err) = run(dir.path(), args);
        assert_eq!(code, 0, "{args:?}: {err}");
        assert!(out.contains(part), "{args:?}: {out}");
    }
}
