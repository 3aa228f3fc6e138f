//! A glance: the counters of the connections on the screen, read again between two samples. Plain data; `source` fills it.
//!
//! A sample looks at everything and costs accordingly; what moves ten times a second on a screen are the counters of
//! some dozens of slots. A glance reads only these, and says when it no longer suffices.

use super::Clocks;
use transport::stats::{ProcessCounters, Slot};

/// Counters of some slots.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Glance {
    /// When it was taken.
    pub time: Clocks,
    /// CLOCK_MONOTONIC ns of the look before: the last glance, or the sample it continues.
    pub before_ns: u64,
    /// By page.
    pub pages: Vec<GlancedPage>,
    /// A connection came, went or changed since the sample, or a page is gone: time for a sample.
    pub outdated: bool,
}

/// Slots of one page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GlancedPage {
    /// Its position in the sample.
    pub number: usize,
    /// As in [`super::Page::pid`].
    pub pid: u32,
    /// As in [`super::Page::link`].
    pub link: String,
    /// The process's counters in the sample: other admissions mean other slots.
    pub process: ProcessCounters,
    /// How many of its slots are connections in the sample.
    pub connections: usize,
    /// The slots: these or some of them.
    pub slots: Vec<Glimpse>,
}

/// One slot, now and at the look before. Facts are the sample's; histograms are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Glimpse {
    /// Now.
    pub slot: Slot,
    /// At [`Glance::before_ns`].
    pub before: Slot,
}
