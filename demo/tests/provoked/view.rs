//! What shmtop can't see, and pages and paths that are not what they seem.

use std::os::unix::net::UnixListener;

use transport::stats::schema::{self, header};

use crate::common::Place;
use crate::connection::{for_nobody, root, start};
use crate::doctor::{ask, ask_as, is_well, names};
use crate::page::Page;
use crate::{Outcome, Provocation, together};

pub(crate) const PROVOCATIONS: &[Provocation] = &[
    together("viewer-blind", viewer_blind),
    together("perf-denied", perf_denied),
    together("no-pmu", no_pmu),
    together("viewer-cost", viewer_cost),
    together("stolen-path", stolen_path),
    together("debug-build", debug_build),
    together("layout-mismatch", layout_mismatch),
];

/// Nobody looks at nobody's exchange, and at one of root's.
fn viewer_blind(place: &Place) -> Outcome {
    root()?;
    let other = place.dir().join("other.sock");
    let rooted = place.exchange(&format!("--socket {}", other.display()));
    for_nobody(place);
    let exchange = start(place, "nobody exchange");
    let _mine = start(place, "nobody client plain");
    let args = format!("-p {} -p {}", exchange.pid(), rooted.pid());
    ask_as(place, "nobody", &args)
        .first("viewer-blind", "info")
        .says("cannot read")
        .fix("sudo shmtop")
        .number("processes not readable", |n| n >= 1.0);
    drop(rooted);
    is_well(place, exchange.pid(), "viewer-blind");
    Ok(())
}

/// What a container's seccomp profile says to perf_event_open.
fn perf_denied(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let _client = start(place, "client plain");
    let args = format!("-p {}", exchange.pid());
    let level = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    let level: i64 = level.expect("Linux").trim().parse().expect("a number");
    ask_as(place, "noperf", &args)
        .first("perf-denied", "info")
        .says("CAP_PERFMON")
        .fix(match level {
            ..=2 => "perf_event_open",
            _ => "kernel.perf_event_paranoid=2",
        });
    is_well(place, exchange.pid(), "perf-denied");
    Ok(())
}

/// A virtual machine without counters.
fn no_pmu(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let _client = start(place, "client plain");
    // A hybrid CPU has one for each kind of core, and those of Arm are named after the core.
    let devices = std::fs::read_dir("/sys/bus/event_source/devices").map_err(|e| e.to_string())?;
    let mut pmus = devices
        .flatten()
        .map(|d| d.file_name().to_string_lossy().into_owned());
    let cores = ["cpu", "cpu_core", "cpu_atom"];
    if pmus.any(|n| cores.contains(&&*n) || n.starts_with("armv")) {
        return Err("this machine has a PMU".into());
    }
    names(place, exchange.pid(), "no-pmu", "info").fix("pmu=on");
    Ok(())
}

/// A viewer that looks as often as it can.
fn viewer_cost(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let _client = start(place, "client plain");
    ask(place, &format!("-p {} -d 1ms", exchange.pid()))
        .first("viewer-cost", "info")
        .fix("shmtop -d 2s")
        .number("CPU", |n| n > 2.0);
    Ok(())
}

/// Somebody else listens at the server's path.
fn stolen_path(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let pid = exchange.pid();
    std::fs::remove_file(place.socket()).expect("its socket");
    let thief = UnixListener::bind(place.socket()).expect("a free path");
    names(place, pid, "stolen-path", "crit")
        .says(format!("no longer leads to exchange (pid {pid})"))
        .fix(place.socket().display().to_string());
    drop((thief, exchange));
    let exchange = place.exchange("");
    is_well(place, exchange.pid(), "stolen-path");
    Ok(())
}

/// The build of this very test.
fn debug_build(place: &Place) -> Outcome {
    if !cfg!(debug_assertions) {
        return Err("this is a release build".into());
    }
    let exchange = place.exchange("");
    names(place, exchange.pid(), "debug-build", "warn")
        .says(format!("(pid {}) is a debug build", exchange.pid()))
        .fix("cargo build --release")
        .word("build", "debug");
    Ok(())
}

/// A page whose layout has another major version.
fn layout_mismatch(place: &Place) -> Outcome {
    root()?;
    let exchange = place.exchange("");
    let second = place.dir().join("second");
    std::fs::create_dir(&second).expect("our directory");
    let other = place.exchange(&format!("--socket {}", second.join("s").display()));
    let page = Page::of(other.pid());
    let major = u64::from(schema::VERSION_MAJOR + 1);
    page.write(8 * header::VERSION as u64, major << 32);
    let both = format!("-p {} -p {} --for 7s", exchange.pid(), other.pid());
    ask(place, &both)
        .first("layout-mismatch", "warn")
        .says(format!(
            "the page of pid {} has layout {major}.0",
            other.pid()
        ))
        .fix(format!("/proc/{}/exe", other.pid()))
        .number("page", |n| n == major as f64);
    drop(other);
    is_well(place, exchange.pid(), "layout-mismatch");
    Ok(())
}
