//! One HTTP/1.1 request and its answer, from and to whoever connects.
//!
//! What a stranger may send is bounded: 8 KiB of request head, 2 s to send it, 5 s to take the answer, however it is dripped; so many
//! connections at a time; nothing kept alive. [`respond`] is pure: request head to whole response.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::report::Dialect;

/// Connections served at a time; a scrape takes milliseconds, so only slow ones add up.
pub(super) const MAX_CONNECTIONS: usize = 16;
/// Longest request head.
const MAX_HEAD: usize = 8 * 1024;
/// Time a client has to send its request.
const TO_ASK: Duration = Duration::from_secs(2);
/// Time a client has to take the answer.
const TO_TAKE: Duration = Duration::from_secs(5);

/// A document, made when it is first asked for: most looks are never scraped, and hardly one in both dialects.
type Body = LazyLock<String, Box<dyn FnOnce() -> String + Send>>;

/// The document that `make` makes.
pub(super) fn body(make: impl FnOnce() -> String + Send + 'static) -> Body {
    LazyLock::new(Box::new(make))
}

/// What there is to serve.
pub(super) struct Bodies {
    /// OpenMetrics.
    pub(super) open_metrics: Body,
    /// The Prometheus text format.
    pub(super) text: Body,
}

/// Reads a request and answers it.
pub(super) fn answer(mut stream: TcpStream, bodies: &Bodies) -> io::Result<()> {
    let head = read_head(&mut stream)?;
    let reply = respond(&head, bodies);
    let until = Instant::now() + TO_TAKE;
    write_until(&mut stream, reply.head.as_bytes(), until)?;
    write_until(&mut stream, reply.body.as_bytes(), until)?;
    stream.shutdown(Shutdown::Write)?;
    // Closing with unread bytes resets the connection, and the answer may be lost with it: a little of what follows is read away.
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut rest = [0; 1024];
    for _ in 0..8 {
        if stream.read(&mut rest)? == 0 {
            break;
        }
    }
    Ok(())
}

/// For one connection too many; never waits.
pub(super) fn turn_away(stream: &TcpStream) {
    // It gets the sentence if its socket has room, which a new one has.
    let _ = stream.set_nonblocking(true);
    let reply = Reply::new("503 Service Unavailable", PLAIN, "too many connections\n");
    let _ = (&mut &*stream).write_all((reply.head + reply.body).as_bytes());
}

fn write_until(stream: &mut TcpStream, mut bytes: &[u8], until: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn is_whole(head: &[u8]) -> bool {
    head.windows(4).any(|w| w == b"\r\n\r\n")
}

/// The request's head, up to its empty line, [`MAX_HEAD`] or [`TO_ASK`], whichever comes first.
fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let until = Instant::now() + TO_ASK;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while head.len() <= MAX_HEAD && !is_whole(&head) {
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

struct Reply<'b> {
    head: String,
    body: &'b str,
}

const PLAIN: &str = "text/plain; charset=utf-8";

impl<'b> Reply<'b> {
    fn new(status: &str, kind: &str, body: &'b str) -> Self {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        Self { head, body }
    }
}

/// Request head to response.
fn respond<'b>(head: &[u8], bodies: &'b Bodies) -> Reply<'b> {
    if head.len() > MAX_HEAD {
        let status = "431 Request Header Fields Too Large";
        return Reply::new(status, PLAIN, "too large\n");
    }
    if !is_whole(head) {
        return Reply::new("408 Request Timeout", PLAIN, "incomplete request\n");
    }
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or("").split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    if !words.next().is_some_and(|v| v.starts_with("HTTP/1.")) || words.next().is_some() {
        return Reply::new("400 Bad Request", PLAIN, "bad request\n");
    }
    if !matches!(method, "GET" | "HEAD") {
        return Reply::new("405 Method Not Allowed", PLAIN, "GET or HEAD\n");
    }
    let mut reply = match target.split('?').next().unwrap_or("") {
        "/metrics" => {
            let (dialect, body) = match wants_open_metrics(lines) {
                true => (Dialect::OpenMetrics, &bodies.open_metrics),
                false => (Dialect::Text, &bodies.text),
            };
            Reply::new("200 OK", dialect.content_type(), body)
        }
        "/" => Reply::new("200 OK", PLAIN, "shmtop: see /metrics\n"),
        _ => Reply::new("404 Not Found", PLAIN, "see /metrics\n"),
    };
    if method == "HEAD" {
        reply.body = "";
    }
    reply
}

/// What the Accept headers say. A Prometheus asks for OpenMetrics by name; who does not gets the format that every tool reads.
fn wants_open_metrics<'h>(mut headers: impl Iterator<Item = &'h str>) -> bool {
    headers.any(|line| {
        line.split_once(':').is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("accept") && value.split(',').any(takes_open_metrics)
        })
    })
}

/// Whether a part of an Accept header has it, with a quality above 0.
fn takes_open_metrics(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let quality = |p: &str| {
        p.strip_prefix("q=")
            .and_then(|q| q.trim().parse::<f32>().ok())
    };
    parts.next() == Some("application/openmetrics-text")
        && parts.find_map(quality).is_none_or(|q| q > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies() -> Bodies {
        Bodies {
            open_metrics: body(|| "x 1\n".into()),
            text: body(|| "text 1\n".into()),
        }
    }

    fn status(head: &[u8]) -> String {
        let bodies = bodies();
        let reply = respond(head, &bodies);
        reply.head.lines().next().unwrap_or("").to_owned()
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
    fn what_nobody_asks_for_is_not_made() {
        let bodies = Bodies {
            open_metrics: body(|| unreachable!("nobody asked for OpenMetrics")),
            ..bodies()
        };
        let reply = respond(b"GET /metrics HTTP/1.1\r\n\r\n", &bodies);
        assert_eq!(reply.body, "text 1\n");
    }

    #[test]
    fn head_has_the_length_and_no_body() {
        let bodies = bodies();
        let r = respond(b"HEAD /metrics HTTP/1.0\r\n\r\n", &bodies);
        assert!(r.head.contains("Content-Length: 7\r\n") && r.body.is_empty());
    }

    #[test]
    fn the_dialect_is_the_one_that_was_asked_for() {
        let bodies = bodies();
        let prometheus = b"GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1\r\n\r\n";
        let reply = respond(prometheus, &bodies);
        assert_eq!(reply.body, "x 1\n");
        assert!(
            reply
                .head
                .contains("application/openmetrics-text; version=1.0.0"),
            "{}",
            reply.head
        );
        let refuses = b"GET /metrics HTTP/1.1\r\nAccept: text/plain, application/openmetrics-text; version=1.0.0; q=0\r\n\r\n";
        assert_eq!(respond(refuses, &bodies).body, "text 1\n");
        let curl = respond(b"GET /metrics HTTP/1.1\r\nAccept: */*\r\n\r\n", &bodies);
        assert_eq!(curl.body, "text 1\n");
        assert!(
            curl.head.contains("text/plain; version=0.0.4"),
            "{}",
            curl.head
        );
    }
}
