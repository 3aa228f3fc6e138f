//! Conducts one run: starts the processes, tells them when, collects what they say, and leaves nothing behind, whatever they do.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use crate::clock::monotonic_ns;
use crate::histogram::Histogram;
use crate::job::{ClientReport, Job, Plan, Said, Shape};
use crate::subject::Subject;
use crate::subject::drive::idle_tail;
use crate::system;

/// Starting a process and connecting its clients may take that long, and so may ending.
const PATIENCE: Duration = Duration::from_secs(20);
/// Work before counting begins: first touches, learning, connections of peers that are made on first use.
const WARM_UP: Duration = Duration::from_millis(250);
/// The same for idle runs: spinning that was worth it a moment ago has to prove pointless first.
const IDLE_WARM_UP: Duration = Duration::from_millis(1000);

/// One kind of work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) shape: Shape,
    pub(crate) size: usize,
    pub(crate) clients: usize,
    pub(crate) depth: usize,
    pub(crate) duration: Duration,
}

/// What a run measured.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    /// Requests of each client.
    pub(crate) requests: Vec<u64>,
    pub(crate) round_trips: Histogram,
    /// CPU time of server and clients.
    pub(crate) cpu_ns: u64,
    /// CPUs that others kept busy meanwhile, or the host took; `None` if /proc/stat can't be had.
    pub(crate) foreign_cpus: Option<f64>,
    /// Whether the transport in the processes' binary records statistics.
    pub(crate) records: bool,
}

/// What comes from a process.
enum Heard {
    Said(Said),
    /// It ended; why, if it should not have.
    Ended(String),
}

/// A process and the lines it says. Killed when dropped.
struct Player {
    child: Child,
    orders: Option<ChildStdin>,
}

impl Player {
    fn start(
        exe: &Path,
        role: &str,
        job: &Job,
        number: usize,
        heard: &Sender<(usize, Heard)>,
    ) -> io::Result<Self> {
        let mut command = Command::new(exe);
        command
            .args([role, &serde_json::to_string(job).map_err(io::Error::other)?])
            // Stats pages are announced here, and go with the run's directory.
            .env("SHMTOP_RUNTIME_DIR", &job.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: prctl is a bare system call, allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                // If we die, so does it: also by SIGKILL, when no destructor runs.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn()?;
        let orders = child.stdin.take();
        if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
            let heard = heard.clone();
            std::thread::spawn(move || listen(number, out, err, &heard));
        }
        Ok(Self { child, orders })
    }

    fn order(&mut self, plan: Plan) -> io::Result<()> {
        let mut line = serde_json::to_string(&plan).map_err(io::Error::other)?;
        line.push('\n');
        match &mut self.orders {
            Some(orders) => orders.write_all(line.as_bytes()),
            None => Err(io::Error::other("no way to tell it")),
        }
    }

    /// Lets it end by itself, if it does so soon.
    fn finish(&mut self, deadline: Instant) {
        self.orders = None;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // Both fail only if it has ended already, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes on what a process says until its end, and its standard error as the reason if it ended badly.
fn listen(
    number: usize,
    out: impl io::Read,
    mut err: impl io::Read,
    heard: &Sender<(usize, Heard)>,
) {
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        let said =
            serde_json::from_str(&line).unwrap_or_else(|_| Said::Failed(format!("said: {line}")));
        if heard.send((number, Heard::Said(said))).is_err() {
            return;
        }
    }
    let mut text = String::new();
    // Whatever was read until an error is what there is to say.
    let _ = err.read_to_string(&mut text);
    let last = text.trim().lines().last().unwrap_or("without a word");
    // Nobody listens any more once the run is over.
    let _ = heard.send((
        number,
        Heard::Ended(format!("process {number} ended: {last}")),
    ));
}

/// The directory of a run; removed with everything the processes left, inside and outside of it.
struct Place {
    dir: PathBuf,
    name: String,
}

impl Place {
    fn new() -> io::Result<Self> {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "compare{}x{}_",
            std::process::id(),
            RUNS.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(&name);
        std::fs::create_dir(&dir)?;
        // Only ours: stats pages are announced in it.
        std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        Ok(Self { dir, name })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing useful can be done if removing fails: the names are unique to this process.
        let _ = std::fs::remove_dir_all(&self.dir);
        for entry in std::fs::read_dir("/dev/shm")
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(self.name.as_bytes())
            {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// What is heard from the processes, with a limit.
struct Audience {
    heard: Receiver<(usize, Heard)>,
}

impl Audience {
    /// Waits until all numbers in `expected` have said something that `take` accepts.
    fn all(
        &self,
        mut expected: Vec<usize>,
        deadline: Instant,
        mut take: impl FnMut(Said) -> bool,
    ) -> io::Result<()> {
        while !expected.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok((_, Heard::Said(Said::Failed(why)))) => return Err(io::Error::other(why)),
                Ok((number, Heard::Said(said))) => {
                    if take(said) {
                        expected.retain(|&n| n != number);
                    }
                }
                Ok((number, Heard::Ended(why))) => {
                    if expected.contains(&number) {
                        return Err(io::Error::other(why));
                    }
                }
                Err(_) => {
                    return Err(io::Error::other(format!(
                        "{} process(es) hung, and were killed",
                        expected.len()
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Something done while the clients work, for runs that compare with and without it.
pub(crate) trait Meanwhile {
    /// The run's processes are at work; `dir` is their runtime directory.
    fn start(&mut self, dir: &Path) -> io::Result<()>;
    /// The warm-up is over.
    fn counting_begins(&mut self) -> io::Result<()>;
    /// The run is over.
    fn counting_ends(&mut self) -> io::Result<()>;
}

/// Nothing.
impl Meanwhile for () {
    fn start(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn counting_begins(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn counting_ends(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `work` on `subject` with processes of `exe`.
pub(crate) fn run(
    exe: &Path,
    subject: &dyn Subject,
    work: Work,
    cpus: Option<(usize, usize)>,
    meanwhile: &mut dyn Meanwhile,
) -> io::Result<Outcome> {
    let place = Place::new()?;
    let (tell, heard) = mpsc::channel();
    let audience = Audience { heard };
    let one_thread = work.clients == 1 || work.shape == Shape::Pipelined;
    let job = Job {
        subject: subject.id().into(),
        shape: work.shape,
        size: work.size,
        clients: work.clients,
        here: work.clients,
        first: 0,
        depth: work.depth,
        dir: place.dir.clone(),
        name: place.name.clone(),
        pin: cpus.filter(|_| one_thread),
    };
    let mut players = Vec::new();
    if !subject.one_process() {
        players.push(Player::start(exe, "role-server", &job, 0, &tell)?);
        audience.all(vec![0], Instant::now() + PATIENCE, |_| true)?;
    }
    let each = match work.shape {
        Shape::Processes | Shape::Idle if !subject.one_process() => 1,
        _ => work.clients,
    };
    for first in (0..work.clients).step_by(each) {
        let job = Job {
            first,
            here: each,
            ..job.clone()
        };
        players.push(Player::start(
            exe,
            "role-clients",
            &job,
            players.len(),
            &tell,
        )?);
    }
    let clients = usize::from(!subject.one_process())..players.len();
    let mut records = false;
    audience.all(clients.collect(), Instant::now() + PATIENCE, |said| {
        records = matches!(said, Said::Ready { records: true });
        true
    })?;

    let warm_up = if work.shape == Shape::Idle {
        IDLE_WARM_UP
    } else {
        WARM_UP
    };
    let begin_ns = monotonic_ns() + warm_up.as_nanos() as u64;
    let plan = Plan {
        begin_ns,
        end_ns: begin_ns + work.duration.as_nanos() as u64,
    };
    players
        .iter_mut()
        .try_for_each(|player| player.order(plan))?;
    meanwhile.start(&place.dir)?;
    crate::clock::sleep_until(plan.begin_ns);
    meanwhile.counting_begins()?;
    let (before, from) = (system::machine_busy_ns(), Instant::now());
    crate::clock::sleep_until(plan.end_ns);
    let (after, span) = (system::machine_busy_ns(), from.elapsed());
    meanwhile.counting_ends()?;

    let tail = if work.shape == Shape::Idle {
        idle_tail(work.clients)
    } else {
        Duration::ZERO
    };
    let (mut cpu, mut reports) = (0, Vec::<ClientReport>::new());
    audience.all(
        (0..players.len()).collect(),
        Instant::now() + tail + PATIENCE,
        |said| match said {
            Said::Done { cpu_ns, clients } => {
                cpu += cpu_ns;
                reports.extend(clients);
                true
            }
            _ => false,
        },
    )?;
    let end = Instant::now() + PATIENCE / 10;
    // The server last: clients say goodbye to it.
    players
        .iter_mut()
        .rev()
        .for_each(|player| player.finish(end));
    let mut round_trips = Histogram::new();
    reports
        .iter()
        .for_each(|report| round_trips.merge(&report.round_trips));
    Ok(Outcome {
        seconds: work.duration.as_secs_f64(),
        requests: reports.iter().map(|report| report.requests).collect(),
        round_trips,
        cpu_ns: cpu,
        foreign_cpus: before.zip(after).map(|(before, after)| {
            let busy = (after.0 - before.0) as f64 - cpu as f64;
            let stolen = (after.1 - before.1) as f64;
            (busy.max(0.0) + stolen) / span.as_nanos() as f64
        }),
        records,
    })
}
