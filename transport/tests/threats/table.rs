//! `docs/testing.md` says the truth: it has a section for every threat, names tests that exist, leaves none of ours out, and lists the fault points.
//! `UPDATE=1 cargo test -p transport --test threats table` rewrites the list.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use transport::fault::Point;

/// Threats there are.
const ROWS: usize = 42;
const BEGIN: &str = "<!-- fault points: printed by transport/tests/threats/table.rs -->\n";
const END: &str = "<!-- end of fault points -->\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn document() -> String {
    std::fs::read_to_string(root().join("docs/testing.md")).expect("docs/testing.md")
}

/// The sections: number and text, without the headline.
fn rows(document: &str) -> Vec<(usize, &str)> {
    let sections = document.split("\n### ").skip(1);
    sections
        .filter_map(|section| {
            let (headline, text) = section.split_once('\n')?;
            let (number, _) = headline.split_once(". ")?;
            // The last one ends where the next chapter begins.
            let text = text.split("\n## ").next()?;
            Some((number.parse().ok()?, text))
        })
        .collect()
}

/// `path/to/file.rs::test` in backticks, wherever they stand.
fn named(text: &str) -> Vec<(String, String)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|word| word.split_once(".rs::"))
        .map(|(file, test)| (format!("{file}.rs"), test.to_owned()))
        .collect()
}

/// Where a file of the table is: short names are of `transport/tests/threats`.
fn place(file: &str) -> PathBuf {
    if file.contains('/') {
        root().join(file)
    } else {
        root().join("transport/tests/threats").join(file)
    }
}

#[test]
fn the_document_has_every_threat_and_each_names_tests_that_exist() {
    let document = document();
    let rows = rows(&document);
    let numbers: Vec<usize> = rows.iter().map(|(n, _)| *n).collect();
    assert_eq!(
        numbers,
        (1..=ROWS).collect::<Vec<_>>(),
        "sections in docs/testing.md"
    );
    for (number, text) in &rows {
        for field in ["Injected", "Outcome", "Proved by taking out"] {
            let begin = format!("\n- {field}: ");
            assert_eq!(text.matches(&begin).count(), 1, "threat {number}: {field}");
        }
        assert!(!named(text).is_empty(), "threat {number} names no test");
    }
    for (file, test) in named(&document) {
        let text = std::fs::read_to_string(place(&file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        let there = text.contains(&format!("fn {test}("));
        assert!(
            there,
            "docs/testing.md names {file}::{test}, which does not exist"
        );
    }
}

#[test]
fn no_test_of_a_threat_is_left_out_of_the_document() {
    let named: BTreeSet<_> = named(&document()).into_iter().collect();
    let dir = root().join("transport/tests/threats");
    let entries = std::fs::read_dir(dir).expect("the tests").flatten();
    // The parts of `rogue` have a directory, and no tests.
    for file in entries.filter(|entry| entry.path().is_file()) {
        let name = file.file_name().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(file.path()).expect("a test file");
        let tests = text
            .split("#[test]\nfn ")
            .skip(1)
            .filter_map(|rest| rest.split_once('('));
        for (test, _) in tests.filter(|_| name != "table.rs" && name != "role.rs") {
            let both = (name.clone(), test.to_owned());
            assert!(
                named.contains(&both),
                "docs/testing.md lacks `{name}::{test}`"
            );
        }
    }
}

#[test]
fn the_list_of_fault_points_is_the_codes() {
    let yes = |passes: bool| if passes { "yes" } else { "" };
    let mut list = String::from("| what has just been done | client | server |\n|---|---|---|\n");
    for point in Point::ALL {
        list += &format!(
            "| {} | {} | {} |\n",
            point.text(),
            yes(point.in_client()),
            yes(point.in_server())
        );
    }
    let document = document();
    let (before, rest) = document.split_once(BEGIN).expect("the list's begin");
    let (_, after) = rest.split_once(END).expect("its end");
    let right = format!("{before}{BEGIN}{list}{END}{after}");
    if std::env::var_os("UPDATE").is_some_and(|v| v == "1") {
        std::fs::write(root().join("docs/testing.md"), right).expect("docs/testing.md");
    } else {
        assert!(
            document == right,
            "docs/testing.md is stale: UPDATE=1 cargo test -p transport --test threats table"
        );
    }
}
