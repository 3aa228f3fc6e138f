//! What clients and servers count, and how they tell the soak: one line of numbers, cumulative, a few times a second, so that little is
//! forgotten with a process that is killed.

/// Counts of one process, or the sum of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Replies received and checked.
    pub(super) messages: u64,
    /// Payload bytes, both ways.
    pub(super) bytes: u64,
    /// Connections made.
    pub(super) sessions: u64,
    /// Requests in flight when a connection was lost.
    pub(super) unknown: u64,
    /// Requests given up on purpose.
    pub(super) cancelled: u64,
    /// Requests refused because they were too large, on purpose.
    pub(super) refused: u64,
    /// Requests without a reply on a connection that lives; gaps that a server sees.
    pub(super) lost: u64,
    /// Requests or replies that came twice.
    pub(super) duplicated: u64,
    /// Messages with a wrong byte, or for somebody else.
    pub(super) corrupted: u64,
    /// Descriptors that a client had more after a connection than before.
    pub(super) leaked_fds: u64,
}

const FIELDS: usize = 10;

impl Tally {
    fn to_array(self) -> [u64; FIELDS] {
        let Self {
            messages,
            bytes,
            sessions,
            unknown,
            cancelled,
            refused,
            lost,
            duplicated,
            corrupted,
            leaked_fds,
        } = self;
        [
            messages, bytes, sessions, unknown, cancelled, refused, lost, duplicated, corrupted,
            leaked_fds,
        ]
    }

    fn from_array(a: [u64; FIELDS]) -> Self {
        let [
            messages,
            bytes,
            sessions,
            unknown,
            cancelled,
            refused,
            lost,
            duplicated,
            corrupted,
            leaked_fds,
        ] = a;
        Self {
            messages,
            bytes,
            sessions,
            unknown,
            cancelled,
            refused,
            lost,
            duplicated,
            corrupted,
            leaked_fds,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        let (mut sum, other) = (self.to_array(), other.to_array());
        sum.iter_mut().zip(other).for_each(|(sum, n)| *sum += n);
        *self = Self::from_array(sum);
    }

    /// As a line.
    pub(super) fn say(&self) -> String {
        self.to_array().map(|n| n.to_string()).join(" ")
    }

    /// From a line; `None` if it is none of ours.
    pub(super) fn hear(line: &str) -> Option<Self> {
        let numbers: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
        Some(Self::from_array(numbers.ok()?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_heard_as_it_was_said_and_sums_up() {
        let one = Tally::from_array(std::array::from_fn(|i| i as u64 + 1));
        assert_eq!(Tally::hear(&one.say()), Some(one));
        assert_eq!(Tally::hear("1 2 3"), None);
        assert_eq!(Tally::hear("resting"), None);
        let mut sum = one;
        sum.add(&one);
        assert_eq!(sum.corrupted, 18);
    }
}
