//! What can be set, with defaults, units and the price of more and of less. Checked once, in [`Config::check`].

use std::time::Duration;

use crate::error::ConfigError;
use crate::limits::{MAX_SLOTS, max_payload};

/// Smallest ring per direction: 4 KiB.
pub const MIN_RING_BYTES: usize = 4 * 1024;
/// Largest ring per direction: 1 GiB.
pub const MAX_RING_BYTES: usize = 1 << 30;

/// Most spins, and most yields, of a [`WaitPolicy::Ladder`]: on its way down a ladder looks at no clock, so this is what keeps
/// deadlines and the news that the peer has died.
pub const MAX_RUNG: u32 = 100_000;

/// Which way bytes may travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportChoice {
    /// Shared memory if it can be had, else the socket, with the reason recorded.
    #[default]
    Auto,
    /// Shared memory or an error.
    Shm,
    /// The socket.
    Socket,
}

/// How a thread waits when there is nothing to read, or no room to write: it spins, then yields its CPU, then sleeps. The policies differ in
/// when they take the next step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitPolicy {
    /// Decides from what it sees. With free CPUs it spins for some tens of microseconds, then sleeps until it is woken; when more threads
    /// wait than there are CPUs, it yields a few times and then sleeps. An idle connection uses no CPU.
    ///
    /// Two side effects on the calling thread, neither of them under a seccomp filter (some services are killed for asking):
    ///
    /// * **A short time slice** (0.1 ms; Linux 6.12 and later, `SCHED_OTHER` only), since yielding gives the rest of a slice away. Pollers ask for
    ///   it, and any thread that waits on a crowded CPU, whatever its policy. Priority and share of the CPU stay as they are. A thread gets its own
    ///   slice back at a longer wait without a crowd, or when the connection is dropped. Threads and processes that it starts meanwhile inherit and keep
    ///   the short one.
    /// * **A move to another CPU.** If a server answers more with a CPU to itself, client threads that are busy in a crowd leave that CPU: at most
    ///   every 4 ms per connection, by two calls of `sched_setaffinity` that narrow the affinity and restore it. After each move the thread may run
    ///   where it could before, except that a mask wider than its cpuset is cut to the cpuset, and that a change by somebody else in the microseconds
    ///   between the two calls may be undone. A thread pinned to one CPU stays there.
    #[default]
    Adaptive,
    /// Spins and never gives the CPU up: the lowest latency with a core to itself, the worst when there are fewer cores than waiters.
    Spin,
    /// Yields a few times, then sleeps until woken: the least CPU. Waking takes some microseconds, tens of them where an idle virtual CPU halts.
    Park,
    /// Fixed steps: `spins` iterations, then `yields` calls of `sched_yield`, then one `sleep`, and from the start again.
    /// [`WaitPolicy::DOCUMENT`] is 100 / 900 / 1 µs.
    Ladder {
        /// Spin iterations first, at most [`MAX_RUNG`].
        spins: u32,
        /// Then sched_yield calls, at most [`MAX_RUNG`].
        yields: u32,
        /// Then one sleep of this length (the kernel adds its timer slack: 1 µs lasts some 70 µs by default).
        sleep: Duration,
    },
}

impl WaitPolicy {
    /// A fixed ladder: 100 spins, 900 yields, sleep 1 µs.
    pub const DOCUMENT: Self = Self::Ladder {
        spins: 100,
        yields: 900,
        sleep: Duration::from_micros(1),
    };

    /// The same, with the rungs of a ladder cut to [`MAX_RUNG`].
    pub(crate) fn bounded(self) -> Self {
        match self {
            Self::Ladder {
                spins,
                yields,
                sleep,
            } => Self::Ladder {
                spins: spins.min(MAX_RUNG),
                yields: yields.min(MAX_RUNG),
                sleep,
            },
            other => other,
        }
    }

    /// Which one it is, without its rungs.
    pub fn kind(self) -> PolicyKind {
        match self {
            Self::Adaptive => PolicyKind::Adaptive,
            Self::Spin => PolicyKind::Spin,
            Self::Park => PolicyKind::Park,
            p if p == Self::DOCUMENT => PolicyKind::Document,
            Self::Ladder { .. } => PolicyKind::Ladder,
        }
    }

    /// Stable name: `adaptive`, `spin`, `park`, `document` or `ladder`.
    pub fn name(self) -> &'static str {
        self.kind().name()
    }

    /// Stable number, as it stands in a stats page.
    pub fn number(self) -> u32 {
        self.kind() as u32
    }
}

/// A [`WaitPolicy`] as a stats page names it. The numbers are those in the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum PolicyKind {
    /// [`WaitPolicy::Adaptive`].
    Adaptive = 1,
    /// [`WaitPolicy::Spin`].
    Spin = 2,
    /// [`WaitPolicy::Park`].
    Park = 3,
    /// [`WaitPolicy::DOCUMENT`].
    Document = 4,
    /// [`WaitPolicy::Ladder`] with other rungs.
    Ladder = 5,
    /// One that this version does not know.
    #[default]
    #[cfg_attr(feature = "serde", serde(rename = "?", other))]
    Unknown = 0,
}

impl PolicyKind {
    /// That of a number out of a page.
    pub fn of(number: u32) -> Self {
        match number {
            1 => Self::Adaptive,
            2 => Self::Spin,
            3 => Self::Park,
            4 => Self::Document,
            5 => Self::Ladder,
            _ => Self::Unknown,
        }
    }

    /// Stable name: `adaptive`, `spin`, `park`, `document` or `ladder`; `"?"` for one this version does not know.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Spin => "spin",
            Self::Park => "park",
            Self::Document => "document",
            Self::Ladder => "ladder",
            Self::Unknown => "?",
        }
    }
}

/// Settings of both sides. `Config::default()` is good for most; every field says what more and less cost. Later versions have more fields: write
/// `Config { …, ..Config::default() }`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name shown by viewers. Default: the executable's file name. At most 63 bytes are kept.
    pub name: String,
    /// Ring size in bytes per direction, a power of two, 4 KiB ..= 1 GiB. Default 32 MiB. This is address space: memory is used only as far
    /// as the backlog of messages needs it. More absorbs longer bursts; less bounds memory per client. The server's value counts; a client can
    /// only ask for less.
    pub ring_bytes: usize,
    /// Largest payload in bytes, at most half the ring less 64. Default 2 MiB. The smaller value of the two sides
    /// counts. A buffer of this size takes address space for each client and each poller, two more for a connection while it is on the socket;
    /// it takes memory only as far as messages have filled it.
    pub max_message_bytes: usize,
    /// How to wait. Default [`WaitPolicy::Adaptive`].
    pub wait: WaitPolicy,
    /// Which way bytes may travel. Default [`TransportChoice::Auto`].
    pub transport: TransportChoice,
    /// Client: how long a blocking call waits at most, for room and for the reply; above zero. Default 5 s. The death of the server is noticed
    /// within a second, whatever stands here; less than 50 ms are several calls until then, which end as `Timeout` or `Full`.
    pub request_timeout: Duration,
    /// How long connecting and each handshake step may take; above zero. Default 2 s.
    pub handshake_timeout: Duration,
    /// Ask for huge pages (MFD_HUGETLB); falls back when none are free or allowed, to transparent ones where `shmem_enabled` allows, else to 4 KiB
    /// pages, and says so in the stats page. The server's value counts; a client's advises its own mapping. They are made, which is to clear them, when a
    /// client connects: within [`Self::handshake_timeout`], so rings of hundreds of MiB want a longer one. Default off.
    pub huge_pages: bool,
    /// Server: clients admitted at most, 1 ..= 2048. Default 1024.
    pub max_clients: usize,
    /// Server: number of threads that serve clients on shared memory (pollers), up to 256. Each serves up to 120 clients; more are started when
    /// there are more. Default 0, which starts with one and, with [`WaitPolicy::Adaptive`], uses
    /// * one per CPU while clients keep all CPUs (2 to 16) busy with requests that take a microsecond or more: each serves the clients on its CPU;
    /// * one per client while 2 to 32 clients send fewer than 2,000 requests a second each and sleep for the replies.
    pub workers: usize,
    /// Server: one thread per client instead of pollers. Default off. Better only while clients are fewer than CPUs, or where handlers block.
    pub thread_per_client: bool,
    /// Server: how long the handler may take for one request and be well. Serves who watches: shmtop calls a handler stuck after this time, or after a
    /// second if that is longer. Nothing is ended by it. Default 0: nothing is known of the handler.
    pub long_handler: Duration,
    /// Server: uids admitted besides the server's own, in the numbers of its user namespace. Default none. Root is not special, and in a user namespace
    /// that does not know all users the overflow uid (65534), which the kernel gives for each of those, admits nobody: not the server's own user
    /// either, if that is its number and others are named here. They must be able to reach the socket: the
    /// default directory is the server's user's alone (0700), so bind in one that they may enter.
    pub allowed_uids: Vec<u32>,
    /// Server: handshakes under way at most, per uid; above zero. Default 64.
    pub max_pending_per_uid: usize,
    /// Server: bytes of ring memory for all clients together; 0 = no limit of ours. Default 0.
    pub memory_budget_bytes: u64,
    /// Where this process's stats page is announced. Default: [`crate::stats::registry::default_dir`]. One that containers share with others
    /// (another pid namespace) loses announcements, see [`crate::stats::registry::discover`].
    pub stats_dir: Option<std::path::PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: std::env::current_exe()
                .ok()
                .and_then(|p| p.file_name().map(|n| n.to_string_lossy().into_owned()))
                .unwrap_or_else(|| "unnamed".into()),
            ring_bytes: 32 << 20,
            max_message_bytes: 2 << 20,
            wait: WaitPolicy::default(),
            transport: TransportChoice::default(),
            request_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(2),
            huge_pages: false,
            max_clients: 1024,
            workers: 0,
            thread_per_client: false,
            long_handler: Duration::ZERO,
            allowed_uids: Vec::new(),
            max_pending_per_uid: 64,
            memory_budget_bytes: 0,
            stats_dir: None,
        }
    }
}

impl Config {
    /// Checks everything once; what passed here is not checked again.
    ///
    /// # Errors
    /// One sentence that names the values that don't go together.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fail = |text: String| Err(ConfigError(text));
        if !self.ring_bytes.is_power_of_two()
            || !(MIN_RING_BYTES..=MAX_RING_BYTES).contains(&self.ring_bytes)
        {
            return fail(format!(
                "ring size must be a power of two between {MIN_RING_BYTES} and {MAX_RING_BYTES} bytes, not {}",
                self.ring_bytes
            ));
        }
        let largest = max_payload(self.ring_bytes);
        if self.max_message_bytes == 0 || self.max_message_bytes > largest {
            return fail(format!(
                "largest message must be 1 to {largest} bytes (half of a {}-byte ring, less a header), not {}",
                self.ring_bytes, self.max_message_bytes
            ));
        }
        if self.request_timeout.is_zero() || self.handshake_timeout.is_zero() {
            return fail("timeouts must be above zero".into());
        }
        if self.max_clients == 0 || self.max_clients > MAX_SLOTS / 2 {
            return fail(format!(
                "max clients must be 1 to {}, not {}",
                MAX_SLOTS / 2,
                self.max_clients
            ));
        }
        if self.workers > 256 {
            return fail(format!("workers must be 0 to 256, not {}", self.workers));
        }
        if self.max_pending_per_uid == 0 {
            return fail("with 0 handshakes per user under way nobody could connect".into());
        }
        if self.wait != self.wait.bounded() {
            return fail(format!(
                "a ladder has at most {MAX_RUNG} spins and {MAX_RUNG} yields, not {:?}",
                self.wait
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(config: Config) -> String {
        config.check().expect_err("refused").to_string()
    }

    #[test]
    fn a_ladder_that_would_outlast_every_deadline_is_refused() {
        let ladder = |spins, yields| Config {
            wait: WaitPolicy::Ladder {
                spins,
                yields,
                sleep: Duration::ZERO,
            },
            ..Config::default()
        };
        assert!(ladder(MAX_RUNG, MAX_RUNG).check().is_ok());
        for (spins, yields) in [(4_000_000_000, 0), (MAX_RUNG + 1, 0), (0, MAX_RUNG + 1)] {
            let text = refused(ladder(spins, yields));
            assert!(text.contains(&spins.max(yields).to_string()), "{text}");
        }
    }

    /// A setting, the last values that are good, and the first that are not.
    #[track_caller]
    fn bounded<T: std::fmt::Debug>(set: fn(&mut Config, T), good: [T; 2], bad: [T; 2]) {
        let with = |value| {
            let mut config = Config::default();
            set(&mut config, value);
            config
        };
        for value in good {
            let what = format!("{value:?}");
            assert_eq!(with(value).check(), Ok(()), "{what}");
        }
        for value in bad {
            let what = format!("{value:?}");
            let said = refused(with(value));
            assert!(said.contains(&what), "{what}: {said}");
        }
    }

    #[test]
    fn what_a_field_says_of_its_range_is_so_and_who_leaves_it_is_told_the_value() {
        bounded(|c, n| c.workers = n, [0, 256], [257, 1000]);
        bounded(|c, n| c.max_clients = n, [1, 2048], [0, 2049]);
        let largest = (16 << 20) - 64;
        let beyond = [0, largest + 1];
        bounded(|c, n| c.max_message_bytes = n, [1, largest], beyond);
        let ring = |c: &mut Config, n| (c.ring_bytes, c.max_message_bytes) = (n, 1);
        bounded(ring, [4096, 1 << 30], [2048, 1 << 31]);
        bounded(ring, [8192, 1 << 29], [4095, 12_288]);
    }

    #[test]
    fn no_call_has_no_time_at_all() {
        for is_request in [true, false] {
            let mut config = Config::default();
            let timeout = match is_request {
                true => &mut config.request_timeout,
                false => &mut config.handshake_timeout,
            };
            *timeout = Duration::ZERO;
            assert_eq!(refused(config), "timeouts must be above zero");
        }
    }

    #[test]
    fn a_server_that_could_admit_nobody_is_refused() {
        refused(Config {
            max_pending_per_uid: 0,
            ..Config::default()
        });
    }
}
