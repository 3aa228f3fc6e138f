//! Limits that leave too little room.

use std::time::{Duration, Instant};

use crate::common::{Place, wait_until};
use crate::connection::{for_nobody, root, start};
use crate::doctor::{ask_as, is_well, names};
use crate::kernel::{leave_descriptors, limit};
use crate::{Outcome, Provocation, together};

pub(crate) const PROVOCATIONS: &[Provocation] = &[
    together("fd-headroom", fd_headroom),
    together("shmmax", shmmax),
    together("rlimit-fsize-as", rlimit_fsize_as),
    together("memlock", memlock),
];

/// Numbers of the descriptors that a process has open, without those of rings that it is about to close and of the look itself.
pub(crate) fn open_descriptors(pid: i32) -> Vec<u64> {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("a process of ours")
        .flatten()
        .filter(|fd| {
            std::fs::read_link(fd.path()).is_ok_and(|file| {
                let file = file.to_string_lossy();
                !file.contains("shm-ring") && !file.ends_with("/fd")
            })
        })
        .filter_map(|fd| fd.file_name().to_str()?.parse().ok())
        .collect()
}

/// Waits until a server has put away what it needed for its last client: the same descriptors for a tenth of a second.
pub(crate) fn settle(pid: i32) {
    let mut last = (Vec::new(), Instant::now());
    wait_until("descriptors to settle", || {
        let now = open_descriptors(pid);
        if now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() > Duration::from_millis(100)
    });
}

/// Room for one client less than come: the room named is room that there is, and the client without a place is the consequence.
fn fd_headroom(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let server = exchange.pid();
    let _clients = [start(place, "client plain"), start(place, "client plain")];
    settle(server);
    leave_descriptors(server, 2).expect("lowered");
    names(place, server, "fd-headroom", "crit")
        .says("fds used: room for 1 more client. 2 clients use 2")
        .fix(format!("prlimit --pid {server} --nofile="))
        .number("fds per client", |n| n == 1.0);
    let mut third = place.start("self", "client plain");
    assert_eq!(third.line(), "on shm\n", "as promised");
    let mut fourth = place.start("self", "client plain");
    assert_ne!(fourth.line(), "on shm\n", "nor was more promised");
    limit(server, libc::RLIMIT_NOFILE, None).expect("raised");
    fourth.kill();
    is_well(place, server, "fd-headroom");
    Ok(())
}

/// The limit of SysV memory is no limit here, and the hint says what is.
fn shmmax(place: &Place) -> Outcome {
    root()?;
    let exchange = place.exchange("");
    let _clients = start(place, "client plain");
    let args = format!("-p {}", exchange.pid());
    let report = ask_as(place, "ipc", &args);
    report
        .first("shmmax", "info")
        .says("kernel.shmmax is 4.0 KiB")
        .fix("kernel.shmmax=1073741824")
        .number("shmmax", |n| n == 4096.0);
    is_well(place, exchange.pid(), "shmmax");
    Ok(())
}

/// The next client's rings would be a file larger than allowed.
fn rlimit_fsize_as(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let pid = exchange.pid();
    limit(pid, libc::RLIMIT_FSIZE, Some(1 << 20)).expect("lowered");
    names(place, pid, "rlimit-fsize-as", "warn")
        .says(format!("pid {pid}) may write files of 1.0 MiB"))
        .fix(format!("prlimit --pid {pid} --fsize=unlimited"))
        .number("RLIMIT_FSIZE", |n| n == f64::from(1 << 20));
    limit(pid, libc::RLIMIT_FSIZE, None).expect("raised");
    is_well(place, pid, "rlimit-fsize-as");
    Ok(())
}

/// A server that locks most of its memory, and may not lock one client's rings more; and one that locks a few pages and means no rings, or
/// where we may lock what we like, one that may, too.
fn memlock(place: &Place) -> Outcome {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let capabilities = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:\t"))
        .expect("a line");
    let may_lock = u64::from_str_radix(capabilities, 16).expect("a mask") >> CAP_IPC_LOCK & 1 == 1;
    // It locks 5 MiB.
    let allowed: u64 = 6 << 20;
    let (who, quiet) = if may_lock {
        for_nobody(place);
        ("nobody ", "locks-most")
    } else {
        ("", "locks-a-key")
    };
    let server = start(place, &format!("memlock={allowed} {who}server locks-most"));
    let pid = server.pid();
    names(place, pid, "memlock", "warn")
        .says(format!("(pid {pid}) has locked"))
        .fix(format!("prlimit --pid {pid} --memlock="))
        .number("RLIMIT_MEMLOCK", |n| n == allowed as f64);
    drop(server);
    let server = start(place, &format!("memlock={allowed} server {quiet}"));
    is_well(place, server.pid(), "memlock");
    Ok(())
}

/// Its number in <linux/capability.h>.
const CAP_IPC_LOCK: u32 = 14;
