//! The figures of a watch by name: what they are, and how they come about.

/// A figure's name and meaning.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Name in an assertion; ends in the unit.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// Whether more is better (+1), worse (−1) or neither (0): decides what a diff calls a change.
    pub good: i8,
    /// How a whole watch makes it, and so how much it varies by itself.
    pub kind: Kind,
}

/// How a figure comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A mean over the time.
    Mean,
    /// A percentile of round trips; known to a histogram bucket.
    Percentile,
    /// The largest of something.
    Largest,
    /// Events, counted over the whole watch: twice the time, twice as many.
    Events,
    /// Different things that were seen: the same machine watched for twice the time has as many of those that last.
    Distinct,
    /// How it is at the end.
    State,
}

impl Kind {
    /// Of a quantile's histogram bucket: values in it are taken for the same.
    pub(crate) const BUCKET: f64 = 1.0 / 16.0;
}

macro_rules! figures {
    ($($name:literal $good:literal $kind:ident $help:literal;)*) => {
        /// Every figure, in the order of display.
        pub const FIGURES: &[Figure] = &[$(Figure { name: $name, help: $help, good: $good, kind: Kind::$kind },)*];
    };
}

figures! {
    "rps" 1 Mean "requests per second, all clients";
    "mib_per_s" 1 Mean "payload in both directions, MiB per second";
    "p50_us" -1 Percentile "median round trip of all clients, µs";
    "p90_us" -1 Percentile "90th percentile, µs";
    "p99_us" -1 Percentile "99th percentile, µs";
    "p999_us" -1 Percentile "99.9th percentile, µs";
    "max_us" -1 Largest "longest round trip, µs (to its histogram bucket)";
    "worst_p99_us" -1 Percentile "99th percentile of the slowest client, µs";
    "clients" 0 State "connections at the end";
    "shm_clients" 0 State "of them on shared memory";
    "socket_clients" 0 State "of them on the socket";
    "stalls" -1 Events "times a client was seen to stall or to be stopped";
    "deaths" -1 Events "connections whose client or server ended without closing them";
    "errors" -1 Events "error replies";
    "timeouts" -1 Events "requests given up";
    "late_replies" -1 Events "replies that came after their timeout";
    "hit_ratio" 1 Mean "pointer-cache hits, mean over the clients (0..1)";
    "blocked_ratio" -1 Largest "largest share of time a producer waited for room (0..1)";
    "fill_ratio" -1 Largest "fullest ring seen (0..1)";
    "cpus" -1 Mean "CPU time of all watched processes, in CPUs";
    "run_delay_ratio" -1 Largest "largest share of time a ring thread waited for a core (0..1)";
    "crits" -1 Distinct "different crit findings seen";
    "warns" -1 Distinct "different warn findings seen";
    "infos" -1 Distinct "different info findings seen";
}
