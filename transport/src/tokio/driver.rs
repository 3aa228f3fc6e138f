//! The task that waits for the connection's socket on behalf of all.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Weak;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;

use super::shared::{Shared, Turn};
use crate::mem::fork::NotInForks;

/// A second descriptor of the connection's socket, for the runtime to wait for.
pub(super) struct Watched {
    /// Before the descriptor: dropped first.
    _not_in_forks: NotInForks,
    fd: OwnedFd,
}

impl Watched {
    /// Duplicates `fd`.
    pub(super) fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let fd = fd.try_clone_to_owned()?;
        let _not_in_forks = NotInForks::new(&fd);
        Ok(Self { _not_in_forks, fd })
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Ends with the connection, or with its last handle. The duplicate of the socket that it holds tells nobody anything by then:
/// whoever ends the connection shuts the socket down.
pub(super) async fn drive(fd: AsyncFd<Watched>, interest: Interest, shared: Weak<Shared>) {
    loop {
        let Ok(mut ready) = fd.ready(interest).await else {
            // The runtime is shutting down: nobody will be woken any more.
            return;
        };
        let Some(shared) = shared.upgrade() else {
            return;
        };
        match shared.turn() {
            // The kernel said that there is nothing more after `ready` was made, so clearing it loses nothing.
            Turn::Dry => ready.clear_ready(),
            Turn::More => {
                drop(shared);
                ::tokio::task::yield_now().await;
            }
            Turn::Over => return,
        }
    }
}
