//! Starts a soak's processes, kills, stops and starves them, and now and then lets all rest, to see what is left.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::dice::Dice;
use super::process::{Process, wait};
use super::{Options, Outcome};
use crate::failure::{FAULT, Failure};

/// How much a process may grow after its first rest: allocators keep some of what was freed.
pub(super) const GROWTH_BYTES: u64 = 16 << 20;
/// Between rests.
const REST_EVERY: Duration = Duration::from_secs(20);
/// How long a server that everybody has left may take to be as it always is then: its housekeeping comes by once a second, and takes
/// back a reserve descriptor that it gave up while it was short of them.
const SETTLED: Duration = Duration::from_millis(2500);

struct Soak<'a> {
    options: &'a Options,
    dir: PathBuf,
    dice: Dice,
    server: Process,
    clients: Vec<Process>,
    outcome: Outcome,
    /// Descriptors of a server that nobody is connected to; the same for each of them.
    idle_fds: Option<usize>,
}

/// Runs the soak.
pub(super) fn run(options: &Options) -> Result<Outcome, Failure> {
    let dir = std::env::temp_dir().join(format!("soak-{}", std::process::id()));
    std::fs::create_dir(&dir).map_err(|e| Failure::io(&dir.display().to_string(), &e))?;
    let outcome = Soak::run(options, &dir);
    // Nothing in it is of use to anybody.
    let _ = std::fs::remove_dir_all(&dir);
    outcome
}

impl Soak<'_> {
    fn run(options: &Options, dir: &Path) -> Result<Outcome, Failure> {
        let server = start_server(dir, options)?;
        let clients: Result<Vec<_>, _> = (0..options.clients)
            .map(|n| Process::start(dir, options, "client", n))
            .collect();
        let mut soak = Soak {
            options,
            dir: dir.into(),
            dice: Dice::new(options.seed),
            server,
            clients: clients?,
            outcome: Outcome::default(),
            idle_fds: None,
        };
        let (begun, mut rested) = (Instant::now(), Instant::now());
        while begun.elapsed() < options.time || soak.messages() < options.messages {
            let pause = options.pause.mul_f64(soak.dice.below(2000) as f64 / 1000.0);
            std::thread::sleep(pause);
            soak.inject()?;
            soak.look_for_crashes()?;
            if rested.elapsed() > REST_EVERY {
                soak.rest()?;
                rested = Instant::now();
                soak.wake();
            }
        }
        soak.rest()?;
        soak.outcome.seconds = begun.elapsed().as_secs_f64();
        let Soak {
            mut outcome,
            server,
            clients,
            ..
        } = soak;
        for process in clients.iter().chain([&server]) {
            outcome.tally.add(&process.heard(|heard| heard.tally));
        }
        Ok(outcome)
    }

    fn messages(&self) -> u64 {
        let now = self
            .clients
            .iter()
            .map(|c| c.heard(|heard| heard.tally.messages));
        self.outcome.tally.messages + now.sum::<u64>()
    }

    fn count(&mut self, fault: &'static str) {
        match self
            .outcome
            .faults
            .iter_mut()
            .find(|(name, _)| *name == fault)
        {
            Some((_, n)) => *n += 1,
            None => self.outcome.faults.push((fault, 1)),
        }
    }

    /// One fault, whichever the dice say.
    fn inject(&mut self) -> Result<(), Failure> {
        let n = self.dice.below(self.clients.len() as u64) as usize;
        let time = Duration::from_millis(1 + self.dice.below(600));
        match self.dice.below(40) {
            0..12 => {
                self.count("clients killed");
                let next = Process::start(&self.dir, self.options, "client", n as u32)?;
                let dead = std::mem::replace(&mut self.clients[n], next);
                self.bury(dead);
            }
            12..15 => {
                self.count("servers killed");
                // The path must be free before the next one comes. Whether it had ended before, `bury` asks again.
                self.server.end();
                let next = start_server(&self.dir, self.options)?;
                let dead = std::mem::replace(&mut self.server, next);
                self.bury(dead);
            }
            15..21 => {
                self.count("clients stopped");
                self.clients[n].signal(Signal::SIGSTOP);
                std::thread::sleep(time);
                self.clients[n].signal(Signal::SIGCONT);
            }
            21..27 => {
                self.count("servers stopped");
                self.server.signal(Signal::SIGSTOP);
                std::thread::sleep(time);
                self.server.signal(Signal::SIGCONT);
            }
            27..32 => {
                self.count("servers short of descriptors");
                starve(&mut self.server, time);
            }
            32..37 => {
                self.count("clients short of descriptors");
                starve(&mut self.clients[n], time);
            }
            _ => {
                self.count("all clients killed at once");
                for n in 0..self.clients.len() {
                    let next = Process::start(&self.dir, self.options, "client", n as u32)?;
                    let dead = std::mem::replace(&mut self.clients[n], next);
                    self.bury(dead);
                }
            }
        }
        Ok(())
    }

    /// Kills a process unless it has ended by itself, which is counted, and keeps what it has said.
    fn bury(&mut self, mut dead: Process) {
        self.outcome.crashes += u64::from(!dead.end());
        self.outcome.tally.add(&dead.heard(|heard| heard.tally));
    }

    /// A process that has ended was not killed by us: those are replaced at once. [`Self::bury`] counts it.
    fn look_for_crashes(&mut self) -> Result<(), Failure> {
        for n in 0..self.clients.len() {
            if self.clients[n].has_ended() {
                let next = Process::start(&self.dir, self.options, "client", n as u32)?;
                let dead = std::mem::replace(&mut self.clients[n], next);
                self.bury(dead);
            }
        }
        if self.server.has_ended() {
            let next = start_server(&self.dir, self.options)?;
            let dead = std::mem::replace(&mut self.server, next);
            self.bury(dead);
        }
        Ok(())
    }

    /// All clients disconnect; what the server holds then is a leak.
    fn rest(&mut self) -> Result<(), Failure> {
        self.clients.iter_mut().for_each(|c| c.tell("rest"));
        wait("clients to rest", || {
            self.clients.iter().all(|c| c.heard(|heard| heard.resting))
        })?;
        let idle = match self.idle_fds {
            Some(idle) => idle,
            None => {
                wait("the server's rings to go", || self.server.rings() == 0)?;
                std::thread::sleep(SETTLED);
                *self.idle_fds.insert(self.server.fds())
            }
        };
        // It learns of its clients' ends one after the other.
        let mut left = (0, 0);
        let gone = wait("the server to give back", || {
            left = (self.server.fds().saturating_sub(idle), self.server.rings());
            left == (0, 0)
        });
        if gone.is_err() {
            self.outcome.leaked_fds += left.0 as u64;
            self.outcome.leaked_rings += left.1;
        }
        let lines = self.server.heard(|heard| heard.lines);
        self.server.tell("tally");
        wait("the server's counts", || {
            self.server.heard(|heard| heard.lines) > lines
        })?;
        for process in self.clients.iter_mut().chain([&mut self.server]) {
            let Some(now) = process.anonymous() else {
                continue;
            };
            let before = *process.anonymous.get_or_insert(now);
            let most = before + GROWTH_BYTES;
            if now > most {
                self.outcome.leaked_bytes += now - most;
                process.anonymous = Some(now);
            }
        }
        Ok(())
    }

    fn wake(&mut self) {
        for client in &mut self.clients {
            client.heard(|heard| heard.resting = false);
            client.tell("go");
        }
    }
}

fn start_server(dir: &Path, options: &Options) -> Result<Process, Failure> {
    let mut server = Process::start(dir, options, "server", 0)?;
    wait("a server", || {
        server.heard(|heard| heard.ready) || server.has_ended()
    })?;
    if server.has_ended() {
        return Err(Failure::new(FAULT, "a server could not start"));
    }
    Ok(server)
}

/// Leaves a process few more descriptors than it has, for a while.
fn starve(process: &mut Process, time: Duration) {
    process.tell("few");
    std::thread::sleep(time);
    process.tell("many");
}
