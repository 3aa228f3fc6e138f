//! Reports hold what their documents promise: schemas, formats, and that no stranger's text or number gets through unharmed.

#[path = "../scenarios/base/mod.rs"]
mod base;
mod metrics;
mod ps;

use std::path::Path;

use base::{BASES, Base};
use proptest::prelude::*;
use serde_json::Value;
use shmtop::judge::Judge;
use shmtop::model::listing::{Listing, SortKey};
use shmtop::model::{Client, Model};
use shmtop::report::{self, Dialect};
use shmtop::sample::{PageContent, Sample};

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
    let unexplained = unexplained(document);
    assert!(
        unexplained.is_empty(),
        "{what}: null without why: {unexplained:#?}"
    );
}

/// Where in the document something is null and no `why` stands beside it.
fn unexplained(document: &Value) -> Vec<String> {
    let inside = |name: &str, value: &Value| {
        let below = unexplained(value).into_iter();
        below.map(|at| format!("/{name}{at}")).collect::<Vec<_>>()
    };
    match document {
        Value::Null => vec![String::new()],
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.flat_map(|(i, v)| inside(&i.to_string(), v)).collect()
        }
        Value::Object(fields) => {
            let said = fields.get("why").is_some_and(Value::is_string);
            // Nulls that say something: it lives here, is on the rings, or a hint is about all of the host or the endpoint.
            let plain = |name: &str, value: &Value| match name {
                "subject" | "also" => true,
                "place" | "fallback" => value.is_null(),
                _ => said && value.is_null(),
            };
            let left = fields.iter().filter(|(name, value)| !plain(name, value));
            left.flat_map(|(name, value)| inside(name, value)).collect()
        }
        _ => Vec::new(),
    }
}

/// The model after `seconds` of a healthy machine, changed by `change` in each sample.
fn model(base: &Base, seconds: u64, change: impl Fn(&mut Sample)) -> (Model, Sample) {
    let mut judge = Judge::new();
    let mut last = None;
    for t in 0..=seconds {
        let mut sample = base.sample(t);
        change(&mut sample);
        last = Some((judge.push(sample.clone()), sample));
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
    for histogram in ["rtt_ns", "rtt_since_start_ns"] {
        assert!(client[histogram]["count"].is_null(), "{histogram}");
    }
    for counter in ["timeouts", "late_replies", "in_flight"] {
        assert!(
            client[counter].is_null(),
            "{counter}: only a client counts it"
        );
    }
    assert!(client["errors"].is_u64());
    let why = client["why"].as_str().unwrap();
    assert!(
        why.contains("the client's own page is not visible"),
        "{why}"
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
fn what_a_page_has_as_0_because_it_does_not_know_is_null_with_a_reason() {
    let (model, _) = model(&Base::named("busy"), 3, |s| {
        for page in snapshots(s) {
            for slot in &mut page.slots {
                slot.info.peer_pid = 0;
                slot.info.fallback = Some(transport::stats::FallbackFact {
                    step: 14,
                    errno: 0,
                    limit: 0,
                    used: 0,
                    at_peer: false,
                });
            }
        }
        s.pages.retain(|p| p.pid == base::SERVER);
    });
    let document = report::snapshot_json(&model);
    valid(&schema("snapshot"), &document, "unknown");
    let client = &document["endpoints"][0]["clients"][0];
    let fallback = &client["fallback"];
    assert_eq!(fallback["step"], "disabled");
    for field in ["errno", "errno_name", "limit", "used"] {
        assert!(fallback[field].is_null(), "{field}: {fallback}");
    }
    assert!(
        fallback["why"]
            .as_str()
            .unwrap()
            .contains("no system call failed")
    );
    assert!(client["peer_pid"].is_null());
    assert!(
        client["why"].as_str().unwrap().contains("pid namespace"),
        "{client}"
    );
    let csv = report::csv(&model, Listing::default());
    let row = csv.lines().nth(1).unwrap();
    assert_eq!(row.split(',').nth(4), Some(""), "{row}");
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
        if seconds == 0 {
            // Why something is not known is promised, like what it is.
            let mut silent = document;
            let first = silent["unknown"][0].as_object_mut().unwrap();
            assert!(first.remove("why").is_some_and(|why| why.is_string()));
            assert!(!schema.is_valid(&silent));
        }
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
            }
        }
    });
    let listing = Listing::default();
    let texts = [
        report::table(&model, listing),
        report::csv(&model, listing),
        report::ps(&model),
        report::doctor_text(&model, ""),
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
    for line in report::csv(&model, listing).lines() {
        assert_eq!(line.chars().filter(|c| *c == '"').count() % 2, 0, "{line}");
    }
}

#[test]
fn rows_are_sorted_and_filtered_as_asked() {
    let (model, _) = model(&Base::named("busy"), 2, |_| {});
    let listing = Listing {
        filter: "4237",
        ..Listing::default()
    };
    let lines = report::csv(&model, listing).lines().count();
    assert_eq!(lines, 2, "a heading and one client");
}

#[test]
fn rows_for_programs_are_sorted_by_the_percentile_that_they_hold() {
    let (mut model, _) = model(&Base::named("busy"), 2, |_| {});
    for (i, client) in model.endpoints[0].clients.iter_mut().enumerate() {
        let client: &mut Client = client;
        // Too few for a p99 on a screen: there it is that of ten seconds, and the rows stand the other way round.
        let mut interval = *client.rtt.interval.as_ref().unwrap();
        let mut recent = interval;
        (interval.count, interval.p99) = (900, 1_000 + i as u64);
        (recent.count, recent.p99) = (9_000, 1_000 - i as u64);
        (client.rtt.interval, client.rtt.recent) = (Ok(interval), Ok(recent));
    }
    let listing = Listing {
        sort: SortKey::P99,
        ..Listing::default()
    };
    let text = report::csv(&model, listing);
    let mut lines = text.lines().map(|l| l.split(',').collect::<Vec<_>>());
    let head = lines.next().unwrap();
    let column = head.iter().position(|h| *h == "rtt_p99_ns").unwrap();
    let p99: Vec<u64> = lines.map(|l| l[column].parse().unwrap()).collect();
    assert!(p99.len() > 1 && p99.is_sorted_by(|a, b| a > b), "{p99:?}");
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
        let mut judge = Judge::new();
        let mut state = seed | 1;
        for t in 0..5 {
            let mut world = serde_json::to_value(Base::named("busy").sample(t)).unwrap();
            let mut picks = std::iter::from_fn(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                Some(((state >> 33) as u8) % rarely)
            });
            scribble(&mut world, &mut picks);
            let sample: Sample = serde_json::from_value(world).unwrap();
            let model = judge.push(sample.clone());
            let _ = report::snapshot_json(&model);
            let _ = report::doctor_json(&model);
            let _ = report::doctor_text(&model, "");
            let _ = report::table(&model, Listing::default());
            let _ = report::csv(&model, Listing::default());
            let _ = report::metrics(&model, &sample, Dialect::OpenMetrics);
        }
    }
}
