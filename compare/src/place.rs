//! The directory of a run, and what its processes may leave outside of it.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// What all names begin with, before the conductor's pid.
const PREFIX: &str = "compare";

/// The directory of a run; removed with everything the processes left, inside and outside of it.
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    /// A name nobody else uses.
    pub(crate) name: String,
}

impl Place {
    /// A new one.
    pub(crate) fn new() -> io::Result<Self> {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "{PREFIX}{}x{}_",
            std::process::id(),
            RUNS.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(&name);
        std::fs::create_dir(&dir)?;
        // Only ours: stats pages are announced in it.
        std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        Ok(Self { dir, name })
    }
}

/// Removes what runs of dead conductors left: one that is killed, by Ctrl-C for instance, takes its processes with it, but not its files.
pub(crate) fn sweep() {
    let dirs = [std::env::temp_dir(), PathBuf::from("/dev/shm")];
    let entries = dirs.iter().filter_map(|dir| std::fs::read_dir(dir).ok());
    for entry in entries.flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| {
            let (pid, rest) = name.strip_prefix(PREFIX)?.split_once('x')?;
            rest.contains('_').then(|| pid.parse::<u32>().ok())?
        });
        if owner.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            // Somebody else's stay; that is all that can go wrong.
            let _ = std::fs::remove_dir_all(entry.path());
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing useful can be done if removing fails: the names are unique to this process.
        let _ = std::fs::remove_dir_all(&self.dir);
        for entry in std::fs::read_dir("/dev/shm")
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(self.name.as_bytes())
            {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}
