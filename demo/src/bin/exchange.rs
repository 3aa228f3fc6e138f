//! exchange
fn main() {}
