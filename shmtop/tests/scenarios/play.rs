//! Scenario files: read, played second by second, and compared with what they expect.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde::Deserialize;
use shmtop::judge::Judge;
use shmtop::model::Model;

use super::base::Base;
use super::patch;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// For the reader of the file.
    #[serde(rename = "why")]
    pub(crate) _why: String,
    pub(crate) base: String,
    pub(crate) seconds: u64,
    #[serde(default)]
    pub(crate) patch: Vec<patch::Patch>,
    pub(crate) expect: Vec<Expect>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) at: u64,
    pub(crate) fires: Option<String>,
    pub(crate) quiet: Option<String>,
    pub(crate) unknown: Option<String>,
    pub(crate) explains: Option<String>,
    pub(crate) severity: Option<String>,
    pub(crate) client: Option<u32>,
    pub(crate) says: Option<String>,
    pub(crate) fix: Option<String>,
    pub(crate) about: Option<Vec<u32>>,
    pub(crate) why: Option<String>,
}

pub(crate) fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

pub(crate) fn scenarios() -> Vec<PathBuf> {
    let mut out = Vec::new();
    for id in std::fs::read_dir(dir())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_dir())
    {
        let files = std::fs::read_dir(id).unwrap().map(|e| e.unwrap().path());
        out.extend(files.filter(|f| f.extension().is_some_and(|e| e == "toml")));
    }
    out.sort();
    out
}

/// The models of a scenario, one per second.
pub(crate) fn play(s: &Scenario) -> Vec<Model> {
    let base = Base::named(&s.base);
    let mut judge = Judge::new();
    (0..=s.seconds)
        .map(|t| judge.push(patch::sample(&base, &s.patch, t)))
        .collect()
}

/// A file's name, what is in it, and its models.
pub(crate) type Played = (String, Scenario, Vec<Model>);

/// All scenarios, played once for all tests.
pub(crate) fn played() -> &'static [Played] {
    static PLAYED: LazyLock<Vec<Played>> = LazyLock::new(|| {
        let one = |path: &PathBuf| {
            let name = path.strip_prefix(dir()).unwrap().display().to_string();
            let text = std::fs::read_to_string(path).unwrap();
            let s: Scenario = toml::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            let models = play(&s);
            (name, s, models)
        };
        // Half a minute for one CPU, while the tests wait for it on the others.
        let (files, cpus) = (scenarios(), std::thread::available_parallelism());
        let share = files.len().div_ceil(cpus.map_or(1, Into::into));
        std::thread::scope(|s| {
            let parts = files.chunks(share);
            let parts = parts.map(|p| s.spawn(move || p.iter().map(one).collect::<Vec<_>>()));
            let parts: Vec<_> = parts.collect();
            let joined = parts
                .into_iter()
                .map(|p| p.join().expect("its own panic says why"));
            joined.flatten().collect()
        })
    });
    &PLAYED
}

pub(crate) fn check(model: &Model, e: &Expect) -> Result<(), String> {
    let shown = || {
        let fired: Vec<String> = model
            .findings
            .iter()
            .map(|f| {
                format!(
                    "{} {} {:?}: {}",
                    f.severity.name(),
                    f.id,
                    f.subject.client,
                    f.says
                )
            })
            .collect();
        format!("findings: {fired:#?}")
    };
    if let Some(id) = &e.fires {
        let found = model
            .findings
            .iter()
            .filter(|f| f.id == id)
            .find(|f| e.client.is_none() || f.subject.client == e.client)
            .ok_or_else(|| {
                let why: Vec<_> = model.unknown.iter().filter(|u| u.id == id).collect();
                format!("{id} does not fire; {}; unknown: {why:?}", shown())
            })?;
        if e.severity
            .as_deref()
            .is_some_and(|s| s != found.severity.name())
        {
            return Err(format!("{id} is {}", found.severity.name()));
        }
        for (what, text, part) in [("says", &found.says, &e.says), ("fix", &found.fix, &e.fix)] {
            if part.as_ref().is_some_and(|p| !text.contains(p.as_str())) {
                return Err(format!("{id} {what} {text:?}, not {part:?}"));
            }
        }
        if e.about.is_some() && e.about != found.about {
            return Err(format!("{id} is about {:?}", found.about));
        }
        if found.evidence.is_empty() || found.fix.is_empty() {
            return Err(format!("{id} has no evidence or no fix"));
        }
        if let Some(x) = &e.explains
            && !found.explains.iter().any(|f| f.id == x)
        {
            return Err(format!("{id} does not explain {x}: {:?}", found.explains));
        }
    }
    if let Some(id) = &e.quiet {
        let fires =
            |f: &&shmtop::model::Finding| f.id == id || f.explains.iter().any(|x| x.id == id);
        if let Some(f) = model.findings.iter().find(fires) {
            return Err(format!("{id} fires: {}", f.says));
        }
        // Whoever is asked has to answer: one that does is no answer for the others.
        let unknown: Vec<_> = model.unknown.iter().filter(|u| u.id == id).collect();
        if !unknown.is_empty() || !model.checked.contains(&id.as_str()) {
            return Err(format!("{id} is not quiet but unknown: {unknown:?}"));
        }
    }
    if let Some(id) = &e.unknown {
        let found = model
            .unknown
            .iter()
            .find(|u| u.id == id)
            .ok_or_else(|| format!("{id} is not unknown; {}", shown()))?;
        if model.findings.iter().any(|f| f.id == id) {
            return Err(format!("{id} is unknown and fires"));
        }
        if e.why
            .as_ref()
            .is_some_and(|w| !found.why.text.contains(w.as_str()))
        {
            return Err(format!(
                "{id} is unknown because {:?}, not {:?}",
                found.why.text, e.why
            ));
        }
    }
    Ok(())
}
