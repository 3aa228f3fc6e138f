//! Resource limits of a process, by /proc/PID/limits. Called by `process`, once a second.

use super::file::{nonsense, text};
use crate::reading::Reading;
use crate::sample::{Limit, Limits};
use std::path::Path;

/// The limits of the process whose directory is `process_dir`.
pub(super) fn read(process_dir: &Path) -> Reading<Limits> {
    let path = process_dir.join("limits");
    let text = text(&path)?;
    parse(&text).ok_or_else(|| nonsense(&path))
}

/// Four of its sixteen lines, which take a third of the time of all: it is read of each process every few seconds.
fn parse(text: &str) -> Option<Limits> {
    let named = |name: &str| {
        let values = text.lines().find_map(|line| line.strip_prefix(name))?;
        let mut words = values.split_ascii_whitespace();
        Some(Limit {
            soft: bound(words.next()?)?,
            hard: bound(words.next()?)?,
        })
    };
    Some(Limits {
        nofile: named("Max open files ")?,
        memlock: named("Max locked memory ")?,
        fsize: named("Max file size ")?,
        address_space: named("Max address space ")?,
    })
}

/// `None` in it: no limit. `None`: no number either.
fn bound(word: &str) -> Option<Option<u64>> {
    match word {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
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
            "Max open files 5\nMax locked memory 1 2 bytes\nMax file size 1 2 bytes\nMax address space 1 2 bytes\n",
        ] {
            std::fs::write(dir.path().join("limits"), text).unwrap();
            assert_eq!(read(dir.path()).unwrap_err().kind, WhyKind::Gap, "{text:?}");
        }
    }
}
