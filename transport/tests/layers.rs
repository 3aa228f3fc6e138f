//! The table "transport: imports run downward" of ARCHITECTURE.md against the paths that the sources import.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Where a module stands in the table: its layer, its row and its place in the row, from the top left.
type Place = (usize, usize, usize);

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The places of all modules. A row without a layer's name belongs to the layer above; names in parentheses are files of the module before.
fn table() -> HashMap<&'static str, Place> {
    let text = include_str!("../../ARCHITECTURE.md");
    let (_, section) = text
        .split_once("## transport: imports run downward\n")
        .unwrap();
    let rows = section.lines().skip_while(|l| !l.starts_with("|--"));
    let rows = rows.skip(1).take_while(|l| l.starts_with('|'));
    let (mut places, mut layer) = (HashMap::new(), 0);
    for (row, cells) in rows.map(|l| l.split('|').collect::<Vec<_>>()).enumerate() {
        layer += usize::from(!cells[1].trim().is_empty());
        let (mut inside, mut module) = (false, "");
        for (column, piece) in cells[2].split('`').enumerate() {
            if column % 2 == 0 {
                inside = piece
                    .rfind(['(', ')'])
                    .map_or(inside, |at| piece[at..].starts_with('('));
            } else if inside {
                let file = src().join(module).join(piece).with_extension("rs");
                assert!(file.exists(), "{module} has no {piece}");
            } else {
                module = piece;
                assert!(
                    places.insert(module, (layer, row, column)).is_none(),
                    "{module} twice"
                );
            }
        }
    }
    places
}

/// The sources without tests, each with its path below `src`.
fn sources() -> Vec<(PathBuf, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![src()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let below = path.strip_prefix(src()).unwrap().to_owned();
            let name = below.to_string_lossy();
            if name == "lib.rs" || name.ends_with("tests.rs") || name.ends_with("testing.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("\nmod tests {").next().unwrap();
            let lines = code.lines().map(|l| l.split("//").next().unwrap());
            found.push((below, lines.collect::<Vec<_>>().join("\n")));
        }
    }
    found
}

#[test]
fn a_module_imports_what_stands_below_it_or_to_its_right() {
    let (table, sources) = (table(), sources());
    let mut read = 0;
    for (file, code) in &sources {
        let names: Vec<_> = file.iter().map(|n| n.to_str().unwrap()).collect();
        let module = names[0].trim_end_matches(".rs");
        let from = table.get(module);
        let from = *from.unwrap_or_else(|| panic!("{module} is in no row of the table"));
        for rest in code.split("crate::").skip(1) {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            let name = &rest[..end.unwrap_or(rest.len())];
            let to = table.get(name);
            let to = *to.unwrap_or_else(|| panic!("{file:?}: crate::{name}… names no module"));
            let to_the_right = (from.0, from.1) == (to.0, to.1) && from.2 <= to.2;
            assert!(from.0 < to.0 || to_the_right, "{file:?} imports {name}");
            read += 1;
        }
        // By `super`, nobody gets out of the module.
        let depth = names.iter().filter(|n| **n != "mod.rs").count();
        assert!(
            !code.contains(&"super::".repeat(depth)),
            "{file:?} leaves {module} by `super`"
        );
    }
    assert!(
        read > 300,
        "{read} imports: are they written in another way now?"
    );
    for module in table.keys() {
        let is_there = sources
            .iter()
            .any(|(file, _)| file.with_extension("").starts_with(module));
        assert!(is_there, "the table's {module} is not there");
    }
}
