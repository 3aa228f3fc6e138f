//! Who trades what: the command lines of the demo's traders.
//!
//! The mixture shows the views something different in each row and leaves about half of two cores free: pauses
//! rather than schedules, because a sleeping client costs nothing.

use std::ffi::OsString;

use super::Options;
use crate::protocol::Mode;

/// A kind of trader in the mixture.
struct Part {
    name: &'static str,
    mode: Mode,
    size: usize,
    depth: u32,
    think: &'static str,
}

/// One after the other, again from the start when there are more traders.
const MIXTURE: [Part; 16] = {
    const QUOTES: Part = part("quotes", Mode::Bytes, 20_000, 1, "1ms");
    const ORDERS: Part = part("orders", Mode::Batch, 2_080, 4, "2ms");
    const PINGS: Part = part("pings", Mode::Ping, 64, 1, "1ms");
    const TICKS: Part = part("ticks", Mode::Bytes, 1_024, 16, "4ms");
    const BLOCKS: Part = part("blocks", Mode::Bytes, 256 << 10, 1, "10ms");
    const BULK: Part = part("bulk", Mode::Bytes, 1 << 20, 2, "50ms");
    const IDLE: Part = part("idle", Mode::Ping, 64, 1, "500ms");
    [
        QUOTES, QUOTES, QUOTES, QUOTES, ORDERS, ORDERS, ORDERS, PINGS, PINGS, PINGS, PINGS, TICKS,
        TICKS, BLOCKS, BULK, IDLE,
    ]
};

const fn part(
    name: &'static str,
    mode: Mode,
    size: usize,
    depth: u32,
    think: &'static str,
) -> Part {
    Part {
        name,
        mode,
        size,
        depth,
        think,
    }
}

/// The arguments of trader number `index`, without those that all children have.
pub(super) fn arguments(options: &Options, index: usize) -> Vec<OsString> {
    let mode = options.mode.mode();
    if mode.is_none() && !options.full && options.rate.is_none() {
        let part = &MIXTURE[index % MIXTURE.len()];
        let size = options.size.unwrap_or(part.size);
        let mut args = order(part.mode, Some(size), part.name);
        args.extend(["--depth".into(), part.depth.to_string().into()]);
        args.extend(["--think".into(), part.think.into()]);
        return args;
    }
    let mode = mode.unwrap_or(Mode::Bytes);
    let mut args = order(mode, options.size, mode.name());
    match options.rate {
        Some(rate) => {
            let share = rate / f64::from(options.clients);
            args.extend(["--rate".into(), share.to_string().into()]);
        }
        None if options.full => {}
        None => args.extend(["--think".into(), "1ms".into()]),
    }
    args
}

/// One client that does this for as long as it lives.
fn order(mode: Mode, size: Option<usize>, name: &str) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["1".into(), mode.name().into()];
    args.extend(size.map(|size| size.to_string().into()));
    args.extend(["--duration".into(), "forever".into()]);
    args.extend(["--name".into(), format!("trader-{name}").into()]);
    args
}
