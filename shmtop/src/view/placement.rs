//! Where the two ends of a connection run, and what lies between them: core, cache, memory node.
//!
//! A pure sentence for the head of a client's screen. What decides is the CPU that each thread last ran on: a thread that
//! is not pinned may be elsewhere a moment later.

use crate::model::{CpuView, HostView, Shared, ThreadView};
use crate::reading::Reading;

/// `thread 3607 on CPU 1 ⇄ server 3583 on CPU 0, same L3`.
pub(super) fn sentence(
    host: &HostView,
    client: &Reading<Shared<ThreadView>>,
    server: &Reading<Shared<ThreadView>>,
) -> String {
    let between = match (cpu_of(client), cpu_of(server)) {
        (Some(a), Some(b)) => format!(", {}", between(host, a, b)),
        _ => String::new(),
    };
    format!(
        "thread {} ⇄ server {}{between}",
        thread(client),
        thread(server)
    )
}

fn cpu_of(thread: &Reading<Shared<ThreadView>>) -> Option<u32> {
    thread.as_ref().ok()?.last_cpu.as_ref().ok().copied()
}

fn thread(thread: &Reading<Shared<ThreadView>>) -> String {
    match thread {
        Err(why) => format!("– {why}"),
        Ok(t) => match &t.last_cpu {
            Ok(cpu) => format!("{} on CPU {cpu}", t.tid),
            Err(_) => t.tid.to_string(),
        },
    }
}

/// How far two CPUs are from each other.
fn between(host: &HostView, a: u32, b: u32) -> String {
    if a == b {
        return "the same CPU: they take turns".to_owned();
    }
    let find = |id| host.cpus.iter().find(|c| c.id == id);
    let (Some(x), Some(y)) = (find(a), find(b)) else {
        return "– the host shows no such CPU".to_owned();
    };
    if x.siblings.as_ref().is_ok_and(|s| s.contains(&b)) {
        return "one core, two hardware threads (SMT)".to_owned();
    }
    match (nodes(x, y), same(&x.llc, &y.llc)) {
        (Some((m, n)), _) if m != n => format!("NUMA nodes {m} and {n}"),
        (_, Some(true)) => "two cores, same L3".to_owned(),
        (_, Some(false)) => "two cores without a cache in common".to_owned(),
        (_, None) => "two cores, caches unknown".to_owned(),
    }
}

fn nodes(x: &CpuView, y: &CpuView) -> Option<(u32, u32)> {
    Some((*x.node.as_ref().ok()?, *y.node.as_ref().ok()?))
}

fn same(x: &Reading<u32>, y: &Reading<u32>) -> Option<bool> {
    Some(x.as_ref().ok()? == y.as_ref().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Why;

    fn cpu(id: u32, core: &[u32], llc: u32, node: u32) -> CpuView {
        let no = || Err(Why::not_there("not here"));
        CpuView {
            id,
            siblings: Ok(core.to_vec()),
            llc: Ok(llc),
            node: Ok(node),
            busy: no(),
            steal: no(),
            frequency_khz: Err(Why::not_there("not here")),
            governor: Err(Why::not_there("not here")),
            thermal_throttles: Err(Why::not_there("not here")),
        }
    }

    #[test]
    fn what_lies_between_two_ends_is_named_by_the_nearest_thing_they_share() {
        let mut host = HostView::unknown();
        host.cpus = vec![
            cpu(0, &[0, 1], 0, 0),
            cpu(1, &[0, 1], 0, 0),
            cpu(2, &[2, 3], 0, 0),
            cpu(4, &[4, 5], 4, 0),
            cpu(8, &[8, 9], 8, 1),
        ];
        let said = |a, b| between(&host, a, b);
        assert!(said(0, 0).starts_with("the same CPU"));
        assert!(said(0, 1).contains("SMT"));
        assert_eq!(said(0, 2), "two cores, same L3");
        assert_eq!(said(0, 4), "two cores without a cache in common");
        assert_eq!(said(0, 8), "NUMA nodes 0 and 1");
        assert!(said(0, 99).starts_with('–'));
    }
}
