//! Recordings of samples: a header, then frames; safe to cut anywhere.
//!
//! ```text
//! 0   8  magic  "SHMTOPRC"
//! 8   4  version, little-endian (1)
//! 12  4  reserved, 0
//! then frames:  4 length | 4 CRC-32 of the payload | payload: one Sample as JSON
//! ```
//! Each frame is written with one write call, so a crash costs at most the last one; a reader stops before a frame that is
//! cut off and says so; zeros up to the end, which a power loss leaves of a file that grew, are such a one. A frame that is
//! damaged ends the recording with a sentence. Nothing is allocated from a length before it is checked against a bound, and no frame
//! takes more than a few times its own size (`budget`); what is longer than a frame may be is left out when it is written (`fit`).

mod budget;
mod fit;

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use crate::sample::Sample;

/// First bytes of a recording.
pub const MAGIC: &[u8; 8] = b"SHMTOPRC";
/// Version this shmtop writes and reads.
pub const VERSION: u32 = 1;
/// Longest frame: some thousand clients.
const MAX_FRAME: usize = 64 << 20;

/// Writes samples.
pub struct Recorder<W: Write> {
    out: W,
    frames: u64,
}

impl<W: Write> Recorder<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn new(mut out: W) -> io::Result<Self> {
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        out.write_all(&header)?;
        out.flush()?;
        Ok(Self { out, frames: 0 })
    }

    /// Appends a sample. Of one that is longer than a frame may be, it leaves out the content of pages: no stranger's page ends
    /// a recording.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn push(&mut self, sample: &Sample) -> io::Result<()> {
        let mut frame = vec![0; 8];
        fit::append(&mut frame, sample, MAX_FRAME)?;
        let length = (frame.len() - 8) as u32;
        let crc = crc32fast::hash(&frame[8..]);
        frame[..4].copy_from_slice(&length.to_le_bytes());
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        self.out.write_all(&frame)?;
        self.out.flush()?;
        self.frames += 1;
        Ok(())
    }

    /// Samples written.
    pub fn frames(&self) -> u64 {
        self.frames
    }
}

/// Reads samples.
pub struct Recording<R: Read> {
    input: R,
    name: String,
    frames: u64,
    cut_off: bool,
    ended: bool,
}

impl Recording<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// A sentence with the path: not there, not to be read by this user, not a recording, another version.
    pub fn open(path: &Path) -> io::Result<Self> {
        let said = |kind, why: &dyn std::fmt::Display| {
            io::Error::new(kind, format!("{}: {why}", path.display()))
        };
        let file = File::open(path).map_err(|e| said(e.kind(), &e))?;
        let name = path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy();
        let recording = Self::new(BufReader::new(file), &name);
        recording.map_err(|e| said(io::ErrorKind::InvalidData, &e))
    }
}

impl<R: Read> Recording<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// A sentence: not a recording, another version.
    pub fn new(mut input: R, name: &str) -> Result<Self, String> {
        let mut header = [0; 16];
        input.read_exact(&mut header).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                "not a shmtop recording (shorter than its header)".to_owned()
            }
            _ => e.to_string(),
        })?;
        if &header[..8] != MAGIC {
            return Err("not a shmtop recording".into());
        }
        let version = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        if version != VERSION {
            return Err(format!(
                "recording of version {version}; this shmtop reads version {VERSION}"
            ));
        }
        Ok(Self {
            input,
            name: crate::text::clean(name),
            frames: 0,
            cut_off: false,
            ended: false,
        })
    }

    /// The next sample; `None` at the end, which may be a frame that was cut off ([`Self::cut_off`]).
    ///
    /// # Errors
    /// A sentence: the frame is damaged. That is the end, too: what lies behind it is not looked at.
    pub fn next_sample(&mut self) -> Result<Option<Sample>, String> {
        if self.ended {
            return Ok(None);
        }
        let next = self.read_on();
        self.ended = !matches!(next, Ok(Some(_)));
        next
    }

    fn read_on(&mut self) -> Result<Option<Sample>, String> {
        let mut head = [0; 8];
        match fill(&mut self.input, &mut head)? {
            0 => return Ok(None),
            8 => {}
            _ => return Ok(self.ends_here()),
        }
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let number = self.frames + 1;
        if head == [0; 8] && only_zeros(&mut self.input)? {
            return Ok(self.ends_here());
        }
        if length > MAX_FRAME {
            return Err(format!(
                "frame {number} claims {length} bytes, at most {MAX_FRAME} are allowed: damaged"
            ));
        }
        let mut payload = Vec::new();
        let read = self
            .input
            .by_ref()
            .take(length as u64)
            .read_to_end(&mut payload)
            .map_err(|e| format!("frame {number}: {e}"))?;
        if read < length {
            return Ok(self.ends_here());
        }
        if crc32fast::hash(&payload) != crc {
            return Err(format!("frame {number} is damaged (checksum)"));
        }
        budget::check(&payload).map_err(|why| format!("frame {number} is not a sample: {why}"))?;
        let sample = serde_json::from_slice(&payload)
            .map_err(|e| format!("frame {number} is not a sample: {e}"))?;
        self.frames += 1;
        Ok(Some(sample))
    }

    fn ends_here(&mut self) -> Option<Sample> {
        self.cut_off = true;
        None
    }

    /// True if the recording ended in the middle of a frame: whoever wrote it was interrupted.
    pub fn cut_off(&self) -> bool {
        self.cut_off
    }

    /// The file's name, sanitised.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Samples read.
    pub fn frames(&self) -> u64 {
        self.frames
    }
}

/// Reads until `buffer` is full or the input ends; how much was read.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, String> {
    let mut at = 0;
    while at < buffer.len() {
        match input.read(&mut buffer[at..]) {
            Ok(0) => break,
            Ok(n) => at += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.to_string()),
        }
    }
    Ok(at)
}

/// Whether nothing but zeros comes until the end.
fn only_zeros(input: &mut impl Read) -> Result<bool, String> {
    let mut buffer = [0; 4096];
    loop {
        let n = fill(input, &mut buffer)?;
        if buffer[..n].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        if n < buffer.len() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Page;
    use proptest::prelude::*;
    use transport::stats::histogram::BUCKETS;
    use transport::stats::{Histogram, Slot, Snapshot};

    fn recorded(n: u64) -> Vec<u8> {
        let mut r = Recorder::new(Vec::new()).unwrap();
        for i in 1..=n {
            let mut s = Sample::default();
            s.time.monotonic_ns = i;
            r.push(&s).unwrap();
        }
        r.out
    }

    fn read_all(bytes: &[u8]) -> Result<(Vec<u64>, bool), String> {
        let mut r = Recording::new(bytes, "test")?;
        let mut out = Vec::new();
        while let Some(s) = r.next_sample()? {
            out.push(s.time.monotonic_ns);
        }
        Ok((out, r.cut_off()))
    }

    #[test]
    fn what_was_recorded_comes_back() {
        assert_eq!(read_all(&recorded(3)), Ok((vec![1, 2, 3], false)));
    }

    #[test]
    fn buckets_that_no_histogram_has_are_left_out() {
        let rtt = Histogram {
            buckets: vec![(3, 1), (BUCKETS as u16, 5), (u16::MAX, 7)],
            ..Histogram::default()
        };
        let slot = Slot {
            rtt,
            ..Slot::default()
        };
        let page = Snapshot {
            slots: vec![slot],
            ..Snapshot::default()
        };
        let mut sample = Sample::default();
        sample.pages.push(Page::read(0, page));
        let mut r = Recorder::new(Vec::new()).unwrap();
        r.push(&sample).unwrap();
        let mut back = Recording::new(&r.out[..], "test").unwrap();
        let sample = back.next_sample().unwrap().unwrap();
        let page = sample.pages[0].snapshot().unwrap();
        assert_eq!(page.slots[0].rtt.buckets, [(3, 1)]);
    }

    #[test]
    fn a_recording_cut_anywhere_gives_all_whole_frames() {
        let whole = recorded(3);
        for cut in 0..16 {
            let refused = read_all(&whole[..cut]).unwrap_err();
            assert!(refused.contains("shorter than its header"), "{refused}");
        }
        let frame = (whole.len() - 16) / 3;
        for cut in 16..whole.len() {
            let (samples, cut_off) = read_all(&whole[..cut]).unwrap();
            assert_eq!(samples.len(), (cut - 16) / frame, "cut at {cut}");
            assert_eq!(cut_off, (cut - 16) % frame != 0, "cut at {cut}");
        }
    }

    #[test]
    fn damage_is_one_sentence() {
        let mut bytes = recorded(2);
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(
            read_all(&bytes).unwrap_err(),
            "frame 2 is damaged (checksum)"
        );
        assert!(
            read_all(b"hello")
                .unwrap_err()
                .contains("not a shmtop recording")
        );
        let mut newer = recorded(0);
        newer[8] = 9;
        assert!(read_all(&newer).unwrap_err().contains("version 9"));
        let mut huge = recorded(0);
        huge.extend_from_slice(&[0xff; 8]);
        assert!(read_all(&huge).unwrap_err().contains("at most"));
    }

    #[test]
    fn zeros_at_the_end_are_a_frame_that_was_cut_off() {
        for zeros in [1, 7, 8, 9, 4_096, 10_000] {
            let mut bytes = recorded(2);
            bytes.extend(vec![0; zeros]);
            assert_eq!(read_all(&bytes), Ok((vec![1, 2], true)), "{zeros}");
            bytes.push(1);
            bytes.extend([0; 9]);
            assert!(read_all(&bytes).is_err() || zeros < 8, "{zeros}");
        }
    }

    #[test]
    fn behind_damage_there_is_nothing() {
        let mut bytes = recorded(3);
        let frame = (bytes.len() - 16) / 3;
        bytes[16 + frame + 20] ^= 1;
        let mut r = Recording::new(&bytes[..], "test").unwrap();
        assert!(r.next_sample().unwrap().is_some());
        assert!(r.next_sample().is_err());
        assert!(r.next_sample().unwrap().is_none() && !r.cut_off());
    }

    #[test]
    fn a_frame_of_empty_parts_is_refused_before_it_takes_memory() {
        let payload = format!("{{\"processes\":[{}]}}", vec!["{}"; 100_000].join(","));
        let mut bytes = recorded(1);
        bytes.extend((payload.len() as u32).to_le_bytes());
        bytes.extend(crc32fast::hash(payload.as_bytes()).to_le_bytes());
        bytes.extend(payload.as_bytes());
        let refused = read_all(&bytes).unwrap_err();
        assert_eq!(refused, "frame 2 is not a sample: it has too many parts");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = recorded(1);
            bytes.extend(tail);
            let _ = read_all(&bytes);
        }
    }
}
