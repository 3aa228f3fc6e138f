//! The rule about requests that stay in the handler.

use transport::stats::{Role, Slot, Via};

use super::fix::look_inside;
use super::peer::{LONG_NS, whereabouts, with_state};
use super::ring::server_pid;
use super::{Answer, Context, Fire, QUIET, rule};
use crate::model::join::slot_at;
use crate::model::{Client, Endpoint};
use crate::reading::{Reading, Why, WhyKind};
use crate::text;

rule! {
    /// One request has been in the handler for more than a second. The thread's state says whether it computes (R), waits for
    /// something (S) or for a disk (D). A server whose requests take longer and are well says so in its configuration, once. The beginning of most
    /// runs is not timed; a request that was taken and has no answer tells of those, and since when is known to a tenth of a second. On the
    /// socket a reply that its client does not collect looks the same; there it is told of a client that sleeps until one comes, since when it does, and of a
    /// thread of the server's that can be seen not to wait for room in a socket. The client's word for how long is believed as far as the server's counts allow.
    HANDLER_STUCK = "handler-stuck", Crit, "a request is stuck in the handler";
    fires: "one run of the handler lasts more than 1 s, or than Config::long_handler if that is longer";
    quiet: "it returned, or runs as long were declared";
    fix: "look at what the handler's thread waits for; where such runs are its work, set Config::long_handler (exchange: --long-handler)";
    explains: ["consumer-stalled", "ring-full", "server-saturated", "handler-bound", "late-replies", "tail-spread", "outlier-client"];
    onset: Dated;
    check: Client(handler_stuck);
}

fn handler_stuck(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let age = match &c.handler_running_ns {
        Ok(age) => *age,
        Err(why) if why.kind == WhyKind::NotApplicable => match asleep_over_socket(ctx, e, c)? {
            Some(age) => age,
            None => return QUIET,
        },
        Err(why) => return Err(why.clone()),
    };
    let pid = server_pid(e, c);
    // Only the server's own row has an age, and its page what is declared.
    let declared_ns = ctx.page(e).map_or(0, |p| p.process.long_handler_ns);
    let long_ns = declared_ns.max(LONG_NS);
    if age <= long_ns || matches!(ctx.process(pid).and_then(|p| p.state.get()), Ok('T' | 't')) {
        return QUIET;
    }
    let at = whereabouts(ctx, pid, &c.server_thread);
    let tid = c.server_thread.as_ref().map_or(pid, |t| t.tid);
    let is = at.as_ref().map_or_else(
        || format!("the state of thread {tid} can't be read"),
        |at| format!("thread {tid} is {at}"),
    );
    let fire = Fire::new(
        format!(
            "a request of client {} has been in the handler of pid {pid} for {}; {is}",
            c.number,
            text::ns(age)
        ),
        look_inside(ctx, pid, Some(tid), at.as_deref()),
    )
    .number(
        "handler runs for",
        age as f64,
        "ns",
        "stats page: handler_since_ns, or requests without replies and since when the client sleeps or the ring stands (oldest_ns, house_rx_moved_ns)",
        format!("> {long_ns}"),
    );
    with_state(fire, at, format!("/proc/{pid}/task/{tid}/stat")).fires()
}

/// For how long a request that its server has taken from the socket has had no reply, ns, while its client sleeps for it and the server does not send it.
fn asleep_over_socket(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Reading<Option<u64>> {
    let slots = ctx
        .slot(e, c)
        .and_then(|now| Ok((now, ctx.old_slot(e, c)?)));
    let (Ok((now, old)), Via::Socket, Role::Server) = (slots, c.transport, e.role) else {
        return Ok(None);
    };
    let counted = |s: &Slot| (s.req.requests, s.req.replies);
    let (taken, answered) = counted(now);
    if taken <= answered || counted(old) != (taken, answered) {
        return Ok(None);
    }
    let (Some(own), _) = ctx.client_slots(c.connection_id) else {
        return Err(Why::not_visible(
            "the client's own page is not visible: its reply may wait for it",
        ));
    };
    let claimed_ns = own.req.oldest_ns;
    if claimed_ns == 0 {
        return Ok(None);
    }
    // By the server's own word the request has not been there since before the connection, nor since before it answered another, nor when it had taken
    // fewer.
    let is_same =
        |s: &&Slot| s.info.connection_id == c.connection_id && counted(s) == (taken, answered);
    let pid = ctx.page(e)?.pid;
    let others = ctx.windows.iter().rev().find(|sample| {
        let page = sample.pages.iter().filter_map(|p| p.snapshot());
        let mut page = page.filter(|page| page.pid == pid);
        !page.any(|page| slot_at(page, c.slot).filter(is_same).is_some())
    });
    let earliest_ns = others.map_or(0, |sample| sample.time.monotonic_ns);
    let since_ns = claimed_ns
        .max(earliest_ns)
        .max(now.info.opened_ns)
        .max(now.req.last_progress_ns);
    let age_ns = ctx.model.at_ns.saturating_sub(since_ns);
    if age_ns > LONG_NS {
        does_not_send(c)?;
    }
    Ok(Some(age_ns))
}

/// Ok if the server's thread is seen not to wait for room in a socket: a handler has returned by then, and it is the client who does not read.
fn does_not_send(c: &Client) -> Reading<()> {
    let thread = c.server_thread.as_ref().map_err(Why::clone)?;
    if matches!(thread.state.clone()?, 'R' | 'D') {
        return Ok(());
    }
    let place = thread.wchan.clone()?;
    let sends = [
        "poll_",
        "do_poll",
        "do_sys_poll",
        "sock_",
        "unix_stream_sendmsg",
    ];
    match place.as_str() {
        // What the kernel says of a thread of somebody else's.
        "" => Err(Why::not_visible(
            "what the server's thread waits for can't be seen: it may be the client, who does not read",
        )),
        place if sends.iter().any(|name| place.starts_with(name)) => {
            Err(Why::not_visible(format!(
                "the server's thread waits in {place}: it may be for the client, who does not read"
            )))
        }
        _ => Ok(()),
    }
}
