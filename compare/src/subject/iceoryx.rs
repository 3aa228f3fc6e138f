//! iceoryx2 0.10 request-response, polled; and what its three subjects have in common.

use std::collections::VecDeque;
use std::io;

use iceoryx2::pending_response::PendingResponse;
use iceoryx2::port::client::Client as Port;
use iceoryx2::port::server::Server;
use iceoryx2::prelude::*;
use iceoryx2::response::Response;
use iceoryx2::service::port_factory::request_response::PortFactory as Factory;

use super::drive::{self, Client};
use super::{Patience, Subject, other};
use crate::gate::{Gate, Stop};
use crate::job::{ClientReport, Job, Shape};

/// The service variant: between processes.
pub(super) type Ipc = ipc::Service;
type Bytes = [u8];

/// A node in the run's own domain, so that runs don't meet each other or anybody else.
pub(super) fn node(job: &Job) -> io::Result<Node<Ipc>> {
    set_log_level(LogLevel::Error);
    let mut config = Config::default();
    config.global.prefix = FileName::new(job.name.as_bytes()).map_err(other)?;
    let root = Path::new(job.dir.as_os_str().as_encoded_bytes()).map_err(other)?;
    config.global.set_root_path(&root);
    NodeBuilder::new()
        .config(&config)
        .signal_handling_mode(SignalHandlingMode::Disabled)
        .create()
        .map_err(other)
}

/// The request-response service of the run.
pub(super) fn service(
    node: &Node<Ipc>,
    job: &Job,
) -> io::Result<Factory<Ipc, Bytes, (), Bytes, ()>> {
    let depth = depth(job);
    node.service_builder(&"echo".try_into().map_err(other)?)
        .request_response::<Bytes, Bytes>()
        .max_servers(1)
        .max_clients(job.clients)
        .max_nodes(job.clients + 2)
        .max_active_requests_per_client(depth)
        .max_loaned_requests(depth)
        .max_response_buffer_size(1)
        .open_or_create()
        .map_err(other)
}

fn depth(job: &Job) -> usize {
    if job.shape == Shape::Pipelined {
        job.depth
    } else {
        1
    }
}

pub(super) fn server(node: &Node<Ipc>, job: &Job) -> io::Result<Server<Ipc, Bytes, (), Bytes, ()>> {
    service(node, job)?
        .server_builder()
        .initial_max_slice_len(job.size)
        .create()
        .map_err(other)
}

/// Answers one request if there is one; says whose it was.
#[inline]
pub(super) fn answer(server: &Server<Ipc, Bytes, (), Bytes, ()>) -> io::Result<bool> {
    let Some(request) = server.receive().map_err(other)? else {
        return Ok(false);
    };
    request
        .loan_slice_uninit(request.payload().len())
        .map_err(other)?
        .write_from_slice(request.payload())
        .send()
        .map_err(other)?;
    Ok(true)
}

/// The subject.
pub(crate) struct RequestResponse;

impl Subject for RequestResponse {
    fn id(&self) -> &'static str {
        "iceoryx2"
    }
    fn title(&self) -> &'static str {
        "iceoryx2 0.10 request-response"
    }
    fn how(&self) -> &'static str {
        "loaned slices written and read in place, one server; polled without a pause for one client, as its own benchmark does; for 16 \
         clients `yield_now` when nothing is there. Its server looks for the next request from its first connection on each time \
         (`Receiver::receive`), and offers no other order: where one thread keeps several requests in flight on each of 16 connections, the first ones \
         always have some, and the last ones starve."
    }
    fn does(&self, _: Shape, _: usize) -> bool {
        true
    }

    fn serve(&self, job: &Job, stop: &Stop) -> io::Result<()> {
        let node = node(job)?;
        let server = server(&node, job)?;
        stop.ready();
        let crowded = job.crowded();
        while !stop.is_set() {
            let mut busy = false;
            while answer(&server)? {
                busy = true;
            }
            if !busy && crowded {
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    fn clients(&self, job: &Job, gate: &Gate) -> io::Result<Vec<ClientReport>> {
        drive::run(job, gate, |_| Connection::new(job))
    }
}

/// A client port; shared with the variant that waits for events.
pub(super) struct Connection {
    port: Port<Ipc, Bytes, (), Bytes, ()>,
    pending: VecDeque<PendingResponse<Ipc, Bytes, (), Bytes, ()>>,
    depth: usize,
    patience: Patience,
    pub(super) node: Node<Ipc>,
}

impl Connection {
    pub(super) fn new(job: &Job) -> io::Result<Self> {
        let node = node(job)?;
        let port = service(&node, job)?
            .client_builder()
            .initial_max_slice_len(job.size)
            .create()
            .map_err(other)?;
        Ok(Self {
            port,
            pending: VecDeque::with_capacity(depth(job)),
            depth: depth(job),
            patience: Patience::of(job),
            node,
        })
    }

    #[inline]
    pub(super) fn send(
        &self,
        request: &[u8],
    ) -> io::Result<PendingResponse<Ipc, Bytes, (), Bytes, ()>> {
        self.port
            .loan_slice_uninit(request.len())
            .map_err(other)?
            .write_from_slice(request)
            .send()
            .map_err(other)
    }
}

impl Client for Connection {
    type Reply<'a> = Response<Ipc, Bytes, ()>;

    #[inline]
    fn echo<'a>(&'a mut self, request: &[u8]) -> io::Result<Self::Reply<'a>> {
        let pending = self.send(request)?;
        loop {
            if let Some(reply) = pending.receive().map_err(other)? {
                return Ok(reply);
            }
            self.patience.pause_only_if_crowded();
        }
    }

    #[inline]
    fn submit(&mut self, request: &[u8]) -> io::Result<bool> {
        if self.pending.len() == self.depth {
            return Ok(false);
        }
        self.pending.push_back(self.send(request)?);
        Ok(true)
    }

    #[inline]
    fn try_receive(&mut self) -> io::Result<Option<Self::Reply<'_>>> {
        let Some(pending) = self.pending.front() else {
            return Ok(None);
        };
        let reply = pending.receive().map_err(other)?;
        if reply.is_some() {
            self.pending.pop_front();
        }
        Ok(reply)
    }
}
