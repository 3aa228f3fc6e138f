//! Alerting rules for Prometheus, made from the hints: docs/prometheus/shmtop.rules.yml and its unit tests for
//! `promtool test rules`.
//!
//! One alert per rule that may reach warn or crit. The hints have their hysteresis already, so there is no `for`.

use std::fmt::Write as _;

use crate::hint::{Rule, rules};
use crate::model::Severity;

const NOTE: &str =
    "# Printed from the rules in shmtop/src/hint; a test fails when this file differs.\n";

/// The labels of `shmtop_finding` that an alert's text uses.
const LABELS: [&str; 4] = ["endpoint", "pid", "client", "instance"];

/// Rules that are worth waking somebody for.
fn alerting() -> impl Iterator<Item = &'static Rule> {
    rules().filter(|r| r.severity > Severity::Info)
}

/// `fd-headroom` to `ShmtopFdHeadroom`.
fn name(id: &str) -> String {
    let words = id.split('-').map(|w| {
        let mut chars = w.chars();
        let first = chars.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(chars).collect::<String>()
    });
    "Shmtop".to_owned() + &words.collect::<String>()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Summary and description, with the labels as `label` gives them.
fn annotations(r: &Rule, label: &dyn Fn(&str) -> String) -> [(&'static str, String); 2] {
    let [endpoint, pid, client, instance] = LABELS.map(label);
    [
        (
            "summary",
            format!(
                "{}: {endpoint} pid {pid} client {client} on {instance}",
                r.title
            ),
        ),
        (
            "description",
            format!(
                "Fires when {}. Do: {}. There, shmtop doctor shows the numbers and shmtop explain {} the reasons.",
                r.fires, r.fix, r.id
            ),
        ),
    ]
}

/// docs/prometheus/shmtop.rules.yml, whole.
pub fn alert_rules() -> String {
    let mut out = format!("{NOTE}groups:\n  - name: shmtop\n    rules:\n");
    // Writing to a String can't fail.
    for r in alerting() {
        let _ = writeln!(
            out,
            "      - alert: {}\n        expr: shmtop_finding{{id=\"{}\",severity!=\"info\"}} == 1\n        annotations:",
            name(r.id),
            r.id
        );
        for (key, text) in annotations(r, &|label| format!("{{{{ $labels.{label} }}}}")) {
            let _ = writeln!(out, "          {key}: {}", quoted(&text));
        }
    }
    out.push_str(
        "  - name: shmtop-itself
    rules:
      - alert: ShmtopDown
        expr: up{job=\"shmtop\"} == 0
        for: 1m
        labels:
          severity: warn
        annotations:
          summary: 'shmtop export on {{ $labels.instance }} does not answer'
      - alert: ShmtopBehind
        expr: time() - shmtop_sample_timestamp_seconds > 30
        for: 1m
        labels:
          severity: warn
        annotations:
          summary: 'shmtop on {{ $labels.instance }} last looked {{ $value | humanizeDuration }} ago'
",
    );
    out
}

/// docs/prometheus/shmtop.test.yml: each alert is quiet, fires at its finding, and is quiet again.
pub fn alert_tests() -> String {
    let mut out =
        format!("{NOTE}rule_files:\n  - shmtop.rules.yml\nevaluation_interval: 15s\ntests:\n");
    for r in alerting() {
        let value = |label: &str| match label {
            "endpoint" => "exchange".to_owned(),
            "pid" => "4711".into(),
            "client" => "7".into(),
            _ => "host:9752".into(),
        };
        let labels: Vec<String> = [
            ("id", r.id.to_owned()),
            ("severity", r.severity.name().into()),
        ]
        .into_iter()
        .chain(LABELS.map(|l| (l, value(l))))
        .map(|(k, v)| format!("{k}=\"{v}\""))
        .collect();
        let alert = name(r.id);
        let _ = write!(
            out,
            "  - interval: 15s
    input_series:
      - series: 'shmtop_finding{{{}}}'
        values: '_x3 1x4 stale _x20'
    alert_rule_test:
      - eval_time: 30s
        alertname: {alert}
      - eval_time: 1m30s
        alertname: {alert}
        exp_alerts:
          - exp_labels:
",
            labels.join(",")
        );
        for (k, v) in [
            ("id", r.id.to_owned()),
            ("severity", r.severity.name().into()),
        ]
        .into_iter()
        .chain(LABELS.map(|l| (l, value(l))))
        {
            let _ = writeln!(out, "              {k}: {}", quoted(&v));
        }
        out.push_str("            exp_annotations:\n");
        for (k, text) in annotations(r, &value) {
            let _ = writeln!(out, "              {k}: {}", quoted(&text));
        }
        let _ = writeln!(out, "      - eval_time: 5m\n        alertname: {alert}");
    }
    out.push_str(
        "  - interval: 15s
    input_series:
      - series: 'up{job=\"shmtop\",instance=\"host:9752\"}'
        values: '1 0x20'
    alert_rule_test:
      - eval_time: 3m
        alertname: ShmtopDown
        exp_alerts:
          - exp_labels: {job: shmtop, instance: 'host:9752', severity: warn}
            exp_annotations: {summary: 'shmtop export on host:9752 does not answer'}
  - interval: 15s
    input_series:
      - series: 'shmtop_sample_timestamp_seconds{instance=\"host:9752\"}'
        values: '0+15x4 60x20'
    alert_rule_test:
      - eval_time: 1m
        alertname: ShmtopBehind
      - eval_time: 3m
        alertname: ShmtopBehind
        exp_alerts:
          - exp_labels: {instance: 'host:9752', severity: warn}
            exp_annotations: {summary: 'shmtop on host:9752 last looked 2m 0s ago'}
",
    );
    out
}
