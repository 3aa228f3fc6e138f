//! Limits that several modules keep to, which otherwise know nothing of each other.

/// Longest path a socket address takes: `sun_path` less its final zero.
pub(crate) const MAX_PATH_BYTES: usize = 107;

/// Upper bound a reader accepts for the number of slots; a hostile page can't make it allocate more.
pub const MAX_SLOTS: usize = 4096;

/// Largest payload a ring of `capacity` bytes takes: half of it, less a header and the word behind a record.
/// With at most half the ring per record, a record fits either before or after the wrap of an empty ring, at every offset.
pub(crate) const fn max_payload(capacity: usize) -> usize {
    capacity / 2 - 64
}
