//! `export`: OpenMetrics over HTTP/1.1, for Prometheus.
//!
//! One thread looks at the world each second (hints need their windows), the other answers one request at a time. What a stranger
//! may send is bounded: 8 KiB of request head, 2 s to send it, one connection at a time, nothing kept alive.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::settings::Settings;
use super::{Failure, Outcome, say};
use crate::model::ModelBuilder;
use crate::report;
use crate::source::World;

/// Longest request head.
const MAX_HEAD: usize = 8 * 1024;
/// Time a client has to send its request, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Serves until it is killed.
pub(super) fn serve(settings: &Settings, listen: SocketAddr) -> Outcome {
    let listener = TcpListener::bind(listen).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => Failure::Permission(format!("{listen}: {e}")),
        _ => Failure::Usage(format!("{listen}: {e}")),
    })?;
    let text = Arc::new(Mutex::new(String::new()));
    let mut world = World::new(settings.world());
    let mut builder = ModelBuilder::new();
    let mut exposition = {
        let pids = settings.pids.clone();
        let name = settings.name.clone();
        move || {
            let sample = world.sample();
            let mut model = builder.push(sample.clone());
            model.endpoints.retain(|e| {
                (pids.is_empty() || pids.contains(&e.pid))
                    && name.as_ref().is_none_or(|n| e.name.contains(n.as_str()))
            });
            report::open_metrics(&model, &sample)
        }
    };
    *text.lock().unwrap_or_else(PoisonError::into_inner) = exposition();
    let shared = Arc::clone(&text);
    let step = settings.delay_or(1.0);
    std::thread::Builder::new()
        .name("sampler".into())
        .spawn(move || {
            loop {
                std::thread::sleep(step);
                let fresh = exposition();
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
            }
        })?;
    say(&format!(
        "shmtop: metrics at http://{}/metrics\n",
        listener.local_addr()?
    ))?;
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => {
                let body = text.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // A client that goes away or sends nonsense is its own problem.
                let _ = answer(stream, &body);
            }
            // EMFILE and the like: don't spin on it.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
    Ok(())
}

fn answer(mut stream: TcpStream, body: &str) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = read_head(&mut stream)?;
    let reply = respond(&head, body);
    stream.write_all(reply.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)
}

/// The request's head, up to its empty line, [`MAX_HEAD`] or [`PATIENCE`], whichever comes first.
fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let until = Instant::now() + PATIENCE;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while head.len() <= MAX_HEAD && !head.windows(4).any(|w| w == b"\r\n\r\n") {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => head.extend_from_slice(&buffer[..n]),
            Err(e)
                if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::TimedOut =>
            {
                break;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(head)
}

/// Request head to whole response.
fn respond(head: &[u8], body: &str) -> String {
    let reply = |status: &str, kind: &str, body: &str, with_body: bool| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
            body.len(),
            if with_body { body } else { "" }
        )
    };
    let plain = "text/plain; charset=utf-8";
    if head.len() > MAX_HEAD {
        return reply(
            "431 Request Header Fields Too Large",
            plain,
            "too large\n",
            true,
        );
    }
    if !head.windows(4).any(|w| w == b"\r\n\r\n") {
        return reply("408 Request Timeout", plain, "incomplete request\n", true);
    }
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    if !words.next().is_some_and(|v| v.starts_with("HTTP/1.")) || words.next().is_some() {
        return reply("400 Bad Request", plain, "bad request\n", true);
    }
    if !matches!(method, "GET" | "HEAD") {
        return reply("405 Method Not Allowed", plain, "GET or HEAD\n", true);
    }
    let path = target.split('?').next().unwrap_or("");
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match path {
        "/metrics" => reply("200 OK", kind, body, method == "GET"),
        "/" => reply("200 OK", plain, "shmtop: see /metrics\n", method == "GET"),
        _ => reply("404 Not Found", plain, "see /metrics\n", method == "GET"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &[u8]) -> String {
        respond(head, "x 1\n")
            .lines()
            .next()
            .unwrap_or("")
            .to_owned()
    }

    #[test]
    fn requests_get_what_they_deserve() {
        assert_eq!(
            status(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"),
            "HTTP/1.1 200 OK"
        );
        assert_eq!(
            status(b"GET /other HTTP/1.1\r\n\r\n"),
            "HTTP/1.1 404 Not Found"
        );
        assert_eq!(
            status(b"POST /metrics HTTP/1.1\r\n\r\n"),
            "HTTP/1.1 405 Method Not Allowed"
        );
        assert_eq!(status(b"\xff\xfe\r\n\r\n"), "HTTP/1.1 400 Bad Request");
        assert_eq!(status(b"GET /metrics HTT"), "HTTP/1.1 408 Request Timeout");
        assert!(status(&vec![b'a'; MAX_HEAD + 1]).contains("431"));
    }

    #[test]
    fn head_has_the_length_and_no_body() {
        let r = respond(b"HEAD /metrics HTTP/1.0\r\n\r\n", "x 1\n");
        assert!(
            r.contains("Content-Length: 4\r\n") && r.ends_with("\r\n\r\n"),
            "{r}"
        );
    }
}
