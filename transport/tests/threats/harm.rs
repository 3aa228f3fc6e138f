//! What a process of a test does to itself, by its parameters: dies, stops or tarries at a fault point, or may not make a system call.

use std::time::Duration;

use transport::fault::{self, Action, Point};

use crate::role::parameter;

/// Arms the fault point in the parameters, if any: `NAME NTH kill|stop|MS`.
pub(crate) fn arm() {
    arm_if(|_| true);
}

/// Whether a server comes by without a client, as it goes to sleep: perhaps before it has said that it is ready.
pub(crate) fn needs_no_client(point: Point) -> bool {
    matches!(point, Point::Announced | Point::Woken)
}

pub(crate) fn arm_if(wanted: impl Fn(Point) -> bool) {
    let Some(text) = parameter("FAULT") else {
        return;
    };
    let words: Vec<_> = text.split(' ').collect();
    let point = Point::ALL.iter().find(|p| format!("{p:?}") == words[0]);
    let action = match words[2] {
        "kill" => Action::Kill,
        "stop" => Action::Stop,
        ms => Action::Delay(Duration::from_millis(ms.parse().expect("milliseconds"))),
    };
    let point = *point.expect("a point");
    if wanted(point) {
        fault::arm(point, words[1].parse().expect("a count"), action);
    }
}

/// Forbids this process the system call in the parameters, if any: `NUMBER ERRNO`. For the threads to come too.
pub(crate) fn forbid() {
    let Some(text) = parameter("FORBID") else {
        return;
    };
    let (call, errno) = text.split_once(' ').expect("two numbers");
    let (call, errno): (u32, u32) = (
        call.parse().expect("a call"),
        errno.parse().expect("an errno"),
    );
    let op = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let mut filter = [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call, 0, 1),
        op(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | errno,
            0,
            0,
        ),
        op(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: `program` describes `filter`, both alive during the calls, which copy them.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program),
            0
        );
        // Nothing but an error without arguments; and now this one, or what follows would show nothing.
        assert_eq!(libc::syscall(call.into()), -1);
    }
    let refused = std::io::Error::last_os_error().raw_os_error();
    assert_eq!(refused, Some(errno.cast_signed()), "call {call}");
}

/// The value of `FAULT`.
pub(crate) fn fault(point: Point, nth: u64, action: &str) -> String {
    format!("{point:?} {nth} {action}")
}
