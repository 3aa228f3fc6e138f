//! A server that follows a script instead of the rules: what it says is written down by each test, byte by byte.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use transport::error::ConnectError;
use transport::{Config, Synapse};

use crate::payload;
use crate::rogue::{
    COMMIT, DATA, HELLO, Memory, OFFER, READY, REPLY, REQUEST, Raw, Rings, UPGRADE, WELCOME,
    header, message,
};

pub(crate) const RING: u64 = 1 << 16;
pub(crate) const TOTAL: u64 = DATA as u64 + 2 * RING;
pub(crate) const LARGEST: u64 = 20_000;
/// What some of the tests wait for.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
pub(crate) const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW);

/// Runs `script` as the server for one client, and `client` with the settings to reach it.
pub(crate) fn against<T>(
    script: impl FnOnce(Raw) + Send,
    client: impl FnOnce(&std::path::Path, Config) -> T,
) -> T {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).expect("a socket");
    let config = Config {
        name: "threats".into(),
        ring_bytes: RING as usize,
        max_message_bytes: LARGEST as usize,
        handshake_timeout: Duration::from_millis(500),
        request_timeout: REQUEST_TIMEOUT,
        stats_dir: Some(dir.path().join("stats")),
        ..Config::default()
    };
    std::thread::scope(|scope| {
        scope.spawn(move || script(Raw::over(listener.accept().expect("a client").0)));
        client(&path, config)
    })
}

pub(crate) fn welcome() -> Vec<u8> {
    // One id per connection: tests look for theirs in the page that all clients of this process share.
    static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
    let id = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    message(WELCOME, 0, &[(24, 1), (40, id), (48, LARGEST)])
}

pub(crate) fn offer(fields: &[(usize, u64)]) -> Vec<u8> {
    let mut all = vec![(24, 1), (32, TOTAL), (40, RING), (48, RING), (56, LARGEST)];
    all.extend_from_slice(fields);
    message(OFFER, 1, &all)
}

/// Hears HELLO, welcomes, hears UPGRADE.
pub(crate) fn until_upgrade(raw: &mut Raw) {
    raw.expect(HELLO);
    raw.say(&welcome());
    raw.expect(UPGRADE);
}

/// A client that is told this after its UPGRADE must end the connection, and say that it was refused.
pub(crate) fn ends_the_upgrade(what: &str, say: impl FnOnce(&mut Raw) + Send) {
    let script = |mut raw: Raw| {
        until_upgrade(&mut raw);
        say(&mut raw);
        raw.is_closed();
    };
    against(script, |path, config| {
        let error = Synapse::connect(path, &config).expect_err(what);
        assert!(
            matches!(error, ConnectError::Refused { .. }),
            "{what}: {error}"
        );
    });
}

pub(crate) fn memfd(length: u64, seals: SealFlag) -> OwnedFd {
    let fd = memfd_create(
        c"shm-ring",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )
    .expect("a memfd");
    nix::unistd::ftruncate(&fd, length as i64).expect("its size");
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).expect("its seals");
    fd
}

pub(crate) fn good() -> OwnedFd {
    memfd(TOTAL, SEALS)
}

/// Answers `count` requests over the socket.
pub(crate) fn echo(raw: &mut Raw, count: usize) {
    for _ in 0..count {
        let mut head = [0; 24];
        raw.0.read_exact(&mut head).expect("a request");
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
        assert_eq!(word(4), REQUEST);
        let mut request = vec![0; word(16) as usize];
        raw.0.read_exact(&mut request).expect("its payload");
        let reply = payload::answer(&request).expect("whole");
        raw.say(&header(REPLY, u64::from(word(8)), reply.len() as u32, 0));
        raw.say(&reply);
    }
}

pub(crate) fn works_over_the_socket(client: &mut Synapse) {
    assert!(!client.is_shm());
    for number in 1..4 {
        let reply = client
            .fire_bytes(&payload::request(number, 500, 100))
            .expect("a reply");
        assert_eq!(reply, payload::expected(number, 100));
    }
}

/// Serves a client on shared memory: `script` gets the rings once the client is on them.
pub(crate) fn on_shm<T>(
    script: impl FnOnce(&mut Raw, Rings) + Send,
    client: impl FnOnce(Synapse) -> T,
) -> T {
    let serve = |mut raw: Raw| {
        let fd = good();
        // Mapped first: once the client has it, nobody maps it for writing any more.
        let rings = Rings::server(Memory::map(fd, RING));
        until_upgrade(&mut raw);
        raw.say_with(&offer(&[]), &[rings.memory.fd.as_fd()]);
        raw.expect(COMMIT);
        raw.say(&message(READY, 1, &[]));
        script(&mut raw, rings);
    };
    against(serve, |path, config| {
        let synapse = Synapse::connect(path, &config).expect("a client");
        assert!(synapse.is_shm());
        client(synapse)
    })
}

pub(crate) fn answers(rings: &mut Rings, count: usize) {
    for _ in 0..count {
        let (_, id, request) = rings.await_record();
        rings.send(id, &payload::answer(&request).expect("whole"));
    }
}
