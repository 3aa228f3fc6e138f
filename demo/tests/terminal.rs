//! The demo in a terminal: live until somebody leaves, and then as if it had never been there.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::{Arc, Mutex};

use common::{Place, wait_until};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;

const ROWS: u16 = 40;
const COLUMNS: u16 = 120;

/// A demo in a terminal of its own.
struct Shown {
    keyboard: File,
    terminal: OwnedFd,
    before: Termios,
    screen: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Shown {
    fn start(place: &Place, args: &str) -> Self {
        let size = Winsize {
            ws_row: ROWS,
            ws_col: COLUMNS,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None).expect("a terminal");
        let before = tcgetattr(&pty.slave).expect("its state");
        let end = || pty.slave.try_clone().expect("a descriptor");
        let mut command = place.command("demo", args);
        command.env("TERM", "xterm-256color");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn();
        let screen = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&screen);
        let keyboard = File::from(pty.master);
        let mut output = keyboard.try_clone().expect("a descriptor");
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of a terminal is an error.
            while let Ok(n) = output.read(&mut bytes) {
                seen.lock().expect("no panic").extend(&bytes[..n]);
            }
        });
        Self {
            keyboard,
            terminal: pty.slave,
            before,
            screen,
            child: child.expect("it starts"),
        }
    }

    fn wait_for(&self, text: &str) {
        wait_until(text, || {
            let screen = self.screen.lock().expect("no panic");
            screen.windows(text.len()).any(|w| w == text.as_bytes())
        });
    }

    /// What stands on the screen now.
    fn shown(&self) -> String {
        let mut screen = vt100::Parser::new(ROWS, COLUMNS, 0);
        screen.process(&self.screen.lock().expect("no panic"));
        screen.screen().contents()
    }

    fn wait_to_see(&self, what: &str, is_there: impl Fn(&str) -> bool) {
        wait_until(what, || is_there(&self.shown()));
    }

    /// Of a frame only what changed is printed, so that a word may come in pieces.
    fn wait_for_the_exchange(&self) {
        self.wait_to_see("the exchange's row", |screen| screen.contains("exchange"));
    }

    fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("a keyboard");
    }

    /// Waits for its end; checks that the terminal is as before. Returns the exit code.
    fn ended(mut self) -> Option<i32> {
        let mut status = None;
        wait_until("its end", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        let after = tcgetattr(&self.terminal).expect("its state");
        assert_eq!(after, self.before, "the terminal is as before");
        status.and_then(|s| s.code())
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Requests per second of each client in the table, as they stand there: `23.4 k`.
fn rates(screen: &str) -> Vec<String> {
    let rows = screen.lines().skip_while(|l| !l.contains("CLIENT")).skip(1);
    let cells = rows.map(|l| l.split_whitespace().collect::<Vec<_>>());
    let of_clients = cells.filter(|c| c.len() > 5 && c[1].parse::<u32>().is_ok() && c[3] == "shm");
    let rate = |c: Vec<&str>| match c[5] {
        unit @ ("k" | "M") => format!("{} {unit}", c[4]),
        _ => c[4].to_owned(),
    };
    of_clients.map(rate).collect()
}

#[test]
fn its_clients_are_seen_at_work_and_go_on() {
    let place = Place::new();
    let mut demo = Shown::start(&place, "--clients 3");
    let at_work = |rate: &String| rate.starts_with(|c: char| ('1'..='9').contains(&c));
    demo.wait_to_see("three clients on shared memory, all at work", |screen| {
        let rates = rates(screen);
        screen.contains("3 clients: 3 shm") && rates.len() == 3 && rates.iter().all(at_work)
    });
    // Another look has other numbers: a picture that stands still would pass for a live one.
    let first = rates(&demo.shown());
    assert_eq!(first.len(), 3);
    demo.wait_to_see("newer rates of all three", |screen| {
        let now = rates(screen);
        now.len() == 3 && now.iter().zip(&first).all(|(a, b)| at_work(a) && a != b)
    });
    demo.press(b"q");
    assert_eq!(demo.ended(), Some(0));
    place.wait_for_processes(0);
}

#[test]
fn it_is_live_until_q_and_nothing_is_left_behind() {
    for key in [&b"q"[..], b"\x03"] {
        let place = Place::new();
        let mut demo = Shown::start(&place, "--clients 3");
        place.wait_for_processes(5);
        demo.wait_for_the_exchange();
        demo.press(key);
        assert_eq!(demo.ended(), Some(0), "{key:?}");
        place.wait_for_processes(0);
        assert_eq!(place.files(), [""; 0]);
    }
}

#[test]
fn a_signal_ends_it_with_the_terminal_as_before() {
    let place = Place::new();
    let demo = Shown::start(&place, "--clients 3");
    place.wait_for_processes(5);
    demo.wait_for_the_exchange();
    kill(Pid::from_raw(demo.child.id() as i32), Signal::SIGTERM).expect("a child");
    assert_eq!(demo.ended(), Some(128 + Signal::SIGTERM as i32));
    place.wait_for_processes(0);
    assert_eq!(place.files(), [""; 0]);
}

/// To end one of its processes is one of the things to try.
#[test]
fn a_child_that_ended_is_named_in_the_end_and_leaves_the_exit_code_to_the_way_out() {
    for (key, signal, code) in [
        (&b"q"[..], None, 0),
        (b"", Some(Signal::SIGTERM), 128 + Signal::SIGTERM as i32),
    ] {
        let place = Place::new();
        let mut demo = Shown::start(&place, "--clients 2");
        place.wait_for_processes(4);
        demo.wait_for_the_exchange();
        place.kill_one("__exchange");
        // Its traders may end with it, one by one.
        wait_until("its end", || place.processes().len() <= 3);
        demo.press(key);
        if let Some(signal) = signal {
            kill(Pid::from_raw(demo.child.id() as i32), signal).expect("a child");
        }
        demo.wait_for("ended with signal: 9 (SIGKILL)");
        assert_eq!(demo.ended(), Some(code));
        place.wait_for_processes(0);
        assert_eq!(place.files(), [""; 0]);
    }
}

#[test]
fn a_child_that_crashes_while_the_demo_ends_is_named_and_leaves_the_exit_code() {
    let place = Place::new();
    let mut demo = Shown::start(&place, "--clients 2");
    place.wait_for_processes(4);
    demo.wait_for_the_exchange();
    place.doom_one("__trader", Signal::SIGUSR1);
    demo.press(b"q");
    demo.wait_for("ended with signal: 10 (SIGUSR1)");
    assert_eq!(demo.ended(), Some(0));
    place.wait_for_processes(0);
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn a_duration_ends_it_in_a_terminal_too() {
    let place = Place::new();
    let demo = Shown::start(&place, "--clients 2 --duration 1s");
    // A frame with rows in it may take longer than that.
    demo.wait_for("\x1b[?1049h");
    assert_eq!(demo.ended(), Some(0));
    place.wait_for_processes(0);
}
