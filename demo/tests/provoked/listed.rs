//! `docs/testing.md` names the hints that nothing here provokes, and no others.

use crate::common::Place;
use crate::{FAMILIES, Outcome, Provocation, together};

pub(crate) const PROVOCATIONS: &[Provocation] = &[together("not-provoked-are-listed", listed)];

fn listed(_: &Place) -> Outcome {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/testing.md");
    let document = std::fs::read_to_string(document).expect("docs/testing.md");
    let chapter = document
        .split("\n## ")
        .find(|c| c.starts_with("Faults provoked for real\n"));
    let chapter = chapter.expect("the chapter on this test");
    for hint in shmtop::hint::rules() {
        let is_provoked = FAMILIES.iter().any(|f| f.iter().any(|p| p.id == hint.id));
        let is_listed = chapter.contains(&format!("`{}`", hint.id));
        assert_ne!(is_provoked, is_listed, "{} in docs/testing.md", hint.id);
    }
    Ok(())
}
