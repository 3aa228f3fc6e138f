//! What every finding of every scenario says to do: typable, and no command of a stranger.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use shmtop::judge::Judge;
use shmtop::model::Model;
use shmtop::sample::Sample;

use super::base::Base;
use super::play::{Scenario, played, scenarios};
use super::{hostile, patch};

/// Words that a command begins with; everything else is a sentence.
const COMMANDS: &[&str] = &[
    "cargo",
    "cat",
    "chrt",
    "cpupower",
    "dmesg",
    "echo",
    "head",
    "journalctl",
    "kill",
    "ls",
    "perf",
    "prlimit",
    "ps",
    "renice",
    "sensors",
    "setcap",
    "shmtop",
    "ss",
    "sudo",
    "sysctl",
    "systemctl",
    "taskset",
];

#[test]
fn what_to_do_is_a_line_that_a_shell_takes_as_it_stands_or_a_sentence() {
    let mut fixes = BTreeMap::new();
    for f in played()
        .iter()
        .flat_map(|(_, _, models)| models)
        .flat_map(|m| &m.findings)
    {
        let shape: String = f.fix.chars().filter(|c| !c.is_ascii_digit()).collect();
        fixes.entry((f.id, shape)).or_insert(&f.fix);
    }
    assert!(fixes.len() > 50, "{}", fixes.len());
    let wrong: Vec<String> = fixes
        .iter()
        .filter_map(|((id, _), fix)| Some(format!("{id}: {} in {fix:?}", untypable(fix)?)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Why a person could not type this, or read it as a sentence.
fn untypable(fix: &str) -> Option<String> {
    const GAPS: &[&str] = &["CPU", "PID", "TID", "N", "NAME", "FILE", "PATH"];
    let command = fix.split('#').next().unwrap_or("");
    let words = || command.split_whitespace();
    let first = words().next().unwrap_or("");
    let mut letters = command.split(|c: char| !c.is_alphanumeric());
    if let Some(gap) = letters.find(|w| GAPS.contains(w)) {
        return Some(format!("a gap to fill in: {gap}"));
    }
    if !COMMANDS.contains(&first) {
        let inside = |c: &&&str| {
            [": ", "`"]
                .iter()
                .any(|p| command.contains(&format!("{p}{c} ")))
        };
        let hidden = COMMANDS.iter().find(inside)?;
        return Some(format!("a command inside of a sentence: {hidden}"));
    }
    let shell = std::process::Command::new("sh")
        .args(["-n", "-c", fix])
        .output()
        .unwrap();
    if !shell.status.success() {
        return Some(String::from_utf8_lossy(&shell.stderr).into_owned());
    }
    let person = words().find(|w| ["then", "if", "or", "and", "look"].contains(w))?;
    Some(format!("a person's part before the #: {person}"))
}

/// Plays the scenarios that are `wanted` (by the file's name), with each sample changed, and looks at each model.
fn replay(wanted: &[&str], change: impl Fn(&mut Sample), mut look: impl FnMut(&Model)) {
    let is_wanted = |p: &&PathBuf| wanted.iter().any(|name| p.ends_with(name));
    for path in scenarios().iter().filter(is_wanted) {
        let text = std::fs::read_to_string(path).unwrap();
        let s: Scenario = toml::from_str(&text).unwrap();
        let base = Base::named(&s.base);
        let mut judge = Judge::new();
        for t in 0..=s.seconds {
            let mut sample = patch::sample(&base, &s.patch, t);
            change(&mut sample);
            look(&judge.push(sample));
        }
    }
}

#[test]
fn no_name_or_path_of_a_stranger_is_a_command_or_steers_the_terminal() {
    let mut fired = BTreeSet::new();
    replay(&["fires.toml", "gone.toml"], hostile::rename, |model| {
        let report = shmtop::report::doctor_text(model, "");
        let steers = |c: char| c.is_control() && c != '\n';
        assert!(!report.contains(steers), "{report:?}");
        for f in &model.findings {
            let rest = f.fix.replace(&hostile::quoted(), "");
            assert!(!rest.contains("touch"), "{}: {}", f.id, f.fix);
            fired.insert(f.id);
        }
    });
    assert!(fired.len() > 50, "{fired:?}");
}

#[test]
fn root_is_told_no_sudo_and_others_are_where_only_root_may() {
    let mut as_root = BTreeSet::new();
    let looked_at_by_root = |sample: &mut Sample| sample.viewer.euid = 0;
    replay(&["fires.toml"], looked_at_by_root, |model| {
        for f in &model.findings {
            assert!(!f.fix.contains("sudo"), "{}: {}", f.id, f.fix);
            as_root.insert(f.id);
        }
    });
    assert!(as_root.len() > 50, "{as_root:?}");
    let models = played().iter().flat_map(|(_, _, models)| models);
    let findings: Vec<_> = models.flat_map(|m| m.findings.iter()).collect();
    for word in [
        "sysctl",
        "tee",
        "setcap",
        "nsenter",
        "renice",
        "journalctl",
        "cpupower",
        "dmesg",
    ] {
        let mut met = false;
        for f in &findings {
            let bare = f.fix.replace(&format!("sudo {word} "), "");
            assert!(!bare.contains(&format!("{word} ")), "{}: {}", f.id, f.fix);
            met |= bare != f.fix;
        }
        assert!(met, "nobody is told to {word}");
    }
}
