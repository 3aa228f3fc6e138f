//! `record`: samples into a file, a frame each.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::settings::Settings;
use super::thin::thin;
use super::{Failure, Outcome, say};
use crate::recording::Recorder;
use crate::text;

/// Longest time until a signal is heard.
const NAP: Duration = Duration::from_millis(50);

/// Records until a signal, `period` or the count.
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
    let mut pages = 0;
    loop {
        let mut sample = world.sample();
        thin(&settings.choice, &mut sample);
        pages = pages.max(sample.pages.len());
        recorder.push(&sample).map_err(wrong)?;
        let left = period.map(|p| p.saturating_sub(start.elapsed()));
        let enough = settings.count.is_some_and(|n| recorder.frames() >= n);
        if enough
            || left == Some(Duration::ZERO)
            || !pause(left.map_or(step, |l| l.min(step)), &ended)
        {
            break;
        }
    }
    say(&format!(
        "{}: {} samples in {}\n",
        path.display(),
        recorder.frames(),
        text::ns(start.elapsed().as_nanos() as u64)
    ))?;
    if pages == 0 {
        return Err(Failure::NoEndpoint(
            "nothing was there to be recorded but the host; `shmtop ps` lists what is running"
                .into(),
        ));
    }
    Ok(())
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
