//! How the programs end when they can't go on: one sentence on stderr and an exit code that scripts can tell apart.
//!
//! Made wherever something fails, shown once by [`crate::exit`]. The codes are shmtop's: 1 it ran but not all was
//! well, 2 usage, or a path that can't be used, 3 no exchange there, 4 permission, 6 the exchange died.

use serde::{Deserialize, Serialize};
use transport::error::{BindError, ConnectError};

/// The run ended, but requests failed or something else went wrong.
pub(crate) const FAULT: u8 = 1;
/// The command line can't be meant.
pub(crate) const USAGE: u8 = 2;
/// Nobody listens at the socket.
pub(crate) const NO_ENDPOINT: u8 = 3;
/// The kernel said no.
pub(crate) const PERMISSION: u8 = 4;
/// The exchange died and did not come back.
pub(crate) const PEER_DIED: u8 = 6;

/// An exit code and the sentence that explains it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Exit code.
    pub(crate) code: u8,
    /// What happened and what to do about it, one line.
    pub(crate) sentence: String,
}

impl Failure {
    pub(crate) fn new(code: u8, sentence: impl Into<String>) -> Self {
        Self {
            code,
            sentence: sentence.into(),
        }
    }

    pub(crate) fn usage(sentence: impl Into<String>) -> Self {
        Self::new(USAGE, sentence)
    }

    /// A system call that failed while doing `what`.
    pub(crate) fn io(what: &str, error: &std::io::Error) -> Self {
        Self::new(code_of(error), format!("{what}: {error}"))
    }
}

fn code_of(error: &std::io::Error) -> u8 {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => PERMISSION,
        _ => FAULT,
    }
}

/// A path that leads nowhere.
fn is_nowhere(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

impl From<&ConnectError> for Failure {
    fn from(error: &ConnectError) -> Self {
        let (code, fix) = match error {
            ConnectError::Config(_) => (USAGE, ""),
            ConnectError::PathTooLong { .. } => (USAGE, ""),
            ConnectError::NoServer { .. } => (NO_ENDPOINT, "; start one with `exchange`"),
            ConnectError::Unresponsive { .. } => (NO_ENDPOINT, ""),
            ConnectError::Denied { .. } => (PERMISSION, ""),
            ConnectError::Io { source, .. } => (code_of(source), ""),
            // Refused, or no shared memory.
            _ => (FAULT, ""),
        };
        Self::new(code, format!("{error}{fix}"))
    }
}

impl From<&BindError> for Failure {
    fn from(error: &BindError) -> Self {
        let code = match error {
            BindError::Config(_) | BindError::PathTooLong { .. } | BindError::NotASocket { .. } => {
                USAGE
            }
            // The command line names what can't be used.
            BindError::InUse { .. } => USAGE,
            BindError::Io { source, .. } if is_nowhere(source) => USAGE,
            BindError::Io { source, .. } => code_of(source),
            _ => FAULT,
        };
        Self::new(code, error.to_string())
    }
}
