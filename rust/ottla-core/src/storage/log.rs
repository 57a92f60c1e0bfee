//! A log in memory: its segments, the active segment's indexes, the tail that is not written yet, producers and epochs.
//!
//! Nothing here touches a file. An append assigns offsets and positions, takes note of how to take itself back, and leaves
//! as a job for the directory's writer; completions move the written offset. The owner (`Partition`) holds the lock.

mod active;
mod progress;
mod side_files;

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::config::LogConfig;
use super::epoch_cache::EpochCache;
use super::index::{IndexEntry, IndexTail};
use super::offset_index::OffsetEntry;
use super::producer_state::{BatchInfo, Checks, CompletedTxn, EndTxnMarker, ProducerState, Undo};
use super::segment::{MaxTimestamp, Segment, time_entry};
use super::time_index::TimeEntry;
use super::txn_index::AbortedTxnRow;
use super::writer::{Job, LogIo, Work, WriteQueue};
use crate::error::{Error, Result};
use crate::record::batch::{BatchHeader, BatchView};
use crate::record::control::{MarkerType, TransactionMarker};
use crate::types::TopicPartition;
use active::Mark;
pub(crate) use active::{ActiveSegment, ClosedSegment, LogPosition, UnsettledIndexes};

/// Index entries are written when this much was appended since the last time (and on roll and close): what a start must
/// scan again after the process died.
const INDEX_FLUSH_INTERVAL_BYTES: u32 = 1 << 20;
/// A producer snapshot is made inside a segment when this much was appended since the last one, so that a start replays
/// little of a large segment.
const SNAPSHOT_INTERVAL_BYTES: u32 = 32 << 20;
/// Batches whose positions are remembered, for readers at the end of the log.
const RECENT_MAX: usize = 64;

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
#[allow(clippy::struct_field_names, reason = "log_start_offset is what Kafka calls it")]
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
    /// The last index entries of rolled segments may have been dropped with the generation that wrote them.
    requeues_indexes: bool,
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
            requeues_indexes: false,
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
        self.requeue_indexes();
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

    /// The indexes of a segment (`closed.len()`: the active one) as far as memory has them; `None`: they are in their files.
    pub fn memory_indexes(&self, number: usize) -> Option<(&IndexTail<OffsetEntry>, &IndexTail<TimeEntry>)> {
        match self.closed.get(number) {
            Some(closed) => closed
                .unsettled
                .as_ref()
                .map(|indexes| (&indexes.offsets, &indexes.times)),
            None => Some((&self.active.offsets, &self.active.times)),
        }
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
        let removed: Vec<ClosedSegment> = self.closed.drain(..count).collect();
        for closed in removed {
            // Nobody looks at its indexes again, so nothing has to be waited for.
            if let Some(place) = self
                .to_sync
                .iter()
                .position(|(known, _)| Arc::ptr_eq(known, &closed.segment))
                && let Some((segment, next_offset)) = self.to_sync.remove(place)
            {
                self.queue_segment_sync(segment, next_offset);
            }
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
        self.requeue_indexes();
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
pub(crate) fn batch_info(header: BatchHeader<'_>, marker: Option<EndTxnMarker>) -> BatchInfo {
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
