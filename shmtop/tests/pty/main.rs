//! The dashboard on a real terminal: it appears, it obeys, and whatever ends it gives the terminal back as it was.
//!
//! Each test opens a pseudo terminal ([`terminal`]), starts the real binary on it as a login would, and compares the modes
//! before and after. Nothing sleeps: output is waited for, a watchdog ends a hang. [`session`] walks through all screens.

#[path = "../scenarios/base/mod.rs"]
mod base;
mod market;
mod session;
mod terminal;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shmtop::recording::Recorder;
use terminal::{ENTER_SCREEN, MOUSE_OFF, SHOW_CURSOR, Terminal, WATCHDOG};
use transport::stats::page::{PageDescription, PageWriter};
use transport::stats::slot::SlotFacts;
use transport::stats::{Role, SlotKind, registry};

/// How a frame of another size begins.
const CLEAR: &str = "\x1b[2J";

#[test]
fn q_leaves_and_the_terminal_is_as_it_was() {
    let mut terminal = Terminal::dashboard();
    assert!(terminal.is_raw());
    terminal.type_keys("q");
    terminal.wait_for(MOUSE_OFF);
    assert_eq!(terminal.wait().code(), Some(0));
    terminal.assert_restored();
    terminal.wait_for(SHOW_CURSOR);
}

/// A process without a page, so that no rows of this machine are on the screen. Of this one another test may have announced some.
struct Nobody(Child);

impl Nobody {
    fn new() -> Self {
        // Until its input ends.
        let mut cat = Command::new("cat");
        Self(cat.stdin(Stdio::piped()).spawn().unwrap())
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Nobody {
    fn drop(&mut self) {
        // Fails if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_dumb_terminal_gets_text_and_no_sequences() {
    let mut command = Command::new("env");
    let nobody = Nobody::new();
    let shmtop = env!("CARGO_BIN_EXE_shmtop");
    command.args(["TERM=dumb", shmtop, "-p", &nobody.pid()]);
    let mut terminal = Terminal::start(command);
    let mut text = String::new();
    while !text.contains("lists what is running") {
        text.push_str(&String::from_utf8_lossy(
            &terminal.output.recv_timeout(WATCHDOG).expect(&text),
        ));
    }
    assert!(!text.contains('\x1b'), "{text:?}");
    assert_eq!(terminal.wait().code(), Some(3));
}

/// A zone that takes no time zone data, and none that a machine is likely to be in.
#[test]
fn the_clock_goes_by_the_users_time_zone() {
    let mut command = Command::new("env");
    command.args(["TZ=XXX-5:45", env!("CARGO_BIN_EXE_shmtop")]);
    // As wide as the clock needs, whatever runs on this machine.
    let mut terminal = Terminal::sized(command, 200, 24);
    let end = Instant::now() + WATCHDOG;
    let is_there = |screen: &str| {
        let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
        let clock = |ago: u64| {
            let s = (now.as_secs() - ago + 5 * 3_600 + 45 * 60) % 86_400;
            format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
        };
        (0..60).any(|ago| screen.contains(&clock(ago)))
    };
    while !is_there(&terminal.screen.screen().contents()) {
        terminal.read_until(end, "the time in that zone");
    }
    terminal.type_keys("q");
    assert_eq!(terminal.wait().code(), Some(0));
}

#[test]
fn keys_that_can_come_from_nowhere_are_told_with_the_device() {
    let mut command = Command::new("setsid");
    command.args(["-w", "sh", "-c", "exec \"$0\" </dev/null"]);
    command.arg(env!("CARGO_BIN_EXE_shmtop"));
    let mut terminal = Terminal::start(command);
    terminal.wait_for("/dev/tty: ");
    assert_eq!(terminal.wait().code(), Some(2));
}

/// Of what crossterm finds at the same moment it forgets the second: the key after a change of the window was one.
#[test]
fn a_key_after_the_window_changed_is_answered() {
    let nobody = Nobody::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_shmtop"));
    command.args(["-p", &nobody.pid()]);
    let mut terminal = Terminal::start(command);
    terminal.wait_to_see_nobody();
    for (columns, rows) in [(200, 60), (60, 30), (100, 24)] {
        terminal.type_keys("?");
        terminal.wait_for("quits");
        terminal.resize(columns, rows);
        terminal.wait_for(CLEAR);
        terminal.type_keys("?");
        terminal.wait_to_see_nobody();
    }
    terminal.resize(20, 5);
    terminal.wait_for(CLEAR);
    terminal.type_keys("q");
    assert_eq!(terminal.wait().code(), Some(0));
    terminal.assert_restored();
}

/// How long that takes is for the reader of the output: on a busy machine any number would be wrong.
#[test]
fn the_first_frame_with_rows_comes_without_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let page = PageWriter::create(&PageDescription {
        name: "firstframe",
        role: Role::Server,
        socket_path: Path::new("/nowhere"),
        slots: 4,
    });
    let slot = page.slot(SlotKind::Connection).unwrap();
    slot.publish_info(&SlotFacts {
        open: true,
        ..SlotFacts::default()
    });
    let link = registry::announce(dir.path(), "first", std::process::id(), page.fd().unwrap());
    let _link = link.unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_shmtop"));
    command.args(["-p", &std::process::id().to_string()]);
    let start = Instant::now();
    let mut terminal = Terminal::among(dir, command, 120, 40);
    terminal.wait_to_see_all("firstframe");
    println!("first frame with rows after {:?}", start.elapsed());
    terminal.type_keys("q");
    assert_eq!(terminal.wait().code(), Some(0));
    terminal.assert_restored();
}

#[test]
fn ctrl_c_leaves_too_and_escape_does_not() {
    let mut terminal = Terminal::dashboard();
    terminal.type_keys("3");
    terminal.wait_to_see("This machine");
    // Alone, and answered before the next key: Escape and a letter in one go are Alt and the letter.
    terminal.type_keys("\x1b");
    while terminal.screen.screen().contents().contains("This machine") {
        terminal.read_until(Instant::now() + WATCHDOG, "another view");
    }
    terminal.type_keys("?");
    terminal.wait_to_see("never quits");
    terminal.type_keys("\x03");
    assert_eq!(terminal.wait().code(), Some(0));
    terminal.assert_restored();
}

#[test]
fn a_signal_that_ends_it_gives_the_terminal_back_first() {
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        let mut terminal = Terminal::dashboard();
        terminal.signal(signal);
        let status = terminal.wait();
        let number = signal as i32;
        assert!(
            status.code() == Some(128 + number) || status.signal() == Some(number),
            "{signal}: {status}"
        );
        terminal.assert_restored();
    }
}

/// A stalled ssh, a stopped tmux: the drawing thread is in the middle of a frame and stays there.
#[test]
fn a_terminal_that_takes_nothing_does_not_keep_a_signal_from_ending_it() {
    let command = Command::new(env!("CARGO_BIN_EXE_shmtop"));
    let mut terminal = Terminal::sized(command, 250, 80);
    terminal.wait_to_see("1 overview");
    let pid = terminal.child.id();
    let reading = Arc::clone(&terminal.reading);
    let stalled = reading.lock().unwrap();
    let end = Instant::now() + WATCHDOG;
    // Other colours draw the whole screen anew, until the terminal is full.
    while !Terminal::is_written_by(pid) {
        assert!(Instant::now() < end, "the terminal takes everything");
        if terminal.unread() == 0 {
            terminal.type_keys("t");
        }
    }
    terminal.signal(Signal::SIGTERM);
    let status = terminal.wait();
    assert_eq!(status.signal(), Some(Signal::SIGTERM as i32), "{status}");
    assert!(!terminal.is_raw(), "the modes are as before");
    drop(stalled);
}

/// A frozen recording draws nothing, so that what waits for the terminal is the way out.
#[test]
fn a_terminal_that_stalls_when_it_is_left_is_as_it_was_once_it_goes_on() {
    for leave in ["q", "\x1a"] {
        let dir = tempfile::tempdir().unwrap();
        let recording = dir.path().join("short.shmtop");
        let mut recorder = Recorder::new(File::create(&recording).unwrap()).unwrap();
        for t in 0..2 {
            recorder.push(&market::sample(t)).unwrap();
        }
        // A shell in between: see the test of Ctrl-Z.
        let mut command = Command::new("/bin/sh");
        let shmtop = env!("CARGO_BIN_EXE_shmtop");
        let script = format!("{shmtop} replay {}; exit $?", recording.display());
        command.args(["-c", &script]);
        let mut terminal = Terminal::start(command);
        terminal.wait_to_see_all("ended");
        terminal.type_keys(" ");
        terminal.wait_to_see_all("frozen");
        terminal.wait_for(ENTER_SCREEN);
        let dashboard = child_of(terminal.child.id());
        let reading = Arc::clone(&terminal.reading);
        let stalled = reading.lock().unwrap();
        terminal.fill();
        terminal.type_keys(leave);
        let end = Instant::now() + WATCHDOG;
        let left = |state| matches!(state, 'T' | 'Z' | 'X');
        while !Terminal::is_written_by(dashboard) && !left(state_of(dashboard)) {
            assert!(Instant::now() < end, "it does not leave");
            std::thread::yield_now();
        }
        drop(stalled);
        terminal.assert_restored();
        terminal.wait_for(SHOW_CURSOR);
        if leave != "q" {
            kill(Pid::from_raw(dashboard as i32), Signal::SIGKILL).unwrap();
        }
        let code = terminal.wait().code();
        assert!(leave != "q" || code == Some(0), "{code:?}");
    }
}

#[test]
fn a_terminal_that_goes_away_ends_it() {
    let mut terminal = Terminal::dashboard();
    // The reader has the only other handle; it leaves with the next output, and the terminal with it.
    drop(std::mem::replace(&mut terminal.output, channel().1));
    terminal.master = None;
    let status = terminal.wait();
    assert!(
        matches!(status.code(), Some(129)) || status.signal() == Some(Signal::SIGHUP as i32),
        "{status}"
    );
}

#[test]
fn the_screen_follows_the_window() {
    let mut terminal = Terminal::dashboard();
    let size = libc::winsize {
        ws_row: 50,
        ws_col: 150,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let fd = terminal.master.as_ref().unwrap().as_raw_fd();
    // SAFETY: TIOCSWINSZ reads one winsize through the pointer, which is to a live local; the fd is open.
    let set = unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &raw const size) };
    assert_eq!(set, 0);
    // The last line is now the fiftieth.
    terminal.screen.screen_mut().set_size(50, 150);
    let bottom = |t: &Terminal| t.screen.screen().rows(0, 150).nth(49).unwrap_or_default();
    while !bottom(&terminal).contains("1 overview") {
        terminal.read_until(Instant::now() + WATCHDOG, "the views in the fiftieth line");
    }
    terminal.type_keys("q");
    assert_eq!(terminal.wait().code(), Some(0));
    terminal.assert_restored();
}

#[test]
fn ctrl_z_gives_the_terminal_back_until_it_is_continued() {
    // A shell in between: job control needs a parent in the session. The second command keeps it from exec.
    let mut command = Command::new("/bin/sh");
    let script = format!("{}; exit $?", env!("CARGO_BIN_EXE_shmtop"));
    command.args(["-c", &script]);
    let mut terminal = Terminal::start(command);
    terminal.wait_to_see("1 overview");
    terminal.wait_for(ENTER_SCREEN);
    let dashboard = child_of(terminal.child.id());
    terminal.type_keys("\x1a");
    terminal.assert_restored();
    let end = Instant::now() + WATCHDOG;
    while state_of(dashboard) != 'T' {
        assert!(Instant::now() < end, "it did not stop");
        std::thread::yield_now();
    }
    assert!(!terminal.is_raw());
    kill(Pid::from_raw(dashboard as i32), Signal::SIGCONT).unwrap();
    terminal.wait_for(ENTER_SCREEN);
    terminal.wait_for("overview");
    terminal.wait_to_see("1 overview");
    assert!(terminal.is_raw());
    terminal.type_keys("q");
    assert_eq!(terminal.wait().code(), Some(0));
    terminal.assert_restored();
}

fn child_of(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}

fn state_of(pid: u32) -> char {
    // One that was waited for has none any more.
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return 'X';
    };
    let after = stat.rsplit(')').next().unwrap();
    after.trim_start().chars().next().unwrap()
}

/// Run by the test below in a process of its own.
#[test]
#[ignore = "panics on purpose, on the terminal that the next test gives it"]
fn a_dashboard_that_panics() {
    let _screen = shmtop::runtime::terminal::Screen::enter().unwrap();
    panic!("the reason of the panic");
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_is_reported() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--ignored",
        "--exact",
        "a_dashboard_that_panics",
        "--nocapture",
    ]);
    let mut terminal = Terminal::start(command);
    terminal.wait_for(ENTER_SCREEN);
    terminal.assert_restored();
    terminal.wait_for("the reason of the panic");
    assert!(!terminal.wait().success());
}
