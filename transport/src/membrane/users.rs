//! Which users are let in.

use std::path::Path;

/// What `kernel.overflowuid` is unless somebody set it.
const OVERFLOW_UID: u32 = 65_534;
/// Users there are: all numbers but -1, which means none.
const ALL_USERS: u64 = u32::MAX as u64;

/// Besides the server's own user.
pub(super) struct Users {
    allowed: Vec<u32>,
    /// The number that the kernel gives for all users who have none in the server's user namespace; `None` where each user has one.
    stands_for_others: Option<u32>,
}

impl Users {
    /// Of a process that stays in its user namespace.
    pub(super) fn new(allowed: &[u32]) -> Self {
        let allowed = allowed.to_vec();
        Self::with(allowed, Path::new("/"))
    }

    fn with(allowed: Vec<u32>, root: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
        let has_all = read("proc/self/uid_map").is_some_and(|map| has_all(&map));
        let overflow =
            read("proc/sys/kernel/overflowuid").and_then(|text| text.trim().parse().ok());
        Self {
            allowed,
            stands_for_others: (!has_all).then_some(overflow.unwrap_or(OVERFLOW_UID)),
        }
    }

    /// Whether the user whom the kernel calls `uid` is let in by a server that is `own`.
    pub(super) fn admits(&self, uid: u32, own: u32) -> bool {
        if self.stands_for_others == Some(uid) {
            // Anybody. A server that has no number itself has a file of its own, which keeps others out unless it is to let some in.
            return uid == own && self.allowed.is_empty();
        }
        uid == own || self.allowed.contains(&uid)
    }
}

/// Whether the ranges of a `uid_map` (`inside outside count`) leave nobody out.
fn has_all(map: &str) -> bool {
    let counts = map
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2));
    let users: u64 = counts.filter_map(|count| count.parse::<u64>().ok()).sum();
    users >= ALL_USERS
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 1000;
    const NOBODY: u32 = 65_534;

    fn users(map: Option<&str>, overflow: Option<&str>, allowed: &[u32]) -> Users {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in [
            ("proc/self/uid_map", map),
            ("proc/sys/kernel/overflowuid", overflow),
        ] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("one")).expect("directories");
            if let Some(text) = text {
                std::fs::write(path, text).expect("a file");
            }
        }
        Users::with(allowed.to_vec(), root.path())
    }

    #[test]
    fn where_each_user_has_a_number_the_last_of_them_is_one_as_any_other() {
        let all = Some("         0          0 4294967295\n");
        let users = users(all, Some("65534\n"), &[7, NOBODY]);
        for (uid, admitted) in [(OWN, true), (7, true), (NOBODY, true), (8, false)] {
            assert_eq!(users.admits(uid, OWN), admitted, "{uid}");
        }
    }

    #[test]
    fn the_number_that_stands_for_all_others_lets_nobody_in() {
        // As in a container; as far as a sandbox without /proc knows; with a number of the administrator's.
        let some = Some("0 100000 65536\n");
        for (map, overflow, others) in [
            (some, Some("65534\n"), NOBODY),
            (None, None, NOBODY),
            (some, Some("4711"), 4711),
        ] {
            let users = users(map, overflow, &[7, others]);
            assert!(users.admits(7, OWN) && users.admits(OWN, OWN));
            assert!(!users.admits(others, OWN));
            assert!(!users.admits(others, others), "nor as the server's own");
        }
    }

    #[test]
    fn a_server_without_a_number_of_its_own_serves_whom_its_file_lets_through() {
        let users = users(Some(""), Some("65534\n"), &[]);
        assert!(users.admits(NOBODY, NOBODY) && !users.admits(OWN, NOBODY));
    }
}
