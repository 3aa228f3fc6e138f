//! shmipc 0.2.1: queues and buffers in shared memory, wake-ups through the kernel, tokio on both sides.

use std::io;
use std::os::unix::net::SocketAddr;

use shmipc::buffer::{Buf, BufferReader};
use shmipc::config::{Config, SizePercentPair};
use shmipc::session::{SessionManager, SessionManagerConfig};
use shmipc::stream::Stream;
use shmipc::transport::{DefaultUnixConnect, DefaultUnixListen};
use shmipc::{Error, Listener};

use super::drive::tasks::{self, AsyncClient};
use super::tokio_unix::{client_runtime, serve_on, server_runtime};
use super::{Subject, other};
use crate::gate::{Gate, Stop};
use crate::job::{ClientReport, Job, Shape};

/// shmipc with one way of waking.
pub(crate) struct Shmipc {
    id: &'static str,
    title: &'static str,
    how: &'static str,
    wakeup: fn(Config) -> Config,
}

/// What its README recommends for low latency.
pub(crate) const EVENTFD: Shmipc = Shmipc {
    id: "shmipc",
    title: "shmipc 0.2.1",
    how: "`with_v4_eventfd()`, which its README recommends for small messages at low latency; slices as its own benchmark sizes them \
          (payload + 256); reading and writing in place; 16 clients of one process are 16 streams of one session, as its benchmark has them.",
    wakeup: Config::with_v4_eventfd,
};
/// Its default.
pub(crate) const LEGACY: Shmipc = Shmipc {
    id: "shmipc-default",
    title: "shmipc 0.2.1, default protocol",
    how: "the same, with `Config::default()`'s protocol (V3: wake-ups over the Unix socket).",
    wakeup: |config| config,
};

impl Shmipc {
    fn config(&self, job: &Job, number: usize) -> Config {
        let mut config = (self.wakeup)(Config::default());
        config.buffer_slice_sizes = [
            (job.size as u32 + 256, 70),
            ((16 << 10) + 256, 20),
            ((64 << 10) + 256, 10),
        ]
        .map(|(size, percent)| SizePercentPair { size, percent })
        .to_vec();
        config.share_memory_path_prefix = format!("{}/{}-{number}", job.dir.display(), job.name);
        config.queue_path = format!("{}/q{number}", job.dir.display());
        config
    }

    fn address(job: &Job) -> io::Result<SocketAddr> {
        SocketAddr::from_pathname(job.dir.join("s"))
    }
}

impl Subject for Shmipc {
    fn id(&self) -> &'static str {
        self.id
    }
    fn title(&self) -> &'static str {
        self.title
    }
    fn how(&self) -> &'static str {
        self.how
    }
    fn does(&self, _: Shape, _: usize) -> bool {
        true
    }

    fn serve(&self, job: &Job, stop: &Stop) -> io::Result<()> {
        let runtime = server_runtime(job)?;
        let config = self.config(job, usize::MAX);
        let mut listener = runtime.block_on(Listener::new(
            DefaultUnixListen,
            Self::address(job)?,
            config,
        ))?;
        stop.ready();
        let size = job.size;
        serve_on(&runtime, stop, async move {
            loop {
                let stream = listener.accept().await?;
                tokio::spawn(echo(stream, size));
            }
        })
    }

    fn clients(&self, job: &Job, gate: &Gate) -> io::Result<Vec<ClientReport>> {
        let runtime = client_runtime(job)?;
        let mut settings = SessionManagerConfig::new().with_config(self.config(job, job.first));
        settings = settings.with_session_num(1);
        let address = Self::address(job)?;
        let manager = runtime
            .block_on(SessionManager::new(settings, DefaultUnixConnect, address))
            .map_err(other)?;
        tasks::run(job, gate, &runtime, async |_| {
            Ok(Connection {
                stream: manager.get_stream().map_err(other)?,
                size: job.size,
            })
        })
    }
}

/// Until the client hangs up.
async fn echo(mut stream: Stream, size: usize) -> Result<(), Error> {
    loop {
        // Owned without a copy: the slice stays pinned until the bytes are dropped.
        let request = stream.read_exact_bytes(size).await?.into_bytes();
        stream.write_bytes(&request)?;
        drop(request);
        stream.recv_buf().release_previous_read();
        flush(&mut stream).await?;
    }
}

async fn flush(stream: &mut Stream) -> Result<(), Error> {
    loop {
        match stream.flush(false).await {
            Err(Error::QueueFull) => tokio::task::yield_now().await,
            result => return result,
        }
    }
}

struct Connection {
    stream: Stream,
    size: usize,
}

impl AsyncClient for Connection {
    type Reply<'a> = Buf<'a>;

    async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        // What the last reply occupied becomes free, or the next request's place.
        self.stream.release_read_and_reuse();
        self.stream.write_bytes(request).map_err(other)?;
        flush(&mut self.stream).await.map_err(other)
    }

    async fn receive(&mut self) -> io::Result<Buf<'_>> {
        self.stream.read_exact_bytes(self.size).await.map_err(other)
    }
}
