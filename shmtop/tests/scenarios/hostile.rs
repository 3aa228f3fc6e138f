//! A healthy or sick machine on which every name and path that somebody may choose is an attempt.

use shmtop::Why;
use shmtop::sample::{Fact, PageContent, Perf, Sample};

/// Ends a quotation, is a command in each of three ways, and clears the screen.
const EVIL: &str = "x';touch y;$(touch y)`touch y`\u{1b}[2J";

/// How it stands between single quotes.
pub(crate) fn quoted() -> String {
    EVIL.replace('\'', r"'\''").replace('\u{1b}', "·")
}

/// Puts it wherever a process, a page, a group or a path is named, and into the reasons for what can't be had.
pub(crate) fn rename(sample: &mut Sample) {
    for p in &mut sample.processes {
        p.comm = EVIL.into();
        // What is said to do about a container's limits is another thing: here and there one is in none.
        p.place.container = Some(EVIL.into()).filter(|_| p.pid % 2 == 0);
        for thread in &mut p.threads {
            thread.comm = EVIL.into();
            thread.wchan = Fact::Known(EVIL.into());
        }
        if let Fact::Known(groups) = &mut p.cgroups.memory {
            groups.iter_mut().for_each(|g| g.path += EVIL);
        }
        if let Fact::Known(groups) = &mut p.cgroups.cpu {
            groups.iter_mut().for_each(|g| g.path += EVIL);
        }
    }
    for page in &mut sample.pages {
        page.link = EVIL.into();
        if let PageContent::Read(page) = &mut page.content {
            page.name = EVIL.into();
            page.socket_path += EVIL;
            page.library = EVIL.into();
            for slot in &mut page.slots {
                slot.info.peer_name = EVIL.into();
            }
        }
    }
    for listener in &mut sample.listeners {
        listener.path += EVIL;
        if listener.queue.known() == Some(&0) {
            listener.queue = Fact::Unknown(Why::not_there(EVIL.to_owned()));
        }
    }
    for thread in &mut sample.perf {
        if let Perf::NoPmu(why) | Perf::Denied(why) = &mut thread.hardware {
            why.push_str(EVIL);
        }
    }
    if let Fact::Known(holders) = &mut sample.discovery.ring_holders {
        holders.iter_mut().for_each(|h| h.comm = EVIL.into());
    }
    for cpu in &mut sample.host.cpus {
        cpu.frequency.governor = Fact::Known(EVIL.into());
    }
    sample.host.kernel = Fact::Known(EVIL.into());
}
