//! Opening a partition's directory: leftovers, segments, the end of the log, producers and epochs.
//!
//! How much is looked at depends on the last stop (see `log_dir`): after a clean one only the end of the last segment is
//! walked; after the process died, the last segment from its last index entry on, with checksums; after a power failure,
//! everything from the recovery point on. Bad bytes at the very end are a torn write: cut, and reported. Bad bytes with
//! whole batches behind them are damage: the partition stays closed, so that nobody decides silently what is lost.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use super::config::LogConfig;
use super::damage::{self, Verdict};
use super::epoch_cache::{self, EpochCache};
use super::fs::OpenMode;
use super::index::{IndexEntries, IndexEntry, IndexTail};
use super::leftovers;
use super::log::{ActiveSegment, ClosedSegment, LogParts, batch_info, end_txn_marker};
use super::log_dir::LastStop;
use super::offset_index::OffsetEntry;
use super::producer_state::{CompletedTxn, ProducerState};
use super::segment::{Files, IndexBuilder, Segment, file_name, parse_file_name, remove_if_there, write_whole};
use super::time_index::TimeEntry;
use super::txn_index::AbortedTxnRow;
use super::walk::{Walk, WalkError};
use crate::error::{Error, Result};
use crate::record::batch::{BATCH_OVERHEAD, BatchHeader, BatchView};
use crate::types::TopicPartition;

/// What is known before a look into the directory.
pub(crate) struct LoadContext<'a> {
    pub files: &'a Files,
    pub dir: &'a Arc<Path>,
    pub topic_partition: &'a TopicPartition,
    pub config: &'a LogConfig,
    pub last_stop: LastStop,
    /// From the checkpoints.
    pub log_start_offset: i64,
    pub recovery_point: i64,
    pub wall_ms: i64,
}

/// What was found and done, for the broker's log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecoveryReport {
    /// Bytes that were read with their checksums.
    pub scanned_bytes: u64,
    /// Torn writes that were cut off: file, where, how many bytes.
    pub cut: Vec<CutTail>,
    /// Other things worth a line.
    pub notes: Vec<String>,
}

/// A torn write at the end of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CutTail {
    /// The file, without its directory.
    pub file: String,
    /// Where it was cut, in bytes.
    pub position: u64,
    /// How many bytes were cut off.
    pub size_bytes: u64,
    /// What was wrong with them.
    pub reason: String,
}

/// Open the log in a directory that exists.
pub(crate) fn load(context: &LoadContext<'_>) -> Result<(LogParts, RecoveryReport)> {
    let mut loader = Loader {
        context,
        report: RecoveryReport::default(),
        has_removed: false,
    };
    let parts = loader.load()?;
    Ok((parts, loader.report))
}

/// The log of a directory that was just made.
pub(crate) fn empty(context: &LoadContext<'_>) -> (LogParts, RecoveryReport) {
    let base_offset = context.log_start_offset;
    let segment = Segment::new(Arc::clone(context.dir), base_offset);
    let parts = LogParts {
        closed: Vec::new(),
        active: ActiveSegment::new(segment, context.wall_ms),
        next_offset: base_offset,
        log_start_offset: base_offset,
        producers: ProducerState::default(),
        epochs: EpochCache::default(),
        last_snapshot: None,
    };
    (parts, RecoveryReport::default())
}

struct Loader<'a> {
    context: &'a LoadContext<'a>,
    report: RecoveryReport,
    /// Files were removed since the directory was listed.
    has_removed: bool,
}

/// The end of the last segment.
struct Tail {
    active: ActiveSegment,
    next_offset: i64,
}

impl Loader<'_> {
    fn load(&mut self) -> Result<LogParts> {
        let LoadContext {
            files,
            dir,
            log_start_offset,
            ..
        } = *self.context;
        let names = leftovers::clear(files, dir, &mut self.report.notes).map_err(reading)?;
        let mut segments = self.list_segments(&names).map_err(reading)?;
        let mut is_unsure = self.context.last_stop != LastStop::Clean;
        let mut tail = None;
        if self.context.last_stop == LastStop::CleanEarlierBoot {
            // If everything was synced before the machine stopped, the stop is as good as a clean one of this boot.
            tail = self
                .open_last(&segments, false)?
                .filter(|tail| tail.next_offset <= self.context.recovery_point);
            is_unsure = tail.is_none();
        }
        // Everything from here on is walked again for producers and transactions.
        let mut checked_from = i64::MAX;
        if is_unsure && self.context.last_stop != LastStop::ProcessDied {
            checked_from = self.check_from_recovery_point(&mut segments)?;
        }
        let mut tail = match tail {
            Some(tail) => tail,
            None => match self.open_last(&segments, is_unsure)? {
                Some(tail) => tail,
                // The end is not what a clean stop leaves: look at it as after a crash.
                None => self
                    .open_last(&segments, true)?
                    .ok_or_else(|| reading(io::ErrorKind::InvalidData.into()))?,
            },
        };
        segments.pop();
        if tail.next_offset < log_start_offset {
            // Kafka starts over at the log start offset: everything below it is deleted already.
            self.report.notes.push(format!(
                "the log ends at {}, below its start offset {log_start_offset}, and starts over there",
                tail.next_offset
            ));
            for (segment, _) in &segments {
                self.remove_segment(segment).map_err(reading)?;
            }
            self.remove_segment(&tail.active.segment).map_err(reading)?;
            segments.clear();
            for name in names
                .iter()
                .filter(|name| matches!(parse_file_name(name), Some((_, "snapshot"))))
            {
                remove_if_there(&*files.fs, &dir.join(name)).map_err(reading)?;
            }
            let segment = Segment::new(Arc::clone(dir), log_start_offset);
            tail = Tail {
                active: ActiveSegment::new(segment, self.context.wall_ms),
                next_offset: log_start_offset,
            };
        }
        if tail.next_offset < self.context.recovery_point {
            self.report.notes.push(format!(
                "the log ends at {}, but everything below {} had been synced: the disk has lost it",
                tail.next_offset, self.context.recovery_point
            ));
        }
        let names: Vec<String> = if self.has_removed {
            let entries = files.fs.read_dir(dir).map_err(reading)?;
            entries.into_iter().map(|entry| entry.name).collect()
        } else {
            names
        };
        let closed: Vec<ClosedSegment> = segments
            .into_iter()
            .map(|(segment, size_bytes)| {
                let index = file_name(segment.base_offset(), AbortedTxnRow::SUFFIX);
                ClosedSegment {
                    has_aborted: names.contains(&index),
                    segment,
                    size_bytes,
                }
            })
            .collect();
        let first_base = closed
            .first()
            .map_or(tail.active.base_offset(), |closed| closed.segment.base_offset());
        let log_start_offset = log_start_offset.max(first_base);
        self.replay(&names, closed, tail, log_start_offset, checked_from)
    }

    /// The segments by their `.log` files, and what those hold in bytes; at least one. Indexes without a log go.
    fn list_segments(&mut self, names: &[String]) -> io::Result<Vec<(Arc<Segment>, u64)>> {
        let LoadContext { files, dir, .. } = *self.context;
        let mut segments = BTreeMap::new();
        for name in names {
            if let Some((base_offset, "log")) = parse_file_name(name) {
                let segment = Segment::new(Arc::clone(dir), base_offset);
                let size_bytes = files.fs.file_size_bytes(&segment.path("log"))?;
                segments.insert(base_offset, (segment, size_bytes));
            }
        }
        for name in names {
            if let Some((base_offset, suffix)) = parse_file_name(name)
                && [OffsetEntry::SUFFIX, TimeEntry::SUFFIX, AbortedTxnRow::SUFFIX].contains(&suffix)
                && !segments.contains_key(&base_offset)
            {
                self.report.notes.push(format!("{name} has no log and was removed"));
                files.fs.remove_file(&dir.join(name))?;
            }
        }
        if segments.is_empty() {
            let base_offset = self.context.log_start_offset;
            segments.insert(base_offset, (Segment::new(Arc::clone(dir), base_offset), 0));
        }
        Ok(segments.into_values().collect())
    }

    /// Check, with checksums, every segment that ends above the recovery point, rebuilding its indexes. Whatever follows a
    /// torn write goes. Returns the base offset of the first segment checked.
    fn check_from_recovery_point(&mut self, segments: &mut Vec<(Arc<Segment>, u64)>) -> Result<i64> {
        let recovery_point = self.context.recovery_point;
        let first = segments
            .partition_point(|(segment, _)| segment.base_offset() <= recovery_point)
            .saturating_sub(1);
        let checked_from = segments[first].0.base_offset();
        let mut kept = first;
        let mut next_offset = checked_from;
        // Segments above the recovery point follow each other without a gap (only durable ones are compacted): one that
        // does not lost its predecessor's end.
        while let Some((segment, size_bytes)) = segments
            .get(kept)
            .cloned()
            .filter(|(segment, _)| segment.base_offset() == next_offset)
        {
            kept += 1;
            if size_bytes == 0 {
                continue;
            }
            let mut builder = IndexBuilder::new(segment.base_offset(), self.context.config.index_interval_bytes);
            let end = self.check(&segment, size_bytes, 0, next_offset, &mut builder)?;
            next_offset = builder.next_offset.unwrap_or(next_offset);
            builder
                .finish()
                .write(&*self.context.files.fs, &segment)
                .map_err(reading)?;
            segments[kept - 1].1 = end;
            if end < size_bytes {
                break;
            }
        }
        for (lost, size_bytes) in segments.drain(kept..) {
            self.report.notes.push(format!(
                "{} ({size_bytes} bytes) follows records that were lost and was removed",
                file_name(lost.base_offset(), "log")
            ));
            self.remove_segment(&lost).map_err(reading)?;
        }
        Ok(checked_from)
    }

    /// Walk whole batches from `position` on, feeding the index; returns where good bytes end. What is behind them was cut
    /// off if it was a torn write.
    fn check(
        &mut self,
        segment: &Arc<Segment>,
        size_bytes: u64,
        position: u64,
        next_offset: i64,
        builder: &mut IndexBuilder,
    ) -> Result<u64> {
        let files = self.context.files;
        let file = segment.file(files, false).map_err(reading)?;
        let mut next_offset = next_offset;
        let mut walk = Walk::new(&*file, position, size_bytes);
        let may_have_gaps = self.context.config.cleanup_policy.compact;
        let (bad_at, reason, is_whole) = loop {
            match walk.next_batch() {
                Ok(None) => {
                    self.report.scanned_bytes += size_bytes - position;
                    return Ok(size_bytes);
                }
                Ok(Some((position, batch))) => {
                    if let Some(reason) = misplaced(&batch, segment.base_offset(), next_offset, may_have_gaps) {
                        break (position, reason, true);
                    }
                    builder.add(position as u32, &batch);
                    next_offset = batch.next_offset();
                }
                Err(WalkError::Bad { position, error }) => break (position, error.to_string(), false),
                Err(WalkError::Io(error)) => return Err(reading(error)),
            }
        };
        self.report.scanned_bytes += size_bytes - position;
        let name = file_name(segment.base_offset(), "log");
        let after_power_failure = self.context.last_stop != LastStop::ProcessDied;
        let verdict = if after_power_failure && next_offset < self.context.recovery_point {
            Verdict::Damaged(format!(
                "{reason}; everything below offset {} had been synced",
                self.context.recovery_point
            ))
        } else if is_whole && !after_power_failure {
            // No write that was interrupted leaves a batch with a good checksum and another one's offset.
            Verdict::Damaged("its checksum is good".to_owned())
        } else {
            damage::judge(&*file, bad_at, size_bytes, next_offset, after_power_failure).map_err(reading)?
        };
        if let Verdict::Damaged(behind) = verdict {
            return Err(Error::Damaged {
                file: format!("{}/{name}", self.context.topic_partition),
                position: bad_at,
                reason: format!("{reason}; {behind}"),
            });
        }
        file.truncate(bad_at)
            .map_err(Error::storage("cutting off a torn write"))?;
        self.report.cut.push(CutTail {
            file: name,
            position: bad_at,
            size_bytes: size_bytes - bad_at,
            reason,
        });
        Ok(bad_at)
    }

    /// Find the end of the last segment from its last index entry on: headers only, or (`check`) whole batches.
    /// `None` if headers alone do not lead to the end of the file.
    fn open_last(&mut self, segments: &[(Arc<Segment>, u64)], check: bool) -> Result<Option<Tail>> {
        let LoadContext { files, config, .. } = *self.context;
        let Some((segment, size_bytes)) = segments.last().cloned() else {
            return Ok(None);
        };
        let base_offset = segment.base_offset();
        let mut active = ActiveSegment::new(Arc::clone(&segment), self.context.wall_ms);
        if size_bytes == 0 {
            return Ok(Some(Tail {
                active,
                next_offset: base_offset,
            }));
        }
        let file = segment.file(files, false).map_err(reading)?;
        let first = match Walk::new(&*file, 0, size_bytes).next_header() {
            Ok(Some((_, header))) => Some(header.max_timestamp()),
            Ok(None) => None,
            Err(WalkError::Bad { .. }) if check => None,
            Err(WalkError::Bad { .. }) => return Ok(None),
            Err(WalkError::Io(error)) => return Err(reading(error)),
        };
        let last_offset = last_entry::<OffsetEntry>(files, &segment).map_err(reading)?;
        let last_time = last_entry::<TimeEntry>(files, &segment).map_err(reading)?;
        // An entry that does not point at the batch it names cannot be trusted, nor can those before it.
        let last_batch = match last_offset {
            Some((count, entry)) => batch_of_entry(&*file, size_bytes, base_offset, entry)
                .map_err(reading)?
                .map(|batch_offset| (count, entry, batch_offset)),
            None => None,
        };
        let (start, start_offset) = match last_batch {
            Some((count, entry, batch_offset)) => {
                active.offsets = IndexTail::of_file(count, Some(entry));
                if let Some((count, entry)) = last_time {
                    active.times = IndexTail::of_file(count, Some(entry));
                    active.max_timestamp = segment.max_timestamp_of(entry);
                }
                (entry.position, batch_offset)
            }
            None => (0, base_offset),
        };
        let mut builder = IndexBuilder::new(base_offset, config.index_interval_bytes);
        builder.continue_from(active.times.last(), active.max_timestamp);
        let (end, next_offset) = if check {
            let end = self.check(&segment, size_bytes, u64::from(start), start_offset, &mut builder)?;
            (end, builder.next_offset.unwrap_or(base_offset))
        } else {
            let mut walk = Walk::new(&*file, u64::from(start), size_bytes);
            loop {
                match walk.next_header() {
                    Ok(Some((position, header))) => builder.add(position as u32, &header),
                    Ok(None) => break (size_bytes, builder.next_offset.unwrap_or(base_offset)),
                    Err(WalkError::Bad { .. }) => return Ok(None),
                    Err(WalkError::Io(error)) => return Err(reading(error)),
                }
            }
        };
        active.size_bytes = end as u32;
        active.first_timestamp = if end == 0 {
            None
        } else {
            first.or(builder.first_timestamp)
        };
        active.max_timestamp = builder.max_timestamp;
        active.bytes_since_entry = builder.bytes_since_entry;
        if start == 0 {
            // Made from scratch: whatever the files hold is not a part of it.
            let indexes = builder.indexes;
            indexes.write(&*files.fs, &segment).map_err(reading)?;
            active.offsets = IndexTail::of_file(indexes.offsets.len(), indexes.offsets.last());
            active.times = IndexTail::of_file(indexes.times.len(), indexes.times.last());
        } else {
            builder
                .indexes
                .offsets
                .iter()
                .for_each(|entry| active.offsets.push(entry));
            builder.indexes.times.iter().for_each(|entry| active.times.push(entry));
        }
        active.index_flushed_at = start;
        active.snapshot_at = start;
        Ok(Some(Tail { active, next_offset }))
    }

    fn remove_segment(&mut self, segment: &Segment) -> io::Result<()> {
        self.has_removed = true;
        for suffix in [
            "log",
            OffsetEntry::SUFFIX,
            TimeEntry::SUFFIX,
            AbortedTxnRow::SUFFIX,
            "snapshot",
        ] {
            remove_if_there(&*self.context.files.fs, &segment.path(suffix))?;
        }
        Ok(())
    }

    /// Producers, transactions and epochs: what the files say, then every batch behind.
    fn replay(
        &mut self,
        names: &[String],
        mut closed: Vec<ClosedSegment>,
        tail: Tail,
        log_start_offset: i64,
        checked_from: i64,
    ) -> Result<LogParts> {
        let Tail {
            mut active,
            next_offset,
        } = tail;
        let LoadContext { files, config, .. } = *self.context;
        let read_epochs = self.read_epochs(names);
        let is_complete = read_epochs.is_some() || next_offset == log_start_offset;
        let mut epochs = read_epochs.unwrap_or_default();
        let read = epochs.clone();
        // Batches below the log start offset count as long as they are in a file: else a producer would be taken to stand
        // where an older snapshot saw it.
        let first_base = closed
            .first()
            .map_or(active.base_offset(), |closed| closed.segment.base_offset());
        let mut snapshot_limit = next_offset.min(checked_from);
        if !is_complete {
            self.report
                .notes
                .push("leader epochs were collected from the whole log".to_owned());
            snapshot_limit = first_base;
        }
        let (mut producers, snapshot) = self
            .read_snapshot(names, first_base..=snapshot_limit, next_offset)
            .map_err(reading)?;
        epochs.truncate_from_end(next_offset);
        let from = snapshot.unwrap_or(first_base);
        let mut aborted: BTreeMap<i64, Vec<CompletedTxn>> = BTreeMap::new();
        let segments: Vec<(Arc<Segment>, u64)> = closed
            .iter()
            .map(|closed| (Arc::clone(&closed.segment), closed.size_bytes))
            .chain([(Arc::clone(&active.segment), u64::from(active.size_bytes))])
            .collect();
        let first = segments
            .partition_point(|(segment, _)| segment.base_offset() <= from)
            .saturating_sub(1);
        for (segment, size_bytes) in segments[first..].iter().filter(|(_, size_bytes)| *size_bytes > 0) {
            if from >= next_offset {
                break;
            }
            let relative_offset = from - segment.base_offset();
            let mut position = 0;
            if relative_offset > 0 {
                let index = segment
                    .offset_index(files, *size_bytes, config.index_interval_bytes)
                    .map_err(reading)?;
                position = u64::from(index.position_for(relative_offset));
                segment.forget_indexes();
            }
            let file = segment.file(files, false).map_err(reading)?;
            let mut walk = Walk::new(&*file, position, *size_bytes);
            while let Some((position, header)) = walk.next_header().map_err(|error| reading(error.into()))? {
                if header.last_offset() < from {
                    continue;
                }
                epochs.assign(
                    header.partition_leader_epoch(),
                    header.base_offset().max(log_start_offset),
                );
                if header.producer_id() < 0 {
                    continue;
                }
                let info = if header.is_control() {
                    let mut bytes = vec![0; header.size_bytes()];
                    file.read_exact_at(&mut bytes, position).map_err(reading)?;
                    let batch = BatchView::parse(&bytes).map_err(|error| reading(io::Error::other(error)))?;
                    batch_info(&batch, end_txn_marker(&batch))
                } else {
                    batch_info(&header, None)
                };
                let (completed, _) = producers.apply(&info);
                if let Some(completed) = completed.filter(|completed| completed.aborted) {
                    aborted.entry(segment.base_offset()).or_default().push(completed);
                }
            }
        }
        for (segment, _) in &segments {
            let rows = aborted.remove(&segment.base_offset()).unwrap_or_default();
            if !rows.is_empty()
                && let Some(closed) = closed.iter_mut().find(|closed| Arc::ptr_eq(&closed.segment, segment))
            {
                closed.has_aborted = true;
            }
            let is_active = segment.base_offset() == active.base_offset();
            self.restore_aborted(segment, &rows, checked_from, is_active.then_some(&mut active))
                .map_err(reading)?;
        }
        epochs.truncate_from_start(log_start_offset);
        if epochs != read || !is_complete {
            let path = self.context.dir.join(epoch_cache::FILE_NAME);
            files
                .fs
                .replace(&path, epochs.encode().as_bytes(), false)
                .map_err(Error::storage("writing epochs"))?;
        }
        let last_snapshot = snapshot.filter(|&offset| offset == next_offset);
        active.inner_snapshot =
            snapshot.filter(|&offset| !segments.iter().any(|(segment, _)| segment.base_offset() == offset));
        Ok(LogParts {
            closed,
            active,
            next_offset,
            log_start_offset,
            producers,
            epochs,
            last_snapshot,
        })
    }

    /// Rows of aborted transactions: a checked segment's are made anew; of the last one, those that are missing are added.
    fn restore_aborted(
        &self,
        segment: &Arc<Segment>,
        found: &[CompletedTxn],
        checked_from: i64,
        active: Option<&mut ActiveSegment>,
    ) -> io::Result<()> {
        if found.is_empty() && active.is_none() && segment.base_offset() < checked_from {
            return Ok(());
        }
        let files = self.context.files;
        let path = segment.path(AbortedTxnRow::SUFFIX);
        let mut rows = IndexEntries::<AbortedTxnRow>::default();
        let mut in_file = 0;
        if segment.base_offset() < checked_from {
            segment.aborted_rows(files)?.into_iter().for_each(|row| rows.push(row));
            in_file = rows.len();
        }
        for txn in found {
            if rows.last().is_none_or(|last| last.last_offset < txn.last_offset) {
                rows.push(AbortedTxnRow {
                    producer_id: txn.producer_id,
                    first_offset: txn.first_offset,
                    last_offset: txn.last_offset,
                    last_stable_offset: txn.last_stable_offset,
                });
            }
        }
        if in_file < rows.len() {
            write_whole(&*files.fs, &path, rows.bytes_from(0))?;
        } else if rows.is_empty() && segment.base_offset() >= checked_from {
            remove_if_there(&*files.fs, &path)?;
        }
        if let Some(active) = active {
            active.aborted = IndexTail::of_file(rows.len(), rows.last());
        }
        Ok(())
    }

    fn read_epochs(&mut self, names: &[String]) -> Option<EpochCache> {
        if !names.iter().any(|name| name == epoch_cache::FILE_NAME) {
            return None;
        }
        let content = self
            .context
            .files
            .fs
            .read(&self.context.dir.join(epoch_cache::FILE_NAME))
            .ok()?;
        match EpochCache::decode(&String::from_utf8_lossy(&content)) {
            Ok(epochs) => Some(epochs),
            Err(reason) => {
                self.report
                    .notes
                    .push(format!("{} is malformed: {reason}", epoch_cache::FILE_NAME));
                None
            }
        }
    }

    /// The newest good snapshot within `limits`, and its offset. Those above the log's end, bad ones, and those inside
    /// a segment that are not the newest go.
    fn read_snapshot(
        &mut self,
        names: &[String],
        limits: RangeInclusive<i64>,
        next_offset: i64,
    ) -> io::Result<(ProducerState, Option<i64>)> {
        let LoadContext {
            files,
            dir,
            config,
            wall_ms,
            ..
        } = *self.context;
        let mut offsets: Vec<i64> = names
            .iter()
            .filter_map(|name| parse_file_name(name).filter(|(_, suffix)| *suffix == "snapshot"))
            .map(|(offset, _)| offset)
            .collect();
        offsets.sort_unstable();
        let mut newest = None;
        for offset in offsets.into_iter().rev() {
            let path = dir.join(file_name(offset, "snapshot"));
            if offset > next_offset {
                files.fs.remove_file(&path)?;
            } else if limits.contains(&offset) && newest.is_none() {
                let content = files.fs.read(&path)?;
                match ProducerState::decode_snapshot(&content, wall_ms, config.producer_id_expiration_ms) {
                    Ok(state) => newest = Some((state, offset)),
                    Err(reason) => {
                        self.report
                            .notes
                            .push(format!("snapshot at {offset} was removed: {reason}"));
                        files.fs.remove_file(&path)?;
                    }
                }
            }
        }
        Ok(newest.map_or_else(Default::default, |(state, offset)| (state, Some(offset))))
    }
}

fn reading(source: io::Error) -> Error {
    Error::Storage {
        doing: "opening a log",
        source,
    }
}

/// Why a batch that is whole cannot be at this place, if so. Offsets are covered by no checksum, but follow each other
/// unless the topic is compacted.
fn misplaced(batch: &BatchHeader<'_>, base_offset: i64, next_offset: i64, may_have_gaps: bool) -> Option<String> {
    let found = batch.base_offset();
    if found < next_offset || (found > next_offset && !may_have_gaps) {
        return Some(format!("base offset {found}, {next_offset} expected"));
    }
    if batch.last_offset_delta() < 0 || batch.last_offset() - base_offset > i64::from(i32::MAX) {
        return Some(format!(
            "last offset {} does not fit a segment that begins at {base_offset}",
            batch.last_offset()
        ));
    }
    None
}

/// Number of whole entries in an index file and the last one.
fn last_entry<E: IndexEntry>(files: &Files, segment: &Segment) -> io::Result<Option<(usize, E)>> {
    let file = match files.fs.open(&segment.path(E::SUFFIX), OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let count = file.size_bytes()? as usize / E::SIZE_BYTES;
    let Some(last) = count.checked_sub(1) else {
        return Ok(None);
    };
    let mut bytes = vec![0; E::SIZE_BYTES];
    file.read_exact_at(&mut bytes, (last * E::SIZE_BYTES) as u64)?;
    Ok(Some((count, E::decode(&bytes))))
}

/// Base offset of the batch that an entry of the offset index names, if there is such a batch.
fn batch_of_entry(
    file: &dyn super::fs::LogFile,
    size_bytes: u64,
    base_offset: i64,
    entry: OffsetEntry,
) -> io::Result<Option<i64>> {
    let position = u64::from(entry.position);
    if position == 0 || position + BATCH_OVERHEAD as u64 > size_bytes {
        return Ok(None);
    }
    let last_offset = base_offset + i64::from(entry.relative_offset);
    match Walk::new(file, position, u64::MAX).next_header() {
        Ok(header) => Ok(header
            .filter(|(_, header)| header.last_offset() == last_offset)
            .map(|(_, header)| header.base_offset())),
        Err(WalkError::Bad { .. }) => Ok(None),
        Err(WalkError::Io(error)) => Err(error),
    }
}
