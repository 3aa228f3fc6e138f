//! The ring memory's layout as both sides of the handshake must agree on it.

use crate::ring::storage::CONTROL_BYTES;
use crate::wire::handshake::Layout;

/// Changes whenever `ring`'s byte map or protocol does.
pub(crate) const LAYOUT_VERSION: u32 = 1;

/// For both machines of the handshake.
pub(crate) const LAYOUT: Layout = Layout {
    version: LAYOUT_VERSION,
    total_bytes,
};

/// Bytes of the memfd for two rings: the control page, then their data.
fn total_bytes(client_to_server: u64, server_to_client: u64) -> u64 {
    CONTROL_BYTES as u64 + client_to_server + server_to_client
}
