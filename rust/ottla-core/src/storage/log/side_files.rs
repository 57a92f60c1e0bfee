//! The files beside the records: indexes, producer snapshots, leader epochs; and the roll to a new segment.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{ActiveSegment, ClosedSegment, Log, UnsettledIndexes};
use crate::storage::epoch_cache::{self, EpochCache};
use crate::storage::index::{IndexEntry, IndexTail};
use crate::storage::offset_index::OffsetEntry;
use crate::storage::segment::{Segment, file_name, time_entry};
use crate::storage::time_index::TimeEntry;
use crate::storage::txn_index::AbortedTxnRow;
use crate::storage::writer::Work;

impl Log {
    /// Close the active segment and begin one at the log end offset.
    pub fn roll(&mut self, wall_ms: i64) {
        if self.active.size_bytes > 0 || self.active.base_offset() < self.next_offset {
            self.finish_active();
            let has_aborted = !self.active.aborted.is_empty();
            let unsettled = UnsettledIndexes {
                offsets: std::mem::take(&mut self.active.offsets),
                times: std::mem::take(&mut self.active.times),
                aborted: std::mem::take(&mut self.active.aborted),
            };
            let closed = ClosedSegment {
                segment: Arc::clone(&self.active.segment),
                size_bytes: u64::from(self.active.size_bytes),
                has_aborted,
                unsettled: Some(Arc::new(unsettled)),
            };
            self.closed.push(closed);
            self.io.cell.rolls_outstanding.fetch_add(1, Ordering::AcqRel);
            self.submit(Work::Settle(Arc::clone(&self.active.segment)));
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

    pub(super) fn flush_indexes(&mut self, closing: bool) {
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
        for work in works {
            self.submit(work);
        }
    }

    /// Have the last index entries of rolled segments written once more, ahead of everything that lets them count as
    /// written: of the next records, and of the next producer snapshot. With something to append, as room may have come.
    pub(super) fn requeue_indexes(&mut self) {
        if !std::mem::take(&mut self.requeues_indexes) {
            return;
        }
        for (segment, _) in &self.to_sync {
            let mut closed = self.closed.iter().rev();
            if let Some(closed) = closed.find(|closed| Arc::ptr_eq(&closed.segment, segment))
                && let Some(unsettled) = &closed.unsettled
            {
                self.requeue_index(segment, &unsettled.times);
                self.requeue_index(segment, &unsettled.offsets);
                let (position, rows) = unsettled.aborted.unconfirmed();
                if !rows.is_empty() {
                    self.submit(Work::Index {
                        segment: Arc::clone(segment),
                        suffix: AbortedTxnRow::SUFFIX,
                        position,
                        bytes: rows.to_vec(),
                        closing: true,
                    });
                }
                self.submit(Work::Settle(Arc::clone(segment)));
            }
        }
    }

    /// All of an index, as nothing of it is in the file after a last write that failed. What is not in memory is read from
    /// the records when it is first needed.
    fn requeue_index<E: IndexEntry>(&self, segment: &Arc<Segment>, index: &IndexTail<E>) {
        let work = if index.dropped_len() > 0 {
            let path = segment.path(E::SUFFIX);
            Work::Remove { path }
        } else {
            Work::Index {
                segment: Arc::clone(segment),
                suffix: E::SUFFIX,
                position: 0,
                bytes: index.in_memory().bytes_from(0).to_vec(),
                closing: true,
            }
        };
        self.submit(work);
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
        self.submit(Work::Overwrite {
            path: self.snapshot_path(self.next_offset),
            content,
        });
        self.last_snapshot = Some(self.next_offset);
    }

    pub(super) fn snapshot_inside(&mut self) {
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

    pub(super) fn assign_epoch(&mut self, leader_epoch: i32, base_offset: i64) -> Option<Box<EpochCache>> {
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
        self.submit(Work::Overwrite {
            path,
            content: self.epochs.encode().into_bytes(),
        });
    }
}
