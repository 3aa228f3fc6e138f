//! The async face of the transport: a connection and a task per client, the same server.

use std::io;

use transport::AsyncSynapse;

use super::drive::tasks::{self, AsyncClient};
use super::tokio_unix::client_runtime;
use super::{OURS, Subject, other};
use crate::gate::{Gate, Stop};
use crate::job::{ClientReport, Job, Shape};

/// The subject.
pub(crate) struct Tokio;

impl Subject for Tokio {
    fn id(&self) -> &'static str {
        "transport-tokio"
    }
    fn title(&self) -> &'static str {
        "transport, tokio"
    }
    fn how(&self) -> &'static str {
        "the default's server; clients are `AsyncSynapse`, a connection and a task each, on the runtime of the tokio row. No pipelining: its \
         calls are one request and its reply, and many tasks are how it has many in flight."
    }
    fn does(&self, shape: Shape, _: usize) -> bool {
        shape != Shape::Pipelined
    }

    fn serve(&self, job: &Job, stop: &Stop) -> io::Result<()> {
        OURS.serve(job, stop)
    }

    fn clients(&self, job: &Job, gate: &Gate) -> io::Result<Vec<ClientReport>> {
        let config = OURS.config();
        tasks::run(job, gate, &client_runtime(job)?, async |_| {
            Ok(Connection {
                synapse: AsyncSynapse::connect(job.dir.join("s"), &config)
                    .await
                    .map_err(other)?,
                reply: Vec::new(),
            })
        })
    }
}

struct Connection {
    synapse: AsyncSynapse,
    reply: Vec<u8>,
}

impl AsyncClient for Connection {
    type Reply<'a> = &'a [u8];

    /// The whole round trip: the loops measure both calls together where one is in flight.
    async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        let into = std::mem::take(&mut self.reply);
        self.reply = self
            .synapse
            .fire_bytes_into(request, into)
            .await
            .map_err(other)?;
        Ok(())
    }

    async fn receive(&mut self) -> io::Result<&[u8]> {
        Ok(&self.reply)
    }
}
