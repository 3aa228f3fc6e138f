//! Resource limits of a process, by /proc/PID/limits. Called by `process`, once a second.

use super::file::{nonsense, text};
use crate::reading::Reading;
use crate::sample::{Limit, Limits};
use procfs::FromBufRead;
use procfs::process::{Limit as Pair, LimitValue};
use std::path::Path;

/// The limits of the process whose directory is `process_dir`.
pub(super) fn read(process_dir: &Path) -> Reading<Limits> {
    let path = process_dir.join("limits");
    let text = text(&path)?;
    // procfs counts columns from the right without looking whether they are there.
    if text.lines().any(|line| line.split_whitespace().count() < 4) {
        return Err(nonsense(&path));
    }
    let all =
        procfs::process::Limits::from_buf_read(text.as_bytes()).map_err(|_| nonsense(&path))?;
    Ok(Limits {
        nofile: limit(&all.max_open_files),
        memlock: limit(&all.max_locked_memory),
        fsize: limit(&all.max_file_size),
        address_space: limit(&all.max_address_space),
    })
}

fn limit(pair: &Pair) -> Limit {
    let bound = |value: &LimitValue| match value {
        LimitValue::Value(n) => Some(*n),
        LimitValue::Unlimited => None,
    };
    Limit {
        soft: bound(&pair.soft_limit),
        hard: bound(&pair.hard_limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::WhyKind;
    use nix::sys::resource::{Resource, getrlimit};

    #[test]
    fn limits_equal_what_the_process_itself_is_told() {
        let limits = read(Path::new("/proc/self")).unwrap();
        for (seen, resource) in [
            (limits.nofile, Resource::RLIMIT_NOFILE),
            (limits.memlock, Resource::RLIMIT_MEMLOCK),
            (limits.fsize, Resource::RLIMIT_FSIZE),
            (limits.address_space, Resource::RLIMIT_AS),
        ] {
            let (soft, hard) = getrlimit(resource).unwrap();
            let bound = |n| (n != nix::libc::RLIM_INFINITY).then_some(n);
            assert_eq!(
                (seen.soft, seen.hard),
                (bound(soft), bound(hard)),
                "{resource:?}"
            );
        }
    }

    #[test]
    fn a_broken_limits_file_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap_err().kind, WhyKind::NotThere);
        for text in [
            "",
            "\n\n",
            "Max open files\n",
            "Limit\nMax open files x y files\n",
        ] {
            std::fs::write(dir.path().join("limits"), text).unwrap();
            assert_eq!(read(dir.path()).unwrap_err().kind, WhyKind::Gap, "{text:?}");
        }
    }
}
