//! iceoryx2 0.10 request-response that sleeps: the same, with its events telling each side when to look.

use std::io;
use std::time::Duration;

use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::prelude::*;
use iceoryx2::response::Response;

use super::drive::{self, Client};
use super::iceoryx::{self, Connection, Ipc};
use super::{Subject, other};
use crate::gate::{Gate, Stop};
use crate::job::{ClientReport, Job, Shape};

/// The subject.
pub(crate) struct Events;

/// Event services: the server's is number `clients`, client n's is number n.
fn bell(node: &Node<Ipc>, job: &Job, number: usize) -> io::Result<(Listener<Ipc>, Notifier<Ipc>)> {
    let service = node
        .service_builder(
            &format!("bell-{number}")
                .as_str()
                .try_into()
                .map_err(other)?,
        )
        .event()
        .max_listeners(job.clients + 2)
        .max_notifiers(job.clients + 2)
        .max_nodes(job.clients + 2)
        .open_or_create()
        .map_err(other)?;
    let listener = service.listener_builder().create().map_err(other)?;
    let notifier = service.notifier_builder().create().map_err(other)?;
    Ok((listener, notifier))
}

fn notifier(node: &Node<Ipc>, job: &Job, number: usize) -> io::Result<Notifier<Ipc>> {
    node.service_builder(
        &format!("bell-{number}")
            .as_str()
            .try_into()
            .map_err(other)?,
    )
    .event()
    .max_listeners(job.clients + 2)
    .max_notifiers(job.clients + 2)
    .max_nodes(job.clients + 2)
    .open_or_create()
    .map_err(other)?
    .notifier_builder()
    .create()
    .map_err(other)
}

impl Subject for Events {
    fn id(&self) -> &'static str {
        "iceoryx2-events"
    }
    fn title(&self) -> &'static str {
        "iceoryx2 0.10 request-response, events"
    }
    fn how(&self) -> &'static str {
        "the same, sleeping on its event ports: a listener per side, a notification per message. What its documentation has for those \
         who can't burn a core."
    }
    fn does(&self, shape: Shape, _: usize) -> bool {
        shape != Shape::Pipelined
    }

    fn serve(&self, job: &Job, stop: &Stop) -> io::Result<()> {
        let node = iceoryx::node(job)?;
        let server = iceoryx::server(&node, job)?;
        let (listener, _own) = bell(&node, job, job.clients)?;
        // Made here already, so that clients only open them.
        let bells = (0..job.clients)
            .map(|number| notifier(&node, job, number))
            .collect::<io::Result<Vec<_>>>()?;
        stop.ready();
        while !stop.is_set() {
            let mut rung = Vec::new();
            listener
                .timed_wait(
                    |event| rung.push(event.id.as_value()),
                    Duration::from_millis(200),
                )
                .map_err(other)?;
            while iceoryx::answer(&server)? {}
            // An event's id is the number of the client who sent it.
            for number in rung {
                let bell = bells.get(number).ok_or_else(|| other("no such client"))?;
                bell.notify().map_err(other)?;
            }
        }
        Ok(())
    }

    fn clients(&self, job: &Job, gate: &Gate) -> io::Result<Vec<ClientReport>> {
        drive::run(job, gate, |number| {
            let inner = Connection::new(job)?;
            let (listener, _) = bell(&inner.node, job, number)?;
            let server = notifier(&inner.node, job, job.clients)?;
            Ok(Sleeping {
                inner,
                listener,
                server,
                id: EventId::new(number),
            })
        })
    }
}

struct Sleeping {
    inner: Connection,
    listener: Listener<Ipc>,
    server: Notifier<Ipc>,
    id: EventId,
}

impl Client for Sleeping {
    type Reply<'a> = Response<Ipc, [u8], ()>;

    fn echo<'a>(&'a mut self, request: &[u8]) -> io::Result<Self::Reply<'a>> {
        let pending = self.inner.send(request)?;
        self.server
            .notify_with_custom_event_id(self.id)
            .map_err(other)?;
        loop {
            if let Some(reply) = pending.receive().map_err(other)? {
                return Ok(reply);
            }
            self.listener
                .timed_wait(|_| {}, Duration::from_secs(1))
                .map_err(other)?;
        }
    }

    fn submit(&mut self, _: &[u8]) -> io::Result<bool> {
        Err(other("not pipelined"))
    }

    fn try_receive(&mut self) -> io::Result<Option<Self::Reply<'_>>> {
        Err(other("not pipelined"))
    }
}
