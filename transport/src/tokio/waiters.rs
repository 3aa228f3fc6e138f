//! Who waits: tasks for their replies, for room, and for the end. What they are told stays here until they fetch it. Places are used again, so nothing is
//! allocated once there have been as many at a time.

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll, Waker};

use super::shared::Answer;

/// Wakers that are to be called, or dropped, once the mutex is free: either may run what asks for it.
#[derive(Default)]
pub(super) struct Later(VecDeque<Due>);

pub(super) enum Due {
    Wake(Waker),
    /// Nobody's any more. The last of a task drops it.
    Drop(#[expect(dead_code, reason = "dropped")] Waker),
}

impl Later {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn pop(&mut self) -> Option<Due> {
        self.0.pop_front()
    }

    fn wake(&mut self, waker: Option<Waker>) {
        self.0.extend(waker.map(Due::Wake));
    }

    fn drop(&mut self, waker: Option<Waker>) {
        self.0.extend(waker.map(Due::Drop));
    }
}

impl Due {
    /// With the mutex free.
    pub(super) fn settle(self) {
        if let Self::Wake(waker) = self {
            waker.wake();
        }
    }
}

/// Who waits for which reply.
#[derive(Default)]
pub(super) struct Waiters {
    places: Vec<Place>,
    free: Vec<usize>,
    /// Those without an answer: request and place, in the order of the ids.
    order: VecDeque<(u64, usize)>,
}

enum Place {
    Free,
    /// The vector for the reply, and whom to wake.
    Waits(Vec<u8>, Option<Waker>),
    Answered(Answer),
}

impl Waiters {
    /// A place for who waits for the reply to the newest request.
    pub(super) fn enter(&mut self, id: u64, buffer: Vec<u8>) -> usize {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::Free);
            self.places.len() - 1
        });
        self.places[place] = Place::Waits(buffer, None);
        self.order.push_back((id, place));
        place
    }

    /// Hands an answer out; it is made with the vector of who waits. Nobody's is dropped: who gave up has left.
    pub(super) fn answer(
        &mut self,
        id: u64,
        later: &mut Later,
        answer: impl FnOnce(Vec<u8>) -> Answer,
    ) {
        if let Ok(at) = self.order.binary_search_by_key(&id, |(id, _)| *id)
            && let Some((_, place)) = self.order.remove(at)
        {
            self.tell(place, later, answer);
        }
    }

    /// Hands the same to all who wait.
    pub(super) fn answer_all(&mut self, later: &mut Later, answer: impl Fn() -> Answer) {
        while let Some((_, place)) = self.order.pop_front() {
            self.tell(place, later, |_| answer());
        }
    }

    fn tell(&mut self, place: usize, later: &mut Later, answer: impl FnOnce(Vec<u8>) -> Answer) {
        let place = &mut self.places[place];
        if let Place::Waits(buffer, waker) = place {
            later.wake(waker.take());
            let buffer = std::mem::take(buffer);
            *place = Place::Answered(answer(buffer));
        }
    }

    /// The answer, if it has come: the place is somebody else's from then on.
    pub(super) fn take(&mut self, place: usize) -> Option<Answer> {
        match std::mem::replace(&mut self.places[place], Place::Free) {
            Place::Answered(answer) => {
                self.free.push(place);
                Some(answer)
            }
            waits => {
                self.places[place] = waits;
                None
            }
        }
    }

    /// The same, for a task that is woken when it comes.
    pub(super) fn poll(
        &mut self,
        place: usize,
        later: &mut Later,
        cx: &Context<'_>,
    ) -> Poll<Answer> {
        if let Some(answer) = self.take(place) {
            return Poll::Ready(answer);
        }
        if let Place::Waits(_, waker) = &mut self.places[place] {
            wake_by(waker, later, cx);
        }
        Poll::Pending
    }

    /// Leaves a place whose answer is not wanted. True if there was none.
    pub(super) fn leave(&mut self, id: u64, place: usize, later: &mut Later) -> bool {
        let waited = self.order.binary_search_by_key(&id, |(id, _)| *id);
        if let Ok(at) = waited {
            self.order.remove(at);
        }
        if let Place::Waits(_, waker) = std::mem::replace(&mut self.places[place], Place::Free) {
            later.drop(waker);
        }
        self.free.push(place);
        waited.is_ok()
    }
}

/// Who waits for room: first come, first served. Only the first tries again, when room may have appeared.
#[derive(Default)]
pub(super) struct Line {
    /// In the order of their tickets.
    waiting: VecDeque<InLine>,
    last: u64,
}

struct InLine {
    ticket: u64,
    /// Room may have appeared since it looked last.
    called: bool,
    waker: Option<Waker>,
}

impl Line {
    /// The last place; its ticket.
    pub(super) fn enter(&mut self) -> u64 {
        self.last += 1;
        self.waiting.push_back(InLine {
            ticket: self.last,
            called: false,
            waker: None,
        });
        self.last
    }

    /// Whose turn it is.
    pub(super) fn first(&self) -> Option<u64> {
        self.waiting.front().map(|first| first.ticket)
    }

    /// Room may have appeared.
    pub(super) fn call_first(&mut self, later: &mut Later) {
        if let Some(first) = self.waiting.front_mut() {
            first.call(later);
        }
    }

    /// Nobody needs to wait any more.
    pub(super) fn call_all(&mut self, later: &mut Later) {
        self.waiting.iter_mut().for_each(|place| place.call(later));
    }

    /// Ready when this one was called since the last time.
    pub(super) fn poll(&mut self, ticket: u64, later: &mut Later, cx: &Context<'_>) -> Poll<()> {
        let at = self.place(ticket);
        let Some(place) = at.and_then(|at| self.waiting.get_mut(at)) else {
            return Poll::Ready(());
        };
        if std::mem::take(&mut place.called) {
            return Poll::Ready(());
        }
        wake_by(&mut place.waker, later, cx);
        Poll::Pending
    }

    /// Leaves the line. There may be room for more than one, and who leaves may have been called in vain: so the next one is.
    pub(super) fn leave(&mut self, ticket: u64, later: &mut Later) {
        let at = self.place(ticket);
        if let Some(left) = at.and_then(|at| self.waiting.remove(at)) {
            later.drop(left.waker);
        }
        if at == Some(0) {
            self.call_first(later);
        }
    }

    fn place(&self, ticket: u64) -> Option<usize> {
        self.waiting
            .binary_search_by_key(&ticket, |w| w.ticket)
            .ok()
    }
}

impl InLine {
    fn call(&mut self, later: &mut Later) {
        self.called = true;
        later.wake(self.waker.take());
    }
}

/// Who waits for the end.
#[derive(Default)]
pub(super) struct Watchers {
    wakers: BTreeMap<u64, Option<Waker>>,
    last: u64,
}

impl Watchers {
    /// One more; its ticket.
    pub(super) fn enter(&mut self) -> u64 {
        self.last += 1;
        self.wakers.insert(self.last, None);
        self.last
    }

    /// Has this one's task woken at the end.
    pub(super) fn wake_by(&mut self, ticket: u64, later: &mut Later, cx: &Context<'_>) {
        wake_by(self.wakers.entry(ticket).or_default(), later, cx);
    }

    /// The end.
    pub(super) fn call_all(&mut self, later: &mut Later) {
        self.wakers.values_mut().for_each(|w| later.wake(w.take()));
    }

    /// One that waits no longer.
    pub(super) fn leave(&mut self, ticket: u64, later: &mut Later) {
        later.drop(self.wakers.remove(&ticket).flatten());
    }
}

/// Has this task woken; a waker that would wake it already is kept.
fn wake_by(waker: &mut Option<Waker>, later: &mut Later, cx: &Context<'_>) {
    match waker {
        Some(known) if known.will_wake(cx.waker()) => {}
        _ => later.drop(waker.replace(cx.waker().clone())),
    }
}
