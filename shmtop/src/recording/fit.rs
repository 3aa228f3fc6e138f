//! A sample within the length of a frame, whatever strangers have written into their pages: the largest of whoever has most are
//! left out, until it fits.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use crate::sample::{PageContent, Sample};
use crate::text;

/// Appends `sample` as JSON of at most `most` bytes.
///
/// # Errors
/// When it is longer without any page.
pub(super) fn append(frame: &mut Vec<u8>, sample: &Sample, most: usize) -> io::Result<()> {
    let before = frame.len();
    if write(frame, sample, most).is_ok() {
        return Ok(());
    }
    frame.truncate(before);
    let mut less = sample.clone();
    leave_out(&mut less, most)?;
    write(frame, &less, most)
}

fn write(frame: &mut Vec<u8>, sample: &Sample, most: usize) -> io::Result<()> {
    let out = Bounded {
        left: most,
        out: frame,
    };
    Ok(serde_json::to_writer(out, sample)?)
}

fn leave_out(sample: &mut Sample, most: usize) -> io::Result<()> {
    let mut total = length(sample)?;
    // By user, with their lengths, the largest last.
    let mut pages: BTreeMap<Option<u32>, Vec<(usize, usize)>> = BTreeMap::new();
    for (i, page) in sample.pages.iter().enumerate() {
        if page.snapshot().is_some() {
            let owner = sample.process(page.pid);
            let uid = owner.and_then(|p| p.uid.known().copied());
            let of_user = pages.entry(uid).or_default();
            of_user.push((length(&page.content)?, i));
        }
    }
    pages
        .values_mut()
        .for_each(|of_user| of_user.sort_unstable());
    let all = |of_user: &Vec<(usize, usize)>| of_user.iter().map(|(bytes, _)| bytes).sum::<usize>();
    while total > most
        && let Some(of_user) = pages.values_mut().max_by_key(|p| all(p))
        && let Some((bytes, i)) = of_user.pop()
    {
        let why = format!("{} are too much to record", text::bytes(bytes as u64));
        let content = PageContent::Unreadable(why);
        total = total.saturating_sub(bytes) + length(&content)?;
        sample.pages[i].content = content;
    }
    Ok(())
}

/// Bytes of JSON that it takes.
fn length(value: &impl Serialize) -> io::Result<usize> {
    let mut out = Bounded {
        left: usize::MAX,
        out: io::sink(),
    };
    serde_json::to_writer(&mut out, value)?;
    Ok(usize::MAX - out.left)
}

/// Takes so many bytes and no more.
struct Bounded<W> {
    left: usize,
    out: W,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let too_large = || io::Error::other("the sample is too large to record");
        self.left = self.left.checked_sub(bytes.len()).ok_or_else(too_large)?;
        self.out.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Fact, Page, Process};
    use transport::stats::{Histogram, Slot, Snapshot};

    fn page(pid: u32, slots: usize) -> Page {
        let rtt = Histogram {
            buckets: (0..500).map(|n| (n, u64::MAX)).collect(),
            ..Histogram::default()
        };
        let slot = Slot {
            rtt,
            ..Slot::default()
        };
        let snapshot = Snapshot {
            slots: vec![slot; slots],
            ..Snapshot::default()
        };
        Page::read(pid, snapshot)
    }

    #[test]
    fn what_does_not_fit_is_the_largest_page_of_whoever_has_most() {
        let process = |pid, uid| Process {
            pid,
            uid: Fact::Known(uid),
            ..Process::default()
        };
        // 1 is somebody's large server; 2 to 5 are a stranger's, smaller each and larger together.
        let mut sample = Sample {
            pages: vec![page(1, 4), page(2, 3), page(3, 3), page(4, 2), page(5, 2)],
            processes: (1..=5)
                .map(|pid| process(pid, u32::from(pid > 1)))
                .collect(),
            ..Sample::default()
        };
        let whole = length(&sample).unwrap();
        let kept = |most| {
            let mut frame = vec![7];
            append(&mut frame, &sample, most).unwrap();
            assert!(frame.len() <= most + 1 && frame[0] == 7);
            let back: Sample = serde_json::from_slice(&frame[1..]).unwrap();
            let read = back.pages.iter().filter(|p| p.snapshot().is_some());
            (read.map(|p| p.pid).collect::<Vec<_>>(), back)
        };
        assert_eq!(kept(whole).0, [1, 2, 3, 4, 5]);
        let (left, back) = kept(whole - 1);
        assert_eq!(left, [1, 2, 4, 5]);
        let why = format!("{:?}", back.pages[2].content);
        assert!(why.contains("are too much to record"), "{why}");
        assert_eq!(kept(whole * 2 / 3).0, [1, 4, 5]);
        sample.pages.clear();
        let least = length(&sample).unwrap();
        let failed = append(&mut Vec::new(), &sample, least - 1).unwrap_err();
        assert_eq!(failed.to_string(), "the sample is too large to record");
    }
}
