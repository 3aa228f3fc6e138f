//! Processes in other namespaces and of other users; and what the viewer itself may still do.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::actors::{Process, Stage, run, skipped, until};
use crate::prometheus::{exporter, get};

/// Whether this may change users and namespaces.
fn as_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let may = root
        && Command::new("unshare")
            .args(["-pfmn", "--mount-proc", "true"])
            .status()
            .is_ok_and(|s| s.success());
    if !may {
        skipped("needs root and unshare(1)");
    }
    may
}

/// Whether this may be another user, who gets at what the tests make: not everywhere has root more numbers than its own.
fn as_others() -> bool {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), 0o755);
    let by_them = by("64200");
    let may = nix::unistd::geteuid().is_root()
        && Command::new(by_them[0])
            .args(&by_them[1..])
            .args(["test", "-x"])
            .arg(dir.path())
            .status()
            .is_ok_and(|s| s.success());
    if !may {
        skipped("needs root, setpriv(1) and a temporary directory that other users may search");
    }
    may
}

/// What runs a command as another user.
fn by(uid: &str) -> [&str; 6] {
    ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups"]
}

fn open(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn json(command: Command) -> Value {
    let (_, out, err) = run(command);
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"))
}

fn endpoint<'d>(document: &'d Value, name: &str) -> Option<&'d Value> {
    let all = document["endpoints"].as_array().unwrap();
    all.iter().find(|e| e["name"] == name)
}

#[test]
fn pages_in_other_pid_mount_and_network_namespaces_are_found_labelled_and_joined() {
    if !as_root() {
        return;
    }
    let stage = Stage::new();
    let (server, client) = ("in-pid-ns.", "in-net-ns.");
    let contained = ["unshare", "-pfm", "--mount-proc", "--kill-child"];
    let mut exchange = stage.actor(&contained, &format!("exchange --name {server}"));
    exchange.line("exchange: listening on ");
    let mut trader = stage.actor(
        &["unshare", "-n"],
        &format!("trader 1 ping --think 1ms --name {client}"),
    );
    trader.line("SHM UPGRADE SUCCESS");
    let ps = json(stage.shmtop(&["ps", "-f", "json"]));
    let found = endpoint(&ps, server).unwrap_or_else(|| panic!("{ps}"));
    let outside = found["pid"].as_u64().unwrap();
    let comm = std::fs::read_to_string(format!("/proc/{outside}/status")).unwrap();
    let inside = comm.lines().find_map(|l| l.strip_prefix("NSpid:")).unwrap();
    assert_eq!(
        inside.split_whitespace().next_back(),
        Some("1"),
        "the pid is ours, not the page's"
    );
    let place = found["place"].as_str().unwrap();
    assert!(
        place.contains("pid+mount namespace") && place.ends_with("pid 1 inside"),
        "{place}"
    );
    let found = endpoint(&ps, client).unwrap();
    assert_eq!(found["place"], "other net namespace");
    let (_, table, _) = run(stage.shmtop(&["ps", "--name", server]));
    assert!(table.contains("pid 1 inside"), "{table}");

    let snapshot = json(stage.shmtop(&["snapshot", "--name", server, "-d", "200ms", "-f", "json"]));
    let poller = &endpoint(&snapshot, server).unwrap()["pollers"][0];
    let tid = poller["tid"].as_u64().unwrap();
    assert!(
        Path::new(&format!("/proc/{outside}/task/{tid}")).exists(),
        "its thread has our number: {poller}"
    );
    assert!(poller["thread"]["last_cpu"].is_u64(), "{poller}");
    let row = &endpoint(&snapshot, server).unwrap()["clients"][0];
    assert_eq!(row["peer_pid"], u64::from(trader.pid()));
    assert!(
        row["rtt_since_start_ns"]["count"].as_u64().unwrap() > 0,
        "both pages speak: {row}"
    );
}

#[test]
fn a_viewer_that_sees_only_the_server_does_not_claim_that_no_client_gave_up() {
    if !as_root() {
        return;
    }
    let stage = Stage::new();
    let name = "half-seen.";
    let contained = ["unshare", "-pfm", "--mount-proc", "--kill-child"];
    let mut exchange = stage.actor(&contained, &format!("exchange --name {name}"));
    exchange.line("exchange: listening on ");
    let _trader = stage.trader("1 ping --think 1ms");
    let ps = json(stage.shmtop(&["ps", "-f", "json", "--name", name]));
    let outside = endpoint(&ps, name).unwrap_or_else(|| panic!("{ps}"))["pid"].to_string();
    let inside = |args: &[&str]| {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &outside, "-p", "-m", env!("CARGO_BIN_EXE_shmtop")])
            .args(args)
            .args(["--name", name])
            .env("SHMTOP_RUNTIME_DIR", stage.dir())
            .env("HOME", stage.dir());
        command
    };
    let asserts = [
        "--assert",
        "timeouts==0",
        "--assert",
        "late_replies==0",
        "--assert",
        "errors==0",
    ];
    let (code, out, err) = run(inside(&[&["check", "--for", "1s"], &asserts[..]].concat()));
    assert_eq!(code, Some(1), "{out}{err}");
    let verdicts: Vec<&str> = out.lines().filter_map(|l| l.split(':').next()).collect();
    assert_eq!(verdicts, ["unknown", "unknown", "holds"], "{out}{err}");
    let snapshot = json(inside(&["snapshot", "-d", "200ms", "-f", "json"]));
    let row = &endpoint(&snapshot, name).unwrap()["clients"][0];
    assert!(
        row["timeouts"].is_null() && row["late_replies"].is_null(),
        "{row}"
    );
    let why = row["why"].as_str().unwrap();
    assert!(
        why.contains("timeouts: the client's own page is not visible"),
        "{why}"
    );
    assert!(
        row["peer_pid"].is_null() && why.contains("peer_pid: "),
        "{row}"
    );
}

/// Copies of the programs where another user can run them, and a directory that is theirs.
struct Theirs {
    stage: Stage,
    shmtop: PathBuf,
    actor: PathBuf,
    dir: PathBuf,
    uid: String,
}

/// Of a user that no other test is.
fn theirs(uid: u32) -> Theirs {
    let stage = Stage::new();
    open(stage.dir(), 0o755);
    let copy = |from: &Path, name: &str| {
        let to = stage.dir().join(name);
        std::fs::copy(from, &to).unwrap();
        open(&to, 0o755);
        to
    };
    let shmtop = copy(Path::new(env!("CARGO_BIN_EXE_shmtop")), "shmtop");
    let actor = copy(&std::env::current_exe().unwrap(), "actor");
    let dir = stage.dir().join("theirs");
    std::fs::create_dir(&dir).unwrap();
    std::os::unix::fs::chown(&dir, Some(uid), Some(uid)).unwrap();
    Theirs {
        stage,
        shmtop,
        actor,
        dir,
        uid: uid.to_string(),
    }
}

impl Theirs {
    fn by_them(&self) -> [&str; 6] {
        by(&self.uid)
    }

    /// An exchange of the other user.
    fn exchange(&self, name: &str) -> Process {
        let role = format!("exchange --name {name}");
        let mut exchange = self
            .stage
            .actor_at(&self.by_them(), &self.actor, &self.dir, &role);
        exchange.line("exchange: listening on ");
        exchange
    }

    /// shmtop as the other user, looking where root's pages are announced.
    fn shmtop(&self, args: &[&str]) -> Command {
        let by_them = self.by_them();
        let mut command = Command::new(by_them[0]);
        command
            .args(&by_them[1..])
            .arg(&self.shmtop)
            .args(args)
            .env("SHMTOP_RUNTIME_DIR", self.stage.dir())
            .env("HOME", &self.dir);
        command
    }
}

#[test]
fn who_may_not_read_a_page_is_told_what_to_run() {
    if !as_others() {
        return;
    }
    let theirs = theirs(64_201);
    let _roots = theirs.stage.exchange();
    let (code, out, err) = run(theirs.shmtop(&["snapshot", "-d", "10ms"]));
    assert_eq!(code, Some(4), "{out}{err}");
    assert!(
        err.contains("permission denied") && err.contains("sudo shmtop"),
        "{err}"
    );
    assert_eq!(err.lines().count(), 1, "{err}");
    // One that has no page is none of theirs to know either.
    let other = std::process::id().to_string();
    let (code, out, err) = run(theirs.shmtop(&["ps", "-p", &other]));
    assert_eq!(code, Some(4), "{out}{err}");
    assert!(err.contains("may not be searched"), "{err}");
    // With one of their own there is something to show, and a hint says what is missing.
    let _own = theirs.exchange("nobodys.");
    let doctor = json(theirs.shmtop(&["doctor", "-f", "json", "--for", "4s"]));
    let hints = doctor["hints"].as_array().unwrap();
    let blind = hints.iter().find(|h| h["id"] == "viewer-blind");
    let blind = blind.unwrap_or_else(|| panic!("{doctor:#}"));
    assert!(
        blind["fix"].as_str().unwrap().contains("sudo shmtop"),
        "{blind}"
    );
    let (_, table, _) = run(theirs.shmtop(&["ps", "--name", "nobodys."]));
    assert!(table.contains("could not be searched"), "{table}");
}

#[test]
fn a_recording_that_may_not_be_read_is_exit_4() {
    if !as_others() {
        return;
    }
    let theirs = theirs(64_203);
    let file = theirs.stage.dir().join("roots.rec");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let file = file.to_str().unwrap();
    for args in [&["replay", file][..], &["diff", file, file]] {
        let (code, _, err) = run(theirs.shmtop(args));
        assert_eq!(code, Some(4), "{args:?}: {err}");
        assert!(err.contains("roots.rec: Permission denied"), "{err}");
    }
}

#[test]
fn a_recording_is_read_without_the_privileges_that_reading_does_not_take() {
    let no_new_privileges = |process: &str| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("NoNewPrivs:"));
        line.unwrap().trim() == "1"
    };
    if no_new_privileges("self") {
        skipped("this runs with no_new_privs itself, which is inherited");
        return;
    }
    let stage = Stage::new();
    let pipe = stage.dir().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let pipe = pipe.to_str().unwrap();
    for args in [&["replay", pipe][..], &["diff", pipe, pipe]] {
        let reader = Process::start(stage.shmtop(args));
        // A pipe can be opened for writing once somebody reads it; as long as it is open, who reads waits for more.
        let mut writes = std::fs::OpenOptions::new();
        writes.write(true).custom_flags(libc::O_NONBLOCK);
        let _writer = until("it opens the recording", || writes.open(pipe).ok());
        assert!(no_new_privileges(&reader.pid().to_string()), "{args:?}");
    }
}

#[test]
fn the_viewer_gives_up_what_it_does_not_need_and_still_sees_another_user_who_comes_later() {
    let stage = Stage::new();
    let (export, address) = exporter(&stage, &["--name", "later."]);
    // CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_PERFMON
    let kept = 1u64 << 2 | 1 << 19 | 1 << 38;
    let tasks = std::fs::read_dir(format!("/proc/{}/task", export.pid())).unwrap();
    let mut threads = 0;
    for task in tasks.flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').trim().to_owned()
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            let mask = u64::from_str_radix(&field(set), 16).unwrap();
            assert_eq!(mask & !kept, 0, "{set} {mask:x}");
        }
        assert_eq!(field("NoNewPrivs"), "1");
        threads += 1;
    }
    assert!(threads >= 2, "the thread that accepts as well");
    if !as_others() {
        return;
    }
    let theirs = theirs(64_202);
    let _later = theirs.exchange("later.");
    until("the later one's page", || {
        let (_, metrics) = get(&address, "/metrics", "*/*");
        metrics
            .contains("shmtop_endpoint_info{endpoint=\"later.\"")
            .then_some(())
    });
}

#[test]
fn an_exporter_that_is_the_first_process_of_a_container_ends_when_it_is_told_to() {
    if !as_root() {
        return;
    }
    let stage = Stage::new();
    let export = stage.shmtop(&["export", "--listen", "127.0.0.1:0"]);
    let mut contained = Command::new("unshare");
    contained
        .args(["-pf", "--mount-proc", "--kill-child"])
        .arg(export.get_program())
        .args(export.get_args())
        .env("SHMTOP_RUNTIME_DIR", stage.dir());
    let mut container = Process::start(contained);
    container.line("shmtop: metrics at http://");
    let pid = container.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let first: i32 = children.trim().parse().unwrap();
    kill(Pid::from_raw(first), Signal::SIGTERM).unwrap();
    until("its end", || container.has_ended().then_some(()));
}
