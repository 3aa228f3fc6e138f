//! Waiting for many connections at once, from one thread.
//!
//! A thread that drives several [`Synapse`]s looks with [`Synapse::try_receive`] wherever a reply may be, and waits here when
//! there was none: spinning and yielding as the policy says, then asleep in one `poll()` on all the sockets. A connection in shared memory
//! asks its server to ring over its socket meanwhile; one on the socket has its replies there anyway.

use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

use crate::clock::Ticks;
use crate::config::WaitPolicy;
use crate::error::RequestError;
use crate::shm::is_readable;
use crate::synapse::Synapse;
use crate::wait::Look;
use crate::wait::policy::Waiter;
use crate::wire::edge::BLIND_SLICE;

/// Waits between two looks at the clock: one costs more than finding a reply that is there, and a sixteenth of it nothing that could be told.
const WAITS_PER_CLOCK: u32 = 16;
/// So long (50 ms), and up to sixteen waits more, members may go unasked whether their servers live, while others keep having replies.
const ASK_AFTER_NS: u64 = 50_000_000;

/// Waits for the first reply on any of several connections, as `poll` does for sockets.
///
/// It waits for connections only: no descriptor of another kind can be among them, and nothing but a reply, a server's end or the limit ends a wait.
/// An event loop of your own waits for [`Synapse::doorbell`] beside them; on tokio there is `AsyncSynapse`.
///
/// It does not own the connections: pass them to each [`Group::wait`]. Keep one `Group` per thread, since it learns how long waits last.
///
/// ```no_run
/// use std::time::Duration;
/// use transport::{Config, Group, Synapse, WaitPolicy};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::default();
/// let mut exchanges = [Synapse::connect("/run/a.sock", &config)?, Synapse::connect("/run/b.sock", &config)?];
/// for synapse in &mut exchanges {
///     synapse.submit(b"quote")?;
/// }
/// let mut group = Group::new(WaitPolicy::Adaptive);
/// while exchanges.iter().any(|synapse| synapse.in_flight() > 0) {
///     let Some(first) = group.wait(&mut exchanges, Duration::from_secs(1))? else {
///         break;
///     };
///     while let Some((_id, reply)) = exchanges[first].try_receive()? {
///         println!("{first}: {} bytes", reply.len());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Group {
    waiter: Waiter,
    polled: Vec<libc::pollfd>,
    /// Where the next look begins: behind the member that was found last, so that a busy one does not hide the others.
    first: usize,
    /// Waits since the last look at the clock.
    waits: u32,
    /// When all members were asked last whether their servers live, although one had a reply.
    asked: Ticks,
}

impl Group {
    /// A group that waits by this policy. Where the policy parks, it sleeps in `poll()`. A ladder's spins and yields are cut to
    /// [`crate::config::MAX_RUNG`].
    pub fn new(policy: WaitPolicy) -> Self {
        Self {
            waiter: Waiter::new(policy.bounded()),
            polled: Vec::new(),
            first: 0,
            waits: 0,
            asked: Ticks::now(),
        }
    }

    /// Blocks until a member has a reply or has lost its server, for at most `limit`, and returns its index; `Ok(None)` when the time is over.
    ///
    /// Then call [`Synapse::try_receive`] on that member: it returns the reply or the error, or, rarely, nothing; then wait again. Members
    /// take turns, so a busy one does not hide the others. A member that has lost its server is returned again and again: take it out of the set.
    /// While others always have a reply as the wait begins, an end shows after 50 ms and some sixteen waits: late, where the caller works long
    /// between them.
    ///
    /// # Errors
    /// [`RequestError::NothingInFlight`] if no member waits for a reply, [`RequestError::Forked`] in a forked child.
    pub fn wait<S: AsMut<Synapse>>(
        &mut self,
        members: &mut [S],
        limit: Duration,
    ) -> Result<Option<usize>, RequestError> {
        let mut any = Any {
            members,
            polled: &mut self.polled,
            first: self.first,
            sockets: false,
        };
        for member in any.members.iter_mut() {
            let member = member.as_mut();
            if member.is_forked() {
                // Its rings are not mapped here: looking at them would be a fault.
                return Err(RequestError::Forked);
            }
            any.sockets |= !member.is_shm();
            // What was queued: of policies that never sleep, nothing later would wake the server.
            member.notify();
        }
        self.waits += 1;
        if self.waits >= WAITS_PER_CLOCK {
            self.waits = 0;
            any.ask(&mut self.asked);
        }
        let found = match any.look() {
            Some(found) => Some(found),
            None if any.members.iter_mut().all(|m| m.as_mut().in_flight() == 0) => {
                return Err(RequestError::NothingInFlight);
            }
            None => self.waiter.wait(&mut any, limit).0,
        };
        if let Some(index) = found {
            self.first = index + 1;
        }
        Ok(found)
    }
}

/// Whatever a group can be waiting for.
struct Any<'a, S> {
    members: &'a mut [S],
    polled: &'a mut Vec<libc::pollfd>,
    first: usize,
    /// Some members are on the socket, where only the kernel knows what has come.
    sockets: bool,
}

impl<S: AsMut<Synapse>> Any<'_, S> {
    /// Meets the ends of servers, if it is time for that: as long as one member has a reply whenever it is looked for, no wait gets so far.
    #[cold]
    fn ask(&mut self, asked: &mut Ticks) {
        let now = Ticks::now();
        if now.waited_since(*asked) >= ASK_AFTER_NS {
            *asked = now;
            self.disarm_all();
        }
    }

    fn disarm_all(&mut self) {
        for member in self.members.iter_mut() {
            member.as_mut().disarm();
        }
    }

    /// Asks what the kernel knows, for at most `limit`. What comes of it stands in `polled`, empty if nothing does.
    fn poll(&mut self, limit: Duration) {
        self.polled.clear();
        for member in self.members.iter_mut() {
            let member = member.as_mut();
            // Who looks for a reply there sends on.
            let writable = match member.wants_write() {
                true => libc::POLLOUT,
                false => 0,
            };
            self.polled.push(libc::pollfd {
                // A negative descriptor is passed over.
                fd: member.fd().map_or(-1, |fd| fd.as_raw_fd()),
                events: libc::POLLIN | writable,
                revents: 0,
            });
        }
        let limit = libc::timespec {
            tv_sec: limit.as_secs().min(86_400) as libc::time_t,
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        // SAFETY: the array is alive, exclusively borrowed and as long as said; the timespec outlives the call; no signal mask.
        let ready = unsafe {
            libc::ppoll(
                self.polled.as_mut_ptr(),
                self.polled.len() as libc::nfds_t,
                &limit,
                std::ptr::null(),
            )
        };
        match Errno::result(ready) {
            Ok(1..) => {}
            // A look that found nothing.
            Ok(_) | Err(Errno::EINTR) => self.polled.clear(),
            Err(_) => self.poll_blindly(Duration::new(limit.tv_sec as u64, limit.tv_nsec as u32)),
        }
    }

    /// The same where the kernel will not look at so many: more than the soft limit allows now (EINVAL), or than it has memory for. Slower to
    /// wake, never deaf; and who has a request to finish is not called for it, since nothing says when there is room.
    #[cold]
    fn poll_blindly(&mut self, limit: Duration) {
        std::thread::sleep(limit.min(BLIND_SLICE));
        for (member, polled) in self.members.iter_mut().zip(self.polled.iter_mut()) {
            let member = member.as_mut();
            // What members in shared memory have is seen in their rings.
            if !member.is_shm() && member.fd().is_some_and(is_readable) {
                polled.revents = libc::POLLIN;
            } else if member.wants_write() && member.send_on().is_err() {
                // The member's next call says why.
                polled.revents = libc::POLLOUT;
            }
        }
    }
}

impl<S: AsMut<Synapse>> Look for Any<'_, S> {
    type Found = usize;

    #[inline]
    fn look(&mut self) -> Option<usize> {
        if self.sockets {
            self.poll(Duration::ZERO);
        }
        let n = self.members.len();
        let first = if self.first < n { self.first } else { 0 };
        (first..n).chain(0..first).find(|i| {
            let member = self.members[*i].as_mut();
            // A readable socket is where a member in shared memory is woken, no more.
            let readable = self.polled.get(*i).is_some_and(|p| p.revents != 0);
            member.is_ready() || (readable && !member.is_shm())
        })
    }

    fn park(&mut self, limit: Duration) {
        let mut quiet = true;
        for member in self.members.iter_mut() {
            let member = member.as_mut();
            // One that owes nothing has nothing to ring for but its end, which the kernel tells: asking costs a fence and a system call, and its page
            // would say that it waits for a reply. After an error a member is ready: its end is what the next call finds.
            quiet &= if member.unanswered() == 0 && member.is_shm() {
                !member.is_ready()
            } else {
                member.arm().unwrap_or(false)
            };
        }
        fault_point!(Announced);
        if quiet {
            self.poll(limit);
        }
        fault_point!(Woken);
        for (i, member) in self.members.iter_mut().enumerate() {
            if self.polled.get(i).is_some_and(|p| p.revents != 0) {
                member.as_mut().disarm();
            } else {
                member.as_mut().withdraw();
            }
        }
    }

    fn tend(&mut self) -> Option<usize> {
        // A policy that never parks meets the end of a server only here.
        self.disarm_all();
        self.look()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use nix::sys::resource::{Resource, UsageWho, getrusage};

    use super::*;
    use crate::config::{Config, TransportChoice};
    use crate::mem::limit_tests::{alone, lower};
    use crate::membrane::Membrane;
    use crate::membrane::testing::{WATCHDOG, server, until};

    fn cpu_time() -> Duration {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("our own");
        let us = |t: nix::sys::time::TimeVal| (t.tv_sec() * 1_000_000 + t.tv_usec()) as u64;
        Duration::from_micros(us(usage.user_time()) + us(usage.system_time()))
    }

    #[test]
    fn a_member_that_always_has_a_reply_hides_no_dead_server_from_who_waits_for_others_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let [(lives, config), (dies, _)] = ["lives", "dies"].map(|name| {
            let dir = dir.path().join(name);
            std::fs::create_dir(&dir).expect("a directory");
            server(&dir)
        });
        let mut members = [&lives, &dies]
            .map(|server| Synapse::connect(server.path(), &config).expect("a client"));
        dies.shutdown();
        let mut group = Group::new(WaitPolicy::Adaptive);
        let begun = Instant::now();
        loop {
            members[0].submit(b"busy").expect("room");
            // Before the wait: its first look finds it.
            until("the reply is there", || members[0].is_ready());
            match group.wait(&mut members, WATCHDOG).expect("a wait") {
                Some(0) => members[0].try_receive().expect("usable").expect("a reply"),
                found => break assert_eq!(found, Some(1)),
            };
            assert!(begun.elapsed() < WATCHDOG);
        }
        members[1].try_receive().expect_err("it has ended");
    }

    #[test]
    fn a_limit_of_descriptors_lowered_to_none_ends_no_connection_and_keeps_nobody_busy() {
        let test = "group::tests::a_limit_of_descriptors_lowered_to_none_ends_no_connection_and_keeps_nobody_busy";
        alone(test, || {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("s");
            let config = |transport| Config {
                transport,
                ring_bytes: 64 << 10,
                max_message_bytes: 1000,
                request_timeout: WATCHDOG,
                stats_dir: Some(dir.path().join("stats")),
                ..Config::default()
            };
            let (open, gate) = std::sync::mpsc::channel::<()>();
            let gate = std::sync::Mutex::new(gate);
            let answer = move |request: &[u8], reply: &mut crate::Reply<'_>| {
                if request == b"hold" {
                    gate.lock().expect("no panic").recv().expect("the test");
                }
                reply.extend_from_slice(request).expect("as large");
            };
            let auto = config(TransportChoice::Auto);
            let _server = Membrane::bind(&path, &auto, answer).expect("a server");
            let mut members = [TransportChoice::Shm, TransportChoice::Socket]
                .map(|transport| Synapse::connect(&path, &config(transport)).expect("a client"));
            lower(Resource::RLIMIT_NOFILE, 0);
            for member in &mut members {
                assert_eq!(member.fire_bytes(b"alone").expect("a reply"), b"alone");
            }
            let mut group = Group::new(WaitPolicy::Park);
            for i in [0, 1] {
                members[i].submit(b"hold").expect("room");
                let begun = cpu_time();
                let waited = Duration::from_millis(300);
                assert_eq!(group.wait(&mut members, waited).expect("a wait"), None);
                let used = cpu_time() - begun;
                assert!(used < waited / 2, "{used:?}");
                open.send(()).expect("the handler waits");
                let found = group.wait(&mut members, WATCHDOG).expect("a wait");
                assert_eq!(found, Some(i));
                let (_, reply) = members[i].try_receive().expect("usable").expect("a reply");
                assert_eq!(reply, b"hold");
            }
        });
    }

    #[test]
    fn a_request_that_went_out_in_part_goes_on_where_the_kernel_will_not_say_that_there_is_room() {
        let test = "group::tests::a_request_that_went_out_in_part_goes_on_where_the_kernel_will_not_say_that_there_is_room";
        alone(test, || {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("s");
            let config = Config {
                transport: TransportChoice::Socket,
                stats_dir: Some(dir.path().join("stats")),
                ..Config::default()
            };
            let _server = Membrane::bind(&path, &config, |request, reply| {
                reply.extend_from_slice(&request[..1]).expect("a byte");
            })
            .expect("a server");
            let clients = [WaitPolicy::Park, WaitPolicy::Spin]
                .map(|policy| (policy, Synapse::connect(&path, &config).expect("a client")));
            lower(Resource::RLIMIT_NOFILE, 0);
            for (policy, client) in clients {
                let mut members = [client];
                // A server that reads as fast as we write may take it whole at once.
                while {
                    members[0].try_submit(&[7; 1 << 20]).expect("room");
                    !members[0].wants_write()
                } {
                    members[0].receive().expect("a reply");
                }
                let mut group = Group::new(policy);
                loop {
                    let found = group.wait(&mut members, WATCHDOG).expect("a wait");
                    assert_eq!(found, Some(0));
                    if let Some((_, reply)) = members[0].try_receive().expect("usable") {
                        assert_eq!(reply, [7]);
                        break;
                    }
                }
            }
        });
    }
}
