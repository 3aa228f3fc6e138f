//! What is read more rarely than the screen refreshes, shown in every refresh: the last window's rates stand in until the
//! next reading.
//!
//! Called by the builder on each model. A rate between two looks at the same reading would be a gap nine times in ten, and the
//! screen would flicker; a rate over a few clock ticks would be noise. What a refresh measured itself is left alone,
//! except where a tenth of a second says too little: counters, where the time goes, and the verdict are the window's.

use std::collections::HashMap;

use super::{Client, Endpoint, EndpointKey, Model, Shared, ThreadView};
use crate::reading::{Reading, Why, WhyKind};

/// Fills what this refresh could not measure from the model of the last window.
pub(super) fn carry(model: &mut Model, window: &Model) {
    for cpu in &mut model.host.cpus {
        if let Some(old) = window.host.cpus.iter().find(|c| c.id == cpu.id) {
            stand_in(&mut cpu.busy, &old.busy);
            stand_in(&mut cpu.steal, &old.steal);
        }
    }
    let earlier: HashMap<&EndpointKey, &Shared<Endpoint>> =
        window.endpoints.iter().map(|e| (&e.key, e)).collect();
    for e in &mut model.endpoints {
        if let Some(old) = earlier.get(&e.key) {
            endpoint(e, old);
        }
    }
    let whole: Vec<Reading<Vec<Shared<ThreadView>>>> = model
        .endpoints
        .iter_mut()
        .map(|e| std::mem::replace(&mut e.process.threads, Err(Why::not_yet("taken out"))))
        .collect();
    let mut by_tid: HashMap<u32, &Shared<ThreadView>> = HashMap::new();
    for t in whole.iter().flatten().flatten() {
        by_tid.entry(t.tid).or_insert(t);
    }
    let rows = model.endpoints.iter_mut().flat_map(|e| &mut e.clients);
    for c in rows {
        let c: &mut Client = c;
        for t in [&mut c.thread, &mut c.server_thread].into_iter().flatten() {
            if let Some(full) = by_tid.get(&t.tid) {
                thread(t, full);
            }
        }
    }
    for (e, threads) in model.endpoints.iter_mut().zip(whole) {
        e.process.threads = threads;
    }
}

fn endpoint(e: &mut Endpoint, old: &Endpoint) {
    stand_in(&mut e.limits.throttled, &old.limits.throttled);
    let (now, before) = (&mut e.process, &old.process);
    stand_in(&mut now.cpu, &before.cpu);
    stand_in(&mut now.minor_faults_per_s, &before.minor_faults_per_s);
    stand_in(&mut now.major_faults_per_s, &before.major_faults_per_s);
    // In clock ticks: over a tenth of a second it would be a coin toss.
    if old.process.system_share.is_ok() {
        e.process.system_share = old.process.system_share.clone();
    }
    counted(e, old);
    let (Ok(threads), Ok(before)) = (&mut e.process.threads, &old.process.threads) else {
        return;
    };
    for t in threads.iter_mut() {
        // By tid, like the sample's.
        if let Ok(i) = before.binary_search_by_key(&t.tid, |b| b.tid) {
            thread(t, &before[i]);
        }
    }
    let known: Vec<f64> = threads.iter().filter_map(|t| t.cpu.clone().ok()).collect();
    if !known.is_empty() {
        e.process.cpu = Ok(known.iter().sum());
    }
    for p in &mut e.pollers {
        if let Ok(t) = &mut p.thread
            && let Ok(i) = threads.binary_search_by_key(&t.tid, |f| f.tid)
        {
            thread(t, &threads[i]);
        }
    }
}

/// What is a second's business: counters, where the time goes, what bounds.
fn counted(e: &mut Endpoint, old: &Endpoint) {
    for c in &mut e.clients {
        // Clients stand by number and slot.
        let at = old
            .clients
            .binary_search_by_key(&(c.number, c.slot), |o| (o.number, o.slot));
        let Ok(i) = at else { continue };
        let o = &old.clients[i];
        if o.connection_id != c.connection_id {
            continue;
        }
        c.perf.clone_from(&o.perf);
        c.time.clone_from(&o.time);
        // A client that has just stopped, or goes on, has its own verdict.
        if c.state == o.state {
            c.verdict.clone_from(&o.verdict);
        }
        of_window(&mut c.thread, &o.thread);
        of_window(&mut c.server_thread, &o.server_thread);
    }
    for p in &mut e.pollers {
        if let Ok(i) = old.pollers.binary_search_by_key(&p.slot, |o| o.slot) {
            let o = &old.pollers[i];
            of_window(&mut p.thread, &o.thread);
            p.time.clone_from(&o.time);
        }
    }
}

fn of_window(now: &mut Reading<Shared<ThreadView>>, old: &Reading<Shared<ThreadView>>) {
    if let (Ok(now), Ok(old)) = (now, old)
        && now.tid == old.tid
    {
        now.counters.clone_from(&old.counters);
    }
}

fn thread(t: &mut Shared<ThreadView>, old: &ThreadView) {
    stand_in(&mut t.cpu, &old.cpu);
    stand_in(&mut t.run_delay, &old.run_delay);
    stand_in(&mut t.voluntary_per_s, &old.voluntary_per_s);
    stand_in(&mut t.involuntary_per_s, &old.involuntary_per_s);
    stand_in(&mut t.migrations_per_s, &old.migrations_per_s);
    stand_in(&mut t.faults_per_s, &old.faults_per_s);
}

fn stand_in(now: &mut Reading<f64>, old: &Reading<f64>) {
    let between_readings = |kind| matches!(kind, WhyKind::Gap | WhyKind::NotYet);
    if old.is_ok() && now.as_ref().is_err_and(|why| between_readings(why.kind)) {
        now.clone_from(old);
    }
}
