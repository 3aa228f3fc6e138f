//! Open descriptors of a process: how many, without listing them where the kernel says it.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::file::why;
use crate::reading::Reading;

/// The directory of a process's descriptors, opened once if it may be kept.
#[derive(Debug)]
pub(super) struct FdDir {
    pub(super) path: PathBuf,
    open: Option<File>,
    keep: bool,
}

impl FdDir {
    pub(super) fn new(path: PathBuf, keep: bool) -> Self {
        Self {
            path,
            open: None,
            keep,
        }
    }

    /// Open descriptors by the size of their directory: kernels from 6.2 on say it there, and listing a thousand costs two
    /// milliseconds. Opened, since who may not list them shall not have their number either.
    pub(super) fn known(&mut self) -> Option<u64> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let open = File::open(&self.path).ok()?;
                let in_proc = fstatfs(&open).is_ok_and(|f| f.filesystem_type() == PROC_SUPER_MAGIC);
                in_proc.then_some(open)?
            }
        };
        let size = open.metadata().ok()?.len();
        if self.keep {
            self.open = Some(open);
        }
        (size > 0).then_some(size)
    }
}

/// Open descriptors, and how many of them have numbers that the soft limit no longer gives away: opened before it was lowered,
/// they take no room below it.
pub(super) fn count_fds(dir: &Path, soft: u64) -> Reading<(u64, u64)> {
    let entries = std::fs::read_dir(dir).map_err(|e| why(&e, dir))?;
    let (mut all, mut beyond) = (0, 0);
    for entry in entries {
        let name = entry.map_err(|e| why(&e, dir))?.file_name();
        let number = name.to_str().and_then(|n| n.parse::<u64>().ok());
        all += 1;
        beyond += u64::from(number.is_some_and(|n| n >= soft));
    }
    Ok((all, beyond))
}
