//! What a reader knows after one look at a page: plain data, copied out and checked.
//!
//! Made by [`super::reader`]; used by every viewer. Nothing here refers to the page any more.

use super::histogram::Histogram;
use super::schema::{
    HouseCounters, ProcessCounters, ReqCounters, RxCounters, TxCounters, WaitCounters,
};
use crate::config::PolicyKind;

/// What a process is on its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Role {
    /// Embeds a `Membrane`.
    #[default]
    Server = 1,
    /// Embeds `Synapse`s.
    Client = 2,
}

/// The life of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum SlotState {
    /// Not in use.
    #[default]
    Free = 0,
    /// The upgrade is not decided yet.
    Handshaking = 1,
    /// In use.
    Open = 2,
    /// Closed; kept readable until the slot is used again.
    Closed = 3,
}

/// What a slot describes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum SlotKind {
    /// One side of a connection.
    #[default]
    Connection = 1,
    /// A server thread that serves several connections: only `wait`, `req.last_progress_ns` and `info.tid` count.
    Poller = 2,
}

/// How bytes travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Via {
    /// Frames over the Unix socket.
    #[default]
    Socket = 1,
    /// Records in the rings.
    Shm = 2,
}

impl Via {
    /// `socket` or `shm`, as reports and the dashboard have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Shm => "shm",
        }
    }
}

/// Why a connection that wanted shared memory is on the socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct FallbackFact {
    /// [`crate::error::Step`] as its number: which call failed.
    pub step: u32,
    /// errno of that call; 0 if it was no system call.
    pub errno: i32,
    /// The limit in the way at that moment; 0 = unknown.
    pub limit: u64,
    /// Usage against the limit at that moment; 0 = unknown.
    pub used: u64,
    /// True if the call failed in the peer's process.
    pub at_peer: bool,
}

/// The facts of a slot (behind the seqlock in the page).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct SlotInfo {
    /// Life of the slot.
    pub state: SlotState,
    /// Connection or poller.
    pub kind: SlotKind,
    /// Joins the two sides of a connection; for a poller its number.
    pub connection_id: u64,
    /// Number of the client at its server, from 1.
    pub client_number: u32,
    /// Transport in use.
    pub transport: Via,
    /// Transport that was asked for.
    pub wanted: Via,
    /// Why they differ.
    pub fallback: Option<FallbackFact>,
    /// Peer's pid (SO_PEERCRED: as seen from the writer's pid namespace).
    pub peer_pid: u32,
    /// Peer's uid.
    pub peer_uid: u32,
    /// Peer's start time in clock ticks; 0 = unknown.
    pub peer_start_ticks: u64,
    /// Peer's name, sanitised.
    pub peer_name: String,
    /// Thread that owns this side.
    pub tid: u32,
    /// The wait policy in force; by its name in a recording.
    pub wait_policy: PolicyKind,
    /// Outgoing ring, bytes; 0 on the socket.
    pub tx_capacity: u64,
    /// Incoming ring, bytes; 0 on the socket.
    pub rx_capacity: u64,
    /// Largest payload, bytes.
    pub max_message: u64,
    /// CLOCK_MONOTONIC ns when opened.
    pub opened_ns: u64,
    /// CLOCK_MONOTONIC ns when closed; 0 while open.
    pub closed_ns: u64,
    /// [`crate::error::CloseReason`] as its number; 0 while open.
    pub close_reason: u32,
    /// Slot index of the poller that waits for this connection.
    pub poller_slot: Option<u32>,
    /// 0 not asked, 1 in use, 2 asked but short, 3 short and transparent ones instead.
    pub huge_pages: u32,
    /// Inode of the ring's memfd; 0 on the socket.
    pub ring_inode: u64,
}

/// One slot, copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct Slot {
    /// Index in the page.
    pub index: u32,
    /// Facts.
    pub info: SlotInfo,
    /// Outgoing ring.
    pub tx: TxCounters,
    /// Incoming ring.
    pub rx: RxCounters,
    /// Waiter.
    pub wait: WaitCounters,
    /// Requests.
    pub req: ReqCounters,
    /// The server's housekeeping view.
    pub house: HouseCounters,
    /// Round trips (client side).
    pub rtt: Histogram,
    /// Handler times (server side).
    pub handler: Histogram,
    /// Sleeps.
    pub park: Histogram,
    /// Counters that a newer page has and this reader does not know: (name, value).
    pub unknown: Vec<(String, u64)>,
}

/// One page, copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct Snapshot {
    /// Layout version of the page (major, minor).
    pub version: (u32, u32),
    /// Pid as the writer sees itself.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
    /// Effective uid.
    pub uid: u32,
    /// Server or client.
    pub role: Role,
    /// True for a build with debug assertions.
    pub debug_build: bool,
    /// Boot id of the kernel it ran under, 16 bytes as hex.
    pub boot_id: String,
    /// Inode of the writer's pid namespace.
    pub pid_ns_inode: u64,
    /// CLOCK_MONOTONIC ns when the page was made.
    pub created_monotonic_ns: u64,
    /// CLOCK_REALTIME ns at that moment.
    pub created_realtime_ns: u64,
    /// Endpoint name, sanitised.
    pub name: String,
    /// Path of the server's socket, sanitised; for a client the first one it connected to.
    pub socket_path: String,
    /// Version of the library that wrote the page, sanitised.
    pub library: String,
    /// Process-wide counters.
    pub process: ProcessCounters,
    /// Slots that are not free, by index.
    pub slots: Vec<Slot>,
    /// Slots skipped because their facts kept changing while being read, or hold numbers this version does not know.
    pub torn: u32,
    /// Process-wide counters that a newer page has and this reader does not know: (name, value).
    pub unknown: Vec<(String, u64)>,
    /// Counters this reader knows and the page does not have: their fields say 0 and mean "not there".
    pub missing: Vec<String>,
}
