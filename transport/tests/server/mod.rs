//! A server in a process of its own, to be killed and stopped: the test program itself, started with only [`server_process`] to run.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses its own part"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use transport::{Config, Membrane};

/// Ends a hang; nothing in the tests takes a tenth of it.
pub const WATCHDOG: Duration = Duration::from_secs(30);
const PATH: &str = "TRANSPORT_TEST_SERVER";

/// Echoes, but a request of `hold` is never answered.
#[test]
fn server_process() {
    let Ok(path) = std::env::var(PATH) else {
        return;
    };
    let config = Config {
        stats_dir: Some(format!("{path}.stats").into()),
        ..Config::default()
    };
    let _server = Membrane::bind(&path, &config, |request, reply| {
        if request == b"hold" {
            std::thread::sleep(2 * WATCHDOG);
        }
        reply.extend_from_slice(request).expect("as large");
    })
    .expect("a server");
    println!("\nlistening");
    // Until it is killed.
    std::thread::sleep(2 * WATCHDOG);
}

pub struct Server(Child);

impl Server {
    /// Starts one and waits until it listens.
    pub fn start(path: &Path) -> Self {
        let exe = std::env::current_exe().expect("this test");
        let mut child = Command::new(exe)
            .args(["--exact", "server::server_process", "--nocapture"])
            .env(PATH, path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let stdout = child.stdout.take().expect("piped");
        let listening = BufReader::new(stdout)
            .lines()
            .any(|line| line.expect("text") == "listening");
        assert!(listening, "the server ended early");
        Self(child)
    }

    pub fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        nix::sys::signal::kill(pid, signal).expect("our child");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
