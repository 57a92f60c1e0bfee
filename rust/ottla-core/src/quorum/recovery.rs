//! Opening `__cluster_metadata-0`: every batch is read and checked, indexes are counted out, a torn tail is cut.
//!
//! Raft's index of a batch is its place in the log, counted from the newest snapshot (whose header carries its index) or
//! from the start. The rules:
//!
//! - a bad batch in the last segment, at or above the recovery point: a write that was never acknowledged, cut off;
//! - a bad batch anywhere else, a log that ends below the recovery point, a gap between snapshot and log: refused;
//! - a bad newest snapshot: the one before it serves, if the log still holds everything since; refused otherwise;
//! - a gap between segments below the newest snapshot: the rest of an interrupted deletion, its older part is dropped;
//! - a gap between segments at or above the recovery point, which the writer lowers before it removes segments from the
//!   end: the rest of an interrupted truncation, its newer part is dropped;
//! - a log that does not fit the newest snapshot while the recovery point is 0, which the writer sets before it replaces a
//!   log by another voter's snapshot: the rest of an interrupted installation, dropped.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::entry;
use super::error::QuorumError;
use super::log::{read_recovery_point, segment_file_name, segment_of_file_name};
use super::snapshot::{self, SnapshotId, SnapshotMeta};
use super::state::VoterState;
use super::table::{Base, Row, Segment, Table};
use crate::record::batch::BatchView;
use crate::storage::fs::{LogFs, OpenMode};

/// What was found wrong on open, and mended.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Bytes of a torn tail that were cut off.
    pub torn_bytes: u64,
    /// Snapshots that were unreadable and not needed.
    pub damaged_snapshots: Vec<String>,
    /// Batches in the log that was read.
    pub batches_read: usize,
}

/// A directory's content.
pub(crate) struct Recovered {
    pub state: Option<VoterState>,
    pub table: Table,
    pub snapshots: Vec<SnapshotId>,
    pub newest: Option<(SnapshotMeta, Vec<Bytes>)>,
    pub recovery_point: Option<i64>,
    pub report: RecoveryReport,
}

struct Recovery<'a> {
    fs: &'a dyn LogFs,
    dir: &'a Path,
    cached_bytes: usize,
    /// The recovery point; 0 also where there is none: then nothing is known to have been synced.
    synced_end: i64,
    replacing: bool,
    table: Table,
    report: RecoveryReport,
}

fn damaged(file: String, position: u64, reason: String) -> QuorumError {
    QuorumError::Damaged { file, position, reason }
}

/// SLOW. Reads the directory, creating it if absent, and mends what a crash may leave.
///
/// # Errors
/// `Damaged` for anything a crash cannot leave; `Storage`.
pub(crate) fn recover(fs: &dyn LogFs, dir: &Path, cached_bytes: usize) -> Result<Recovered, QuorumError> {
    let storage = QuorumError::storage;
    fs.create_dir_all(dir).map_err(storage("creating the directory"))?;
    let mut snapshots = Vec::new();
    let mut segments = Vec::new();
    for name in fs.read_dir(dir).map_err(storage("listing the directory"))? {
        let extension = Path::new(&name.name)
            .extension()
            .and_then(|extension| extension.to_str());
        if matches!(extension, Some("part" | "tmp")) {
            fs.remove_file(&dir.join(&name.name))
                .map_err(storage("removing an unfinished file"))?;
        } else if let Some(id) = SnapshotId::from_file_name(&name.name) {
            snapshots.push(id);
        } else if let Some(base_offset) = segment_of_file_name(&name.name) {
            segments.push(base_offset);
        }
    }
    snapshots.sort_unstable();
    segments.sort_unstable();
    let recovery_point = read_recovery_point(fs, dir)?;
    if recovery_point.is_none() {
        // the directory may be new, and what is synced in it is worth nothing while its own name is not
        let parent = dir
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        fs.sync_dir(parent).map_err(storage("syncing the log directory"))?;
    }
    let mut recovery = Recovery {
        fs,
        dir,
        cached_bytes,
        synced_end: recovery_point.unwrap_or(0),
        replacing: recovery_point == Some(0) && !snapshots.is_empty(),
        table: Table::default(),
        report: RecoveryReport::default(),
    };
    let (newest, unreadable) = recovery.load_newest_snapshot(&mut snapshots)?;
    recovery.scan(&segments, newest.as_ref().map_or(0, |(meta, _)| meta.id.end_offset))?;
    recovery.join(newest.as_ref().map(|(meta, _)| meta), unreadable.as_ref())?;
    if let Some((id, error)) = unreadable {
        fs.remove_file(&dir.join(id.file_name()))
            .map_err(storage("removing a damaged snapshot"))?;
        recovery.report.damaged_snapshots.push(error.to_string());
    }
    let state = VoterState::read(fs, dir)?;
    Ok(Recovered {
        state,
        table: recovery.table,
        snapshots,
        newest,
        recovery_point,
        report: recovery.report,
    })
}

type Loaded = Option<(SnapshotMeta, Vec<Bytes>)>;

impl Recovery<'_> {
    /// The newest readable snapshot, and the newest of all if that is another. At most one may be unreadable.
    fn load_newest_snapshot(
        &mut self,
        snapshots: &mut Vec<SnapshotId>,
    ) -> Result<(Loaded, Option<(SnapshotId, QuorumError)>), QuorumError> {
        let mut unreadable = None;
        while let Some(id) = snapshots.last().copied() {
            let bytes = self
                .fs
                .read(&self.dir.join(id.file_name()))
                .map_err(QuorumError::storage("reading a snapshot"))?;
            match snapshot::decode(id, &Bytes::from(bytes)) {
                Ok(loaded) => return Ok((Some(loaded), unreadable)),
                Err(error) if unreadable.is_none() => {
                    unreadable = Some((id, error));
                    snapshots.pop();
                }
                Err(error) => return Err(error),
            }
        }
        Ok((None, unreadable))
    }

    fn scan(&mut self, segments: &[i64], snapshot_end: i64) -> Result<(), QuorumError> {
        for (at, base_offset) in segments.iter().copied().enumerate() {
            if at == 0 {
                self.table.base.end_offset = base_offset;
            } else if base_offset != self.table.end_offset() {
                if base_offset > snapshot_end && self.table.end_offset() >= self.synced_end {
                    return self.drop_segments(&segments[at..]);
                }
                if base_offset > snapshot_end && !self.replacing {
                    let reason = format!("the segment before it ends at offset {}", self.table.end_offset());
                    return Err(damaged(segment_file_name(base_offset), 0, reason));
                }
                self.drop_log(Base {
                    end_offset: base_offset,
                    ..Base::default()
                })?;
            }
            self.scan_segment(base_offset, at + 1 == segments.len())?;
        }
        Ok(())
    }

    fn drop_segments(&mut self, segments: &[i64]) -> Result<(), QuorumError> {
        for base_offset in segments {
            let path = self.path(*base_offset);
            let storage = QuorumError::storage;
            self.report.torn_bytes += self.fs.file_size_bytes(&path).map_err(storage("listing the log"))?;
            self.fs.remove_file(&path).map_err(storage("removing a segment"))?;
        }
        self.fs
            .sync_dir(self.dir)
            .map_err(QuorumError::storage("syncing the directory"))
    }

    fn path(&self, base_offset: i64) -> PathBuf {
        self.dir.join(segment_file_name(base_offset))
    }

    fn scan_segment(&mut self, base_offset: i64, last: bool) -> Result<(), QuorumError> {
        let content = Bytes::from(
            self.fs
                .read(&self.path(base_offset))
                .map_err(QuorumError::storage("reading the log"))?,
        );
        let mut position = 0;
        while position < content.len() {
            let end_offset = self.table.end_offset();
            let (row, size) = match self.check_batch(&content, position, base_offset) {
                Ok(found) => found,
                Err(_) if last && end_offset >= self.synced_end => {
                    return self.cut(base_offset, position as u64, content.len() as u64);
                }
                Err(reason) => return Err(damaged(segment_file_name(base_offset), position as u64, reason)),
            };
            // copied: a slice would hold the whole segment's memory for one cached batch
            let batch = Bytes::copy_from_slice(&content[position..position + size]);
            self.table.push(row, batch, self.cached_bytes);
            self.report.batches_read += 1;
            position += size;
        }
        self.table.segments.push_back(Segment {
            base_offset,
            size_bytes: position as u64,
        });
        Ok(())
    }

    fn check_batch(&self, content: &Bytes, position: usize, segment: i64) -> Result<(Row, usize), String> {
        let view = BatchView::parse(&content[position..]).map_err(|error| error.to_string())?;
        entry::check(&view).map_err(|error| error.to_string())?;
        let expected = self.table.end_offset();
        if view.base_offset() != expected {
            return Err(format!("base offset {}, expected {expected}", view.base_offset()));
        }
        let epoch = view.partition_leader_epoch();
        let before = self.table.rows.back().map_or(0, |row| row.epoch);
        if epoch < before {
            return Err(format!("epoch {epoch} after epoch {before}"));
        }
        let size_bytes = view.size_bytes();
        let row = Row {
            end_offset: view.next_offset(),
            epoch,
            segment,
            position: position as u64,
            size_bytes,
        };
        Ok((row, size_bytes))
    }

    fn cut(&mut self, base_offset: i64, position: u64, size_bytes: u64) -> Result<(), QuorumError> {
        let cut = || {
            let file = self.fs.open(&self.path(base_offset), OpenMode::ReadWrite)?;
            file.truncate(position)?;
            file.sync_data()
        };
        cut().map_err(QuorumError::storage("cutting a torn tail"))?;
        self.report.torn_bytes += size_bytes - position;
        self.table.segments.push_back(Segment {
            base_offset,
            size_bytes: position,
        });
        Ok(())
    }

    /// Puts snapshot and log together and counts indexes out.
    fn join(
        &mut self,
        newest: Option<&SnapshotMeta>,
        unreadable: Option<&(SnapshotId, QuorumError)>,
    ) -> Result<(), QuorumError> {
        if let Some((id, error)) = unreadable
            && self.table.end_offset() < id.end_offset
        {
            let QuorumError::Damaged { file, position, reason } = error else {
                return Err(damaged(id.file_name(), 0, error.to_string()));
            };
            return Err(damaged(file.clone(), *position, reason.clone()));
        }
        match newest {
            Some(meta) => self.join_snapshot(meta)?,
            None if self.table.base.end_offset > 0 => return Err(self.gap(0)),
            None => {}
        }
        let end_offset = self.table.end_offset();
        if end_offset < self.synced_end {
            let (file, position) = self.table.segments.back().map_or_else(
                || (segment_file_name(end_offset), 0),
                |segment| (segment_file_name(segment.base_offset), segment.size_bytes),
            );
            let reason = format!(
                "the log ends at offset {end_offset}, but was synced up to {}",
                self.synced_end
            );
            return Err(damaged(file, position, reason));
        }
        Ok(())
    }

    fn gap(&self, from: i64) -> QuorumError {
        let file = segment_file_name(self.table.base.end_offset);
        damaged(file, 0, format!("nothing holds the records from offset {from} on"))
    }

    fn join_snapshot(&mut self, meta: &SnapshotMeta) -> Result<(), QuorumError> {
        let end_offset = meta.id.end_offset;
        let base = Base {
            index: meta.index,
            end_offset,
            epoch: meta.id.epoch,
        };
        let log_start = self.table.base.end_offset;
        if self.table.segments.is_empty() || log_start == end_offset {
            self.table.base = base;
            return Ok(());
        }
        match self.table.index_ending_at(end_offset) {
            Some(count) if self.table.epoch(count) == Some(meta.id.epoch) => {
                // counted from 0 so far: `count` batches lie between the log's start and the snapshot's end
                self.table.base.index = meta.index.checked_sub(count).ok_or_else(|| {
                    let reason = format!("index {} in the header, {count} batches before its end", meta.index);
                    damaged(meta.id.file_name(), 0, reason)
                })?;
                if log_start > 0 {
                    // the epoch of what came before is gone with it; raft needs it, so the first batch takes that place
                    self.table.start_after_first();
                }
                Ok(())
            }
            _ if self.replacing => self.drop_log(base),
            _ if log_start > end_offset => Err(self.gap(end_offset)),
            _ => {
                let reason = format!(
                    "the log ({log_start} to {}) does not contain its end",
                    self.table.end_offset()
                );
                Err(damaged(meta.id.file_name(), 0, reason))
            }
        }
    }

    fn drop_log(&mut self, base: Base) -> Result<(), QuorumError> {
        for segment in std::mem::take(&mut self.table.segments) {
            self.fs
                .remove_file(&self.path(segment.base_offset))
                .map_err(QuorumError::storage("removing a replaced segment"))?;
        }
        self.fs
            .sync_dir(self.dir)
            .map_err(QuorumError::storage("syncing the directory"))?;
        self.table = Table {
            base,
            rows: VecDeque::new(),
            ..Table::default()
        };
        Ok(())
    }
}
