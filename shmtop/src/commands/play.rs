//! Recordings and the dashboard: `record`, `replay`, `diff`, and the way into the runtime.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, BufReader, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

use super::settings::Settings;
use super::{Failure, Outcome, say};
use crate::check::{Summary, Watch};
use crate::model::{Finding, ModelBuilder, Subject};
use crate::recording::{Recorder, Recording};
use crate::runtime::{self, Ending, SampleSource};
use crate::sample::Sample;
use crate::source::World;
use crate::{report, text};

/// Shows the dashboard.
pub(super) fn live(settings: &Settings, source: Box<dyn SampleSource>) -> Outcome {
    let source = Box::new(Selected {
        source,
        pids: settings.pids.clone(),
        name: settings.name.clone(),
    });
    let ending = runtime::run(
        source,
        runtime::Settings {
            interval: settings.delay.unwrap_or(runtime::DEFAULT_INTERVAL),
            state: settings.state.clone(),
            duration: None,
        },
    )?;
    match ending {
        Ending::Quit | Ending::Elapsed => Ok(()),
        other => Err(Failure::Code(other.exit_code())),
    }
}

/// A source that leaves out pages that are not wanted.
struct Selected {
    source: Box<dyn SampleSource>,
    pids: Vec<u32>,
    name: Option<String>,
}

impl SampleSource for Selected {
    fn next_sample(&mut self) -> Result<Option<Sample>, String> {
        let mut sample = self.source.next_sample()?;
        if let Some(sample) = &mut sample {
            // The other ends stay: a row joins both pages.
            let mut connections = Vec::new();
            let wanted = |p: &crate::sample::Page| {
                (self.pids.is_empty() || self.pids.contains(&p.pid))
                    && self.name.as_ref().is_none_or(|n| {
                        p.snapshot()
                            .is_some_and(|s| s.name.to_lowercase().contains(&n.to_lowercase()))
                    })
            };
            for s in sample
                .pages
                .iter()
                .filter(|p| wanted(p))
                .filter_map(|p| p.snapshot())
            {
                connections.extend(s.slots.iter().map(|slot| slot.info.connection_id));
            }
            sample.pages.retain(|p| {
                wanted(p)
                    || p.snapshot().is_some_and(|s| {
                        s.slots
                            .iter()
                            .any(|slot| connections.contains(&slot.info.connection_id))
                    })
            });
        }
        Ok(sample)
    }

    fn recording(&self) -> Option<String> {
        self.source.recording()
    }

    fn look_closely(&mut self, pids: &std::collections::BTreeSet<u32>) {
        self.source.look_closely(pids);
    }
}

impl SampleSource for Recording<BufReader<std::fs::File>> {
    fn next_sample(&mut self) -> Result<Option<Sample>, String> {
        Recording::next_sample(self)
    }

    fn recording(&self) -> Option<String> {
        Some(self.name().to_owned())
    }
}

/// Records until Ctrl-C, `period` or the count.
pub(super) fn record(settings: &Settings, path: &Path, period: Option<Duration>) -> Outcome {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|e| in_file(path, &e))?;
    let wrong = |e: io::Error| in_file(path, &e);
    let mut recorder = Recorder::new(file).map_err(wrong)?;
    let step = settings.delay_or(0.5);
    let start = Instant::now();
    let mut world = World::new(settings.world());
    loop {
        recorder
            .push(&world.sample())
            .map_err(|e| in_file(path, &e))?;
        let left = period.map(|p| p.saturating_sub(start.elapsed()));
        if settings.count.is_some_and(|n| recorder.frames() >= n) || left == Some(Duration::ZERO) {
            break;
        }
        std::thread::sleep(left.map_or(step, |l| step.min(l)));
    }
    say(&format!(
        "{}: {} samples in {}\n",
        path.display(),
        recorder.frames(),
        text::ns(start.elapsed().as_nanos() as u64)
    ))
}

fn in_file(path: &Path, e: &io::Error) -> Failure {
    let text = format!("{}: {e}", path.display());
    match e.kind() {
        io::ErrorKind::PermissionDenied => Failure::Permission(text),
        _ => Failure::Usage(text),
    }
}

/// The dashboard on a recording; without a terminal its findings as they came and went.
pub(super) fn replay(settings: &Settings, path: &Path) -> Outcome {
    let recording = Recording::open(path).map_err(Failure::Usage)?;
    if io::stdout().is_terminal() {
        return live(settings, Box::new(recording));
    }
    told(settings, recording)
}

fn told(settings: &Settings, mut recording: Recording<BufReader<std::fs::File>>) -> Outcome {
    let mut builder = ModelBuilder::new();
    let mut firing: BTreeMap<(&'static str, Subject), Finding> = BTreeMap::new();
    let mut first_ns = None;
    let mut last_ns = 0;
    let mut worst = None;
    while let Some(sample) = Recording::next_sample(&mut recording).map_err(Failure::Usage)? {
        let mut model = builder.push(sample);
        settings.select(&mut model);
        last_ns = model.at_ns;
        let at = model
            .at_ns
            .saturating_sub(*first_ns.get_or_insert(model.at_ns));
        let at = format!("{:>8.1} s", at as f64 / 1e9);
        worst = worst.max(model.worst());
        let now: BTreeMap<_, _> = model
            .findings
            .into_iter()
            .map(|f| ((f.id, f.subject.clone()), f))
            .collect();
        for (key, f) in &now {
            if !firing.contains_key(key) {
                say(&format!(
                    "{at}  fires   {} {}: {}\n",
                    f.severity.name(),
                    f.id,
                    f.says
                ))?;
            }
        }
        for (key, f) in &firing {
            if !now.contains_key(key) {
                say(&format!(
                    "{at}  clears  {} {}: {}\n",
                    f.severity.name(),
                    f.id,
                    f.says
                ))?;
            }
        }
        firing = now;
    }
    let length = last_ns.saturating_sub(first_ns.unwrap_or(last_ns));
    let cut = if recording.cut_off() {
        "; the end is cut off"
    } else {
        ""
    };
    say(&format!(
        "{}: {} samples over {}{cut}; {} findings at the end\n",
        recording.name(),
        recording.frames(),
        text::ns(length),
        firing.len()
    ))?;
    if worst >= Some(crate::model::Severity::Warn) {
        return Err(Failure::Findings);
    }
    Ok(())
}

/// Two recordings side by side.
pub(super) fn diff(settings: &Settings, a: &Path, b: &Path) -> Outcome {
    let (x, y) = (figures(settings, a)?, figures(settings, b)?);
    let name = |p: &Path| text::clean(&p.file_name().unwrap_or(p.as_os_str()).to_string_lossy());
    say(&report::diff((&name(a), &name(b)), &x, &y))
}

fn figures(settings: &Settings, path: &Path) -> Result<Summary, Failure> {
    let mut recording = Recording::open(path).map_err(Failure::Usage)?;
    let mut builder = ModelBuilder::new();
    let mut watch = Watch::default();
    while let Some(sample) = Recording::next_sample(&mut recording)
        .map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?
    {
        let mut model = builder.push(sample.clone());
        settings.select(&mut model);
        watch.look(&sample, &model);
    }
    Ok(watch.summary(|m| settings.select(m)))
}
