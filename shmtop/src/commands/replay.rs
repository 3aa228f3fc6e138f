//! `replay` without the dashboard, and `diff`: what a recording says, told by the same model and hints that looked at it live.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::nothing::in_the_way;
use super::settings::Settings;
use super::{
    Failure, Outcome, format, plain, play, pretty, privileges, say, say_before_verdict, verdict,
};
use crate::check::{Summary, Watch};
use crate::cli::{Format, Typed};
use crate::judge::Judge;
use crate::model::{Finding, Model, Severity, Subject};
use crate::recording::Recording;
use crate::runtime;
use crate::sample::Sample;
use crate::{report, text};

/// A recording being played through the model.
struct Player<'s> {
    settings: &'s Settings,
    path: &'s Path,
    recording: Recording<BufReader<File>>,
    judge: Judge,
    first_ns: Option<u64>,
    last_ns: u64,
}

impl<'s> Player<'s> {
    fn open(settings: &'s Settings, path: &'s Path) -> Result<Self, Failure> {
        Ok(Self {
            settings,
            path,
            recording: Recording::open(path)?,
            judge: settings.judge(),
            first_ns: None,
            last_ns: 0,
        })
    }

    /// The next sample and what is known then, of the endpoints that are wanted.
    fn step(&mut self) -> Result<Option<(Arc<Sample>, Model)>, Failure> {
        let next = self.recording.next_sample();
        let next = next.map_err(|e| Failure::Usage(format!("{}: {e}", self.path.display())))?;
        let Some(sample) = next else {
            return Ok(None);
        };
        let sample = Arc::new(sample);
        let mut model = self.judge.push(Arc::clone(&sample));
        self.settings.select(&mut model);
        self.first_ns.get_or_insert(model.at_ns);
        self.last_ns = model.at_ns;
        Ok(Some((sample, model)))
    }

    /// Why there is nothing to be said of a recording: what is on this machine now has nothing to do with it.
    fn nothing(&self, model: &Model, when: &str) -> Failure {
        let path = self.path.display();
        in_the_way(model).unwrap_or_else(|| {
            Failure::NoEndpoint(match self.settings.selects() {
                true => format!("{path}: no endpoint in it matches{when}"),
                false => format!("{path}: there is no endpoint in it{when}"),
            })
        })
    }

    /// Time since the first sample.
    fn at_ns(&self) -> u64 {
        self.last_ns
            .saturating_sub(self.first_ns.unwrap_or(self.last_ns))
    }
}

/// Whether [`replay`] opens the dashboard.
pub(super) fn is_shown(typed: Typed, at: Option<Duration>) -> bool {
    at.is_none() && !typed.format && runtime::no_screen().is_none()
}

/// The dashboard on a recording; without a terminal its findings as they came and went; with `at`, what `doctor` would have said
/// then.
pub(super) fn replay(settings: &Settings, path: &Path, at: Option<Duration>) -> Outcome {
    privileges::shed();
    if is_shown(settings.typed, at) {
        let recording = Recording::open(path)?;
        return play::live(settings, Box::new(recording));
    }
    let format = format(settings, "replay")?;
    let player = Player::open(settings, path)?;
    match at {
        Some(at) => then(player, at, format),
        None => told(player, format),
    }
}

fn then(mut player: Player<'_>, at: Duration, format: Format) -> Outcome {
    let mut latest = None;
    while let Some(step) = player.step()? {
        latest = Some(step);
        if u128::from(player.at_ns()) >= at.as_nanos() {
            break;
        }
    }
    let Some((_, model)) = latest else {
        return Err(Failure::NoEndpoint(format!(
            "{}: no samples",
            player.path.display()
        )));
    };
    if u128::from(player.at_ns()) < at.as_nanos() {
        return Err(Failure::Usage(format!(
            "{}: it is only {} long",
            player.path.display(),
            text::ns(player.at_ns())
        )));
    }
    if model.endpoints.is_empty() {
        return Err(player.nothing(&model, " at that moment"));
    }
    match format {
        Format::Json => say_before_verdict(&pretty(&report::doctor_json(&model)))?,
        _ => say_before_verdict(&plain(
            player.settings,
            report::doctor_text(&model, "choose a later --at"),
        ))?,
    }
    verdict(&model)
}

/// A finding that came or went.
struct Event {
    at_ns: u64,
    at_realtime_ns: u64,
    fires: bool,
    finding: Finding,
}

impl Event {
    fn word(&self) -> &'static str {
        if self.fires { "fires" } else { "clears" }
    }

    fn line(&self) -> String {
        let f = &self.finding;
        let seconds = self.at_ns as f64 / 1e9;
        let whom = subject(&f.subject);
        format!(
            "{seconds:>8.1} s  {:<6}  {} {}{whom}: {}\n",
            self.word(),
            f.severity.name(),
            f.id,
            f.says
        )
    }

    fn json(&self) -> Value {
        json!({
            "at_ns": self.at_ns, "at_realtime_ns": self.at_realtime_ns, "event": self.word(),
            "hint": report::hint_json(&self.finding),
        })
    }
}

/// Whom a finding concerns, if not everything.
fn subject(s: &Subject) -> String {
    match (&s.endpoint, s.client) {
        (Some(e), Some(c)) => format!(" ({e} client {c})"),
        (Some(e), None) => format!(" ({e})"),
        _ => String::new(),
    }
}

fn told(mut player: Player<'_>, format: Format) -> Outcome {
    let mut firing: BTreeMap<(&'static str, Subject), Finding> = BTreeMap::new();
    let mut events = Vec::new();
    let mut worst = None;
    // What was read of a damaged recording is told like any other; then, why there is no more.
    let mut damaged = None;
    let (mut seen, mut latest) = (false, None);
    loop {
        let model = match player.step() {
            Ok(Some((_, model))) => model,
            Ok(None) => break,
            Err(why) => {
                damaged = Some(why);
                break;
            }
        };
        worst = worst.max(model.worst());
        let from = events.len();
        let event = |fires, finding: &Finding| Event {
            at_ns: player.at_ns(),
            at_realtime_ns: model.at_realtime_ns,
            fires,
            finding: finding.clone(),
        };
        let now: BTreeMap<_, _> = model
            .findings
            .iter()
            // Not by the worst case of several, which changes.
            .map(|f| ((f.id, f.whom()), f.clone()))
            .collect();
        let came = now.iter().filter(|(key, _)| !firing.contains_key(key));
        events.extend(came.map(|(_, f)| event(true, f)));
        let went = firing.iter().filter(|(key, _)| !now.contains_key(key));
        events.extend(went.map(|(_, f)| event(false, f)));
        firing = now;
        seen |= !model.endpoints.is_empty();
        latest = Some(model);
        if format != Format::Json {
            for event in events.drain(from..) {
                say_before_verdict(&plain(player.settings, event.line()))?;
            }
        }
    }
    let recording = &player.recording;
    if format == Format::Json {
        let why = match &damaged {
            Some(Failure::Usage(why)) => Some(why),
            _ => None,
        };
        say_before_verdict(&pretty(&json!({
            "schema": 1, "recording": recording.name(), "samples": recording.frames(), "length_ns": player.at_ns(),
            "cut_off": recording.cut_off(), "damaged": why, "events": events.iter().map(Event::json).collect::<Vec<_>>(),
        })))?;
    } else {
        say_before_verdict(&format!(
            "{}: {} samples over {}{}; findings at the end: {}\n",
            recording.name(),
            recording.frames(),
            text::ns(player.at_ns()),
            match (recording.cut_off(), &damaged) {
                (true, _) => "; the end is cut off",
                (_, Some(_)) => "; what follows is damaged",
                _ => "",
            },
            firing.len()
        ))?;
    }
    if let Some(why) = damaged {
        return Err(why);
    }
    if let Some(model) = latest.filter(|_| !seen) {
        return Err(player.nothing(&model, ""));
    }
    if worst >= Some(Severity::Warn) {
        return Err(Failure::Findings);
    }
    Ok(())
}

/// Two recordings side by side.
pub(super) fn diff(settings: &Settings, a: &Path, b: &Path) -> Outcome {
    format(settings, "diff")?;
    // Before the first byte of a stranger's recording, as with `replay`.
    privileges::shed();
    let (x, y) = (watched(settings, a)?, watched(settings, b)?);
    let name = |p: &Path| text::clean(&p.file_name().unwrap_or(p.as_os_str()).to_string_lossy());
    say(&plain(settings, report::diff((&name(a), &name(b)), &x, &y)))
}

fn watched(settings: &Settings, path: &Path) -> Result<Summary, Failure> {
    let mut player = Player::open(settings, path)?;
    let mut watch = Watch::default();
    let (mut seen, mut latest) = (false, None);
    while let Some((sample, model)) = player.step()? {
        watch.look(&sample, &model);
        seen |= !model.endpoints.is_empty();
        latest = Some(model);
    }
    if let Some(model) = latest.filter(|_| !seen) {
        return Err(player.nothing(&model, ""));
    }
    Ok(watch.summary(|m| settings.select(m)))
}
