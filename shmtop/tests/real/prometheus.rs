//! A real Prometheus scrapes a real exporter, and an alert of docs/prometheus fires at a real fault.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::actors::{Process, Stage, WATCHDOG, run, skipped, until};

fn docs(file: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(file);
    path.canonicalize()
        .unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Whether Debian's package (prometheus and promtool) is there.
fn installed() -> bool {
    let found = |program: &str| {
        Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    let all = found("prometheus") && found("promtool");
    if !all {
        skipped("prometheus and promtool are not installed (Debian package prometheus)");
    }
    all
}

/// GET, with the Accept header given; status line and head, body.
pub(crate) fn get(address: &str, path: &str, accept: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    let ask = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(ask.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn api(address: &str, path: &str) -> Value {
    let (head, body) = get(address, path, "*/*");
    serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {head}\n{body}"))
}

/// An exporter and its address.
pub(crate) fn exporter(stage: &Stage, more: &[&str]) -> (Process, String) {
    let args = ["export", "--listen", "127.0.0.1:0", "-d", "500ms"];
    let mut export = Process::start(stage.shmtop(&[&args, more].concat()));
    let line = export.line("shmtop: metrics at http://");
    let address = line
        .split("http://")
        .nth(1)
        .and_then(|l| l.strip_suffix("/metrics"));
    let address = address.unwrap().to_owned();
    (export, address)
}

fn prometheus(stage: &Stage, target: &str) -> (Process, String) {
    let config = stage.dir().join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n  - job_name: shmtop\n    static_configs: [{{targets: ['{target}']}}]\n",
        docs("prometheus/shmtop.rules.yml").display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            stage.dir().join("tsdb").display()
        ))
        .arg("--web.listen-address=127.0.0.1:0");
    let mut prometheus = Process::start(command);
    let line = prometheus.error_line("msg=\"Listening on\"");
    let address = line.split("address=").nth(1).unwrap().trim().to_owned();
    prometheus.error_line("Server is ready");
    (prometheus, address)
}

/// Names of the alerts that fire, with the value of one label.
fn firing(address: &str, label: &str) -> Vec<(String, String)> {
    let alerts = api(address, "/api/v1/alerts");
    let alerts = alerts["data"]["alerts"].as_array().unwrap();
    alerts
        .iter()
        .filter(|a| a["state"] == "firing")
        .map(|a| {
            let text = |key: &str| a["labels"][key].as_str().unwrap_or("").to_owned();
            (text("alertname"), text(label))
        })
        .collect()
}

#[test]
fn a_stopped_trader_is_an_alert_in_prometheus_until_it_goes_on() {
    if !installed() {
        return;
    }
    let stage = Stage::new();
    let exchange = stage.exchange();
    let trader = stage.trader("1 ping --think 1ms");
    let (_export, target) = exporter(&stage, &["-p", &exchange.pid().to_string()]);
    let (_prometheus, address) = prometheus(&stage, &target);
    let requests = "/api/v1/query?query=shmtop_requests_total%7Brole%3D%22server%22%7D";
    until("a first scrape", || {
        let found = api(&address, requests);
        let value = found["data"]["result"][0]["value"][1].as_str()?.to_owned();
        (value.parse::<f64>().ok()? > 0.0).then_some(())
    });
    let targets = api(&address, "/api/v1/targets?state=active");
    assert_eq!(
        targets["data"]["activeTargets"][0]["health"], "up",
        "{targets}"
    );
    let metadata = api(&address, "/api/v1/metadata?metric=shmtop_requests_total");
    let older = api(&address, "/api/v1/metadata?metric=shmtop_requests");
    let kind = |m: &Value, name: &str| m["data"][name][0]["type"].clone();
    assert!(
        kind(&metadata, "shmtop_requests_total") == "counter"
            || kind(&older, "shmtop_requests") == "counter",
        "{metadata} {older}"
    );
    let stopped = ("ShmtopPeerStopped".to_owned(), exchange.pid().to_string());
    assert!(
        !firing(&address, "pid").contains(&stopped),
        "nothing is stopped yet"
    );

    trader.signal(Signal::SIGSTOP);
    until("ShmtopPeerStopped fires", || {
        firing(&address, "pid").contains(&stopped).then_some(())
    });
    trader.signal(Signal::SIGCONT);
    until("ShmtopPeerStopped ends", || {
        (!firing(&address, "pid").contains(&stopped)).then_some(())
    });
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    if !installed() {
        return;
    }
    let promtool = |args: &[&str]| {
        let mut command = Command::new("promtool");
        command.args(args).current_dir(docs("prometheus"));
        let (code, out, err) = run(command);
        assert_eq!(code, Some(0), "promtool {args:?}: {out}{err}");
    };
    promtool(&["check", "rules", "shmtop.rules.yml"]);
    promtool(&["test", "rules", "shmtop.test.yml"]);

    let stage = Stage::new();
    let exchange = stage.exchange();
    let _trader = stage.trader("2 bytes 2000 --think 1ms");
    let (_export, target) = exporter(&stage, &["-p", &exchange.pid().to_string()]);
    let (head, text) = get(&target, "/metrics", "*/*");
    assert!(
        head.contains("Content-Type: text/plain; version=0.0.4"),
        "{head}"
    );
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let out = child.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && said.is_empty(), "{said}\n{text}");
}

#[test]
fn clients_that_dribble_or_take_nothing_keep_no_scrape_waiting_and_too_many_are_turned_away() {
    let stage = Stage::new();
    let exchange = stage.exchange();
    let (_export, target) = exporter(&stage, &["-p", &exchange.pid().to_string()]);
    // Fifteen that say nothing: a place is left for one who does.
    let silent: Vec<TcpStream> = (0..15)
        .map(|_| TcpStream::connect(&target).unwrap())
        .collect();
    let scrape = || get(&target, "/metrics", "application/openmetrics-text").0;
    until("a scrape beside them", || {
        scrape().starts_with("HTTP/1.1 200").then_some(())
    });
    let more: Vec<TcpStream> = (0..8)
        .map(|_| TcpStream::connect(&target).unwrap())
        .collect();
    let replies: Vec<String> = more
        .into_iter()
        .map(|mut stream| {
            stream.set_read_timeout(Some(WATCHDOG)).unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).unwrap();
            reply
        })
        .collect();
    assert!(
        replies.iter().any(|r| r.starts_with("HTTP/1.1 503")),
        "{replies:?}"
    );
    // The silent ones are cut off by themselves.
    for mut stream in silent {
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 408"), "{reply}");
    }
    let (head, body) = get(
        &target,
        "/metrics",
        "application/openmetrics-text; version=1.0.0",
    );
    assert!(
        head.contains("application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(body.ends_with("# EOF\n"), "{body}");
}
