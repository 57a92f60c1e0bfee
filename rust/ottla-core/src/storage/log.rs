//! A log in memory: its segments, the active segment's indexes, the tail that is not written yet, producers and epochs.
//!
//! Nothing here touches a file. An append assigns offsets and positions, takes note of how to take itself back, and leaves
//! as a job for the directory's writer; completions move the written offset. The owner (`Partition`) holds the lock.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::config::LogConfig;
use super::epoch_cache::{self, EpochCache};
use super::index::{IndexEntry, IndexMark, IndexTail};
use super::offset_index::OffsetEntry;
use super::producer_state::{BatchInfo, Checks, CompletedTxn, EndTxnMarker, ProducerState, Undo};
use super::segment::{MaxTimestamp, Segment, file_name, time_entry};
use super::time_index::TimeEntry;
use super::txn_index::AbortedTxnRow;
use super::writer::{Chore, Job, LogIo, Work, WriteQueue};
use crate::error::{Error, Result};
use crate::record::batch::{BatchHeader, BatchView};
use crate::record::control::{MarkerType, TransactionMarker};
use crate::types::TopicPartition;

/// Index entries are written when this much was appended since the last time (and on roll and close): what a start must
/// scan again after the process died.
const INDEX_FLUSH_INTERVAL_BYTES: u32 = 1 << 20;
/// A producer snapshot is made inside a segment when this much was appended since the last one, so that a start replays
/// little of a large segment.
const SNAPSHOT_INTERVAL_BYTES: u32 = 32 << 20;
/// Batches whose positions are remembered, for readers at the end of the log.
const RECENT_MAX: usize = 64;
/// Ended generations remembered, for appends that still ask.
const ROLLBACKS_MAX: usize = 16;

/// Where an offset lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogPosition {
    pub offset: i64,
    /// Base offset of its segment.
    pub segment: i64,
    /// In the segment's file, in bytes.
    pub position: u64,
}

/// A segment that is no longer written.
#[derive(Clone, Debug)]
pub(crate) struct ClosedSegment {
    pub segment: Arc<Segment>,
    pub size_bytes: u64,
    /// Whether it has a transaction index.
    pub has_aborted: bool,
}

/// The segment that is written.
#[derive(Clone, Debug)]
pub(crate) struct ActiveSegment {
    pub segment: Arc<Segment>,
    pub size_bytes: u32,
    pub offsets: IndexTail<OffsetEntry>,
    pub times: IndexTail<TimeEntry>,
    pub aborted: IndexTail<AbortedTxnRow>,
    pub max_timestamp: MaxTimestamp,
    /// The first batch's greatest timestamp: what `segment.ms` counts from.
    pub first_timestamp: Option<i64>,
    pub bytes_since_entry: u32,
    /// When it was made, in Unix ms: what `segment.ms` counts from if the first batch has no timestamp.
    pub created_ms: i64,
    pub index_flushed_at: u32,
    pub snapshot_at: u32,
    /// Name of the snapshot made inside this segment, to be removed with the next one.
    pub inner_snapshot: Option<i64>,
    /// Index lengths that are surely in the files once the written offset is above the offset.
    flush_in_flight: Option<(i64, usize, usize, usize)>,
}

impl ActiveSegment {
    pub fn new(segment: Arc<Segment>, created_ms: i64) -> Self {
        Self {
            segment,
            size_bytes: 0,
            offsets: IndexTail::default(),
            times: IndexTail::default(),
            aborted: IndexTail::default(),
            max_timestamp: MaxTimestamp::NONE,
            first_timestamp: None,
            bytes_since_entry: 0,
            created_ms,
            index_flushed_at: 0,
            snapshot_at: 0,
            inner_snapshot: None,
            flush_in_flight: None,
        }
    }

    pub fn base_offset(&self) -> i64 {
        self.segment.base_offset()
    }

    fn mark(&self) -> Mark {
        Mark {
            size_bytes: self.size_bytes,
            offsets: self.offsets.mark(),
            times: self.times.mark(),
            aborted: self.aborted.mark(),
            max_timestamp: self.max_timestamp,
            first_timestamp: self.first_timestamp,
            bytes_since_entry: self.bytes_since_entry,
        }
    }

    fn rewind(&mut self, mark: &Mark) {
        self.size_bytes = mark.size_bytes;
        self.offsets.rewind(&mark.offsets);
        self.times.rewind(&mark.times);
        self.aborted.rewind(&mark.aborted);
        self.max_timestamp = mark.max_timestamp;
        self.first_timestamp = mark.first_timestamp;
        self.bytes_since_entry = mark.bytes_since_entry;
        self.index_flushed_at = self.index_flushed_at.min(mark.size_bytes);
        self.snapshot_at = self.snapshot_at.min(mark.size_bytes);
        self.flush_in_flight = None;
    }
}

#[derive(Clone, Debug)]
struct Mark {
    size_bytes: u32,
    offsets: IndexMark<OffsetEntry>,
    times: IndexMark<TimeEntry>,
    aborted: IndexMark<AbortedTxnRow>,
    max_timestamp: MaxTimestamp,
    first_timestamp: Option<i64>,
    bytes_since_entry: u32,
}

/// An append that is not yet visible, and how to take it back.
#[derive(Debug)]
struct Pending {
    base_offset: i64,
    end: LogPosition,
    mark: Mark,
    producer: Option<Undo>,
    /// The segment that was active before, if this append rolled.
    rolled: Option<Box<ActiveSegment>>,
    /// The epochs before, if this append began one.
    epochs: Option<Box<EpochCache>>,
}

/// What the log assigned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Assigned {
    pub base_offset: i64,
    pub last_offset: i64,
}

/// A batch as the log needs it.
pub(crate) struct Incoming {
    /// Stamped.
    pub bytes: Bytes,
    pub last_offset: i64,
    pub max_timestamp: i64,
    pub leader_epoch: i32,
    pub producer: Option<BatchInfo>,
    pub checks: Checks,
}

/// What a log is made of when it is opened.
#[derive(Debug)]
pub(crate) struct LogParts {
    pub closed: Vec<ClosedSegment>,
    pub active: ActiveSegment,
    pub next_offset: i64,
    pub log_start_offset: i64,
    pub producers: ProducerState,
    pub epochs: EpochCache,
    pub last_snapshot: Option<i64>,
}

#[derive(Debug)]
pub(crate) struct Log {
    pub topic_partition: TopicPartition,
    pub dir: Arc<Path>,
    pub config: Arc<LogConfig>,
    pub closed: Vec<ClosedSegment>,
    pub active: ActiveSegment,
    pub next_offset: i64,
    pub log_start_offset: i64,
    /// Below it, everything is in the files.
    pub written_offset: i64,
    /// Below it, everything survives a power failure.
    pub synced_offset: i64,
    /// Below it, everything is written, and synced where the topic asks for that before anyone may see it.
    pub visible: LogPosition,
    pub producers: ProducerState,
    pub epochs: EpochCache,
    pub generation: u32,
    pub io: Arc<LogIo>,
    queue: Arc<WriteQueue>,
    pending: VecDeque<Pending>,
    recent: VecDeque<(i64, u32)>,
    /// Ended generations and the offset at which each was cut.
    rollbacks: VecDeque<(u32, i64)>,
    /// Rolled segments that are not durable, and the offset behind each: they are synced once all of it is written.
    to_sync: VecDeque<(Arc<Segment>, i64)>,
    messages_since_sync: i64,
    last_snapshot: Option<i64>,
    /// An epoch began of which the file does not know yet; it is told with the epoch's first append.
    epochs_changed: bool,
    /// The cleaner is exchanging files: none may be removed before it is done.
    pub is_swapping: bool,
}

impl Log {
    pub fn new(
        topic_partition: TopicPartition,
        dir: Arc<Path>,
        config: Arc<LogConfig>,
        parts: LogParts,
        io: Arc<LogIo>,
        queue: Arc<WriteQueue>,
    ) -> Self {
        let visible = LogPosition {
            offset: parts.next_offset,
            segment: parts.active.base_offset(),
            position: u64::from(parts.active.size_bytes),
        };
        Self {
            topic_partition,
            dir,
            config,
            closed: parts.closed,
            active: parts.active,
            next_offset: parts.next_offset,
            log_start_offset: parts.log_start_offset,
            written_offset: parts.next_offset,
            synced_offset: io.cell.recovery_point().min(parts.next_offset),
            visible,
            producers: parts.producers,
            epochs: parts.epochs,
            generation: io.generation.load(Ordering::Relaxed),
            io,
            queue,
            pending: VecDeque::new(),
            recent: VecDeque::new(),
            rollbacks: VecDeque::new(),
            to_sync: VecDeque::new(),
            messages_since_sync: 0,
            last_snapshot: parts.last_snapshot,
            epochs_changed: false,
            is_swapping: false,
        }
    }

    fn submit(&self, work: Work) {
        self.queue.submit(Job {
            log: Arc::clone(&self.io),
            generation: self.generation,
            work,
        });
    }

    /// Take a stamped batch in; its first offset is the log end offset. Nothing changes on error.
    pub fn append(&mut self, batch: Incoming, wall_ms: i64) -> Result<Assigned> {
        let size_bytes = batch.bytes.len() as u32;
        let base_offset = self.next_offset;
        debug_assert!(base_offset <= batch.last_offset);
        if let Some(info) = &batch.producer {
            self.producers.check(info, batch.checks, &self.topic_partition)?;
        }
        // Before the producer moves: a roll writes down where all producers stand.
        let rolled = self
            .should_roll(size_bytes, batch.last_offset, batch.max_timestamp, wall_ms)
            .then(|| {
                let rolled = Box::new(self.active.clone());
                self.roll(wall_ms);
                rolled
            });
        let mut completed = None;
        let producer = batch.producer.as_ref().map(|info| {
            let (ended, undo) = self.producers.apply(info);
            completed = ended;
            undo
        });
        let mark = self.active.mark();
        let epochs = self.assign_epoch(batch.leader_epoch, base_offset);
        let position = self.active.size_bytes;
        self.index(&batch, position, size_bytes);
        if let Some(completed) = completed {
            self.note_completed(&completed);
        }
        self.next_offset = batch.last_offset + 1;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((base_offset, position));
        let end = LogPosition {
            offset: self.next_offset,
            segment: self.active.base_offset(),
            position: u64::from(self.active.size_bytes),
        };
        self.pending.push_back(Pending {
            base_offset,
            end,
            mark,
            producer,
            rolled,
            epochs,
        });
        self.messages_since_sync += self.next_offset - base_offset;
        let sync = self.messages_since_sync >= self.config.flush_messages;
        if sync {
            self.messages_since_sync = 0;
        }
        self.submit(Work::Append {
            segment: Arc::clone(&self.active.segment),
            position,
            bytes: batch.bytes,
            next_offset: self.next_offset,
            sync,
        });
        if self.active.size_bytes - self.active.index_flushed_at >= INDEX_FLUSH_INTERVAL_BYTES
            || self.active.aborted.has_unflushed()
        {
            self.flush_indexes(false);
        }
        if self.active.size_bytes - self.active.snapshot_at >= SNAPSHOT_INTERVAL_BYTES {
            self.snapshot_inside();
        }
        Ok(Assigned {
            base_offset,
            last_offset: batch.last_offset,
        })
    }

    /// Kafka: `LogSegment.shouldRoll`. The time is that of the records, so that replayed history fills segments as it did.
    fn should_roll(&self, size_bytes: u32, last_offset: i64, max_timestamp: i64, wall_ms: i64) -> bool {
        let (active, config) = (&self.active, &self.config);
        let index_entries_max = (config.segment_index_bytes as usize) / OffsetEntry::SIZE_BYTES;
        let time_entries_max = (config.segment_index_bytes as usize) / TimeEntry::SIZE_BYTES;
        let waited_ms = match active.first_timestamp {
            Some(first) if first >= 0 => max_timestamp.saturating_sub(first),
            _ => wall_ms.saturating_sub(active.created_ms),
        };
        u64::from(active.size_bytes) + u64::from(size_bytes) > u64::from(config.segment_bytes)
            || (active.size_bytes > 0 && waited_ms > self.segment_ms())
            || active.offsets.len() >= index_entries_max.max(1)
            || active.times.len() + 1 >= time_entries_max.max(2)
            || last_offset - active.base_offset() > i64::from(i32::MAX)
    }

    /// `segment.ms` less this segment's jitter; a compacted topic's segments must become cleanable in time.
    fn segment_ms(&self) -> i64 {
        let config = &self.config;
        let mut limit_ms = config.segment_ms;
        if config.cleanup_policy.compact {
            limit_ms = limit_ms.min(config.max_compaction_lag_ms.max(0));
        }
        if config.segment_jitter_ms > 0 {
            // Any spread over the partitions will do, as long as a segment keeps its own.
            let mut hasher = DefaultHasher::new();
            (&self.topic_partition, self.active.base_offset()).hash(&mut hasher);
            limit_ms -= (hasher.finish() % config.segment_jitter_ms.unsigned_abs()) as i64;
        }
        limit_ms
    }

    /// Close the active segment and begin one at the log end offset.
    pub fn roll(&mut self, wall_ms: i64) {
        if self.active.size_bytes > 0 || self.active.base_offset() < self.next_offset {
            self.finish_active();
            let closed = ClosedSegment {
                segment: Arc::clone(&self.active.segment),
                size_bytes: u64::from(self.active.size_bytes),
                has_aborted: !self.active.aborted.is_empty(),
            };
            self.closed.push(closed);
            self.io.cell.rolls_outstanding.fetch_add(1, Ordering::AcqRel);
            self.to_sync
                .push_back((Arc::clone(&self.active.segment), self.next_offset));
        }
        if let Some(inner) = self.active.inner_snapshot {
            self.remove_snapshot(inner);
        }
        self.snapshot();
        self.active = ActiveSegment::new(Segment::new(Arc::clone(&self.dir), self.next_offset), wall_ms);
        self.recent.clear();
    }

    /// The last entries of the active segment's indexes, as a rolled or closed segment has them.
    pub fn finish_active(&mut self) {
        let active = &mut self.active;
        if let Some(entry) = time_entry(active.times.last(), active.max_timestamp, active.base_offset()) {
            active.times.push(entry);
        }
        active.segment.set_max_timestamp(active.max_timestamp);
        self.flush_indexes(true);
        self.active.segment.forget_indexes();
    }

    fn flush_indexes(&mut self, closing: bool) {
        let mut works = Vec::new();
        let segment = Arc::clone(&self.active.segment);
        let mut flush = |suffix, taken: Option<(u64, Vec<u8>)>, len: usize, size: usize| {
            let (position, bytes) = match taken {
                Some(taken) => taken,
                // An empty file says that there is nothing; without it the index would be rebuilt.
                None if closing && suffix != AbortedTxnRow::SUFFIX => ((len * size) as u64, Vec::new()),
                None => return,
            };
            works.push(Work::Index {
                segment: Arc::clone(&segment),
                suffix,
                position,
                bytes,
                closing,
            });
        };
        let active = &mut self.active;
        let offsets = active.offsets.take_unflushed();
        let times = active.times.take_unflushed();
        let aborted = active.aborted.take_unflushed();
        // Times first: a start goes on from the last offset entry, and needs every earlier time entry.
        flush(TimeEntry::SUFFIX, times, active.times.len(), TimeEntry::SIZE_BYTES);
        flush(
            OffsetEntry::SUFFIX,
            offsets,
            active.offsets.len(),
            OffsetEntry::SIZE_BYTES,
        );
        flush(
            AbortedTxnRow::SUFFIX,
            aborted,
            active.aborted.len(),
            AbortedTxnRow::SIZE_BYTES,
        );
        active.index_flushed_at = active.size_bytes;
        active.flush_in_flight.get_or_insert((
            self.next_offset,
            active.offsets.flushed_len(),
            active.times.flushed_len(),
            active.aborted.flushed_len(),
        ));
        works.into_iter().for_each(|work| self.submit(work));
    }

    fn snapshot_path(&self, offset: i64) -> PathBuf {
        self.dir.join(file_name(offset, "snapshot"))
    }

    fn remove_snapshot(&self, offset: i64) {
        self.submit(Work::Remove {
            path: self.snapshot_path(offset),
        });
    }

    /// Write the producers as they are at the log end offset.
    pub fn snapshot(&mut self) {
        if self.last_snapshot == Some(self.next_offset) {
            return;
        }
        let content = self.producers.encode_snapshot();
        self.submit(Work::Replace {
            path: self.snapshot_path(self.next_offset),
            content,
        });
        self.last_snapshot = Some(self.next_offset);
    }

    fn snapshot_inside(&mut self) {
        let previous = self.active.inner_snapshot;
        self.snapshot();
        if let Some(previous) = previous.filter(|&previous| previous != self.next_offset) {
            self.remove_snapshot(previous);
        }
        self.active.inner_snapshot = Some(self.next_offset);
        self.active.snapshot_at = self.active.size_bytes;
    }

    /// A leader epoch begins at the log end offset. Thousands of partitions begin one at every start, so the file waits for
    /// the first append: without one, nothing is in the epoch.
    pub fn begin_epoch(&mut self, leader_epoch: i32) {
        self.epochs_changed |= self.epochs.assign(leader_epoch, self.next_offset);
    }

    fn assign_epoch(&mut self, leader_epoch: i32, base_offset: i64) -> Option<Box<EpochCache>> {
        let mut before = None;
        if self.epochs.latest_epoch() != Some(leader_epoch) && leader_epoch >= 0 {
            before = Some(Box::new(self.epochs.clone()));
            self.epochs_changed |= self.epochs.assign(leader_epoch, base_offset);
        }
        if std::mem::take(&mut self.epochs_changed) {
            self.write_epochs();
        }
        before
    }

    /// Replace `leader-epoch-checkpoint`.
    pub fn write_epochs(&self) {
        let path = self.dir.join(epoch_cache::FILE_NAME);
        self.submit(Work::Replace {
            path,
            content: self.epochs.encode().into_bytes(),
        });
    }

    fn index(&mut self, batch: &Incoming, position: u32, size_bytes: u32) {
        let active = &mut self.active;
        let base_offset = active.segment.base_offset();
        active.first_timestamp.get_or_insert(batch.max_timestamp);
        if batch.max_timestamp > active.max_timestamp.timestamp {
            active.max_timestamp = MaxTimestamp {
                timestamp: batch.max_timestamp,
                offset: batch.last_offset,
            };
        }
        if active.bytes_since_entry > self.config.index_interval_bytes {
            let relative_offset = (batch.last_offset - base_offset) as u32;
            active.offsets.push(OffsetEntry {
                relative_offset,
                position,
            });
            if let Some(entry) = time_entry(active.times.last(), active.max_timestamp, base_offset) {
                active.times.push(entry);
            }
            active.bytes_since_entry = 0;
        }
        active.bytes_since_entry += size_bytes;
        active.size_bytes += size_bytes;
    }

    fn note_completed(&mut self, completed: &CompletedTxn) {
        if completed.aborted {
            self.active.aborted.push(AbortedTxnRow {
                producer_id: completed.producer_id,
                first_offset: completed.first_offset,
                last_offset: completed.last_offset,
                last_stable_offset: completed.last_stable_offset,
            });
        }
    }

    /// Whether readers must wait for the disk.
    fn sync_before_visible(&self) -> bool {
        self.config.flush_messages <= 1
    }

    /// A completion of this generation; whether more became visible.
    pub fn on_written(&mut self, next_offset: i64) -> bool {
        debug_assert!(next_offset <= self.next_offset);
        self.written_offset = self.written_offset.max(next_offset);
        if let Some((offset, offsets, times, aborted)) = self.active.flush_in_flight
            && self.written_offset > offset
        {
            let active = &mut self.active;
            active.flush_in_flight = None;
            let dropped = active.offsets.dropped_len() + active.times.dropped_len();
            active.offsets.confirm(offsets);
            active.times.confirm(times);
            active.aborted.confirm(aborted);
            if active.offsets.dropped_len() + active.times.dropped_len() > dropped {
                // What was read of the files ends before what just left memory.
                active.segment.forget_indexes();
            }
        }
        while let Some((_, end_offset)) = self.to_sync.front() {
            if *end_offset > self.written_offset {
                break;
            }
            if let Some((segment, next_offset)) = self.to_sync.pop_front() {
                self.queue.chore(Chore::SyncSegment {
                    log: Arc::clone(&self.io),
                    segment,
                    dir: self.dir.to_path_buf(),
                    next_offset,
                });
            }
        }
        let limit = if self.sync_before_visible() {
            self.synced_offset
        } else {
            self.written_offset
        };
        self.advance_visible(limit)
    }

    /// A completion of this generation; whether more became visible.
    pub fn on_synced(&mut self, next_offset: i64) -> bool {
        self.synced_offset = self.synced_offset.max(next_offset);
        self.on_written(next_offset)
    }

    fn advance_visible(&mut self, limit: i64) -> bool {
        let before = self.visible.offset;
        while let Some(first) = self.pending.front().filter(|first| first.end.offset <= limit) {
            self.visible = first.end;
            self.pending.pop_front();
        }
        self.visible.offset > before
    }

    /// The generation ended for want of space: take back what was not written and begin a new one.
    pub fn roll_back(&mut self) {
        while let Some(last) = self.pending.pop_back_if(|last| last.end.offset > self.written_offset) {
            if let Some(undo) = last.producer {
                self.producers.undo(undo);
            }
            if let Some(epochs) = last.epochs {
                self.epochs = *epochs;
            }
            self.active.rewind(&last.mark);
            self.next_offset = last.base_offset;
            if let Some(rolled) = last.rolled
                && self.written_offset < last.base_offset
            {
                // Its last records are not written either: the segment is active again.
                self.closed.pop();
                if self.to_sync.pop_back().is_some() {
                    self.io.cell.rolls_outstanding.fetch_sub(1, Ordering::AcqRel);
                }
                self.active = *rolled;
                self.active.segment = self.active.segment.new_life();
            }
        }
        debug_assert_eq!(self.next_offset, self.written_offset);
        self.recent.clear();
        self.last_snapshot = None;
        self.end_generation();
        // What the file says may be of the generation that ended.
        self.epochs_changed = true;
    }

    fn end_generation(&mut self) {
        if self.rollbacks.len() == ROLLBACKS_MAX {
            self.rollbacks.pop_front();
        }
        self.rollbacks.push_back((self.generation, self.written_offset));
        self.generation += 1;
        self.io.generation.store(self.generation, Ordering::Relaxed);
    }

    /// Where the generation in which an append was taken was cut; `None`: it still lives. Long ended ones were cut below
    /// everything.
    pub fn cut_of(&self, generation: u32) -> Option<i64> {
        if generation == self.generation {
            return None;
        }
        // What a generation left behind, a later one may have lost too.
        Some(
            self.rollbacks
                .iter()
                .filter(|(ended, _)| *ended >= generation)
                .map(|(_, cut)| *cut)
                .min()
                .unwrap_or(0),
        )
        .filter(|_| self.rollbacks.front().is_some_and(|(oldest, _)| *oldest <= generation))
        .or(Some(0))
    }

    /// Start over from what recovery found, as a new generation.
    pub fn reload(&mut self, parts: LogParts, io: Arc<LogIo>) {
        self.written_offset = self.written_offset.min(parts.next_offset);
        self.end_generation();
        self.io
            .cell
            .rolls_outstanding
            .fetch_sub(self.to_sync.len() as u32, Ordering::AcqRel);
        let mut fresh = Self::new(
            self.topic_partition.clone(),
            Arc::clone(&self.dir),
            Arc::clone(&self.config),
            parts,
            io,
            Arc::clone(&self.queue),
        );
        fresh.rollbacks = std::mem::take(&mut self.rollbacks);
        *self = fresh;
    }

    /// Sync everything appended so far.
    pub fn request_sync(&mut self) {
        self.messages_since_sync = 0;
        self.submit(Work::Sync);
    }

    /// The log was just opened: what is in its files and not durable is still to be synced, closed segments with their
    /// indexes in the background.
    pub fn adopt_unsynced(&mut self) {
        let recovery_point = self.io.cell.recovery_point();
        let ends: Vec<i64> = self
            .closed
            .iter()
            .skip(1)
            .map(|closed| closed.segment.base_offset())
            .collect();
        let ends = ends.into_iter().chain([self.active.base_offset()]);
        for (closed, next_offset) in self.closed.iter().zip(ends).filter(|(_, end)| *end > recovery_point) {
            self.io.cell.rolls_outstanding.fetch_add(1, Ordering::AcqRel);
            self.to_sync.push_back((Arc::clone(&closed.segment), next_offset));
        }
        let mut unsynced: Vec<_> = self.to_sync.iter().map(|(segment, _)| Arc::clone(segment)).collect();
        if self.next_offset > recovery_point && self.active.size_bytes > 0 {
            unsynced.push(Arc::clone(&self.active.segment));
        }
        self.io.adopt(unsynced, self.next_offset);
        self.on_written(self.written_offset);
    }

    /// Records appended and not asked to be synced.
    pub fn messages_since_sync(&self) -> i64 {
        self.messages_since_sync
    }

    /// Position of a batch that starts at `offset` (or, for the end, of the end), if it is remembered.
    pub fn recent_position(&self, offset: i64) -> Option<u64> {
        if offset == self.next_offset {
            return Some(u64::from(self.active.size_bytes));
        }
        let number = self
            .recent
            .partition_point(|(base_offset, _)| *base_offset <= offset)
            .checked_sub(1)?;
        Some(u64::from(self.recent[number].1))
    }

    /// Bytes of all segments, the unwritten tail included.
    pub fn size_bytes(&self) -> u64 {
        self.closed.iter().map(|closed| closed.size_bytes).sum::<u64>() + u64::from(self.active.size_bytes)
    }

    /// Index of the closed segment that would hold `offset`; `closed.len()` for the active one.
    pub fn segment_number(&self, offset: i64) -> usize {
        if offset >= self.active.base_offset() {
            return self.closed.len();
        }
        self.closed
            .partition_point(|closed| closed.segment.base_offset() <= offset)
            .saturating_sub(1)
    }

    /// Take the first `count` closed segments out and have their files removed. The log start offset must be above them.
    pub fn remove_segments(&mut self, count: usize) {
        let mut paths = Vec::new();
        for closed in self.closed.drain(..count) {
            for suffix in [
                "log",
                OffsetEntry::SUFFIX,
                TimeEntry::SUFFIX,
                AbortedTxnRow::SUFFIX,
                "snapshot",
            ] {
                paths.push(closed.segment.path(suffix));
            }
        }
        if !paths.is_empty() {
            self.submit(Work::Retire(paths));
        }
    }

    /// Remove the segments that end at or below the log start offset.
    pub fn remove_segments_below_start(&mut self) {
        if self.is_swapping {
            return; // retention comes by again
        }
        let ends = self.closed.iter().skip(1).map(|closed| closed.segment.base_offset());
        let ends = ends.chain([self.active.base_offset()]);
        // What is not written yet has files to come.
        let limit = self.log_start_offset.min(self.visible.segment);
        let count = ends.take(self.closed.len()).take_while(|end| *end <= limit).count();
        self.remove_segments(count);
    }

    /// Queue everything that a closed log has in its files: the last index entries and the producers.
    pub fn flush_for_close(&mut self) {
        if self.active.size_bytes > 0 {
            self.finish_active();
        }
        if self.last_snapshot.is_some() || self.next_offset > self.log_start_offset || !self.producers.is_empty() {
            self.snapshot();
        }
    }

    /// Move the log start offset up.
    pub fn advance_log_start_offset(&mut self, offset: i64) {
        if offset <= self.log_start_offset {
            return;
        }
        self.log_start_offset = offset;
        self.io.cell.log_start_offset.store(offset, Ordering::Relaxed);
        self.producers.on_log_start_offset(offset);
        if self.epochs.truncate_from_start(offset) {
            self.write_epochs();
        }
    }
}

/// What producer state needs of a batch that has a producer, with the marker that it holds.
pub(crate) fn batch_info(header: &BatchHeader<'_>, marker: Option<EndTxnMarker>) -> BatchInfo {
    BatchInfo {
        producer_id: header.producer_id(),
        producer_epoch: header.producer_epoch(),
        base_sequence: header.base_sequence(),
        last_sequence: header.last_sequence(),
        base_offset: header.base_offset(),
        last_offset: header.last_offset(),
        timestamp: header.max_timestamp(),
        is_transactional: header.is_transactional(),
        marker,
    }
}

/// The marker that ends a transaction, for a control batch that holds one. A control batch that cannot be read is none:
/// it was checked before it came here.
pub(crate) fn end_txn_marker(batch: &BatchView<'_>) -> Option<EndTxnMarker> {
    if !batch.is_control() {
        return None;
    }
    let marker = TransactionMarker::parse(batch).ok().flatten()?;
    Some(EndTxnMarker {
        commit: marker.marker_type == MarkerType::Commit,
        coordinator_epoch: marker.coordinator_epoch,
    })
}

/// An append that does not fit any segment.
pub(crate) fn check_size(size_bytes: usize, config: &LogConfig, topic_partition: &TopicPartition) -> Result<()> {
    if size_bytes > config.segment_bytes as usize {
        return Err(Error::RecordListTooLarge {
            topic_partition: topic_partition.clone(),
            size_bytes,
            segment_bytes: config.segment_bytes as usize,
        });
    }
    Ok(())
}
