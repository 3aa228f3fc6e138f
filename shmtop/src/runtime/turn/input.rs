//! What comes from outside: signals, keys, the mouse; and what they do to the loop.

use std::io;
use std::time::Duration;

use crossterm::event::{self, Event, KeyEventKind, MouseButton, MouseEventKind};
use nix::unistd::{getppid, getsid};
use signal_hook::consts::SIGTSTP;
use signal_hook::low_level::emulate_default_handler;

use super::super::Ending;
use super::super::signals::Signal;
use super::super::terminal::restore;
use super::super::tty::Tty;
use super::{Runtime, Turn};
use crate::model::Model;
use crate::ui::update::WHEEL_ROWS;
use crate::ui::{Action, Effect, Jump, Seen, State, TimeMove, Timeline, keymap, update};

/// Speeds of a replay to choose from.
const SPEEDS: [f64; 9] = [0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0, 200.0];
impl Runtime {
    pub(super) fn take_signals(&mut self) -> Turn {
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::End(signal) => return Ok(Some(Ending::Signal(signal))),
                Signal::Stop => self.suspend()?,
                Signal::Continued => self.screen.retake()?,
                // It is an event of crossterm's too. Left there until the next key, it would be found together with that, and of two
                // things that it finds together crossterm forgets the second until a third comes.
                Signal::Resize => self.unread = true,
            }
            self.dirty = true;
        }
        Ok(None)
    }

    /// Gives the terminal back, stops, and takes it again when continued.
    fn suspend(&mut self) -> io::Result<()> {
        // With no parent in our session (started by a multiplexer or a service) nobody would ever continue us.
        if getsid(Some(getppid())) != getsid(None) {
            self.status.trouble = Some("can't suspend: there is no shell to return to".to_owned());
            return Ok(());
        }
        restore();
        emulate_default_handler(SIGTSTP)?;
        self.screen.retake()
    }

    pub(super) fn take_keys(&mut self, tty: &Tty) -> Turn {
        // Bounded: a flood of input must not starve signals and refreshes.
        for _ in 0..64 {
            let event = if event::poll(Duration::ZERO)? {
                event::read()?
            } else if let Some(key) = tty.forgotten()? {
                Event::Key(key)
            } else {
                self.unread = false;
                return Ok(None);
            };
            let action = match event {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    keymap::action(&key, self.state.takes_letters())
                }
                Event::Mouse(mouse) => match mouse.kind {
                    MouseEventKind::Down(MouseButton::Left) => {
                        self.hits.at(mouse.column, mouse.row)
                    }
                    MouseEventKind::ScrollUp => Some(Action::Up),
                    MouseEventKind::ScrollDown => Some(Action::Down),
                    _ => None,
                }
                .inspect(|action| {
                    if matches!(action, Action::Up | Action::Down) {
                        for _ in 1..WHEEL_ROWS {
                            apply(&mut self.state, *action, &self.timeline);
                        }
                    }
                }),
                Event::Resize(..) => {
                    self.dirty = true;
                    None
                }
                _ => None,
            };
            let Some(action) = action else {
                continue;
            };
            self.dirty = true;
            self.status.trouble = None;
            match apply(&mut self.state, action, &self.timeline) {
                Effect::Redraw => {}
                Effect::Quit => return Ok(Some(Ending::Quit)),
                Effect::Suspend => self.suspend()?,
                Effect::Time(to) => self.step(to),
                Effect::Jump(to) => self.jump(to),
                Effect::Rate(by) => self.change_rate(by),
            }
        }
        self.unread = true;
        Ok(None)
    }

    /// Moves in time; a replay reads on where the move leads beyond what was read. `false` then, and live if that is yet to come.
    fn go(&mut self, to: TimeMove) -> bool {
        let here = self.timeline.current().map_or(0, |m| m.at_ns);
        let there = self.timeline.go(to);
        // Wherever it was on its way to, the user has thought of something else.
        self.goal = None;
        if !there && self.status.replay.is_some() {
            self.goal = Some(match to {
                TimeMove::Seconds(s) => {
                    // From here, wherever reading on has got by then.
                    TimeMove::To(here.saturating_add_signed(i64::from(s) * 1_000_000_000))
                }
                TimeMove::To(_) | TimeMove::ToClock(_) | TimeMove::Step(_) | TimeMove::Toggle => to,
            });
        }
        if self.status.replay.is_some() {
            self.refresh();
        }
        there
    }

    /// Goes to a moment that was typed, or says that it is kept no more or yet to come.
    fn jump(&mut self, jump: Jump) {
        let (Some(here), Some(newest)) = (self.timeline.current(), self.timeline.newest()) else {
            return;
        };
        let (began_ns, began_realtime_ns) = self.began.unwrap_or((here.at_ns, here.at_realtime_ns));
        let replay = self.status.replay.as_ref();
        let is_live = replay.is_none();
        let to = jump.to(&Seen {
            began_ns,
            began_realtime_ns,
            here_realtime_ns: here.at_realtime_ns,
            newest_realtime_ns: newest.at_realtime_ns,
            offset_s: self.status.utc_offset_s,
            reads_on: replay.is_some_and(|r| !r.ended),
        });
        let there = self.go(to);
        let landed = self.timeline.current();
        let before = landed.filter(|m| to.moment(m).is_some_and(|(wanted, is)| wanted < is));
        let said = match before {
            _ if !there && is_live => "that is yet to come",
            Some(first) if first.at_ns == began_ns => "this is the first moment",
            Some(_) => self.oldest(),
            None => return,
        };
        self.status.trouble = Some(said.to_owned());
    }

    /// Moves by a key, and says why where that leads nowhere: a screen that only stands still looks broken.
    fn step(&mut self, to: TimeMove) {
        let here = self.timeline.current().map(|m| m.at_ns);
        self.go(to);
        let is_back = matches!(to, TimeMove::Step(n) | TimeMove::Seconds(n) if n < 0);
        let landed = self.timeline.current().map(|m| m.at_ns);
        if is_back && here.is_some() && landed == here {
            let is_first = landed == self.began.map(|(at_ns, _)| at_ns);
            let said = if is_first {
                "this is the first moment"
            } else {
                self.oldest()
            };
            self.status.trouble = Some(said.to_owned());
        }
    }

    /// Why there is no way further back.
    fn oldest(&self) -> &'static str {
        match self.status.replay {
            Some(_) => "nothing older is kept (five minutes at most): shmtop replay FILE --at 90s",
            None => "nothing older than this is kept (the last five minutes at most)",
        }
    }

    fn change_rate(&mut self, by: i8) {
        if let Some(replay) = &mut self.status.replay {
            let at = SPEEDS.iter().position(|s| *s >= replay.speed).unwrap_or(3);
            let at = at
                .saturating_add_signed(isize::from(by))
                .min(SPEEDS.len() - 1);
            replay.speed = SPEEDS[at];
        } else {
            self.pace.change(by);
            self.refresh();
        }
    }
}

fn apply(state: &mut State, action: Action, timeline: &Timeline) -> Effect {
    match timeline.current() {
        Some(model) => update(state, action, model),
        None => update(state, action, &Model::empty()),
    }
}
