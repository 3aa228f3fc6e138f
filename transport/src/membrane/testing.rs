//! What the tests of the server's threads share: a server with small rings that echoes, and waits with a watchdog.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::{TransportChoice, WaitPolicy};
use crate::{Config, Membrane, Synapse};

/// A connection that is lost on its way shows as a request without an answer.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(20);

/// An echo in `dir`, and the configuration for its clients.
pub(crate) fn server(dir: &Path) -> (Membrane, Config) {
    server_that(dir, WaitPolicy::Adaptive, |_| ())
}

/// An echo in `dir`, and a client on the socket.
pub(crate) fn server_and_client_on_socket(dir: &Path) -> (Membrane, Synapse) {
    let (server, config) = server(dir);
    let config = Config {
        transport: TransportChoice::Socket,
        ..config
    };
    let client = Synapse::connect(server.path(), &config).expect("a client");
    (server, client)
}

/// One that does something before it answers.
pub(crate) fn server_that(
    dir: &Path,
    wait: WaitPolicy,
    work: impl Fn(&[u8]) + Send + Sync + 'static,
) -> (Membrane, Config) {
    let config = Config {
        ring_bytes: 1 << 16,
        max_message_bytes: 1 << 12,
        request_timeout: WATCHDOG,
        wait,
        stats_dir: Some(dir.into()),
        ..Config::default()
    };
    let server = Membrane::bind(dir.join("s"), &config, move |request, reply| {
        work(request);
        reply.extend_from_slice(request).expect("room");
    })
    .expect("a server");
    (server, config)
}

/// Polls until it is done; `what` is said if it never is.
#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < WATCHDOG, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
