//! How a process of a connection is called, and what may be told to type about it: a page of another pid namespace has numbers that are those of
//! strangers here, or none.

use transport::stats::Role;

use super::Context;
use crate::model::{Client, Endpoint};

/// A process of a connection.
pub(super) struct Whom {
    /// As it is seen from here.
    pub(super) pid: Option<u32>,
    /// In a sentence.
    pub(super) name: String,
}

impl Whom {
    /// The one whose page a row is of.
    pub(super) fn own(e: &Endpoint) -> Self {
        Self {
            pid: Some(e.pid),
            name: format!("pid {}", e.pid),
        }
    }

    /// The one at the other end.
    pub(super) fn peer(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Self {
        let inside = ctx.slot(e, c).map_or(0, |slot| slot.info.peer_pid);
        let name = match (c.peer_pid, inside) {
            (0, 0) => "a process of another pid namespace".to_owned(),
            (0, pid) => format!("pid {pid} in the pid namespace of pid {}", e.pid),
            (pid, _) => format!("pid {pid}"),
        };
        Self {
            pid: Some(c.peer_pid).filter(|pid| *pid != 0),
            name,
        }
    }

    /// The client of a row.
    pub(super) fn client(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Self {
        match c.role {
            Role::Server => Self::peer(ctx, e, c),
            Role::Client => Self::own(e),
        }
    }

    /// The server of a row.
    pub(super) fn server(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Self {
        match c.role {
            Role::Server => Self::own(e),
            Role::Client => Self::peer(ctx, e, c),
        }
    }

    /// The `command` about it, or what else is said of it where its pid means nobody here.
    pub(super) fn told(
        &self,
        command: impl FnOnce(u32) -> String,
        otherwise: impl FnOnce(&str) -> String,
    ) -> String {
        match self.pid {
            Some(pid) => command(pid),
            None => otherwise(&self.name),
        }
    }
}
