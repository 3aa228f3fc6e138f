//! One connection on a thread of its own: the handshake, then requests over the socket until it ends or moves to shared memory.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::clients::{Key, ShmPart};
use super::house::House;
use super::{Shared, pool};
use crate::clock::{Ticks, monotonic_ns};
use crate::config::TransportChoice;
use crate::error::{CloseReason, Step};
use crate::layout;
use crate::mem::mapping::Mapping;
use crate::mem::memfd::{self, HugeState};
use crate::mem::{StepError, headroom};
use crate::reply::{Reply, Sink};
use crate::shm::{Ends, HouseView, Inbox, Rings, ShmServer};
use crate::stats::recorder::{bump, raise, set};
use crate::stats::sampler::Sampler;
use crate::stats::slot::{SlotFacts, SlotWriter};
use crate::stats::{SlotKind, Via};
use crate::wire::drive::{self, Admitted, Upgraded};
use crate::wire::edge::{Deadline, recv_until, send_until};
use crate::wire::fdpass::{Peer, start_ticks};
use crate::wire::frame::{Decoder, HANDSHAKE_BYTES, Header, Kind};
use crate::wire::handshake::{Admission, Ending, ServerTerms};
use crate::wire::messages::{Name, Offer, Reject};

/// How long a client on the socket may take to accept a reply. Generous, because a stopped client is not dead; bounded, because its
/// thread and buffers are held meanwhile.
const REPLY_PATIENCE: Duration = Duration::from_secs(60);
/// Between two requests on the socket a client may take for ever.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a connection has become.
enum Next {
    /// It ended; the slot says why.
    Over,
    /// It is on shared memory; a poller has it.
    HandedOver,
}

/// Runs on a thread of its own, from accept until the connection ends or is handed to a poller.
pub(super) fn handle_connection(
    shared: &Arc<Shared>,
    key: Key,
    number: u32,
    peer: Peer,
    socket: &Arc<UnixStream>,
    admission: Admission,
) {
    let begun = monotonic_ns();
    let process = shared.page.process();
    let timeout = shared.config.handshake_timeout;
    let terms = terms(shared, number);
    let next = match drive::admit(socket, terms, admission, timeout) {
        Ok(admitted) => {
            process.handshakes.fetch_add(1, Ordering::Relaxed);
            let slot = shared
                .page
                .slot(SlotKind::Connection)
                .unwrap_or_else(|| SlotWriter::private(SlotKind::Connection));
            let facts = SlotFacts {
                connection_id: terms.connection_id,
                client_number: number,
                wanted: match admitted.hello.transport {
                    TransportChoice::Socket => Via::Socket,
                    TransportChoice::Auto | TransportChoice::Shm => Via::Shm,
                },
                peer_pid: peer.pid,
                peer_uid: peer.uid,
                peer_start_ticks: start_ticks(peer.pid).unwrap_or(0),
                peer_name: admitted.hello.name.to_string(),
                tid: nix::unistd::gettid().as_raw().unsigned_abs(),
                wait_policy: shared.config.wait,
                max_message: admitted.max_message,
                ..SlotFacts::default()
            };
            let sampler = Sampler::new(u64::from(slot.index().unwrap_or(0)));
            let (slot, last_sample) = (Arc::new(slot), Ticks::now());
            Connection {
                shared,
                key,
                socket,
                admitted,
                slot,
                facts,
                sampler,
                last_sample,
            }
            .serve(begun)
        }
        Err(ending) => {
            set(&process.last_rejected_uid, peer.uid.into());
            set(&process.last_rejected_pid, peer.pid.into());
            count_reject(shared, ending.reject());
            Next::Over
        }
    };
    if let Next::Over = next {
        shared.clients.lock().by_key.remove(&key);
    }
}

fn count_reject(shared: &Shared, reject: Option<Reject>) {
    let p = shared.page.process();
    let word = match reject {
        Some(Reject::Magic) => &p.rejected_magic,
        Some(Reject::Version) => &p.rejected_version,
        Some(Reject::Layout) => &p.rejected_layout,
        Some(Reject::Uid) => &p.rejected_uid,
        Some(Reject::Timeout) => &p.rejected_timeout,
        Some(Reject::Full) => &p.rejected_full,
        Some(Reject::Descriptors) => &p.accept_errors,
        None => return,
    };
    // Several threads count here; it is far from any hot path.
    word.fetch_add(1, Ordering::Relaxed);
}

fn terms(shared: &Shared, number: u32) -> ServerTerms {
    let config = &shared.config;
    ServerTerms {
        ring_bytes: config.ring_bytes as u64,
        max_message: config.max_message_bytes as u64,
        shm: config.transport != TransportChoice::Socket,
        features: 0,
        name: Name::new(&config.name),
        connection_id: random(),
        client_number: number,
    }
}

/// 64 random bits: std's per-process hash keys, drawn anew per state. Names a connection; guards nothing.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() | 1
}

struct Connection<'a> {
    shared: &'a Arc<Shared>,
    key: Key,
    socket: &'a Arc<UnixStream>,
    admitted: Admitted,
    slot: Arc<SlotWriter>,
    facts: SlotFacts,
    sampler: Sampler,
    last_sample: Ticks,
}

/// Fresh rings, mapped here, not yet the client's.
struct Made {
    mapping: Arc<Mapping>,
    rings: Rings,
    inode: u64,
    huge: u32,
}

impl Connection<'_> {
    /// Serves the socket until the connection ends or moves.
    fn serve(mut self, begun_ns: u64) -> Next {
        // A client that wants shared memory is still shaking hands until that is decided.
        self.decided(self.facts.wanted == Via::Socket, begun_ns);
        // Bounded by the configuration, far below 4 GiB.
        let max_message = self.admitted.max_message as usize;
        let mut decoder = Decoder::new(max_message as u32);
        let mut reply = Vec::with_capacity(max_message);
        // One for the whole stage: a byte now and then must not keep a handshake pending, and others out.
        let stage = Deadline::after(self.shared.config.handshake_timeout);
        loop {
            let frame = match decoder.next() {
                Ok(None) => {
                    let deadline = if self.facts.open {
                        Deadline::after(FOREVER)
                    } else {
                        stage
                    };
                    match recv_until(self.socket, decoder.space(), deadline) {
                        Ok(got) if got.bytes == 0 => return self.over(CloseReason::PeerGone),
                        Ok(got) if got.fd_count > 0 => {
                            count_reject(self.shared, Some(Reject::Layout));
                            return self.over(CloseReason::Poisoned);
                        }
                        Ok(got) => {
                            decoder.filled(got.bytes);
                            if stage.passed() {
                                self.decided(true, begun_ns);
                            }
                        }
                        // It wanted shared memory and never asked: it stays on the socket, with all the time it wants.
                        Err(e) if e.kind() == std::io::ErrorKind::TimedOut => {
                            self.decided(true, begun_ns)
                        }
                        Err(_) => return self.over(CloseReason::PeerGone),
                    }
                    continue;
                }
                Ok(Some(frame)) => frame,
                Err(_) => {
                    count_reject(self.shared, Some(Reject::Magic));
                    return self.over(CloseReason::Poisoned);
                }
            };
            if let Some(message) = frame.handshake() {
                let message = *message;
                if frame.header.kind == Kind::Bye {
                    return self.over(CloseReason::PeerGone);
                }
                // What follows an UPGRADE in the same packet would be lost at the switch; nobody sends it.
                if decoder.pending() > 0 {
                    return self.over(CloseReason::Poisoned);
                }
                match self.upgrade(&message) {
                    Ok(Some(next)) => {
                        return next;
                    }
                    Ok(None) => self.decided(true, begun_ns),
                    Err(ending) => {
                        count_reject(self.shared, ending.reject());
                        return self.over(CloseReason::Handshake);
                    }
                }
                continue;
            }
            if frame.header.kind != Kind::Request {
                count_reject(self.shared, Some(Reject::Layout));
                return self.over(CloseReason::Poisoned);
            }
            self.decided(true, begun_ns);
            let header = frame.header;
            if !self.answer(header, decoder.last_payload(), &mut reply, max_message) {
                return self.over(CloseReason::PeerGone);
            }
        }
    }

    /// Answers one request over the socket; false if the client is gone.
    fn answer(
        &mut self,
        header: Header,
        request: &[u8],
        buffer: &mut Vec<u8>,
        max_message: usize,
    ) -> bool {
        let slot = &self.slot;
        let (req, rx, tx) = (slot.req(), slot.rx(), slot.tx());
        bump(&rx.rx_messages, 1);
        bump(&rx.rx_bytes, request.len() as u64);
        raise(&rx.rx_largest_bytes, request.len() as u64);
        bump(&req.requests, 1);
        bump(&req.socket_requests, 1);
        buffer.clear();
        let timed = self.sampler.due();
        let begun = timed.map(|weight| {
            let now = Ticks::now();
            set(&req.handler_since_ns, now.monotonic_ns());
            (now, weight)
        });
        let mut reply = Reply::new(Sink::Buffer(buffer, max_message));
        // AssertUnwindSafe: as in `shm::server`.
        if catch_unwind(AssertUnwindSafe(|| {
            (self.shared.handler)(request, &mut reply)
        }))
        .is_err()
        {
            bump(&req.panics, 1);
            reply.fail("the handler panicked");
        }
        let failed = reply.failed();
        if let Some((begun, weight)) = begun {
            let now = Ticks::now();
            slot.handler().record(now.ns_since(begun), weight);
            bump(&req.handler_ns, now.ns_since(begun).saturating_mul(weight));
            set(&req.handler_since_ns, 0);
            set(&req.last_progress_ns, now.monotonic_ns());
            self.sampler.adapt(now.ns_since(self.last_sample));
            self.last_sample = now;
            set(&req.sample_period, self.sampler.period());
        }
        if failed {
            bump(&req.errors, 1);
        }
        let kind = if failed {
            Kind::ErrorReply
        } else {
            Kind::Reply
        };
        // The length fits: the buffer is bounded by the largest message.
        let answer = Header {
            kind,
            id: header.id,
            length: buffer.len() as u32,
            aux: 0,
        };
        let sent = send_until(
            self.socket,
            &answer.encode(),
            buffer,
            None,
            Deadline::after(REPLY_PATIENCE),
        );
        bump(&tx.tx_messages, 1);
        bump(&tx.tx_bytes, buffer.len() as u64);
        raise(&tx.tx_largest_bytes, buffer.len() as u64);
        bump(&req.replies, 1);
        sent.is_ok()
    }

    /// Notes how far the handshake is: decided, or still open.
    fn decided(&mut self, decided: bool, begun_ns: u64) {
        if self.facts.open {
            return;
        }
        self.facts.open = decided;
        self.slot.publish_info(&self.facts);
        if decided {
            self.settled(begun_ns);
        }
    }

    /// Takes the connection out of the pending ones.
    fn settled(&self, begun_ns: u64) {
        raise(
            &self.shared.page.process().handshake_max_ns,
            monotonic_ns().saturating_sub(begun_ns),
        );
        if let Some(client) = self.shared.clients.lock().by_key.get_mut(&self.key) {
            client.pending_since_ns = 0;
        }
    }

    /// An UPGRADE came. `Some`: the connection has moved, or ended on the way to its poller.
    fn upgrade(&mut self, message: &[u8; HANDSHAKE_BYTES]) -> Result<Option<Next>, Ending> {
        let begun = monotonic_ns();
        let shared = self.shared;
        let timeout = shared.config.handshake_timeout;
        // Made inside the call, which runs it only if an offer is due; kept outside for what comes after.
        let mut assigned = None;
        let make = |ring_bytes, max_message| {
            let (made, fd, offer) = make(shared, ring_bytes, max_message)?;
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
                Ok(None)
            }
            (Upgraded::Shm(..), None) => Err(Ending::broken("switched without a poller")),
        }
    }

    /// Gives the connection to its poller, and its socket to the control thread.
    fn hand_over(&mut self, made: Made, offer: &Offer, assigned: Assigned) {
        let (inbox, poller_slot) = assigned.take();
        let capacity = offer.client_to_server_bytes as usize;
        let ends = Arc::new(Ends::default());
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
        let server = ShmServer::new(
            made.rings,
            max_message,
            Arc::clone(&self.slot),
            Arc::clone(&ends),
            Arc::clone(self.socket),
        );
        let part = ShmPart {
            slot: Arc::clone(&self.slot),
            view: HouseView::new(&made.mapping, capacity),
            house: House::default(),
            ends: Arc::clone(&ends),
            inbox: Arc::clone(&inbox),
            bytes: offer.total_bytes,
        };
        if let Some(client) = self.shared.clients.lock().by_key.get_mut(&self.key) {
            client.shm = Some(part);
        }
        inbox.hand_over(server);
        fault_point!(HandedOver);
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, self.key);
        // ENOMEM, ENOSPC (the user's epoll watches): without this the client's death would go unnoticed, so rather end it now.
        if self.shared.epoll.add(self.socket.as_fd(), event).is_err() {
            // The poller gives it up, and the next housekeeping takes it out of the table.
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
            ends.set_gone();
            inbox.nudge();
        }
        // The server may have begun to end before the table had this client's poller: then nobody else tells it.
        if self.shared.stopping() {
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
        }
    }

    fn over(self, reason: CloseReason) -> Next {
        self.slot.close(reason);
        // The end is the message.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        Next::Over
    }
}

/// A place at a poller; given back unless taken.
struct Assigned((Arc<Inbox>, Option<u32>));

impl Assigned {
    fn take(self) -> (Arc<Inbox>, Option<u32>) {
        let place = (Arc::clone(&self.0.0), self.0.1);
        std::mem::forget(self);
        place
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
) -> Result<(Made, OwnedFd, Offer), StepError> {
    let capacity = ring_bytes as usize;
    let huge = shared.config.huge_pages;
    let total = memfd::round_len(
        (layout::LAYOUT.total_bytes)(ring_bytes, ring_bytes) as usize,
        huge,
    );
    let budget = shared.config.memory_budget_bytes;
    if budget > 0 {
        let used = shared.clients.lock().ring_bytes();
        if used.saturating_add(total as u64) > budget {
            return Err(StepError {
                step: Step::Headroom,
                errno: 0,
                limit: budget,
                used,
            });
        }
    }
    headroom::check(total as u64)?;
    let (fd, state) = memfd::create_rings(memfd::RING_NAME, total, huge)?;
    let mapping = Arc::new(Mapping::shared(fd.as_fd(), total)?);
    let inode = nix::sys::stat::fstat(&fd).map_or(0, |s| s.st_ino);
    let huge = match state {
        HugeState::NotAsked => 0,
        HugeState::Used => 1,
        HugeState::Short { .. } => {
            // The next best: transparent ones, where `shmem_enabled` allows. A refusal leaves 4 KiB pages, which is what
            // the 2 says either way.
            let _ = mapping.advise_huge_pages();
            2
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
        },
        fd,
        offer,
    ))
}
