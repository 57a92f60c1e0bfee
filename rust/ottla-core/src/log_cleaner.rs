//! The cleaner of a log directory: chooses the filthiest compacted log, cleans it in bounded steps, and remembers in
//! `cleaner-offset-checkpoint` how far each log is clean (Kafka: `LogCleaner`, `LogCleanerManager`).
//!
//! For one worker thread. It never waits or sleeps: each step says how many bytes it moved, and the caller paces it
//! (`log.cleaner.io.max.bytes.per.second`) and comes back after `log.cleaner.backoff.ms` when there was nothing to do.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::partition::{CleanCandidate, Partition};
use crate::storage::checkpoint::{self, OffsetCheckpoint};
use crate::storage::cleaner::{CleanJob, JobStep};
use crate::storage::log_dir::LogDir;
use crate::types::{TopicId, TopicPartition};

pub use crate::storage::cleaner::CleanStats;

/// Kafka's default of `log.cleaner.dedupe.buffer.size`, in bytes. Memory is taken as keys come.
pub const DEDUPE_BUFFER_BYTES: usize = 128 << 20;

/// What came of a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CleanProgress {
    /// No log is being cleaned: `pick` one.
    Idle,
    /// There is more to do.
    Working {
        /// Bytes read and written in this step.
        moved_bytes: u64,
    },
    /// The log is clean up to an offset, and that is noted.
    Finished {
        /// Which log.
        topic_partition: TopicPartition,
        /// What the round did.
        stats: CleanStats,
        /// Bytes read and written in this step.
        moved_bytes: u64,
    },
    /// The log changed under the cleaner (it was truncated or deleted); it is as it would be without the cleaner.
    Abandoned {
        /// Which log.
        topic_partition: TopicPartition,
    },
}

/// See the module.
#[derive(Debug)]
pub struct LogCleaner {
    dir: Arc<LogDir>,
    dedupe_buffer_bytes: usize,
    /// Below its offset, each log is clean.
    clean_offsets: OffsetCheckpoint,
    /// To notice a topic that was deleted and made again under its name.
    topic_ids: BTreeMap<TopicPartition, TopicId>,
    /// Logs that cannot be cleaned, and why. They are left alone until the next start.
    uncleanable: BTreeMap<TopicPartition, String>,
    current: Option<(Arc<Partition>, CleanJob)>,
}

impl LogCleaner {
    /// The cleaner of `dir`, remembering keys in about `dedupe_buffer_bytes` of memory. A checkpoint that is missing or
    /// malformed counts as empty: all is dirty then. SLOW.
    pub fn open(dir: &Arc<LogDir>, dedupe_buffer_bytes: usize) -> Self {
        let content = dir
            .files
            .fs
            .read(&dir.path().join(checkpoint::CLEANER_OFFSET))
            .unwrap_or_default();
        Self {
            dir: Arc::clone(dir),
            dedupe_buffer_bytes,
            clean_offsets: checkpoint::decode_offsets(&String::from_utf8_lossy(&content)).unwrap_or_default(),
            topic_ids: BTreeMap::new(),
            uncleanable: BTreeMap::new(),
            current: None,
        }
    }

    /// Choose which of the directory's partitions to clean: of those that are due, the one of which the largest part is
    /// dirty. `None`: none is due, or a round is under way. SLOW.
    ///
    /// # Errors
    /// `Storage`. A partition that is offline or closed is passed over.
    pub fn pick(&mut self, partitions: &[Arc<Partition>], wall_ms: i64) -> Result<Option<TopicPartition>> {
        if self.current.is_some() {
            return Ok(None);
        }
        self.clean_offsets
            .retain(|topic_partition, _| self.dir.contains(topic_partition));
        let mut best: Option<(CleanCandidate, &Arc<Partition>)> = None;
        for partition in partitions {
            let topic_partition = partition.topic_partition();
            if self.uncleanable.contains_key(topic_partition) {
                continue;
            }
            if self
                .topic_ids
                .insert(topic_partition.clone(), partition.topic_id())
                .is_some_and(|id| id != partition.topic_id())
            {
                self.clean_offsets.remove(topic_partition);
            }
            let candidate = match partition.assess_cleaning(self.clean_offsets.get(topic_partition).copied(), wall_ms) {
                Ok(candidate) => candidate.filter(|candidate| candidate.is_due),
                Err(Error::LogOffline { .. } | Error::LogClosed { .. }) => None,
                Err(error) => return Err(error),
            };
            if let Some(candidate) = candidate
                && best
                    .as_ref()
                    .is_none_or(|(best, _)| candidate.dirty_ratio > best.dirty_ratio)
            {
                best = Some((candidate, partition));
            }
        }
        let Some((candidate, partition)) = best else {
            return Ok(None);
        };
        let plan = partition.plan_cleaning(&candidate, wall_ms)?;
        self.current = Some((Arc::clone(partition), CleanJob::new(plan, self.dedupe_buffer_bytes)));
        Ok(Some(partition.topic_partition().clone()))
    }

    /// Go on with the round under way: about `budget_bytes` of reading and writing (a batch more; the sync of a finished
    /// segment comes on top). SLOW.
    ///
    /// # Errors
    /// `Storage`: the round is given up, to be begun again; the log is as it was. `Damaged`: the log is left alone from
    /// now on, see `uncleanable`.
    pub fn step(&mut self, budget_bytes: u64) -> Result<CleanProgress> {
        let Some((partition, mut job)) = self.current.take() else {
            return Ok(CleanProgress::Idle);
        };
        let topic_partition = partition.topic_partition().clone();
        let files = &self.dir.files;
        let stepped = match job.step(files, budget_bytes) {
            Ok(JobStep::Swap(group)) => match partition.swap_in(group) {
                Ok(true) => Ok(JobStep::Working),
                Ok(false) => return Ok(CleanProgress::Abandoned { topic_partition }),
                Err(error) => Err(error),
            },
            stepped => stepped,
        };
        match stepped {
            Ok(JobStep::Finished { clean_offset }) => {
                self.clean_offsets.insert(topic_partition.clone(), clean_offset);
                self.write_checkpoint()?;
                let (stats, moved_bytes) = (job.stats(), job.moved_bytes());
                Ok(CleanProgress::Finished {
                    topic_partition,
                    stats,
                    moved_bytes,
                })
            }
            Ok(_) => {
                let moved_bytes = job.moved_bytes();
                self.current = Some((partition, job));
                Ok(CleanProgress::Working { moved_bytes })
            }
            Err(error) => {
                if let Error::Damaged { .. } = &error {
                    self.uncleanable.insert(topic_partition.clone(), error.to_string());
                }
                let abandoned = job.abandon(files);
                if partition.is_online() {
                    abandoned.map_err(Error::storage("removing what the cleaner left"))?;
                    Err(error)
                } else {
                    // Deleted under the cleaner, files and all.
                    Ok(CleanProgress::Abandoned { topic_partition })
                }
            }
        }
    }

    /// Give up the round under way, if any: the broker stops, or the topic is not to be cleaned any more. SLOW.
    ///
    /// # Errors
    /// `Storage`; what is left is removed at the next start.
    pub fn abandon(&mut self) -> Result<()> {
        match self.current.take() {
            Some((_, mut job)) => job
                .abandon(&self.dir.files)
                .map_err(Error::storage("removing what the cleaner left")),
            None => Ok(()),
        }
    }

    /// The partition was deleted: one made again under its name is not clean.
    pub fn forget(&mut self, topic_partition: &TopicPartition) {
        self.clean_offsets.remove(topic_partition);
        self.topic_ids.remove(topic_partition);
        self.uncleanable.remove(topic_partition);
    }

    /// Logs that are not cleaned any more because they are damaged, and why.
    pub fn uncleanable(&self) -> impl Iterator<Item = (&TopicPartition, &str)> {
        self.uncleanable
            .iter()
            .map(|(topic_partition, reason)| (topic_partition, reason.as_str()))
    }

    /// Up to where a log is clean.
    pub fn clean_offset(&self, topic_partition: &TopicPartition) -> Option<i64> {
        self.clean_offsets.get(topic_partition).copied()
    }

    fn write_checkpoint(&self) -> Result<()> {
        let text = checkpoint::encode_offsets(&self.clean_offsets);
        let path = self.dir.path().join(checkpoint::CLEANER_OFFSET);
        let written = self.dir.files.fs.replace(&path, text.as_bytes(), true);
        written.map_err(Error::storage("writing the cleaner's checkpoint"))
    }
}
