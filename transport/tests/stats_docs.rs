//! `docs/stats-page.md` is the schema, printed. `UPDATE=1 cargo test -p transport --test stats_docs` rewrites it.

use std::fmt::Write;
use std::path::Path;

use transport::config::PolicyKind;
use transport::error::Step;
use transport::stats::schema::{
    self, Descriptor, HISTOGRAM_HEADS, HISTOGRAMS, HouseCounters, Kind, ProcessCounters,
    ReqCounters, RxCounters, SentCounters, TakenCounters, TxCounters, Unit, WaitCounters,
};

const INTRO: &str = "\
# The stats page

<!-- Printed from transport/src/stats/schema.rs by transport/tests/stats_docs.rs; don't edit. -->

A process that embeds the transport publishes what it does in a memfd named `shmtop-stats`, sealed against resizing and against
writing by others. It is found through a link `RUNTIME_DIR/PID-NAME → /proc/PID/fd/N`, or by looking through
`/proc/*/fd`. RUNTIME_DIR is `$SHMTOP_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/shmtop`, else `/run/user/UID/shmtop`, else
`/tmp/shmtop-UID`. Check `F_GET_SEALS` for `SHRINK|GROW` before mapping it, and load whole words only.
";

const RULES: &str = "\
- The magic is stored last: who sees it (load, then an acquire fence) sees the header and the descriptor table.
- A reader refuses a newer major version; this one still reads 1.x. Within one, it finds everything through the descriptor table in the
  page: a newer minor version has more rows, and an older reader can still show them.
- Counters whose offset is given as *derived* have no row and no word: a reader makes them out of others, as said under
  [Derived](#derived). (In layout 1.x they stood in the page under the same names, and the groups `sent` and `taken` did not exist.)
- Each group of counters has one writer (the process: several, which add atomically) and is updated word by word. Counters of
  one group may be a few messages apart.
- `handler_since_ns` has two writers: where the run of the handler is not one that is timed, and so it is 0, the housekeeping writes since
  when it runs, up to 100 ms late, and takes that back as late. It counts only where more requests were taken than replies sent.
- The facts of a slot stand behind a sequence word: odd while being written. Read it, an acquire fence, the slot, an acquire
  fence, and the sequence again: if both are equal and even, the copy is of one connection. Give up after some tries.
- `connection_id` and `opened_ns` together name an incarnation of a slot: if either changes, the counters began anew.
- A histogram has 544 buckets: 16 of width 1, then 16 for each power of two. Bit i of its octave mask says that buckets
  16·i to 16·i+15 were used; the others need not be read, and reading them would make the kernel allocate memory.
";

const DERIVED: &str = "\
16 is the size of a record's header. All but `in_flight` are sums of words that only grow: a second look never finds less than the first,
whenever each word was loaded. For `in_flight`, load the group `sent` before the group `taken`.
";

fn unit(d: &Descriptor) -> &'static str {
    match d.unit {
        Unit::Count => "count",
        Unit::Bytes => "bytes",
        Unit::Nanoseconds => "ns",
        Unit::MonotonicNs => "ns, CLOCK_MONOTONIC",
        Unit::Index => "bytes, free-running",
    }
}

fn kind(d: &Descriptor) -> &'static str {
    match d.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

fn table(out: &mut String, title: &str, rows: &[Descriptor]) {
    writeln!(
        out,
        "\n### {title}\n\n| name | offset | unit | kind | meaning |\n|---|---|---|---|---|"
    )
    .unwrap();
    for d in rows {
        let offset = d
            .offset
            .map_or("derived".into(), |at| format!("`{at:#06x}`"));
        writeln!(
            out,
            "| `{}` | {offset} | {} | {} | {} |",
            d.name,
            unit(d),
            kind(d),
            d.help
        )
        .unwrap();
    }
}

/// The first text block in a module's documentation.
fn text_block(source: &str) -> String {
    let (_, rest) = source.split_once("//! ```text\n").unwrap();
    let (map, _) = rest.split_once("//! ```").unwrap();
    map.lines()
        .map(|line| {
            line.trim_start_matches("//!")
                .strip_prefix(' ')
                .unwrap_or("")
                .to_owned()
                + "\n"
        })
        .collect()
}

/// The word constants of a module of the schema, with their documentation.
fn words(out: &mut String, title: &str, body: &str) {
    write!(
        out,
        "\n### {title}\n\n| word | name | meaning |\n|---|---|---|\n"
    )
    .unwrap();
    let mut meaning = String::new();
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            meaning.push_str(text);
            meaning.push(' ');
        } else if let Some((name, word)) = line
            .strip_prefix("pub const ")
            .and_then(|l| l.split_once(": usize = "))
        {
            let plain = meaning
                .replace("super::", "")
                .replace("crate::", "")
                .replace(['[', ']'], "")
                .replace('|', "\\|");
            writeln!(
                out,
                "| {} | {} | {} |",
                word.trim_end_matches(';'),
                name.to_lowercase(),
                plain.trim()
            )
            .unwrap();
            meaning.clear();
        }
    }
}

/// The numbers of an enumeration, with their documentation, out of its source.
fn numbers(out: &mut String, title: &str, source: &str, name: &str) {
    let (_, rest) = source.split_once(&format!("pub enum {name} {{")).unwrap();
    let (body, _) = rest.split_once("\n}\n").unwrap();
    let mut rows = Vec::new();
    let mut meaning = "";
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            meaning = text.split(" (see ").next().unwrap().trim_end_matches('.');
        } else if let Some((variant, number)) = line.trim_end_matches(',').split_once(" = ") {
            rows.push(format!(
                "{number} {} ({meaning})",
                variant.to_ascii_lowercase()
            ));
        }
    }
    assert!(!rows.is_empty(), "{name}");
    writeln!(out, "- **{title}**: {}", rows.join("; ")).unwrap();
}

/// Names by number, from 1 until there is none.
fn named(out: &mut String, title: &str, name: impl Fn(u32) -> Option<&'static str>) {
    let rows: Vec<_> = (1..)
        .map_while(|n| name(n).map(|name| format!("{n} {name}")))
        .collect();
    writeln!(out, "- **{title}**: {}", rows.join("; ")).unwrap();
}

fn printed() -> String {
    let mut out = String::from(INTRO);
    write!(
        out,
        "\nLayout {}.{}. All words are 64-bit little-endian.\n",
        schema::VERSION_MAJOR,
        schema::VERSION_MINOR
    )
    .unwrap();
    write!(
        out,
        "\n## Byte map\n\n```text\n{}```\n\n## Rules\n\n{RULES}\n## Header and facts\n",
        text_block(include_str!("../src/stats/schema.rs"))
    )
    .unwrap();
    words(
        &mut out,
        "Header, in words from the start of the page",
        include_str!("../src/stats/schema/header.rs"),
    );
    words(
        &mut out,
        "Facts, in words from the start of a slot",
        include_str!("../src/stats/schema/info.rs"),
    );
    out.push_str(
        "\n## Numbers\n\nAnother number than these is one that a newer version knows.\n\n",
    );
    let snapshot = include_str!("../src/stats/snapshot.rs");
    let descriptor = include_str!("../src/stats/schema/descriptor.rs");
    let error = include_str!("../src/error.rs");
    numbers(&mut out, "role", snapshot, "Role");
    numbers(&mut out, "state", snapshot, "SlotState");
    numbers(&mut out, "kind of a slot", snapshot, "SlotKind");
    numbers(&mut out, "close reason", error, "CloseReason");
    named(&mut out, "step", |n| Step::from_number(n).map(Step::name));
    named(&mut out, "wait policy", |n| {
        Some(PolicyKind::of(n).name()).filter(|name| *name != "?")
    });
    numbers(&mut out, "kind of a descriptor", descriptor, "Kind");
    numbers(&mut out, "unit", descriptor, "Unit");
    numbers(&mut out, "scope", descriptor, "Scope");
    out.push_str("\n## Counters\n");
    out.push_str("\nOffsets count from the start of the page for the process, else from the start of the slot.\n");
    table(&mut out, "Process", ProcessCounters::DESCRIPTORS);
    table(&mut out, "Outgoing ring", TxCounters::DESCRIPTORS);
    table(&mut out, "Messages out", SentCounters::DESCRIPTORS);
    table(&mut out, "Incoming ring", RxCounters::DESCRIPTORS);
    table(&mut out, "Messages in", TakenCounters::DESCRIPTORS);
    table(&mut out, "Waiter", WaitCounters::DESCRIPTORS);
    table(&mut out, "Requests and replies", ReqCounters::DESCRIPTORS);
    table(
        &mut out,
        "Housekeeping of the server",
        HouseCounters::DESCRIPTORS,
    );
    table(&mut out, "Histograms", &HISTOGRAMS);
    out.push_str("\nHeads (sum in ns, largest in ns, octave mask): ");
    let heads = HISTOGRAMS
        .iter()
        .zip(HISTOGRAM_HEADS)
        .map(|(d, head)| format!("`{}` at `{head:#06x}`", d.name));
    writeln!(out, "{}.", heads.collect::<Vec<_>>().join(", ")).unwrap();
    let derived = text_block(include_str!("../src/stats/derived.rs"));
    write!(out, "\n### Derived\n\n```text\n{derived}```\n\n{DERIVED}").unwrap();
    out
}

#[test]
fn the_page_is_documented_as_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/stats-page.md");
    if std::env::var_os("UPDATE").is_some_and(|v| v == "1") {
        std::fs::write(&path, printed()).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == printed(),
        "docs/stats-page.md is not what the schema says; run with UPDATE=1"
    );
}

#[test]
fn the_protocol_names_every_step_with_its_number() {
    let protocol = include_str!("../../docs/protocol.md");
    let (_, steps) = protocol.split_once("### Steps\n").unwrap();
    for n in 1.. {
        let Some(step) = Step::from_number(n) else {
            break;
        };
        let entry = format!("{n} *{}*", step.name());
        assert!(steps.contains(&entry), "docs/protocol.md lacks {entry}");
    }
}

/// A counter that nobody writes is a false 0 in every viewer.
#[test]
fn every_counter_has_a_writer() {
    let mut source = String::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            // Who reads a page, or tests one, names them all.
            let reads = ["derived", "parse", "reader", "snapshot"].contains(&name);
            if path.is_dir() {
                folders.push(path);
            } else if !reads && !name.ends_with("tests") {
                let text = std::fs::read_to_string(path).unwrap();
                source += text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            }
        }
    }
    // The whole name: `.parks` is no writer of `.park`.
    let written = |name: &str| {
        let whole = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        source.split(&format!(".{name}")).skip(1).any(whole)
    };
    let idle: Vec<_> = schema::descriptors()
        .filter(|d| d.offset.is_some() && !written(d.name))
        .map(|d| d.name)
        .collect();
    assert!(idle.is_empty(), "nobody writes {idle:?}");
}

#[test]
fn every_counter_has_a_name_and_a_help_that_fit_the_page() {
    let mut names = std::collections::HashSet::new();
    for d in schema::descriptors().chain(&HISTOGRAMS) {
        assert!(d.name.len() <= 40 && !d.help.is_empty(), "{}", d.name);
        assert!(
            d.name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
            "{}",
            d.name
        );
        assert!(names.insert(d.name), "{} twice", d.name);
    }
    let derived = schema::descriptors().filter(|d| d.offset.is_none());
    assert_eq!(names.len() - derived.count(), schema::DESCRIPTOR_COUNT);
}
