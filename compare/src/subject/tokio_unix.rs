//! Unix stream sockets of tokio: a task per connection on both sides.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};

use super::Subject;
use super::drive::tasks::{self, AsyncClient};
use crate::gate::{Gate, Stop};
use crate::job::{ClientReport, Job, Shape};

/// A runtime for one side: of one thread for a single connection or where the work is that of one thread (a second one would only
/// add hand-overs), else tokio's default of a thread per CPU.
pub(super) fn runtime(one_thread: bool) -> io::Result<Runtime> {
    let mut builder = if one_thread {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    builder.enable_all().build()
}

/// For the clients of this process.
pub(super) fn client_runtime(job: &Job) -> io::Result<Runtime> {
    runtime(job.here == 1 || job.shape == Shape::Pipelined)
}

/// For the server.
pub(super) fn server_runtime(job: &Job) -> io::Result<Runtime> {
    runtime(job.clients == 1 || job.pin.is_some())
}

/// Serves on a runtime until the end.
pub(super) fn serve_on<F: Future<Output = io::Result<()>> + Send + 'static>(
    runtime: &Runtime,
    stop: &Stop,
    accepting: F,
) -> io::Result<()> {
    std::thread::scope(|scope| {
        let (over, end) = tokio::sync::oneshot::channel::<()>();
        scope.spawn(move || {
            stop.wait();
            // The receiver is gone only if serving failed, which is being reported.
            let _ = over.send(());
        });
        runtime.block_on(async {
            let serving = tokio::spawn(accepting);
            tokio::select! {
                result = serving => result.map_err(io::Error::other).and_then(|r| r).inspect_err(|_| stop.set()),
                _ = end => Ok(()),
            }
        })
    })
}

/// The subject.
pub(crate) struct TokioUnix;

impl Subject for TokioUnix {
    fn id(&self) -> &'static str {
        "tokio"
    }
    fn title(&self) -> &'static str {
        "Unix sockets, tokio"
    }
    fn how(&self) -> &'static str {
        "`tokio::net`, a task per connection on both sides, messages of known size; a current-thread runtime where there is one \
         connection or one thread, else the multi-thread one."
    }
    fn does(&self, _: Shape, _: usize) -> bool {
        true
    }

    fn serve(&self, job: &Job, stop: &Stop) -> io::Result<()> {
        let runtime = server_runtime(job)?;
        let _inside = runtime.enter();
        let listener = UnixListener::bind(job.dir.join("s"))?;
        stop.ready();
        let size = job.size;
        serve_on(&runtime, stop, async move {
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(echo(stream, size));
            }
        })
    }

    fn clients(&self, job: &Job, gate: &Gate) -> io::Result<Vec<ClientReport>> {
        tasks::run(job, gate, &client_runtime(job)?, async |_| {
            Ok(Connection {
                stream: UnixStream::connect(job.dir.join("s")).await?,
                buffer: vec![0; job.size].into(),
            })
        })
    }
}

/// Until the client hangs up.
async fn echo(mut stream: UnixStream, size: usize) -> io::Result<()> {
    let mut buffer = vec![0; size];
    loop {
        stream.read_exact(&mut buffer).await?;
        stream.write_all(&buffer).await?;
    }
}

struct Connection {
    stream: UnixStream,
    buffer: Box<[u8]>,
}

impl AsyncClient for Connection {
    type Reply<'a> = &'a [u8];

    async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await
    }

    async fn receive(&mut self) -> io::Result<&[u8]> {
        self.stream.read_exact(&mut self.buffer).await?;
        Ok(&self.buffer)
    }
}
