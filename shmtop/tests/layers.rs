//! The table "shmtop: data flows one way" of ARCHITECTURE.md against the paths that the sources import.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Modules by name.
type Names = BTreeSet<String>;

/// The names between backquotes.
fn names(cell: &str) -> Vec<String> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

/// For each module of the table the modules that it may import, and for each module but a leaf those that it says it does.
fn table() -> (BTreeMap<String, Names>, BTreeMap<String, Names>) {
    let text = include_str!("../../ARCHITECTURE.md");
    let (_, section) = text.split_once("## shmtop: data flows one way\n").unwrap();
    let rows = section.lines().skip_while(|l| !l.starts_with("|--"));
    let rows = rows.skip(1).take_while(|l| l.starts_with('|'));
    let (mut may, mut says) = (BTreeMap::new(), BTreeMap::new());
    let (mut leaves, mut above) = (Names::new(), Names::new());
    for (i, row) in rows.enumerate() {
        let cells: Vec<_> = row.split('|').collect();
        let imports: Names = names(cells[3]).into_iter().collect();
        for module in names(cells[1]) {
            let allowed = leaves.union(&imports).cloned().collect();
            assert!(
                may.insert(module.clone(), allowed).is_none(),
                "{module} twice"
            );
            if i == 0 {
                leaves.insert(module);
            } else {
                assert!(
                    imports.is_subset(&above),
                    "{module} imports from rows below: {imports:?}"
                );
                says.insert(module.clone(), imports.clone());
                above.insert(module);
            }
        }
    }
    (may, says)
}

/// The sources without tests, each with its path below `src` and without comments.
fn sources() -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut folders) = (Vec::new(), vec![src.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let below = path.strip_prefix(&src).unwrap().to_owned();
            if below.with_extension("").ends_with("tests")
                || below == Path::new("lib.rs")
                || below == Path::new("main.rs")
            {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
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

/// The modules that a file names after `crate::`, one or several in braces.
fn imports(code: &str) -> Vec<&str> {
    let end = |c: char| !c.is_alphanumeric() && c != '_';
    let mut all = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let list = match rest.strip_prefix('{') {
            // Deeper braces would hide a comma: no name of a module comes out then, and the test says so.
            Some(list) => list.split('}').next().unwrap(),
            None => &rest[..rest.find(end).unwrap_or(rest.len())],
        };
        let paths = list.split(',').map(str::trim).filter(|p| !p.is_empty());
        all.extend(paths.map(|p| p.split(end).next().unwrap()));
    }
    all
}

#[test]
fn a_module_imports_what_its_row_of_the_map_says() {
    let (may, says) = table();
    let mut does: BTreeMap<String, Names> = BTreeMap::new();
    for (file, code) in sources() {
        let parts: Vec<_> = file.iter().map(|n| n.to_str().unwrap()).collect();
        let module = parts[0].trim_end_matches(".rs");
        let allowed = may.get(module);
        let allowed = allowed.unwrap_or_else(|| panic!("{module} is in no row of the map"));
        let done = does.entry(module.to_owned()).or_default();
        for name in imports(&code) {
            assert!(
                may.contains_key(name),
                "{file:?}: crate::{name} names no module of the map"
            );
            assert!(
                name == module || allowed.contains(name),
                "{file:?} imports {name}"
            );
            done.insert(name.to_owned());
        }
        // By `super`, nobody gets out of the module.
        let depth = parts.iter().filter(|n| **n != "mod.rs").count();
        assert!(
            !code.contains(&"super::".repeat(depth)),
            "{file:?} leaves {module} by `super`"
        );
    }
    assert!(may.keys().eq(does.keys()), "modules: {:?}", does.keys());
    for (module, says) in says {
        let idle: Vec<_> = says.difference(&does[&module]).collect();
        assert!(idle.is_empty(), "{module} does not import {idle:?}");
    }
}
