//! Drafts for which there is no room: refused, or waited for, before anything is written into them.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use transport::error::RequestError;
use transport::stats::Slot;
use transport::{Config, Membrane, Synapse, TransportChoice};

use crate::{World, own_page, pattern};

/// Ends a hang; nothing here takes a tenth of it.
const WATCHDOG: Duration = Duration::from_secs(30);

/// A client on shared memory whose requests, of up to 60,000 bytes, are answered once told.
struct Unanswered {
    /// Dropped first: the server waits for its handler.
    go: Sender<()>,
    _dir: tempfile::TempDir,
    _server: Membrane,
    client: Synapse,
    is_entered: Receiver<()>,
}

impl Unanswered {
    fn new() -> Self {
        Self::within(WATCHDOG)
    }

    /// With this timeout for a request.
    fn within(request_timeout: Duration) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config {
            ring_bytes: 256 << 10,
            max_message_bytes: 60_000,
            request_timeout,
            stats_dir: Some(dir.path().join("stats")),
            ..Config::default()
        };
        let (entered, is_entered) = channel();
        let (go, gone) = channel::<()>();
        let (entered, gone) = (Mutex::new(entered), Mutex::new(gone));
        let server = Membrane::bind(dir.path().join("s"), &config, move |request, reply| {
            let _ = entered.lock().expect("no panic").send(());
            // Once told, or once nobody is there to tell, all are answered.
            let _ = gone.lock().expect("no panic").recv();
            reply.extend_from_slice(request).expect("as large");
        })
        .expect("a server");
        let client = Synapse::connect(server.path(), &config).expect("a client");
        assert!(client.is_shm());
        Self {
            _dir: dir,
            _server: server,
            client,
            is_entered,
            go,
        }
    }

    /// No room is left: one is with the handler, and there is no place for another beside three more. All are given up.
    fn fill(&mut self) {
        self.client.submit(&pattern(0, 60_000)).expect("room");
        self.is_entered.recv_timeout(WATCHDOG).expect("a handler");
        for i in 1..4 {
            self.client.submit(&pattern(i, 60_000)).expect("room");
        }
        assert_eq!(self.client.cancel_all(), 4);
    }

    /// A draft is answered although there is no room for it until the given-up requests are, which begins once the page shows that the
    /// client waits.
    fn a_draft_waits(mut self, room: usize, waits: fn(&Slot) -> bool) {
        let id = self.client.connection_id();
        let go = self.go;
        let opener = std::thread::spawn(move || {
            let begun = Instant::now();
            while !waits(&own_page::slot_of(id)) {
                assert!(begun.elapsed() < WATCHDOG, "it does not wait");
                std::thread::yield_now();
            }
            drop(go);
        });
        let mut draft = self.client.draft(room).expect("room, after a while");
        draft.extend_from_slice(b"at last").expect("room");
        assert_eq!(draft.fire().expect("a reply"), b"at last");
        opener.join().expect("it waited");
    }
}

/// What is written into a draft is gone with it: so who may not send is told so before.
#[test]
fn over_the_socket_a_draft_for_which_there_is_no_room_is_refused_before_it_is_written() {
    let mut client = World::new(TransportChoice::Socket);
    let client = &mut client.client;
    let mut sent = Vec::new();
    let mut send = |client: &mut Synapse| {
        let mut draft = client.draft(8)?;
        draft.extend_from_slice(b"kept").expect("room");
        sent.push(draft.submit().expect("what was begun is sent"));
        Ok(sent.len())
    };
    let most = loop {
        match send(client) {
            Ok(so_many) => assert!(so_many < 10_000, "no limit"),
            Err(RequestError::Full { in_flight, .. }) => break in_flight,
            Err(e) => panic!("{e}"),
        }
    };
    client.receive().expect("a reply");
    assert_eq!(send(client).expect("room for one more"), most + 1);
    for id in sent.into_iter().skip(1) {
        assert_eq!(client.receive().expect("a reply"), (id, &b"kept"[..]));
    }
}

#[test]
fn a_draft_waits_for_the_room_that_requests_hold_which_were_given_up() {
    let mut all = Unanswered::new();
    all.fill();
    all.a_draft_waits(60_000, |slot| slot.tx.tx_blocked_since_ns != 0);
}

#[test]
fn a_draft_waits_for_the_number_that_requests_hold_which_were_given_up() {
    let mut all = Unanswered::new();
    let most = loop {
        match all.client.submit(b"x") {
            Ok(_) => {}
            Err(RequestError::Full { in_flight, .. }) => break in_flight,
            Err(e) => panic!("{e}"),
        }
    };
    assert_eq!(all.client.cancel_all(), most);
    all.a_draft_waits(8, |slot| slot.wait.waiting_since_ns != 0);
}

#[test]
fn what_a_request_waits_for_its_room_is_not_waited_for_its_reply_again() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let mut all = Unanswered::within(TIMEOUT);
    all.fill();
    let go = &all.go;
    std::thread::scope(|scope| {
        let begun = Instant::now();
        let room = scope.spawn(move || {
            // Late: a quarter of the timeout is left, and a wait that began anew would take all of it.
            std::thread::sleep(TIMEOUT * 3 / 4);
            let given = Instant::now();
            // One answer makes room; the next one never comes.
            go.send(()).expect("a handler");
            given
        });
        let ended = all.client.fire_bytes(&pattern(9, 60_000)).map(<[u8]>::len);
        let at = Instant::now();
        let given = room.join().expect("no panic");
        match ended {
            Err(RequestError::Timeout { .. }) => {
                let (all, waited) = (at - begun, at - given);
                assert!(waited < TIMEOUT, "{waited:?} for the reply, {all:?} in all");
            }
            // On a machine this busy the room came too late for it.
            Err(RequestError::Full { .. }) => {}
            other => panic!("{other:?}"),
        }
    });
}
