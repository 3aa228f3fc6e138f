//! What travels over the Unix socket: frames, the handshake, a descriptor.
//!
//! [`frame`], [`messages`] and [`handshake`] are bytes in, decisions out, and run without a kernel; [`fdpass`],
//! [`edge`] and [`drive`] are where the socket is. `synapse.rs` and `membrane.rs` call [`drive`] to connect and
//! upgrade, and [`frame`] with [`edge`] for requests over the socket. The format is docs/protocol.md.

pub(crate) mod drive;
pub(crate) mod edge;
pub(crate) mod fdpass;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod messages;
