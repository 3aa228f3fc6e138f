//! Threads that don't get a core, or should not have it.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::common::{Place, wait_until};
use crate::connection::{root, start};
use crate::doctor::{is_well, names, well_without};
use crate::memory::Group;
use crate::{Look, Outcome, Provocation, alone, alone_at_first, in_pairs, kernel, together};

pub(crate) const PROVOCATIONS: &[Provocation] = &[
    alone("same-cpu", same_cpu),
    alone("oversubscribed", oversubscribed),
    alone("run-delay", run_delay),
    alone_at_first("outlier-client", outlier_client),
    in_pairs("cfs-throttled", cfs_throttled),
    alone("quota-below-spinners", quota_below_spinners),
    alone("rt-spinner", rt_spinner),
    alone("preempted-spinner", preempted_spinner),
    together("server-saturated", server_saturated),
];

/// The first two CPUs that we may use.
pub(crate) fn two_cpus() -> Result<[usize; 2], String> {
    let mine = sched_getaffinity(Pid::from_raw(0)).map_err(|e| e.to_string())?;
    let mut cpus = (0..CpuSet::count()).filter(|cpu| mine.is_set(*cpu).unwrap_or(false));
    match (cpus.next(), cpus.next()) {
        (Some(a), Some(b)) => Ok([a, b]),
        _ => Err("needs two CPUs".into()),
    }
}

/// Both ends on one CPU, both spinning.
fn same_cpu(place: &Place) -> Outcome {
    let [a, b] = two_cpus()?;
    let exchange = place.exchange(&format!("--wait spin --pin={a}"));
    let _trader = place.start(
        "trader",
        &format!("1 ping --wait spin --pin={a} --duration forever"),
    );
    names(place, exchange.pid(), "same-cpu", "crit")
        .says(format!("both pinned to CPU {a}"))
        .moves_or_says_that_none_is_idle(format!("taskset -cp {b} "))
        .number("spin", |n| n > 20.0);
    well_without("same-cpu");
    Ok(())
}

/// Five spinning threads that may all run on the same two CPUs.
fn oversubscribed(place: &Place) -> Outcome {
    let before = sched_getaffinity(Pid::from_raw(0)).map_err(|e| e.to_string())?;
    let mut both = CpuSet::new();
    for cpu in two_cpus()? {
        both.set(cpu).map_err(|e| e.to_string())?;
    }
    // What this thread starts inherits it.
    sched_setaffinity(Pid::from_raw(0), &both).map_err(|e| e.to_string())?;
    let exchange = place.exchange("--wait spin");
    let _trader = place.start("trader", "4 ping --wait spin --duration forever");
    sched_setaffinity(Pid::from_raw(0), &before).map_err(|e| e.to_string())?;
    names(place, exchange.pid(), "oversubscribed", "crit")
        .says("spinning threads share 2 CPUs")
        .fix("--wait adaptive")
        .number("spinning threads", |n| n > 2.0)
        .number("run delay, mean", |n| n > 1.0);
    well_without("oversubscribed");
    Ok(())
}

/// The thread of a trader that spins. Of one that has just begun, it is not yet the one that has used most CPU.
fn ring_thread(pid: i32) -> i32 {
    let used = |tid: i32| {
        let times = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat"));
        let run_ns = times.ok()?.split(' ').next()?.parse::<u64>().ok()?;
        Some((run_ns, tid))
    };
    let busiest = || {
        std::fs::read_dir(format!("/proc/{pid}/task"))
            .expect("a process of ours")
            .flatten()
            .filter_map(|t| used(t.file_name().to_str()?.parse().ok()?))
            .max()
            .expect("a thread")
    };
    wait_until("its thread spins", || busiest().0 > 100_000_000);
    busiest().1
}

/// Somebody else's busy loop on the client's CPU.
fn run_delay(place: &Place) -> Outcome {
    let [a, b] = two_cpus()?;
    let exchange = place.exchange(&format!("--pin={a}"));
    let mut trader = place.start(
        "trader",
        &format!("1 ping --wait spin --pin={b} --duration forever"),
    );
    trader.line();
    let hog = start(place, &format!("hog {b}"));
    let tid = ring_thread(trader.pid());
    names(place, trader.pid(), "run-delay", "warn")
        .says(format!("(pid {}) thread {tid} waited", trader.pid()))
        // Where to is told only if another CPU is idle. Of two, the exchange has the other one.
        .fix("ps -eo pid,psr")
        .number("run delay", |n| n > 1.0)
        .number("other processes", |n| n > 0.35);
    drop(hog);
    is_well(place, trader.pid(), "run-delay");
    drop(exchange);
    Ok(())
}

/// One of five clients with the lowest priority, on CPUs that all are busy.
fn outlier_client(place: &Place) -> Result<Look, String> {
    let exchange = place.exchange("");
    let mut traders: Vec<_> = (0..5)
        .map(|_| place.start("trader", "1 ping --duration forever"))
        .collect();
    for trader in &mut traders {
        trader.line();
    }
    let slow = traders[0].pid();
    for task in std::fs::read_dir(format!("/proc/{slow}/task"))
        .expect("ours")
        .flatten()
    {
        let tid: i32 = task.file_name().to_string_lossy().parse().expect("a tid");
        kernel::nice(tid, 19).expect("lower is always allowed");
    }
    names(place, exchange.pid(), "outlier-client", "warn")
        .says(format!("(pid {slow}) is"))
        .says("its nice value is 19")
        .fix("renice -n 0 -p ");
    drop(traders);
    Ok(Box::new(move |place| {
        is_well(place, exchange.pid(), "outlier-client");
    }))
}

/// A tenth of a CPU for a server that wants a whole one.
fn cfs_throttled(place: &Place) -> Outcome {
    let group = Group::new("cpu", "throttled")?;
    group.set("cpu.cfs_period_us", 100_000);
    group.set("cpu.cfs_quota_us", 10_000);
    let exchange = place.exchange("--wait spin");
    let pid = exchange.pid();
    group.take(pid);
    let _client = start(place, "client plain");
    names(place, pid, "cfs-throttled", "crit")
        .says("the quota of 0.10 CPUs")
        .says(format!("(pid {pid})"))
        .fix(format!("{}/cpu.cfs_quota_us", group.path()))
        .number("periods stopped", |n| n >= 5.0)
        .explains("quota-below-spinners");
    group.set("cpu.cfs_quota_us", -1);
    is_well(place, pid, "cfs-throttled");
    drop(exchange);
    Ok(())
}

/// One worker for four clients, and a handler that blocks: no CPU is busy, and its time is used up.
fn server_saturated(place: &Place) -> Outcome {
    let exchange = place.exchange("--workers 1 --wait park --work 2ms");
    let trader = place.start("trader", "4 ping --wait park --duration forever");
    let pid = exchange.pid();
    names(place, pid, "server-saturated", "warn")
        .says(format!("(pid {pid}): thread"))
        .fix("--workers 2")
        .number("useful time", |n| n > 95.0);
    drop(trader);
    let _client = start(place, "client plain");
    is_well(place, pid, "server-saturated");
    drop(exchange);
    Ok(())
}

/// A client that spins for a third of the time, and a quota that lets it, but not one that spins all the time.
fn quota_below_spinners(place: &Place) -> Outcome {
    let group = Group::new("cpu", "quota")?;
    group.set("cpu.cfs_period_us", 100_000);
    group.set("cpu.cfs_quota_us", 50_000);
    let [a, b] = two_cpus()?;
    let exchange = place.exchange(&format!("--work 1ms --pin={a}"));
    let trader = place.start(
        "trader",
        &format!("1 ping --wait spin --pin={b} --rate 250 --duration forever"),
    );
    let pid = trader.pid();
    group.take(pid);
    names(place, pid, "quota-below-spinners", "info")
        .says(format!("(pid {pid}) has 1 spinning thread(s)"))
        .fix("Config::wait = Adaptive or Park")
        .number("quota", |n| n == 0.5);
    group.set("cpu.cfs_quota_us", -1);
    is_well(place, pid, "quota-below-spinners");
    drop((trader, exchange));
    Ok(())
}

/// A server that spins with real-time priority.
fn rt_spinner(place: &Place) -> Outcome {
    root()?;
    two_cpus()?;
    let exchange = place.exchange("--wait spin");
    let _client = start(place, "client plain");
    let pid = exchange.pid();
    let tid = ring_thread(pid);
    kernel::real_time(tid).map_err(|e| format!("sched_setscheduler: {e}"))?;
    names(place, pid, "rt-spinner", "crit")
        .says(format!("(pid {pid}) thread {tid} spins"))
        .fix(format!("chrt -o -p 0 {tid}"))
        .number("spin share", |n| n > 50.0);
    well_without("rt-spinner");
    Ok(())
}

/// Somebody who wants the client's CPU often, and never for long.
fn preempted_spinner(place: &Place) -> Outcome {
    let [a, b] = two_cpus()?;
    let exchange = place.exchange(&format!("--pin={a} --wait park --work 1ms"));
    let mut trader = place.start(
        "trader",
        &format!("1 ping --wait spin --pin={b} --duration forever"),
    );
    trader.line();
    let tid = ring_thread(trader.pid());
    let knocker = start(place, &format!("knocker {b}"));
    names(place, trader.pid(), "preempted-spinner", "info")
        .says(format!("thread {tid} was preempted"))
        .moves_or_says_that_none_is_idle(format!("taskset -cp {a} {tid}"))
        .number("involuntary switches", |n| n > 100.0);
    drop(knocker);
    is_well(place, trader.pid(), "preempted-spinner");
    drop(exchange);
    Ok(())
}
