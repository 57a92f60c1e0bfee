//! The background worker of a log directory: what has time is done beside the writer.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Batch, Chore, WriteQueue, failure, is_no_space};
use crate::storage::ballast;
use crate::storage::cache::lock;
use crate::storage::epoch_cache;
use crate::storage::fs::OpenMode;
use crate::storage::index::IndexEntry;
use crate::storage::offset_index::OffsetEntry;
use crate::storage::relief::is_out_of_files;
use crate::storage::segment::Segment;
use crate::storage::time_index::TimeEntry;
use crate::storage::txn_index::AbortedTxnRow;

/// How long a chore waits that found no file descriptor.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct Chores {
    pub queued: VecDeque<Chore>,
    pub stopping: bool,
}
impl WriteQueue {
    /// Queue something that has time.
    pub fn chore(&self, chore: Chore) {
        lock(&self.chores).queued.push_back(chore);
        self.chores_changed.notify_all();
    }

    /// Carry out one chore; `false` if there was none, or if it must be tried again later.
    pub fn step_chore(&self) -> bool {
        let Some(chore) = lock(&self.chores).queued.pop_front() else {
            return false;
        };
        self.run_chore(chore)
    }

    /// The background thread: until `stop`, and then whatever is left.
    pub fn run_chores_until_stopped(&self) {
        loop {
            let mut chores = lock(&self.chores);
            let is_done = match chores.queued.pop_front() {
                Some(chore) => {
                    drop(chores);
                    let is_done = self.run_chore(chore);
                    chores = lock(&self.chores);
                    is_done
                }
                None if chores.stopping => return,
                None => {
                    drop(self.chores_changed.wait(chores).unwrap_or_else(PoisonError::into_inner));
                    continue;
                }
            };
            if !is_done {
                if chores.stopping {
                    return;
                }
                drop(
                    self.chores_changed
                        .wait_timeout(chores, RETRY_INTERVAL)
                        .unwrap_or_else(PoisonError::into_inner),
                );
            }
        }
    }

    /// `false`: there was no file descriptor left, and the chore is queued again.
    fn run_chore(&self, chore: Chore) -> bool {
        match chore {
            Chore::SyncSegment {
                log,
                segment,
                next_offset,
            } => {
                let generation = log.generation.load(Ordering::Relaxed);
                match self.sync_segment(&segment) {
                    Ok(()) => log.on_roll_synced(&segment, next_offset),
                    // The whole partition was removed: nothing is left to be lost.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => log.on_roll_synced(&segment, next_offset),
                    Err(error) if is_out_of_files(&error) => {
                        self.chore(Chore::SyncSegment {
                            log,
                            segment,
                            next_offset,
                        });
                        return false;
                    }
                    Err(error) => {
                        // Whoever reopens the log queues it again.
                        log.cell.rolls_outstanding.fetch_sub(1, Ordering::AcqRel);
                        let mut batch = Batch::default();
                        lock(&log.state).failed = Some(generation);
                        batch.completions.push(failure(&log, generation, false, &error));
                        self.post(&mut batch);
                    }
                }
            }
            Chore::RemoveFiles(paths) => paths.iter().for_each(|path| self.remove(path)),
            Chore::RemoveDir(path) => match self.files.fs.remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.complain(&format!("{} was not removed: {error}", path.display()));
                }
                _ => {}
            },
            Chore::TakeBallast => {
                let taken = ballast::take(&*self.files.fs, &self.dir, self.reserved_bytes);
                if let Err(error) = &taken
                    && !is_no_space(error)
                {
                    self.complain(&format!("no space is kept back in {}: {error}", self.dir.display()));
                }
                self.lacks_ballast.store(!taken.unwrap_or(false), Ordering::Relaxed);
            }
        }
        true
    }

    /// Log and what stands beside it: below the recovery point nothing is scanned.
    fn sync_segment(&self, segment: &Arc<Segment>) -> io::Result<()> {
        match segment.file(&self.files, false) {
            Ok(file) => file.sync_data()?,
            // Removed meanwhile by retention: that it is gone has to last.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.sync_indexes(segment)
    }

    /// What a start takes from files without looking at the records below the recovery point: indexes, which have no
    /// checksum, the producers before the segment, the leader epochs up to its end.
    pub(super) fn sync_indexes(&self, segment: &Segment) -> io::Result<()> {
        let dir = segment.dir();
        let beside = [
            OffsetEntry::SUFFIX,
            TimeEntry::SUFFIX,
            AbortedTxnRow::SUFFIX,
            "snapshot",
        ]
        .map(|suffix| segment.path(suffix));
        for path in beside.into_iter().chain([dir.join(epoch_cache::FILE_NAME)]) {
            match self.files.fs.open(&path, OpenMode::ReadWrite) {
                Ok(file) => file.sync_data()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.files.fs.sync_dir(dir)?;
        self.files.fs.sync_dir(&self.dir)
    }
}
