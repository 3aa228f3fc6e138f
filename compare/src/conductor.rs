//! Conducts one run: starts the processes, tells them when, collects what they say, and leaves nothing behind, whatever they do.

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::clock::{monotonic_ns, sleep_until};
use crate::histogram::Sparse;
use crate::job::{ClientReport, Job, Plan, Said, Shape};
use crate::place::Place;
use crate::players::{Audience, Player};
use crate::probe::{Probed, Regime, line_round_trip, line_samples};
use crate::subject::Subject;
use crate::subject::drive::idle_tail;
use crate::system;

/// Starting a process and connecting its clients may take that long, and so may ending.
const PATIENCE: Duration = Duration::from_secs(20);
/// Work before counting begins: first touches, learning, connections of peers that are made on first use.
const WARM_UP: Duration = Duration::from_millis(500);
/// The same for idle runs: spinning that was worth it a moment ago has to prove pointless first.
const IDLE_WARM_UP: Duration = Duration::from_millis(1000);

/// Probes of the cores during a run that tell its regime; where there are fewer, one before and one after it do.
const FEWEST_SAMPLES: usize = 3;

/// One kind of work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) shape: Shape,
    pub(crate) size: usize,
    pub(crate) clients: usize,
    pub(crate) depth: usize,
    pub(crate) think: Duration,
    pub(crate) duration: Duration,
}

/// What a run measured.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    /// Requests of each client.
    pub(crate) requests: Vec<u64>,
    pub(crate) round_trips: Sparse,
    /// CPU time of server and clients.
    pub(crate) cpu_ns: u64,
    /// CPUs that others kept busy meanwhile, or the host took; `None` if /proc/stat can't be had.
    pub(crate) foreign_cpus: Option<f64>,
    /// Whether the transport in the processes' binary records statistics.
    pub(crate) records: bool,
    /// A line's round trips in ns.
    pub(crate) lines_ns: Vec<f64>,
    pub(crate) probed: Probed,
}

impl Outcome {
    /// How the two cores stood to each other while it was measured.
    pub(crate) fn regime(&self) -> Regime {
        Regime::of(&self.lines_ns)
    }
}

/// Something done while the clients work.
pub(crate) trait Meanwhile {
    /// The run's processes are at work; `dir` is their runtime directory.
    fn start(&mut self, dir: &Path) -> io::Result<()>;
    /// The warm-up is over; the run is so at `end_ns` (monotonic), before which this returns.
    fn counting(&mut self, end_ns: u64) -> io::Result<()>;
}

/// Nothing.
impl Meanwhile for () {
    fn start(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn counting(&mut self, _: u64) -> io::Result<()> {
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
        think: work.think,
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

    let line_before = line_round_trip(cpus);
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
    sleep_until(plan.begin_ns);
    let (before, from) = (system::machine_busy_ns(), Instant::now());
    let (mut lines_ns, done) = std::thread::scope(|scope| {
        let sampling = scope.spawn(|| match work.shape {
            // Who is idle is not to be woken.
            Shape::Idle => Vec::new(),
            _ => line_samples(cpus, plan.end_ns),
        });
        let done = meanwhile.counting(plan.end_ns);
        // A panic there is a bug, and was reported.
        (sampling.join().unwrap_or_default(), done)
    });
    done?;
    sleep_until(plan.end_ns);
    let (after, span) = (system::machine_busy_ns(), from.elapsed());
    let tail = if work.shape == Shape::Idle {
        idle_tail(work.clients)
    } else {
        Duration::ZERO
    };
    sleep_until(plan.end_ns + tail.as_nanos() as u64);
    // The host moves CPUs when they become busy, and again when they are not: probes around a run say little about what was counted,
    // least of all where 1,000 clients take a second to connect.
    let mut probed = Probed::During;
    if lines_ns.len() < FEWEST_SAMPLES {
        probed = Probed::Around;
        lines_ns = line_before
            .into_iter()
            .chain(line_round_trip(cpus))
            .collect();
    }

    let (mut cpu, mut reports) = (0, Vec::<ClientReport>::new());
    audience.all(
        (0..players.len()).collect(),
        Instant::now() + PATIENCE,
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
    let round_trips = Sparse::sum(reports.iter().map(|report| &report.round_trips));
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
        lines_ns,
        probed,
    })
}
