//! Connecting, and connecting again when the exchange has died: with back-off and jitter, so that the clients of a
//! restarted exchange don't arrive all at once.

use std::time::{Duration, Instant};

use transport::Synapse;

use super::{Plan, Shared};
use crate::failure::{Failure, USAGE};
use crate::protocol::mix;

/// First pause.
const FIRST: Duration = Duration::from_millis(10);
/// Longest pause.
const LONGEST: Duration = Duration::from_millis(500);

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
pub(crate) fn again(plan: &Plan, shared: &Shared, client: usize) -> Result<Synapse, Failure> {
    let deadline = Instant::now() + plan.reconnect;
    let mut attempt = 0;
    loop {
        shared.sleep_until(deadline.min(Instant::now() + pause(client, attempt)));
        let failure = match connect(plan) {
            Ok(synapse) => return Ok(synapse),
            Err(failure) => failure,
        };
        if shared.stopping() || Instant::now() >= deadline {
            return Err(failure);
        }
        attempt += 1;
    }
}

/// Doubles with every attempt up to [`LONGEST`]; a client takes between half of it and all of it.
fn pause(client: usize, attempt: u32) -> Duration {
    let whole = FIRST.saturating_mul(1 << attempt.min(10)).min(LONGEST);
    let dice = mix(u64::from(std::process::id()) ^ (client as u64) << 32 ^ u64::from(attempt));
    whole / 2 + whole.mul_f64((dice >> 11) as f64 / (1u64 << 53) as f64 / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_differ_between_clients() {
        for client in 0..100 {
            for attempt in 0..40 {
                let pause = pause(client, attempt);
                assert!((FIRST / 2..=LONGEST).contains(&pause), "{pause:?}");
            }
            assert!(pause(client, 0) <= FIRST);
            assert!(pause(client, 39) >= LONGEST / 2);
        }
        let distinct: std::collections::BTreeSet<_> = (0..100).map(|c| pause(c, 5)).collect();
        assert!(distinct.len() > 90);
    }
}
