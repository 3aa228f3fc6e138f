//! Carries the handshake's actions out on a blocking socket.
//!
//! A client calls [`connect`] and [`upgrade`], a server [`admit`] or [`turn_away`], and [`answer_upgrade`], each on a
//! thread that may block; [`bye`] ends a connection. Every wait for a message has a deadline of `timeout` for the whole message. After an
//! `Err` the socket is of no use: drop it. The rings themselves are the caller's, through closures.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::edge::{Deadline, Passed, recv_with_fd_until, send_until};
use super::frame::HANDSHAKE_BYTES;
use super::handshake::{
    ClientAction, ClientHandshake, Ending, Layout, Outgoing, ServerAction, ServerHandshake,
    ServerTerms,
};
use super::messages::{Hello, Message, Offer, Refused, Reject, Version, Welcome};
use crate::error::{Fallback, Step};
use crate::mem::{StepError, errno_of, headroom, memfd};

/// What became of an upgrade: the caller's mapping, or the reason for the socket.
#[derive(Debug)]
pub(crate) enum Upgraded<T> {
    /// Both sides are on shared memory.
    Shm(T, Offer),
    /// Both sides are on the socket.
    Socket(Fallback),
}

/// Client: introduces itself and is welcomed. The connection is on the socket then.
pub(crate) fn connect(
    socket: impl AsFd,
    hello: Hello,
    layout: Layout,
    timeout: Duration,
) -> Result<(ClientHandshake, Welcome), Ending> {
    let socket = socket.as_fd();
    let (mut machine, message) = ClientHandshake::start(hello, layout);
    fault_point!(Connected);
    // A server that refuses may close before it has read us; its REFUSED can be read nevertheless.
    let sent = send(socket, message, None, timeout);
    fault_point!(HelloSent);
    let (bytes, passed) = match receive(socket, timeout) {
        Ok(received) => received,
        Err(ending) => return Err(sent.err().unwrap_or(ending)),
    };
    fault_point!(Welcomed);
    match machine.on_message(&bytes, passed.count) {
        ClientAction::UseSocket(welcome) => Ok((machine, welcome)),
        other => Err(client_ending(&mut machine, other)),
    }
}

/// Client: asks for shared memory. `map` validates and maps what came, before the server is told. Nothing may
/// be in flight.
pub(crate) fn upgrade<T>(
    socket: impl AsFd,
    machine: &mut ClientHandshake,
    timeout: Duration,
    map: impl FnOnce(OwnedFd, &Offer) -> Result<T, StepError>,
) -> Result<Upgraded<T>, Ending> {
    let socket = socket.as_fd();
    let Some(message) = machine.upgrade() else {
        return Err(client_lost(
            machine,
            Ending::broken("upgrade of a connection that is not on the socket"),
        ));
    };
    send(socket, message, None, timeout).map_err(|e| last_word(socket, machine, e, timeout))?;
    fault_point!(UpgradeSent);
    let (bytes, passed) = receive(socket, timeout).map_err(|e| client_lost(machine, e))?;
    fault_point!(OfferReceived);
    let (mut action, mut mapping) = (machine.on_message(&bytes, passed.count), None);
    if let ClientAction::Map(offer) = action {
        let mapped = exactly_one(passed).and_then(|fd| map(fd, &offer));
        action = machine.mapped(mapped.map(|it| mapping = Some(it)));
        fault_point!(OfferMapped);
    }
    match action {
        ClientAction::StayOnSocket(why) => return Ok(Upgraded::Socket(why)),
        ClientAction::Decline(message, why) => {
            return match send(socket, message, None, timeout) {
                Ok(()) => Ok(Upgraded::Socket(why)),
                Err(e) => Err(last_word(socket, machine, e, timeout)),
            };
        }
        ClientAction::Send(message) => {
            send(socket, message, None, timeout)
                .map_err(|e| last_word(socket, machine, e, timeout))?;
            fault_point!(CommitSent);
        }
        other => return Err(client_ending(machine, other)),
    }
    let (bytes, passed) = receive(socket, timeout).map_err(|e| client_lost(machine, e))?;
    fault_point!(ReadyReceived);
    match (machine.on_message(&bytes, passed.count), mapping) {
        (ClientAction::SwitchToShm(offer), Some(mapping)) => Ok(Upgraded::Shm(mapping, offer)),
        (other, _) => Err(client_ending(machine, other)),
    }
}

/// An action that has no place at this point is the connection's end.
fn client_ending(machine: &mut ClientHandshake, action: ClientAction) -> Ending {
    match action {
        ClientAction::Close(ending) => ending,
        _ => client_lost(machine, Ending::broken("message out of order")),
    }
}

/// The machine is told; what it would do is to close, which our caller does by dropping the socket.
fn client_lost(machine: &mut ClientHandshake, ending: Ending) -> Ending {
    machine.close(ending);
    ending
}

/// Client: a message could not be sent. A server that ends on purpose takes nothing more, and then says so: that is waited for.
fn last_word(
    socket: BorrowedFd<'_>,
    machine: &mut ClientHandshake,
    ending: Ending,
    timeout: Duration,
) -> Ending {
    if ending == Ending::PeerGone
        && let Ok((bytes, passed)) = receive(socket, timeout)
        && let ClientAction::Close(Ending::Bye) = machine.on_message(&bytes, passed.count)
    {
        return Ending::Bye;
    }
    client_lost(machine, ending)
}

/// The one descriptor that an OFFER must come with.
fn exactly_one(passed: Passed) -> Result<OwnedFd, StepError> {
    let (limit, used) = match (passed.truncated, passed.count, passed.fd) {
        (false, 1, Some(fd)) => return Ok(fd),
        // The kernel does not say why; a full table is the likely reason, and these numbers show whether it is.
        (true, _, _) => headroom::descriptors(),
        (false, count, _) => (1, count as u64),
    };
    Err(StepError {
        step: Step::FdTruncated,
        errno: 0,
        limit,
        used,
    })
}

/// A client that was let in.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) machine: ServerHandshake,
    pub(crate) hello: Hello,
    /// Agreed, for both transports.
    pub(crate) max_message: u64,
}

/// Server: hears who it is, and says welcome or why not. `take` takes the memory that serving it takes, for messages of up to so many
/// bytes; `None`: there is none, and the client is refused.
pub(crate) fn admit<T>(
    socket: impl AsFd,
    terms: ServerTerms,
    timeout: Duration,
    take: impl FnOnce(u64) -> Option<T>,
) -> Result<(Admitted, T), Ending> {
    let socket = socket.as_fd();
    let mut machine = ServerHandshake::new(terms);
    fault_point!(Accepted);
    let received = receive(socket, timeout);
    fault_point!(HelloReceived);
    let mut action = match received {
        Ok((bytes, passed)) => machine.on_message(&bytes, passed.count),
        Err(Ending::Timeout) => machine.timed_out(),
        Err(ending) => machine.close(ending),
    };
    let mut taken = None;
    if let ServerAction::Admit(_, _, max_message) = action {
        taken = take(max_message);
        if taken.is_none() {
            action = machine.no_room();
        }
    }
    match (action, taken) {
        (ServerAction::Admit(message, hello, max_message), Some(taken)) => {
            send(socket, message, None, timeout)?;
            fault_point!(WelcomeSent);
            let admitted = Admitted {
                machine,
                hello,
                max_message,
            };
            Ok((admitted, taken))
        }
        (ServerAction::Refuse(message, ending), _) => {
            // Only if it fits at once: a peer that does not read gets no more of our time. It may be gone, too;
            // either way the reason to close is the ending.
            let _ = send(socket, message, None, Duration::ZERO);
            Err(ending)
        }
        (other, _) => Err(server_ending(&mut machine, other)),
    }
}

/// Server: an UPGRADE came as `message`, with `fds` descriptors. `make` creates and maps sealed rings of at most
/// the given capacity each, for the given largest message; what it returns besides the descriptor comes back
/// if both sides are on shared memory, and is dropped if not.
pub(crate) fn answer_upgrade<T, F: AsFd>(
    socket: impl AsFd,
    machine: &mut ServerHandshake,
    message: (&[u8; HANDSHAKE_BYTES], usize),
    timeout: Duration,
    make: impl FnOnce(u64, u64) -> Result<(T, F, Offer), StepError>,
) -> Result<Upgraded<T>, Ending> {
    let socket = socket.as_fd();
    let (mut action, mut rings) = (machine.on_message(message.0, message.1), None);
    fault_point!(UpgradeReceived);
    if let ServerAction::MakeOffer {
        ring_bytes,
        max_message,
    } = action
    {
        let made = make(ring_bytes, max_message).map(|(it, fd, offer)| {
            rings = Some((it, fd));
            offer
        });
        action = machine.made(made);
        fault_point!(RingsMade);
    }
    if let (ServerAction::SendOffer(message), Some((_, fd))) = (action, &rings) {
        action = match send_offer(socket, message, fd.as_fd(), timeout) {
            Ok(result) => machine.offer_sent(result),
            Err(ending) => machine.close(ending),
        };
    }
    fault_point!(OfferSent);
    match action {
        ServerAction::AwaitAnswer => {}
        ServerAction::NoOffer(message, why) => {
            return match send(socket, message, None, timeout) {
                Ok(()) => Ok(Upgraded::Socket(why)),
                Err(e) => Err(server_lost(machine, e)),
            };
        }
        other => return Err(server_ending(machine, other)),
    }
    let (bytes, passed) = receive(socket, timeout).map_err(|e| server_lost(machine, e))?;
    fault_point!(CommitReceived);
    match (machine.on_message(&bytes, passed.count), rings) {
        (ServerAction::SwitchToShm(message, offer), Some((mapping, fd))) => {
            if memfd::close(fd.as_fd()).is_err() {
                return Err(server_lost(
                    machine,
                    Ending::broken("rings not sealed, or punched empty"),
                ));
            }
            // Both have mapped it: from here on a connection costs one descriptor, the socket.
            drop(fd);
            let sent = send(socket, message, None, timeout);
            fault_point!(ReadySent);
            match sent {
                Ok(()) => Ok(Upgraded::Shm(mapping, offer)),
                Err(e) => Err(server_lost(machine, e)),
            }
        }
        (ServerAction::StayOnSocket(why), _) => Ok(Upgraded::Socket(why)),
        (other, _) => Err(server_ending(machine, other)),
    }
}

/// Sends the OFFER: `Ok(Err)` if not one byte went out, so that NO_OFFER can be said instead.
fn send_offer(
    socket: BorrowedFd<'_>,
    message: Outgoing,
    fd: BorrowedFd<'_>,
    timeout: Duration,
) -> Result<Result<(), StepError>, Ending> {
    let deadline = Deadline::after(timeout);
    match send_until(socket, &message.encode(), &[], Some(fd), deadline) {
        Ok(()) => Ok(Ok(())),
        Err(e) => match ending_of(&e.source, Step::SendFd) {
            // ETOOMANYREFS and the like: the socket is as good as before.
            Ending::Failed(step) if e.sent == 0 => Ok(Err(step)),
            ending => Err(ending),
        },
    }
}

fn server_ending(machine: &mut ServerHandshake, action: ServerAction) -> Ending {
    match action {
        ServerAction::Close(ending) | ServerAction::Refuse(_, ending) => ending,
        _ => server_lost(machine, Ending::broken("message out of order")),
    }
}

fn server_lost(machine: &mut ServerHandshake, ending: Ending) -> Ending {
    machine.close(ending);
    ending
}

/// Server: says no to a connection at once, without hearing it: nobody has time or descriptors for it.
pub(crate) fn turn_away(socket: impl AsFd, reason: Reject, limit: u64, used: u64) {
    let refused = Refused {
        reason: reason as u32,
        server: Version::OURS,
        client: Version { major: 0, minor: 0 },
        limit,
        used,
    };
    let no = Outgoing {
        message: Message::Refused(refused),
        attempt: 0,
    };
    // Only if it fits at once; the close that follows says no as well, only without the reason.
    let _ = send(socket.as_fd(), no, None, Duration::ZERO);
}

/// Says goodbye, if that can be said at once, before the socket is closed on purpose.
pub(crate) fn bye(socket: impl AsFd) {
    let bye = Outgoing {
        message: Message::Bye,
        attempt: 0,
    };
    // The close that follows says the same, only less clearly.
    let _ = send(socket.as_fd(), bye, None, Duration::ZERO);
}

fn send(
    socket: BorrowedFd<'_>,
    message: Outgoing,
    fd: Option<BorrowedFd<'_>>,
    timeout: Duration,
) -> Result<(), Ending> {
    send_until(socket, &message.encode(), &[], fd, Deadline::after(timeout))
        .map_err(|e| ending_of(&e.source, Step::Handshake))
}

fn receive(
    socket: BorrowedFd<'_>,
    timeout: Duration,
) -> Result<([u8; HANDSHAKE_BYTES], Passed), Ending> {
    let mut bytes = [0; HANDSHAKE_BYTES];
    match recv_with_fd_until(socket, &mut bytes, Deadline::after(timeout)) {
        Ok(passed) => Ok((bytes, passed)),
        Err(e) => Err(ending_of(&e, Step::ReceiveFd)),
    }
}

fn ending_of(e: &io::Error, step: Step) -> Ending {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof};
    match e.kind() {
        TimedOut => Ending::Timeout,
        BrokenPipe | ConnectionReset | UnexpectedEof => Ending::PeerGone,
        _ => Ending::Failed(StepError::of_call(step, errno_of(e))),
    }
}

#[cfg(test)]
mod tests;
