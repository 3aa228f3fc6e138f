//! iceoryx2 0.10 publish-subscribe, two services per client: one there, one back.

use std::io;

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::sample::Sample;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory as Factory;

use super::drive::{self, Client};
use super::iceoryx::{self, Ipc};
use super::{Patience, Subject, other};
use crate::gate::{Gate, Stop};
use crate::job::{ClientReport, Job, Shape};

/// The subject.
pub(crate) struct PublishSubscribe;

fn service(
    node: &Node<Ipc>,
    job: &Job,
    direction: &str,
    number: usize,
) -> io::Result<Factory<Ipc, [u8], ()>> {
    node.service_builder(
        &format!("{direction}-{number}")
            .as_str()
            .try_into()
            .map_err(other)?,
    )
    .publish_subscribe::<[u8]>()
    .max_publishers(1)
    .max_subscribers(1)
    .max_nodes(job.clients + 2)
    .history_size(0)
    .subscriber_max_buffer_size(if job.shape == Shape::Pipelined {
        job.depth
    } else {
        1
    })
    .enable_safe_overflow(true)
    .open_or_create()
    .map_err(other)
}

/// One end of a pair.
struct End {
    publisher: Publisher<Ipc, [u8], ()>,
    subscriber: Subscriber<Ipc, [u8], ()>,
}

impl End {
    fn new(node: &Node<Ipc>, job: &Job, number: usize, out: &str, back: &str) -> io::Result<Self> {
        Ok(Self {
            publisher: service(node, job, out, number)?
                .publisher_builder()
                .initial_max_slice_len(job.size)
                .create()
                .map_err(other)?,
            subscriber: service(node, job, back, number)?
                .subscriber_builder()
                .create()
                .map_err(other)?,
        })
    }

    #[inline]
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.publisher
            .loan_slice_uninit(bytes.len())
            .map_err(other)?
            .write_from_slice(bytes)
            .send()
            .map(drop)
            .map_err(other)
    }
}

impl Subject for PublishSubscribe {
    fn id(&self) -> &'static str {
        "iceoryx2-pubsub"
    }
    fn title(&self) -> &'static str {
        "iceoryx2 0.10 publish-subscribe pair"
    }
    fn how(&self) -> &'static str {
        "two services per client, loaned slices written and read in place, buffer and overflow as its own benchmark sets them; waiting as in \
         request-response."
    }
    fn does(&self, _: Shape, _: usize) -> bool {
        true
    }

    fn serve(&self, job: &Job, stop: &Stop) -> io::Result<()> {
        let node = iceoryx::node(job)?;
        let ends = (0..job.clients)
            .map(|number| End::new(&node, job, number, "down", "up"))
            .collect::<io::Result<Vec<_>>>()?;
        stop.ready();
        let crowded = job.crowded();
        while !stop.is_set() {
            let mut busy = false;
            for end in &ends {
                while let Some(request) = end.subscriber.receive().map_err(other)? {
                    end.send(&request)?;
                    busy = true;
                }
            }
            if !busy && crowded {
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    fn clients(&self, job: &Job, gate: &Gate) -> io::Result<Vec<ClientReport>> {
        drive::run(job, gate, |number| {
            let node = iceoryx::node(job)?;
            Ok(Connection {
                end: End::new(&node, job, number, "up", "down")?,
                patience: Patience::of(job),
                _node: node,
            })
        })
    }
}

struct Connection {
    end: End,
    patience: Patience,
    _node: Node<Ipc>,
}

impl Client for Connection {
    type Reply<'a> = Sample<Ipc, [u8], ()>;

    #[inline]
    fn echo<'a>(&'a mut self, request: &[u8]) -> io::Result<Self::Reply<'a>> {
        self.end.send(request)?;
        loop {
            if let Some(reply) = self.end.subscriber.receive().map_err(other)? {
                return Ok(reply);
            }
            self.patience.pause_only_if_crowded();
        }
    }

    #[inline]
    fn submit(&mut self, request: &[u8]) -> io::Result<bool> {
        self.end.send(request)?;
        Ok(true)
    }

    #[inline]
    fn try_receive(&mut self) -> io::Result<Option<Self::Reply<'_>>> {
        self.end.subscriber.receive().map_err(other)
    }
}
