//! What the trader prints: the line of each second, and the summary for people or for programs.
//!
//! Pure: values in, text out. Throughput counts both directions: a reply is as long as its request in every mode.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use transport::stats::Histogram;

use crate::load::{Account, Plan, Way};
use crate::units::{show_count, show_ns};

/// The `--json` object. Times that were never measured are null.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) clients: usize,
    pub(crate) mode: &'static str,
    pub(crate) size: usize,
    /// From the common start to the last client's end.
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    pub(crate) rps: f64,
    pub(crate) mib_per_s: f64,
    pub(crate) rtt_ns: Percentiles,
    pub(crate) shm_clients: usize,
    pub(crate) socket_clients: usize,
    pub(crate) errors: u64,
    pub(crate) corrupt: u64,
    /// Of the trader's processes, user and kernel, from the start on.
    pub(crate) cpu_seconds: f64,
    /// Requests of the slowest client over those of the fastest; null when nobody got an answer.
    pub(crate) fairness: Option<f64>,
}

/// Of all requests, in ns.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: Option<u64>,
    pub(crate) p99: Option<u64>,
    pub(crate) p999: Option<u64>,
    pub(crate) max: Option<u64>,
}

/// Which way each client is connected, or was last, by its number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ways(pub(crate) BTreeMap<usize, Way>);

impl Ways {
    fn shm(&self) -> usize {
        self.0.values().filter(|way| way.shm).count()
    }

    /// The others, each with the reason if it had wanted shared memory.
    fn socket(&self) -> impl Iterator<Item = Option<&str>> {
        let socket = self.0.values().filter(|way| !way.shm);
        socket.map(|way| way.why.as_deref())
    }
}

impl Summary {
    pub(crate) fn new(
        plan: &Plan,
        ways: &Ways,
        accounts: &[Account],
        seconds: f64,
        cpu_seconds: f64,
    ) -> Self {
        let requests = accounts.iter().map(|a| a.requests).sum();
        let mut rtt = Histogram::default();
        accounts.iter().for_each(|a| rtt.merge(&a.rtt));
        let rps = if seconds > 0.0 {
            requests as f64 / seconds
        } else {
            0.0
        };
        let least = accounts.iter().map(|a| a.requests).min().unwrap_or(0);
        let most = accounts.iter().map(|a| a.requests).max().unwrap_or(0);
        Self {
            clients: plan.clients,
            mode: plan.mode.name(),
            size: plan.size,
            seconds,
            requests,
            rps,
            mib_per_s: mib_per_s(rps, plan.size),
            rtt_ns: Percentiles {
                p50: rtt.quantile(0.5),
                p99: rtt.quantile(0.99),
                p999: rtt.quantile(0.999),
                max: (requests > 0).then_some(rtt.max_ns),
            },
            shm_clients: ways.shm(),
            socket_clients: ways.socket().count(),
            errors: accounts.iter().map(|a| a.errors).sum(),
            corrupt: accounts.iter().map(|a| a.corrupt).sum(),
            cpu_seconds: cpu_seconds + accounts.iter().map(|a| a.cpu_seconds).sum::<f64>(),
            fairness: (most > 0).then(|| least as f64 / most as f64),
        }
    }

    /// For people; several lines.
    pub(crate) fn text(&self, plan: &Plan) -> String {
        let time = |ns: Option<u64>| ns.map_or_else(|| "–".to_owned(), show_ns);
        let mut text = String::new();
        // Writing to a String can't fail.
        let mut line = |name: &str, value: String| _ = writeln!(text, "  {name:<10} {value}");
        line(
            "clients",
            format!(
                "{} ({} on shared memory, {} on the socket), {} {} B, depth {}",
                self.clients,
                self.shm_clients,
                self.socket_clients,
                self.mode,
                self.size,
                plan.depth
            ),
        );
        line(
            "requests",
            format!(
                "{} in {:.2} s: {} /s, {:.2} MB/s both ways",
                show_count(self.requests),
                self.seconds,
                show_count(self.rps.round() as u64),
                self.mib_per_s
            ),
        );
        line(
            "latency",
            format!(
                "p50 {}   p99 {}   p99.9 {}   max {}",
                time(self.rtt_ns.p50),
                time(self.rtt_ns.p99),
                time(self.rtt_ns.p999),
                time(self.rtt_ns.max)
            ),
        );
        line(
            "fairness",
            self.fairness.map_or_else(
                || "– no client got an answer".to_owned(),
                |f| format!("{f:.2} (slowest client / fastest)"),
            ),
        );
        line(
            "cpu",
            format!(
                "{:.2} s of the trader: {:.2} cores",
                self.cpu_seconds,
                self.cpu_seconds / self.seconds.max(f64::MIN_POSITIVE)
            ),
        );
        line(
            "verified",
            format!("{} corrupt, {} errors", self.corrupt, self.errors),
        );
        text
    }
}

fn mib_per_s(rps: f64, size: usize) -> f64 {
    rps * 2.0 * size as f64 / f64::from(1 << 20)
}

/// The line of a second.
pub(crate) fn second(requests: u64, seconds: f64, size: usize) -> String {
    let rps = requests as f64 / seconds;
    format!(
        "--> RPS: {:>6} | Throughput: {:.2} MB/s",
        rps.round(),
        mib_per_s(rps, size)
    )
}

/// What is said when all clients are connected: the benchmark's line if any is on shared memory, and who is not.
pub(crate) fn banner(ways: &Ways, clients: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let shm = ways.shm();
    if shm > 0 {
        lines.push("!! SHM UPGRADE SUCCESS (SPSC) !!".to_owned());
    }
    let mut reasons: Vec<(&str, usize)> = Vec::new();
    for why in ways.socket() {
        let why = why.unwrap_or("as asked");
        match reasons.iter_mut().find(|(known, _)| *known == why) {
            Some((_, n)) => *n += 1,
            None => reasons.push((why, 1)),
        }
    }
    for (why, n) in reasons {
        lines.push(if shm > 0 {
            format!("({shm} of {clients} clients, {n} on the socket: {why})")
        } else {
            format!("({n} of {clients} clients on the socket: {why})")
        });
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_printed_as_in_the_document() {
        assert_eq!(
            second(125_000, 1.0, 20_000),
            "--> RPS: 125000 | Throughput: 4768.37 MB/s"
        );
        assert_eq!(
            second(80_000, 1.0, 20_000),
            "--> RPS:  80000 | Throughput: 3051.76 MB/s"
        );
        assert_eq!(
            second(55_000, 0.5, 20_000),
            "--> RPS: 110000 | Throughput: 4196.17 MB/s"
        );
    }

    #[test]
    fn the_banner_says_who_fell_back_and_why() {
        let way = |shm, why: Option<&str>| Way {
            shm,
            why: why.map(str::to_owned),
        };
        let mut ways = Ways((0..16).map(|n| (n, way(true, None))).collect());
        assert_eq!(banner(&ways, 16), ["!! SHM UPGRADE SUCCESS (SPSC) !!"]);
        let full = way(false, Some("memfd_create → EMFILE, 64/64"));
        ways.0.insert(3, full);
        assert_eq!(
            banner(&ways, 16)[1],
            "(15 of 16 clients, 1 on the socket: memfd_create → EMFILE, 64/64)"
        );
        let mut ways = Ways::default();
        ways.0.extend((0..2).map(|n| (n, way(false, None))));
        assert_eq!(
            banner(&ways, 2),
            ["(2 of 2 clients on the socket: as asked)"]
        );
    }
}
