//! What a sample says of stats pages: each page found, or why it can't be read; the sockets of the servers; and how far the search
//! for pages could see. Plain data; `source` fills it.

use super::Fact;
use serde::{Deserialize, Serialize};
use transport::stats::{Role, Snapshot};

/// One stats page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Page {
    /// Name of the link in the runtime directory (`4711-exchange`), or `PID/fd/N` for a page found by the scan. Sanitised.
    pub link: String,
    /// Pid of the owner as seen from here; [`Snapshot::pid`] is what it calls itself in its own namespace.
    pub pid: u32,
    /// How it was found.
    pub found_by: FoundBy,
    /// What it says, or why it can't be read.
    pub content: PageContent,
}

/// How a page was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FoundBy {
    /// By its link in the runtime directory.
    #[default]
    Registry,
    /// By looking through /proc/PID/fd: another user's, or a container's.
    ProcScan,
}

/// What a page says, or why it says nothing. The reasons are apart because shmtop exits differently on them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageContent {
    /// A checked copy. Slots that kept changing while being read are left out and counted in [`Snapshot::torn`].
    Read(Box<Snapshot>),
    /// Not allowed to open it.
    Permission(String),
    /// Written under a layout this viewer does not know, as (major, minor).
    Incompatible {
        /// The page's version.
        page: (u32, u32),
        /// This viewer's.
        viewer: (u32, u32),
    },
    /// It is no stats page, or one that contradicts itself.
    Hostile(String),
    /// Its process ended while it was being opened, or it could not be opened for another reason.
    Unreadable(String),
}

impl Default for PageContent {
    fn default() -> Self {
        Self::Unreadable("not in this sample".to_owned())
    }
}

impl Page {
    /// The page's content, if it could be read.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        match &self.content {
            PageContent::Read(snapshot) => Some(snapshot),
            _ => None,
        }
    }

    /// One that could be read.
    #[cfg(test)]
    pub(crate) fn read(pid: u32, snapshot: Snapshot) -> Self {
        Self {
            pid,
            content: PageContent::Read(Box::new(snapshot)),
            ..Self::default()
        }
    }
}

/// A process that has ended and left connections open: killed, crashed, or ended without closing them. One that closes its connections
/// first is none of these, and its page says so to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its pid here.
    pub pid: u32,
    /// Name from its page; not sanitised.
    pub name: String,
    /// Side of its connections.
    pub role: Role,
    /// Ids of the connections that its page says are open.
    pub connections: Vec<u64>,
}

/// The listening socket of a server, or what is at the path of a client's that has lost it (once a second).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listener {
    /// Whose page names it: the server's pid as seen from here, or that of a client that has none.
    pub pid: u32,
    /// Path of the socket, from its page.
    pub path: String,
    /// Inode of the path when the server bound it, from its page; 0 = it did not say.
    pub bound_inode: u64,
    /// Inode of the path now, 0 when nothing is there; another one than `bound_inode` means that the path no longer leads to this server.
    pub path_inode: Fact<u64>,
    /// Connections that wait to be accepted.
    pub queue: Fact<u32>,
    /// How many may wait (the `listen` backlog, as the kernel bounded it); 0 where nobody listens.
    pub backlog: Fact<u32>,
}

/// Where pages were looked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Discovery {
    /// The runtime directory.
    pub runtime_dir: String,
    /// Links found in it.
    pub registry_links: Fact<u32>,
    /// The scan of /proc/PID/fd (every 5 s at most).
    pub scan: Fact<ProcScan>,
    /// Who holds a descriptor of a ring: found by the same scan, and seen again each second.
    pub ring_holders: Fact<Vec<RingHolder>>,
}

/// How far the scan of /proc/PID/fd saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcScan {
    /// CLOCK_MONOTONIC ns at its end.
    pub at_ns: u64,
    /// Pages found, those of the runtime directory among them.
    pub pages: u32,
    /// Processes whose descriptors may not be seen.
    pub denied: u32,
}

/// A process with an open descriptor of a ring's memfd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RingHolder {
    /// The process.
    pub pid: u32,
    /// Its name, sanitised.
    pub comm: String,
    /// Inode of the memfd, as in [`transport::stats::SlotInfo::ring_inode`].
    pub inode: u64,
}
