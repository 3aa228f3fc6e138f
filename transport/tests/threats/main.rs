//! The threats that the transport survives, one by one: `docs/testing.md` has a section for each, and [`table`] keeps it true.
//!
//! Processes are this very test binary, started again with a role (see [`role`]): they are killed, stopped and starved for real.
//! [`rogue`] is a peer that misbehaves; it knows nothing of the crate and speaks the bytes of `docs/protocol.md`.
//!
//! What is quick runs by default. `THREATS_ROUNDS=N` repeats the kills N times at places drawn at random, and prints what was done.

mod crowds;
mod descriptors;
mod floods;
mod forks;
mod handshakes;
mod harm;
mod kills;
mod knocked;
mod limits;
mod nested;
mod offered;
mod orphans;
mod paths;
mod payload;
mod punched;
mod reborn;
mod restarts;
mod rogue;
mod rogue_clients;
mod rogue_rings;
mod rogue_servers;
mod role;
mod scribblers;
mod signals;
#[path = "../common/skipped.rs"]
mod skipped;
mod stops;
mod strangers;
mod table;
mod trickles;
mod viewers;
mod watch;
mod world;
