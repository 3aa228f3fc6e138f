//! Hints on scenarios: each `ID/CASE.toml` patches a healthy machine second by second and says what shmtop must answer.
//!
//! ```toml
//! why = "what this is about"
//! base = "busy"                    # see base.rs
//! seconds = 6                      # the last second that is sampled
//! [[patch]]
//! from = 0                         # first second it holds
//! to = 99                          # last one
//! [patch.set]
//! "process.server.fds" = 61        # a value
//! "slot.1.req.timeouts" = "+50"    # grows by 50 each second from `from` on
//! "page.server.process.heartbeat_ns" = "now-4.2s"      # a moment: so long ago
//! "slot.1.tx.tx_messages" = "stop" # as it was at second `from`
//! "slot.1.rtt" = "hist 1000@1200 10@90000"    # so many values of so many ns each second ("also hist …": besides the base's)
//! [[expect]]
//! at = 6
//! fires = "fd-headroom"            # or quiet, or unknown
//! severity = "warn"
//! says = "61 of 64 fds used"
//! ```
//! Paths start with `process.WHO`, `thread.WHO`, `page.WHO`, `content.WHO`, `perf.WHO` (WHO: `server` or a client's number), `slot.N` (the
//! client's slot), `at-server.N` (the same connection in the server's page), `poller`, `cpu.N`, `listener`, or a field
//! of the sample; the rest follows its JSON.

mod base;
mod hostile;
mod patch;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use base::{BASES, Base};
use serde::Deserialize;
use shmtop::hint::rules;
use shmtop::model::{Model, ModelBuilder, Severity};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// For the reader of the file.
    #[serde(rename = "why")]
    _why: String,
    base: String,
    seconds: u64,
    #[serde(default)]
    patch: Vec<patch::Patch>,
    expect: Vec<Expect>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    at: u64,
    fires: Option<String>,
    quiet: Option<String>,
    unknown: Option<String>,
    explains: Option<String>,
    severity: Option<String>,
    client: Option<u32>,
    says: Option<String>,
    fix: Option<String>,
    about: Option<Vec<u32>>,
    why: Option<String>,
}

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn scenarios() -> Vec<PathBuf> {
    let mut out = Vec::new();
    for id in std::fs::read_dir(dir())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_dir())
    {
        out.extend(std::fs::read_dir(id).unwrap().map(|e| e.unwrap().path()));
    }
    out.sort();
    out
}

/// The models of a scenario, one per second.
fn play(s: &Scenario) -> Vec<Model> {
    let base = Base::named(&s.base);
    let mut builder = ModelBuilder::new();
    (0..=s.seconds)
        .map(|t| builder.push(patch::sample(&base, &s.patch, t)))
        .collect()
}

/// A file's name, what is in it, and its models.
type Played = (String, Scenario, Vec<Model>);

/// All scenarios, played once for all tests.
fn played() -> &'static [Played] {
    static PLAYED: LazyLock<Vec<Played>> = LazyLock::new(|| {
        let one = |path: PathBuf| {
            let name = path.strip_prefix(dir()).unwrap().display().to_string();
            let text = std::fs::read_to_string(&path).unwrap();
            let s: Scenario = toml::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            let models = play(&s);
            (name, s, models)
        };
        scenarios().into_iter().map(one).collect()
    });
    &PLAYED
}

fn check(model: &Model, e: &Expect) -> Result<(), String> {
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
        if !model.checked.contains(&id.as_str()) {
            let why: Vec<_> = model.unknown.iter().filter(|u| u.id == id).collect();
            return Err(format!("{id} is not quiet but unknown: {why:?}"));
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

#[test]
fn every_scenario_gets_its_answer() {
    let mut wrong = Vec::new();
    for (name, s, models) in played() {
        for e in &s.expect {
            if let Err(why) = check(&models[e.at as usize], e) {
                wrong.push(format!("{name} at {} s: {why}", e.at));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Words that a command begins with; everything else is a sentence.
const COMMANDS: &[&str] = &[
    "cargo", "cat", "chrt", "cpupower", "dmesg", "echo", "gdb", "kill", "ls", "perf", "prlimit",
    "ps", "renice", "sensors", "setcap", "shmtop", "ss", "sudo", "sysctl", "taskset",
];

#[test]
fn what_to_do_is_a_line_that_a_shell_takes_as_it_stands_or_a_sentence() {
    let mut fixes = std::collections::BTreeMap::new();
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

#[test]
fn no_name_or_path_of_a_stranger_is_a_command_or_steers_the_terminal() {
    let mut fired = BTreeSet::new();
    let quiet = ["near-miss.toml", "recovers.toml", "not-enough-data.toml"];
    let loud = |p: &&PathBuf| !quiet.iter().any(|q| p.ends_with(q));
    for path in scenarios().iter().filter(loud) {
        let text = std::fs::read_to_string(path).unwrap();
        let s: Scenario = toml::from_str(&text).unwrap();
        let base = Base::named(&s.base);
        let mut builder = ModelBuilder::new();
        for t in 0..=s.seconds {
            let mut sample = patch::sample(&base, &s.patch, t);
            hostile::rename(&mut sample);
            let model = builder.push(sample);
            let report = shmtop::report::doctor_text(&model, false);
            let steers = |c: char| c.is_control() && c != '\n';
            assert!(!report.contains(steers), "{report:?}");
            for f in &model.findings {
                let rest = f.fix.replace(&hostile::quoted(), "");
                assert!(!rest.contains("touch"), "{}: {}", f.id, f.fix);
                fired.insert(f.id);
            }
        }
    }
    assert!(fired.len() > 50, "{fired:?}");
}

#[test]
fn every_hint_has_its_four_scenarios() {
    let have: BTreeSet<String> = scenarios()
        .iter()
        .map(|p| {
            p.strip_prefix(dir())
                .unwrap()
                .with_extension("")
                .display()
                .to_string()
        })
        .collect();
    let mut missing = Vec::new();
    for r in rules() {
        for case in ["fires", "near-miss", "recovers", "not-enough-data"] {
            let name = format!("{}/{case}", r.id);
            if !have.contains(&name) {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "missing: {missing:?}");
    let ids: BTreeSet<&str> = rules().map(|r| r.id).collect();
    for name in &have {
        let id = name.split('/').next().unwrap();
        assert!(ids.contains(id), "{name} is about no hint");
    }
}

#[test]
fn a_healthy_workload_raises_nothing_at_warn_or_above() {
    for base in BASES {
        let mut builder = ModelBuilder::new();
        for t in 0..=15 {
            let model = builder.push(base.sample(t));
            let loud: Vec<_> = model
                .findings
                .iter()
                .filter(|f| f.severity >= Severity::Warn)
                .collect();
            assert!(loud.is_empty(), "{} at {t} s: {loud:#?}", base.name);
        }
    }
}

#[test]
fn a_finding_that_speaks_for_many_counts_nobody_who_was_not_asked_for() {
    let base = Base::named("busy");
    let pid = Base::client_pid(1);
    let says = |asked: &[u32]| {
        let mut builder = ModelBuilder::new().asked_for(asked);
        let mut last = Model::empty();
        for t in 0..=4 {
            let mut sample = base.sample(t);
            for page in &mut sample.pages {
                if let shmtop::sample::PageContent::Read(s) = &mut page.content {
                    s.debug_build = true;
                }
            }
            last = builder.push(sample);
        }
        let found = last.findings.into_iter().find(|f| f.id == "debug-build");
        found.unwrap().says
    };
    assert!(says(&[]).contains("(and 4 more)"), "{}", says(&[]));
    let alone = format!("trader (pid {pid}) is a debug build: its latencies mean nothing");
    assert_eq!(says(&[pid]), alone);
}

#[test]
fn on_a_machine_that_shows_everything_no_rule_is_left_unanswered() {
    let base = Base::named("busy");
    let mut builder = ModelBuilder::new();
    let mut last = Model::empty();
    for t in 0..=13 {
        last = builder.push(base.sample(t));
    }
    assert!(last.unknown.is_empty(), "{:#?}", last.unknown);
    assert_eq!(last.checked.len(), rules().count());
    assert_eq!(last.needs_s, 0);
}

#[test]
fn before_enough_seconds_the_answer_is_that_more_are_needed() {
    let mut builder = ModelBuilder::new();
    let model = builder.push(Base::named("busy").sample(0));
    assert!(model.checked.is_empty() && model.needs_s >= 3);
    assert!(
        model.unknown.iter().all(|u| u.why.text.contains("more")),
        "{:?}",
        model.unknown
    );
}

#[test]
fn explanations_form_no_circle() {
    let explains = |id: &str| rules().find(|r| r.id == id).map_or(&[][..], |r| r.explains);
    fn walk(id: &str, path: &mut Vec<String>, explains: &dyn Fn(&str) -> &'static [&'static str]) {
        assert!(!path.iter().any(|p| p == id), "{path:?} leads back to {id}");
        path.push(id.to_owned());
        for next in explains(id) {
            walk(next, path, explains);
        }
        path.pop();
    }
    for r in rules() {
        walk(r.id, &mut Vec::new(), &explains);
        for id in r.explains {
            assert!(
                rules().any(|r| r.id == *id),
                "{} explains {id}, which is no hint",
                r.id
            );
        }
    }
}

/// `SHMTOP_BLESS=1 cargo test` rewrites it.
#[test]
fn the_catalogue_in_docs_is_printed_from_the_rules() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/hints.md");
    let wanted = shmtop::hint::catalogue();
    if std::env::var_os("SHMTOP_BLESS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/hints.md differs from the rules: run SHMTOP_BLESS=1 cargo test -p shmtop --test scenarios"
    );
}
