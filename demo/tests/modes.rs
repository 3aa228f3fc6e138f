//! Every mode, over shared memory and over the socket, from threads and from processes: all requests are answered,
//! and every reply is the right one.

mod common;

use common::Place;

/// Runs `trader ARGS --requests 40 --verify full --json` with 3 clients and checks the sums.
#[track_caller]
fn verified(exchange: &str, args: &str, shm: u64) {
    let place = Place::new();
    let _exchange = place.exchange(exchange);
    let args = format!("3 {args} --requests 40 --verify full --json");
    let summary = place.run("trader", &args).json();
    assert_eq!(summary["requests"], 120, "{summary}");
    assert_eq!(summary["corrupt"], 0, "{summary}");
    assert_eq!(summary["errors"], 0, "{summary}");
    assert_eq!(summary["shm_clients"], shm, "{summary}");
    assert_eq!(summary["socket_clients"], 3 - shm, "{summary}");
    assert_eq!(summary["fairness"], 1.0, "{summary}");
}

#[test]
fn pings_are_answered_over_shared_memory() {
    verified("", "ping", 3);
}

#[test]
fn payloads_come_back_over_shared_memory() {
    verified("", "bytes 20000", 3);
}

#[test]
fn batches_are_acknowledged_over_shared_memory() {
    verified("", "batch", 3);
}

#[test]
fn pings_are_answered_over_the_socket() {
    verified("", "ping --transport socket", 0);
}

#[test]
fn payloads_come_back_over_the_socket() {
    verified("", "bytes 20000 --transport socket", 0);
}

#[test]
fn batches_are_acknowledged_over_the_socket() {
    verified("", "batch --transport socket", 0);
}

#[test]
fn an_exchange_without_shared_memory_serves_over_the_socket() {
    verified("--transport socket", "bytes 20000", 0);
}

#[test]
fn each_client_can_be_a_process() {
    verified("", "bytes 20000 --processes", 3);
}

#[test]
fn workers_understand_their_trader_s_command_line_wherever_its_options_end() {
    let place = Place::new();
    let _exchange = place.exchange("");
    let args = "--processes --requests 40 --verify full --json -- 2 ping 64";
    let summary = place.run("trader", args).json();
    assert_eq!(summary["requests"], 80, "{summary}");
}

#[test]
fn one_thread_can_drive_all_clients() {
    verified("", "bytes 20000 --threads 1", 3);
}

#[test]
fn two_threads_can_share_three_clients_with_requests_in_flight() {
    verified("", "batch --threads 2 --depth 8", 3);
}

#[test]
fn requests_can_be_pipelined() {
    verified("", "bytes 20000 --depth 16", 3);
}

#[test]
fn requests_can_be_pipelined_over_the_socket() {
    verified("", "bytes 2000 --depth 16 --transport socket", 0);
}

#[test]
fn an_open_loop_sends_what_it_was_told_to() {
    verified("", "bytes 2000 --rate 3000 --depth 4", 3);
}

#[test]
fn clients_can_pause_between_requests() {
    verified("", "ping --think 1ms", 3);
}

#[test]
fn the_largest_message_goes_through() {
    verified("", "bytes 2MiB", 3);
}

#[test]
fn small_rings_and_every_wait_policy_work() {
    for wait in ["adaptive", "park", "document", "ladder", "spin"] {
        let common = format!("--ring-size 64KiB --wait {wait}");
        verified(&common, &format!("bytes 20000 {common}"), 3);
    }
}

#[test]
fn an_exchange_can_have_several_workers_or_a_thread_per_client() {
    verified("--workers 2", "bytes 20000", 3);
    verified("--thread-per-client", "bytes 20000", 3);
}
