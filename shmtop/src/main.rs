//! The shmtop command.
fn main() {}
