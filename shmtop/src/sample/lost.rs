//! Which connection a client has lost: of what is read closely because of it (`source`), and of the rule about it (`hint`).

use transport::error::CloseReason;
use transport::stats::{Role, Slot, SlotInfo, SlotKind, SlotState, Snapshot};

use super::{Process, Sample};

impl Process {
    /// Whether nothing of it runs any more. The state is its first thread's, which may have ended before the others.
    pub fn is_dead(&self) -> bool {
        let others = self.thread_count.known().is_some_and(|n| *n > 1);
        self.gone || !others && matches!(self.state.known(), Some('Z' | 'X'))
    }

    /// Whether it is the process that the page means: a pid is given away again. What neither says is taken as the same.
    pub fn is_peer(&self, info: &SlotInfo) -> bool {
        let start = self.start_ticks.known();
        info.peer_start_ticks == 0 || start.is_none_or(|s| *s == info.peer_start_ticks)
    }
}

impl Sample {
    /// Whether the pids in a page mean here what they mean there. What neither says is taken as the same.
    pub(crate) fn is_here(&self, snapshot: &Snapshot) -> bool {
        let ours = self.viewer.pid_ns_inode.known();
        snapshot.pid_ns_inode == 0 || ours.is_none_or(|ns| *ns == snapshot.pid_ns_inode)
    }

    /// Whether the process at the other end has died; `None` if that can't be seen: it is of another pid namespace, or was not looked at.
    pub fn peer_died(&self, snapshot: &Snapshot, info: &SlotInfo) -> Option<bool> {
        let is_here = self.is_here(snapshot);
        let process = self.process(info.peer_pid).filter(|_| is_here)?;
        Some(process.is_dead() || !process.is_peer(info))
    }
}

/// The connection that a client lost last, if it has none: either it knows and has none in its place, or it has those only whose
/// server `died`, and has not noticed.
pub(crate) fn lost(snapshot: &Snapshot, died: impl Fn(&SlotInfo) -> bool) -> Option<&Slot> {
    let slots = snapshot.slots.iter();
    let connections = || {
        slots
            .clone()
            .filter(|s| s.info.kind == SlotKind::Connection)
    };
    let is_open = |s: &&Slot| matches!(s.info.state, SlotState::Open | SlotState::Handshaking);
    if snapshot.role != Role::Client || connections().filter(is_open).any(|s| !died(&s.info)) {
        return None;
    }
    if let Some(unnoticed) = connections().find(is_open) {
        return Some(unnoticed);
    }
    let because = |s: &Slot, reason: CloseReason| s.info.close_reason == reason as u32;
    let last = connections()
        .filter(|s| s.info.state == SlotState::Closed && because(s, CloseReason::PeerGone))
        .max_by_key(|s| s.info.closed_ns)?;
    let later =
        |s: &Slot| s.info.opened_ns > last.info.closed_ns && !because(s, CloseReason::Handshake);
    (!connections().any(later)).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a connection that was opened then and, if it was, closed then for this reason.
    fn slot(opened_ns: u64, closed: Option<(u64, CloseReason)>) -> Slot {
        let mut slot = Slot::default();
        slot.info = SlotInfo {
            kind: SlotKind::Connection,
            state: closed.map_or(SlotState::Open, |_| SlotState::Closed),
            opened_ns,
            closed_ns: closed.map_or(0, |(at, _)| at),
            close_reason: closed.map_or(0, |(_, reason)| reason as u32),
            ..slot.info
        };
        slot
    }

    fn closed_ns(role: Role, slots: &[Slot], died: bool) -> Option<u64> {
        let snapshot = Snapshot {
            role,
            slots: slots.to_vec(),
            ..Snapshot::default()
        };
        lost(&snapshot, |_| died).map(|s| s.info.closed_ns)
    }

    #[test]
    fn a_client_has_lost_its_server_until_it_has_another_or_gave_the_connection_up_itself() {
        use CloseReason::{Handshake, Local, PeerGone, Poisoned};
        let of = |slots: &[Slot]| closed_ns(Role::Client, slots, false);
        let gone = slot(1, Some((5, PeerGone)));
        assert_eq!(of(std::slice::from_ref(&gone)), Some(5));
        let of_server = closed_ns(Role::Server, std::slice::from_ref(&gone), false);
        assert_eq!(of_server, None, "its clients end as they like");
        assert_eq!(of(&[]), None);
        for reason in [Local, Poisoned, Handshake] {
            assert_eq!(of(&[slot(1, Some((5, reason)))]), None, "{reason:?}");
        }
        // Another thread of it ended meanwhile; attempts that came to nothing.
        let others = [slot(1, Some((7, Local))), slot(6, Some((8, Handshake)))];
        assert_eq!(
            of(&[&others[..], std::slice::from_ref(&gone)].concat()),
            Some(5)
        );
        // It found back, and whatever became of that is another matter.
        assert_eq!(of(&[gone.clone(), slot(6, None)]), None);
        assert_eq!(of(&[gone.clone(), slot(6, Some((9, Local)))]), None);
        let twice = [gone.clone(), slot(6, Some((9, PeerGone)))];
        assert_eq!(of(&twice), Some(9));
        // One that was there all along still serves it.
        assert_eq!(of(&[slot(1, None), gone]), None);
    }

    #[test]
    fn a_client_that_has_not_noticed_has_lost_its_server_as_well() {
        let open = [slot(1, None), slot(2, None)];
        assert_eq!(closed_ns(Role::Client, &open, true), Some(0));
        assert_eq!(closed_ns(Role::Client, &open, false), None);
    }
}
