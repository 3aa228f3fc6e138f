//! The command line as a script sees it: exit codes, one sentence on stderr, documents on stdout.
//!
//! A server and a client of the real transport run inside the test; `--name` keeps everybody else on the machine out. Nothing
//! sleeps: what shmtop prints is waited for, a watchdog ends a hang.

mod exits;
mod settings;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::Value;
use transport::{Config, Membrane, Synapse, TransportChoice};

/// Ends a hang; far above what anything here takes.
const WATCHDOG: Duration = Duration::from_secs(60);

pub(crate) fn shmtop(dir: &Path, args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_shmtop"));
    c.args(args)
        .env_clear()
        .env("SHMTOP_RUNTIME_DIR", dir)
        .env("HOME", dir)
        .stdin(Stdio::null());
    c
}

/// The same, started, with pipes for what it says.
fn started(dir: &Path, args: &[&str]) -> Child {
    shmtop(dir, args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs to the end, or panics when the watchdog barks.
pub(crate) fn run(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let child = started(dir, args);
    let pid = child.id();
    let (done, ended) = channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    let Ok(out) = ended.recv_timeout(WATCHDOG) else {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid as i32),
            nix::sys::signal::Signal::SIGKILL,
        );
        panic!("shmtop {args:?} hangs");
    };
    let Output {
        status,
        stdout,
        stderr,
    } = out.unwrap();
    (
        status.code().unwrap(),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

/// A server with one client on shared memory, in this process.
struct Pair {
    dir: tempfile::TempDir,
    server: Option<Membrane>,
    _client: Synapse,
    name: String,
}

fn pair() -> Pair {
    // The tests share a process, so the pid does not tell their servers apart.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let dir = tempfile::tempdir().unwrap();
    let name = format!(
        "echo-{}-{}.",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    );
    let config = Config {
        name: name.clone(),
        ring_bytes: 64 << 10,
        max_message_bytes: 4 << 10,
        stats_dir: Some(dir.path().to_owned()),
        ..Config::default()
    };
    let server = Membrane::bind(dir.path().join("echo.sock"), &config, |request, reply| {
        reply.extend_from_slice(request).expect("an echo fits");
    })
    .unwrap();
    // Of another name: a process has one page for all its clients, called as the first of them, and it outlives the server.
    let config = Config {
        name: "caller".into(),
        ..config
    };
    let mut client = Synapse::connect(dir.path().join("echo.sock"), &config).unwrap();
    assert!(client.is_shm());
    for _ in 0..2_000 {
        client.fire_bytes(b"hello").unwrap();
    }
    Pair {
        dir,
        server: Some(server),
        _client: client,
        name,
    }
}

#[test]
fn a_mistake_on_the_command_line_is_exit_2_and_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str); 28] = [
        (&["check"], "were not provided: --assert <EXPR>; see --help"),
        (
            &["-p", "abc", "ps"],
            "invalid value 'abc' for '--pid <PID>'",
        ),
        (&["ps", "-f", "xml"], "[possible values: table, json, csv"),
        (&["snapsho"], "a similar subcommand exists: 'snapshot'"),
        (
            &["--theme", "pink"],
            "choose one of dark, light, contrast, mono",
        ),
        (&["export", "--listen", "here"], "e.g. 127.0.0.1:9752"),
        (&["explain", "FD-HEADROOM"], "did you mean fd-headroom?"),
        (&["explain", "nope"], "`shmtop explain` lists all"),
        (&["replay", "/"], "Is a directory"),
        (&["snapshot", "-d", "5"], "give a unit"),
        (&["explain", "fd-headrom"], "did you mean fd-headroom?"),
        (&["replay", "/nonexistent"], "/nonexistent: No such file"),
        (&["--sort", "speed", "ps"], "no such column"),
        (&["ps", "-f", "csv"], "no format csv"),
        (
            &["check", "--assert", "rps>0", "-f", "json"],
            "no format json",
        ),
        (&["diff", "a", "b", "-f", "json"], "no format json"),
        (
            &["doctor", "--filter", "shm"],
            "--filter is for lists of clients (dashboard, snapshot, replay on a terminal); here -p and --name choose",
        ),
        // What is printed of a recording lists none.
        (
            &["replay", "/nonexistent", "--sort", "p99"],
            "--sort is for lists of clients",
        ),
        (
            &["replay", "/nonexistent", "--at", "5s", "--filter", "shm"],
            "--filter is for lists of clients",
        ),
        (
            &["ps", "--sort", "p99"],
            "--sort is for lists of clients (dashboard, snapshot, replay on a terminal)",
        ),
        // What would be expected to change what is printed, and does not, is refused.
        (&["ps", "-n", "3"], "-n is for snapshot and record"),
        (&["config", "-f", "json"], "no formats"),
        (&["record", "/nonexistent/r", "-f", "json"], "no formats"),
        (
            &["doctor", "-d", "15s"],
            "a delay of 15 s is too long for hints: they compare looks that are at most 10 s apart",
        ),
        (&["snapshot", "-n", "0"], "0 is not in"),
        (
            &["snapshot", "-n", "2", "-f", "prom"],
            "a file of metrics holds one sample",
        ),
        (
            &["diff", "/dev/null", "/dev/null"],
            "not a shmtop recording",
        ),
        (&["frobnicate"], "unrecognized subcommand"),
    ];
    for (args, says) in cases {
        let (code, out, err) = run(dir.path(), args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(err.contains(says), "{args:?}: {err}");
        assert!(
            err.starts_with("shmtop: ") && err.lines().count() == 1,
            "{args:?}: {err}"
        );
    }
    let (code, out, err) = run(dir.path(), &["check", "--assert", "rps>1 && p99us<5"]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    let shown = "no figure has this name; did you mean p99_us?\n  rps>1 && p99us<5\n           ^\n";
    assert!(err.ends_with(shown), "{err}");
}

#[test]
fn a_link_among_the_pages_that_leads_elsewhere_is_said_and_not_followed() {
    let p = pair();
    let secret = p.dir.path().join("secret");
    std::fs::write(&secret, "SHMTOP01 not to be read").unwrap();
    std::os::unix::fs::symlink(&secret, p.dir.path().join("4711-stray")).unwrap();
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
fn a_snapshot_names_the_client_and_its_transport() {
    let p = pair();
    let (code, out, err) = run(
        p.dir.path(),
        &["snapshot", "--name", &p.name, "-d", "50ms", "-f", "json"],
    );
    assert_eq!(code, 0, "{err}");
    let document: Value = serde_json::from_str(&out).unwrap();
    let server = document["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["role"] == "server")
        .unwrap();
    assert_eq!(server["name"], p.name);
    let client = &server["clients"][0];
    assert_eq!(client["transport"], "shm");
    assert_eq!(client["rx"]["capacity_bytes"], 64 << 10);
    assert!(client["rtt_since_start_ns"]["count"].as_u64().unwrap() >= 1_000);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/snapshot.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let wrong: Vec<String> = jsonschema::draft202012::new(&schema)
        .unwrap()
        .iter_errors(&document)
        .map(|e| format!("{}: {e}", e.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_format_has_the_client() {
    let p = pair();
    for (args, part) in [
        (&["ps"][..], "server  echo-"),
        (&["ps", "-f", "json"], "\"name\": \"echo-"),
        (&["snapshot", "-d", "20ms"], "VIA"),
        (&["snapshot", "-d", "20ms", "-f", "csv"], "\"echo-"),
        (
            &["snapshot", "-d", "20ms", "-f", "prom"],
            "shmtop_tx_messages_total{endpoint=\"echo-",
        ),
        (&["-d", "20ms"], "VIA"),
        (&["-d", "20ms", "-f", "json"], "\"name\": \"echo-"),
    ] {
        let args: Vec<&str> = args.iter().copied().chain(["--name", &p.name]).collect();
        let (code, out, err) = run(p.dir.path(), &args);
        assert_eq!(code, 0, "{args:?}: {err}");
        assert!(out.contains(part), "{args:?}: {out}");
        let noted = err.contains("stdout is not a terminal: printed one snapshot");
        assert_eq!(
            noted,
            args[..] == ["-d", "20ms", "--name", &p.name],
            "{args:?}: {err}"
        );
    }
}

#[test]
fn each_line_of_a_csv_says_of_which_moment_it_is() {
    let p = pair();
    let args = ["snapshot", "-d", "20ms", "-n", "2", "-f", "csv", "--name"];
    let (code, out, err) = run(p.dir.path(), &[&args[..], &[&p.name]].concat());
    assert_eq!(code, 0, "{err}");
    let mut lines = out.lines();
    assert!(lines.next().unwrap().ends_with(",at_realtime_ns"));
    let at = |line: &str| -> u64 { line.rsplit(',').next().unwrap().parse().unwrap() };
    let moments: Vec<u64> = lines.map(at).collect();
    assert!(moments.len() == 2 && moments[0] < moments[1], "{out}");
}

#[test]
fn several_json_documents_are_a_line_each() {
    let p = pair();
    let args = [
        "snapshot", "-d", "20ms", "-n", "2", "-f", "json", "--name", &p.name,
    ];
    let (code, out, err) = run(p.dir.path(), &args);
    assert_eq!(code, 0, "{err}");
    let documents = out
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    assert_eq!(documents.filter(|d| d["schema"] == 1).count(), 2, "{out}");
}

#[test]
fn a_document_is_one_also_where_there_is_nothing_to_show() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["ps"][..],
        &["snapshot", "-d", "1ms"],
        &["doctor", "--for", "1ms"],
    ] {
        let args = [args, &["-f", "json", "--name", "no-such-endpoint"]].concat();
        let (code, out, err) = run(dir.path(), &args);
        assert_eq!(code, 3, "{err}");
        let document: Value =
            serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}: {out}"));
        assert_eq!(document["schema"], 1);
    }
}

#[test]
fn plain_ascii_is_nothing_but_ascii() {
    let p = pair();
    for args in [
        &["ps"][..],
        &["snapshot", "-d", "1ms"],
        &["doctor", "--for", "1ms"],
    ] {
        let (_, shown, _) = run(p.dir.path(), &[args, &["--name", &p.name]].concat());
        let (_, plain, _) = run(
            p.dir.path(),
            &[args, &["--name", &p.name, "--ascii"]].concat(),
        );
        assert!(args[0] == "ps" || !shown.is_ascii(), "{shown}");
        assert!(plain.is_ascii() && plain.contains(&p.name), "{plain}");
    }
}

#[test]
fn the_table_of_a_client_names_the_server_that_was_not_asked_for() {
    let p = pair();
    let (code, out, err) = run(p.dir.path(), &["snapshot", "-d", "1ms", "--name", "caller"]);
    assert_eq!(code, 0, "{err}");
    let server = format!("{} ({})", p.name, std::process::id());
    assert!(out.contains("client of ") && out.contains(&server), "{out}");
}

#[test]
fn a_filter_holds_in_every_format_of_a_snapshot() {
    let p = pair();
    for (format, part) in [
        ("table", "CLIENT"),
        ("json", "connection_id"),
        ("csv", "echo-"),
        ("prom", "shmtop_tx_messages_total{"),
    ] {
        let has = |filter: &str| {
            let wanted = ["--name", &p.name, "--filter", filter];
            let args = ["snapshot", "-d", "20ms", "-f", format];
            let args = [&args[..], &wanted].concat();
            let (code, out, err) = run(p.dir.path(), &args);
            assert_eq!(code, 0, "{args:?}: {err}");
            out.contains(part)
        };
        assert_eq!((has("shm"), has("socket")), (true, false), "{format}");
    }
}

#[test]
fn an_order_holds_in_every_format_of_a_snapshot() {
    let p = pair();
    let config = Config {
        transport: TransportChoice::Socket,
        stats_dir: Some(p.dir.path().to_owned()),
        ..Config::default()
    };
    let _second = Synapse::connect(p.dir.path().join("echo.sock"), &config).unwrap();
    for (format, shm, socket) in [
        ("table", " shm ", " socket "),
        (
            "json",
            "\"transport\": \"shm\"",
            "\"transport\": \"socket\"",
        ),
        ("csv", ",shm,", ",socket,"),
        ("prom", "\",transport=\"shm\"}", "\",transport=\"socket\"}"),
    ] {
        let socket_first = |sort: &str| {
            let args = ["snapshot", "-d", "20ms", "-f", format, "--sort", sort];
            let args = [&args[..], &["--name", &p.name]].concat();
            let (code, out, err) = run(p.dir.path(), &args);
            assert_eq!(code, 0, "{args:?}: {err}");
            // Rows of clients, not what all of them together are.
            let row = |l: &&str| match format {
                "table" => !l.contains("clients"),
                "prom" => l.contains("peer_pid="),
                _ => true,
            };
            let mut vias = out.lines().filter(row);
            let first = vias.find(|l| l.contains(shm) || l.contains(socket));
            first.unwrap_or_else(|| panic!("{out}")).contains(socket)
        };
        let firsts = (socket_first("via"), socket_first("client"));
        assert_eq!(firsts, (true, false), "{format}");
    }
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
    let record = ["record", file, "-n", "3", "-d", "10ms"];
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
