//! What raft sees of the log: [`raft::Storage`] over rows in memory and batches in files.
//!
//! A row a batch says where it ends (Kafka's offset), in which epoch it was written and where its bytes are; its place in
//! the table is raft's index. The newest batches stay in memory, older ones are read back when a slow follower or a
//! restart wants them. The store decides where bytes go (segment, position) and the writer only carries it out, so
//! both always agree on the layout without talking.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::{Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::error::QuorumError;
use super::log::{Op, segment_file_name};
use super::message::{conf_state, node_id, snapshot_data};
use super::snapshot::{SnapshotId, SnapshotMeta};
use super::table::{Base, Row, Segment, Table};
use crate::record::batch::BatchHeader;
use crate::storage::fs::{LogFile, LogFs, OpenMode};

/// Limits of the store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoreLimits {
    pub segment_bytes: u64,
    pub cached_bytes: usize,
    pub snapshots_kept: usize,
}

/// Raft's storage.
pub(crate) struct Store {
    fs: Arc<dyn LogFs>,
    dir: PathBuf,
    limits: StoreLimits,
    table: Table,
    persisted: u64,
    roll_next: bool,
    voters: Vec<i32>,
    hard_state: HardState,
    /// Newest last; the newest has its meta.
    snapshots: Vec<SnapshotId>,
    newest: Option<SnapshotMeta>,
    snapshot_file: Option<(SnapshotId, Bytes)>,
    snapshot_wanted: Cell<bool>,
    files: RefCell<BTreeMap<i64, Arc<dyn LogFile>>>,
}

impl Store {
    /// Over a recovered log.
    pub fn new(fs: Arc<dyn LogFs>, dir: &Path, limits: StoreLimits, table: Table, state: RaftState) -> Self {
        let persisted = table.last_index();
        Self {
            fs,
            dir: dir.to_path_buf(),
            limits,
            table,
            persisted,
            roll_next: false,
            voters: state.conf_state.voters.iter().map(|voter| node_id(*voter)).collect(),
            hard_state: state.hard_state,
            snapshots: Vec::new(),
            newest: None,
            snapshot_file: None,
            snapshot_wanted: Cell::new(false),
            files: RefCell::default(),
        }
    }

    /// The snapshots found beside the log, newest last.
    pub fn set_snapshots(&mut self, snapshots: Vec<SnapshotId>, newest: Option<SnapshotMeta>) {
        self.snapshots = snapshots;
        self.newest = newest;
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    pub fn voters(&self) -> &[i32] {
        &self.voters
    }

    pub fn newest_snapshot(&self) -> Option<&SnapshotMeta> {
        self.newest.as_ref()
    }

    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// Everything up to this index is on disk.
    pub fn set_persisted(&mut self, index: u64) {
        self.persisted = index.min(self.table.last_index());
        self.table.evict(self.limits.cached_bytes, self.persisted);
    }

    /// Takes entries that raft wants persisted, cutting off what they replace; returns what the writer must do.
    ///
    /// # Errors
    /// `Failed` if they do not continue the log: offsets and indexes would part ways.
    pub fn append(&mut self, entries: &[Entry], ops: &mut Vec<Op>) -> Result<(), QuorumError> {
        let Some(first) = entries.first() else {
            return Ok(());
        };
        let failed = |reason: String| QuorumError::Failed { reason };
        if first.index <= self.table.base.index || first.index > self.table.last_index() + 1 {
            return Err(failed(format!(
                "entry {} does not continue a log of {}..={}",
                first.index,
                self.table.base.index,
                self.table.last_index()
            )));
        }
        if first.index <= self.table.last_index() {
            ops.push(self.truncate_after(first.index - 1));
        }
        for entry in entries {
            let header = BatchHeader::parse(&entry.data).map_err(|error| failed(error.to_string()))?;
            let (base_offset, end_offset) = (header.base_offset(), self.table.end_offset());
            if base_offset != end_offset || header.partition_leader_epoch() as u64 != entry.term {
                return Err(failed(format!(
                    "entry {} of epoch {} starts at offset {base_offset}, the log ends at {end_offset}",
                    entry.index, entry.term
                )));
            }
            let row = self.place(
                base_offset,
                header.next_offset(),
                header.partition_leader_epoch(),
                entry.data.len(),
            );
            match ops.last_mut() {
                Some(Op::Append {
                    segment,
                    batches,
                    end_offset,
                    ..
                }) if *segment == row.segment => {
                    batches.push(entry.data.clone());
                    *end_offset = row.end_offset;
                }
                _ => ops.push(Op::Append {
                    segment: row.segment,
                    position: row.position,
                    batches: vec![entry.data.clone()],
                    end_offset: row.end_offset,
                }),
            }
            self.table.push(row, entry.data.clone(), usize::MAX);
        }
        Ok(())
    }

    fn place(&mut self, base_offset: i64, end_offset: i64, epoch: i32, size_bytes: usize) -> Row {
        let full = self.table.segments.back().is_none_or(|segment| {
            segment.size_bytes > 0
                && (self.roll_next || segment.size_bytes + size_bytes as u64 > self.limits.segment_bytes)
        });
        if full {
            self.table.segments.push_back(Segment {
                base_offset,
                size_bytes: 0,
            });
        }
        self.roll_next = false;
        let last = self.table.segments.len() - 1;
        let segment = &mut self.table.segments[last];
        let position = segment.size_bytes;
        segment.size_bytes += size_bytes as u64;
        Row {
            end_offset,
            epoch,
            segment: segment.base_offset,
            position,
            size_bytes,
        }
    }

    fn truncate_after(&mut self, index: u64) -> Op {
        // the caller checked that a row follows `index`
        let (segment, position) = self
            .table
            .row(index + 1)
            .map_or((0, 0), |row| (row.segment, row.position));
        self.table.truncate_after(index);
        self.persisted = self.persisted.min(index);
        let mut removed = Vec::new();
        while let Some(last) = self.table.segments.back_mut() {
            if last.base_offset == segment {
                last.size_bytes = position;
                break;
            }
            removed.push(last.base_offset);
            self.table.segments.pop_back();
        }
        self.forget_files(&removed);
        Op::Truncate {
            segment,
            position,
            end_offset: self.table.end_offset(),
            removed,
        }
    }

    fn forget_files(&self, segments: &[i64]) {
        let mut files = self.files.borrow_mut();
        for segment in segments {
            files.remove(segment);
        }
    }

    /// Replaces the whole log by a snapshot of another voter.
    pub fn install(&mut self, meta: SnapshotMeta, file: &Bytes) -> Op {
        let removed: Vec<i64> = self.table.segments.iter().map(|segment| segment.base_offset).collect();
        self.forget_files(&removed);
        self.table = Table {
            base: Base {
                index: meta.index,
                end_offset: meta.id.end_offset,
                epoch: meta.id.epoch,
            },
            ..Table::default()
        };
        self.persisted = meta.index;
        self.roll_next = false;
        let old = std::mem::replace(&mut self.snapshots, vec![meta.id]);
        let op = Op::InstallSnapshot {
            id: meta.id,
            file: file.clone(),
            segments: removed,
            snapshots: old.into_iter().filter(|id| *id != meta.id).collect(),
        };
        self.snapshot_file = Some((meta.id, file.clone()));
        self.newest = Some(meta);
        op
    }

    /// The next batch starts a segment, so that what lies before can be deleted.
    pub fn roll_before_next(&mut self) {
        self.roll_next = true;
    }

    /// A snapshot of this node is durable: drops the log before the oldest snapshot that is kept.
    /// Returns the files to delete.
    pub fn snapshot_written(&mut self, meta: SnapshotMeta) -> Option<Op> {
        if self
            .newest
            .as_ref()
            .is_some_and(|newest| newest.id.end_offset >= meta.id.end_offset)
        {
            // another voter's newer snapshot came in between; this one is only in the way
            return Some(Op::Delete {
                segments: Vec::new(),
                snapshots: vec![meta.id],
            });
        }
        self.snapshots.push(meta.id);
        self.newest = Some(meta);
        self.snapshot_file = None;
        let surplus = self.snapshots.len().saturating_sub(self.limits.snapshots_kept.max(1));
        let snapshots: Vec<SnapshotId> = self.snapshots.drain(..surplus).collect();
        let keep_from = self.snapshots.first().map_or(0, |id| id.end_offset);
        let mut segments = Vec::new();
        while let (Some(first), Some(next)) = (self.table.segments.front(), self.table.segments.get(1)) {
            if next.base_offset > keep_from {
                break;
            }
            segments.push(first.base_offset);
            self.table.segments.pop_front();
        }
        if let Some(start) = self.table.segments.front().map(|segment| segment.base_offset) {
            while self.table.rows.front().is_some_and(|row| row.end_offset <= start) {
                self.table.start_after_first();
            }
        }
        self.forget_files(&segments);
        (!segments.is_empty() || !snapshots.is_empty()).then_some(Op::Delete { segments, snapshots })
    }

    /// The snapshot that a follower needs and that is not in memory, once.
    pub fn take_wanted_snapshot(&self) -> Option<SnapshotId> {
        if !self.snapshot_wanted.take() {
            return None;
        }
        let id = self.newest.as_ref()?.id;
        (self.snapshot_file.as_ref().map(|(loaded, _)| *loaded) != Some(id)).then_some(id)
    }

    /// The file of a snapshot was read.
    pub fn snapshot_loaded(&mut self, id: SnapshotId, file: Bytes) {
        if self.newest.as_ref().map(|meta| meta.id) == Some(id) {
            self.snapshot_file = Some((id, file));
        }
    }

    fn read_batch(&self, index: u64) -> std::io::Result<Bytes> {
        if let Some(batch) = self.table.cached(index) {
            return Ok(batch.clone());
        }
        let row = self.table.row(index).ok_or(std::io::ErrorKind::NotFound)?;
        let mut files = self.files.borrow_mut();
        let file = if let Some(file) = files.get(&row.segment) {
            Arc::clone(file)
        } else {
            let file = self
                .fs
                .open(&self.dir.join(segment_file_name(row.segment)), OpenMode::Read)?;
            files.insert(row.segment, Arc::clone(&file));
            file
        };
        let mut buffer = vec![0; row.size_bytes];
        file.read_exact_at(&mut buffer, row.position)?;
        Ok(Bytes::from(buffer))
    }
}

impl Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState {
            hard_state: self.hard_state.clone(),
            conf_state: conf_state(&self.voters),
        })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.table.base.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.table.last_index() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        let mut found = Vec::new();
        for index in low..high {
            let row = self
                .table
                .row(index)
                .ok_or(raft::Error::Store(StorageError::Unavailable))?;
            size += row.size_bytes as u64;
            if size > limit && !found.is_empty() {
                break;
            }
            let data = self.read_batch(index).map_err(raft::Error::Io)?;
            found.push(Entry {
                index,
                term: row.epoch as u64,
                data,
                ..Entry::default()
            });
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.table.epoch(index) {
            Some(epoch) => Ok(epoch as u64),
            None if index < self.table.base.index => Err(raft::Error::Store(StorageError::Compacted)),
            None => Err(raft::Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.table.base.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.table.last_index())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let unavailable = raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable);
        let Some(meta) = self.newest.as_ref().filter(|meta| meta.index >= request_index) else {
            return Err(unavailable);
        };
        let Some((_, file)) = self.snapshot_file.as_ref().filter(|(id, _)| *id == meta.id) else {
            self.snapshot_wanted.set(true);
            return Err(unavailable);
        };
        let mut snapshot = Snapshot {
            data: snapshot_data(meta.id, file),
            ..Snapshot::default()
        };
        let metadata = snapshot.mut_metadata();
        metadata.index = meta.index;
        metadata.term = meta.id.epoch as u64;
        metadata.set_conf_state(conf_state(&meta.voters));
        Ok(snapshot)
    }
}
