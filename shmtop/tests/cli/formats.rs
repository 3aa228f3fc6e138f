//! What is printed of clients, in each format: whole documents, the rows that were asked for, in the order that was asked for.

use std::path::Path;

use serde_json::Value;
use transport::{Config, Synapse, TransportChoice};

use crate::{pair, run};

#[test]
fn a_snapshot_names_the_client_and_its_transport() {
    let p = pair();
    let (code, out, err) = run(
        p.dir.path(),
        &["snapshot", "--name", &p.name, "-d", "50ms", "-f", "json"],
    );
    assert_eq!(code, 0, "{err}");
    let document: Value = serde_json::from_str(&out).unwrap();
    let server = document["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["role"] == "server")
        .unwrap();
    assert_eq!(server["name"], p.name);
    let client = &server["clients"][0];
    assert_eq!(client["transport"], "shm");
    assert_eq!(client["rx"]["capacity_bytes"], 64 << 10);
    assert!(client["rtt_since_start_ns"]["count"].as_u64().unwrap() >= 1_000);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/snapshot.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let wrong: Vec<String> = jsonschema::draft202012::new(&schema)
        .unwrap()
        .iter_errors(&document)
        .map(|e| format!("{}: {e}", e.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_format_has_the_client() {
    let p = pair();
    for (args, part) in [
        (&["ps"][..], "server  echo-"),
        (&["ps", "-f", "json"], "\"name\": \"echo-"),
        (&["snapshot", "-d", "20ms"], "VIA"),
        (&["snapshot", "-d", "20ms", "-f", "csv"], "\"echo-"),
        (
            &["snapshot", "-d", "20ms", "-f", "prom"],
            "shmtop_tx_messages_total{endpoint=\"echo-",
        ),
        (&["-d", "20ms"], "VIA"),
        (&["-d", "20ms", "-f", "json"], "\"name\": \"echo-"),
    ] {
        let args: Vec<&str> = args.iter().copied().chain(["--name", &p.name]).collect();
        let (code, out, err) = run(p.dir.path(), &args);
        assert_eq!(code, 0, "{args:?}: {err}");
        assert!(out.contains(part), "{args:?}: {out}");
        let noted = err.contains("stdout is not a terminal: printed one snapshot");
        assert_eq!(
            noted,
            args[..] == ["-d", "20ms", "--name", &p.name],
            "{args:?}: {err}"
        );
    }
}

#[test]
fn the_help_of_a_command_names_the_formats_that_it_takes_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let commands: [&[&str]; 5] = [
        &["ps"],
        &["doctor", "--for", "10ms"],
        &["check", "--for", "10ms", "--assert", "crits == 0"],
        &["replay", "/nowhere"],
        &["diff", "/nowhere", "/nowhere"],
    ];
    for command in commands {
        let (code, help, _) = run(dir.path(), &[command[0], "--help"]);
        assert_eq!(code, 0);
        for format in ["table", "json", "csv", "prom", "openmetrics"] {
            let named = help.contains(&format!("- {format}:"));
            let (_, _, err) = run(dir.path(), &[command, &["-f", format]].concat());
            let taken = !err.contains("this command has no format");
            assert_eq!(named, taken, "{command:?} -f {format}: {err}\n{help}");
        }
        // The mistake is the command's to tell, and not in the way of its help.
        let (code, again, _) = run(dir.path(), &[command[0], "-f", "csv", "--help"]);
        assert_eq!((code, again), (0, help));
    }
}

#[test]
fn each_line_of_a_csv_says_of_which_moment_it_is() {
    let p = pair();
    let args = ["snapshot", "-d", "20ms", "-n", "2", "-f", "csv", "--name"];
    let (code, out, err) = run(p.dir.path(), &[&args[..], &[&p.name]].concat());
    assert_eq!(code, 0, "{err}");
    let mut lines = out.lines();
    assert!(lines.next().unwrap().ends_with(",at_realtime_ns"));
    let at = |line: &str| -> u64 { line.rsplit(',').next().unwrap().parse().unwrap() };
    let moments: Vec<u64> = lines.map(at).collect();
    assert!(moments.len() == 2 && moments[0] < moments[1], "{out}");
}

#[test]
fn several_json_documents_are_a_line_each() {
    let p = pair();
    let args = [
        "snapshot", "-d", "20ms", "-n", "2", "-f", "json", "--name", &p.name,
    ];
    let (code, out, err) = run(p.dir.path(), &args);
    assert_eq!(code, 0, "{err}");
    let documents = out
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    assert_eq!(documents.filter(|d| d["schema"] == 1).count(), 2, "{out}");
}

#[test]
fn a_document_is_one_also_where_there_is_nothing_to_show() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["ps"][..],
        &["snapshot", "-d", "1ms"],
        &["doctor", "--for", "1ms"],
    ] {
        let args = [args, &["-f", "json", "--name", "no-such-endpoint"]].concat();
        let (code, out, err) = run(dir.path(), &args);
        assert_eq!(code, 3, "{err}");
        let document: Value =
            serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}: {out}"));
        assert_eq!(document["schema"], 1);
    }
}

#[test]
fn plain_ascii_is_nothing_but_ascii() {
    let p = pair();
    for args in [
        &["ps"][..],
        &["snapshot", "-d", "1ms"],
        &["doctor", "--for", "1ms"],
    ] {
        let (_, shown, _) = run(p.dir.path(), &[args, &["--name", &p.name]].concat());
        let (_, plain, _) = run(
            p.dir.path(),
            &[args, &["--name", &p.name, "--ascii"]].concat(),
        );
        assert!(args[0] == "ps" || !shown.is_ascii(), "{shown}");
        assert!(plain.is_ascii() && plain.contains(&p.name), "{plain}");
    }
}

#[test]
fn the_table_of_a_client_names_the_server_that_was_not_asked_for() {
    let p = pair();
    let (code, out, err) = run(p.dir.path(), &["snapshot", "-d", "1ms", "--name", "caller"]);
    assert_eq!(code, 0, "{err}");
    let server = format!("{} ({})", p.name, std::process::id());
    assert!(out.contains("client of ") && out.contains(&server), "{out}");
}

#[test]
fn a_filter_holds_in_every_format_of_a_snapshot() {
    let p = pair();
    for (format, part) in [
        ("table", "CLIENT"),
        ("json", "connection_id"),
        ("csv", "echo-"),
        ("prom", "shmtop_tx_messages_total{"),
    ] {
        let has = |filter: &str| {
            let wanted = ["--name", &p.name, "--filter", filter];
            let args = ["snapshot", "-d", "20ms", "-f", format];
            let args = [&args[..], &wanted].concat();
            let (code, out, err) = run(p.dir.path(), &args);
            assert_eq!(code, 0, "{args:?}: {err}");
            out.contains(part)
        };
        assert_eq!((has("shm"), has("socket")), (true, false), "{format}");
    }
}

#[test]
fn an_order_holds_in_every_format_of_a_snapshot() {
    let p = pair();
    let config = Config {
        transport: TransportChoice::Socket,
        stats_dir: Some(p.dir.path().to_owned()),
        ..Config::default()
    };
    let _second = Synapse::connect(p.dir.path().join("echo.sock"), &config).unwrap();
    for (format, shm, socket) in [
        ("table", " shm ", " socket "),
        (
            "json",
            "\"transport\": \"shm\"",
            "\"transport\": \"socket\"",
        ),
        ("csv", ",shm,", ",socket,"),
        ("prom", "\",transport=\"shm\"}", "\",transport=\"socket\"}"),
    ] {
        let socket_first = |sort: &str| {
            let args = ["snapshot", "-d", "20ms", "-f", format, "--sort", sort];
            let args = [&args[..], &["--name", &p.name]].concat();
            let (code, out, err) = run(p.dir.path(), &args);
            assert_eq!(code, 0, "{args:?}: {err}");
            // Rows of clients, not what all of them together are.
            let row = |l: &&str| match format {
                "table" => !l.contains("clients"),
                "prom" => l.contains("peer_pid="),
                _ => true,
            };
            let mut vias = out.lines().filter(row);
            let first = vias.find(|l| l.contains(shm) || l.contains(socket));
            first.unwrap_or_else(|| panic!("{out}")).contains(socket)
        };
        let firsts = (socket_first("via"), socket_first("client"));
        assert_eq!(firsts, (true, false), "{format}");
    }
}
