//! What is said of one value: its kind, its unit, where it stands.

/// Whether a value only grows or may move both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum Kind {
    /// Only grows while the slot is open.
    Counter = 1,
    /// A level; may move both ways.
    Gauge = 2,
    /// A log-linear histogram (see [`crate::stats::histogram`]).
    Histogram = 3,
}

/// The unit of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum Unit {
    /// A number of things.
    Count = 1,
    /// Bytes.
    Bytes = 2,
    /// A duration in nanoseconds.
    Nanoseconds = 3,
    /// A point on `CLOCK_MONOTONIC`, in nanoseconds; 0 means never.
    MonotonicNs = 4,
    /// A free-running ring index in bytes.
    Index = 5,
}

/// What a value belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum Scope {
    /// Once per page, in the header; the offset counts from the page's start.
    Process = 1,
    /// Once per slot; the offset counts from the slot's start.
    Slot = 2,
}

/// One entry of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Stable name: the field of the reader's struct, the JSON key and (prefixed) the metric name. At most 40 bytes.
    pub name: &'static str,
    /// Whether it grows or moves.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// Process or slot.
    pub scope: Scope,
    /// Byte offset within the scope; `None` if it stands nowhere and readers derive it.
    pub offset: Option<usize>,
    /// One sentence. At most 72 bytes of it go into the page.
    pub help: &'static str,
}
