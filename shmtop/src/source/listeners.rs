//! The servers' sockets: which of them to look at, and when.

use super::{World, net};
use crate::reading::{Reading, Why};
use crate::sample::{Page, Process, lost};
use transport::stats::{Role, SlotInfo, Snapshot};

const LISTENERS_NS: u64 = 1_000_000_000;

impl World {
    pub(super) fn look_at_listeners(&mut self, pages: &[Page], processes: &[Process], now_ns: u64) {
        if now_ns < self.listeners_due_ns {
            return;
        }
        self.listeners_due_ns = now_ns + LISTENERS_NS;
        let servers = pages.iter().filter_map(|page| {
            let snapshot = page.snapshot().filter(|s| s.role == Role::Server)?;
            Some((page.pid, snapshot, Some(snapshot.process.listener_inode)))
        });
        let claims = servers.chain(self.without_server(pages, processes));
        let claims: Vec<net::Claim> = claims
            .map(|(pid, snapshot, bound_inode)| net::Claim {
                pid,
                path: snapshot.socket_path.clone(),
                bound_inode,
                is_here: self.shares_network(pid, processes),
                mnt_ns: find(processes, pid).and_then(|p| p.place.mnt_ns_inode.known().copied()),
            })
            .collect();
        self.listeners = net::read(&self.options.proc_root, &claims);
    }

    /// The clients that have lost their server: what is left of its socket tells how it ended, or that another one has taken its place.
    fn without_server<'p>(
        &self,
        pages: &'p [Page],
        processes: &[Process],
    ) -> impl Iterator<Item = (u32, &'p Snapshot, Option<u64>)> {
        pages.iter().filter_map(|page| {
            let snapshot = page.snapshot()?;
            let is_here = self.own_pid_ns == Ok(snapshot.pid_ns_inode);
            let died = |info: &SlotInfo| {
                let peer = find(processes, info.peer_pid).filter(|_| is_here);
                peer.is_some_and(|p| p.is_dead() || !p.is_peer(info))
            };
            lost(snapshot, died).map(|_| (page.pid, snapshot, None))
        })
    }

    /// Whether a process's sockets are among those that this one sees.
    fn shares_network(&self, pid: u32, processes: &[Process]) -> Reading<bool> {
        let Ok(own) = self.own_place.net_ns_inode.get() else {
            // A kernel without network namespaces.
            return Ok(true);
        };
        let process = find(processes, pid).ok_or_else(|| Why::not_there("it was not looked at"))?;
        Ok(process.place.net_ns_inode.get()? == own)
    }
}

/// A process of a sample, which has them by pid.
pub(super) fn find(processes: &[Process], pid: u32) -> Option<&Process> {
    let at = processes.binary_search_by_key(&pid, |p| p.pid);
    at.ok().map(|i| &processes[i])
}
