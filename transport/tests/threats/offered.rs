//! Threats 5, 15 and 16 as a client meets them: a server that offers the wrong descriptors, too many of them, or memory of the wrong sizes. The
//! client goes on over the socket and says why, or ends with a typed error.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::SealFlag;
use transport::error::{ConnectError, Step};
use transport::{Synapse, TransportChoice};

use crate::rogue::server::{
    LARGEST, RING, SEALS, TOTAL, against, echo, ends_the_upgrade, good, memfd, offer,
    until_upgrade, works_over_the_socket,
};
use crate::rogue::{DECLINE, HELLO, Raw, UPGRADE, WELCOME, message};

#[test]
fn a_descriptor_that_is_no_memfd_sealed_and_of_the_right_size_is_declined_and_the_socket_serves() {
    let disk = || -> OwnedFd {
        let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).expect("a file");
        file.set_len(TOTAL).expect("its size");
        file.into()
    };
    let in_dev_shm = || -> OwnedFd {
        let file = tempfile::tempfile_in("/dev/shm").expect("a file in /dev/shm");
        file.set_len(TOTAL).expect("its size");
        file.into()
    };
    let pipe = || -> OwnedFd { std::io::pipe().expect("a pipe").0.into() };
    let write_sealed = || memfd(TOTAL, SEALS | SealFlag::F_SEAL_WRITE);
    let cases: [(&str, &dyn Fn() -> OwnedFd); 9] = [
        ("a file on disk", &disk),
        ("a file in /dev/shm", &in_dev_shm),
        ("a pipe", &pipe),
        ("a short memfd", &|| memfd(TOTAL - 4096, SEALS)),
        ("a long memfd", &|| memfd(TOTAL + 4096, SEALS)),
        ("an unsealed memfd", &|| memfd(TOTAL, SealFlag::empty())),
        ("a memfd that can grow", &|| {
            memfd(TOTAL, SealFlag::F_SEAL_SHRINK)
        }),
        ("a memfd that can shrink", &|| {
            memfd(TOTAL, SealFlag::F_SEAL_GROW)
        }),
        ("a memfd sealed against writing", &write_sealed),
    ];
    for (what, make) in cases {
        let fd = make();
        let script = |mut raw: Raw| {
            until_upgrade(&mut raw);
            raw.say_with(&offer(&[]), &[fd.as_fd()]);
            let declined = raw.expect(DECLINE);
            assert_eq!(
                declined.u32(24),
                Step::Validate as u32,
                "{what}: {declined:?}"
            );
            echo(&mut raw, 3);
        };
        against(script, |path, config| {
            let mut client = Synapse::connect(path, &config).expect(what);
            let why = client.fallback().expect(what);
            assert_eq!((why.step, why.at_peer), (Step::Validate, false), "{what}");
            works_over_the_socket(&mut client);
        });
    }
}

#[test]
fn too_few_and_too_many_descriptors_are_declined_and_all_closed() {
    for count in [0, 2, 3, 253] {
        let (mut pipe, write) = std::io::pipe().expect("a pipe");
        let script = |mut raw: Raw| {
            until_upgrade(&mut raw);
            let fds: Vec<BorrowedFd<'_>> = vec![write.as_fd(); count];
            raw.say_with(&offer(&[]), &fds);
            raw.expect(DECLINE);
            echo(&mut raw, 3);
        };
        against(script, |path, config| {
            let mut client = Synapse::connect(path, &config).expect("a client");
            let why = client.fallback().expect("a reason");
            assert_eq!(
                (why.step, why.limit, why.used),
                (Step::FdTruncated, 1, count as u64)
            );
            works_over_the_socket(&mut client);
        });
        drop(write);
        assert_eq!(
            pipe.read(&mut [0]).expect("readable"),
            0,
            "all {count} are closed"
        );
    }
}

#[test]
fn demanded_shared_memory_that_cannot_be_had_is_an_error_with_the_step() {
    let fd = memfd(TOTAL, SealFlag::empty());
    let script = |mut raw: Raw| {
        until_upgrade(&mut raw);
        raw.say_with(&offer(&[]), &[fd.as_fd()]);
        raw.expect(DECLINE);
        raw.is_closed();
    };
    against(script, |path, mut config| {
        config.transport = TransportChoice::Shm;
        match Synapse::connect(path, &config) {
            Err(ConnectError::NoSharedMemory(why)) => assert_eq!(why.step, Step::Validate),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn an_offer_of_impossible_sizes_ends_the_connection() {
    let cases = [
        ("a request ring of 0", (40, 0)),
        ("a request ring larger than asked for", (40, RING * 2)),
        ("a reply ring that is no power of two", (48, RING - 4096)),
        ("a reply ring of 2^63", (48, 1 << 63)),
        ("a total that does not fit", (32, TOTAL - 1)),
        ("a total of everything", (32, u64::MAX)),
        ("another largest message", (56, LARGEST + 1)),
        ("another attempt", (8, 2)),
    ];
    for (what, field) in cases {
        ends_the_upgrade(what, |raw| {
            raw.say_with(&offer(&[field]), &[good().as_fd()]);
        });
    }
}

/// Of what a newer server may rightly offer, nothing is taken for memory that is no ring: that would be an alarm about the peer.
#[test]
fn ring_memory_of_another_version_is_declined_as_such_and_the_socket_serves() {
    const SMALL: u64 = 10_000;
    let cases: [(&str, &[(usize, u64)], _); 2] = [
        ("a layout of tomorrow", &[(24, 9), (56, SMALL)], (1, 9)),
        (
            "rings of two sizes",
            &[(32, TOTAL - RING / 2), (48, RING / 2), (56, SMALL)],
            (RING, RING / 2),
        ),
    ];
    for (what, fields, found) in cases {
        let total = fields.iter().find(|f| f.0 == 32).map_or(TOTAL, |f| f.1);
        let fd = memfd(total, SEALS);
        let script = |mut raw: Raw| {
            raw.expect(HELLO);
            raw.say(&message(WELCOME, 0, &[(24, 1), (40, 1), (48, SMALL)]));
            raw.expect(UPGRADE);
            raw.say_with(&offer(fields), &[fd.as_fd()]);
            let declined = raw.expect(DECLINE);
            assert_eq!(declined.u32(24), Step::Layout as u32, "{what}");
            assert_eq!((declined.u64(32), declined.u64(40)), found, "{what}");
            echo(&mut raw, 3);
        };
        against(script, |path, config| {
            let mut client = Synapse::connect(path, &config).expect(what);
            let why = client.fallback().expect(what);
            assert_eq!(
                (why.step, why.limit, why.used),
                (Step::Layout, found.0, found.1)
            );
            works_over_the_socket(&mut client);
        });
    }
}
