//! A segment's files: names, the open log file, and the indexes of a segment that is no longer written.
//!
//! Nothing is opened before it is needed, and what is open is bounded by two caches that all partitions of a directory
//! share. Indexes have no checksum: one that is missing, of a wrong size or out of order is rebuilt from the log.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use super::cache::{Cache, Part, Slot};
use super::cleaner::swap::SWAP;
use super::fs::{LogFile, LogFs, OpenMode};
use super::index::{IndexEntries, IndexEntry};
use super::offset_index::OffsetEntry;
use super::time_index::TimeEntry;
use super::txn_index::AbortedTxnRow;
use super::walk::{Reach, Walk, WalkError};
use crate::record::batch::BatchHeader;

/// What all segments of a log directory share.
#[derive(Debug)]
pub(crate) struct Files {
    pub fs: Arc<dyn LogFs>,
    pub open: Arc<Cache>,
    pub indexes: Cache,
}

/// The greatest timestamp of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MaxTimestamp {
    /// The timestamp in Unix ms; -1 if there is none.
    pub timestamp: i64,
    /// The last offset of the batch that holds it.
    pub offset: i64,
}

impl MaxTimestamp {
    /// No record has a timestamp.
    pub const NONE: Self = Self {
        timestamp: -1,
        offset: -1,
    };
}

/// The files of one segment.
#[derive(Debug)]
pub struct Segment {
    dir: Arc<Path>,
    base_offset: i64,
    log: Slot<Arc<dyn LogFile>>,
    offset_index: Slot<Arc<IndexEntries<OffsetEntry>>>,
    time_index: Slot<Arc<IndexEntries<TimeEntry>>>,
    max_timestamp: OnceLock<MaxTimestamp>,
    /// Which of its files are still under `.swap` names, by bits of their suffixes: the cleaner is putting them in place.
    swap_names: AtomicU8,
    /// The cleaner put another segment in its place: its files are gone, whatever bears their names.
    is_retired: AtomicBool,
}

fn suffix_bit(suffix: &str) -> u8 {
    match suffix {
        "log" => 1,
        OffsetEntry::SUFFIX => 2,
        TimeEntry::SUFFIX => 4,
        AbortedTxnRow::SUFFIX => 8,
        _ => 0,
    }
}

/// `<20 digits>.<suffix>`.
pub(crate) fn file_name(base_offset: i64, suffix: &str) -> String {
    format!("{base_offset:020}.{suffix}")
}

/// The offset and the suffix of a file name of a partition's directory.
pub(crate) fn parse_file_name(name: &str) -> Option<(i64, &str)> {
    let (digits, suffix) = name.split_once('.')?;
    let well_formed = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    well_formed
        .then(|| digits.parse().ok())
        .flatten()
        .map(|offset| (offset, suffix))
}

impl Segment {
    /// The segment of that base offset in a partition's directory; touches no file.
    pub(crate) fn new(dir: Arc<Path>, base_offset: i64) -> Arc<Self> {
        Arc::new(Self {
            dir,
            base_offset,
            log: Slot::default(),
            offset_index: Slot::default(),
            time_index: Slot::default(),
            max_timestamp: OnceLock::new(),
            swap_names: AtomicU8::new(0),
            is_retired: AtomicBool::new(false),
        })
    }

    /// A segment whose files of these suffixes are under `.swap` names until `take_final_names`.
    pub(crate) fn new_swap(dir: Arc<Path>, base_offset: i64, suffixes: &[&str]) -> Arc<Self> {
        let segment = Self::new(dir, base_offset);
        let names = suffixes
            .iter()
            .map(|suffix| suffix_bit(suffix))
            .fold(0, |names, bit| names | bit);
        segment.swap_names.store(names, Ordering::Release);
        segment
    }

    /// Rename its files from their `.swap` names, the log first; nobody opens one meanwhile. Can be repeated after an error.
    pub(crate) fn take_final_names(&self, fs: &dyn LogFs) -> io::Result<()> {
        let _held = self.hold();
        for suffix in ["log", AbortedTxnRow::SUFFIX, TimeEntry::SUFFIX, OffsetEntry::SUFFIX] {
            let from = self.path(suffix);
            let names = self.swap_names.load(Ordering::Acquire);
            if names & suffix_bit(suffix) == 0 {
                continue;
            }
            match fs.rename(&from, &self.dir.join(file_name(self.base_offset, suffix))) {
                // It was renamed, though the call failed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
            self.swap_names.store(names & !suffix_bit(suffix), Ordering::Release);
        }
        Ok(())
    }

    /// Its files are about to go. What is open or in memory stays usable; anything else is `NotFound` from now on.
    pub(crate) fn retire(&self) {
        let _held = self.hold();
        self.is_retired.store(true, Ordering::Release);
    }

    /// Keep everyone from opening its files. The log comes last: an index that is being rebuilt wants it.
    fn hold(&self) -> impl Sized {
        (self.offset_index.hold(), self.time_index.hold(), self.log.hold())
    }

    fn check_not_retired(&self) -> io::Result<()> {
        if self.is_retired.load(Ordering::Acquire) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(())
    }

    /// Offset that the segment's first record has or would have had.
    pub fn base_offset(&self) -> i64 {
        self.base_offset
    }

    /// The partition's directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Path of one of its files.
    pub fn path(&self, suffix: &str) -> PathBuf {
        let is_swap = self.swap_names.load(Ordering::Acquire) & suffix_bit(suffix) != 0;
        let end = if is_swap { SWAP } else { "" };
        self.dir.join(file_name(self.base_offset, suffix) + end)
    }

    /// The open log file; created with `create`.
    pub(crate) fn file(self: &Arc<Self>, files: &Files, create: bool) -> io::Result<Arc<dyn LogFile>> {
        let mode = if create { OpenMode::Create } else { OpenMode::ReadWrite };
        let (file, opened) = self.log.get_or_fetch(|| {
            self.check_not_retired()?;
            files.fs.open(&self.path("log"), mode)
        })?;
        if opened {
            files.open.admit(Arc::downgrade(self), Part::Log, 1);
        }
        Ok(file)
    }

    /// The log file, if it is open.
    pub(crate) fn open_file(&self) -> Option<Arc<dyn LogFile>> {
        self.log.peek()
    }

    /// The offset index, if it is in memory.
    pub(crate) fn loaded_offset_index(&self) -> Option<Arc<IndexEntries<OffsetEntry>>> {
        self.offset_index.peek()
    }

    /// The offset index as far as it is in its file; for a segment that is no longer written (`size_bytes` long) it is
    /// checked, and rebuilt if it cannot be right.
    pub(crate) fn offset_index(
        self: &Arc<Self>,
        files: &Files,
        size_bytes: u64,
        index_interval_bytes: u32,
    ) -> io::Result<Arc<IndexEntries<OffsetEntry>>> {
        let (index, loaded) = self.offset_index.get_or_fetch(|| {
            self.check_not_retired()?;
            match self
                .read_index(files)?
                .filter(|index: &IndexEntries<OffsetEntry>| index.is_sane(size_bytes))
            {
                Some(index) => Ok::<_, io::Error>(Arc::new(index)),
                None => Ok(Arc::new(self.rebuild(files, size_bytes, index_interval_bytes)?.offsets)),
            }
        })?;
        if loaded {
            files.indexes.admit(
                Arc::downgrade(self),
                Part::OffsetIndex,
                index.size_bytes() + size_of::<Self>(),
            );
        }
        Ok(index)
    }

    /// Of the active segment: the `entries` that are known to be in its index file (more may be, and may be half written).
    pub(crate) fn flushed_offset_index(
        self: &Arc<Self>,
        files: &Files,
        entries: usize,
    ) -> io::Result<Arc<IndexEntries<OffsetEntry>>> {
        let (index, loaded) = self.offset_index.get_or_fetch(|| {
            let mut bytes = self.read_if_there(files, OffsetEntry::SUFFIX)?;
            bytes.truncate(entries * OffsetEntry::SIZE_BYTES);
            // Without them a search starts at the beginning of the segment.
            let index = IndexEntries::from_bytes(bytes)
                .filter(|index: &IndexEntries<OffsetEntry>| index.is_sane(u64::MAX))
                .unwrap_or_default();
            Ok::<_, io::Error>(Arc::new(index))
        })?;
        if loaded {
            files.indexes.admit(
                Arc::downgrade(self),
                Part::OffsetIndex,
                index.size_bytes() + size_of::<Self>(),
            );
        }
        Ok(index)
    }

    /// Of the active segment: the `entries` that are known to be in its time index file.
    pub(crate) fn flushed_time_index(
        self: &Arc<Self>,
        files: &Files,
        entries: usize,
    ) -> io::Result<Arc<IndexEntries<TimeEntry>>> {
        let (index, loaded) = self.time_index.get_or_fetch(|| {
            let mut bytes = self.read_if_there(files, TimeEntry::SUFFIX)?;
            bytes.truncate(entries * TimeEntry::SIZE_BYTES);
            let index = IndexEntries::from_bytes(bytes)
                .filter(IndexEntries::<TimeEntry>::is_sane)
                .unwrap_or_default();
            Ok::<_, io::Error>(Arc::new(index))
        })?;
        if loaded {
            files.indexes.admit(
                Arc::downgrade(self),
                Part::TimeIndex,
                index.size_bytes() + size_of::<Self>(),
            );
        }
        Ok(index)
    }

    /// The time index, like `offset_index`.
    pub(crate) fn time_index(
        self: &Arc<Self>,
        files: &Files,
        size_bytes: u64,
        index_interval_bytes: u32,
    ) -> io::Result<Arc<IndexEntries<TimeEntry>>> {
        let (index, loaded) = self.time_index.get_or_fetch(|| {
            self.check_not_retired()?;
            match self.read_index(files)?.filter(IndexEntries::<TimeEntry>::is_sane) {
                Some(index) => Ok::<_, io::Error>(Arc::new(index)),
                None => Ok(Arc::new(self.rebuild(files, size_bytes, index_interval_bytes)?.times)),
            }
        })?;
        if loaded {
            files.indexes.admit(
                Arc::downgrade(self),
                Part::TimeIndex,
                index.size_bytes() + size_of::<Self>(),
            );
        }
        Ok(index)
    }

    /// A file of the segment: nothing if there is none, as where its last write failed.
    fn read_if_there(&self, files: &Files, suffix: &str) -> io::Result<Vec<u8>> {
        match files.fs.read(&self.path(suffix)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read,
        }
    }

    /// Rows of the transaction index; none if there is no such file. A last one that is half written is left out.
    pub(crate) fn aborted_rows(&self, files: &Files) -> io::Result<Vec<AbortedTxnRow>> {
        let mut bytes = self.read_if_there(files, AbortedTxnRow::SUFFIX)?;
        bytes.truncate(bytes.len() / AbortedTxnRow::SIZE_BYTES * AbortedTxnRow::SIZE_BYTES);
        match IndexEntries::<AbortedTxnRow>::from_bytes(bytes) {
            Some(rows) if rows.is_sane(self.base_offset) => Ok(rows.iter().collect()),
            _ => {
                let path = self.path(AbortedTxnRow::SUFFIX);
                let reason = format!("the transaction index {} is damaged", path.display());
                Err(io::Error::new(io::ErrorKind::InvalidData, reason))
            }
        }
    }

    /// The greatest timestamp of a segment that is no longer written: the last entry of its time index.
    pub(crate) fn max_timestamp(
        self: &Arc<Self>,
        files: &Files,
        size_bytes: u64,
        index_interval_bytes: u32,
    ) -> io::Result<MaxTimestamp> {
        if let Some(found) = self.max_timestamp.get() {
            return Ok(*found);
        }
        let found = match self.time_index(files, size_bytes, index_interval_bytes)?.last() {
            Some(entry) => self.max_timestamp_of(entry),
            None => MaxTimestamp::NONE,
        };
        Ok(*self.max_timestamp.get_or_init(|| found))
    }

    /// The greatest timestamp, if it was noted or read.
    pub(crate) fn known_max_timestamp(&self) -> Option<MaxTimestamp> {
        self.max_timestamp.get().copied()
    }

    /// Note the greatest timestamp at the moment the segment stops being written.
    pub(crate) fn set_max_timestamp(&self, found: MaxTimestamp) {
        // Set before: a segment that was rolled, taken back and rolled again may know a smaller one; see `new_life`.
        let _ = self.max_timestamp.set(found);
    }

    pub(crate) fn max_timestamp_of(&self, entry: TimeEntry) -> MaxTimestamp {
        MaxTimestamp {
            timestamp: entry.timestamp,
            offset: self.base_offset + i64::from(entry.relative_offset),
        }
    }

    /// The same files under a fresh identity: nothing remembered of what they held.
    pub(crate) fn new_life(&self) -> Arc<Self> {
        Self::new(Arc::clone(&self.dir), self.base_offset)
    }

    /// Forget indexes read before more was written to their files.
    pub(crate) fn forget_indexes(&self) {
        self.offset_index.clear();
        self.time_index.clear();
    }

    /// Forget a part if it was not used lately; whether it is gone.
    pub(crate) fn evict(&self, part: Part) -> bool {
        match part {
            Part::Log => self.log.evict(),
            Part::OffsetIndex => self.offset_index.evict(),
            Part::TimeIndex => self.time_index.evict(),
        }
    }

    fn read_index<E: IndexEntry>(&self, files: &Files) -> io::Result<Option<IndexEntries<E>>> {
        match files.fs.read(&self.path(E::SUFFIX)) {
            Ok(bytes) => Ok(IndexEntries::from_bytes(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rebuild(self: &Arc<Self>, files: &Files, size_bytes: u64, index_interval_bytes: u32) -> io::Result<Indexes> {
        let file = self.file(files, false)?;
        let mut indexes = IndexBuilder::new(self.base_offset, index_interval_bytes);
        let mut walk = Walk::new(&*file, 0, size_bytes);
        while let Some((position, header)) = walk.next_header()? {
            indexes.add(position as u32, header);
        }
        let indexes = indexes.finish();
        // Whole or not at all, and for sure: nobody looks at this segment again, and half of it may look like an index. On
        // a full disk readers go on all the same.
        let replace = |suffix, content| files.fs.replace(&self.path(suffix), content, true);
        let _ = replace(TimeEntry::SUFFIX, indexes.times.bytes_from(0))
            .and_then(|()| replace(OffsetEntry::SUFFIX, indexes.offsets.bytes_from(0)));
        Ok(indexes)
    }
}

/// The indexes of a segment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Indexes {
    pub offsets: IndexEntries<OffsetEntry>,
    pub times: IndexEntries<TimeEntry>,
}

impl Indexes {
    /// Replace both files. Times first: a start goes on from the last offset entry, and needs every earlier time entry.
    pub fn write(&self, fs: &dyn LogFs, segment: &Segment) -> io::Result<()> {
        write_whole(fs, &segment.path(TimeEntry::SUFFIX), self.times.bytes_from(0))?;
        write_whole(fs, &segment.path(OffsetEntry::SUFFIX), self.offsets.bytes_from(0))
    }
}

/// Give a file exactly this content, not atomically (it can be made again).
pub(crate) fn write_whole(fs: &dyn LogFs, path: &Path, content: &[u8]) -> io::Result<()> {
    let file = fs.open(path, OpenMode::Create)?;
    file.truncate(0)?;
    file.write_all_at(&[IoSlice::new(content)], 0)
}

/// Give a file this content without making it empty first: file systems take that for a replacement that must reach the
/// disk at once (ext4's `auto_da_alloc`), and thousands of partitions begin an epoch at every start.
///
/// The first byte comes last, and no file begins with the one that stands there meanwhile: what an interrupted call leaves
/// is never taken for whole, however well the new content's beginning goes with the old one's end.
pub(crate) fn overwrite(fs: &dyn LogFs, path: &Path, content: &[u8]) -> io::Result<()> {
    let file = fs.open(path, OpenMode::Create)?;
    let size_bytes = file.size_bytes()?;
    let write = |bytes: &[u8], position| file.write_all_at(&[IoSlice::new(bytes)], position);
    let Some((first, rest)) = content.split_first().filter(|_| size_bytes > 0) else {
        return write(content, 0);
    };
    write(&[u8::MAX], 0)?;
    write(rest, 1)?;
    if size_bytes > content.len() as u64 {
        file.truncate(content.len() as u64)?;
    }
    write(&[*first], 0)
}

/// Remove a file that may be gone already.
pub(crate) fn remove_if_there(fs: &dyn LogFs, path: &Path) -> io::Result<()> {
    match fs.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the indexes that appending the same batches one by one would have made (Kafka: `LogSegment.append`, `recover`).
#[derive(Debug)]
pub(crate) struct IndexBuilder {
    pub indexes: Indexes,
    pub max_timestamp: MaxTimestamp,
    /// The first batch's greatest timestamp.
    pub first_timestamp: Option<i64>,
    pub bytes_since_entry: u32,
    /// The offset after the last batch.
    pub next_offset: Option<i64>,
    last_time: Option<TimeEntry>,
    base_offset: i64,
    index_interval_bytes: u32,
}

impl IndexBuilder {
    pub fn new(base_offset: i64, index_interval_bytes: u32) -> Self {
        Self {
            indexes: Indexes::default(),
            max_timestamp: MaxTimestamp::NONE,
            first_timestamp: None,
            bytes_since_entry: 0,
            next_offset: None,
            last_time: None,
            base_offset,
            index_interval_bytes,
        }
    }

    /// Entries up to the batch that comes first are made already.
    pub fn continue_from(&mut self, last_time: Option<TimeEntry>, max_timestamp: MaxTimestamp) {
        self.last_time = last_time;
        self.max_timestamp = max_timestamp;
    }

    /// The batch at `position`.
    pub fn add(&mut self, position: u32, header: BatchHeader<'_>) {
        let last_offset = header.last_offset();
        self.next_offset = Some(last_offset + 1);
        self.first_timestamp.get_or_insert(header.max_timestamp());
        if header.max_timestamp() > self.max_timestamp.timestamp {
            self.max_timestamp = MaxTimestamp {
                timestamp: header.max_timestamp(),
                offset: last_offset,
            };
        }
        if self.bytes_since_entry > self.index_interval_bytes {
            let relative_offset = (last_offset - self.base_offset) as u32;
            self.indexes.offsets.push(OffsetEntry {
                relative_offset,
                position,
            });
            self.add_time();
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += header.size_bytes() as u32;
    }

    fn add_time(&mut self) {
        if let Some(entry) = time_entry(self.last_time, self.max_timestamp, self.base_offset) {
            self.last_time = Some(entry);
            self.indexes.times.push(entry);
        }
    }

    /// The indexes with the final time entry that a rolled or closed segment has.
    pub fn finish(mut self) -> Indexes {
        self.add_time();
        self.indexes
    }
}

/// The entry to append to a time index, if the greatest timestamp grew since its last one.
pub(crate) fn time_entry(last: Option<TimeEntry>, max: MaxTimestamp, base_offset: i64) -> Option<TimeEntry> {
    let last_timestamp = last.map_or(-1, |last| last.timestamp);
    (max.timestamp > last_timestamp).then(|| TimeEntry {
        timestamp: max.timestamp,
        relative_offset: (max.offset - base_offset) as u32,
    })
}

/// The first batch at or after `position` whose last offset is at or above `offset`: its position.
pub(crate) fn find_offset(
    reach: Reach,
    file: &dyn LogFile,
    position: u64,
    end: u64,
    offset: i64,
) -> Result<Option<u64>, WalkError> {
    let mut walk = Walk::within(reach, file, position, end);
    while let Some((position, header)) = walk.next_header()? {
        if header.last_offset() >= offset {
            return Ok(Some(position));
        }
    }
    Ok(None)
}
