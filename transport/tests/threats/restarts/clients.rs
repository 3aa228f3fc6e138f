//! Clients of every kind, which account for each of their requests: one that connects again by itself, a group, tasks.

use std::collections::VecDeque;
use std::time::Duration;

use transport::error::RequestError;
use transport::reconnect::ReconnectError;
use transport::{AsyncSynapse, Group, Reconnecting, Synapse, TransportChoice, WaitPolicy};

use super::{Load, Outcomes, PATIENT};
use crate::role::WATCHDOG;

/// One request after the other, by a client that connects again by itself.
pub(super) fn call(load: &Load<'_>, transport: TransportChoice) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let config = load.config(transport);
    let mut client = Reconnecting::connect(load.path, &config, PATIENT).expect("a server");
    while !load.is_over() {
        let (number, request) = load.request();
        match client.fire_bytes(&request) {
            Ok(reply) => outcomes.took(number, &request, reply),
            Err(ReconnectError::Request(error)) => outcomes.failed(number, error),
            Err(error) => panic!("{error}"),
        }
    }
    outcomes
}

/// A connection and what is in flight on it.
struct Member {
    synapse: Synapse,
    transport: TransportChoice,
    sent: VecDeque<(u64, Vec<u8>)>,
}

impl AsMut<Synapse> for Member {
    fn as_mut(&mut self) -> &mut Synapse {
        &mut self.synapse
    }
}

impl Member {
    fn new(load: &Load<'_>, transport: TransportChoice) -> Self {
        Self {
            synapse: load.connect(transport),
            transport,
            sent: VecDeque::new(),
        }
    }

    /// Sends until eight are in flight.
    fn top_up(&mut self, load: &Load<'_>, outcomes: &mut Outcomes) {
        while self.sent.len() < 8 && !load.is_over() {
            let (number, request) = load.request();
            match self.synapse.submit(&request) {
                Ok(_) => self.sent.push_back((number, request)),
                Err(error) => {
                    outcomes.not_sent.push(number);
                    return self.failed(error, load, outcomes);
                }
            }
        }
    }

    /// Receives what is there.
    fn drain(&mut self, load: &Load<'_>, outcomes: &mut Outcomes) {
        loop {
            match self.synapse.try_receive() {
                Ok(Some((_, reply))) => {
                    let (number, request) = self.sent.pop_front().expect("one in flight");
                    outcomes.took(number, &request, reply);
                }
                Ok(None) => return,
                Err(error) => return self.failed(error, load, outcomes),
            }
        }
    }

    fn failed(&mut self, error: RequestError, load: &Load<'_>, outcomes: &mut Outcomes) {
        match error {
            RequestError::Full { .. } => {}
            RequestError::Disconnected { in_flight, .. } => {
                assert_eq!(in_flight, self.sent.len(), "unknown as told, and in flight");
                let unknown = self.sent.drain(..).map(|(number, _)| number);
                outcomes.unknown.extend(unknown);
                self.synapse = load.connect(self.transport);
            }
            other => panic!("{other}"),
        }
    }
}

/// Four connections, pipelined, waited for by one thread.
pub(super) fn group(load: &Load<'_>, _both: TransportChoice) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let (shm, socket) = (TransportChoice::Auto, TransportChoice::Socket);
    let mut members = [shm, socket, shm, socket].map(|t| Member::new(load, t));
    let mut group = Group::new(WaitPolicy::Adaptive);
    loop {
        for member in &mut members {
            member.top_up(load, &mut outcomes);
        }
        match group.wait(&mut members, WATCHDOG) {
            Ok(found) => members[found.expect("a reply, or the end")].drain(load, &mut outcomes),
            Err(RequestError::NothingInFlight) if load.is_over() => return outcomes,
            Err(RequestError::NothingInFlight) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

/// Eight tasks on one connection; two of them lose patience with some of their requests.
pub(super) fn tasks(load: &Load<'_>, transport: TransportChoice) -> Outcomes {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut all = Outcomes::default();
    while !load.is_over() {
        let synapse = load.connect(transport);
        let ended = runtime.block_on(async {
            let client = AsyncSynapse::new(synapse).expect("a descriptor");
            let task = |hasty| task(load, client.clone(), hasty);
            tokio::join!(
                task(false),
                task(false),
                task(false),
                task(false),
                task(false),
                task(false),
                task(true),
                task(true)
            )
        });
        let ended: [Outcomes; 8] = ended.into();
        for outcomes in ended {
            all.done.extend(outcomes.done);
            all.unknown.extend(outcomes.unknown);
            all.not_sent.extend(outcomes.not_sent);
        }
    }
    all
}

/// Requests until the connection is lost.
async fn task(load: &Load<'_>, client: AsyncSynapse, hasty: bool) -> Outcomes {
    let mut outcomes = Outcomes::default();
    while !load.is_over() {
        let (number, request) = load.request();
        let asked = client.fire_bytes(&request);
        let answer = if hasty && number % 3 == 0 {
            match tokio::time::timeout(Duration::from_micros(100), asked).await {
                Ok(answer) => answer,
                Err(_) => {
                    outcomes.unknown.push(number);
                    continue;
                }
            }
        } else {
            asked.await
        };
        match answer {
            Ok(reply) => outcomes.took(number, &request, &reply),
            Err(error) => {
                outcomes.failed(number, error);
                break;
            }
        }
    }
    outcomes
}
