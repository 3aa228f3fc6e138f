//! One connection on a thread of its own: the handshake, then requests over the socket until it ends or moves to shared memory.

mod answer;
mod upgrade;

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::clients::Key;
use super::{Shared, descriptors};
use crate::clock::monotonic_ns;
use crate::config::TransportChoice;
use crate::error::CloseReason;
use crate::mem::headroom;
use crate::peer::Peer;
use crate::process::start_ticks;
use crate::stats::recorder::set;
use crate::stats::slot::{SlotFacts, SlotWriter};
use crate::stats::{SlotKind, Via};
use crate::timing::Timing;
use crate::wire::drive::{self, Admitted};
use crate::wire::edge::{Deadline, recv_until};
use crate::wire::fdpass::Credentials;
use crate::wire::frame::{Decoder, Kind};
use crate::wire::handshake::{Ending, ServerTerms};
use crate::wire::messages::{Name, Reject};

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
    credentials: Credentials,
    socket: &Arc<UnixStream>,
) {
    let begun = monotonic_ns();
    let entry = Entry { shared, key };
    let process = shared.page.process();
    let timeout = shared.config.handshake_timeout;
    let terms = terms(shared, number);
    let next = match drive::admit(socket, terms, timeout, Buffers::new) {
        Ok((admitted, buffers)) => {
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
                peer_pid: credentials.pid,
                peer_uid: credentials.uid,
                peer_start_ticks: started(shared, credentials.pid),
                peer_name: admitted.hello.name.to_string(),
                tid: nix::unistd::gettid().as_raw().unsigned_abs(),
                wait_policy: shared.config.wait,
                max_message: admitted.max_message,
                ..SlotFacts::default()
            };
            let timing = Timing::new(&slot);
            let slot = Arc::new(slot);
            Connection {
                shared,
                key,
                credentials,
                peer: Peer {
                    pid: credentials.pid,
                    uid: credentials.uid,
                    connection_id: terms.connection_id,
                    client_number: number,
                },
                socket,
                admitted,
                slot,
                facts,
                timing,
            }
            .serve(begun, buffers)
        }
        Err(ending) => {
            count_reject(shared, credentials, ending.reject());
            Next::Over
        }
    };
    if let Next::HandedOver = next {
        // It is the control thread's from here on.
        std::mem::forget(entry);
    }
}

/// The connection's place in the table, taken out when dropped: also if this thread panics, or it would be taken for ever.
struct Entry<'a> {
    shared: &'a Shared,
    key: Key,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.shared.clients.lock().by_key.remove(&self.key);
    }
}

/// When the client's process was started; 0 if that can't be seen.
fn started(shared: &Arc<Shared>, pid: u32) -> u64 {
    let look = descriptors::lend(shared, || Ok(start_ticks(pid)));
    look.ok().and_then(|(ticks, _)| ticks).unwrap_or(0)
}

/// Counts who was refused and notes who it was; `None`: nobody was, the peer has gone by itself.
pub(super) fn count_reject(shared: &Shared, peer: Credentials, reject: Option<Reject>) {
    let p = shared.page.process();
    let word = match reject {
        Some(Reject::Magic) => &p.rejected_magic,
        Some(Reject::Version) => &p.rejected_version,
        Some(Reject::Layout) => &p.rejected_layout,
        Some(Reject::Uid) => &p.rejected_uid,
        Some(Reject::Timeout) => &p.rejected_timeout,
        Some(Reject::Full) => &p.rejected_full,
        Some(Reject::Pending) => &p.rejected_pending,
        Some(Reject::Resources) => &p.rejected_resources,
        Some(Reject::Descriptors) => &p.accept_errors,
        None => return,
    };
    set(&p.last_rejected_uid, peer.uid.into());
    set(&p.last_rejected_pid, peer.pid.into());
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

/// What serving a client on the socket takes.
struct Buffers {
    /// Of requests.
    decoder: Decoder,
    reply: Vec<u8>,
}

impl Buffers {
    /// For messages of up to so many bytes, if there is address space for them: a client too many is its own end, and not everybody's.
    fn new(max_message: u64) -> Option<Self> {
        // Bounded by the configuration, far below 4 GiB.
        let mut reply = Vec::new();
        reply.try_reserve_exact(max_message as usize).ok()?;
        let decoder = Decoder::new(max_message as u32)?;
        headroom::has_room_for(0).then_some(Self { decoder, reply })
    }
}

struct Connection<'a> {
    shared: &'a Arc<Shared>,
    key: Key,
    credentials: Credentials,
    peer: Peer,
    socket: &'a Arc<UnixStream>,
    admitted: Admitted,
    slot: Arc<SlotWriter>,
    facts: SlotFacts,
    timing: Timing,
}

impl Connection<'_> {
    /// Serves the socket until the connection ends or moves.
    fn serve(mut self, begun_ns: u64, buffers: Buffers) -> Next {
        let Buffers {
            mut decoder,
            mut reply,
        } = buffers;
        // A client that wants shared memory is still shaking hands until that is decided.
        self.decided(self.facts.wanted == Via::Socket, begun_ns);
        let max_message = self.admitted.max_message as usize;
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
                        // Its end, or ours: a server that ends lets nothing more in. All that came whole is answered, so nothing of ours is in the way;
                        // half a request is the client's.
                        Ok(got) if got.bytes == 0 => {
                            if self.shared.ending() {
                                drive::bye(&**self.socket);
                            }
                            return self.over(CloseReason::PeerGone);
                        }
                        Ok(got) if got.fd_count > 0 => {
                            count_reject(self.shared, self.credentials, Some(Reject::Layout));
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
                    count_reject(self.shared, self.credentials, Some(Reject::Magic));
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
                if self.facts.open && !self.begin_upgrade() {
                    // What it sent before is answered; to come to the rings it is too late.
                    drive::bye(&**self.socket);
                    return self.over(CloseReason::PeerGone);
                }
                match self.upgrade(&message, begun_ns) {
                    Ok(Some(next)) => {
                        return next;
                    }
                    Ok(None) => {}
                    Err(ending) => {
                        // What ended may be our own reading, shut because the server ends: nothing of ours is half sent then.
                        if ending == Ending::PeerGone && self.shared.stopping() {
                            drive::bye(&**self.socket);
                        }
                        count_reject(self.shared, self.credentials, ending.reject());
                        return self.over(CloseReason::Handshake);
                    }
                }
                continue;
            }
            if frame.header.kind != Kind::Request {
                count_reject(self.shared, self.credentials, Some(Reject::Layout));
                return self.over(CloseReason::Poisoned);
            }
            self.decided(true, begun_ns);
            let header = frame.header;
            if !self.answer(header, decoder.last_payload(), &mut reply, max_message) {
                return self.over(CloseReason::PeerGone);
            }
        }
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

    /// An upgrade begins of a connection that could have stayed as it is: a server that drains lets it come to an end. False: it is too late for one.
    fn begin_upgrade(&self) -> bool {
        let mut table = self.shared.clients.lock();
        table.begin_upgrade(self.key, || self.shared.ending())
    }

    /// Takes the connection out of the pending ones, and of those that upgrade.
    fn settled(&self, begun_ns: u64) {
        // Several threads: a plain raise could lose the longer of two.
        self.shared
            .page
            .process()
            .handshake_max_ns
            .fetch_max(monotonic_ns().saturating_sub(begun_ns), Ordering::Relaxed);
        if let Some(client) = self.shared.clients.lock().by_key.get_mut(&self.key) {
            client.pending_since_ns = 0;
            client.upgrading = false;
        }
    }

    fn over(self, reason: CloseReason) -> Next {
        self.slot.close(reason);
        // The end is the message.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        Next::Over
    }
}
