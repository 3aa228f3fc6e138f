//! The handshake over real sockets with real memfds, and with peers that stop at every step.

use std::os::unix::net::UnixStream;
use std::thread;

use super::*;
use crate::config::TransportChoice;
use crate::mem::fork::Unforked;
use crate::mem::mapping::Mapping;
use crate::mem::memfd::{RING_NAME, close, create_rings, validate};
use crate::wire::handshake::Mode;
use crate::wire::messages::{Name, Reject};

/// Only a hang meets it.
const WATCHDOG: Duration = Duration::from_secs(30);
/// For peers that are meant to be too slow.
const SHORT: Duration = Duration::from_millis(20);

fn layout() -> Layout {
    Layout {
        version: 1,
        total_bytes: |there, back| 4096 + there + back,
    }
}

fn hello() -> Hello {
    Hello {
        pid: std::process::id(),
        wait_policy: 1,
        features: 0,
        ring_bytes: 1 << 16,
        max_message: 1024,
        transport: TransportChoice::Auto,
        name: Name::new("trader"),
    }
}

fn terms() -> ServerTerms {
    ServerTerms {
        ring_bytes: 1 << 16,
        max_message: 1024,
        shm: true,
        features: 0,
        name: Name::new("exchange"),
        connection_id: 5,
        client_number: 1,
    }
}

fn make(ring_bytes: u64, max_message: u64) -> Result<(Mapping, Unforked, Offer), StepError> {
    let offer = Offer {
        layout_version: 1,
        total_bytes: (layout().total_bytes)(ring_bytes, ring_bytes),
        client_to_server_bytes: ring_bytes,
        server_to_client_bytes: ring_bytes,
        max_message,
    };
    let len = offer.total_bytes as usize;
    let (fd, _) = create_rings(RING_NAME, len, false)?;
    Ok((Mapping::shared(fd.as_fd(), len)?, fd, offer))
}

fn map(fd: OwnedFd, offer: &Offer) -> Result<Mapping, StepError> {
    validate(fd.as_fd(), offer.total_bytes)?;
    let mapping = Mapping::shared(fd.as_fd(), offer.total_bytes as usize)?;
    close(fd.as_fd())?;
    Ok(mapping)
}

type Served = Result<Upgraded<Mapping>, Ending>;

/// A server for one client and one upgrade.
fn serve(
    socket: UnixStream,
    timeout: Duration,
    make: impl FnOnce(u64, u64) -> Result<(Mapping, Unforked, Offer), StepError> + Send + 'static,
) -> thread::JoinHandle<(Served, UnixStream)> {
    thread::spawn(move || {
        let served = (|| {
            let (mut admitted, ()) = admit(&socket, terms(), timeout, |_| Some(()))?;
            let (bytes, passed) = receive(socket.as_fd(), timeout)?;
            let message = (&bytes, passed.count);
            answer_upgrade(&socket, &mut admitted.machine, message, timeout, make)
        })();
        (served, socket)
    })
}

fn connected(socket: &UnixStream) -> ClientHandshake {
    connect(socket, hello(), layout(), WATCHDOG).unwrap().0
}

#[test]
fn both_sides_end_up_with_the_same_memory() {
    let (a, b) = UnixStream::pair().unwrap();
    let server = serve(b, WATCHDOG, make);
    let mut machine = connected(&a);
    let Upgraded::Shm(ours, offer) = upgrade(&a, &mut machine, WATCHDOG, map).unwrap() else {
        panic!("stayed on the socket");
    };
    let (Ok(Upgraded::Shm(theirs, _)), _socket) = server.join().unwrap() else {
        panic!("the server stayed on the socket");
    };
    assert_eq!(ours.len() as u64, offer.total_bytes);
    // SAFETY: both are mapped over this length, and no other thread is left.
    unsafe {
        ours.ptr().add(4096).write_volatile(9);
        assert_eq!(theirs.ptr().add(4096).read_volatile(), 9);
    }
    assert_eq!(machine.mode(), Mode::Shm);
}

#[test]
fn a_client_that_cannot_map_stays_on_the_socket_and_so_does_the_server() {
    let (a, b) = UnixStream::pair().unwrap();
    let server = serve(b, WATCHDOG, make);
    let mut machine = connected(&a);
    let e = StepError::new(Step::Mmap, libc::ENOMEM);
    let outcome = upgrade(&a, &mut machine, WATCHDOG, |_, _| Err::<(), _>(e)).unwrap();
    assert!(matches!(outcome, Upgraded::Socket(why) if why == e.fallback(false)));
    let (served, _socket) = server.join().unwrap();
    assert!(matches!(served, Ok(Upgraded::Socket(why)) if why == e.fallback(true)));
    assert_eq!(machine.mode(), Mode::Socket);
}

#[test]
fn a_server_that_cannot_make_rings_says_why_and_the_client_repeats_it() {
    let (a, b) = UnixStream::pair().unwrap();
    let e = StepError {
        step: Step::MemfdCreate,
        errno: libc::EMFILE,
        limit: 64,
        used: 64,
    };
    let server = serve(b, WATCHDOG, move |_, _| Err(e));
    let mut machine = connected(&a);
    let Upgraded::Socket(why) = upgrade(&a, &mut machine, WATCHDOG, map).unwrap() else {
        panic!("upgraded");
    };
    assert_eq!(
        why.to_string(),
        "memfd_create → EMFILE, 64/64 (at the peer)"
    );
    assert!(matches!(server.join().unwrap().0, Ok(Upgraded::Socket(_))));
}

/// Plays the server by hand up to the OFFER, which comes with `count` copies of a good descriptor.
fn offered_with(count: usize) -> (Upgraded<Mapping>, ServerHandshake, Message) {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::os::fd::AsRawFd;
    let (a, b) = UnixStream::pair().unwrap();
    let client = thread::spawn(move || {
        let mut machine = connected(&a);
        upgrade(&a, &mut machine, WATCHDOG, map).unwrap()
    });
    let mut machine = admit(&b, terms(), WATCHDOG, |_| Some(()))
        .unwrap()
        .0
        .machine;
    let (bytes, _) = receive(b.as_fd(), WATCHDOG).unwrap();
    let ServerAction::MakeOffer {
        ring_bytes,
        max_message,
    } = machine.on_message(&bytes, 0)
    else {
        panic!("no upgrade");
    };
    let (_mapping, fd, offer) = make(ring_bytes, max_message).unwrap();
    let ServerAction::SendOffer(message) = machine.made(Ok(offer)) else {
        panic!("no offer");
    };
    let fds = vec![fd.as_raw_fd(); count];
    let control = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(
        b.as_raw_fd(),
        &[io::IoSlice::new(&message.encode())],
        if count == 0 { &[] } else { &control },
        MsgFlags::empty(),
        None,
    )
    .unwrap();
    machine.offer_sent(Ok(()));
    let (answer, _) = receive(b.as_fd(), WATCHDOG).unwrap();
    let (said, _) = Message::decode(&answer).unwrap();
    machine.on_message(&answer, 0);
    (client.join().unwrap(), machine, said)
}

#[test]
fn too_few_or_too_many_descriptors_are_declined_with_the_number() {
    for count in [0, 2, 3, 253] {
        let (outcome, server, said) = offered_with(count);
        let Upgraded::Socket(why) = outcome else {
            panic!("{count} descriptors were good enough");
        };
        assert_eq!(
            (why.step, why.limit, why.used),
            (Step::FdTruncated, 1, count as u64)
        );
        assert!(matches!(said, Message::Decline(_)));
        assert_eq!(server.mode(), Mode::Socket);
    }
}

#[test]
fn a_connection_cut_after_any_number_of_bytes_ends_on_both_sides() {
    // Everything the client says in a good run, recorded; then replayed to a server and cut at each place.
    let mut said = Vec::new();
    let (mut machine, first) = ClientHandshake::start(hello(), layout());
    said.extend(first.encode());
    said.extend(Message::Upgrade.encode(1));
    said.extend(Message::Commit.encode(1));
    for cut in (0..said.len()).step_by(64) {
        let (a, b) = UnixStream::pair().unwrap();
        let server = serve(b, WATCHDOG, make);
        io::Write::write_all(&mut &a, &said[..cut]).unwrap();
        a.shutdown(std::net::Shutdown::Write).unwrap();
        let (served, _socket) = server.join().unwrap();
        assert!(matches!(served, Err(Ending::PeerGone)), "cut at {cut}");
    }
    machine.close(Ending::PeerGone);

    // The same for what the server says: WELCOME, OFFER without its descriptor's memory, then nothing.
    for steps in 0..3 {
        let (a, b) = UnixStream::pair().unwrap();
        let peer = thread::spawn(move || {
            if steps == 0 {
                return;
            }
            let mut machine = admit(&b, terms(), WATCHDOG, |_| Some(()))
                .unwrap()
                .0
                .machine;
            let (bytes, _) = receive(b.as_fd(), WATCHDOG).unwrap();
            machine.on_message(&bytes, 0);
            if steps == 2 {
                let (_mapping, fd, offer) = make(1 << 16, 1024).unwrap();
                let ServerAction::SendOffer(message) = machine.made(Ok(offer)) else {
                    panic!("no offer");
                };
                send_offer(b.as_fd(), message, fd.as_fd(), WATCHDOG)
                    .unwrap()
                    .unwrap();
                // COMMIT arrives, READY never comes.
                receive(b.as_fd(), WATCHDOG).unwrap();
            }
        });
        let outcome = connect(&a, hello(), layout(), WATCHDOG).and_then(|(mut machine, _)| {
            let outcome = upgrade(&a, &mut machine, WATCHDOG, map).map(|_| ());
            assert_eq!(machine.mode(), Mode::Closed, "in doubt, close");
            outcome
        });
        assert_eq!(outcome.map(|_| ()), Err(Ending::PeerGone), "step {steps}");
        peer.join().unwrap();
    }
}

#[test]
fn a_peer_that_stays_silent_meets_the_deadline_and_is_told() {
    let (a, b) = UnixStream::pair().unwrap();
    let e = admit(&b, terms(), SHORT, |_| Some(())).unwrap_err();
    assert_eq!(e.reject(), Some(Reject::Timeout));
    let (bytes, _) = receive(a.as_fd(), WATCHDOG).unwrap();
    assert!(
        matches!(Message::decode(&bytes), Ok((Message::Refused(r), _))
        if r.reason == Reject::Timeout as u32)
    );

    let (a, _b) = UnixStream::pair().unwrap();
    let e = connect(&a, hello(), layout(), SHORT)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(e, Ending::Timeout);
}

#[test]
fn a_refusal_reaches_a_client_even_if_the_server_closes_at_once() {
    let (a, b) = UnixStream::pair().unwrap();
    // And before it has read a word, so that the client can't even send its HELLO.
    turn_away(&b, Reject::Full, 4, 4);
    drop(b);
    let e = connect(&a, hello(), layout(), WATCHDOG)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(e.to_string(), "it is full (4 of 4)");
    let (a, b) = UnixStream::pair().unwrap();
    turn_away(&b, Reject::Uid, 0, 1001);
    drop(b);
    let e = connect(&a, hello(), layout(), WATCHDOG)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(e.to_string(), "user 1001 is not allowed");
}

#[test]
fn a_megabyte_of_noise_is_refused_after_256_bytes() {
    let (a, b) = UnixStream::pair().unwrap();
    let noise = thread::spawn(move || {
        // The server hangs up in the middle: an error is what this promises.
        let _ = io::Write::write_all(&mut &a, &vec![0xa5; 1 << 20]);
    });
    let e = admit(&b, terms(), WATCHDOG, |_| Some(())).unwrap_err();
    assert_eq!(e.reject(), Some(Reject::Magic));
    drop(b);
    noise.join().unwrap();
}

#[test]
fn a_client_without_a_free_descriptor_declines_and_names_its_own_limit() {
    use crate::mem::limit_tests::{alone, fill_descriptors, lower};
    let test =
        "wire::drive::tests::a_client_without_a_free_descriptor_declines_and_names_its_own_limit";
    alone(test, || {
        let (a, b) = UnixStream::pair().unwrap();
        // What a server says does not depend on this client: all of it waits in the socket beforehand.
        let mut server = ServerHandshake::new(terms());
        let (_, hello_message) = ClientHandshake::start(hello(), layout());
        let ServerAction::Admit(welcome, ..) = server.on_message(&hello_message.encode(), 0) else {
            panic!("not admitted");
        };
        send(b.as_fd(), welcome, None, WATCHDOG).unwrap();
        server.on_message(&Message::Upgrade.encode(1), 0);
        let (_mapping, fd, offer) = make(1 << 16, 1024).unwrap();
        let ServerAction::SendOffer(message) = server.made(Ok(offer)) else {
            panic!("no offer");
        };
        send_offer(b.as_fd(), message, fd.as_fd(), WATCHDOG)
            .unwrap()
            .unwrap();

        let mut machine = connected(&a);
        lower(nix::sys::resource::Resource::RLIMIT_NOFILE, 40);
        let full = fill_descriptors();
        let outcome = upgrade(&a, &mut machine, WATCHDOG, map).unwrap();
        drop(full);
        let Upgraded::Socket(why) = outcome else {
            panic!("upgraded without a descriptor");
        };
        assert_eq!(why.to_string(), "fd-truncated, 40/40");
        assert_eq!(machine.mode(), Mode::Socket);
    });
}
