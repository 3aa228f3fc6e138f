//! What a flood of connections costs the clients that are there: `cargo run --release -p transport --example flood`.
//!
//! A server process that admits 64 clients, four of them busy; then a process that opens 500 connections as fast as it can and keeps them until the
//! window's end. Windows with and without the flood alternate, so that whatever else the machine does meets both.
//! Prints each pair, and at the end the median share of their throughput that the four keep, and their p99.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use transport::{Config, Membrane, Synapse};

const CLIENTS: usize = 4;
const FLOOD: usize = 500;
const PAIRS: usize = 10;
const WINDOW: Duration = Duration::from_secs(1);

type Anyhow<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Anyhow<()> {
    let args: Vec<String> = std::env::args().collect();
    match (args.get(1).map(String::as_str), args.get(2)) {
        (Some("server"), Some(dir)) => serve(Path::new(dir)),
        (Some("flooder"), Some(dir)) => flood(Path::new(dir)),
        _ => measure(),
    }
}

fn config(dir: &Path) -> Config {
    Config {
        name: "flood".into(),
        ring_bytes: 1 << 20,
        max_message_bytes: 64 << 10,
        max_clients: 64,
        stats_dir: Some(dir.join("stats")),
        ..Config::default()
    }
}

fn serve(dir: &Path) -> Anyhow<()> {
    let server = Membrane::bind(dir.join("s"), &config(dir), |request, reply| {
        // Cannot fail: a request is within the limit that replies have.
        let _ = reply.extend_from_slice(request);
    })?;
    println!("ready");
    // Until the parent ends, or ends us.
    std::io::stdin().lock().read_line(&mut String::new())?;
    server.shutdown();
    Ok(())
}

/// For each line on its input opens all connections; closes them at the next line.
fn flood(dir: &Path) -> Anyhow<()> {
    println!("ready");
    let mut lines = std::io::stdin().lock().lines();
    while let Some(line) = lines.next() {
        line?;
        let config = config(dir);
        let mut refused = 0;
        let held: Vec<Synapse> = (0..FLOOD)
            .filter_map(|_| {
                let it = Synapse::connect(dir.join("s"), &config);
                refused += usize::from(it.is_err());
                it.ok()
            })
            .collect();
        println!("{} {refused}", held.len());
        lines.next();
        drop(held);
        println!("closed");
    }
    Ok(())
}

struct Helper(Child, std::io::BufReader<std::process::ChildStdout>);

impl Helper {
    fn start(role: &str, dir: &Path) -> Anyhow<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(role)
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("no output")?;
        let mut helper = Self(child, std::io::BufReader::new(out));
        helper.hear()?;
        Ok(helper)
    }

    fn tell(&mut self) -> Anyhow<()> {
        Ok(writeln!(self.0.stdin.as_mut().ok_or("no input")?)?)
    }

    fn hear(&mut self) -> Anyhow<String> {
        let mut line = String::new();
        self.1.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Requests that the clients made within a window, and the p99 of their round trips in microseconds.
fn window(clients: &mut [Synapse], start: &Barrier) -> Anyhow<(u64, f64)> {
    let results: Vec<Anyhow<Vec<u32>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                scope.spawn(move || {
                    let request = [7; 64];
                    let mut times = Vec::with_capacity(1 << 20);
                    start.wait();
                    let end = Instant::now() + WINDOW;
                    loop {
                        let begun = Instant::now();
                        if begun > end {
                            return Ok(times);
                        }
                        if client.fire_bytes(&request)? != request {
                            return Err("a wrong reply".into());
                        }
                        times.push(begun.elapsed().as_nanos().min(u32::MAX.into()) as u32);
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| Err("panicked".into())))
            .collect()
    });
    let mut all = Vec::new();
    for times in results {
        all.extend(times?);
    }
    let at = all.len() * 99 / 100;
    let (_, p99, _) = all.select_nth_unstable(at);
    let p99 = f64::from(*p99) / 1000.0;
    Ok((all.len() as u64, p99))
}

fn measure() -> Anyhow<()> {
    let dir: PathBuf = std::env::temp_dir().join(format!("flood-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let done = measure_in(&dir);
    std::fs::remove_dir_all(&dir)?;
    done
}

fn measure_in(dir: &Path) -> Anyhow<()> {
    let _server = Helper::start("server", dir)?;
    let mut flooder = Helper::start("flooder", dir)?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Synapse::connect(dir.join("s"), &config(dir))?);
    }
    let alone = Barrier::new(CLIENTS);
    window(&mut clients, &alone)?;
    let (mut kept, mut p99s) = (Vec::new(), Vec::new());
    for pair in 1..=PAIRS {
        let (quiet, quiet_p99) = window(&mut clients, &alone)?;
        flooder.tell()?;
        let (flooded, flooded_p99) = window(&mut clients, &alone)?;
        let heard = flooder.hear()?;
        flooder.tell()?;
        flooder.hear()?;
        let share = 100.0 * flooded as f64 / quiet as f64;
        println!(
            "pair {pair}: {quiet} requests without, {flooded} with a flood ({heard} let in and refused): {share:.1} %, p99 {quiet_p99:.1} and {flooded_p99:.1} µs"
        );
        kept.push(share);
        p99s.push(flooded_p99 / quiet_p99);
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "median of {PAIRS}: {:.1} % of the throughput kept, p99 times {:.2}",
        median(&mut kept),
        median(&mut p99s)
    );
    Ok(())
}
