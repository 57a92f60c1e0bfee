//! What becomes of appends: written, synced, taken back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Log, LogParts};
use crate::storage::segment::Segment;
use crate::storage::writer::{Chore, LogIo, Work};

/// Ended generations remembered, for appends that still ask.
const ROLLBACKS_MAX: usize = 16;

impl Log {
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
        // The segment's last index entries are written after its last records and before the next segment's first ones.
        while self
            .to_sync
            .front()
            .is_some_and(|(_, end_offset)| *end_offset < self.written_offset)
        {
            if let Some((segment, next_offset)) = self.to_sync.pop_front() {
                let mut closed = self.closed.iter_mut().rev();
                if let Some(closed) = closed.find(|closed| Arc::ptr_eq(&closed.segment, &segment)) {
                    closed.unsettled = None;
                    // What was read of the files before may end too early.
                    segment.forget_indexes();
                }
                self.queue_segment_sync(segment, next_offset);
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
        while self
            .pending
            .back()
            .is_some_and(|last| last.end.offset > self.written_offset)
        {
            let Some(last) = self.pending.pop_back() else { break };
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
        self.active.distrust_indexes();
        self.requeues_indexes = !self.to_sync.is_empty();
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
        let mut unsynced = Vec::new();
        for (closed, next_offset) in self.closed.iter().zip(ends).filter(|(_, end)| *end > recovery_point) {
            unsynced.push(Arc::clone(&closed.segment));
            self.io.cell.rolls_outstanding.fetch_add(1, Ordering::AcqRel);
            self.queue_segment_sync(Arc::clone(&closed.segment), next_offset);
        }
        if self.next_offset > recovery_point && self.active.size_bytes > 0 {
            unsynced.push(Arc::clone(&self.active.segment));
        }
        self.io.adopt(unsynced, self.next_offset);
    }

    pub(super) fn queue_segment_sync(&self, segment: Arc<Segment>, next_offset: i64) {
        let log = Arc::clone(&self.io);
        self.queue.chore(Chore::SyncSegment {
            log,
            segment,
            next_offset,
        });
    }

    /// Records appended and not asked to be synced.
    pub fn messages_since_sync(&self) -> i64 {
        self.messages_since_sync
    }
}
