//! `export`: metrics over HTTP/1.1, for Prometheus.
//!
//! The main thread looks at the world each second (hints need their windows); another accepts, and each connection has a short-lived
//! thread of its own, so that one that is slow keeps no other waiting. What strangers may cost is bounded: see [`super::http`].

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::http::{self, Bodies};
use super::settings::Settings;
use super::{Failure, Outcome, say};
use crate::report::{Dialect, metrics};

/// The first process of a container is sent no signal that it does not handle: stopping the container would wait for its patience to end, and
/// then kill it. Everybody else ends as the kernel has it.
fn end_on_signals() -> io::Result<()> {
    if std::process::id() == 1 {
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let always = Arc::new(AtomicBool::new(true));
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, always)?;
        }
    }
    Ok(())
}

/// Serves until it is killed.
pub(super) fn serve(settings: &Settings, listen: SocketAddr) -> Outcome {
    end_on_signals()?;
    let listener = TcpListener::bind(listen).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => Failure::Permission(format!("{listen}: {e}")),
        _ => Failure::Usage(format!("{listen}: {e}")),
    })?;
    let address = listener.local_addr()?;
    let mut world = super::world(settings);
    let mut judge = settings.judge();
    let mut look = || {
        let sample = Arc::new(world.sample());
        let mut model = judge.push(Arc::clone(&sample));
        settings.select(&mut model);
        let model = Arc::new(model);
        let body = |dialect| {
            let (model, sample) = (Arc::clone(&model), Arc::clone(&sample));
            http::body(move || metrics(&model, &sample, dialect))
        };
        Arc::new(Bodies {
            open_metrics: body(Dialect::OpenMetrics),
            text: body(Dialect::Text),
        })
    };
    let latest = Arc::new(Mutex::new(look()));
    let shared = Arc::clone(&latest);
    std::thread::Builder::new()
        .name("accept".into())
        .spawn(move || accept(&listener, &shared))?;
    say(&format!("shmtop: metrics at http://{address}/metrics\n"))?;
    let step = settings.delay_or(1.0);
    loop {
        std::thread::sleep(step);
        let fresh = look();
        *latest.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
    }
}

fn accept(listener: &TcpListener, latest: &Mutex<Arc<Bodies>>) {
    let places = Arc::new(());
    for stream in listener.incoming() {
        // EMFILE and the like: don't spin on it.
        let Ok(stream) = stream else {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        // Each thread holds one clone; more than that many connections are not even read.
        if Arc::strong_count(&places) > http::MAX_CONNECTIONS {
            http::turn_away(&stream);
            continue;
        }
        let place = Arc::clone(&places);
        let bodies = Arc::clone(&latest.lock().unwrap_or_else(PoisonError::into_inner));
        // No thread to be had, or a client that goes away or sends nonsense: that scrape fails, which its sender notices.
        let _ = std::thread::Builder::new()
            .name("scrape".into())
            .spawn(move || {
                let _ = http::answer(stream, &bodies);
                drop(place);
            });
    }
}
