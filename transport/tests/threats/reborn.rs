//! Threat 34: a pid that comes round. Whoever has it then is a stranger, and the peer that had it is as dead as without him.

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use transport::Synapse;
use transport::error::{ConnectError, RequestError};

use crate::role::WATCHDOG;
use crate::skipped::skipped;
use crate::watch::{held, is_stopped, within};
use crate::world::{Ended, World, mix, ready};

/// A process that does nothing, with a pid that somebody had before.
struct Stranger(Pid);

impl Stranger {
    /// # Errors
    /// What the kernel says: choosing a pid needs CAP_CHECKPOINT_RESTORE or root.
    fn with_pid(pid: u32) -> nix::Result<Self> {
        let wanted = [pid.cast_signed()];
        // SAFETY: plain numbers; zero means not used for each of them.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.exit_signal = libc::SIGCHLD as u64;
        args.set_tid = wanted.as_ptr() as u64;
        args.set_tid_size = 1;
        // SAFETY: `args` and `wanted` live during the call. The child has memory of its own and, of this process's many threads, only this
        // one: it calls the kernel and nothing else, takes no lock and allocates nothing.
        unsafe {
            match libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) {
                0 => {
                    // Other tests' connections are not to live on in it.
                    libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    loop {
                        libc::pause();
                    }
                }
                child => {
                    let child = nix::errno::Errno::result(child)?;
                    assert_eq!(child, i64::from(pid), "the pid that was asked for");
                    Ok(Self(Pid::from_raw(pid.cast_signed())))
                }
            }
        }
    }

    fn is_alive(&self) -> bool {
        nix::sys::signal::kill(self.0, None).is_ok()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // Ours, and alive until here.
        let _ = nix::sys::signal::kill(self.0, Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.0, None);
    }
}

#[test]
fn a_stranger_with_the_pid_of_a_dead_peer_is_not_taken_for_it() {
    for (transport, is) in [("auto", "shm"), ("socket", "socket")] {
        let world = World::new();
        let mut server = ready(world.server());
        let before = held(server.pid());
        let mut client = world.client().with("TRANSPORT", transport).go();
        assert_eq!(client.ask("connect", "connected").trim_end(), is);
        // The server looks up only when the pid has its next owner.
        server.signal(Signal::SIGSTOP);
        within(WATCHDOG, "stopped", || {
            is_stopped(server.pid()).then_some(()).ok_or("it runs")
        });
        client.kill();
        let stranger = match Stranger::with_pid(client.pid()) {
            Ok(stranger) => stranger,
            Err(e) => {
                server.signal(Signal::SIGCONT);
                return skipped(&format!("no pid can be chosen here ({e})"));
            }
        };
        server.signal(Signal::SIGCONT);
        within(WATCHDOG, "the client is gone, whoever has its pid", || {
            let (now, open) = (held(server.pid()), world.page(&server).process.open_clients);
            let same = (now.fds, now.rings, open) == (before.fds, before.rings, 0);
            same.then_some(()).ok_or((now, open))
        });
        assert!(stranger.is_alive());

        // And the other way round: neither the connection nor the path is the stranger's.
        let config = transport::Config {
            transport: if transport == "auto" {
                transport::TransportChoice::Shm
            } else {
                transport::TransportChoice::Socket
            },
            ..world.config()
        };
        let mut ours = Synapse::connect(world.path(), &config).expect("a client");
        assert!(matches!(mix(&mut ours, 1, 0), Ended::Done));
        server.kill();
        let stranger = Stranger::with_pid(server.pid()).expect("the server's pid");
        let lost = ours.fire_bytes(b"gone?").map(<[u8]>::to_vec);
        assert!(
            matches!(lost, Err(RequestError::Disconnected { .. })),
            "{lost:?}"
        );
        let next = Synapse::connect(world.path(), &config);
        assert!(
            matches!(next, Err(ConnectError::NoServer { .. })),
            "{next:?}"
        );
        let _next = ready(world.server());
        let mut again = Synapse::connect(world.path(), &config).expect("the path was taken over");
        assert!(matches!(mix(&mut again, 1, 0), Ended::Done));
        assert!(stranger.is_alive());
    }
}
