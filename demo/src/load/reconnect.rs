//! Connecting, and connecting again when the exchange has died: with back-off and jitter, so that the clients of a
//! restarted exchange don't arrive all at once.

use std::time::Instant;

use transport::{Backoff, Synapse};

use super::{Plan, Shared};
use crate::failure::{Failure, USAGE};

/// One attempt. A connection that can't carry the plan's messages is refused here, once, rather than at each request.
pub(crate) fn connect(plan: &Plan) -> Result<Synapse, Failure> {
    let synapse = Synapse::connect(&plan.socket, &plan.config).map_err(|e| Failure::from(&e))?;
    if plan.size > synapse.max_message() {
        return Err(Failure::new(
            USAGE,
            format!(
                "messages of {} bytes are above the exchange's largest ({})",
                plan.size,
                synapse.max_message()
            ),
        ));
    }
    Ok(synapse)
}

/// Tries until it works, the plan's patience ends or the run is stopped.
pub(crate) fn again(plan: &Plan, shared: &Shared) -> Result<Synapse, Failure> {
    let backoff = Backoff {
        patience: plan.reconnect,
        ..Backoff::default()
    };
    let mut pauses = backoff.pauses();
    let mut pause = pauses.next().unwrap_or_default();
    loop {
        shared.sleep_until(Instant::now() + pause);
        let failure = match connect(plan) {
            Ok(synapse) => return Ok(synapse),
            Err(failure) => failure,
        };
        match pauses.next() {
            Some(next) if !shared.stopping() => pause = next,
            _ => return Err(failure),
        }
    }
}
