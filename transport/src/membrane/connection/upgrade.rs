//! From the socket to shared memory: rings for one client, a place at a poller, and the handing over.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::super::budget::Reserved;
use super::super::clients::ShmPart;
use super::super::house::House;
use super::super::{Shared, descriptors, pool};
use super::{Connection, Next};
use crate::clock::monotonic_ns;
use crate::error::{CloseReason, Step};
use crate::layout;
use crate::mem::fork::Unforked;
use crate::mem::huge::{self, HugeState};
use crate::mem::mapping::Mapping;
use crate::mem::memfd;
use crate::mem::{StepError, headroom};
use crate::shm::{Ends, HouseView, Inbox, Kept, Rings, ShmServer};
use crate::stats::Via;
use crate::stats::slot::SlotFacts;
use crate::wire::drive::{self, Upgraded};
use crate::wire::frame::HANDSHAKE_BYTES;
use crate::wire::handshake::Ending;
use crate::wire::messages::Offer;

/// Fresh rings, mapped here, not yet the client's.
struct Made {
    mapping: Arc<Mapping>,
    rings: Rings,
    inode: u64,
    huge: u32,
    reserved: Reserved,
}

impl Connection<'_> {
    /// Answers an UPGRADE. `begun_ns`: when the connection was accepted. `Some`: the connection has moved to a poller, or ended on the way.
    pub(super) fn upgrade(
        &mut self,
        message: &[u8; HANDSHAKE_BYTES],
        begun_ns: u64,
    ) -> Result<Option<Next>, Ending> {
        // If the connection is open already, this is a later upgrade: it is timed from now on, not from accept.
        let begun = if self.facts.open {
            monotonic_ns()
        } else {
            begun_ns
        };
        let shared = self.shared;
        let timeout = shared.config.handshake_timeout;
        // Made inside the call, which runs it only if an offer is due; kept outside for what comes after.
        let mut assigned = None;
        let mut loan = None;
        let make = |ring_bytes, max_message| {
            let ((made, fd, offer), lent) =
                descriptors::lend(shared, || make(shared, ring_bytes, max_message))?;
            loan = Some(lent);
            let thread = |e: std::io::Error| {
                StepError::new(Step::Thread, e.raw_os_error().unwrap_or(libc::EAGAIN))
            };
            assigned = Some(Assigned(pool::assign(shared).map_err(thread)?));
            Ok((made, fd, offer))
        };
        let upgraded = drive::answer_upgrade(
            self.socket,
            &mut self.admitted.machine,
            (message, 0),
            timeout,
            make,
        )?;
        // The descriptor is closed by now, whatever came of it.
        drop(loan);
        let process = shared.page.process();
        match (upgraded, assigned) {
            (Upgraded::Shm(made, offer), Some(assigned)) => {
                process.upgrades.fetch_add(1, Ordering::Relaxed);
                self.hand_over(made, &offer, assigned);
                self.settled(begun);
                Ok(Some(Next::HandedOver))
            }
            (Upgraded::Socket(why), _) => {
                process.fallbacks.fetch_add(1, Ordering::Relaxed);
                self.facts.fallback = Some(why);
                self.facts.open = false;
                self.decided(true, begun);
                Ok(None)
            }
            (Upgraded::Shm(..), None) => Err(Ending::broken("switched without a poller")),
        }
    }

    /// Gives the connection to its poller, and its socket to the control thread.
    fn hand_over(&mut self, made: Made, offer: &Offer, assigned: Assigned) {
        let (inbox, poller_slot) = assigned.take();
        let capacity = offer.client_to_server_bytes as usize;
        let ends = Arc::new(Ends::new(&inbox));
        self.facts = SlotFacts {
            open: true,
            transport: Via::Shm,
            fallback: None,
            rx_capacity: offer.client_to_server_bytes,
            tx_capacity: offer.server_to_client_bytes,
            poller_slot,
            huge_pages: made.huge,
            ring_inode: made.inode,
            ..std::mem::take(&mut self.facts)
        };
        self.slot.publish_info(&self.facts);
        let max_message = self.admitted.max_message as usize;
        let kept: Kept = Arc::new(made.reserved);
        let server = ShmServer::new(
            made.rings,
            max_message,
            self.peer,
            Arc::clone(&self.slot),
            Arc::clone(&ends),
            Arc::clone(self.socket),
            Arc::clone(&kept),
        );
        let part = ShmPart {
            slot: Arc::clone(&self.slot),
            view: HouseView::new(&made.mapping, capacity),
            house: House::default(),
            ends: Arc::clone(&ends),
            _kept: kept,
        };
        match self.shared.clients.lock().by_key.get_mut(&self.key) {
            Some(client) => client.shm = Some(part),
            // The server is ending, and has forgotten all clients; it waits for this thread before it returns.
            None => self.slot.close(CloseReason::Shutdown),
        }
        inbox.hand_over(server);
        fault_point!(HandedOver);
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, self.key);
        // ENOMEM, ENOSPC (the user's epoll watches): without this the client's death would go unnoticed, so rather end it now.
        if self.shared.epoll.add(self.socket.as_fd(), event).is_err() {
            // The poller gives it up, and the next housekeeping takes it out of the table.
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
            ends.set_gone();
        }
    }
}

/// A place at a poller; given back unless taken.
struct Assigned((Arc<Inbox>, Option<u32>));

impl Assigned {
    fn take(self) -> (Arc<Inbox>, Option<u32>) {
        let (inbox, slot) = &self.0;
        // For the place that goes back with `self`. To forget `self` instead would keep the inbox for ever, and with it a connection
        // that comes too late for its poller.
        inbox.reserve(usize::MAX);
        (Arc::clone(inbox), *slot)
    }
}

impl Drop for Assigned {
    fn drop(&mut self) {
        self.0.0.cancel();
    }
}

/// Sealed, mapped rings for one client, after checking that there is room for them.
fn make(
    shared: &Shared,
    ring_bytes: u64,
    max_message: u64,
) -> Result<(Made, Unforked, Offer), StepError> {
    let capacity = ring_bytes as usize;
    let huge = shared.config.huge_pages;
    let total = huge::round_len(
        (layout::LAYOUT.total_bytes)(ring_bytes, ring_bytes) as usize,
        huge,
    );
    let reserved = shared.budget.reserve(total as u64)?;
    headroom::check(total as u64)?;
    let (fd, state) = memfd::create_rings(memfd::RING_NAME, total, huge)?;
    let mapping = Arc::new(Mapping::shared(fd.as_fd(), total)?);
    let inode = nix::sys::stat::fstat(&fd).map_or(0, |s| s.st_ino);
    let huge = match state {
        HugeState::NotAsked => 0,
        HugeState::Used => 1,
        HugeState::Short { .. } => {
            if mapping.advise_huge_pages() {
                3
            } else {
                2
            }
        }
    };
    let rings = Rings::server(&mapping, capacity, max_message as usize);
    let offer = Offer {
        layout_version: layout::LAYOUT_VERSION,
        total_bytes: total as u64,
        client_to_server_bytes: ring_bytes,
        server_to_client_bytes: ring_bytes,
        max_message,
    };
    Ok((
        Made {
            mapping,
            rings,
            inode,
            huge,
            reserved,
        },
        fd,
        offer,
    ))
}

#[cfg(test)]
mod tests;
