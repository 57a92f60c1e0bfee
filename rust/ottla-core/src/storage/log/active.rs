//! The segments of a log as it keeps them in memory.

use std::sync::Arc;

use crate::storage::index::{IndexMark, IndexTail};
use crate::storage::offset_index::OffsetEntry;
use crate::storage::segment::{MaxTimestamp, Segment};
use crate::storage::time_index::TimeEntry;
use crate::storage::txn_index::AbortedTxnRow;

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
    /// Its indexes, until they are surely in their files.
    pub unsettled: Option<Arc<UnsettledIndexes>>,
}

/// The indexes of a segment whose last entries are still to be written, or were just queued.
#[derive(Clone, Debug)]
pub(crate) struct UnsettledIndexes {
    pub offsets: IndexTail<OffsetEntry>,
    pub times: IndexTail<TimeEntry>,
    pub aborted: IndexTail<AbortedTxnRow>,
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
    pub(super) flush_in_flight: Option<(i64, usize, usize, usize)>,
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

    pub(super) fn mark(&self) -> Mark {
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

    pub(super) fn rewind(&mut self, mark: &Mark) {
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

    /// The writes that were queued for its indexes may have been dropped.
    pub(super) fn distrust_indexes(&mut self) {
        self.offsets.distrust();
        self.times.distrust();
        self.aborted.distrust();
        self.flush_in_flight = None;
    }
}

#[derive(Clone, Debug)]
pub(super) struct Mark {
    size_bytes: u32,
    offsets: IndexMark<OffsetEntry>,
    times: IndexMark<TimeEntry>,
    aborted: IndexMark<AbortedTxnRow>,
    max_timestamp: MaxTimestamp,
    first_timestamp: Option<i64>,
    bytes_since_entry: u32,
}
