//! A session of one who is on call, in a real terminal, at three sizes: every screen once, and the way between them.
//!
//! It runs on a recording ([`super::market`]), so its screens are the same each time: they stand in docs/screens, and this test
//! compares. After a change that is meant to be seen, `UPDATE=1 cargo test -p shmtop --test pty` writes them
//! anew; look at them before they are committed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use shmtop::recording::Recorder;

use crate::base::Base;
use crate::market;
use crate::terminal::Terminal;

/// A step: what is typed, what must then be seen, and what a reader is told about it. Without a text the screen is not kept.
struct Step {
    keys: &'static str,
    sees: &'static str,
    says: &'static str,
}

const fn step(keys: &'static str, sees: &'static str, says: &'static str) -> Step {
    Step { keys, sees, says }
}

/// The end of the recording is frozen first, so that nothing moves by itself.
const STEPS: [Step; 18] = [
    step("+++++", "ended", ""),
    step(" ", "frozen", "The recording has ended; Space freezes it"),
    step(
        "2",
        "Could not be checked",
        "2: what is wrong, and what could not be checked",
    ),
    step(
        "\r",
        "Goes away",
        "Enter: one hint with its evidence and the command to type",
    ),
    step("\x1b", "Could not be checked", ""),
    step("1", "BOUND BY", ""),
    step("jjjjjj", "›■ 7", ""),
    step(
        "\r",
        "round trip",
        "1, six times j, Enter: the stopped client",
    ),
    step(
        "3",
        "Room at exchange",
        "3: limits, and how many more clients fit",
    ),
    step("4", "no core", "4: threads and counters"),
    step("5", "Clock and memory", "5: the machine"),
    step("?", "never quits", "?: the keys"),
    step("?", "Clock and memory", ""),
    step(
        "/socket",
        "/socket█",
        "/ and a word: only the clients that it matches",
    ),
    step("\r", "/socket  ", ""),
    step("\x1b", "4236", ""),
    step("sss", "REQ/s▾", "s, three times: sorted by requests"),
    step(
        "[[",
        "−20 s",
        "[ twice: twenty seconds ago, when client 7 was still running",
    ),
];

#[test]
fn every_screen_of_a_session_is_the_one_in_the_documentation() {
    let dir = tempfile::tempdir().unwrap();
    let recording = dir.path().join("market.shmtop");
    let mut recorder = Recorder::new(std::fs::File::create(&recording).unwrap()).unwrap();
    for t in 0..=market::SECONDS {
        recorder.push(&market::sample(t)).unwrap();
    }
    for (columns, rows) in [(80, 24), (120, 40), (200, 60)] {
        compare(&walk(&recording, columns, rows), columns, rows);
    }
}

/// What is wrong with one client may only show beside all the others.
#[test]
fn whoever_asks_for_one_client_sees_one_row_and_what_rules_say_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let recording = dir.path().join("crowd.shmtop");
    let mut recorder = Recorder::new(std::fs::File::create(&recording).unwrap()).unwrap();
    for t in 0..=8 {
        recorder.push(&market::spinning(t)).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_shmtop"));
    let asked = Base::client_pid(2).to_string();
    command.arg("replay").arg(&recording).args(["-p", &asked]);
    let mut terminal = Terminal::sized(command, 160, 40);
    terminal.type_keys("+++++");
    terminal.wait_to_see_all("5 spinning threads share 2 CPUs");
    let screen = terminal.screen.screen().contents();
    let rows: Vec<&str> = screen.lines().filter(|l| l.contains('●')).collect();
    assert!(
        rows.len() == 1 && screen.contains(&format!("trader ({asked})")),
        "one row, of the client that was asked for:\n{screen}"
    );
    assert!(!screen.contains("not visible"), "{screen}");
    terminal.type_keys("q");
    assert_eq!(terminal.wait().code(), Some(0));
}

/// Not at the moment that was looked at before all was read.
#[test]
fn a_moment_after_the_end_of_a_recording_leads_to_its_end_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let recording = dir.path().join("market.shmtop");
    let mut recorder = Recorder::new(std::fs::File::create(&recording).unwrap()).unwrap();
    for t in 0..=market::SECONDS {
        recorder.push(&market::sample(t)).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_shmtop"));
    command.arg("replay").arg(&recording);
    let mut terminal = Terminal::sized(command, 120, 40);
    terminal.wait_to_see_all("BOUND BY");
    for key in ["@", "2", "h", "\r"] {
        terminal.type_keys(key);
    }
    terminal.wait_to_see_all("the recording ends here");
    terminal.wait_to_see_all(&format!("frozen {} s ×1", market::SECONDS));
    terminal.type_keys("q");
    assert_eq!(terminal.wait().code(), Some(0));
}

/// The screens of the session at this size.
fn walk(recording: &Path, columns: u16, rows: u16) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shmtop"));
    command.arg("replay").arg(recording);
    let mut terminal = Terminal::sized(command, columns, rows);
    terminal.wait_to_see_all("1 overview");
    let mut out = format!("A session at {columns}×{rows}, kept by shmtop/tests/pty/session.rs.\n");
    for Step { keys, sees, says } in &STEPS {
        // One by one: an Escape that other keys follow would be Alt.
        for key in keys.chars() {
            terminal.type_keys(key.encode_utf8(&mut [0; 4]));
        }
        terminal.wait_to_see_all(sees);
        if !says.is_empty() {
            // Writing to a String can't fail.
            let _ = write!(out, "\n━━ {says}\n\n");
            for line in terminal.screen.screen().rows(0, columns) {
                let _ = writeln!(out, "{}", line.trim_end());
            }
        }
    }
    terminal.type_keys("q");
    assert_eq!(terminal.wait().code(), Some(0));
    terminal.assert_restored();
    out
}

fn compare(screens: &str, columns: u16, rows: u16) {
    let name = format!("../docs/screens/session-{columns}x{rows}.txt");
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("UPDATE").is_some_and(|v| v == "1") {
        std::fs::write(&path, screens).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    for (n, (now, before)) in screens.lines().zip(kept.lines()).enumerate() {
        assert_eq!(now, before, "{columns}x{rows}, line {}", n + 1);
    }
    assert_eq!(screens.lines().count(), kept.lines().count());
}
