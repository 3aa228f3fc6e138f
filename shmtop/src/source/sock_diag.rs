//! The accept queues of listening Unix sockets, by the kernel's sock_diag interface: /proc/net/unix does not tell them.
//!
//! Called by `net`. One netlink request and its answer, which ends with a message that says so:
//! ```text
//! request  nlmsghdr: length u32, type u16, flags u16, sequence u32, pid u32
//!          unix_diag_req: family u8, protocol u8, pad u16, states u32, inode u32, show u32, cookie 2 × u32
//! answer   nlmsghdr, unix_diag_msg: family u8, type u8, state u8, pad u8, inode u32, cookie 2 × u32
//!          attributes: length u16, type u16, data, padded to 4
//! ```

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const LISTEN_STATE: u32 = 1 << 10;
const SHOW_VFS: u32 = 0x2;
const SHOW_RQLEN: u32 = 0x10;
const ATTRIBUTE_VFS: u16 = 1;
const ATTRIBUTE_RQLEN: u16 = 4;
const HEADER_BYTES: usize = 16;
/// Answers read at most: each holds dozens of sockets.
const MAX_ANSWERS: usize = 4096;

/// The accept queue of a listening socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Queue {
    /// Connections not accepted yet.
    pub(super) waiting: u32,
    /// How many may wait.
    pub(super) backlog: u32,
}

/// All listening Unix sockets of this network namespace that have a path, by the low 32 bits of the path's inode: several where file
/// systems use a number twice.
pub(super) fn listening() -> io::Result<HashMap<u32, Vec<Queue>>> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    // The kernel answers at once; should it ever not, a sample must not hang.
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(200))?;
    send(fd.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut queues = HashMap::new();
    let mut buffer = vec![0; 32 * 1024];
    for _ in 0..MAX_ANSWERS {
        let length = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if answers(&buffer[..length], &mut queues)? {
            return Ok(queues);
        }
    }
    Err(io::Error::other("the answer does not end"))
}

fn request() -> Vec<u8> {
    let mut request = Vec::with_capacity(40);
    request.extend(40u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    for word in [LISTEN_STATE, 0, SHOW_VFS | SHOW_RQLEN, u32::MAX, u32::MAX] {
        request.extend(word.to_ne_bytes());
    }
    request
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Takes in one datagram of answers; true if it was the last.
fn answers(mut bytes: &[u8], queues: &mut HashMap<u32, Vec<Queue>>) -> io::Result<bool> {
    let broken = || io::Error::other("the answer makes no sense");
    while !bytes.is_empty() {
        let length = u32_at(bytes, 0).ok_or_else(broken)? as usize;
        let message = bytes.get(HEADER_BYTES..length).ok_or_else(broken)?;
        match i32::from(u16_at(bytes, 4).ok_or_else(broken)?) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let errno = u32_at(message, 0).ok_or_else(broken)? as i32;
                return Err(io::Error::from_raw_os_error(errno.saturating_neg()));
            }
            kind if kind == i32::from(SOCK_DIAG_BY_FAMILY) => {
                if let Some((inode, queue)) = message.get(16..).and_then(attributes) {
                    queues.entry(inode).or_default().push(queue);
                }
            }
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(false)
}

/// Inode of the path and the queue; `None` for a socket without a path.
fn attributes(mut bytes: &[u8]) -> Option<(u32, Queue)> {
    let (mut inode, mut queue) = (None, None);
    while let (Some(length), Some(kind)) = (u16_at(bytes, 0), u16_at(bytes, 2)) {
        let length = usize::from(length);
        let data = bytes.get(4..length)?;
        match kind {
            ATTRIBUTE_VFS => inode = u32_at(data, 0),
            ATTRIBUTE_RQLEN => {
                queue = Some(Queue {
                    waiting: u32_at(data, 0)?,
                    backlog: u32_at(data, 4)?,
                });
            }
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Some((inode?, queue?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_answer_makes_it_panic_or_loop(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = answers(&bytes, &mut HashMap::new());
            let _ = attributes(&bytes);
        }
    }

    /// A path socket's message: its inode, and how many wait.
    fn answer(inode: u32, waiting: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(56u32.to_ne_bytes());
        bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        bytes.extend([0; 10 + 16]);
        for (kind, words) in [
            (ATTRIBUTE_VFS, [inode, 1]),
            (ATTRIBUTE_RQLEN, [waiting, 128]),
        ] {
            bytes.extend(12u16.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(words.into_iter().flat_map(u32::to_ne_bytes));
        }
        bytes
    }

    #[test]
    fn sockets_whose_file_systems_use_one_inode_number_are_both_kept() {
        let mut queues = HashMap::new();
        let bytes = [answer(5, 1), answer(5, 2), answer(6, 3)].concat();
        assert!(!answers(&bytes, &mut queues).unwrap());
        let waiting = |n: u32| queues[&n].iter().map(|q| q.waiting).collect::<Vec<_>>();
        assert_eq!((waiting(5), waiting(6)), (vec![1, 2], vec![3]));
    }

    #[test]
    fn a_refusal_is_an_error_with_its_errno() {
        let mut answer = Vec::new();
        answer.extend(20u32.to_ne_bytes());
        answer.extend((libc::NLMSG_ERROR as u16).to_ne_bytes());
        answer.extend([0; 10]);
        answer.extend((-libc::EPERM).to_ne_bytes());
        let error = answers(&answer, &mut HashMap::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
}
