//! The local journal: rows on their way to the store, in a file that survives the process.
//!
//! Segments `PATH.0`, `PATH.1`, .. hold frames; a frame is the packed rows that moved since the
//! last one, with its length and a checksum. A flush that was acknowledged makes the segments
//! before it superfluous, and they are removed. After a death the next process reads what is left
//! and carries it into its own log under the dead writer's name: totals, so nothing counts twice.
//!
//! Survives: the death of the process (`kill -9`) up to the last frame. Not promised: power loss
//! (`durable` is for that), or a disk that lies. A torn last frame is dropped: it was never
//! acknowledged to anybody.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::place::Place;
use super::record::{ByWriter, Rows};

/// How often rows go to the journal: less than half of the loss that is promised (50 ms), so that a
/// late tick on a busy machine stays within it.
pub(crate) const EVERY: Duration = Duration::from_millis(20);

/// First bytes of a segment: what it is and in which format.
const MAGIC: &[u8; 8] = b"tgjrnl\x00\x03";

/// Most bytes of one segment that are read back: a segment lives for a flush interval, and through
/// an outage it is rewritten when it passes [`COMPACT_AT`].
const MAX_SEGMENT: u64 = 256 * 1024 * 1024;

/// A segment larger than this is replaced by one frame of everything that is pending.
const COMPACT_AT: u64 = 32 * 1024 * 1024;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    incarnation: u128,
    /// Number of the segment being written, and the oldest there may be.
    segment: u64,
    oldest: u64,
    file: Option<File>,
    bytes: u64,
    /// Keeps other processes away.
    _place: Option<Place>,
}

impl Journal {
    /// Reads what a process before left at `path`: the rows of each writer. Call
    /// [`forget`](Self::forget) once they are in the store.
    pub(crate) fn recover(path: &Path) -> io::Result<Vec<(u128, Rows)>> {
        let mut found = Vec::<(u128, Rows)>::new();
        for segment in segments(path)? {
            for (writer, rows) in read_segment(&segment.1)? {
                match found.iter_mut().find(|(known, _)| *known == writer) {
                    Some((_, known)) => known.merge(rows),
                    None => found.push((writer, rows)),
                }
            }
        }
        Ok(found)
    }

    /// A journal for this writer, beginning after the segments that are there.
    pub(crate) fn open(path: &Path, incarnation: u128) -> io::Result<Self> {
        let found = segments(path)?;
        let oldest = found.first().map_or(0, |(n, _)| *n);
        let segment = found.last().map_or(0, |(n, _)| n + 1);
        let path = path.to_owned();
        Ok(Self { path, incarnation, segment, oldest, file: None, bytes: 0, _place: None })
    }

    /// Holds the journal's place as long as the journal.
    pub(crate) fn keep(mut self, place: Place) -> Self {
        self._place = Some(place);
        self
    }

    /// Appends the rows that moved.
    pub(crate) fn append(&mut self, rows: &ByWriter, at_ms: i64) -> io::Result<()> {
        for frame in rows.iter().flat_map(|(of, rows)| rows.pack(at_ms, Some(*of))) {
            let mut bytes = Vec::with_capacity(frame.len() + 12);
            let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&checksum(&frame));
            bytes.extend_from_slice(&frame);
            self.file()?.write_all(&bytes)?;
            self.bytes += bytes.len() as u64;
        }
        Ok(())
    }

    /// Starts a new segment and says what to [`forget`](Self::forget) once the rows so far are in
    /// the store.
    pub(crate) fn cut(&mut self) -> u64 {
        self.file = None;
        self.bytes = 0;
        self.segment += 1;
        self.segment
    }

    /// Removes the segments before `segment`.
    pub(crate) fn forget(&mut self, segment: u64) {
        while self.oldest < segment {
            // A segment that was never written, or is gone, is as forgotten as it can be.
            let _ = fs::remove_file(segment_path(&self.path, self.oldest));
            self.oldest += 1;
        }
    }

    /// Through an outage: everything pending as one new segment in place of the many frames.
    pub(crate) fn compact(&mut self, pending: &ByWriter, at_ms: i64) -> io::Result<()> {
        if self.bytes < COMPACT_AT {
            return Ok(());
        }
        let fresh = self.cut();
        self.append(pending, at_ms)?;
        self.forget(fresh);
        Ok(())
    }

    fn file(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            let path = segment_path(&self.path, self.segment);
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            file.write_all(MAGIC)?;
            file.write_all(&self.incarnation.to_le_bytes())?;
            self.file = Some(file);
        }
        Ok(self.file.as_mut().expect("it was opened above"))
    }
}

fn segment_path(path: &Path, segment: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{segment}"));
    name.into()
}

/// The segments there are, oldest first.
fn segments(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let name =
        path.file_name().ok_or_else(|| io::Error::other("the journal path names no file"))?;
    let prefix = format!("{}.", name.to_string_lossy());
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix(&prefix)).map(str::parse::<u64>);
        if let Some(Ok(number)) = number {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The rows of a segment by their writer, up to the first frame that is not whole. One that was
/// begun counts, though it may hold none yet: its writer was here.
fn read_segment(path: &Path) -> io::Result<Vec<(u128, Rows)>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_SEGMENT).read_to_end(&mut bytes)?;
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return Ok(Vec::new());
    };
    let Some((writer, mut rest)) = rest.split_first_chunk::<16>() else {
        return Ok(Vec::new());
    };
    let writer = u128::from_le_bytes(*writer);
    let mut found = ByWriter::from([(writer, Rows::default())]);
    while let Some((frame, after)) = split_frame(rest) {
        if let Some((more, of)) = Rows::unpack(frame) {
            found.entry(of.unwrap_or(writer)).or_default().merge(more);
        }
        rest = after;
    }
    Ok(found.into_iter().collect())
}

fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (frame, after) = rest.split_at_checked(length)?;
    (checksum(frame) == *sum).then_some((frame, after))
}

fn checksum(frame: &[u8]) -> [u8; 8] {
    let digest = Sha256::digest(frame);
    let mut sum = [0; 8];
    sum.copy_from_slice(&digest[..8]);
    sum
}

#[cfg(test)]
mod tests {
    use super::super::record::PoolRow;
    use super::*;
    use crate::admission::pool::PoolId;
    use crate::directory::Surrogate;

    fn rows(total: u64) -> Rows {
        of(1, total).remove(&1).unwrap()
    }

    fn of(writer: u128, total: u64) -> ByWriter {
        let pool = PoolId {
            tenant: Surrogate::test(7),
            limit: "requests/month".into(),
            scope: 0,
            start_ms: 5,
        };
        let row = PoolRow { total, ceiling: 0 };
        [(writer, Rows { pools: [(pool, row)].into(), ..Rows::default() })].into()
    }

    #[test]
    fn gives_back_the_newest_totals_of_each_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let mut journal = Journal::open(&path, 1).unwrap();
        journal.append(&of(1, 3), 0).unwrap();
        journal.append(&of(1, 9), 0).unwrap();
        let cut = journal.cut();
        journal.append(&of(1, 11), 0).unwrap();
        assert_eq!(Journal::recover(&path).unwrap(), vec![(1, rows(11))]);
        journal.forget(cut);
        let mut other = Journal::open(&path, 2).unwrap();
        other.append(&of(2, 4), 0).unwrap();
        assert_eq!(Journal::recover(&path).unwrap(), vec![(1, rows(11)), (2, rows(4))]);
    }

    #[test]
    fn a_torn_or_damaged_tail_is_dropped_and_what_is_before_it_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let mut journal = Journal::open(&path, 1).unwrap();
        journal.append(&of(1, 3), 0).unwrap();
        let whole = fs::read(segment_path(&path, 0)).unwrap();
        journal.append(&of(1, 9), 0).unwrap();
        let both = fs::read(segment_path(&path, 0)).unwrap();
        for cut in whole.len()..both.len() {
            fs::write(segment_path(&path, 0), &both[..cut]).unwrap();
            assert_eq!(Journal::recover(&path).unwrap(), vec![(1, rows(3))], "cut at {cut}");
        }
        let mut damaged = both.clone();
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(segment_path(&path, 0), &damaged).unwrap();
        assert_eq!(Journal::recover(&path).unwrap(), vec![(1, rows(3))]);
    }
}
