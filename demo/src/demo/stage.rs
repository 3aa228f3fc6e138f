//! The demo's processes: started in order, watched, and cleared away in every way out.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::Duration;

use transport::stats::registry::{default_dir, discover, ensure_dir};

use super::{EXCHANGE, Options, TRADER, cast};
use crate::children::{Child, end_all};
use crate::failure::{FAULT, Failure};
use crate::signals;

/// How long the exchange may take to listen.
const LISTENING: Duration = Duration::from_secs(5);

/// The exchange and the traders. Dropping it ends them.
///
/// The order of the fields is the order in which a panic clears them away.
pub(super) struct Stage {
    traders: Vec<Child>,
    exchange: Child,
    /// Told of by [`Self::newly_ended`].
    told: HashSet<u32>,
    socket: Socket,
}

impl Stage {
    /// Starts everything; returns when the exchange listens and the traders are on their way.
    pub(super) fn set(options: &Options) -> Result<Self, Failure> {
        let dir = default_dir();
        ensure_dir(&dir).map_err(|e| Failure::io(&dir.display().to_string(), &e))?;
        let socket = Socket(dir.join(format!("demo-{}.sock", std::process::id())));
        let path = socket.0.clone();
        let wait = OsString::from(options.wait.name());
        let common = |role: &str| -> Vec<OsString> {
            vec![
                role.into(),
                "--socket".into(),
                path.clone().into(),
                "--wait".into(),
                wait.clone(),
            ]
        };
        let trader = |index| {
            let mut args = common(TRADER);
            args.extend(cast::arguments(options, index));
            args
        };
        let traders: Vec<_> = (0..options.clients as usize).map(trader).collect();
        // What none of them could do is a mistake of the command line, and nothing is started for it.
        for args in &traders {
            crate::trader::check(args)?;
        }
        let mut exchange = Child::start(&common(EXCHANGE), Stdio::piped())?;
        wait_until_listening(&mut exchange)?;
        let mut stage = Self {
            exchange,
            traders: Vec::new(),
            told: HashSet::new(),
            socket,
        };
        for args in traders {
            stage.traders.push(Child::start(&args, Stdio::null())?);
        }
        Ok(stage)
    }

    /// Is everybody still there? If not, who ended and with which words.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        ended("the exchange", &mut self.exchange)?;
        for (index, trader) in self.traders.iter_mut().enumerate() {
            ended(&format!("trader {}", index + 1), trader)?;
        }
        Ok(())
    }

    /// One that has ended and was not told of yet, in a sentence.
    pub(super) fn newly_ended(&mut self) -> Option<String> {
        let exchange = std::iter::once(("the exchange".to_owned(), &mut self.exchange));
        let traders = self.traders.iter_mut().enumerate();
        let traders = traders.map(|(i, child)| (format!("trader {}", i + 1), child));
        exchange.chain(traders).find_map(|(who, child)| {
            let status = child.ended()?;
            let pid = child.pid();
            self.told
                .insert(pid)
                .then(|| format!("{who} (pid {pid}) ended with {status}"))
        })
    }

    /// Ends all: the traders first, so that none of them sees the exchange die.
    pub(super) fn clear(&mut self) {
        end_all(std::mem::take(&mut self.traders));
        self.exchange.end();
        self.exchange.reap();
        self.socket.clear();
    }
}

fn ended(who: &str, child: &mut Child) -> Result<(), Failure> {
    let Some(status) = child.ended() else {
        return Ok(());
    };
    let pid = child.pid();
    let said = child.said();
    let said = if said.is_empty() {
        "it said nothing".to_owned()
    } else {
        format!("its last words: {said}")
    };
    Err(Failure::new(
        FAULT,
        format!("{who} (pid {pid}) ended with {status}; {said}"),
    ))
}

/// Waits for the exchange's one line, or for its end.
fn wait_until_listening(exchange: &mut Child) -> Result<(), Failure> {
    let Some(mut stdout) = exchange.take_stdout() else {
        return Err(Failure::new(FAULT, "the exchange has no stdout"));
    };
    let (line, came) = channel();
    signals::start("listening", move || {
        let mut text = String::new();
        // An error is an end like any other: without the line.
        _ = stdout.by_ref().take(4096).read_line(&mut text);
        _ = line.send(text);
    })?;
    let text = came.recv_timeout(LISTENING).unwrap_or_default();
    if text.starts_with("exchange: listening on ") {
        return Ok(());
    }
    exchange.end();
    exchange.reap();
    Err(Failure::new(
        FAULT,
        format!("the exchange did not start: {}", exchange.said()),
    ))
}

/// The exchange's socket path. Dropping it removes what processes that were killed have left in its directory; those
/// that ended in good order have done so themselves.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Socket {
    fn clear(&self) {
        let (Some(dir), Some(name)) = (self.0.parent(), self.0.file_name()) else {
            return;
        };
        // Sweeps the links of dead processes' pages. What can't be removed now, the next one to look will.
        _ = discover(dir);
        let Ok(entries) = fs::read_dir(dir) else {
            return;
        };
        for entry in entries.flatten() {
            let found = entry.file_name();
            if found
                .as_encoded_bytes()
                .starts_with(name.as_encoded_bytes())
            {
                _ = fs::remove_file(entry.path());
            }
        }
    }
}
