//! The checkpoints of a log directory: recovery points, log start offsets, high watermarks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use super::LogDir;
use crate::error::{Error, Result};
use crate::storage::cache::lock;
use crate::storage::checkpoint::{self, OffsetCheckpoint};
use crate::storage::fs::LogFs;
use crate::storage::writer::WriteQueue;
use crate::types::TopicPartition;

/// What the directory's checkpoints say of one log.
#[derive(Debug)]
pub(crate) struct CheckpointCell {
    recovery_point: AtomicI64,
    pub log_start_offset: AtomicI64,
    pub high_watermark: AtomicI64,
    /// Rolled segments whose files are not known to be durable.
    pub rolls_outstanding: AtomicU32,
    /// The log end offset at which the log was closed in order; -1 while it is open.
    pub closed_at: AtomicI64,
}

impl Default for CheckpointCell {
    fn default() -> Self {
        Self {
            recovery_point: AtomicI64::new(0),
            log_start_offset: AtomicI64::new(0),
            high_watermark: AtomicI64::new(0),
            rolls_outstanding: AtomicU32::new(0),
            closed_at: AtomicI64::new(-1),
        }
    }
}

impl CheckpointCell {
    pub fn recovery_point(&self) -> i64 {
        self.recovery_point.load(Ordering::Acquire)
    }

    pub fn set_recovery_point(&self, offset: i64) {
        self.recovery_point.store(offset, Ordering::Release);
    }

    pub fn advance_recovery_point(&self, offset: i64) {
        self.recovery_point.fetch_max(offset, Ordering::AcqRel);
    }

    pub fn on_roll_synced(&self, next_offset: i64) {
        self.advance_recovery_point(next_offset);
        self.rolls_outstanding.fetch_sub(1, Ordering::AcqRel);
    }
}
impl LogDir {
    /// Write the recovery-point, log-start-offset and replication-offset checkpoints that changed. SLOW; call every few
    /// seconds.
    ///
    /// # Errors
    /// `Storage`; the old checkpoints stay.
    pub fn write_checkpoints(&self) -> Result<()> {
        let _replacing = lock(&self.replacing);
        self.write_changed()
    }

    /// Of the checkpoints, those that changed. The caller holds `replacing`.
    fn write_changed(&self) -> Result<()> {
        let (mut recovery_points, mut log_start_offsets, mut high_watermarks) = (
            OffsetCheckpoint::new(),
            OffsetCheckpoint::new(),
            OffsetCheckpoint::new(),
        );
        for (topic_partition, cell) in &lock(&self.state).cells {
            recovery_points.insert(topic_partition.clone(), cell.recovery_point());
            let log_start_offset = cell.log_start_offset.load(Ordering::Relaxed);
            if log_start_offset > 0 {
                log_start_offsets.insert(topic_partition.clone(), log_start_offset);
            }
            high_watermarks.insert(topic_partition.clone(), cell.high_watermark.load(Ordering::Relaxed));
        }
        for (name, rows) in [
            (checkpoint::RECOVERY_POINT, recovery_points),
            (checkpoint::LOG_START_OFFSET, log_start_offsets),
            (checkpoint::HIGH_WATERMARK, high_watermarks),
        ] {
            if lock(&self.state).checkpoints.get(name) != Some(&rows) {
                let text = checkpoint::encode_offsets(&rows);
                self.files
                    .fs
                    .replace(&self.path.join(name), text.as_bytes(), true)
                    .map_err(Error::storage("writing a checkpoint"))?;
                lock(&self.state).checkpoints.insert(name, rows);
            }
        }
        Ok(())
    }

    /// The checkpointed offsets of a log, shared with whoever moves them.
    pub(crate) fn cell(&self, topic_partition: &TopicPartition) -> Arc<CheckpointCell> {
        Arc::clone(lock(&self.state).cells.entry(topic_partition.clone()).or_default())
    }

    /// A partition is to be made anew: what the checkpoints on disk say of an earlier one of its name must not be taken
    /// for its own after a crash.
    pub(crate) fn forget_checkpoints(&self, topic_partition: &TopicPartition) -> Result<()> {
        let _replacing = lock(&self.replacing);
        let is_known = {
            let mut state = lock(&self.state);
            state.found.insert(topic_partition.clone());
            state.cells.remove(topic_partition);
            state
                .checkpoints
                .values()
                .any(|rows| rows.get(topic_partition).is_some_and(|offset| *offset > 0))
        };
        if is_known { self.write_changed() } else { Ok(()) }
    }
}

/// A checkpoint that is missing or malformed counts as empty: recovery then looks at more, and loses nothing.
pub(super) fn read_checkpoint(fs: &dyn LogFs, path: &Path, queue: &WriteQueue) -> OffsetCheckpoint {
    match fs.read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => OffsetCheckpoint::new(),
        Err(error) => {
            queue.complain(&format!("{} was not read: {error}", path.display()));
            OffsetCheckpoint::new()
        }
        Ok(content) => checkpoint::decode_offsets(&String::from_utf8_lossy(&content)).unwrap_or_else(|reason| {
            queue.complain(&format!(
                "{} is malformed and was passed over: {reason}",
                path.display()
            ));
            OffsetCheckpoint::new()
        }),
    }
}
