//! Asking `shmtop doctor -f json`, and what must stand in its answer.

use std::collections::BTreeSet;
use std::sync::Mutex;

use serde_json::Value;

use crate::Outcome;
use crate::common::Place;

/// What is said of the machine and of the build under test rather than of a fault: no PMU, a debug build, and a viewer that is one.
const USUAL: [&str; 5] = [
    "no-pmu",
    "perf-denied",
    "debug-build",
    "viewer-cost",
    "shmem-thp",
];

/// Looks at an idle exchange: whatever else speaks of that would be taken for a fault provoked here.
pub(crate) fn look_at_the_machine(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let report = ask(place, &format!("-p {}", exchange.pid()));
    let faults: Vec<_> = report.hints.iter().filter(|h| !h.usual()).collect();
    assert!(faults.is_empty(), "of an idle exchange: {faults:#?}");
    let usual: Vec<_> = report.hints.iter().map(Hint::id).collect();
    println!("of this machine and build, without any fault: {usual:?}");
    Ok(())
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Report {
    hints: Vec<Hint>,
    checked: BTreeSet<String>,
    unknown: Vec<Value>,
}

/// One hint of it.
#[derive(Clone)]
pub(crate) struct Hint(Value);

impl std::fmt::Debug for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (says, fix) = (&self.0["says"], &self.0["fix"]);
        write!(f, "{} {}: {says}, do {fix}", self.severity(), self.id())?;
        for e in self.0["evidence"].as_array().into_iter().flatten() {
            write!(f, "; {} = {}", e["name"], e["value"])?;
        }
        write!(f, "; explains {}", self.0["explains"])
    }
}

/// What others do on this machine meanwhile is no fault of ours: time that a program outside of the tests, or the host, takes.
const OTHERS: [&str; 2] = ["run-delay", "steal"];

/// Runs doctor with these arguments.
pub(crate) fn ask(place: &Place, args: &str) -> Report {
    ask_as(place, "", args)
}

/// The same, by somebody: words of [`crate::parts`] before the program's name.
pub(crate) fn ask_as(place: &Place, who: &str, args: &str) -> Report {
    let end = place.run("self", &format!("{who} shmtop doctor -f json {args}"));
    let json: Value = serde_json::from_str(&end.stdout)
        .unwrap_or_else(|e| panic!("{e}: doctor {args} answered {end:?}"));
    let list = |name: &str| json[name].as_array().cloned().unwrap_or_default();
    Report {
        hints: list("hints").into_iter().map(Hint).collect(),
        checked: list("checked")
            .iter()
            .filter_map(|id| id.as_str().map(str::to_owned))
            .collect(),
        unknown: list("unknown"),
    }
}

/// Watches `pid` while the fault is there: `id` is named first, at this severity. Seven seconds: a connection's first two
/// don't count, then three of five must hold.
#[track_caller]
pub(crate) fn names(place: &Place, pid: i32, id: &str, severity: &str) -> Hint {
    ask(place, &format!("-p {pid} --for 7s")).first(id, severity)
}

/// Watches `pid` when the fault is gone: `id` was looked at, and nothing is wrong.
#[track_caller]
pub(crate) fn is_well(place: &Place, pid: i32, id: &str) {
    ask(place, &format!("-p {pid}")).well(id);
}

/// Hints whose fault went with its processes, until [`without_faults`] has looked: there is nothing to be well but a new exchange, and one
/// will do for all.
static WELL_WITHOUT: Mutex<Vec<&str>> = Mutex::new(Vec::new());

/// The fault is gone with this test; [`without_faults`] looks later.
pub(crate) fn well_without(id: &'static str) {
    WELL_WITHOUT.lock().expect("no panic").push(id);
}

/// An exchange and a client as they should be.
pub(crate) fn without_faults(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let _client = crate::connection::start(place, "client plain");
    let report = ask(place, &format!("-p {}", exchange.pid()));
    let ids = WELL_WITHOUT.lock().expect("no panic").clone();
    ids.iter().for_each(|id| report.well(id));
    WELL_WITHOUT.lock().expect("no panic").drain(..ids.len());
    Ok(())
}

/// Whether [`without_faults`] has to look once more.
pub(crate) fn is_somebody_left() -> bool {
    !WELL_WITHOUT.lock().expect("no panic").is_empty()
}

impl Report {
    /// The hint that is named first: nothing graver beside it, and nothing before it among its equals.
    #[track_caller]
    pub(crate) fn first(&self, id: &str, severity: &str) -> Hint {
        let mut told = self.hints.iter().filter(|h| !h.usual() || h.id() == id);
        let first = told.next().unwrap_or_else(|| {
            let why: Vec<_> = self.unknown.iter().filter(|u| u["id"] == id).collect();
            panic!("nothing is named, not {id}; unknown: {why:?}")
        });
        assert_eq!(
            (first.id(), first.severity()),
            (id, severity),
            "{:#?}",
            self.hints
        );
        assert!(
            first.0["evidence"]
                .as_array()
                .is_some_and(|e| !e.is_empty()),
            "without evidence: {first:?}"
        );
        assert!(
            first.0["fix"].as_str().is_some_and(|f| !f.is_empty()),
            "without a fix: {first:?}"
        );
        first.clone()
    }

    /// Nothing at warn or above, and `id` was answered.
    #[track_caller]
    pub(crate) fn well(&self, id: &str) {
        let loud: Vec<_> = self
            .hints
            .iter()
            .filter(|h| h.severity() != "info" && !h.usual())
            .collect();
        assert!(loud.is_empty(), "after {id} is gone: {loud:#?}");
        assert!(
            self.checked.contains(id) && self.hints.iter().all(|h| h.id() != id),
            "{id} is not answered: {:?}",
            self.unknown
        );
    }
}

impl Hint {
    fn id(&self) -> &str {
        self.0["id"].as_str().unwrap_or_default()
    }

    fn severity(&self) -> &str {
        self.0["severity"].as_str().unwrap_or_default()
    }

    fn usual(&self) -> bool {
        USUAL.contains(&self.id()) || OTHERS.contains(&self.id())
    }

    /// Its sentence contains this.
    #[track_caller]
    pub(crate) fn says(self, part: impl AsRef<str>) -> Self {
        self.has("says", part.as_ref())
    }

    /// Its command contains this.
    #[track_caller]
    pub(crate) fn fix(self, part: impl AsRef<str>) -> Self {
        self.has("fix", part.as_ref())
    }

    /// Its command moves a thread to another CPU, or it says that none is idle, as beside other programs' load there may be none.
    #[track_caller]
    pub(crate) fn moves_or_says_that_none_is_idle(self, command: impl AsRef<str>) -> Self {
        let fix = self.0["fix"].as_str().unwrap_or_default();
        let (command, none) = (command.as_ref(), "no other core that it may use is");
        let is_either = fix.contains(command) || fix.starts_with(none);
        assert!(is_either, "fix {fix:?}, not {command:?} nor {none:?}");
        self
    }

    /// Its command, given to sh as it stands, shows this.
    #[track_caller]
    pub(crate) fn shows(self, part: impl AsRef<str>) -> Self {
        let fix = self.0["fix"].as_str().unwrap_or_default();
        let mut sh = std::process::Command::new("sh");
        let end = sh.args(["-c", fix]).output().expect("a shell");
        let shown = String::from_utf8_lossy(&end.stdout);
        assert!(
            end.status.success() && shown.contains(part.as_ref()),
            "{fix}: {end:?}"
        );
        self
    }

    #[track_caller]
    fn has(self, what: &str, part: &str) -> Self {
        let text = self.0[what].as_str().unwrap_or_default();
        assert!(text.contains(part), "{what} {text:?}, not {part:?}");
        self
    }

    /// A number of its evidence, and what it must be.
    #[track_caller]
    pub(crate) fn number(self, name: &str, right: impl Fn(f64) -> bool) -> Self {
        let value = self.evidence(name)["value"].as_f64();
        assert!(value.is_some_and(right), "{name} is {value:?}: {self:#?}");
        self
    }

    /// A word of its evidence.
    #[track_caller]
    pub(crate) fn word(self, name: &str, wanted: &str) -> Self {
        assert_eq!(self.evidence(name)["value"], wanted, "{self:#?}");
        self
    }

    #[track_caller]
    fn evidence(&self, name: &str) -> &Value {
        let all = self.0["evidence"].as_array();
        all.and_then(|all| all.iter().find(|e| e["name"] == name))
            .unwrap_or_else(|| panic!("no evidence named {name}: {self:#?}"))
    }

    /// It names this as its consequence.
    #[track_caller]
    pub(crate) fn explains(self, id: &str) -> Self {
        let all = self.0["explains"].as_array();
        assert!(
            all.is_some_and(|all| all.iter().any(|x| x == id)),
            "explains no {id}: {self:#?}"
        );
        self
    }
}
