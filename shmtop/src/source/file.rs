//! Reading small kernel files: once, or again and again over one descriptor; errors become reasons, text becomes harmless.
//!
//! Called by everything in `source` that reads /proc, /sys and cgroup files. It leaves out what the text means.

use crate::reading::{Reading, Why};
use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Kernel files are small; one that is larger than this is not read to its end.
const MAX_BYTES: usize = 16 << 20;

/// Why a call on `path` failed, as a reason.
pub(super) fn why(error: &io::Error, path: &Path) -> Why {
    let path = path.display();
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            Why::no_permission(format!("permission denied: {path}"))
        }
        Some(libc::ENOENT | libc::ENOTDIR) => Why::not_there(format!("no such file: {path}")),
        Some(libc::ESRCH) => Why::not_there(format!("the process ended: {path}")),
        Some(errno) => Why::not_there(format!("{}: {path}", transport::error::errno_name(errno))),
        None => Why::not_there(format!("{error}: {path}")),
    }
}

/// A file whose text is not what it should be.
pub(super) fn nonsense(path: &Path) -> Why {
    Why::gap(format!("makes no sense: {}", path.display()))
}

/// The whole text, bytes that are no UTF-8 replaced.
pub(super) fn text(path: &Path) -> Reading<String> {
    let mut buffer = Vec::new();
    let file = File::open(path).map_err(|e| why(&e, path))?;
    let length = fill(&file, &mut buffer, false).map_err(|e| why(&e, path))?;
    buffer.truncate(length);
    Ok(match String::from_utf8(buffer) {
        Ok(text) => text,
        Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
    })
}

/// The trimmed first line.
pub(super) fn line(path: &Path) -> Reading<String> {
    let text = text(path)?;
    Ok(text.lines().next().unwrap_or("").trim().to_owned())
}

/// The file's only number.
pub(super) fn number<T: FromStr>(path: &Path) -> Reading<T> {
    line(path)?.parse().map_err(|_| nonsense(path))
}

/// Reads to the end, over what is in the buffer, and says how much there was; `whole` files of the kernel are made in one piece,
/// so a short read was the last one.
fn fill(file: &File, buffer: &mut Vec<u8>, whole: bool) -> io::Result<usize> {
    if buffer.is_empty() {
        buffer.resize(4096, 0);
    }
    let mut at = 0;
    loop {
        match file.read_at(&mut buffer[at..], at as u64) {
            Ok(0) => break,
            Ok(n) => at += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        }
        if at == buffer.len() {
            if at >= MAX_BYTES {
                break;
            }
            buffer.resize(at * 2, 0);
        } else if whole {
            break;
        }
    }
    Ok(at)
}

/// A file that is read again and again: opened once, re-read from its start each time. Only for files that the kernel
/// makes in one piece (stat, schedstat, cpu.stat). After an error the next read opens it again.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    file: Option<File>,
    /// Held open between reads; else only during one.
    keep: bool,
}

impl Kept {
    pub(super) fn new(path: PathBuf, keep: bool) -> Self {
        Self {
            path,
            file: None,
            keep,
        }
    }

    /// From now on.
    pub(super) fn keep(&mut self) {
        self.keep = true;
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its text now, bytes that are no UTF-8 replaced; `buffer` is what it is read into.
    pub(super) fn text<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Reading<Cow<'b, str>> {
        // Nearly always it is UTF-8, and that is found out at a fraction of the cost.
        self.read(buffer)
            .map(|bytes| match std::str::from_utf8(bytes) {
                Ok(text) => text.into(),
                Err(_) => String::from_utf8_lossy(bytes),
            })
    }

    /// Its bytes now, in `buffer`.
    pub(super) fn read<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Reading<&'b [u8]> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(&self.path).map_err(|e| why(&e, &self.path))?,
        };
        let length = fill(&file, buffer, true).map_err(|e| why(&e, &self.path))?;
        if self.keep {
            self.file = Some(file);
        }
        Ok(&buffer[..length])
    }
}

/// The value after `key` in "key value" or "key: value" lines.
pub(super) fn field<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(key)?;
        let rest = rest.trim_start_matches([' ', '\t']);
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        // "total" must not find "total_cache".
        (rest.len() < line.len() - key.len()).then(|| rest.trim())
    })
}

/// "0-3,8" as CPU numbers; empty text is the empty list. `None` for anything else, or for absurdly many.
pub(super) fn cpu_list(text: &str) -> Option<Vec<u32>> {
    const MOST: usize = 1 << 16;
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|p| !p.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        if to < from || (to - from) as usize >= MOST - cpus.len().min(MOST) {
            return None;
        }
        cpus.extend(from..=to);
    }
    Some(cpus)
}

/// Text of another process, made safe to show; at most 64 characters.
pub(super) fn harmless(text: impl AsRef<[u8]>) -> String {
    const MOST: usize = 64;
    let bytes = text.as_ref();
    // As names nearly always are: a hundred of them are read a second.
    let plain = |b: &u8| *b == b' ' || b.is_ascii_graphic();
    if bytes.len() <= MOST
        && bytes.iter().all(plain)
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        return text.to_owned();
    }
    transport::stats::sanitise(bytes)
        .chars()
        .take(MOST)
        .collect()
}

/// A path as `harmless` text.
pub(super) fn harmless_path(path: &Path) -> String {
    harmless(path.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_file_gives_what_is_in_it_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "one").unwrap();
        let (mut kept, mut buffer) = (Kept::new(path.clone(), true), Vec::new());
        assert_eq!(kept.read(&mut buffer).unwrap(), b"one");
        std::fs::write(&path, "x".repeat(10_000)).unwrap();
        assert_eq!(kept.read(&mut buffer).unwrap().len(), 10_000);
        std::fs::write(&path, "2").unwrap();
        assert_eq!(kept.read(&mut buffer).unwrap(), b"2");
    }

    #[test]
    fn what_is_harmless_already_stays_as_it_is() {
        for text in [
            "",
            "trader-3 (x)",
            &"a".repeat(64),
            &"b".repeat(65),
            "caf\u{e9}",
            "\u{1b}[2J\t\0",
        ] {
            let long: String = transport::stats::sanitise(text).chars().take(64).collect();
            assert_eq!(harmless(text), long, "{text:?}");
        }
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "nr_periods_total 9\nnr_periods 3\nVmLck:\t  12 kB\n";
        assert_eq!(field(text, "nr_periods"), Some("3"));
        assert_eq!(field(text, "VmLck"), Some("12 kB"));
        assert_eq!(field(text, "Vm"), None);
    }

    #[test]
    fn cpu_lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(cpu_list("0-2,8\n"), Some(vec![0, 1, 2, 8]));
        assert_eq!(cpu_list("\n"), Some(vec![]));
        for bad in ["3-1", "a", "0-4294967295", "0-60000,0-60000", "1-", "-"] {
            assert_eq!(cpu_list(bad), None, "{bad}");
        }
    }

    #[test]
    fn hostile_names_cannot_drive_a_terminal() {
        let text = harmless("a\u{1b}[31m\u{202e}b\n\u{9b}c");
        assert_eq!(text, "a\u{fffd}[31m\u{fffd}b\u{fffd}\u{fffd}c");
        assert_eq!(harmless("x".repeat(1000)).len(), 64);
    }
}
