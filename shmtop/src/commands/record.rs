//! `record`: samples into a file, a frame each.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use transport::stats::Snapshot;

use super::settings::Settings;
use super::thin::Thin;
use super::watch::{Deaths, still_there};
use super::{Failure, Outcome, nothing, say_before_verdict};
use crate::model::Choice;
use crate::model::join::{is_connection, key};
use crate::recording::Recorder;
use crate::sample::{Page, Sample};
use crate::text;

/// Longest time until a signal is heard.
const NAP: Duration = Duration::from_millis(50);

/// Records until a signal, `period` or the count, or until a process that was asked for has ended.
pub(super) fn record(settings: &Settings, path: &Path, period: Option<Duration>) -> Outcome {
    let wrong = |e: io::Error| in_file(path, &e);
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended))?;
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(wrong)?;
    let mut recorder = Recorder::new(file).map_err(wrong)?;
    let mut world = super::world(settings);
    let step = settings.delay_or(0.5);
    let start = Instant::now();
    let choice = &settings.choice;
    let mut seen = BTreeSet::new();
    let mut deaths = Deaths::default();
    let mut recorded = Thin::new(choice);
    let (last, live) = loop {
        let mut sample = world.sample();
        // Before what is not wanted goes: who ended may be known by connections that the other side has closed meanwhile.
        deaths.look(&sample, connections(choice, &sample));
        recorded.thin(&mut sample);
        recorder.push(&sample).map_err(wrong)?;
        let live: BTreeSet<_> = wanted(choice, &sample).map(|(p, s)| key(p, s)).collect();
        seen.extend(live.iter().cloned());
        let left = period.map(|p| p.saturating_sub(start.elapsed()));
        let enough = settings.count.is_some_and(|n| recorder.frames() >= n);
        // Of a name somebody may come again; a process that was asked for does not.
        let over = !choice.pids.is_empty() && still_there(choice, &seen, &live).is_err();
        if enough
            || over
            || left == Some(Duration::ZERO)
            || !pause(left.map_or(step, |l| l.min(step)), &ended)
        {
            break (sample, live);
        }
    };
    say_before_verdict(&format!(
        "{}: {} samples in {}\n",
        path.display(),
        recorder.frames(),
        text::ns(start.elapsed().as_nanos() as u64)
    ))?;
    still_there(choice, &seen, &live)?;
    deaths.nobody()?;
    let mut model = settings.judge().push(last.clone());
    settings.select(&mut model);
    nothing::endpoints(&model, &last, settings).map_err(|why| match why {
        Failure::NoEndpoint(_) if choice.pids.is_empty() => Failure::NoEndpoint(
            "nothing was there to be recorded but the host; `shmtop ps` lists what is running"
                .into(),
        ),
        other => other,
    })
}

/// The pages that can be read of those that were asked for; others are recorded for the sake of these.
fn wanted<'s>(
    choice: &Choice,
    sample: &'s Sample,
) -> impl Iterator<Item = (&'s Page, &'s Snapshot)> {
    let pages = sample.pages.iter().filter_map(|p| Some((p, p.snapshot()?)));
    pages.filter(|(p, s)| choice.wants(p.pid, &s.name))
}

/// Their connections.
fn connections(choice: &Choice, sample: &Sample) -> impl Iterator<Item = u64> {
    let slots = wanted(choice, sample).flat_map(|(_, s)| &s.slots);
    slots
        .filter(|slot| is_connection(slot))
        .map(|slot| slot.info.connection_id)
}

/// Lets time pass; false if a signal came.
fn pause(time: Duration, ended: &AtomicBool) -> bool {
    let until = Instant::now() + time;
    // Relaxed: the flag is all there is, nothing is published with it.
    while !ended.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(NAP));
    }
    false
}

fn in_file(path: &Path, e: &io::Error) -> Failure {
    let text = format!("{}: {e}", path.display());
    match e.kind() {
        io::ErrorKind::PermissionDenied => Failure::Permission(text),
        _ => Failure::Usage(text),
    }
}
