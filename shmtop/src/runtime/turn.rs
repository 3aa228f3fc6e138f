//! One turn after the other: wait, take signals, keys ([`input`]) and models, draw.

mod input;

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::feed::{Fed, Feed, Focus, SampleSource};
use super::pace::Pace;
use super::signals::Signals;
use super::terminal::Screen;
use super::tty::Tty;
use super::utc_offset::utc_offset_s;
use super::{Ending, Settings};
use crate::model::Model;
use crate::source::thread_cpu_ns;
use crate::ui::state::Replay;
use crate::ui::{State, Status, TimeMove, Timeline};
use crate::view::{Hits, Scene, draw};

/// Longest wait between two frames of a recording: a hole in it is not sat out.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Shortest time between two frames that nobody asked for: faster than five a second no number can be read. What is
/// typed is answered at once.
const FRAME: Duration = Duration::from_millis(180);
/// And this many times the CPU time that a frame costs: a large terminal is drawn less often, but not less than twice a second.
const FRAME_REST: u32 = 400;
const FRAME_AT_MOST: Duration = Duration::from_millis(480);

/// Everything the loop owns.
pub(super) struct Runtime {
    screen: Screen,
    signals: Signals,
    feed: Feed,
    pace: Pace,
    state: State,
    status: Status,
    timeline: Timeline,
    hits: Hits,
    /// Connections on the screen, in common with the thread that looks at them.
    on_screen: Arc<HashSet<u64>>,
    /// When to refresh next.
    due: Instant,
    /// Replay: the model that is read and not yet due.
    held: Option<Arc<Model>>,
    /// Replay while frozen: read on until this move can be made.
    goal: Option<TimeMove>,
    /// Moment of the first model, on CLOCK_MONOTONIC and in ns since 1970.
    began: Option<(u64, u64)>,
    /// Something changed that is to be seen at once: a key, a signal, the window.
    dirty: bool,
    /// crossterm may hold events though the terminal has nothing to read.
    unread: bool,
    /// There is a newer model than the one on the screen.
    newer: bool,
    /// A model with rates has come.
    rated: bool,
    /// When the last frame was drawn, and how long until the next that nobody asks for.
    drawn: Instant,
    rest: Duration,
}

/// What ended the loop, if anything did.
type Turn = io::Result<Option<Ending>>;

impl Runtime {
    /// Takes the terminal and the signals, and starts to look at the world.
    pub(super) fn start(source: Box<dyn SampleSource>, settings: Settings) -> io::Result<Self> {
        let signals = Signals::listen()?;
        let recording = source.recording();
        let feed = Feed::start(source, settings.choice)?;
        let screen = Screen::enter()?;
        let now = Instant::now();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix_s = unix.map_or(0, |d| d.as_secs());
        Ok(Self {
            screen,
            signals,
            feed,
            pace: Pace::new(settings.interval, now.elapsed().as_nanos() as u64 ^ unix_s),
            state: settings.state,
            status: Status {
                utc_offset_s: utc_offset_s(unix_s as i64),
                replay: recording.map(|name| Replay {
                    name,
                    speed: 1.0,
                    ..Replay::default()
                }),
                ..Status::default()
            },
            timeline: Timeline::default(),
            hits: Hits::default(),
            on_screen: Arc::default(),
            due: now,
            held: None,
            goal: None,
            began: None,
            dirty: true,
            unread: false,
            newer: false,
            rated: false,
            drawn: now,
            rest: FRAME,
        })
    }

    /// Runs until something ends it.
    pub(super) fn turn(&mut self, tty: &Tty, until: Option<Instant>) -> io::Result<Ending> {
        self.refresh();
        loop {
            let now = Instant::now();
            let rested = now.duration_since(self.drawn);
            // A model that is on its way is worth the moment that it takes, and does not take it from two CPUs at once.
            let patient = self.feed.is_asked() && rested < 2 * self.rest;
            if self.dirty || (self.newer && rested >= self.rest && !patient) {
                self.draw()?;
            }
            if until.is_some_and(|end| now >= end) {
                return Ok(Ending::Elapsed);
            }
            let mut wake = until.map_or(self.due, |end| end.min(self.due));
            if self.newer || (self.feed.is_asked() && !self.hears_the_bell(rested)) {
                // Unless a newer one comes first, and is drawn instead.
                wake = wake.min(self.drawn + 2 * self.rest);
            }
            let ready = self.wait(tty, wake.saturating_duration_since(now))?;
            if ready.tty_gone {
                return Ok(Ending::TerminalLost);
            }
            if ready.signal
                && let Some(ending) = self.take_signals()?
            {
                return Ok(ending);
            }
            if (ready.tty || self.unread)
                && let Some(ending) = self.take_keys(tty)?
            {
                return Ok(ending);
            }
            self.take_models()?;
            if Instant::now() >= self.due {
                self.refresh();
            }
        }
    }

    /// Whether an answer is worth waking up for. One that no frame would show yet is taken with the next look.
    fn hears_the_bell(&self, rested: Duration) -> bool {
        let at_once = !self.rated || self.status.replay.is_some();
        at_once || rested >= self.rest
    }

    /// Sleeps until there is something to do.
    fn wait(&self, tty: &Tty, longest: Duration) -> io::Result<Ready> {
        // Rounded up: waking a moment early would only mean another round of waiting.
        let longest = if self.unread { Duration::ZERO } else { longest };
        let ms = (longest.as_nanos().div_ceil(1_000_000)).min(1_000) as u16;
        let mut fds = [
            PollFd::new(tty.fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.fd(), PollFlags::POLLIN),
            PollFd::new(self.feed.fd(), PollFlags::POLLIN),
        ];
        let heard = if self.hears_the_bell(self.drawn.elapsed()) {
            3
        } else {
            2
        };
        match poll(&mut fds[..heard], PollTimeout::from(ms)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let tty = fds[0].revents().unwrap_or(PollFlags::empty());
        Ok(Ready {
            signal: fds[1].any().unwrap_or(true),
            tty: tty.contains(PollFlags::POLLIN),
            tty_gone: tty.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL),
        })
    }

    /// Time for the next picture: asks for a model, or in a replay shows the one that is due.
    fn refresh(&mut self) {
        let next = self.pace.next();
        self.due = Instant::now() + next;
        self.status.interval_ns = self.pace.interval().as_nanos() as u64;
        if self.status.replay.is_some() {
            if !self.timeline.is_frozen() || self.goal.is_some() {
                if let Some(model) = self.held.take() {
                    self.show(model);
                }
                if self.status.replay.as_ref().is_some_and(|r| r.ended) {
                    if self.goal.take().is_some() {
                        self.timeline.stand_still();
                        self.status.trouble = Some("the recording ends here".to_owned());
                    }
                } else {
                    self.feed.ask(Focus::default());
                }
            }
        } else {
            let focus = Focus {
                closely: self.looked_at(),
                on_screen: Arc::clone(&self.on_screen),
                interval: self.pace.interval(),
            };
            self.feed.ask(focus);
        }
    }

    /// Pids of the client that is open: its memory is worth a closer look.
    fn looked_at(&self) -> BTreeSet<u32> {
        let Some(open) = &self.state.client else {
            return BTreeSet::new();
        };
        let model = self.timeline.current();
        let peer = model.and_then(|m| {
            m.rows()
                .find(|(e, c)| open.is(e, c))
                .map(|(_, c)| c.peer_pid)
        });
        peer.into_iter().chain([open.endpoint.pid]).collect()
    }

    fn take_models(&mut self) -> io::Result<()> {
        while let Some(fed) = self.feed.take() {
            match fed {
                Fed::Model(model) if self.status.replay.is_some() => self.hold(model),
                Fed::Model(model) => {
                    if let (Ok(share), Ok(interval)) = (&model.viewer_cpu, &model.interval_ns) {
                        self.pace.observe(*share, *interval);
                    }
                    self.show(model);
                }
                Fed::Glance(model) => self.show(model),
                Fed::Ended => {
                    self.dirty = true;
                    if let Some(replay) = &mut self.status.replay {
                        replay.ended = true;
                    }
                    if self.goal.is_some() {
                        // It stands still at the last.
                        self.refresh();
                    }
                }
                Fed::Failed(why) | Fed::News(why) => {
                    self.status.trouble = Some(why);
                    self.dirty = true;
                }
                Fed::Lost => return Err(io::Error::other("the sampler ended unexpectedly")),
            }
        }
        Ok(())
    }

    /// Replay: keeps a model until it is due by the recording's own clock and the speed.
    fn hold(&mut self, model: Arc<Model>) {
        let speed = self.status.replay.as_ref().map_or(1.0, |r| r.speed);
        let gap = self
            .timeline
            .newest_ns()
            .map_or(0, |last| model.at_ns.saturating_sub(last));
        let hurry = self.goal.is_some() || self.began.is_none();
        let wait = if hurry {
            Duration::ZERO
        } else {
            Duration::from_nanos((gap as f64 / speed) as u64).min(LONGEST_WAIT)
        };
        self.due = Instant::now() + wait;
        self.held = Some(model);
        if hurry {
            self.refresh();
        }
    }

    fn show(&mut self, model: Arc<Model>) {
        let at_ns = model.at_ns;
        let rates = model.interval_ns.is_ok();
        let (began_ns, _) = *self.began.get_or_insert((at_ns, model.at_realtime_ns));
        if let Some(replay) = &mut self.status.replay {
            if !self.status.ready {
                // It may be of another season.
                let unix_s = (model.at_realtime_ns / 1_000_000_000) as i64;
                self.status.utc_offset_s = utc_offset_s(unix_s);
            }
            replay.position_ns = at_ns.saturating_sub(began_ns);
        }
        let first = !self.status.ready;
        self.status.ready = true;
        match self.goal {
            Some(goal) => {
                if self.timeline.push_towards(goal, model) {
                    self.goal = None;
                }
            }
            None => self.timeline.push(model),
        }
        if first {
            // The second sample makes the first rates: worth hurrying for.
            self.due = Instant::now() + Duration::from_millis(50);
        }
        self.newer = true;
        // Up to the first rates, and in a replay that is not on its way to a moment, each is worth a frame.
        self.dirty |= !self.rated || (self.status.replay.is_some() && self.goal.is_none());
        self.rated |= rates;
    }

    fn draw(&mut self) -> io::Result<()> {
        self.dirty = false;
        self.newer = false;
        self.drawn = Instant::now();
        let before_ns = thread_cpu_ns();
        self.status.frozen_ns = self.timeline.behind_ns();
        if let Some(replay) = &mut self.status.replay {
            replay.seeking = self.goal.is_some();
        }
        self.status.left = self.timeline.left();
        self.status.lost = self.timeline.lost();
        self.status.own_cost = self.pace.cost();
        self.status.slowed = self.pace.is_slowed().then(|| "slowed".to_owned());
        let nothing;
        let model: &Model = match self.timeline.current() {
            Some(model) => model,
            None => {
                nothing = Model::empty();
                &nothing
            }
        };
        if let Some(gone) = self.state.close_gone(model) {
            self.status.trouble = Some(gone);
        }
        let scene = Scene {
            model,
            state: &self.state,
            status: &self.status,
        };
        let hits = &mut self.hits;
        self.screen.draw(|frame| *hits = draw(frame, &scene))?;
        if *self.on_screen != self.hits.connections {
            self.on_screen = Arc::new(self.hits.connections.clone());
        }
        self.state.page = self.hits.page;
        self.state.last_scroll = self.hits.last_scroll;
        self.state.sortable = self.hits.sortable();
        let cost = Duration::from_nanos(thread_cpu_ns().saturating_sub(before_ns));
        self.rest = (cost * FRAME_REST).clamp(FRAME, FRAME_AT_MOST);
        Ok(())
    }
}

/// What the wait found.
struct Ready {
    signal: bool,
    tty: bool,
    tty_gone: bool,
}
