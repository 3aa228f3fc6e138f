//! What the two sides of a connection claim, held against each other.

use transport::stats::Via;

use crate::model::join::Side;

/// Contradictions that no race between two looks can explain: each compares a later value of one side with an earlier one
/// of the other, in the direction that can't be. A message counts as sent a moment after the other side may have taken it, and who is
/// stopped in that moment, or works on after its answer, is behind by one for as long as that lasts.
pub(super) fn doubt(server: &Side<'_>, client: &Side<'_>) -> Option<String> {
    if server.slot.info.transport != Via::Shm || client.slot.info.transport != Via::Shm {
        return None;
    }
    let (server_before, _) = server.before?;
    let (client_before, _) = client.before?;
    let limit = server.slot.info.max_message;
    let checks = [
        (
            "requests",
            client.slot.tx.tx_record_bytes,
            server_before.rx.rx_record_bytes,
            client_before.tx.tx_record_bytes,
            server.slot.rx.rx_record_bytes,
            server.slot.info.rx_capacity,
            server.slot.rx.rx_largest_bytes,
        ),
        (
            "replies",
            server.slot.tx.tx_record_bytes,
            client_before.rx.rx_record_bytes,
            server_before.tx.tx_record_bytes,
            client.slot.rx.rx_record_bytes,
            server.slot.info.tx_capacity,
            client.slot.rx.rx_largest_bytes,
        ),
    ];
    for (what, produced, consumed_before, produced_before, consumed, capacity, largest) in checks {
        let one = largest.min(limit).saturating_add(RECORD_BYTES);
        if produced.saturating_add(one) < consumed_before {
            return Some(format!(
                "{what}: {consumed_before} bytes consumed, but only {produced} produced"
            ));
        }
        if produced_before.saturating_sub(consumed) > capacity.saturating_add(one) {
            return Some(format!(
                "{what}: {produced_before} bytes produced and {consumed} consumed: more than the ring of {capacity} holds"
            ));
        }
    }
    None
}

/// What a record has besides its payload, at most: its header, and what fills it up to the next boundary.
const RECORD_BYTES: u64 = 64;
