//! Pure arithmetic of the ring: no memory, no atomics.
/// Largest payload a ring of `capacity` bytes takes: half of it, less a header and the word behind a record.
pub const fn max_payload(capacity: usize) -> usize {
    capacity / 2 - 64
}
