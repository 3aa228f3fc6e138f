//! The task that waits for the connection's socket on behalf of all.

use std::sync::Weak;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;

use super::shared::{Shared, Turn};
use crate::mem::fork::Unforked;

/// Ends with the connection, or with its last handle. The duplicate of the socket that it holds tells nobody anything by then:
/// whoever ends the connection shuts the socket down.
pub(super) async fn drive(fd: AsyncFd<Unforked>, interest: Interest, shared: Weak<Shared>) {
    loop {
        let Ok(mut ready) = fd.ready(interest).await else {
            // The runtime is shutting down: nobody will be woken any more.
            return;
        };
        let Some(shared) = shared.upgrade() else {
            return;
        };
        match shared.turn() {
            // No more bells were due, or the kernel said that there is nothing more, after `ready` was made: clearing it loses nothing. (The end is not cleared.)
            Turn::Dry => ready.clear_ready(),
            Turn::More => {
                drop(shared);
                ::tokio::task::yield_now().await;
            }
            Turn::Over => return,
        }
    }
}
