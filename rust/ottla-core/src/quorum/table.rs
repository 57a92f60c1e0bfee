//! The table of batches: which index ends at which offset, and where its bytes are.

use std::collections::VecDeque;

use bytes::Bytes;

/// The point before the first row: the last thing that is known of the log before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Base {
    pub index: u64,
    pub end_offset: i64,
    pub epoch: i32,
}

/// One batch of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    pub end_offset: i64,
    pub epoch: i32,
    pub segment: i64,
    pub position: u64,
    pub size_bytes: usize,
}

/// One segment file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    pub base_offset: i64,
    pub size_bytes: u64,
}

/// The log as found on disk or built since.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub base: Base,
    pub rows: VecDeque<Row>,
    pub segments: VecDeque<Segment>,
    /// The batches of the last `tail.len()` rows.
    pub tail: VecDeque<Bytes>,
    pub tail_bytes: usize,
}

impl Table {
    pub fn last_index(&self) -> u64 {
        self.base.index + self.rows.len() as u64
    }

    pub fn end_offset(&self) -> i64 {
        self.rows.back().map_or(self.base.end_offset, |row| row.end_offset)
    }

    pub fn row(&self, index: u64) -> Option<&Row> {
        let at = index.checked_sub(self.base.index + 1)?;
        self.rows.get(usize::try_from(at).ok()?)
    }

    pub fn epoch(&self, index: u64) -> Option<i32> {
        if index == self.base.index {
            Some(self.base.epoch)
        } else {
            self.row(index).map(|row| row.epoch)
        }
    }

    /// Where the batch of this index ends; the base counts.
    pub fn end_offset_of(&self, index: u64) -> Option<i64> {
        if index == self.base.index {
            Some(self.base.end_offset)
        } else {
            self.row(index).map(|row| row.end_offset)
        }
    }

    /// The index of the batch that ends at exactly this offset; the base counts.
    pub fn index_ending_at(&self, end_offset: i64) -> Option<u64> {
        if end_offset == self.base.end_offset {
            return Some(self.base.index);
        }
        let at = self.rows.binary_search_by_key(&end_offset, |row| row.end_offset).ok()?;
        Some(self.base.index + 1 + at as u64)
    }

    pub fn push(&mut self, row: Row, batch: Bytes, cached_bytes: usize) {
        self.rows.push_back(row);
        self.tail_bytes += batch.len();
        self.tail.push_back(batch);
        debug_assert!(self.tail.len() <= self.rows.len());
        // during recovery everything pushed is on disk
        if cached_bytes < usize::MAX {
            self.evict(cached_bytes, self.last_index());
        }
    }

    /// Forget batches that are on disk (index <= `persisted`) until at most `cached_bytes` are kept.
    pub fn evict(&mut self, cached_bytes: usize, persisted: u64) {
        while self.tail_bytes > cached_bytes && self.last_index() - (self.tail.len() as u64) < persisted {
            let Some(batch) = self.tail.pop_front() else { break };
            self.tail_bytes -= batch.len();
        }
    }

    /// Makes the first row the base.
    pub fn start_after_first(&mut self) {
        if let Some(row) = self.rows.pop_front() {
            self.base = Base {
                index: self.base.index + 1,
                end_offset: row.end_offset,
                epoch: row.epoch,
            };
        }
        while self.tail.len() > self.rows.len() {
            if let Some(batch) = self.tail.pop_front() {
                self.tail_bytes -= batch.len();
            }
        }
    }

    /// Forgets every row after this index.
    pub fn truncate_after(&mut self, index: u64) {
        while self.last_index() > index {
            self.rows.pop_back();
            if let Some(batch) = self.tail.pop_back() {
                self.tail_bytes -= batch.len();
            }
        }
    }

    /// The batch of this index, if it is in memory.
    pub fn cached(&self, index: u64) -> Option<&Bytes> {
        let first = self.last_index() + 1 - self.tail.len() as u64;
        self.tail.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }
}
