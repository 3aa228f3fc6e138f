//! What the kernel accounts: to processes, to interrupts, to nobody, and at which moment it was read.

use super::*;

#[test]
fn what_the_kernel_accounts_to_nobody_is_not_others_and_what_does_not_add_up_is_a_doubt() {
    // CPU 0's time by second, in ticks: with processes, idle.
    let accounted = |user: u64, idle: u64| {
        after_with(CROWDED, Clients::Elsewhere, move |sample, t| {
            let jiffies = &mut sample.host.cpus[0].jiffies;
            (jiffies.user, jiffies.idle) = (t * user, t * idle);
        })
    };
    // The worker's 30 are most of what ran, however little else was accounted.
    assert_eq!(answers(&accounted(60, 10)), (None, None));
    let little = "the kernel accounted 80 % of CPU 0's time";
    nobody_knows(&accounted(80, 0), little);
    nobody_knows(
        &accounted(75, 45),
        "the kernel accounted 120 % of CPU 0's time",
    );
    // As far as clocks and ticks ever agree.
    let says = says(&accounted(92, 4));
    assert!(says.is_some_and(|s| s.contains("waited 50 ms/s")));
}

#[test]
fn interrupts_and_stolen_time_are_no_processes() {
    for kind in ["irq", "softirq", "steal"] {
        let model = after_with(WELL, Clients::Elsewhere, |sample, t| {
            let jiffies = &mut sample.host.cpus[0].jiffies;
            jiffies.idle = t * 5;
            match kind {
                "irq" => jiffies.irq = t * 55,
                "softirq" => jiffies.softirq = t * 55,
                _ => jiffies.steal = t * 55,
            }
        });
        assert_eq!(answers(&model), (None, None), "{kind}");
    }
}

/// What the first worker used in all at `ms`, in ms: all of CPU 0 in every second second, and else little.
fn used_by_then(ms: u64) -> u64 {
    let (pairs, rest) = (ms / 2_000, ms % 2_000);
    pairs * (250 + 950) + rest.min(1_000) / 4 + rest.saturating_sub(1_000) * 95 / 100
}

#[test]
fn where_the_load_changes_what_was_read_earlier_does_not_count_as_of_now() {
    let changing = |behind_ms: u64| {
        after_with(WELL, Clients::Elsewhere, move |sample, t| {
            let ms = 10_000 + t * 1_000;
            let ticks = used_by_then(ms) / 10;
            let jiffies = &mut sample.host.cpus[0].jiffies;
            (jiffies.user, jiffies.idle) = (ticks, t * 100 + 1_000 - ticks);
            let server = process(sample, SERVER);
            let read_ms = ms - behind_ms;
            let both = used_by_then(read_ms) + read_ms * WORKER_MS / 1_000;
            server.cpu_ticks = Fact::Known(both / 10);
            server.at_ns -= behind_ms * 1_000_000;
            let thread = &mut server.threads[0];
            thread.at_ns -= behind_ms * 1_000_000;
            thread.run_ns = Fact::Known(used_by_then(read_ms) * 1_000_000);
        })
    };
    assert_eq!(answers(&changing(0)), (None, None));
    nobody_knows(
        &changing(900),
        "the load changed, and not all threads were read",
    );
    // Others that come and go are told from it where all is read at once, or so soon that it can't have been ours.
    let others = |behind_ms: u64| {
        after_with(WELL, Clients::Elsewhere, move |sample, t| {
            let ticks = used_by_then(10_000 + t * 1_000) / 10;
            let jiffies = &mut sample.host.cpus[0].jiffies;
            (jiffies.user, jiffies.idle) = (ticks, t * 100 + 1_000 - ticks);
            let server = process(sample, SERVER);
            server.cpu_ticks = Fact::Known(t * WORKER_MS / 10);
            server.threads[0].run_ns = Fact::Known(0);
            server.at_ns -= behind_ms * 1_000_000;
            server.threads[0].at_ns -= behind_ms * 1_000_000;
        })
    };
    for behind_ms in [0, 100] {
        assert!(says(&others(behind_ms)).is_some(), "{behind_ms} ms");
    }
    nobody_knows(
        &others(900),
        "the load changed, and not all threads were read",
    );
}

#[test]
fn a_thread_whose_time_can_not_be_told_has_not_used_nothing() {
    let refused = |ticks: bool| {
        after_with(WELL, Clients::Elsewhere, move |sample, t| {
            let server = process(sample, SERVER);
            // More than the wall's.
            server.threads[0].run_ns = Fact::Known(t * 3_000_000_000);
            if !ticks {
                server.cpu_ticks = Fact::default();
            }
        })
    };
    nobody_knows(
        &refused(false),
        "what thread 4719 of process 4711 used can't be told",
    );
    // Its process's own count may say that it can't have been others.
    assert_eq!(says(&refused(true)), None);
    let silent = after_with(CROWDED, Clients::Elsewhere, |sample, _| {
        process(sample, SERVER).cpu_ticks = Fact::default();
    });
    nobody_knows(&silent, "what process 4711 used in all can't be told");
}
