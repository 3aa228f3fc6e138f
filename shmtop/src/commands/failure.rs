//! How commands end: a sentence for stderr and an exit code.

use std::io;

/// How a command ends, when it does not end well. The text is one sentence for stderr.
#[derive(Debug)]
pub(crate) enum Failure {
    /// 1: findings, or an assertion failed; what there is to say was said.
    Findings,
    /// 2: the command line makes no sense, or something it names can't be used: a damaged recording, an address in use, a full disk.
    Usage(String),
    /// 3: nothing to look at.
    NoEndpoint(String),
    /// 4: not allowed to look.
    Permission(String),
    /// 5: a page of another layout.
    Incompatible(String),
    /// 6: what was watched ended.
    Died(String),
    /// The dashboard was ended by a signal: its own code.
    Code(u8),
}

impl Failure {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Findings => 1,
            Self::Usage(_) => 2,
            Self::NoEndpoint(_) => 3,
            Self::Permission(_) => 4,
            Self::Incompatible(_) => 5,
            Self::Died(_) => 6,
            Self::Code(code) => *code,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            // The reader of our output has seen enough.
            io::ErrorKind::BrokenPipe => Self::Code(0),
            io::ErrorKind::PermissionDenied => Self::Permission(e.to_string()),
            _ => Self::Usage(e.to_string()),
        }
    }
}

/// How a command ends.
pub(crate) type Outcome = Result<(), Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::from(gone).code(), 0);
    }
}
