//! Who sent a request, for handlers that treat clients differently.

/// The client whose request is being answered, see [`Reply::peer`](crate::Reply::peer). The same for all requests of a connection, whatever carries them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Peer {
    /// Process that connected, in the kernel's words (SO_PEERCRED) and in the numbers of the server's pid namespace; 0 if it is not visible
    /// there. To be logged, not trusted: the connection ends with the process, but may have been left to a child of it, and pids are reused.
    pub pid: u32,
    /// Its effective user at that moment, which was admitted: the server's own, or one of [`Config::allowed_uids`](crate::Config::allowed_uids).
    pub uid: u32,
    /// Names the connection: drawn at random, no 0, and never the same again. The client's own
    /// [`Synapse::connection_id`](crate::Synapse::connection_id).
    pub connection_id: u64,
    /// Number of the client at its server, the one that `shmtop` shows: from 1, the smallest that was free. It is given again after the
    /// connection's end.
    pub client_number: u32,
}

/// The process at the other end of a client's connection, see [`Synapse::peer`](crate::Synapse::peer).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ServerPeer {
    /// Process that listened on the socket, in the kernel's words (SO_PEERCRED) and in the numbers of our pid namespace; 0 if it is not visible here. It
    /// may have left the socket to a child since, and pids are reused.
    pub pid: u32,
    /// Its effective user at that moment, in the numbers of our user namespace.
    pub uid: u32,
}

#[cfg(test)]
impl Peer {
    /// For replies that nobody reads.
    pub(crate) const NOBODY: Self = Self {
        pid: 0,
        uid: 0,
        connection_id: 0,
        client_number: 0,
    };
}
