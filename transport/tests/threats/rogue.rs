//! A peer made of bytes: it speaks `docs/protocol.md` from outside the crate, and so proves the document too. What it says well is
//! here; how it misbehaves is in the tests that use it.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::role::WATCHDOG;

pub(crate) const HELLO: u32 = 1;
pub(crate) const WELCOME: u32 = 2;
pub(crate) const REFUSED: u32 = 3;
pub(crate) const UPGRADE: u32 = 4;
pub(crate) const OFFER: u32 = 5;
pub(crate) const NO_OFFER: u32 = 6;
pub(crate) const COMMIT: u32 = 7;
pub(crate) const DECLINE: u32 = 8;
pub(crate) const READY: u32 = 9;
pub(crate) const BYE: u32 = 10;
pub(crate) const REQUEST: u32 = 16;
pub(crate) const REPLY: u32 = 17;

/// Version 1.0, as it stands in `aux`.
pub(crate) const VERSION: u32 = 1 << 16;
/// Bytes of a handshake message.
pub(crate) const MESSAGE: usize = 256;

/// A frame's header.
pub(crate) fn header(kind: u32, id: u64, length: u32, aux: u32) -> Vec<u8> {
    let mut bytes = b"SHM1".to_vec();
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&aux.to_le_bytes());
    bytes
}

/// A handshake message with u64 fields at these offsets (a u32 field is its low half).
pub(crate) fn message(kind: u32, attempt: u64, fields: &[(usize, u64)]) -> Vec<u8> {
    let mut bytes = header(kind, attempt, 232, VERSION);
    bytes.resize(MESSAGE, 0);
    for &(at, value) in fields {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// A HELLO that any server takes. Offset 24 holds pid and wait policy, 56 the transport wanted.
pub(crate) fn hello(ring_bytes: u64, max_message: u64) -> Vec<u8> {
    message(
        HELLO,
        0,
        &[
            (24, 1 << 32 | 7),
            (40, ring_bytes),
            (48, max_message),
            (56, 1),
        ],
    )
}

/// One end of a socket.
pub(crate) struct Raw(pub(crate) UnixStream);

/// A handshake message that came.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) bytes: [u8; MESSAGE],
    pub(crate) fds: Vec<OwnedFd>,
}

impl Heard {
    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    pub(crate) fn kind(&self) -> u32 {
        self.u32(4)
    }
}

impl Raw {
    pub(crate) fn connect(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).expect("a server"))
    }

    pub(crate) fn over(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(WATCHDOG)).unwrap();
        socket.set_write_timeout(Some(WATCHDOG)).unwrap();
        Self(socket)
    }

    /// Sends bytes; the peer may have closed, which tests see when they listen.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Sends bytes with descriptors.
    pub(crate) fn say_with(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let raw: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let sent = sendmsg::<()>(
            self.0.as_raw_fd(),
            &[IoSlice::new(bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        assert_eq!(sent, Ok(bytes.len()));
    }

    /// The next message; `None` when the peer has closed.
    pub(crate) fn hear(&mut self) -> Option<Heard> {
        let mut heard = Heard {
            bytes: [0; MESSAGE],
            fds: Vec::new(),
        };
        let mut at = 0;
        while at < MESSAGE {
            let mut space = nix::cmsg_space!([std::os::fd::RawFd; 253]);
            let mut part = [IoSliceMut::new(&mut heard.bytes[at..])];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let got = match recvmsg::<()>(self.0.as_raw_fd(), &mut part, Some(&mut space), flags) {
                Ok(got) => got,
                Err(nix::errno::Errno::ECONNRESET) => return None,
                Err(e) => panic!("no answer: {e}"),
            };
            for control in got.cmsgs().expect("room for all") {
                if let ControlMessageOwned::ScmRights(fds) = control {
                    // SAFETY: the kernel has just installed these descriptors for us, and nobody else knows them.
                    heard
                        .fds
                        .extend(fds.iter().map(|&fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            if got.bytes == 0 {
                assert_eq!(at, 0, "half a message");
                return None;
            }
            at += got.bytes;
        }
        Some(heard)
    }

    /// Waits until the peer closes, whatever it says before.
    pub(crate) fn is_closed(&mut self) {
        let mut sink = [0; 4096];
        loop {
            match self.0.read(&mut sink) {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return,
                Err(e) => panic!("the peer does not close: {e}"),
            }
        }
    }

    /// Whether the peer has closed, or does so in this time. What it says meanwhile is dropped.
    pub(crate) fn is_closed_within(&mut self, limit: std::time::Duration) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let begun = std::time::Instant::now();
        loop {
            let left = limit.saturating_sub(begun.elapsed());
            let timeout = PollTimeout::try_from(left).expect("short");
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(e) => panic!("{e}"),
            }
            match self.0.read(&mut [0; 4096]) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return true,
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// The next message, which must be of this kind.
    pub(crate) fn expect(&mut self, kind: u32) -> Heard {
        let heard = self.hear().expect("an answer");
        assert_eq!(heard.kind(), kind, "{heard:?}");
        heard
    }
}

/// The memory of a connection, mapped without a word to anybody.
pub(crate) struct Memory {
    base: *mut u8,
    pub(crate) length: usize,
    pub(crate) capacity: u64,
    pub(crate) fd: OwnedFd,
}

// SAFETY: the mapping is not tied to a thread, and all access is by atomics.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// Words of a ring's control block.
pub(crate) const TAIL: usize = 0x000;
pub(crate) const PRODUCED: usize = 0x008;
pub(crate) const FULL: usize = 0x080;
pub(crate) const HEAD: usize = 0x100;
pub(crate) const CONSUMED: usize = 0x108;
pub(crate) const EMPTY: usize = 0x180;
pub(crate) const WINDOW: usize = 0x200;
/// Where the reply ring's control block and the data begin.
pub(crate) const REPLIES: usize = 0x400;
pub(crate) const DATA: usize = 0x1000;

impl Memory {
    pub(crate) fn map(fd: OwnedFd, capacity: u64) -> Self {
        let length = DATA + 2 * capacity as usize;
        // SAFETY: a new mapping at a place of the kernel's choice, of a file that is sealed against shrinking.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED);
        Self {
            base: base.cast(),
            length,
            capacity,
            fd,
        }
    }

    /// A word anywhere in it.
    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.length);
        // SAFETY: aligned and inside the mapping (asserted), which lives as long as `self`; shared words are atomics.
        unsafe { AtomicU64::from_ptr(self.base.add(at).cast()) }
    }

    /// A flag.
    pub(crate) fn flag(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.length);
        // SAFETY: as in `word`.
        unsafe { AtomicU32::from_ptr(self.base.add(at).cast()) }
    }

    /// Copies bytes in, in whole words.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        for (i, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(at + 8 * i)
                .store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }

    /// Copies bytes out.
    pub(crate) fn read(&self, at: usize, length: usize) -> Vec<u8> {
        let words = (0..length.div_ceil(8)).map(|i| self.word(at + 8 * i).load(Ordering::Relaxed));
        let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        bytes.truncate(length);
        bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length, and nobody uses it any more.
        unsafe { libc::munmap(self.base.cast(), self.length) };
    }
}

/// The commit word of a record.
pub(crate) fn commit(kind: u64, length: u64) -> u64 {
    length | kind << 32
}
pub(crate) const PADDING: u64 = 1;
pub(crate) const REQUEST_RECORD: u64 = 2;
pub(crate) const REPLY_RECORD: u64 = 3;
pub(crate) const STREAMED: u64 = 1 << 40;

/// One end of both rings: `ours` is the control block and data of the ring it produces into.
pub(crate) struct Rings {
    pub(crate) memory: Arc<Memory>,
    control: [usize; 2],
    data: [usize; 2],
    /// Ends of what was produced and consumed.
    pub(crate) tail: u64,
    pub(crate) head: u64,
    kind: u64,
}

impl Rings {
    pub(crate) fn client(memory: Memory) -> Self {
        let memory = Arc::new(memory);
        let data = [DATA, DATA + memory.capacity as usize];
        Self {
            memory,
            control: [0, REPLIES],
            data,
            tail: 0,
            head: 0,
            kind: REQUEST_RECORD,
        }
    }

    pub(crate) fn server(memory: Memory) -> Self {
        let memory = Arc::new(memory);
        let data = [DATA + memory.capacity as usize, DATA];
        Self {
            memory,
            control: [REPLIES, 0],
            data,
            tail: 0,
            head: 0,
            kind: REPLY_RECORD,
        }
    }

    /// Where the next record goes, in the mapping.
    pub(crate) fn place(&self) -> usize {
        self.data[0] + (self.tail % self.memory.capacity) as usize
    }

    /// A word of the ring produced into.
    pub(crate) fn out(&self, word: usize) -> &AtomicU64 {
        self.memory.word(self.control[0] + word)
    }

    /// A word of the ring consumed from.
    pub(crate) fn back(&self, word: usize) -> &AtomicU64 {
        self.memory.word(self.control[1] + word)
    }

    /// Bytes from the next place to the end of the ring.
    pub(crate) fn left(&self) -> u64 {
        self.memory.capacity - self.tail % self.memory.capacity
    }

    /// Goes to the start of the ring if a record with this payload does not fit before its end.
    pub(crate) fn make_room_for(&mut self, payload: &[u8]) {
        let bytes = 16 + (payload.len() as u64).next_multiple_of(8);
        if self.left() < bytes {
            let skip = self.place();
            self.tail += self.left();
            let start = self.place();
            self.memory.word(start).store(0, Ordering::Release);
            self.memory
                .word(skip)
                .store(commit(PADDING, 0), Ordering::Release);
        }
    }

    /// Writes id, payload and the zero behind, but not the commit word. Goes to the start of the ring if it must.
    pub(crate) fn prepare(&mut self, id: u64, payload: &[u8]) -> u64 {
        self.make_room_for(payload);
        let bytes = 16 + (payload.len() as u64).next_multiple_of(8);
        let at = self.place();
        self.memory.word(at + 8).store(id, Ordering::Relaxed);
        self.memory.write(at + 16, payload);
        let behind = self.data[0] + ((self.tail + bytes) % self.memory.capacity) as usize;
        self.memory.word(behind).store(0, Ordering::Relaxed);
        bytes
    }

    /// Sends a record, as the document says.
    pub(crate) fn send(&mut self, id: u64, payload: &[u8]) {
        let bytes = self.prepare(id, payload);
        let word = commit(self.kind, payload.len() as u64);
        self.memory
            .word(self.place())
            .store(word, Ordering::Release);
        self.tail += bytes;
        self.out(PRODUCED).fetch_add(bytes, Ordering::Relaxed);
        self.out(TAIL).store(self.tail, Ordering::Release);
        self.wake();
    }

    /// Fills all room there is with empty records of this id, as fast as memory goes.
    pub(crate) fn flood(&mut self, id: u64) {
        let capacity = self.memory.capacity;
        let head = self.out(HEAD).load(Ordering::Acquire);
        let word = commit(self.kind, 0);
        while self.tail.wrapping_sub(head) + 24 <= capacity {
            let at = self.place();
            let behind = self.data[0] + ((self.tail + 16) % capacity) as usize;
            self.memory.word(at + 8).store(id, Ordering::Relaxed);
            self.memory.word(behind).store(0, Ordering::Relaxed);
            self.memory.word(at).store(word, Ordering::Release);
            self.tail += 16;
            // Each time: a consumer that has caught up must find it where it is.
            self.out(TAIL).store(self.tail, Ordering::Release);
        }
    }

    /// Wakes the peer, for either ring.
    pub(crate) fn wake(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
        for flag in [self.control[0] + EMPTY, self.control[1] + FULL] {
            let flag = self.memory.flag(flag);
            if flag.swap(0, Ordering::Relaxed) != 0 {
                // SAFETY: FUTEX_WAKE on a live, aligned word; the kernel does not touch it.
                unsafe { libc::syscall(libc::SYS_futex, flag.as_ptr(), libc::FUTEX_WAKE, 1) };
            }
        }
    }

    /// The next record, if it is there: kind, id and payload.
    pub(crate) fn receive(&mut self) -> Option<(u64, u64, Vec<u8>)> {
        loop {
            let at = self.data[1] + (self.head % self.memory.capacity) as usize;
            let word = self.memory.word(at).load(Ordering::Acquire);
            if word == 0 {
                return None;
            }
            let (length, kind) = (word & 0xffff_ffff, word >> 32 & 0xff);
            if kind == PADDING {
                self.head += self.memory.capacity - self.head % self.memory.capacity;
                continue;
            }
            let bytes = 16 + length.next_multiple_of(8);
            if word & STREAMED != 0 {
                let tail = self.back(TAIL).load(Ordering::Acquire);
                if tail.wrapping_sub(self.head + bytes) > self.memory.capacity {
                    std::thread::yield_now();
                    continue;
                }
            }
            let id = self.memory.word(at + 8).load(Ordering::Relaxed);
            let payload = self.memory.read(at + 16, length as usize);
            self.head += bytes;
            self.back(CONSUMED).fetch_add(bytes, Ordering::Relaxed);
            self.back(HEAD).store(self.head, Ordering::Release);
            self.wake();
            return Some((kind, id, payload));
        }
    }

    /// Waits for the next record.
    pub(crate) fn await_record(&mut self) -> (u64, u64, Vec<u8>) {
        let begun = std::time::Instant::now();
        loop {
            if let Some(record) = self.receive() {
                return record;
            }
            assert!(begun.elapsed() < WATCHDOG, "no record");
            std::thread::yield_now();
        }
    }
}

/// A client on shared memory, made of bytes.
pub(crate) struct Client {
    pub(crate) raw: Raw,
    pub(crate) rings: Rings,
    pub(crate) connection: u64,
    pub(crate) max_message: usize,
}

impl Client {
    /// Goes through the whole handshake.
    pub(crate) fn connect(path: &Path) -> Self {
        let mut raw = Raw::connect(path);
        raw.say(&hello(1 << 16, 20_000));
        let welcome = raw.expect(WELCOME);
        let (connection, max_message) = (welcome.u64(40), welcome.u64(48) as usize);
        raw.say(&message(UPGRADE, 1, &[]));
        let mut offer = raw.expect(OFFER);
        assert_eq!(offer.fds.len(), 1);
        assert_eq!(offer.u64(32), DATA as u64 + offer.u64(40) + offer.u64(48));
        let memory = Memory::map(offer.fds.remove(0), offer.u64(40));
        raw.say(&message(COMMIT, 1, &[]));
        raw.expect(READY);
        Self {
            raw,
            rings: Rings::client(memory),
            connection,
            max_message,
        }
    }

    /// A request and its reply.
    pub(crate) fn call(&mut self, id: u64, payload: &[u8]) -> Vec<u8> {
        self.rings.send(id, payload);
        let (kind, replied, bytes) = self.rings.await_record();
        assert_eq!((kind, replied), (REPLY_RECORD, id));
        bytes
    }

    /// The descriptor of the rings, which a well-behaved client would have closed.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.rings.memory.fd.as_fd()
    }
}
