//! docs/benchmarks.md: a preface that people write, and between pairs of markers what this program measured.

use std::fmt::Write;
use std::io;
use std::path::Path;

use crate::subject::Subject;

/// The markers around the part of this name.
fn markers(part: &str) -> [String; 2] {
    ["begin", "end"].map(|edge| format!("<!-- measured by compare, {part}: {edge} -->"))
}

/// What was measured, with what it was measured on and how each subject was used.
pub(crate) fn section(tables: &str, subjects: &[&dyn Subject], settings: &str) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "Machine: {}; its cycle counter moves on every {:.1} ns.  \nSettings: {settings}.\n",
        machine(),
        crate::clock::step_ns()
    );
    text.push_str(tables);
    text.push_str("## How each subject is used\n\n");
    for subject in subjects {
        let _ = writeln!(
            text,
            "- **{}** (`{}`): {}",
            subject.title().trim_matches('*'),
            subject.id(),
            subject.how()
        );
    }
    text
}

/// Replaces what is between the markers of a part; appends it, with markers, if there are none.
pub(crate) fn replace(path: &Path, part: &str, section: &str) -> io::Result<()> {
    let old = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e),
    };
    std::fs::write(path, spliced(&old, part, section))
}

fn spliced(old: &str, part: &str, section: &str) -> String {
    let [begin, end] = markers(part);
    let (before, after) = match (old.find(&begin), old.find(&end)) {
        (Some(from), Some(to)) if from < to => (&old[..from], &old[to + end.len()..]),
        _ => (old, "\n"),
    };
    format!("{before}{begin}\n\n{}\n\n{end}{after}", section.trim_end())
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(':').nth(1))
        .map_or("unknown CPU", str::trim);
    let guest = info
        .lines()
        .any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
    let release = read("/proc/sys/kernel/osrelease");
    let kernel: Vec<&str> = release.trim().split('-').take(1).collect();
    // Generations of one name differ in it, and by a third in the figures for large messages.
    let cache = read("/sys/devices/system/cpu/cpu0/cache/index2/size");
    let cache = match cache.trim() {
        "" => String::new(),
        size => format!(" with {size} of second-level cache each"),
    };
    format!(
        "{model}, {} CPUs{cache}{}, Linux {}",
        crate::system::allowed_cpus().len(),
        if guest { " of a virtual machine" } else { "" },
        kernel.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preface_and_other_parts_survive_a_new_measurement() {
        let once = spliced("# Preface\n", "a", "one");
        let twice = spliced(&(spliced(&once, "b", "other") + "## Tail\n"), "a", "two");
        assert!(once.starts_with("# Preface\n") && once.contains("\none\n"));
        assert!(twice.starts_with("# Preface\n") && twice.ends_with("## Tail\n"));
        assert!(twice.contains("\ntwo\n") && twice.contains("\nother\n") && !twice.contains("one"));
    }
}
