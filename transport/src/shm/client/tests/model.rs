//! The same against a model: whatever was asked, given up, answered, looked for and armed before the server ended, and however it is looked for since.

use std::collections::VecDeque;
use std::io::Write;

use proptest::prelude::*;

use super::*;

/// What happens to a connection before its server ends.
#[derive(Clone, Copy, Debug)]
enum Step {
    Submit(u8),
    /// So many are given up, the oldest first.
    GiveUp(u8),
    /// The server answers so many.
    Answer(u8),
    Look,
    /// A loop arms; the server may take that, and its bell may be heard late.
    Arm {
        taken: bool,
        late: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..100u8).prop_map(Step::Submit),
        (1..100u8).prop_map(Step::GiveUp),
        (1..100u8).prop_map(Step::Answer),
        Just(Step::Look),
        any::<(bool, bool)>().prop_map(|(taken, late)| Step::Arm { taken, late }),
    ]
}

/// What is done to a connection whose server has ended: a look, by its place in [`LOOKS`]; or another call.
const CHECK: usize = LOOKS.len();
const DISARM: usize = CHECK + 1;
const SUBMIT: usize = DISARM + 1;

/// Asked and not given up, in order; and how many requests the server has answered.
#[derive(Default)]
struct Model {
    live: VecDeque<u64>,
    sent: u64,
    answered: u64,
}

impl Model {
    /// The next reply that a look must find.
    fn next(&mut self) -> Option<RequestId> {
        let next = self.live.pop_front_if(|id| *id <= self.answered)?;
        Some(RequestId(next))
    }
}

proptest! {
    // Those that end in a wait take 50 ms.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn all_that_was_answered_is_received_in_order_then_the_end_is_told_and_nothing_is_sent_since_it_was_met(
        steps in prop::collection::vec(step(), 0..30),
        calls in prop::collection::vec(0..=SUBMIT, 1..20),
    ) {
        let (mut client, mut server, mut theirs) = connected();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Submit(requests) => {
                    // Room for all of them, and for their replies.
                    for _ in 0..u64::from(requests).min(200 - model.sent) {
                        let RequestId(id) = client.submit(b"").expect("room");
                        model.live.push_back(id);
                        model.sent += 1;
                    }
                }
                Step::GiveUp(requests) => {
                    let given_up = usize::from(requests).min(model.live.len());
                    model.live.drain(..given_up).for_each(|id| client.abandon(id));
                }
                Step::Answer(replies) => {
                    for _ in 0..replies {
                        let Some(record) = server.rx.peek().expect("whole") else {
                            break;
                        };
                        server.rx.release(&record);
                        server.tx.push(Kind::Reply, record.id, b"").expect("room");
                        model.answered = record.id;
                    }
                }
                Step::Look => {
                    // It may find nothing if it discards all that it may. Not so before the end, as long as it is asked again.
                    let mut found = None;
                    while found.is_none() && client.rx.is_ready() {
                        found = client.try_receive().expect("alive").map(|(id, _)| id);
                    }
                    prop_assert_eq!(found, model.next());
                }
                Step::Arm { taken, late } => {
                    if client.arm().expect("alive") {
                        let bell = if taken { server.tx.must_wake() } else { None };
                        if late {
                            client.disarm();
                        }
                        if bell.is_some() {
                            theirs.write_all(&[0]).expect("room");
                        }
                        client.disarm();
                        prop_assert!(!client.line.has_ended() && !client.line.expects_bell());
                    }
                }
            }
        }
        drive::bye(&theirs);
        drop(theirs);
        while let Some(record) = server.rx.peek().expect("whole") {
            server.rx.release(&record);
        }
        // Who looks at the ring alone never learns of the end, nor who never receives.
        let mut calls = calls.into_iter().chain([3, CHECK]).cycle();
        let in_flight = loop {
            let live = model.live.len();
            let found = match calls.next().expect("without end") {
                DISARM => {
                    client.disarm();
                    continue;
                }
                SUBMIT => {
                    if client.line.has_ended() {
                        client.submit(b"more?").expect_err("nobody is there");
                        prop_assert_eq!(server.rx.peek().expect("whole"), None);
                    }
                    continue;
                }
                CHECK => client.check_alive().map(|()| None),
                // That waits for nobody's reply is another error.
                n if live == 0 && LOOKS[n].0.starts_with("receive") => continue,
                n => (LOOKS[n].1)(&mut client),
            };
            match found {
                Ok(None) => {}
                Ok(found) => prop_assert_eq!(found, model.next()),
                Err(RequestError::Disconnected { reason: Lost::Closed, in_flight }) => break in_flight,
                other => prop_assert!(false, "{other:?}"),
            }
        };
        // Of the last reply, the end may have been told before: then nothing was in flight.
        prop_assert_eq!((model.next(), in_flight), (None, model.live.len()));
        prop_assert!(!client.is_usable());
    }
}
