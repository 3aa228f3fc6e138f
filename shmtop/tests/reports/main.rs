//! Reports hold what their documents promise: schemas, formats, and that no stranger's text or number gets through unharmed.

#[path = "../scenarios/base/mod.rs"]
mod base;

use std::path::Path;

use base::{BASES, Base};
use proptest::prelude::*;
use serde_json::Value;
use shmtop::model::{Model, ModelBuilder};
use shmtop::report::{self, Dialect};
use shmtop::sample::{PageContent, Sample};
use shmtop::ui::State;

fn schema(name: &str) -> jsonschema::Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/{name}.schema.json"));
    let text = std::fs::read_to_string(&path).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

fn valid(schema: &jsonschema::Validator, document: &Value, what: &str) {
    let wrong: Vec<String> = schema
        .iter_errors(document)
        .map(|e| format!("{}: {e}", e.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{what}: {wrong:#?}");
}

/// The model after `seconds` of a healthy machine, changed by `change` in each sample.
fn model(base: &Base, seconds: u64, change: impl Fn(&mut Sample)) -> (Model, Sample) {
    let mut builder = ModelBuilder::new();
    let mut last = None;
    for t in 0..=seconds {
        let mut sample = base.sample(t);
        change(&mut sample);
        last = Some((builder.push(sample.clone()), sample));
    }
    last.unwrap()
}

fn snapshots(sample: &mut Sample) -> impl Iterator<Item = &mut transport::stats::Snapshot> {
    sample
        .pages
        .iter_mut()
        .filter_map(|p| match &mut p.content {
            PageContent::Read(s) => Some(&mut **s),
            _ => None,
        })
}

#[test]
fn snapshot_json_is_what_its_schema_says() {
    let schema = schema("snapshot");
    for base in BASES {
        for seconds in [0, 1, 12] {
            let (model, _) = model(&base, seconds, |_| {});
            valid(&schema, &report::snapshot_json(&model), base.name);
        }
    }
    valid(&schema, &report::snapshot_json(&Model::empty()), "nothing");
}

#[test]
fn snapshot_json_of_a_machine_that_shows_nothing_has_nulls_with_reasons() {
    let (model, _) = model(&Base::named("busy"), 3, |s| {
        s.processes.clear();
        s.perf.clear();
        s.host = shmtop::sample::Host::default();
        s.pages.retain(|p| p.pid == base::SERVER);
    });
    let document = report::snapshot_json(&model);
    valid(&schema("snapshot"), &document, "blind");
    let client = &document["endpoints"][0]["clients"][0];
    assert!(client["rtt_ns"]["p50"].is_null());
    assert_eq!(
        client["rtt_ns"]["why"],
        "the client's own page is not visible"
    );
    assert!(
        client["perf"]["cache_misses_per_message"].is_null() && client["perf"]["why"].is_string()
    );
    let rate = client["rx"]["messages_per_s"].as_f64().unwrap();
    assert!(
        (rate - 20_000.0).abs() < 1.0,
        "what can be had is there: {rate}"
    );
}

#[test]
fn doctor_json_is_what_its_schema_says() {
    let schema = schema("doctor");
    for seconds in [0, 6] {
        let (model, _) = model(&Base::named("busy"), seconds, |s| {
            s.processes[1].state = shmtop::sample::Fact::Known('T');
            for page in snapshots(s) {
                page.debug_build = true;
            }
        });
        let document = report::doctor_json(&model);
        valid(&schema, &document, "sick");
        assert_eq!(
            document["hints"].as_array().unwrap().is_empty(),
            seconds == 0
        );
    }
}

#[test]
fn the_reasons_of_an_object_differ_by_name_only_where_they_differ() {
    let (model, _) = model(&Base::named("busy"), 0, |_| {});
    let document = report::snapshot_json(&model);
    assert_eq!(
        document["endpoints"][0]["clients"][0]["rtt_ns"]["why"],
        "needs a second sample of this connection"
    );
}

#[test]
fn no_report_lets_a_strangers_text_steer_a_terminal_or_a_parser() {
    let evil = "a\u{1b}[31m\u{202e}\"\\\n,=1\u{7}";
    let (model, sample) = model(&Base::named("busy"), 4, |s| {
        for p in &mut s.processes {
            p.comm = evil.into();
        }
        for page in &mut s.pages {
            page.link = evil.into();
        }
        let mut unreadable = s.pages[1].clone();
        unreadable.pid = 77;
        unreadable.content = PageContent::Permission(evil.into());
        s.pages.push(unreadable);
        for page in snapshots(s) {
            page.name = evil.into();
            page.socket_path = evil.into();
            page.library = evil.into();
            page.debug_build = true;
            for slot in &mut page.slots {
                slot.info.peer_name = evil.into();
                slot.info.wait_policy = evil.into();
            }
        }
    });
    let state = State::default();
    let texts = [
        report::table(&model, &state),
        report::csv(&model, &state),
        report::ps(&model),
        report::doctor_text(&model, false),
        report::metrics(&model, &sample, Dialect::OpenMetrics),
        format!("{:#}", report::snapshot_json(&model)),
        format!("{:#}", report::doctor_json(&model)),
        format!("{:#}", report::ps_json(&model)),
    ];
    for text in texts {
        let bad = |c: char| {
            (c.is_control() && c != '\n' && c != '\r') || ('\u{202a}'..='\u{202e}').contains(&c)
        };
        assert!(!text.chars().any(bad), "{text:?}");
        assert!(
            text.contains("a·[31m"),
            "the name is shown all the same: {text}"
        );
    }
    for line in report::csv(&model, &state).lines() {
        assert_eq!(line.chars().filter(|c| *c == '"').count() % 2, 0, "{line}");
    }
}

#[test]
fn metrics_are_openmetrics() {
    let (model, sample) = model(&Base::named("busy"), 4, |_| {});
    let text = report::metrics(&model, &sample, Dialect::OpenMetrics);
    assert!(text.ends_with("# EOF\n"));
    let mut family = String::new();
    let mut families = std::collections::BTreeSet::new();
    let mut series = std::collections::BTreeSet::new();
    for line in text.lines().filter(|l| *l != "# EOF") {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} comes twice");
            if rest.ends_with(" counter") {
                assert!(!family.ends_with("_total"), "{family}");
            }
            continue;
        }
        if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').unwrap();
            assert!(
                name == family && name.ends_with(&format!("_{unit}")),
                "{line}"
            );
            continue;
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(rest.starts_with(&format!("{family} ")), "{line}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(name.starts_with(&family), "{line} is not of {family}");
        assert!(series.insert(name.to_owned()), "{name} comes twice");
    }
    // What others are derived from is not shown itself.
    let shown =
        transport::stats::schema::descriptors().filter(|d| !transport::stats::schema::is_source(d));
    for d in shown {
        let stem = d.name.trim_end_matches("_ns").trim_end_matches("_bytes");
        assert!(
            families.iter().any(|f| f.contains(stem)),
            "{} is not exported",
            d.name
        );
    }
}

/// Names of the series in an exposition.
fn series(text: &str) -> std::collections::BTreeSet<&str> {
    text.lines()
        .filter(|l| !l.starts_with('#'))
        .map(|l| l.split(['{', ' ']).next().unwrap())
        .collect()
}

#[test]
fn both_dialects_have_the_same_series() {
    let (model, sample) = model(&Base::named("busy"), 4, |_| {});
    let open = report::metrics(&model, &sample, Dialect::OpenMetrics);
    let text = report::metrics(&model, &sample, Dialect::Text);
    let samples = |t: &str| -> Vec<String> {
        t.lines()
            .filter(|l| !l.starts_with('#'))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(samples(&open), samples(&text));
    assert!(text.contains("# TYPE shmtop_requests_total counter\n"));
    assert!(open.contains("# TYPE shmtop_requests counter\n"));
}

#[test]
fn pages_that_look_alike_and_thousands_of_clients_are_still_a_scrape_that_prometheus_takes() {
    let (model, sample) = model(&Base::named("busy"), 4, |s| {
        let mut twin = s.pages[0].clone();
        let PageContent::Read(page) = &mut twin.content else {
            panic!("the base's pages are readable");
        };
        page.created_monotonic_ns += 1;
        let connection =
            |s: &&transport::stats::Slot| s.info.kind == transport::stats::SlotKind::Connection;
        let slot = page.slots.iter().find(connection).unwrap().clone();
        for n in 0..1_000 {
            let mut more = slot.clone();
            more.index = 100 + n;
            more.info.connection_id = 0x1_0000 + u64::from(n);
            // Two servers of one process number their clients alike.
            more.info.client_number = n % 500 + 1;
            page.slots.push(more);
        }
        s.pages.push(twin);
    });
    let text = report::metrics(&model, &sample, Dialect::OpenMetrics);
    let mut seen = std::collections::BTreeSet::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (name, _) = line.rsplit_once(' ').unwrap();
        assert!(seen.insert(name), "{name} comes twice");
    }
    let of = |name: &str| text.lines().filter(|l| l.starts_with(name)).count();
    assert!(of("shmtop_tx_messages_total{") <= 2 * report::MAX_CLIENTS);
    let left_out = text
        .lines()
        .filter(|l| l.starts_with("shmtop_clients_without_series{"))
        .filter_map(|l| l.rsplit_once(' ')?.1.parse::<usize>().ok())
        .sum::<usize>();
    let all: Vec<_> = model
        .endpoints
        .iter()
        .map(|e| (e.name.clone(), e.clients.len()))
        .collect();
    assert!(left_out > 800, "{left_out} {all:?}");
}

/// `SHMTOP_BLESS=1 cargo test` rewrites them.
#[test]
fn the_alerts_in_docs_are_printed_from_the_rules() {
    for (file, wanted) in [
        ("shmtop.rules.yml", report::alert_rules()),
        ("shmtop.test.yml", report::alert_tests()),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../docs/prometheus")
            .join(file);
        if std::env::var_os("SHMTOP_BLESS").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "docs/prometheus/{file} differs from the rules: run SHMTOP_BLESS=1 cargo test -p shmtop --test reports"
        );
    }
}

#[test]
fn dashboard_alerts_and_readme_name_only_metrics_that_exist() {
    let (model, sample) = model(&Base::named("busy"), 4, |s| {
        s.processes[1].state = shmtop::sample::Fact::Known('T');
    });
    let text = report::metrics(&model, &sample, Dialect::OpenMetrics);
    let exported = series(&text);
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut named = 0;
    for file in [
        "grafana/shmtop.json",
        "prometheus/shmtop.rules.yml",
        "prometheus/README.md",
    ] {
        let text = std::fs::read_to_string(docs.join(file)).unwrap();
        for (at, _) in text.match_indices("shmtop_") {
            let name: String = text[at..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            if name == "shmtop_" || name == "shmtop_NAME" {
                continue;
            }
            assert!(
                exported.contains(name.as_str()),
                "{file}: {name} is not exported"
            );
            named += 1;
        }
    }
    assert!(named > 50, "{named}");
    let dashboard = std::fs::read_to_string(docs.join("grafana/shmtop.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 10);
}

#[test]
fn rows_are_sorted_and_filtered_as_asked() {
    let (model, _) = model(&Base::named("busy"), 2, |_| {});
    let state = State {
        filter: "4237".into(),
        ..State::default()
    };
    let lines = report::csv(&model, &state).lines().count();
    assert_eq!(lines, 2, "a heading and one client");
}

/// Changes numbers all over a sample: each that `pick` hits becomes one of some extremes.
fn scribble(value: &mut Value, picks: &mut impl Iterator<Item = u8>) {
    match value {
        Value::Number(n) => {
            // Small numbers may be of a small type: an extreme of those keeps the sample readable.
            let most = if n.as_u64().is_some_and(|n| n > 1_000_000) {
                u64::MAX
            } else {
                65_535
            };
            match picks.next().unwrap_or(255) {
                0 => *value = most.into(),
                1 => *value = 0.into(),
                2 => *value = (most / 2).into(),
                3 => *value = 1.into(),
                _ => {}
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| scribble(v, picks)),
        Value::Object(map) => map.values_mut().for_each(|v| scribble(v, picks)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_hostile_recording_claims_every_report_is_written(seed in any::<u64>(), rarely in 8u8..120) {
        let mut builder = ModelBuilder::new();
        let mut state = seed | 1;
        for t in 0..5 {
            let mut world = serde_json::to_value(Base::named("busy").sample(t)).unwrap();
            let mut picks = std::iter::from_fn(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                Some(((state >> 33) as u8) % rarely)
            });
            scribble(&mut world, &mut picks);
            let sample: Sample = serde_json::from_value(world).unwrap();
            let model = builder.push(sample.clone());
            let _ = report::snapshot_json(&model);
            let _ = report::doctor_json(&model);
            let _ = report::doctor_text(&model, true);
            let _ = report::table(&model, &State::default());
            let _ = report::csv(&model, &State::default());
            let _ = report::metrics(&model, &sample, Dialect::OpenMetrics);
        }
    }
}
