//! Word offsets (8-byte words from the page's start) of the header. All but `SLOTS_USED` are written before the magic.

/// [`super::MAGIC`]; stored last with Release; a reader loads it first, and then fences (acquire).
pub const MAGIC: usize = 0;
/// major << 32 | minor.
pub const VERSION: usize = 1;
/// Whole size in bytes.
pub const PAGE_BYTES: usize = 2;
/// Byte offset of slot 0.
pub const SLOTS_OFFSET: usize = 3;
/// Number of slots.
pub const SLOT_COUNT: usize = 4;
/// Bytes from slot to slot.
pub const SLOT_STRIDE: usize = 5;
/// Number of descriptors in the table.
pub const DESCRIPTOR_COUNT: usize = 6;
/// Pid, in the writer's own pid namespace.
pub const PID: usize = 7;
/// Field 22 of /proc/PID/stat: with the pid and boot id it names the process for good.
pub const START_TICKS: usize = 8;
/// Effective uid.
pub const UID: usize = 9;
/// [`super::super::Role`].
pub const ROLE: usize = 10;
/// Bit 0: debug build. Bit 1: timestamp counter in use.
pub const BUILD_FLAGS: usize = 11;
/// CLOCK_MONOTONIC in ns when the page was made.
pub const CREATED_MONOTONIC_NS: usize = 12;
/// CLOCK_REALTIME in ns at the same moment.
pub const CREATED_REALTIME_NS: usize = 13;
/// Inode of /proc/self/ns/pid: tells a viewer that pids are of another namespace.
pub const PID_NS_INODE: usize = 14;
/// Boot id, 2 words (16 bytes of the uuid).
pub const BOOT_ID: usize = 16;
/// Name of the endpoint, UTF-8, zero padded, 8 words (64 bytes).
pub const NAME: usize = 18;
/// Path of the server's socket, zero padded, 16 words (128 bytes).
pub const SOCKET_PATH: usize = 26;
/// Library version, UTF-8, zero padded, 2 words.
pub const LIBRARY: usize = 42;
/// Highest slot ever used plus one; grows. The only header word written after the magic.
pub const SLOTS_USED: usize = 44;
