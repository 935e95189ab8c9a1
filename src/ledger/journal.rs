//! The local journal: rows on their way to the store, in a file that survives the process.
//!
//! Segments `PATH.0`, `PATH.1`, .. hold frames; a frame is the packed rows that changed since the
//! previous one, with its length and a checksum. An acknowledged flush makes earlier segments
//! obsolete, and they are removed. After a crash the next process reads the remaining segments and
//! carries them into its own log under the dead writer's id: they are totals, so nothing counts
//! twice.
//!
//! Rows that cannot be written are kept and go with the next frame. Nothing after a torn frame is
//! read back, so a torn segment is abandoned for a new one.
//!
//! Survives: the death of the process (`kill -9`), up to the last frame. Not promised: power loss
//! (`durable` is for that), or a disk that lies. A torn last frame is dropped: it was never
//! acknowledged.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::place::JournalPath;
use super::record::{ByWriter, Rows, merge};
use crate::ids::WriterId;
use crate::store::store_id::StoreId;
use crate::text_file::regular_or_absent;

/// How often rows go to the journal: less than half of the promised loss bound (50 ms), so that a
/// late tick on a busy machine stays within it.
pub(crate) const EVERY: Duration = Duration::from_millis(20);

/// First bytes of a segment: file type and format version.
const MAGIC: &[u8; 8] = b"tgjrnl\x00\x06";

/// Bytes of a segment before its first frame: [`MAGIC`], the id of its store, and its writer.
const HEAD: usize = 8 + 16 + 16;

/// Limit on the bytes read back from one segment: a segment lives for a flush interval, and during
/// an outage it is rewritten once it exceeds [`COMPACT_AT`].
const MAX_SEGMENT: u64 = 256 * 1024 * 1024;

/// A segment larger than this is replaced by one frame of everything that is pending.
const COMPACT_AT: u64 = 32 * 1024 * 1024;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    home: StoreId,
    incarnation: WriterId,
    /// Number of the segment being written, and of the oldest that may exist.
    segment: u64,
    oldest: u64,
    file: Option<File>,
    /// Bytes of whole frames in it, and the size at which to compact.
    bytes: u64,
    pub(super) compact_at: u64,
    /// Rows that could not be appended, and the segment in which that happened.
    missed: ByWriter,
    missed_in: u64,
    /// Bytes until the disk is full.
    #[cfg(test)]
    room: Option<usize>,
    /// Locks out other processes.
    _place: Option<JournalPath>,
}

impl Journal {
    /// Reads the rows of each writer that an earlier process left at `path`. Call
    /// [`forget`](Self::forget) once they are in the store.
    pub(crate) fn recover(path: &Path) -> io::Result<Vec<(WriterId, Rows)>> {
        let mut found = Vec::<(WriterId, Rows)>::new();
        for segment in segments(path)? {
            let named = |error| io::Error::other(format!("{}: {error}", segment.1.display()));
            for (writer, rows) in read_segment(&segment.1).map_err(named)? {
                match found.iter_mut().find(|(known, _)| *known == writer) {
                    Some((_, known)) => known.merge(rows),
                    None => found.push((writer, rows)),
                }
            }
        }
        Ok(found)
    }

    /// Fails if no journal can be written.
    pub(crate) fn check_writable(path: &Path) -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(".probe");
        let probe = PathBuf::from(name);
        let named = |error| io::Error::other(format!("{}: {error}", probe.display()));
        regular_or_absent(&probe).map_err(named)?;
        new_file(&probe)?.write_all(MAGIC)?;
        let _ = fs::remove_file(probe); // another process may have done the same concurrently
        Ok(())
    }

    /// Whether a segment at `path` is of another store than this, or of this one before it was
    /// restored.
    pub(crate) fn is_of_another(path: &Path, home: StoreId) -> io::Result<bool> {
        for (_, segment) in segments(path)? {
            let named = |error| io::Error::other(format!("{}: {error}", segment.display()));
            let head = head(&segment).map_err(named)?;
            if split_head(&head).is_some_and(|(of, ..)| of != home) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A journal for this writer to this store, starting after the existing segments.
    pub(crate) fn open(path: &Path, home: StoreId, incarnation: WriterId) -> io::Result<Self> {
        let found = segments(path)?;
        let oldest = found.first().map_or(0, |(n, _)| *n);
        let segment = found.last().map_or(0, |(n, _)| n + 1);
        let path = path.to_owned();
        Ok(Self {
            path,
            home,
            incarnation,
            segment,
            oldest,
            file: None,
            bytes: 0,
            compact_at: COMPACT_AT,
            missed: ByWriter::new(),
            missed_in: 0,
            #[cfg(test)]
            room: None,
            _place: None,
        })
    }

    /// Keeps the journal's place locked for as long as the journal lives.
    pub(crate) fn keep(mut self, place: JournalPath) -> Self {
        self._place = Some(place);
        self
    }

    /// Appends the rows that changed, and those that could not be appended earlier.
    pub(crate) fn append(&mut self, rows: &ByWriter, at_ms: i64) -> io::Result<()> {
        let mut all = Cow::Borrowed(rows);
        if self.lacks_rows() {
            all = Cow::Owned(std::mem::take(&mut self.missed));
            merge(all.to_mut(), rows.clone());
        }
        let written = self.write(&all, at_ms);
        if written.is_err() {
            (self.missed, self.missed_in) = (all.into_owned(), self.segment);
            self.leave();
        }
        written
    }

    fn write(&mut self, rows: &ByWriter, at_ms: i64) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        self.begin()?; // first: a full disk fails before anything is packed
        for frame in rows.iter().flat_map(|(of, rows)| rows.pack(at_ms, Some(*of))) {
            let mut bytes = Vec::with_capacity(frame.len() + 12);
            let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&checksum(&frame));
            bytes.extend_from_slice(&frame);
            self.put(&bytes)?;
            self.bytes += bytes.len() as u64;
        }
        Ok(())
    }

    /// Starts a new segment and returns the number to [`forget`](Self::forget) up to once the rows
    /// so far are in the store.
    pub(crate) fn cut(&mut self) -> u64 {
        self.file = None;
        self.bytes = 0;
        self.segment += 1;
        self.segment
    }

    /// Removes the segments before `segment`.
    pub(crate) fn forget(&mut self, segment: u64) {
        while self.oldest < segment {
            // A segment that was never written, or is gone, needs no removal.
            let _ = fs::remove_file(segment_path(&self.path, self.oldest));
            self.oldest += 1;
        }
        if self.missed_in < segment {
            self.missed.clear();
        }
    }

    /// Whether some rows could not be appended.
    pub(crate) fn lacks_rows(&self) -> bool {
        !self.missed.is_empty()
    }

    /// Whether the segment should be [`compact`](Self::compact)ed.
    pub(crate) fn is_large(&self) -> bool {
        self.bytes >= self.compact_at
    }

    /// During an outage: writes everything that may not be in the store as one new segment,
    /// replacing the many frames.
    pub(crate) fn compact(&mut self, unacknowledged: &ByWriter, at_ms: i64) -> io::Result<()> {
        let fresh = self.cut();
        self.append(unacknowledged, at_ms)?;
        self.forget(fresh);
        Ok(())
    }

    /// Opens the segment, if not yet open.
    fn begin(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            let path = segment_path(&self.path, self.segment);
            self.file = Some(new_file(&path)?);
            let (home, writer) = (self.home.to_bytes(), self.incarnation.to_bytes());
            let head = [&MAGIC[..], &home, &writer].concat();
            self.put(&head)?;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.file.as_mut().ok_or_else(|| io::Error::other("no segment is open"))?;
        #[cfg(test)]
        if let Some(room) = &mut self.room {
            let fits = bytes.len().min(*room);
            *room -= fits;
            file.write_all(&bytes[..fits])?;
            return if fits < bytes.len() {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                Ok(())
            };
        }
        file.write_all(bytes)
    }

    /// Abandons a segment that may end in half a frame. One without a whole frame is removed, so
    /// that a disk that stays full does not fill with such segments.
    fn leave(&mut self) {
        self.file = None;
        let is_empty = std::mem::take(&mut self.bytes) == 0;
        let is_gone = || match fs::remove_file(segment_path(&self.path, self.segment)) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if !(is_empty && is_gone()) {
            self.segment += 1;
        }
    }
}

/// A file that only its owner may read: it contains tenant names.
fn new_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn segment_path(path: &Path, segment: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{segment}"));
    name.into()
}

/// The existing segments, oldest first.
fn segments(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let name =
        path.file_name().ok_or_else(|| io::Error::other("the journal path has no file name"))?;
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

/// The rows of a segment by writer, up to the first incomplete frame. A segment that was begun
/// counts even if it holds none yet: its writer was here.
fn read_segment(path: &Path) -> io::Result<Vec<(WriterId, Rows)>> {
    let mut bytes = Vec::new();
    regular_or_absent(path)?;
    File::open(path)?.take(MAX_SEGMENT).read_to_end(&mut bytes)?;
    let Some((_, writer, mut rest)) = split_head(&bytes) else {
        say_lost(path, 0, bytes.len());
        return Ok(Vec::new());
    };
    let mut found = ByWriter::from([(writer, Rows::default())]);
    let mut frames = 0;
    while let Some((frame, after)) = split_frame(rest) {
        frames += 1;
        if let Some((more, of)) = Rows::unpack(frame) {
            found.entry(of.unwrap_or(writer)).or_default().merge(more);
        }
        rest = after;
    }
    say_lost(path, frames, rest.len());
    Ok(found.into_iter().collect())
}

/// The first bytes of a segment.
fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    regular_or_absent(path)?;
    File::open(path)?.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// The store that a segment belongs to, its writer, and its frames.
fn split_head(bytes: &[u8]) -> Option<(StoreId, WriterId, &[u8])> {
    let (home, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<16>()?;
    let (writer, rest) = rest.split_first_chunk::<16>()?;
    Some((StoreId::from_stored(*home), WriterId::from_stored_bytes(*writer), rest))
}

/// Logs what a segment lost: a frame in progress when its process died, or damage. Each frame holds
/// the usage of [`EVERY`].
fn say_lost(path: &Path, frames: usize, bytes: usize) {
    if bytes > 0 {
        tracing::warn!(
            segment = %path.display(), frames, bytes,
            "a journal segment is damaged after its first frames: usage that is in these bytes \
             alone is not carried over"
        );
    }
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
    use crate::ids::Surrogate;
    use crate::quota::pool::PoolId;
    use crate::testing::heard;

    const HOME: StoreId = StoreId::test(1);
    const ONE: WriterId = WriterId::test(1);
    const TWO: WriterId = WriterId::test(2);
    const THREE: WriterId = WriterId::test(3);

    fn rows(total: u64) -> Rows {
        of(ONE, total).remove(&ONE).unwrap()
    }

    fn of(writer: WriterId, total: u64) -> ByWriter {
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
        let mut journal = Journal::open(&path, HOME, ONE).unwrap();
        journal.append(&of(ONE, 3), 0).unwrap();
        journal.append(&of(ONE, 9), 0).unwrap();
        let cut = journal.cut();
        journal.append(&of(ONE, 11), 0).unwrap();
        assert_eq!(Journal::recover(&path).unwrap(), vec![(ONE, rows(11))]);
        journal.forget(cut);
        let mut other = Journal::open(&path, HOME, TWO).unwrap();
        other.append(&of(TWO, 4), 0).unwrap();
        assert_eq!(Journal::recover(&path).unwrap(), vec![(ONE, rows(11)), (TWO, rows(4))]);
    }

    #[test]
    fn a_journal_of_another_store_is_known_by_any_of_its_segments() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let other = StoreId::test(2);
        let is_of_another = |path: &Path, than| Journal::is_of_another(path, than).unwrap();
        assert!(!is_of_another(&path, HOME), "there is none");
        Journal::open(&path, HOME, ONE).unwrap().append(&of(ONE, 3), 0).unwrap();
        assert!(!is_of_another(&path, HOME) && is_of_another(&path, other));
        Journal::open(&path, other, TWO).unwrap().append(&of(TWO, 3), 0).unwrap();
        assert!(is_of_another(&path, HOME));
        // What cannot be read is damage of a journal of ours.
        let torn = folder.path().join("t");
        fs::write(segment_path(&torn, 0), &MAGIC[..5]).unwrap();
        assert!(!is_of_another(&torn, HOME));
    }

    #[cfg(unix)]
    #[test]
    fn segments_are_their_owners_alone() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        for writer in [ONE, TWO] {
            Journal::open(&path, HOME, writer).unwrap().append(&of(writer, 3), 0).unwrap();
        }
        let segments = segments(&path).unwrap();
        assert_eq!(segments.len(), 2);
        for (_, segment) in segments {
            assert_eq!(fs::metadata(&segment).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    /// A disk that is full for a while, and tears a frame or a segment's head at any byte.
    #[test]
    fn a_frame_that_was_torn_hides_nothing_that_is_written_later() {
        let frame = of(ONE, 3)[&ONE].pack(0, Some(ONE))[0].len() + 12;
        let head = HEAD;
        for (is_begun, room) in
            (0..frame).map(|room| (true, room)).chain((0..head + frame).map(|room| (false, room)))
        {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("j");
            let mut journal = Journal::open(&path, HOME, ONE).unwrap();
            if is_begun {
                journal.append(&of(ONE, 3), 0).unwrap();
            }
            journal.room = Some(room);
            for total in 4..8 {
                journal.append(&of(TWO, total), 0).unwrap_err();
            }
            journal.room = None;
            journal.append(&of(THREE, 5), 0).unwrap();
            let found = Journal::recover(&path).unwrap();
            for kept in [(TWO, rows(7)), (THREE, rows(5))] {
                assert!(found.contains(&kept), "room for {room}: {kept:?} is not in {found:?}");
            }
            assert!(!is_begun || found.contains(&(ONE, rows(3))));
            assert!(segments(&path).unwrap().len() <= 2, "one file that was torn, and its next");
        }
    }

    #[test]
    fn a_place_where_nothing_can_be_written_is_known_before_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        Journal::check_writable(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "it leaves nothing");
        // Simulates a folder that is not ours, even for users who may write everywhere.
        fs::create_dir(folder.path().join("j.probe")).unwrap();
        Journal::check_writable(&path).unwrap_err();
        Journal::check_writable(&folder.path().join("gone/j")).unwrap_err();
    }

    #[test]
    fn what_could_not_be_appended_is_forgotten_once_the_store_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let mut journal = Journal::open(&path, HOME, ONE).unwrap();
        journal.room = Some(0);
        journal.append(&of(ONE, 3), 0).unwrap_err();
        let cut = journal.cut();
        journal.append(&of(TWO, 4), 0).unwrap_err();
        journal.forget(cut);
        assert!(journal.lacks_rows(), "some of it came after the cut");
        let cut = journal.cut();
        journal.forget(cut);
        assert!(!journal.lacks_rows());
    }

    #[test]
    fn a_torn_or_damaged_tail_is_dropped_and_what_is_before_it_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let mut journal = Journal::open(&path, HOME, ONE).unwrap();
        journal.append(&of(ONE, 3), 0).unwrap();
        let whole = fs::read(segment_path(&path, 0)).unwrap();
        journal.append(&of(ONE, 9), 0).unwrap();
        let both = fs::read(segment_path(&path, 0)).unwrap();
        for cut in whole.len()..both.len() {
            fs::write(segment_path(&path, 0), &both[..cut]).unwrap();
            assert_eq!(Journal::recover(&path).unwrap(), vec![(ONE, rows(3))], "cut at {cut}");
        }
        let mut damaged = both.clone();
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(segment_path(&path, 0), &damaged).unwrap();
        assert_eq!(Journal::recover(&path).unwrap(), vec![(ONE, rows(3))]);
    }

    #[test]
    fn a_damaged_journal_is_named_with_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let mut journal = Journal::open(&path, HOME, ONE).unwrap();
        journal.append(&of(ONE, 3), 0).unwrap();
        let segment = segment_path(&path, 0);
        let first = fs::read(&segment).unwrap().len();
        journal.append(&of(ONE, 9), 0).unwrap();
        let whole = fs::read(&segment).unwrap();
        let said = || heard::lines(|| drop(Journal::recover(&path).unwrap()));
        assert_eq!(said(), [""; 0], "one that is whole is no matter for the log");
        let mut damaged = whole.clone();
        damaged[first + 20] ^= 1;
        let (rest, all) = (whole.len() - first, whole.len());
        for (bytes, lacks) in [
            (&whole[..all - 5], format!("frames=1 bytes={}", rest - 5)),
            (&damaged[..], format!("frames=1 bytes={rest}")),
            (&whole[2..], format!("frames=0 bytes={}", all - 2)),
        ] {
            fs::write(&segment, bytes).unwrap();
            let said = said();
            assert_eq!(said.len(), 1, "{said:?}");
            for part in [&*lacks, "is not carried over", &*segment.to_string_lossy()] {
                assert!(said[0].contains(part), "{part}: {said:?}");
            }
        }
    }
}
