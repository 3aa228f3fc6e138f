//! The demo's processes: started in order, watched, and cleared away in every way out.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use transport::stats::registry::{default_dir, discover, ensure_dir};

use super::{EXCHANGE, Options, TRADER, cast};
use crate::children::{Child, end_all};
use crate::failure::{FAULT, Failure, PEER_DIED};
use crate::signals;

/// How long the exchange may take to listen.
const LISTENING: Duration = Duration::from_secs(5);

/// The exchange and the traders. Dropping it ends them.
///
/// The order of the fields is the order in which a panic clears them away.
pub(super) struct Stage {
    traders: Vec<Child>,
    exchange: Child,
    /// Who has ended, in the order in which it was seen.
    told: Vec<Ended>,
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
        let mut exchange = start(&common(EXCHANGE), Stdio::piped())?;
        wait_until_listening(&mut exchange)?;
        let mut stage = Self {
            exchange,
            traders: Vec::new(),
            told: Vec::new(),
            socket,
        };
        for args in traders {
            stage.traders.push(start(&args, Stdio::null())?);
        }
        Ok(stage)
    }

    /// All that have ended, in a sentence, if one of them was not told of yet. Reaps them.
    pub(super) fn newly_ended(&mut self) -> Option<String> {
        self.see(Child::ended).then(|| sentence(&self.told))
    }

    /// Ends all: the traders first, so that none of them sees the exchange die. Returns what is to be said of who ended before, or
    /// meanwhile otherwise than asked to: the reason is in what it wrote.
    pub(super) fn clear(&mut self) -> Vec<String> {
        end_all(&mut self.traders);
        self.exchange.end();
        self.exchange.reap();
        self.socket.clear();
        self.see(Child::failed);
        let (named, others) = named(&self.told);
        let mut lines = Vec::new();
        for one in named {
            let (who, child) = match one.trader {
                None => ("the exchange".to_owned(), &mut self.exchange),
                Some(n) => (format!("trader {n}"), &mut self.traders[n - 1]),
            };
            let (pid, status, said) = (one.pid, one.status, last_words(child));
            lines.push(format!("{who} (pid {pid}) ended with {status}; {said}"));
        }
        if others > 0 {
            lines.push(format!("and {others} more"));
        }
        lines
    }

    /// Notes who has ended in this sense; was that somebody new?
    fn see(&mut self, has_ended: impl Fn(&mut Child) -> Option<ExitStatus>) -> bool {
        let known = self.told.len();
        let exchange = std::iter::once((None, &mut self.exchange));
        let traders = self.traders.iter_mut().enumerate();
        let traders = traders.map(|(i, child)| (Some(i + 1), child));
        for (trader, child) in exchange.chain(traders) {
            let pid = child.pid();
            if let Some(status) = has_ended(child)
                && self.told.iter().all(|t| t.pid != pid)
            {
                self.told.push(Ended {
                    trader,
                    pid,
                    status,
                });
            }
        }
        self.told.len() > known
    }
}

/// A child that has ended.
struct Ended {
    /// Its number; `None` is the exchange.
    trader: Option<usize>,
    pid: u32,
    status: ExitStatus,
}

/// Who has ended, in the order in which it was seen: the first is the likely cause and stays in the sentence, as does the exchange, without
/// which no trader goes on; the others are counted. There is one at least.
fn sentence(ended: &[Ended]) -> String {
    let mut text = String::new();
    let mut others = 0;
    for (i, one) in ended.iter().enumerate() {
        let who = match one.trader {
            None => "the exchange".to_owned(),
            Some(n) if i == 0 => format!("trader {n}"),
            Some(_) => {
                others += 1;
                continue;
            }
        };
        let (then, did) = if i == 0 {
            ("", "ended ")
        } else {
            (", then ", "")
        };
        text += &format!("{then}{who} (pid {}) {did}with {}", one.pid, one.status);
    }
    match (others, ended[0].trader) {
        (0, _) => {}
        (1, None) => text += ", and 1 trader",
        (n, None) => text += &format!(", and {n} traders"),
        (1, Some(_)) => text += ", and 1 other trader",
        (n, Some(_)) => text += &format!(", and {n} other traders"),
    }
    text
}

/// Who is named in the last words, and how many more there are: all that failed by themselves, the first, and the exchange. Traders that gave
/// up because the exchange was gone, or ended well, are counted.
fn named(told: &[Ended]) -> (Vec<&Ended>, usize) {
    const NAMED: usize = 8;
    let exchange_too = told.iter().any(|one| one.trader.is_none());
    let follows = |one: &Ended| {
        let gave_up = exchange_too && one.status.code() == Some(i32::from(PEER_DIED));
        one.trader.is_some() && (gave_up || one.status.success())
    };
    let (first, rest) = told.split_at(1.min(told.len()));
    let rest = rest.iter().filter(|one| !follows(one));
    let named: Vec<_> = first.iter().chain(rest).take(NAMED).collect();
    let others = told.len() - named.len();
    (named, others)
}

/// Starts a role, which comes first.
fn start(args: &[OsString], stdout: Stdio) -> Result<Child, Failure> {
    let (role, args) = args.split_at(1.min(args.len()));
    Child::start(role, args, stdout)
}

fn last_words(child: &mut Child) -> String {
    match child.said() {
        nothing if nothing.is_empty() => "it said nothing".to_owned(),
        said => format!("its last words: {said}"),
    }
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
    let why = match exchange.failed() {
        Some(status) => format!("it ended with {status}"),
        None => "it did not get to listen".to_owned(),
    };
    let said = last_words(exchange);
    Err(Failure::new(
        FAULT,
        format!("the exchange did not start: {why}; {said}"),
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

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::time::Instant;

    use super::*;

    impl Stage {
        /// An exchange and traders that have ended, and nobody knows it yet: the test program refuses their command line.
        pub(crate) fn of_ended(traders: usize) -> Self {
            let start = || Child::start(&[], &["--no-such-option".into()], Stdio::null());
            let mut stage = Self {
                exchange: start().expect("it starts"),
                traders: Vec::new(),
                told: Vec::new(),
                socket: Socket(std::env::temp_dir().join("no-such-place/demo.sock")),
            };
            for _ in 0..traders {
                stage.traders.push(start().expect("it starts"));
            }
            let began = Instant::now();
            let mut all = || {
                stage.exchange.ended().is_some()
                    && stage.traders.iter_mut().all(|t| t.ended().is_some())
            };
            while !all() {
                assert!(began.elapsed() < Duration::from_secs(60), "they don't end");
                std::thread::sleep(Duration::from_millis(5));
            }
            stage
        }
    }

    fn gone(trader: impl Into<Option<usize>>, status: i32) -> Ended {
        let trader = trader.into();
        Ended {
            trader,
            pid: 100 + trader.unwrap_or(0) as u32,
            status: ExitStatus::from_raw(status),
        }
    }

    #[test]
    fn who_ended_first_and_the_exchange_stay_in_the_sentence() {
        const GAVE_UP: i32 = 6 << 8;
        let killed = "the exchange (pid 100) ended with signal: 9 (SIGKILL)";
        assert_eq!(sentence(&[gone(None, 9)]), killed);
        let mut all = vec![gone(None, 9), gone(1, GAVE_UP)];
        assert_eq!(sentence(&all), format!("{killed}, and 1 trader"));
        all.extend((2..=16).map(|n| gone(n, GAVE_UP)));
        assert_eq!(sentence(&all), format!("{killed}, and 16 traders"));

        let killed = "trader 3 (pid 103) ended with signal: 9 (SIGKILL)";
        let mut all = vec![gone(3, 9)];
        assert_eq!(sentence(&all), killed);
        all.push(gone(7, GAVE_UP));
        assert_eq!(sentence(&all), format!("{killed}, and 1 other trader"));
        all.extend([gone(None, 11), gone(8, GAVE_UP)]);
        let both = format!("{killed}, then the exchange (pid 100) with signal: 11 (SIGSEGV)");
        assert_eq!(sentence(&all), format!("{both}, and 2 other traders"));
    }

    #[test]
    fn the_last_words_name_who_failed_and_count_who_followed() {
        const GAVE_UP: i32 = 6 << 8;
        let who = |told: &[Ended]| {
            let (named, others) = named(told);
            let traders: Vec<_> = named.iter().map(|one| one.trader).collect();
            (traders, others)
        };
        assert_eq!(who(&[]), (vec![], 0));
        let killed = [gone(None, 9), gone(1, GAVE_UP), gone(2, GAVE_UP)];
        assert_eq!(who(&killed), (vec![None], 2));
        // A trader's crash is not hidden behind the exchange's, nor the other way round.
        let crashes = [gone(3, 0), gone(4, 0), gone(5, 11), gone(None, 11)];
        assert_eq!(who(&crashes), (vec![Some(3), Some(5), None], 1));
        // Nobody else is gone that they could have given up for.
        let all = [gone(1, GAVE_UP), gone(2, GAVE_UP)];
        assert_eq!(who(&all), (vec![Some(1), Some(2)], 0));
        let many: Vec<_> = (1..=512).map(|n| gone(n, 9)).collect();
        assert_eq!(named(&many).1, 504);
    }
}
