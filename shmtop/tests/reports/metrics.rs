//! The metrics are what a scrape takes, and what dashboard, alerts and documents name is among them.

use std::path::Path;

use serde_json::Value;
use shmtop::report::{self, Dialect};
use shmtop::sample::PageContent;

use super::base::Base;
use super::model;

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

#[test]
fn what_only_one_side_counts_is_no_series_of_the_other() {
    let (model, sample) = model(&Base::named("busy"), 4, |_| {});
    let text = report::metrics(&model, &sample, Dialect::Text);
    let roles = |family: &str| {
        let lines = text
            .lines()
            .filter(|l| l.starts_with(&format!("{family}{{")));
        let role = |l: &str| {
            l.split("role=\"")
                .nth(1)
                .unwrap()
                .split('"')
                .next()
                .unwrap()
                .to_owned()
        };
        lines.map(role).collect::<std::collections::BTreeSet<_>>()
    };
    let of = |roles: &[&str]| roles.iter().map(|r| (*r).to_owned()).collect();
    for family in [
        "shmtop_timeouts_total",
        "shmtop_late_replies_total",
        "shmtop_in_flight",
    ] {
        assert_eq!(roles(family), of(&["client"]), "{family}");
    }
    assert_eq!(roles("shmtop_panics_total"), of(&["server"]));
    assert_eq!(roles("shmtop_errors_total"), of(&["client", "server"]));
}

#[test]
fn bounds_of_buckets_are_written_as_prometheus_writes_them() {
    let (model, sample) = model(&Base::named("busy"), 4, |_| {});
    let text = report::metrics(&model, &sample, Dialect::OpenMetrics);
    for le in ["1e-07", "2e-05", "0.0001", "0.5", "1.0", "10.0", "+Inf"] {
        assert!(text.contains(&format!("le=\"{le}\"")), "{le}");
    }
    assert!(!text.contains("le=\"1\""));
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

/// `UPDATE=1 cargo test` rewrites them.
#[test]
fn the_alerts_in_docs_are_printed_from_the_rules() {
    for (file, wanted) in [
        ("shmtop.rules.yml", report::alert_rules()),
        ("shmtop.test.yml", report::alert_tests()),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../docs/prometheus")
            .join(file);
        if std::env::var_os("UPDATE").is_some_and(|v| v == "1") {
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "docs/prometheus/{file} differs from the rules: run UPDATE=1 cargo test -p shmtop --test reports"
        );
    }
}

#[test]
fn dashboard_alerts_and_readme_name_only_metrics_that_exist() {
    let (model, sample) = model(&Base::named("busy"), 4, |s| {
        s.processes[1].gone = true;
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
