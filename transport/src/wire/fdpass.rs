//! One sendmsg or recvmsg with descriptors beside the bytes, and who the peer is.
//!
//! [`super::edge`] builds deadlines on top. Every call here returns at once (MSG_DONTWAIT), whatever the
//! socket's own mode is. Written against libc because a control message that came truncated must still give up
//! the descriptors it holds: they are open in this process already, and would leak.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The kernel's limit of descriptors in one message (SCM_MAX_FD).
const MAX_PASSED: usize = 253;

/// Bytes of a control buffer for `n` descriptors.
const fn control_bytes(n: usize) -> usize {
    // SAFETY: CMSG_SPACE is arithmetic on its argument.
    unsafe { libc::CMSG_SPACE((n * size_of::<RawFd>()) as u32) as usize }
}

/// A control buffer for `N` bytes, aligned as the cmsg macros demand.
#[repr(C, align(8))]
struct Control<const N: usize>([u8; N]);

const _: () = assert!(align_of::<libc::cmsghdr>() <= 8);

/// What one recvmsg brought.
#[derive(Debug)]
pub(crate) struct Received {
    /// Bytes put into the buffer; 0 means the peer closed (buffers are never empty here).
    pub(crate) bytes: usize,
    /// The first descriptor, close-on-exec. Further ones are closed already.
    pub(crate) fd: Option<OwnedFd>,
    /// How many descriptors arrived.
    pub(crate) fd_count: usize,
    /// MSG_CTRUNC: descriptors were sent that could not be installed here. With room for all the kernel allows,
    /// that means our descriptor table is full, or a security module dropped them.
    pub(crate) truncated: bool,
}

/// Sends some of `head` then `body`, as one writev would, and `fd` with the first byte. Returns the number of
/// bytes taken, at least 1. No SIGPIPE, no waiting: WouldBlock if there is no room.
///
/// `head` must not be empty: a descriptor needs a byte to travel with.
pub(crate) fn try_send(
    socket: BorrowedFd<'_>,
    head: &[u8],
    body: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    let mut parts = [head, body].map(|part| libc::iovec {
        iov_base: part.as_ptr().cast_mut().cast(),
        iov_len: part.len(),
    });
    let mut control = Control([0; control_bytes(1)]);
    // SAFETY: msghdr is plain data for which all zeros is valid: no name, no parts, no control.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as _;
    if let Some(fd) = fd {
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len() as _;
        // SAFETY: msg_control and msg_controllen describe `control`, zeroed, aligned, with room for one header
        // and one descriptor; so CMSG_FIRSTHDR is not null and CMSG_DATA has room for a RawFd (written
        // unaligned: the macro promises no alignment).
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
            libc::CMSG_DATA(header)
                .cast::<RawFd>()
                .write_unaligned(fd.as_raw_fd());
        }
    }
    retry(|| {
        // SAFETY: `message` points to `parts` and `control`, both alive; the parts point to `head` and `body`,
        // which sendmsg only reads (iovec has no const form). `fd` is open for the call's length.
        unsafe {
            libc::sendmsg(
                socket.as_raw_fd(),
                &message,
                libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
            )
        }
    })
}

/// Receives what is there, up to `buffer`, and every descriptor that comes with it. WouldBlock if nothing is.
pub(crate) fn try_recv(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut control = Control([0; control_bytes(MAX_PASSED)]);
    // SAFETY: as in `try_send`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    let bytes = retry(|| {
        // SAFETY: `message` points to `part` (which points to `buffer`, exclusively borrowed) and `control`,
        // with their true lengths. A failed call leaves msg_controllen alone, so it may be repeated.
        unsafe {
            libc::recvmsg(
                socket.as_raw_fd(),
                &mut message,
                libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT,
            )
        }
    })?;
    let mut received = Received {
        bytes,
        fd: None,
        fd_count: 0,
        truncated: message.msg_flags & libc::MSG_CTRUNC != 0,
    };
    // SAFETY: recvmsg set msg_controllen to the bytes it wrote into `control`; the macros stay within.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&message) };
    while !header.is_null() {
        // SAFETY: not null, so the macro found a whole header within what the kernel wrote.
        let (level, kind, len) = unsafe {
            (
                (*header).cmsg_level,
                (*header).cmsg_type,
                (*header).cmsg_len,
            )
        };
        if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
            // SAFETY: arithmetic on its argument.
            let header_len = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = len.saturating_sub(header_len) / size_of::<RawFd>();
            for i in 0..count {
                // SAFETY: cmsg_len covers `count` descriptors after the header, all written by the kernel. Each
                // was installed into our table for us alone, so this is its one owner.
                let fd = unsafe {
                    let raw = libc::CMSG_DATA(header).cast::<RawFd>().add(i);
                    OwnedFd::from_raw_fd(raw.read_unaligned())
                };
                received.fd_count += 1;
                // Surplus ones are closed by this drop.
                received.fd.get_or_insert(fd);
            }
        }
        // SAFETY: `header` lies in `message`'s control buffer, which the kernel filled.
        header = unsafe { libc::CMSG_NXTHDR(&message, header) };
    }
    Ok(received)
}

/// Repeats a call that a signal interrupted; errno becomes an error.
fn retry(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(n) => return Ok(n),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Who is at the other end, in the kernel's words at the time of connect or listen. Pid 0: not visible from
/// this pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// Process.
    pub(crate) pid: u32,
    /// Effective user.
    pub(crate) uid: u32,
}

/// Pid and uid of the peer (SO_PEERCRED).
pub(crate) fn peer_credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let them = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials)?;
    Ok(Credentials {
        pid: u32::try_from(them.pid()).unwrap_or(0),
        uid: them.uid(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    /// An open descriptor's file, so that tests can tell them apart.
    fn inode(fd: impl AsFd) -> u64 {
        nix::sys::stat::fstat(fd).unwrap().st_ino
    }

    #[test]
    fn a_descriptor_travels_with_the_first_byte_and_is_close_on_exec() {
        let (a, b) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        assert_eq!(
            try_send(a.as_fd(), b"head", b"body", Some(file.as_fd())).unwrap(),
            8
        );
        let mut buffer = [0; 3];
        let first = try_recv(b.as_fd(), &mut buffer).unwrap();
        assert_eq!(
            (first.bytes, first.fd_count, first.truncated),
            (3, 1, false)
        );
        let fd = first.fd.unwrap();
        assert_eq!(inode(&fd), inode(&file));
        let flags = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_ne!(flags & libc::FD_CLOEXEC, 0);
        let mut rest = [0; 16];
        let second = try_recv(b.as_fd(), &mut rest).unwrap();
        assert_eq!((second.bytes, second.fd_count), (5, 0));
        assert_eq!(&rest[..5], b"dbody");
    }

    /// Sends `n` copies of one descriptor, which the API can't.
    fn send_many(socket: &UnixStream, fd: BorrowedFd<'_>, n: usize) {
        use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
        let fds = vec![fd.as_raw_fd(); n];
        sendmsg::<()>(
            socket.as_raw_fd(),
            &[io::IoSlice::new(b"x")],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::empty(),
            None,
        )
        .unwrap();
    }

    #[test]
    fn surplus_descriptors_are_closed_not_leaked() {
        for n in [2, 3, MAX_PASSED] {
            let (a, b) = UnixStream::pair().unwrap();
            // A pipe's read end sees end-of-file once every copy of the write end is closed.
            let (read, write) = std::io::pipe().unwrap();
            send_many(&a, write.as_fd(), n);
            drop(write);
            let got = try_recv(b.as_fd(), &mut [0; 8]).unwrap();
            assert_eq!((got.fd_count, got.truncated), (n, false));
            drop(got);
            let mut read = read;
            assert_eq!(
                io::Read::read(&mut read, &mut [0; 1]).unwrap(),
                0,
                "{n} sent"
            );
        }
    }

    #[test]
    fn nothing_there_no_room_and_a_closed_peer_are_told_apart() {
        let (a, b) = UnixStream::pair().unwrap();
        let kind = |e: io::Error| e.kind();
        assert_eq!(
            try_recv(b.as_fd(), &mut [0; 8]).map(|_| ()).map_err(kind),
            Err(io::ErrorKind::WouldBlock)
        );
        let block = [0; 65536];
        while try_send(a.as_fd(), &block, &[], None).is_ok() {}
        assert_eq!(
            try_send(a.as_fd(), &block, &[], None).map_err(kind),
            Err(io::ErrorKind::WouldBlock)
        );
        drop(a);
        let mut sink = vec![0; 1 << 20];
        while try_recv(b.as_fd(), &mut sink).unwrap().bytes > 0 {}
        assert_eq!(
            try_send(b.as_fd(), b"x", &[], None).map_err(kind),
            Err(io::ErrorKind::BrokenPipe)
        );
    }

    #[test]
    fn a_peer_that_closed_costs_an_error_not_the_process() {
        let test = "wire::fdpass::tests::a_peer_that_closed_costs_an_error_not_the_process";
        crate::mem::limit_tests::alone(test, || {
            // Rust's runtime ignores SIGPIPE; a C program that embeds us does not.
            // SAFETY: the default action needs no handler, and this process is ours alone.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            let (a, b) = UnixStream::pair().unwrap();
            drop(a);
            let e = try_send(b.as_fd(), b"x", &[], None).unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::BrokenPipe);
        });
    }

    #[test]
    fn the_peer_is_who_the_kernel_says() {
        let (a, _b) = UnixStream::pair().unwrap();
        let peer = peer_credentials(&a).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
    }
}
