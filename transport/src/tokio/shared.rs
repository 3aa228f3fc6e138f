//! What the tasks and the driver of one connection share: the connection, and who waits for which reply.

mod held;
mod places;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::waiters::{Later, Line, Waiters, Watchers};
use crate::calls::{MAX_IN_FLIGHT, RequestId};
use crate::error::{Fallback, Lost, RequestError};
use crate::mem::fork;
use crate::peer::ServerPeer;
use crate::synapse::Synapse;
use held::Held;
use places::Watch;
pub(super) use places::{Place, Waiting};

/// Looks for a reply before the server is asked to ring, if the request is the only one: about 2 µs, in which a server that is awake
/// answers. It costs less than the two system calls of a doorbell.
const LOOKS_BEFORE_BELL: u32 = 80;
/// Replies that one turn hands out at most, before other tasks run.
const TURN_REPLIES: u32 = 1024;

/// Rounds of looking before the mutex is let go: far more than the replies that a server can owe, each of which one round takes.
const MAX_ROUNDS: usize = 4 * MAX_IN_FLIGHT;

/// What a request comes to: its reply, in the vector that was handed in.
pub(super) type Answer = Result<Vec<u8>, RequestError>;

pub(super) struct Shared {
    /// Not to be asked for in a fork, where whoever held it then holds it for ever: see [`Self::state`].
    state: Mutex<State>,
    generation: u64,
    pub(super) facts: Facts,
}

/// What does not change as long as the connection lives.
pub(super) struct Facts {
    pub(super) timeout: Duration,
    pub(super) is_shm: bool,
    pub(super) fallback: Option<Fallback>,
    pub(super) peer: ServerPeer,
    pub(super) connection_id: u64,
    pub(super) max_message: usize,
}

struct State {
    synapse: Synapse,
    waiters: Waiters,
    /// Of requests that found no room.
    line: Line,
    watchers: Watchers,
    /// Whom to wake once the mutex is free.
    later: Later,
    /// Why the connection is over.
    lost: Option<Lost>,
}

/// What became of a request.
pub(super) enum Submitted<'a> {
    /// The reply is here already.
    Answered(Vec<u8>),
    /// It was sent.
    Waiting(Waiting<'a>),
    /// It was not sent: no room, or others wait for it already. The vector is handed back, with its place in the line.
    Full(Vec<u8>, Place<'a>),
}

/// What became of a turn of the driver.
pub(super) enum Turn {
    /// The kernel has nothing more.
    Dry,
    /// There is more to do.
    More,
    /// The connection is over.
    Over,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(synapse: Synapse) -> Self {
        Self {
            generation: fork::generation(),
            facts: Facts {
                timeout: synapse.timeout(),
                is_shm: synapse.is_shm(),
                fallback: synapse.fallback(),
                peer: synapse.peer(),
                connection_id: synapse.connection_id(),
                max_message: synapse.max_message(),
            },
            state: Mutex::new(State {
                synapse,
                waiters: Waiters::default(),
                line: Line::default(),
                watchers: Watchers::default(),
                later: Later::default(),
                lost: None,
            }),
        }
    }

    /// `None` in a fork of the process whose connection it is.
    fn state(&self) -> Option<Held<'_>> {
        if self.generation != fork::generation() {
            return None;
        }
        Some(Held::new(self, self.lock()))
    }

    /// A panic elsewhere can't have left the state half changed in a way that matters: at worst a waiter is told nothing, and times out.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.state().map_or(0, |state| match &state.lost {
            None => state.synapse.in_flight(),
            Some(_) => 0,
        })
    }

    /// Completes when the connection is over; in a fork, where it never was, at once.
    pub(super) async fn closed(&self) {
        let Some(ticket) = self.state().map(|mut state| state.watchers.enter()) else {
            return;
        };
        let watch = Watch {
            shared: self,
            ticket,
        };
        watch.ended().await;
    }

    /// Sends a request if there is room, and takes its reply if it comes at once. Where others wait for room already, it has to wait its
    /// turn. `place` is its place in the line, from the last time; it is left, if it is, when the mutex is free: parameters are dropped last.
    pub(super) fn submit<'a>(
        &'a self,
        request: &[u8],
        buffer: Vec<u8>,
        place: Option<Place<'a>>,
    ) -> Result<Submitted<'a>, RequestError> {
        let mut state = self.state().ok_or(RequestError::Forked)?;
        if let Some(reason) = &state.lost {
            return Err(RequestError::Disconnected {
                reason: reason.again(),
                in_flight: 0,
            });
        }
        let its_turn = match (state.line.first(), &place) {
            (None, _) => true,
            (Some(first), Some(place)) => first == place.ticket,
            (Some(_), None) => false,
        };
        let sent = if its_turn {
            self.try_send(&mut state, request)?
        } else {
            None
        };
        let Some(id) = sent else {
            let place = place.unwrap_or_else(|| Place {
                shared: self,
                ticket: state.line.enter(),
            });
            // Not before it stands in line: room, or the end, that shows now is its to be told.
            self.rest(&mut state);
            return Ok(Submitted::Full(buffer, place));
        };
        let waits = state.waiters.enter(id, buffer);
        if state.synapse.in_flight() == 1 {
            let mut looks = LOOKS_BEFORE_BELL;
            while looks > 0 && !state.synapse.is_ready() {
                std::hint::spin_loop();
                looks -= 1;
            }
        }
        if state.synapse.is_ready() {
            self.look(&mut state);
        }
        self.rest(&mut state);
        match state.waiters.take(waits) {
            Some(answer) => answer.map(Submitted::Answered),
            None => Ok(Submitted::Waiting(Waiting {
                shared: self,
                id,
                place: waits,
                over: false,
            })),
        }
    }

    /// Sends a request, if need be after a look at the replies that are there; its id, or `None` if there is no room.
    fn try_send(&self, state: &mut State, request: &[u8]) -> Result<Option<u64>, RequestError> {
        for first in [true, false] {
            match state.synapse.try_submit(request) {
                Ok(RequestId(id)) => return Ok(Some(id)),
                Err(RequestError::Full { .. }) if first => {
                    self.look(state);
                }
                Err(RequestError::Full { .. }) => {}
                Err(e) => return Err(self.told(state, e)),
            }
        }
        Ok(None)
    }

    /// An error of sending; one that ends the connection ends it for all. What was to be sent then was not, or not whole: the server
    /// can't have taken it for a request.
    fn told(&self, state: &mut State, error: RequestError) -> RequestError {
        match error {
            RequestError::Disconnected { reason, .. } => {
                self.lose(state, reason.again());
                RequestError::Disconnected {
                    reason,
                    in_flight: 0,
                }
            }
            other => other,
        }
    }

    /// The driver's part: the socket is readable, or writable.
    pub(super) fn turn(&self) -> Turn {
        let Some(mut state) = self.state() else {
            return Turn::Over;
        };
        if state.lost.is_some() {
            return Turn::Over;
        }
        state.synapse.disarm();
        let more = !self.look(&mut state);
        self.rest(&mut state);
        if state.lost.is_some() {
            Turn::Over
        } else if more {
            Turn::More
        } else {
            Turn::Dry
        }
    }

    /// Hands out the replies that are there. False: there may be more.
    fn look(&self, state: &mut State) -> bool {
        let mut left = TURN_REPLIES;
        let before = state.synapse.unanswered();
        let done = loop {
            if left == 0 {
                break false;
            }
            left -= 1;
            let State {
                synapse,
                waiters,
                later,
                ..
            } = state;
            match synapse.next_reply() {
                // A reply to nobody's request has been counted by the connection.
                Ok(Some((id, answer))) => waiters.answer(id, later, |mut buffer| {
                    answer.map(|bytes| {
                        buffer.clear();
                        buffer.extend_from_slice(bytes);
                        buffer
                    })
                }),
                Ok(None) => break true,
                Err(error) => {
                    self.told(state, error);
                    break true;
                }
            }
        };
        if state.synapse.unanswered() < before {
            state.line.call_first(&mut state.later);
        }
        done
    }

    /// Before the mutex is let go: what is still to come will make the socket readable.
    fn rest(&self, state: &mut State) {
        for _ in 0..MAX_ROUNDS {
            if state.lost.is_some() {
                return;
            }
            if let Err(e) = state.synapse.send_on() {
                self.lose(state, Lost::Io(e));
                state.synapse.hang_up();
                return;
            }
            if state.synapse.unanswered() == 0 {
                return;
            }
            match state.synapse.arm() {
                Ok(true) => return,
                Ok(false) => {
                    self.look(state);
                }
                Err(error) => {
                    self.told(state, error);
                }
            }
        }
        self.lose(state, Lost::BadFrame("half a reply, again and again"));
        state.synapse.hang_up();
    }

    /// The connection is over: all who wait learn it.
    fn lose(&self, state: &mut State, reason: Lost) {
        state.waiters.answer_all(&mut state.later, || {
            Err(RequestError::Disconnected {
                reason: reason.again(),
                in_flight: 1,
            })
        });
        state.lost.get_or_insert(reason);
        state.line.call_all(&mut state.later);
        state.watchers.call_all(&mut state.later);
    }

    /// Gives a request up.
    fn abandon(&self, id: u64, place: usize) {
        let Some(mut state) = self.state() else {
            return;
        };
        let State {
            synapse,
            waiters,
            later,
            ..
        } = &mut *state;
        if waiters.leave(id, place, later) {
            synapse.cancel(RequestId(id));
        }
    }
}
