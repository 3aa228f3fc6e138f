//! Rules about waiting: sleeps that last too long, spins and yields that bring nothing.

use transport::config::{MAX_RUNG, PolicyKind};
use transport::stats::Role;

use super::fix::WAIT_WELL;
use super::ring::client_pid;
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::{Client, Endpoint, WaitView};
use crate::reading::{Reading, Why};
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[OVERSLEEP, IDLE_BURN, SLEEP_ON_PATH, YIELD_STORM];

rule! {
    /// nanosleep(1 µs) lasts 70–75 µs with the default timer slack of 50 µs and about 15 µs with a slack of 1 ns. Only sleeps
    /// that asked for a time can oversleep: a park lasts until it is woken. The comparison is by median, and only where sleeping
    /// is how waits end. What slack another thread has only CAP_SYS_NICE may read, which shmtop gives up.
    OVERSLEEP = "oversleep", Warn, "sleeps last much longer than asked";
    fires: "the median sleep lasts more than 3 × what was asked, and more than 5 % of the waits end in a sleep";
    quiet: "the connection is idle, or the policy parks";
    fix: "PR_SET_TIMERSLACK 1, or park instead of sleep";
    once: true;
    check: Endpoint(oversleep);
}

fn oversleep(_: &Context<'_>, e: &Endpoint) -> Answer {
    if e.totals.requests_per_s.clone()? < 1.0 {
        return QUIET;
    }
    let own = e.clients.iter().filter(|_| e.role == Role::Client);
    let waits = e
        .pollers
        .iter()
        .map(|p| &p.wait)
        .chain(own.filter_map(|c| c.wait.as_ref().ok()));
    for wait in waits {
        let (Ok(asked), Ok(ended), Ok(slept)) =
            (&wait.asked_sleep_ns, &wait.ended, &wait.park.interval)
        else {
            continue;
        };
        if ended[2] <= 0.05 || slept.p50 <= asked.saturating_mul(3) {
            continue;
        }
        return Fire::new(
            format!(
                "{} (pid {}) asks for sleeps of {} and gets {} (the default timer slack is 50 µs)",
                e.name,
                e.pid,
                text::ns(*asked),
                text::ns(slept.p50)
            ),
            format!(
                "restart pid {} with {WAIT_WELL}; or prctl(PR_SET_TIMERSLACK, 1) in its thread",
                e.pid
            ),
        )
        .number(
            "sleep, median",
            slept.p50 as f64,
            "ns",
            "stats page: park_ns",
            format!("> {}", asked.saturating_mul(3)),
        )
        .number(
            "asked for",
            *asked as f64,
            "ns",
            "stats page: asked_sleep_ns",
            "",
        )
        .number(
            "waits ended by a sleep",
            ended[2] * 100.0,
            "%",
            "stats page: ended_sleep",
            "> 5",
        )
        .fires();
    }
    QUIET
}

rule! {
    /// Busy-spinning is a choice (policy `spin`) and then it is not reported. Anything else is meant to give the core back
    /// when there is little to do. CPU time is what the scheduler says the thread used, so a spin that was preempted does not
    /// count.
    IDLE_BURN = "idle-burn", Warn, "a waiter burns a core for almost no traffic";
    fires: "spins and yields use more than half a core at fewer than 1000 messages per second";
    quiet: "policy spin, chosen explicitly";
    fix: "Config::wait = Adaptive or Park (exchange, trader: --wait)";
    explains: ["yield-storm"];
    once: true;
    check: Endpoint(idle_burn);
}

fn idle_burn(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let mut unknown = None;
    for w in ctx.waiters_of(e) {
        if w.policy == PolicyKind::Spin || w.messages_per_s >= 1000.0 || w.spin + w.yielding <= 0.5
        {
            continue;
        }
        let cpu = match w.thread.map(|t| t.cpu.clone()) {
            Some(Ok(cpu)) => cpu,
            Some(Err(why)) => {
                unknown = Some(why);
                continue;
            }
            None => {
                unknown = Some(Why::not_there("its thread can't be read"));
                continue;
            }
        };
        if cpu <= 0.5 {
            continue;
        }
        return Fire::new(
            format!(
                "{} uses {cpu:.2} core for {} msg/s (policy {})",
                w.name(),
                text::count(w.messages_per_s),
                w.policy.name()
            ),
            format!("restart pid {} with {WAIT_WELL}", e.pid),
        )
        .number(
            "CPU",
            cpu * 100.0,
            "%",
            format!("/proc/{}/task/{}/schedstat", e.pid, w.tid),
            "> 50",
        )
        .number(
            "spin and yield",
            (w.spin + w.yielding) * 100.0,
            "%",
            "stats page: spin_ns, yield_ns",
            "> 50",
        )
        .number(
            "messages",
            w.messages_per_s,
            "1/s",
            "stats page: tx_messages, rx_messages",
            "< 1000",
        )
        .fires();
    }
    unknown.map_or(QUIET, Err)
}

rule! {
    /// If requests come just after the spin budget is used up, each of them pays for a sleep and a wake-up. It is a trade of
    /// CPU for latency, so it is info; where it was chosen (policy `park`) it is quiet. And where a sleep lasts ten wake-ups (of 50 µs, which a
    /// halted virtual CPU takes) it is the server that is waited for, and sleeping is right. So it is where a round trip takes
    /// several sleeps, or has others in flight before it: one wake-up is a small part of that.
    SLEEP_ON_PATH = "sleep-on-path", Info, "replies arrive just after the waiter went to sleep";
    fires: "more than 5 % of the waits end in a sleep, the median sleep lasts 500 µs at most and half a median round trip at least, and p99 is at least one sleep";
    quiet: "policy park, almost no traffic, a server that takes its time, or round trips of several sleeps, as with requests in flight";
    fix: "raise the spin budget to the gap";
    once: true;
    check: Client(sleep_on_path);
}

/// Of a sleep that is longer, the wake-up is a small part.
const LONG_SLEEP_NS: u64 = 500_000;

/// How many spins last so long, by what a spin was seen to cost; a `pause` takes 25 ns or more where nothing was seen.
fn spins_for((share, rate): &(Reading<f64>, Reading<f64>), ns: u64) -> u64 {
    const PAUSE_NS: f64 = 25.0;
    let seen = match (share, rate) {
        (Ok(share), Ok(rate)) if *rate > 0.0 && *share > 0.0 => share * 1e9 / rate,
        _ => PAUSE_NS,
    };
    (ns as f64 / seen.max(1.0)).ceil() as u64
}

fn sleep_on_path(_: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let wait: WaitView = c.wait.clone()?;
    if wait.policy == PolicyKind::Park || wait.crowded || c.requests_per_s.clone()? < 100.0 {
        return QUIET;
    }
    let wait_costs = (wait.spin_share.clone(), wait.spins_per_s.clone());
    let (Ok(ended), Ok(park), Ok(rtt)) = (wait.ended, wait.park.interval, c.rtt.interval.clone())
    else {
        return QUIET;
    };
    let far_between = rtt.p50 > park.p50.saturating_mul(2);
    if ended[2] <= 0.05 || rtt.p99 < park.p50 || park.p50 > LONG_SLEEP_NS || far_between {
        return QUIET;
    }
    let spins = spins_for(&wait_costs, rtt.p90).min(MAX_RUNG.into());
    Fire::new(
        format!(
            "{} of the waits of client {} (pid {}) end in a sleep; p99 {}, a sleep lasts {}",
            text::percent(ended[2]),
            c.number,
            client_pid(e, c),
            text::ns(rtt.p99),
            text::ns(park.p50)
        ),
        format!(
            "if a core is free, start it with Config::wait = Ladder of {spins} spins (exchange, trader: --wait ladder --spin {spins}): p90 of the round trip, {}",
            text::ns(rtt.p90)
        ),
    )
    .number(
        "waits ended by a sleep",
        ended[2] * 100.0,
        "%",
        "stats page: ended_sleep",
        "> 5",
    )
    .number(
        "p99",
        rtt.p99 as f64,
        "ns",
        "stats page: rtt_ns",
        format!(">= {}", park.p50),
    )
    .fires()
}

rule! {
    /// The adaptive policy yields a few times per message when CPUs are short, and that is cheap and fair. A storm is many yields
    /// *per message*: threads that pass the CPU around without having work. So besides the rate and the kernel's share
    /// it takes ten yields for each message moved.
    YIELD_STORM = "yield-storm", Warn, "threads pass the CPU around";
    fires: "more than 100,000 yields per second, more than 10 for each message, and system time above 30 %";
    quiet: "yields that find work, or nobody else wants the core";
    fix: "a ladder of fewer yields in Config::wait (exchange, trader: --yield), or park";
    check: Endpoint(yield_storm);
}

fn yield_storm(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let waiters = ctx.waiters_of(e);
    let yields: f64 = waiters.iter().map(|w| w.yields_per_s).sum();
    let messages: f64 = waiters.iter().map(|w| w.messages_per_s).sum();
    if yields <= 100_000.0 || yields <= 10.0 * messages {
        return QUIET;
    }
    let system: Reading<f64> = e.process.system_share.clone();
    let system = system?;
    let wanted = waiters
        .iter()
        .filter_map(|w| w.run_delay())
        .fold(0.0, f64::max);
    if system <= 0.3 || wanted <= 0.01 {
        return QUIET;
    }
    Fire::new(
        format!(
            "{} (pid {}): {} sched_yield/s for {} messages/s, {} kernel time",
            e.name,
            e.pid,
            text::count(yields),
            text::count(messages),
            text::percent(system)
        ),
        format!(
            "restart pid {} with {WAIT_WELL}, or with fewer yields in its ladder (exchange, trader: --yield 3)",
            e.pid
        ),
    )
    .number(
        "yields",
        yields,
        "1/s",
        "stats page: yields",
        format!("> {:.0}", (10.0 * messages).max(100_000.0)),
    )
    .number(
        "system time",
        system * 100.0,
        "%",
        format!("/proc/{}/task/*/stat", e.pid),
        "> 30",
    )
    .fires()
}
