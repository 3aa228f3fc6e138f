//! Counters that stand nowhere in the page because they follow from others: the one place where a reader makes them.
//!
//! ```text
//! tx_messages       tx_straight + tx_looked + tx_socket_messages
//! tx_bytes          tx_ring_bytes + tx_socket_bytes
//! tx_record_bytes   tx_ring_bytes + tx_slack_bytes + 16 · (tx_straight + tx_looked)
//! tx_index          tx_record_bytes + tx_padding_bytes
//! tx_index_hits     tx_straight
//! tx_largest_bytes  tx_peak_bytes
//! rx_messages       rx_straight + rx_looked + rx_void_straight + rx_void_looked + rx_socket_messages + rx_socket_void
//! rx_bytes          rx_ring_bytes + rx_socket_bytes
//! rx_record_bytes   rx_ring_bytes + rx_slack_bytes + 16 · (all of rx_messages but those of the socket)
//! rx_index          rx_record_bytes + rx_padding_bytes
//! rx_index_hits     rx_straight + rx_void_straight
//! rx_largest_bytes  rx_peak_bytes
//! requests          client: tx_messages; server: rx_messages
//! replies           client: rx_straight + rx_looked + rx_socket_messages; server: tx_messages
//! in_flight         client: requests − replies − given_up, at least 0; server: 0
//! ```
//! 16 is the size of a record's header.
//!
//! All but `in_flight` are sums of words that only grow. So whenever each word was loaded, and whatever its writer did in between, a
//! second look never finds less than the first; nothing needs to be consistent. What is counted is cut into disjoint words for that:
//! a difference (messages less those that looked) would step back whenever a reader came between two stores.
//!
//! `in_flight` can't be one. What was sent is loaded before what was answered, so it is too small by what was answered
//! in between, never too large, and exact when nothing moves, which is when it matters. A reply may even be counted before its
//! request, which its client books while the server works: then it is 0.

//!
//! `handler_since_ns` counts only where a request is taken and not answered: of runs that are not timed it is written by the housekeeping, which
//! comes up to 100 ms late, also when the run is over and another one has begun.

use super::schema::{
    RECORD_HEADER_BYTES, ReqCounters, RxCounters, SentCounters, TakenCounters, TxCounters,
};
use super::snapshot::{Role, Slot};

/// Fills in what `sent` and `taken` stand for. Any values are survived: they are a stranger's.
pub(super) fn derive(role: Role, sent: &SentCounters, taken: &TakenCounters, slot: &mut Slot) {
    let Slot { tx, rx, req, .. } = slot;
    outgoing(sent, tx);
    incoming(taken, rx);
    let answered = sum([taken.rx_straight, taken.rx_looked, taken.rx_socket_messages]);
    *req = match role {
        Role::Client => ReqCounters {
            requests: tx.tx_messages,
            replies: answered,
            in_flight: tx
                .tx_messages
                .saturating_sub(answered)
                .saturating_sub(taken.given_up),
            ..*req
        },
        Role::Server => ReqCounters {
            requests: rx.rx_messages,
            replies: tx.tx_messages,
            in_flight: 0,
            handler_since_ns: if rx.rx_messages > tx.tx_messages {
                req.handler_since_ns
            } else {
                0
            },
            ..*req
        },
    };
}

fn outgoing(sent: &SentCounters, tx: &mut TxCounters) {
    let records = sum([sent.tx_straight, sent.tx_looked]);
    tx.tx_messages = sum([records, sent.tx_socket_messages]);
    tx.tx_bytes = sum([sent.tx_ring_bytes, sent.tx_socket_bytes]);
    tx.tx_record_bytes = record_bytes(records, sent.tx_ring_bytes, sent.tx_slack_bytes);
    tx.tx_index = sum([tx.tx_record_bytes, tx.tx_padding_bytes]);
    tx.tx_index_hits = sent.tx_straight;
    tx.tx_largest_bytes = sent.tx_peak_bytes;
}

fn incoming(taken: &TakenCounters, rx: &mut RxCounters) {
    let records = sum([
        taken.rx_straight,
        taken.rx_looked,
        taken.rx_void_straight,
        taken.rx_void_looked,
    ]);
    rx.rx_messages = sum([records, taken.rx_socket_messages, taken.rx_socket_void]);
    rx.rx_bytes = sum([taken.rx_ring_bytes, taken.rx_socket_bytes]);
    rx.rx_record_bytes = record_bytes(records, taken.rx_ring_bytes, taken.rx_slack_bytes);
    rx.rx_index = sum([rx.rx_record_bytes, rx.rx_padding_bytes]);
    rx.rx_index_hits = sum([taken.rx_straight, taken.rx_void_straight]);
    rx.rx_largest_bytes = taken.rx_peak_bytes;
}

fn record_bytes(records: u64, payload: u64, slack: u64) -> u64 {
    sum([payload, slack, records.saturating_mul(RECORD_HEADER_BYTES)])
}

fn sum<const N: usize>(parts: [u64; N]) -> u64 {
    parts.into_iter().fold(0, u64::saturating_add)
}
