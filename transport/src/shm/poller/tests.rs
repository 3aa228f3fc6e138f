use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::super::inbox::{Ends, MAX_CONNECTIONS};
use super::super::link::Rings;
use super::*;
use crate::clock::monotonic_ns;
use crate::config::WaitPolicy;
use crate::mem::mapping::Mapping;
use crate::mem::memfd::{RING_NAME, create_rings};
use crate::peer::Peer;
use crate::ring::plan::Kind;
use crate::ring::storage::{Storage, Word, connection_bytes};
use crate::stats::SlotKind;

/// One without a thread.
fn poller(inbox: Arc<Inbox>) -> Poller {
    Poller::new(
        inbox,
        Buffer::zeroed(64).expect("memory"),
        Waiter::new(WaitPolicy::Adaptive),
        Arc::new(SlotWriter::private(SlotKind::Poller)),
    )
}

#[test]
fn a_poller_that_is_busy_for_ever_counts_no_further_than_to_its_next_mark() {
    let mut poller = poller(Arc::default());
    let booked = poller.booked;
    for _ in 1..ROUNDS_PER_MARK {
        poller.busy(1);
    }
    assert!(poller.booked == booked && poller.rounds > 0);
    poller.busy(1);
    assert!(poller.booked > booked && poller.rounds == 0);
}

/// Both ends of one that belongs to that inbox.
fn connection(inbox: &Arc<Inbox>) -> (ShmServer, Rings) {
    let (ours, _theirs) = UnixStream::pair().expect("sockets");
    connection_of(Arc::new(Ends::new(inbox)), ours)
}

fn connection_of(ends: Arc<Ends>, socket: UnixStream) -> (ShmServer, Rings) {
    with_rings(ends, socket, 64 << 10, 64)
}

/// With rings of so many bytes, for messages of up to so many.
fn with_rings(
    ends: Arc<Ends>,
    socket: UnixStream,
    capacity: usize,
    largest: usize,
) -> (ShmServer, Rings) {
    let (fd, _) = create_rings(RING_NAME, connection_bytes(capacity), false).expect("memory");
    let mapping = Mapping::shared(fd.as_fd(), connection_bytes(capacity)).expect("mapped");
    let mapping = Arc::new(mapping);
    let server = ShmServer::new(
        Rings::server(&mapping, capacity, largest),
        largest,
        Peer::NOBODY,
        Arc::new(SlotWriter::private(SlotKind::Connection)),
        ends,
        Arc::new(socket),
        Arc::new(()),
    );
    (server, Rings::client(&mapping, capacity, largest))
}

#[test]
fn a_poller_that_panics_ends_its_connections_and_is_given_no_more() {
    let inbox = Arc::new(Inbox::default());
    let [served, arrives, late] = [(); 3].map(|()| {
        assert!(inbox.reserve(3));
        let ends = Arc::new(Ends::new(&inbox));
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let (server, _) = connection_of(Arc::clone(&ends), ours);
        (server, ends, theirs)
    });
    let mut poller = poller(Arc::clone(&inbox));
    poller.connections.push(served.0);
    inbox.hand_over(arrives.0);
    let thread = std::thread::spawn(move || {
        let _poller = poller;
        panic!("a defect, on purpose");
    });
    thread.join().expect_err("it panicked");
    inbox.hand_over(late.0);
    for (ends, socket) in [
        (served.1, served.2),
        (arrives.1, arrives.2),
        (late.1, late.2),
    ] {
        assert!(ends.is_over());
        let said = std::io::copy(&mut &socket, &mut std::io::sink()).expect("the end");
        assert_eq!(said, 0, "goodbye, of a server that goes on");
    }
    assert!(!inbox.reserve(MAX_CONNECTIONS));
    inbox.cancel();
    assert!(!inbox.reserve(MAX_CONNECTIONS));
}

#[test]
fn a_poller_sleeps_at_once_with_nobody_or_with_one_client_that_thinks_long_also_now() {
    let inbox = Arc::new(Inbox::default());
    let mut poller = poller(Arc::clone(&inbox));
    assert!(poller.rests(), "nobody");
    poller.connections.push(connection(&inbox).0);
    poller.last_sleep_ns = REST_NS;
    assert!(!poller.rests(), "one of all");
    inbox.set_paired(true);
    assert!(poller.rests());
    poller.last_sleep_ns = REST_NS - 1;
    assert!(!poller.rests(), "a busy moment");
}

#[test]
fn every_client_is_told_which_cpu_to_leave_also_one_that_comes_later_and_when_that_is_over() {
    let inbox = Arc::new(Inbox::default());
    let wish = |client: &Rings| client.rx.storage().load(Word::Leave);
    let mut poller = poller(Arc::clone(&inbox));
    let arrive = |poller: &mut Poller| {
        let (server, client) = connection(&inbox);
        assert!(inbox.reserve(2));
        inbox.hand_over(server);
        poller.read_news(inbox.news().load(Ordering::Acquire));
        client
    };
    let first = arrive(&mut poller);
    poller.tell_to_leave();
    assert_eq!(wish(&first), 0);
    poller.isolation = Isolation::wanted(monotonic_ns());
    poller.tell_to_leave();
    let cpu = poller.to_leave.expect("a CPU") as u64;
    assert_eq!(wish(&first), cpu + 1);
    let second = arrive(&mut poller);
    assert_eq!(wish(&second), wish(&first));
    poller.isolation = Isolation::new(monotonic_ns());
    poller.tell_to_leave();
    assert_eq!((wish(&first), wish(&second)), (0, 0));
}

/// A client whose requests say how large a reply they want.
struct Client {
    rings: Rings,
    socket: UnixStream,
}

/// Its connection, the client, and the poller's buffer.
fn of_large_replies() -> (ShmServer, Client, Vec<u8>) {
    let (ours, socket) = UnixStream::pair().expect("sockets");
    let ends = Arc::new(Ends::new(&Arc::default()));
    let (server, rings) = with_rings(ends, ours, 1 << 20, 400 << 10);
    (server, Client { rings, socket }, vec![0; 400 << 10])
}

fn as_large_as_asked(request: &[u8], reply: &mut crate::Reply<'_>) {
    let length = u32::from_le_bytes(request.try_into().expect("a number"));
    let reply = reply.extend_from_slice(&vec![7; length as usize]);
    reply.expect("within the limit");
}

fn ask(client: &mut Client, id: u64, reply: u32) {
    let request = reply.to_le_bytes();
    client
        .rings
        .tx
        .push(Kind::Request, id, &request)
        .expect("room");
}

fn served(turn: Turn) -> u32 {
    match turn {
        Turn::Idle => 0,
        Turn::Served(n) | Turn::ServedLong(n) => n,
        Turn::Over(reason) => panic!("{reason:?}"),
    }
}

#[test]
fn small_requests_with_large_replies_leave_others_their_turn_as_large_requests_do() {
    let (mut server, mut client, mut buffer) = of_large_replies();
    for id in 1..=8 {
        ask(&mut client, id, 100 << 10);
    }
    // A turn also ends after a handler that is found to take long.
    let turns = std::iter::repeat_with(|| served(server.turn(&as_large_as_asked, &mut buffer)));
    let turns: Vec<u32> = turns.take_while(|n| *n > 0).collect();
    assert_eq!(turns.iter().sum::<u32>(), 8);
    assert!(
        turns.iter().all(|n| *n <= 3),
        "{turns:?} replies of 100 KiB"
    );
}

#[test]
fn an_answer_that_waited_for_room_takes_no_memory_once_it_is_sent() {
    let (mut server, mut client, mut buffer) = of_large_replies();
    // As large as the one before is what is expected; the last one outgrows its place.
    for id in 1..=10 {
        ask(&mut client, id, if id < 10 { 100 << 10 } else { 300 << 10 });
    }
    while served(server.turn(&as_large_as_asked, &mut buffer)) > 0 {}
    assert!(server.waits_with() >= 300 << 10, "it waits for room");
    for _ in 1..=10 {
        let record = client.rings.rx.peek().expect("whole").expect("a reply");
        client.rings.rx.read(&record, &mut buffer).expect("whole");
        client.rings.rx.release(&record);
        served(server.turn(&as_large_as_asked, &mut buffer));
    }
    assert_eq!(server.waits_with(), 0);
}

/// Asks for ten answers of which the last outgrows its place, and finds no room.
fn until_blocked(server: &mut ShmServer, client: &mut Client, buffer: &mut [u8]) {
    for id in 1..=10 {
        ask(client, id, if id < 10 { 100 << 10 } else { 300 << 10 });
    }
    while served(server.turn(&as_large_as_asked, buffer)) > 0 {}
    assert!(server.is_blocked(), "it waits for room");
}

#[test]
fn a_poller_that_ends_waits_for_no_room_that_a_dead_client_would_have_to_make() {
    let (mut server, mut client, mut buffer) = of_large_replies();
    until_blocked(&mut server, &mut client, &mut buffer);
    let inbox = Arc::new(Inbox::default());
    let mut poller = poller(Arc::clone(&inbox));
    poller.connections.push(server);
    inbox.set_farewell(Duration::from_secs(20));
    drop(client.socket);
    assert_eq!(poller.finish(), 0);
}

#[test]
fn an_answer_that_waits_for_room_is_not_dropped_on_its_way_to_a_poller_that_ends_meanwhile() {
    let (mut server, mut client, mut buffer) = of_large_replies();
    until_blocked(&mut server, &mut client, &mut buffer);
    let (inbox, next) = (Arc::new(Inbox::default()), Arc::new(Inbox::default()));
    let mut poller = poller(Arc::clone(&inbox));
    assert!(inbox.reserve(1));
    poller.connections.push(server);
    poller.connections[0].ends().move_to(&next);
    let place = poller.connections[0].ends().leave().expect("room");
    assert!(next.close(CloseReason::Shutdown).is_empty());
    poller.give(0, &place);
    assert_eq!(inbox.load(), 1, "it is still here");
    inbox.set_farewell(Duration::ZERO);
    assert_eq!(poller.finish(), 1, "an answer found no room");
}

#[test]
fn a_poller_that_ends_sends_the_answer_that_waited_for_room_once_there_is_some_and_keeps_nobody_else()
 {
    let (mut server, mut client, mut buffer) = of_large_replies();
    until_blocked(&mut server, &mut client, &mut buffer);
    let inbox = Arc::new(Inbox::default());
    let mut poller = poller(Arc::clone(&inbox));
    let (ours, mut neighbour) = UnixStream::pair().expect("sockets");
    let is_owed_nothing = connection_of(Arc::new(Ends::new(&inbox)), ours).0;
    poller.connections.extend([is_owed_nothing, server]);
    inbox.set_farewell(Duration::from_secs(60));
    inbox.stop();
    let ends = std::thread::spawn(move || handle_shm_loop(poller, &as_large_as_asked));
    // The neighbour of one who takes no replies hears of the end meanwhile, and so does who comes now.
    let is_told = |socket: &mut UnixStream| {
        let patience = Some(Duration::from_secs(20));
        socket.set_read_timeout(patience).expect("a socket");
        let said = std::io::copy(socket, &mut std::io::sink());
        assert!(said.expect("the end") > 0, "no goodbye");
    };
    is_told(&mut neighbour);
    let (ours, mut late) = UnixStream::pair().expect("sockets");
    inbox.hand_over(connection_of(Arc::new(Ends::new(&inbox)), ours).0);
    is_told(&mut late);
    assert!(!ends.is_finished(), "nothing was taken yet");
    let mut taken = 0;
    loop {
        let over = ends.is_finished();
        while let Some(record) = client.rings.rx.peek().expect("whole") {
            // Large ones come in pieces.
            if !client.rings.rx.read(&record, &mut buffer).expect("whole") {
                break;
            }
            client.rings.rx.release(&record);
            taken += 1;
        }
        if over {
            break;
        }
        std::thread::yield_now();
    }
    assert_eq!((ends.join().expect("no panic"), taken), (0, 10));
}

/// What was written of an answer that fails in the end is dropped, and its memory with it.
#[test]
fn an_error_that_waited_for_room_takes_no_memory_once_it_is_sent_however_much_was_written_before() {
    let (mut server, mut client, mut buffer) = of_large_replies();
    use std::sync::atomic::AtomicBool;
    static OUTGREW: AtomicBool = AtomicBool::new(false);
    let fails_late = |request: &[u8], reply: &mut crate::Reply<'_>| {
        as_large_as_asked(request, reply);
        if reply.len() == 300 << 10 {
            OUTGREW.store(true, Ordering::Relaxed);
            reply.fail("the end is missing");
        }
    };
    for id in 1..=10 {
        ask(&mut client, id, if id < 10 { 100 << 10 } else { 300 << 10 });
    }
    while served(server.turn(&fails_late, &mut buffer)) > 0 {}
    assert!(OUTGREW.load(Ordering::Relaxed) && !server.is_blocked());
    assert_eq!(server.waits_with(), 0);
}
