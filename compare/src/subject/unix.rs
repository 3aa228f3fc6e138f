//! Unix stream sockets of the standard library: blocking, a server thread per client. Messages have the agreed size, so no frames.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

use super::Subject;
use super::drive::{self, Client};
use crate::gate::{Gate, Stop};
use crate::job::{ClientReport, Job, Shape};

/// The subject.
pub(crate) struct Unix;

impl Subject for Unix {
    fn id(&self) -> &'static str {
        "unix"
    }
    fn title(&self) -> &'static str {
        "Unix sockets, std"
    }
    fn how(&self) -> &'static str {
        "`std::os::unix::net`, blocking `read_exact` and `write_all` of messages of known size, a server thread per client."
    }
    fn does(&self, _: Shape, _: usize) -> bool {
        true
    }

    fn serve(&self, job: &Job, stop: &Stop) -> io::Result<()> {
        let listener = UnixListener::bind(job.dir.join("s"))?;
        let size = job.size;
        std::thread::spawn(move || {
            // Ends with the process, which ends when `serve` returns.
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || echo(stream, size));
            }
        });
        stop.ready();
        stop.wait();
        Ok(())
    }

    fn clients(&self, job: &Job, gate: &Gate) -> io::Result<Vec<ClientReport>> {
        drive::run(job, gate, |_| {
            Ok(Connection {
                stream: UnixStream::connect(job.dir.join("s"))?,
                buffer: vec![0; job.size].into(),
                filled: 0,
            })
        })
    }
}

/// Until the client hangs up.
fn echo(mut stream: UnixStream, size: usize) -> io::Result<()> {
    let mut buffer = vec![0; size];
    loop {
        stream.read_exact(&mut buffer)?;
        stream.write_all(&buffer)?;
    }
}

struct Connection {
    stream: UnixStream,
    buffer: Box<[u8]>,
    /// Bytes of the next reply that are there already.
    filled: usize,
}

impl Client for Connection {
    type Reply<'a> = &'a [u8];

    fn echo<'a>(&'a mut self, request: &[u8]) -> io::Result<&'a [u8]> {
        self.stream.write_all(request)?;
        self.stream.read_exact(&mut self.buffer)?;
        Ok(&self.buffer)
    }

    fn submit(&mut self, request: &[u8]) -> io::Result<bool> {
        // What is in flight is far below the socket's buffer, so this does not block.
        self.stream.write_all(request)?;
        Ok(true)
    }

    fn try_receive(&mut self) -> io::Result<Option<&[u8]>> {
        let rest = &mut self.buffer[self.filled..];
        // SAFETY: `rest` is live and exclusively borrowed; the kernel writes at most its length.
        let n = unsafe {
            libc::recv(
                self.stream.as_raw_fd(),
                rest.as_mut_ptr().cast(),
                rest.len(),
                libc::MSG_DONTWAIT,
            )
        };
        match n {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n if n > 0 => self.filled += n as usize,
            _ => {
                let error = io::Error::last_os_error();
                return match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(None),
                    _ => Err(error),
                };
            }
        }
        if self.filled < self.buffer.len() {
            return Ok(None);
        }
        self.filled = 0;
        Ok(Some(&self.buffer))
    }
}
