//! The writer of `__cluster_metadata-0`: carries out jobs in order, each durable as a whole before it is reported done.
//!
//! It runs outside the event loop (and without the GIL). Where bytes go was decided before ([`super::store`]), so a job
//! that met a full disk can simply be run again. After a failed sync nothing is known of what the disk holds: the
//! writer then refuses everything until the directory is recovered anew.
//!
//! Beside Kafka's files lies `recovery-point`: the offset below which everything was synced. It is written after each
//! sync and itself synced only now and then, so it may lag and never leads. What is bad below it is damage, and the node
//! must not start; what is bad above it may be the torn tail of a write that nobody was told of, and is cut.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::error::QuorumError;
use super::snapshot::{self, SnapshotId, SnapshotMeta};
use super::state::VoterState;
use crate::storage::fs::{LogFile, LogFs, OpenMode};

/// The file beside the segments that says how far they were synced.
pub const RECOVERY_POINT_FILE: &str = "recovery-point";
/// The recovery point itself is synced after this many jobs.
const JOBS_PER_RECOVERY_POINT_SYNC: u32 = 64;
/// `writev` takes at most 1024 buffers (`IOV_MAX`).
const BUFFERS_PER_WRITE: usize = 512;

/// The name of the segment that starts at this offset.
pub fn segment_file_name(base_offset: i64) -> String {
    format!("{base_offset:020}.log")
}

/// The base offset in a segment's name.
pub(crate) fn segment_of_file_name(name: &str) -> Option<i64> {
    let digits = name.strip_suffix(".log")?;
    if digits.len() == 20 { digits.parse().ok() } else { None }
}

/// One thing for the writer to do.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    VoterState(VoterState),
    /// Cut `segment` at `position` and remove later segments; the log then ends at `end_offset`.
    Truncate {
        segment: i64,
        position: u64,
        end_offset: i64,
        removed: Vec<i64>,
    },
    /// Write batches one after another; the log then ends at `end_offset`.
    Append {
        segment: i64,
        position: u64,
        batches: Vec<Bytes>,
        end_offset: i64,
    },
    WriteSnapshot {
        meta: SnapshotMeta,
        records: Vec<Bytes>,
    },
    LoadSnapshot(SnapshotId),
    /// Another voter's snapshot replaces the log.
    InstallSnapshot {
        id: SnapshotId,
        file: Bytes,
        segments: Vec<i64>,
        snapshots: Vec<SnapshotId>,
    },
    Delete {
        segments: Vec<i64>,
        snapshots: Vec<SnapshotId>,
    },
}

/// Work for [`LogWriter::run`], in order.
#[derive(Debug, Clone)]
pub struct PersistJob {
    pub(crate) ops: Vec<Op>,
}

/// What a job that is done brings back.
#[derive(Debug, Default)]
pub struct JobDone {
    pub(crate) loaded: Option<(SnapshotId, Bytes)>,
}

/// `recovery-point`: offset i64, CRC-32C of it.
pub(crate) fn read_recovery_point(fs: &dyn LogFs, dir: &Path) -> Result<Option<i64>, QuorumError> {
    match fs.read(&dir.join(RECOVERY_POINT_FILE)) {
        Ok(bytes) => Ok(bytes.split_first_chunk::<8>().and_then(|(offset, crc)| {
            (crc == crc32c::crc32c(offset).to_be_bytes()).then_some(i64::from_be_bytes(*offset))
        })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(QuorumError::storage("reading the recovery point")(error)),
    }
}

/// The writer. One a directory.
#[derive(Debug)]
pub struct LogWriter {
    fs: Arc<dyn LogFs>,
    dir: PathBuf,
    voters: Vec<i32>,
    active: Option<(i64, Arc<dyn LogFile>)>,
    unsynced: bool,
    names_unsynced: bool,
    recovery_file: Arc<dyn LogFile>,
    recovery_point: i64,
    jobs_since_sync: u32,
    failed: Option<String>,
}

impl LogWriter {
    /// A writer over a recovered directory whose log ends at `end_offset` and was synced up to `known`.
    pub(crate) fn new(
        fs: Arc<dyn LogFs>,
        dir: &Path,
        voters: Vec<i32>,
        end_offset: i64,
        known: Option<i64>,
        last_segment: Option<i64>,
    ) -> Result<Self, QuorumError> {
        let recovery_file = fs
            .open(&dir.join(RECOVERY_POINT_FILE), OpenMode::Create)
            .map_err(QuorumError::storage("opening the recovery point"))?;
        let mut writer = Self {
            fs,
            dir: dir.to_path_buf(),
            voters,
            active: None,
            unsynced: false,
            names_unsynced: false,
            recovery_file,
            recovery_point: known.unwrap_or(-1),
            jobs_since_sync: 0,
            failed: None,
        };
        if known != Some(end_offset) {
            // a process that died may have left the tail in the page cache only; from now on it counts as persisted
            if let Some(segment) = last_segment {
                writer.open(segment, false)?;
                writer.unsynced = true;
            }
            writer.names_unsynced = true;
            writer.sync()?;
            writer.set_recovery_point(end_offset, true)?;
        }
        Ok(writer)
    }

    /// SLOW. Carries out a job; everything in it is durable when this returns. Nothing else may run meanwhile.
    ///
    /// # Errors
    /// `NoSpace`: run the same job again later. `Storage`: reopen the quorum. `Failed`: an earlier job did.
    pub fn run(&mut self, job: &PersistJob) -> Result<JobDone, QuorumError> {
        if let Some(reason) = &self.failed {
            return Err(QuorumError::Failed { reason: reason.clone() });
        }
        let result = self.run_ops(job);
        if let Err(error) = &result
            && !error.is_no_space()
        {
            self.failed = Some(error.to_string());
        }
        result
    }

    fn run_ops(&mut self, job: &PersistJob) -> Result<JobDone, QuorumError> {
        let mut done = JobDone::default();
        let mut end_offset = None;
        for op in &job.ops {
            match op {
                Op::VoterState(state) => state.write(&*self.fs, &self.dir, &self.voters)?,
                Op::Truncate {
                    segment,
                    position,
                    end_offset: end,
                    removed,
                } => {
                    self.truncate(*segment, *position, *end, removed)?;
                    end_offset = Some(*end);
                }
                Op::Append {
                    segment,
                    position,
                    batches,
                    end_offset: end,
                } => {
                    self.append(*segment, *position, batches)?;
                    end_offset = Some(*end);
                }
                Op::WriteSnapshot { meta, records } => {
                    // whoever finds this snapshot and a log that ends before it shall know that the log was cut short
                    self.sync()?;
                    self.set_recovery_point(self.recovery_point.max(meta.id.end_offset), true)?;
                    let bytes = snapshot::encode(meta, records);
                    snapshot::write(&*self.fs, &self.dir, meta.id, &bytes)?;
                }
                Op::LoadSnapshot(id) => {
                    let bytes = self
                        .fs
                        .read(&self.dir.join(id.file_name()))
                        .map_err(QuorumError::storage("reading a snapshot"))?;
                    done.loaded = Some((*id, Bytes::from(bytes)));
                }
                Op::InstallSnapshot {
                    id,
                    file,
                    segments,
                    snapshots,
                } => {
                    // the log is given up: from here on it need not fit the newest snapshot, nor be there
                    self.set_recovery_point(0, true)?;
                    snapshot::write(&*self.fs, &self.dir, *id, file)?;
                    self.delete(segments, snapshots)?;
                    self.sync()?;
                    end_offset = Some(id.end_offset);
                }
                Op::Delete { segments, snapshots } => self.delete(segments, snapshots)?,
            }
        }
        self.sync()?;
        if let Some(end_offset) = end_offset {
            self.jobs_since_sync += 1;
            let durable = self.jobs_since_sync >= JOBS_PER_RECOVERY_POINT_SYNC;
            self.set_recovery_point(end_offset, durable)?;
        }
        Ok(done)
    }

    fn open(&mut self, segment: i64, create: bool) -> Result<Arc<dyn LogFile>, QuorumError> {
        if let Some((open, file)) = &self.active
            && *open == segment
        {
            return Ok(Arc::clone(file));
        }
        // a later segment must never be durable while an earlier one is not: recovery takes a bad batch in any but the
        // last segment for damage
        self.sync()?;
        let mode = if create { OpenMode::Create } else { OpenMode::ReadWrite };
        let file = self
            .fs
            .open(&self.dir.join(segment_file_name(segment)), mode)
            .map_err(QuorumError::storage("opening a segment"))?;
        self.names_unsynced |= create;
        self.active = Some((segment, Arc::clone(&file)));
        Ok(file)
    }

    fn append(&mut self, segment: i64, position: u64, batches: &[Bytes]) -> Result<(), QuorumError> {
        let file = self.open(segment, position == 0)?;
        self.unsynced = true;
        let mut at = position;
        for group in batches.chunks(BUFFERS_PER_WRITE) {
            let buffers: Vec<IoSlice<'_>> = group.iter().map(|batch| IoSlice::new(batch)).collect();
            if let Err(error) = file.write_all_at(&buffers, at) {
                let error = QuorumError::storage("writing the log")(error);
                if error.is_no_space() {
                    // the part that was written is taken back, so that other logs may use the room
                    file.truncate(position)
                        .map_err(QuorumError::storage("cutting off a partial write"))?;
                }
                return Err(error);
            }
            at += group.iter().map(|batch| batch.len() as u64).sum::<u64>();
        }
        Ok(())
    }

    fn truncate(&mut self, segment: i64, position: u64, end: i64, removed: &[i64]) -> Result<(), QuorumError> {
        if end < self.recovery_point {
            self.set_recovery_point(end, true)?;
        }
        // from the end backwards, so that a crash leaves no gap
        for segment in removed.iter().copied() {
            self.remove(&segment_file_name(segment))?;
            if self.active.as_ref().is_some_and(|(open, _)| *open == segment) {
                self.active = None;
                self.unsynced = false;
            }
        }
        if !removed.is_empty() {
            self.fs
                .sync_dir(&self.dir)
                .map_err(QuorumError::storage("syncing the directory"))?;
        }
        let file = self.open(segment, false)?;
        file.truncate(position)
            .map_err(QuorumError::storage("truncating the log"))?;
        // before anything is written behind it: new bytes followed by old ones would look like damage
        self.unsynced = true;
        self.sync()
    }

    fn delete(&mut self, segments: &[i64], snapshots: &[SnapshotId]) -> Result<(), QuorumError> {
        for segment in segments.iter().copied() {
            if self.active.as_ref().is_some_and(|(open, _)| *open == segment) {
                self.active = None;
                self.unsynced = false;
            }
            self.remove(&segment_file_name(segment))?;
        }
        for id in snapshots {
            self.remove(&id.file_name())?;
        }
        self.names_unsynced = true;
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), QuorumError> {
        match self.fs.remove_file(&self.dir.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(QuorumError::storage("removing a file of the log")(error))
            }
            _ => Ok(()),
        }
    }

    fn sync(&mut self) -> Result<(), QuorumError> {
        // ENOSPC from a sync is a lost write like any other error of a sync: never to be tried again
        let lost = |doing| move |source| QuorumError::Storage { doing, source };
        if let (true, Some((_, file))) = (self.unsynced, &self.active) {
            file.sync_data().map_err(lost("syncing the log"))?;
        }
        self.unsynced = false;
        if self.names_unsynced {
            self.fs.sync_dir(&self.dir).map_err(lost("syncing the directory"))?;
            self.names_unsynced = false;
        }
        Ok(())
    }

    fn set_recovery_point(&mut self, offset: i64, durable: bool) -> Result<(), QuorumError> {
        let doing = "writing the recovery point";
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[..8]);
        bytes[8..].copy_from_slice(&crc.to_be_bytes());
        self.recovery_file
            .write_all_at(&[IoSlice::new(&bytes)], 0)
            .map_err(QuorumError::storage(doing))?;
        self.recovery_point = offset;
        if durable {
            self.recovery_file
                .sync_data()
                .map_err(|source| QuorumError::Storage { doing, source })?;
            self.jobs_since_sync = 0;
        }
        Ok(())
    }

    /// SLOW. Makes the recovery point durable: after a clean stop nothing that is bad can be taken for a torn tail.
    ///
    /// # Errors
    /// `Storage`, or `Failed` if an earlier job failed.
    pub fn close(&mut self) -> Result<(), QuorumError> {
        if let Some(reason) = &self.failed {
            return Err(QuorumError::Failed { reason: reason.clone() });
        }
        self.sync()?;
        self.set_recovery_point(self.recovery_point, true)
    }
}
