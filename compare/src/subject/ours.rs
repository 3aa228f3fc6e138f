//! The transport of this repository, as its defaults are, and with single settings changed.

use std::io;

use transport::error::RequestError;
use transport::{Config, Membrane, Reply, Synapse, TransportChoice, WaitPolicy};

use super::drive::{self, Client};
use super::{Listed, Subject, other};
use crate::gate::{Gate, Stop};
use crate::job::{ClientReport, Job, Shape};

/// The transport with one configuration.
pub(crate) struct Ours {
    id: &'static str,
    title: &'static str,
    how: &'static str,
    listed: Listed,
    transport: TransportChoice,
    wait: WaitPolicy,
    thread_per_client: bool,
}

/// As it comes: shared memory, adaptive waiting, as many pollers as it likes.
pub(crate) const SHM: Ours = Ours {
    id: "transport",
    title: "**transport**",
    how: "`Config::default()`: 32 MiB rings, adaptive waiting, one poller, or one per CPU or client, as the server decides, statistics on, every reply copied out of shared memory.",
    listed: Listed::Always,
    transport: TransportChoice::Shm,
    wait: WaitPolicy::Adaptive,
    thread_per_client: false,
};
/// The fallback.
pub(crate) const SOCKET: Ours = Ours {
    id: "transport-socket",
    title: "transport, socket fallback",
    how: "the same, with shared memory refused: what is left when it can't be had.",
    transport: TransportChoice::Socket,
    ..SHM
};
/// Pure spinning.
pub(crate) const SPIN: Ours = Ours {
    id: "transport-spin",
    title: "transport, `wait = spin`",
    how: "the default but for pure spinning.",
    listed: Listed::OnRequest,
    wait: WaitPolicy::Spin,
    ..SHM
};
/// Parking at once.
pub(crate) const PARK: Ours = Ours {
    id: "transport-park",
    title: "transport, `wait = park`",
    how: "the default but for parking at once.",
    listed: Listed::OnRequest,
    wait: WaitPolicy::Park,
    ..SHM
};
/// A fixed ladder.
pub(crate) const DOCUMENT: Ours = Ours {
    id: "transport-document",
    title: "transport, `wait = document`",
    how: "the default but for a fixed ladder: 100 spins, 900 yields, sleep 1 µs.",
    listed: Listed::OnRequest,
    wait: WaitPolicy::DOCUMENT,
    ..SHM
};
/// A thread per client.
pub(crate) const THREADS: Ours = Ours {
    id: "transport-threads",
    title: "transport, thread per client",
    how: "the default but for a server thread per client.",
    listed: Listed::OnRequest,
    thread_per_client: true,
    ..SHM
};

impl Ours {
    pub(super) fn config(&self) -> Config {
        Config {
            name: "compare".into(),
            wait: self.wait,
            thread_per_client: self.thread_per_client,
            ..Config::default()
        }
    }
}

impl Subject for Ours {
    fn id(&self) -> &'static str {
        self.id
    }
    fn title(&self) -> &'static str {
        self.title
    }
    fn how(&self) -> &'static str {
        self.how
    }
    fn listed(&self) -> Listed {
        self.listed
    }
    fn does(&self, _: Shape, _: usize) -> bool {
        true
    }

    fn serve(&self, job: &Job, stop: &Stop) -> io::Result<()> {
        let echo = |request: &[u8], reply: &mut Reply<'_>| {
            if let Err(too_large) = reply.send(request) {
                reply.fail(too_large);
            }
        };
        let server =
            Membrane::bind(job.dir.join("s"), &self.config(), echo).map_err(io::Error::other)?;
        stop.ready();
        stop.wait();
        server.shutdown();
        Ok(())
    }

    fn clients(&self, job: &Job, gate: &Gate) -> io::Result<Vec<ClientReport>> {
        let config = Config {
            transport: self.transport,
            ..self.config()
        };
        drive::run(job, gate, |_| {
            let synapse = Synapse::connect(job.dir.join("s"), &config).map_err(io::Error::other)?;
            if synapse.is_shm() != (self.transport == TransportChoice::Shm) {
                return Err(other("not the transport asked for"));
            }
            Ok(Connection(synapse))
        })
    }
}

struct Connection(Synapse);

impl Client for Connection {
    type Reply<'a> = &'a [u8];

    #[inline]
    fn echo<'a>(&'a mut self, request: &[u8]) -> io::Result<&'a [u8]> {
        self.0.fire_bytes(request).map_err(io::Error::other)
    }

    #[inline]
    fn submit(&mut self, request: &[u8]) -> io::Result<bool> {
        match self.0.queue(request) {
            Ok(_) => Ok(true),
            Err(RequestError::Full { .. }) => Ok(false),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    #[inline]
    fn try_receive(&mut self) -> io::Result<Option<&[u8]>> {
        let reply = self.0.try_receive().map_err(io::Error::other)?;
        Ok(reply.map(|(_, bytes)| bytes))
    }
}
