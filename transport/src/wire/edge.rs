//! The socket with a deadline: whole messages in, whole messages out.
//!
//! A deadline is for the whole transfer, not per byte: a peer that sends one byte a second runs into it like
//! one that sends none. [`super::drive`] uses this for the handshake, `synapse.rs` and `membrane.rs` for frames.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::fdpass::{Received, try_recv, try_send};

/// A point in time after which waiting is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// `timeout` from now. A timeout beyond what the clock can express is a year.
    pub(crate) fn after(timeout: Duration) -> Self {
        let now = Instant::now();
        let year = Duration::from_secs(365 * 24 * 3600);
        Self(now.checked_add(timeout).unwrap_or(now + year))
    }

    /// Time left; zero once it has passed.
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// True once it has passed.
    pub(crate) fn passed(self) -> bool {
        self.left().is_zero()
    }
}

/// A send that failed. After a part was sent the stream is of no use any more: the peer would take what comes
/// next for the rest.
#[derive(Debug)]
pub(crate) struct SendError {
    /// Bytes that went out before.
    pub(crate) sent: usize,
    /// Why no more did; TimedOut at the deadline.
    pub(crate) source: io::Error,
}

/// Sends `head` and `body` whole, `fd` with the first byte.
pub(crate) fn send_until(
    socket: impl AsFd,
    head: &[u8],
    body: &[u8],
    fd: Option<BorrowedFd<'_>>,
    deadline: Deadline,
) -> Result<(), SendError> {
    let socket = socket.as_fd();
    let (mut head, mut body) = (head, body);
    let mut sent = 0;
    #[cfg(feature = "fault-points")]
    if fd.is_none() && body.len() > 1 {
        // Errors are met again below.
        sent = try_send(socket, head, &body[..body.len() / 2], None).unwrap_or(0);
        let of_head = sent.min(head.len());
        (head, body) = (&head[of_head..], &body[sent - of_head..]);
        fault_point!(HalfFrame);
    }
    while !head.is_empty() || !body.is_empty() {
        let first = if sent == 0 { fd } else { None };
        match try_send(socket, head, body, first) {
            Ok(n) => {
                sent += n;
                let of_head = n.min(head.len());
                head = &head[of_head..];
                body = &body[n - of_head..];
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                ready(socket, PollFlags::POLLOUT, deadline)
                    .map_err(|source| SendError { sent, source })?;
            }
            Err(source) => return Err(SendError { sent, source }),
        }
    }
    Ok(())
}

/// Receives what comes first, at least one byte or the end of the stream, with its descriptors.
pub(crate) fn recv_until(
    socket: impl AsFd,
    buffer: &mut [u8],
    deadline: Deadline,
) -> io::Result<Received> {
    let socket = socket.as_fd();
    loop {
        match try_recv(socket, buffer) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                ready(socket, PollFlags::POLLIN, deadline)?;
            }
            other => return other,
        }
    }
}

/// Descriptors that came with a message.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// The first; the others are closed.
    pub(crate) fd: Option<OwnedFd>,
    /// How many came.
    pub(crate) count: usize,
    /// More were sent than could be installed here.
    pub(crate) truncated: bool,
}

/// Fills `buffer` whole, by `deadline`, and collects the descriptors that come on the way. UnexpectedEof if the
/// peer closes first, TimedOut at the deadline, however many bytes have come by then.
pub(crate) fn recv_with_fd_until(
    socket: impl AsFd,
    buffer: &mut [u8],
    deadline: Deadline,
) -> io::Result<Passed> {
    let socket = socket.as_fd();
    let mut passed = Passed::default();
    let mut filled = 0;
    while filled < buffer.len() {
        let got = recv_until(socket, &mut buffer[filled..], deadline)?;
        if got.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += got.bytes;
        passed.count += got.fd_count;
        passed.truncated |= got.truncated;
        passed.fd = passed.fd.or(got.fd);
        // Bytes may be there each time we look: without this a trickle would never be asked for the time.
        if filled < buffer.len() && deadline.passed() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(passed)
}

/// How long a wait sleeps between two looks where the kernel will not wait for descriptors.
pub(crate) const BLIND_SLICE: Duration = Duration::from_millis(1);

/// Waits until one of `events` (or an error or hang-up, which the next call will report) holds, or may hold; TimedOut at the deadline.
pub(crate) fn ready(
    socket: BorrowedFd<'_>,
    events: PollFlags,
    deadline: Deadline,
) -> io::Result<()> {
    loop {
        let left = deadline.left();
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // Rounded up: rounded down, the last millisecond would be a busy loop.
        let ms = left.as_nanos().div_ceil(1_000_000);
        let timeout = PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(socket, events)], timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            // A descriptor more than the soft limit allows now, which a sandbox may have set to 0 since: the next call tells, and this one is
            // slower, not the end of the connection.
            Err(Errno::EINVAL) => {
                std::thread::sleep(left.min(BLIND_SLICE));
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    /// Far away: only a hang meets it.
    fn watchdog() -> Deadline {
        Deadline::after(Duration::from_secs(30))
    }

    #[test]
    fn a_message_larger_than_the_socket_buffer_arrives_whole() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let body: Vec<u8> = (0..1 << 21).map(|i| (i % 251) as u8).collect();
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; 4 + (1 << 21)];
            b.read_exact(&mut all).unwrap();
            all
        });
        send_until(&a, b"head", &body, None, watchdog()).unwrap();
        let all = reader.join().unwrap();
        assert_eq!(&all[..4], b"head");
        assert!(all[4..] == body);
    }

    #[test]
    fn a_peer_that_trickles_bytes_meets_the_same_deadline_as_a_silent_one() {
        let (mut a, b) = UnixStream::pair().unwrap();
        let trickle = std::thread::spawn(move || {
            // Bytes keep coming for as long as somebody listens: only the deadline ends this.
            while a.write_all(&[1]).is_ok() {
                std::thread::yield_now();
            }
        });
        let mut huge = vec![0; 1 << 30];
        let deadline = Deadline::after(Duration::from_millis(20));
        let e = recv_with_fd_until(&b, &mut huge, deadline).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::TimedOut);
        drop(b);
        trickle.join().unwrap();

        let (_a, b) = UnixStream::pair().unwrap();
        let deadline = Deadline::after(Duration::from_millis(1));
        let e = recv_with_fd_until(&b, &mut [0; 4], deadline).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn bytes_that_are_always_there_do_not_outlive_the_deadline() {
        // A datagram socket hands out one byte at a time, as a peer would that always is one byte ahead.
        let (a, b) = std::os::unix::net::UnixDatagram::pair().unwrap();
        for _ in 0..4 {
            a.send(&[1]).unwrap();
        }
        let now = Deadline::after(Duration::ZERO);
        let e = recv_with_fd_until(&b, &mut [0; 4], now).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_descriptor_is_sent_once_however_often_the_bytes_are_interrupted() {
        let (a, b) = UnixStream::pair().unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; 1 << 22];
            recv_with_fd_until(&b, &mut all, watchdog()).unwrap().count
        });
        let body = vec![0; 1 << 22];
        let fd = tempfile::tempfile().unwrap();
        send_until(&a, &[], &body, Some(fd.as_fd()), watchdog()).unwrap();
        assert_eq!(reader.join().unwrap(), 1);
    }

    #[test]
    fn a_peer_that_closes_in_the_middle_is_an_end_not_a_timeout() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(b"abc").unwrap();
        drop(a);
        let e = recv_with_fd_until(&b, &mut [0; 4], watchdog()).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_send_that_stops_in_the_middle_says_how_much_went_out() {
        let (a, _b) = UnixStream::pair().unwrap();
        let body = vec![0; 1 << 22];
        let deadline = Deadline::after(Duration::from_millis(5));
        let e = send_until(&a, b"head", &body, None, deadline).unwrap_err();
        assert_eq!(e.source.kind(), io::ErrorKind::TimedOut);
        assert!(e.sent > 0 && e.sent < body.len());
    }
}
