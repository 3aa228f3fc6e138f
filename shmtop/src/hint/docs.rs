//! The catalogue as text: docs/hints.md, and one entry for `shmtop explain`.

use std::fmt::Write as _;

use super::{Check, Onset, Rule, rules};

/// docs/hints.md, whole.
pub fn catalogue() -> String {
    let mut out = String::from(
        "# Hints\n\nPrinted from the rules in `shmtop/src/hint`; a test fails when this file differs. \
         `shmtop explain ID` prints one entry.\n\nSeverities: info < warn < crit. Three answers: fires, quiet, \
         unknown because … . A rule fires when it holds in 3 of the last 5 one-second windows (a state: 2, evidence that \
         carries its own age: 1), and clears after 5 that are clean, or have no answer; the first 2 s of a process or connection don't count.\n\n\
         | id | severity | what |\n|---|---|---|\n",
    );
    for r in rules() {
        let _ = writeln!(
            out,
            "| [`{0}`](#{0}) | {1} | {2} |",
            r.id,
            r.severity.name(),
            r.title
        );
    }
    for r in rules() {
        out.push('\n');
        out.push_str(&entry(r, true));
    }
    out
}

/// The entry of one rule in plain text, or `None` if there is none with this id.
pub fn explain(id: &str) -> Option<String> {
    rules().find(|r| r.id == id).map(|r| entry(r, false))
}

fn entry(r: &Rule, markdown: bool) -> String {
    let mut out = String::new();
    let (item, head) = if markdown { ("- ", "## ") } else { ("  ", "") };
    let scope = match r.check {
        Check::Host(_) => "the host",
        Check::Endpoint(_) => "each endpoint",
        Check::Client(_) => "each client",
    };
    let onset = match r.onset {
        Onset::Measured => "after 3 of 5 seconds",
        Onset::State => "after 2 seconds",
        Onset::Dated => "at once",
    };
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{item}{name}: {value}");
    };
    line("severity", r.severity.name());
    line("looks at", scope);
    line("fires", &format!("{onset}, when: {}", r.fires));
    line("quiet", r.quiet);
    line("do", r.fix);
    if r.looks_back_s > 1 {
        line("looks back", &format!("{} s", r.looks_back_s));
    }
    if !r.explains.is_empty() {
        line("explains", &r.explains.join(", "));
    }
    let reasons: String = r
        .reasons
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ");
    let title = if markdown {
        format!("{head}{}\n\n{}.\n\n", r.id, capital(r.title))
    } else {
        format!("{}: {}\n", r.id, r.title)
    };
    format!(
        "{title}{out}{}{}\n",
        if markdown { "\n" } else { "\n  " },
        reasons.trim()
    )
}

/// With a capital to begin with, unless the first word is a name that has none.
fn capital(text: &str) -> String {
    let first = text.split(' ').next().unwrap_or("");
    if first.contains(['_', '.']) || first == "shmtop" {
        return text.to_owned();
    }
    let mut chars = text.chars();
    chars
        .next()
        .map_or(String::new(), |c| c.to_uppercase().chain(chars).collect())
}
