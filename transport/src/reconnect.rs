//! A client that outlives its server: connects again with back-off and jitter, and never repeats a request.
//!
//! A [`Synapse`] that is lost stays lost, because only the caller knows what a request whose outcome is unknown means. [`Reconnecting`]
//! keeps that: the loss is reported as ever, and it is the *next* request that goes over a new connection. [`Backoff`] is the
//! schedule alone, for those who connect in their own way.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::clock::Ticks;
use crate::config::Config;
use crate::error::{ConnectError, RequestError, Step};
use crate::synapse::Synapse;

/// After so long without a request, a look whether the server lives comes before the next: one that died meanwhile then costs a new
/// connection, and not a request whose outcome is unknown.
const LOOK_AFTER: Duration = Duration::from_millis(50);
/// More ids than a connection gives out: two years' worth, at four million a second.
const FAR: u64 = 1 << 48;

/// When to try again: pauses that double from `first` to `longest`, each drawn between half of it and all of it, so that the clients of a
/// restarted server don't arrive together. Later versions may have more fields: write `Backoff { …, ..Backoff::default() }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Longest first pause. Default 10 ms.
    pub first: Duration,
    /// Longest pause of all. Default 500 ms. More spares a server that comes back to many clients; less finds it sooner.
    pub longest: Duration,
    /// How long to try, from the first attempt on: none begins later. Default 5 s. Zero tries once. An attempt that has begun takes its time beyond
    /// that: with a server that has stopped, [`Config::handshake_timeout`] for each of up to four steps.
    pub patience: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(10),
            longest: Duration::from_millis(500),
            patience: Duration::from_secs(5),
        }
    }
}

impl Backoff {
    /// Pauses from now on, until the patience ends: sleep for one, try, take the next. The last one ends with the patience.
    pub fn pauses(&self) -> Pauses {
        Pauses {
            backoff: *self,
            begun: Instant::now(),
            attempt: 0,
            // Keys that the system drew at random: clients that start together must differ.
            dice: RandomState::new(),
        }
    }

    /// The pause before attempt number `attempt`, from 0; `dice` decides where between half and all of it.
    fn pause(&self, attempt: u32, dice: u64) -> Duration {
        let whole = self
            .first
            .saturating_mul(1 << attempt.min(20))
            .min(self.longest);
        whole / 2 + whole.mul_f64((dice >> 11) as f64 / (1u64 << 53) as f64 / 2.0)
    }
}

/// Pauses of a [`Backoff`]; ends when its patience does.
#[derive(Clone, Debug)]
pub struct Pauses {
    backoff: Backoff,
    begun: Instant,
    attempt: u32,
    dice: RandomState,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let left = self.backoff.patience.checked_sub(self.begun.elapsed())?;
        let mut hasher = self.dice.build_hasher();
        hasher.write_u32(self.attempt);
        let pause = self.backoff.pause(self.attempt, hasher.finish());
        self.attempt = self.attempt.saturating_add(1);
        (!left.is_zero()).then(|| pause.min(left))
    }
}

impl ConnectError {
    /// Whether it may pass by itself: no server (yet), one that does not answer or has no place for us, a limit of the moment. False for
    /// what only another configuration, user or program can mend.
    pub fn may_pass(&self) -> bool {
        match self {
            // EACCES too: a server that lets others in binds its socket first, and opens it to them then.
            Self::NoServer { .. }
            | Self::Denied { .. }
            | Self::Unresponsive { .. }
            | Self::Io { .. } => true,
            Self::Refused { reason } => reason.may_pass(),
            // A server for the socket only, or memory that is no ring of ours.
            Self::NoSharedMemory(why) => {
                !matches!(why.step, Step::Disabled | Step::Validate | Step::Layout)
            }
            Self::Config(_) | Self::NoPath { .. } | Self::PathTooLong { .. } => false,
        }
    }
}

/// Errors of [`Reconnecting`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconnectError {
    /// The request failed. After `Disconnected` its outcome is unknown: it was not repeated, and the next call connects again.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The server did not come back while the patience lasted; nothing was sent. The next call tries again, as long.
    #[error("not connected: {0}")]
    Connect(#[from] ConnectError),
}

/// A client connection that is made again when it was lost.
///
/// ```no_run
/// use transport::error::RequestError;
/// use transport::reconnect::{Backoff, ReconnectError, Reconnecting};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let config = transport::Config::default();
/// let mut client = Reconnecting::connect("/run/exchange.sock", &config, Backoff::default())?;
/// match client.fire_bytes(b"order 7") {
///     Ok(reply) => println!("{} bytes", reply.len()),
///     // Only the application knows whether order 7 may be sent again.
///     Err(ReconnectError::Request(e @ RequestError::Disconnected { .. })) => println!("order 7: {e}"),
///     Err(e) => return Err(e.into()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Reconnecting {
    path: PathBuf,
    config: Config,
    backoff: Backoff,
    synapse: Synapse,
    used: Ticks,
    reconnects: u64,
    /// Below it are the ids that were given out by the connections before this one.
    first: u64,
}

impl Reconnecting {
    /// Connects, with as much patience as later: the server may come after its clients.
    ///
    /// # Errors
    /// The last [`ConnectError`], once the patience is over; at once if it can't pass by itself.
    pub fn connect(
        path: impl AsRef<Path>,
        config: &Config,
        backoff: Backoff,
    ) -> Result<Self, ConnectError> {
        let path = path.as_ref();
        Ok(Self {
            synapse: patiently(1, path, config, &backoff)?,
            path: path.into(),
            config: config.clone(),
            backoff,
            used: Ticks::now(),
            reconnects: 0,
            first: 1,
        })
    }

    /// The connection, made anew if it was lost: for pipelining and everything else that [`Self::fire_bytes`] does not do. Blocks
    /// until the patience and then the last attempt are over, see [`Backoff::patience`]. Requests that were in flight on the old one are not on
    /// the new one: [`RequestError::Disconnected`] has said how many, and their ids name nothing there.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn synapse(&mut self) -> Result<&mut Synapse, ConnectError> {
        let now = Ticks::now();
        // With requests in flight the loss is theirs to report.
        if self.synapse.in_flight() == 0
            && self.synapse.is_usable()
            && now.waited_since(self.used) >= LOOK_AFTER.as_nanos() as u64
        {
            // What is wrong shows in `is_usable`.
            let _ = self.synapse.check_alive();
        }
        self.used = now;
        if !self.synapse.is_usable() {
            // Who keeps a list by id of what is unknown meets none of them again, nor cancels another request by one.
            let unknown = self.first.saturating_add(FAR);
            self.first = self
                .synapse
                .upcoming_id()
                .unwrap_or(unknown)
                .max(self.first);
            self.synapse = patiently(self.first, &self.path, &self.config, &self.backoff)?;
            self.reconnects += 1;
            self.used = Ticks::now();
        }
        Ok(&mut self.synapse)
    }

    /// As [`Synapse::fire_bytes`]; connects first if the connection was lost before. [`Config::request_timeout`] begins after that.
    ///
    /// # Errors
    /// [`ReconnectError`].
    pub fn fire_bytes(&mut self, request: &[u8]) -> Result<&[u8], ReconnectError> {
        Ok(self.synapse()?.fire_bytes(request)?)
    }

    /// How often the connection was made again.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }
}

/// Connects; `first` is the first request's id.
fn patiently(
    first: u64,
    path: &Path,
    config: &Config,
    backoff: &Backoff,
) -> Result<Synapse, ConnectError> {
    let mut pauses = backoff.pauses();
    loop {
        let error = match Synapse::connect_counting_from(first, path, config) {
            Ok(synapse) => return Ok(synapse),
            Err(error) => error,
        };
        match pauses.next() {
            Some(pause) if error.may_pass() => std::thread::sleep(pause),
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_differ_between_clients() {
        let backoff = Backoff::default();
        for dice in [0, 1, u64::MAX / 3, u64::MAX] {
            for attempt in 0..100 {
                let pause = backoff.pause(attempt, dice);
                assert!(
                    (backoff.first / 2..=backoff.longest).contains(&pause),
                    "{pause:?}"
                );
            }
            assert!(backoff.pause(0, dice) <= backoff.first);
            assert!(backoff.pause(99, dice) >= backoff.longest / 2);
        }
        // All of the half is used.
        assert_eq!(backoff.pause(0, 0), backoff.first / 2);
        assert!(backoff.pause(0, u64::MAX) > backoff.first * 9 / 10);
        let distinct: std::collections::BTreeSet<_> = (0..100)
            .map(|_| backoff.pauses().nth(5).expect("patient"))
            .collect();
        assert!(distinct.len() > 90);
    }

    #[test]
    fn the_last_pause_ends_with_the_patience() {
        let backoff = Backoff {
            first: Duration::from_secs(3600),
            longest: Duration::from_secs(3600),
            patience: Duration::from_secs(60),
        };
        let pause = backoff.pauses().next().expect("patient");
        assert!(pause <= backoff.patience, "{pause:?}");
    }

    #[test]
    fn no_patience_is_no_pause() {
        let backoff = Backoff {
            patience: Duration::ZERO,
            ..Backoff::default()
        };
        assert_eq!(backoff.pauses().next(), None);
    }
}
