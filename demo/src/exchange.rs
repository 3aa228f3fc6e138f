//! The exchange: a `Membrane` whose handler answers pings, payloads and orders.
//!
//! Run by `bin/exchange` and, as a child process, by the demo. The content of messages is `crate::protocol`'s.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Parser;
use transport::stats::registry::ensure_dir;
use transport::{Membrane, Reply};

use crate::failure::Failure;
use crate::options::{CommonOptions, parse};
use crate::protocol::answer;
use crate::signals;
use crate::units::parse_duration;

/// Answers traders until it is told to end.
#[derive(Parser)]
#[command(name = "exchange", version)]
struct Options {
    #[command(flatten)]
    common: CommonOptions,
    /// End after this time [default: when told to]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Clients admitted at most
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_clients: usize,
    /// Threads that serve all clients together; 0: one, and one for each CPU or client while that answers sooner
    #[arg(long, value_name = "N", default_value_t = 0)]
    workers: usize,
    /// A thread for each client instead; good only while clients are fewer than CPUs
    #[arg(long)]
    thread_per_client: bool,
    /// The handler sleeps so long for each request, as one that waits for a disk would
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    work: Option<Duration>,
    /// The handler computes so long for each request and keeps its CPU busy
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    work_spin: Option<Duration>,
    /// A request may take so long in the handler and nobody calls it stuck [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    long_handler: Option<Duration>,
}

/// Runs the exchange with a command line (its first word is the program's name).
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    crate::exit("exchange", run(&args).map(|()| 0))
}

fn run(args: &[OsString]) -> Result<(), Failure> {
    let Some(options) = parse::<Options>(args)? else {
        return Ok(());
    };
    let (end, ended) = mpsc::channel();
    let on_signal = end.clone();
    // A send fails only once the receiver, and with it the program's work, has gone.
    signals::on_signal(move || _ = on_signal.send("a signal"))?;
    if let Some(parent) = options.common.parent {
        signals::tie_to(parent, |_| (), move || _ = end.send("its parent"))?;
    }
    let started = Instant::now();
    let membrane = bind(&options)?;
    let line = format!("exchange: listening on {}\n", membrane.path().display());
    // Whether somebody reads it or not: it listens.
    let _ = crate::print(&mut std::io::stdout(), &line)?;
    let why = match options.duration {
        Some(duration) => ended.recv_timeout(duration).unwrap_or("its --duration"),
        // The signal thread holds a sender for as long as the process lives.
        None => ended.recv().unwrap_or("a lost signal thread"),
    };
    let clients = membrane.clients();
    membrane.shutdown();
    crate::note(format_args!(
        "exchange: ended by {why} after {:.1} s with {clients} client(s) connected, {:.2} s of CPU",
        started.elapsed().as_secs_f64(),
        crate::cpu::seconds()?,
    ));
    Ok(())
}

fn bind(options: &Options) -> Result<Membrane, Failure> {
    let mut config = options.common.config("exchange")?;
    config.max_clients = options.max_clients;
    config.workers = options.workers;
    config.thread_per_client = options.thread_per_client;
    config.long_handler = options.long_handler.unwrap_or_default();
    options.common.pin.exchange(options.workers)?;
    let socket = options.common.socket();
    if options.common.socket.is_none()
        && let Some(dir) = socket.parent()
    {
        ensure_dir(dir).map_err(|e| Failure::io(&dir.display().to_string(), &e))?;
    }
    let (work, work_spin) = (options.work, options.work_spin);
    let handler = move |request: &[u8], reply: &mut Reply| {
        if let Some(time) = work {
            std::thread::sleep(time);
        }
        if let Some(time) = work_spin {
            let until = Instant::now() + time;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        if let Err(e) = answer(request, reply) {
            reply.fail(e.to_string());
        }
    };
    Membrane::bind(&socket, &config, handler).map_err(|e| Failure::from(&e))
}
