//! Memory that runs out, or is not what was asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::Place;
use crate::connection::{root, start};
use crate::doctor::{ask, is_well, names};
use crate::{Look, Outcome, Provocation, alone_at_first, beside_all, together};

pub(crate) const PROVOCATIONS: &[Provocation] = &[
    beside_all("ring-oversized", ring_oversized),
    together("memcg-headroom", memcg_headroom),
    together("oom-killed", oom_killed),
    together("hugepage-short", hugepage_short),
    alone_at_first("faults-on-path", faults_on_path),
    alone_at_first("shmem-thp", shmem_thp),
];

/// A control group of our own, removed when dropped.
pub(crate) struct Group(PathBuf);

impl Group {
    /// Below the root of a controller of version 1; `Err` says why not.
    pub(crate) fn new(controller: &str, name: &str) -> Result<Self, String> {
        root()?;
        let root = Path::new("/sys/fs/cgroup").join(controller);
        if !root.join("cgroup.procs").exists() {
            return Err(format!("no cgroup v1 controller at {}", root.display()));
        }
        let dir = root.join(format!("provoked-{}-{name}", std::process::id()));
        fs::create_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(Self(dir))
    }

    pub(crate) fn set(&self, file: &str, value: impl ToString) {
        fs::write(self.0.join(file), value.to_string())
            .unwrap_or_else(|e| panic!("{}/{file}: {e}", self.0.display()));
    }

    pub(crate) fn take(&self, pid: i32) {
        self.set("cgroup.procs", pid);
    }

    pub(crate) fn path(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Whoever is in it has been killed and may take a moment to leave.
        let until = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A limit that the next client's rings would exceed.
fn memcg_headroom(place: &Place) -> Outcome {
    let group = Group::new("memory", "headroom")?;
    group.set("memory.limit_in_bytes", 48 << 20);
    let exchange = place.exchange("");
    let pid = exchange.pid();
    group.take(pid);
    names(place, pid, "memcg-headroom", "warn")
        .says(format!(
            "the next client of exchange (pid {pid}) needs 64 MiB"
        ))
        .fix(format!("tee {}/memory.limit_in_bytes", group.path()))
        .number("limit", |n| n == f64::from(48 << 20));
    group.set("memory.limit_in_bytes", 2u64 << 30);
    is_well(place, pid, "memcg-headroom");
    drop(exchange);
    Ok(())
}

/// A neighbour in the group eats what there is.
fn oom_killed(place: &Place) -> Outcome {
    let group = Group::new("memory", "oom")?;
    group.set("memory.limit_in_bytes", 64 << 20);
    let exchange = place.exchange("--ring-size 1MiB");
    let pid = exchange.pid();
    group.take(pid);
    let feast = place.dir().join("eat");
    let eater = start(place, &format!("eater {} {}", 256 << 20, feast.display()));
    group.take(eater.pid());
    let report = std::thread::scope(|s| {
        let watching = s.spawn(|| ask(place, &format!("-p {pid} --for 6s")));
        // Two looks at least before it happens: what grew is what counts.
        std::thread::sleep(Duration::from_millis(2500));
        fs::write(&feast, "").expect("our directory");
        watching.join().expect("doctor ends")
    });
    report
        .first("oom-killed", "crit")
        .says(format!("(pid {pid})"))
        .fix("dmesg")
        .number("oom kills", |n| n >= 1.0);
    drop(eater);
    is_well(place, pid, "oom-killed");
    drop(exchange);
    Ok(())
}

/// Huge pages asked for where the pool is empty.
fn hugepage_short(place: &Place) -> Outcome {
    let pool = fs::read_to_string("/proc/sys/vm/nr_hugepages").map_err(|e| e.to_string())?;
    if pool.trim() != "0" {
        return Err(format!("{} huge pages are set aside here", pool.trim()));
    }
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    if !setting.is_ok_and(|s| s.contains("[never]")) {
        return Err("shmem_enabled gives transparent ones instead".into());
    }
    let server = start(place, "server huge-pages");
    let _client = start(place, "client plain");
    names(place, server.pid(), "hugepage-short", "warn")
        .says("0 of 33 huge pages")
        .fix("sysctl vm.nr_hugepages=33")
        .number("free huge pages", |n| n == 0.0);
    drop(server);
    let server = start(place, "server");
    let _client = start(place, "client plain");
    is_well(place, server.pid(), "hugepage-short");
    Ok(())
}

/// Fresh memory for every tenth request.
fn faults_on_path(place: &Place) -> Result<Look, String> {
    // Answers that take a while: of a client that waits for less than half of its CPU time the faults may be its own affair (info).
    let exchange = place.exchange("--work 40us");
    let client = start(place, "client forgetful");
    names(place, client.pid(), "faults-on-path", "warn")
        .says(format!("(pid {})", client.pid()))
        .fix(format!("-p {}", client.pid()))
        .number("page faults", |n| n > 100.0);
    drop(client);
    Ok(Box::new(move |place| {
        let client = start(place, "client plain");
        is_well(place, client.pid(), "faults-on-path");
        drop(exchange);
    }))
}

/// Large messages at full speed, where shared memory never gets huge pages by itself.
fn shmem_thp(place: &Place) -> Result<Look, String> {
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
        .map_err(|e| format!("shmem_enabled: {e}"))?;
    if !setting.contains("[never]") {
        return Err(format!("shmem_enabled is {}", setting.trim()));
    }
    let exchange = place.exchange("");
    let trader = place.start("trader", "1 bytes 1MiB --depth 8 --duration forever");
    names(place, exchange.pid(), "shmem-thp", "info")
        .says(format!("(pid {}) moves", exchange.pid()))
        .fix("shmem_enabled")
        .number("bytes", |n| n > 1e9);
    drop(trader);
    Ok(Box::new(move |place| {
        let _client = start(place, "client plain");
        is_well(place, exchange.pid(), "shmem-thp");
    }))
}

/// Rings that are a tenth of what the group may use, and never held more than a request. The rule looks at a server that
/// is a minute old.
fn ring_oversized(place: &Place) -> Result<Look, String> {
    let group = Group::new("memory", "oversized")?;
    group.set("memory.limit_in_bytes", 512 << 20);
    let mut exchange = place.start("exchange", "");
    group.take(exchange.pid());
    assert!(!exchange.line().is_empty(), "{:?}", exchange.finish());
    let pid = exchange.pid();
    let begun = Instant::now();
    let client = start(place, "client plain");
    Ok(Box::new(move |place| {
        crate::common::wait_until("the minute to be nearly over", || {
            begun.elapsed().as_secs() >= 57
        });
        names(place, pid, "ring-oversized", "info")
            .says(format!("(pid {pid})"))
            .fix("--ring-size")
            .number("reserved", |n| n >= f64::from(64 << 20));
        group.set("memory.limit_in_bytes", -1);
        is_well(place, pid, "ring-oversized");
        drop((client, exchange));
    }))
}
