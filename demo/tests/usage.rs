//! Mistakes: one sentence on stderr that says what is wrong, and an exit code that says which kind it is.

mod common;

use common::Place;

/// One sentence with these words, and the code.
#[track_caller]
fn refused(place: &Place, program: &str, args: &str, code: i32, words: &[&str]) {
    let run = place.run(program, args);
    assert_eq!(run.code(), code, "{args}: {run:?}");
    assert_eq!(run.stdout, "", "{args}: {run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{args}: {run:?}");
    assert!(run.stderr.starts_with(&format!("{program}: ")), "{run:?}");
    for word in words {
        assert!(run.stderr.contains(word), "{args}: no {word:?} in {run:?}");
    }
}

#[test]
fn a_trader_with_a_wrong_command_line_says_what_is_wrong() {
    let place = Place::new();
    for (args, words) in [
        ("2 pong", &["pong", "ping", "bytes", "batch"][..]),
        ("bytes 20000", &["number of clients"]),
        ("0", &["number of clients", "10000"]),
        ("1 bytes 31", &["32", "31"]),
        ("1 bytes 2097153", &["2097152", "2097153"]),
        ("1 bytes 12Q", &["Q", "MiB"]),
        ("1 ping --duration 10", &["unit", "10s"]),
        ("1 ping --rate 0", &["--rate"]),
        ("1 ping --rate 10 --think 1ms", &["--think", "--rate"]),
        ("1 ping --threads 2 --processes", &["--processes"]),
        ("1 ping --ring-size 1000", &["power of two", "1000"]),
        ("1 ping --max-message 17MiB", &["half", "17825792"]),
        (
            "1 ping --max-message 10",
            &["--max-message must be 32", "10"],
        ),
        ("1 ping --wait park --spin 5", &["ladder", "park"]),
        ("1 ping --pin=99999", &["CPU 99999"]),
        ("1 ping --frobnicate", &["--frobnicate"]),
    ] {
        refused(&place, "trader", args, 2, words);
    }
}

#[test]
fn an_exchange_with_a_wrong_command_line_says_what_is_wrong() {
    let place = Place::new();
    for (args, words) in [
        ("--workers 257", &["workers"][..]),
        ("--max-clients 0", &["max clients"]),
        ("--work 5", &["unit"]),
        ("extra", &["extra"]),
    ] {
        refused(&place, "exchange", args, 2, words);
    }
}

#[test]
fn a_directory_that_is_not_there_is_named_and_not_the_lock_file_in_it() {
    let place = Place::new();
    let dir = place.dir().join("gone");
    let args = format!("--socket {}/exchange.sock", dir.display());
    let words = ["the socket's directory", "No such file"];
    refused(&place, "exchange", &args, 2, &words);
    let run = place.run("exchange", &args);
    let named = format!("{}: ", dir.display());
    assert!(run.stderr.contains(&named), "{run:?}");
}

#[test]
fn a_path_too_long_for_a_socket_is_named_with_its_limit() {
    let place = Place::new();
    let long = format!("--socket /tmp/{}", "x".repeat(120));
    refused(&place, "exchange", &long, 2, &["too long", "107"]);
    refused(&place, "trader", &long, 2, &["too long", "107"]);
}

#[test]
fn without_an_exchange_the_trader_says_so_with_code_3() {
    let place = Place::new();
    let words = ["no server", "exchange.sock", "start one"];
    refused(&place, "trader", "4 ping", 3, &words);
    refused(&place, "trader", "4 ping --processes", 3, &words);
    refused(&place, "trader", "4 ping --threads 1 --json", 3, &words);
}

#[test]
fn a_message_above_the_exchanges_limit_is_refused_before_anything_is_sent() {
    let place = Place::new();
    let _exchange = place.exchange("--max-message 4KiB");
    refused(&place, "trader", "1 bytes 20000", 2, &["20000", "4096"]);
}

#[test]
fn a_second_exchange_at_the_same_path_is_refused_and_the_first_lives_on() {
    let place = Place::new();
    let _first = place.exchange("");
    refused(&place, "exchange", "", 2, &["another server"]);
    place.run("trader", "1 ping --requests 3 --json").json();
}

#[test]
fn a_file_that_is_no_socket_is_never_replaced() {
    let place = Place::new();
    std::fs::write(place.socket(), "precious").expect("written");
    refused(&place, "exchange", "", 2, &["not a socket"]);
    assert_eq!(std::fs::read(place.socket()).expect("read"), b"precious");
}

#[test]
fn help_names_every_option_of_the_contract() {
    let place = Place::new();
    let common = "--socket --duration --wait --spin --yield --sleep --ring-size --max-message --pin --transport";
    for (program, own) in [
        (
            "trader",
            "--depth --rate --think --json --processes --threads --requests",
        ),
        (
            "exchange",
            "--max-clients --workers --work --work-spin --long-handler --thread-per-client",
        ),
        (
            "demo",
            "--clients --mode --size --rate --full --duration --wait",
        ),
    ] {
        let help = place.run(program, "--help");
        assert_eq!(help.code(), 0, "{help:?}");
        let options = if program == "demo" { own } else { common };
        for option in options.split_whitespace().chain(own.split_whitespace()) {
            // The whole word, where its own line begins: `--work` is not named by `--work-spin`.
            let mut lines = help.stdout.lines();
            let named = lines.any(|l| l.trim_start().split([' ', '[']).next() == Some(option));
            assert!(named, "{program}: {option}");
        }
    }
}
