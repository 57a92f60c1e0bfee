//! One log directory: its identity and lock, its file system, its write queue with the writer thread, its checkpoints.
//!
//! Appends arrive as jobs and leave as completions. Nobody but the writer writes to the logs of a directory, so a stalled or
//! failing disk holds up its own partitions and nothing else. In simulations there is no thread: the caller steps the writer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::storage::fs::LogFs;
use crate::types::TopicPartition;

/// The name under which a partition's completions come back; chosen by whoever opens the partition, unique in a process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PartitionId(pub u64);

/// What became of write jobs; to be handed to `Partition::on_completion` of the partition named.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Whose jobs.
    pub partition: PartitionId,
    /// What became of them.
    pub outcome: Outcome,
}

/// What became of write jobs.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// Everything below the offset is in the file (readable by all, survives the process).
    Written {
        /// The offset after the last record written.
        next_offset: i64,
        /// Which life of the log's tail this belongs to (it ends with each failure).
        generation: u32,
    },
    /// Everything below the offset survives a power failure.
    Synced {
        /// The offset after the last record synced.
        next_offset: i64,
        /// Which life of the log's tail this belongs to.
        generation: u32,
    },
    /// A write or sync failed. Jobs of this generation that were not reported written are gone.
    Failed {
        /// Which life of the log's tail ended.
        generation: u32,
        /// No room: the log goes on where its last complete write ended. Otherwise it goes offline.
        no_space: bool,
        /// The system's word.
        reason: String,
    },
}

/// What `meta.properties` says (version 1, as Kafka writes it since 3.7).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogDirMeta {
    /// `cluster.id`.
    pub cluster_id: String,
    /// `node.id`.
    pub node_id: i32,
    /// `directory.id`: a uuid in Kafka's base64 form.
    pub directory_id: String,
}

/// How to open a log directory.
#[derive(Clone)]
pub struct LogDirOptions {
    /// The file system.
    pub fs: Arc<dyn LogFs>,
    /// The directory; created if absent.
    pub path: PathBuf,
    /// Written to a fresh directory, compared with an existing one (`directory_id` is only for a fresh one).
    pub meta: LogDirMeta,
    /// Called from the writer thread, once per batch of completions; must be quick and must not call back.
    pub waker: Arc<dyn Fn() + Send + Sync>,
    /// Run the writer and the background worker on threads of their own. Without: `step_writer`, `step_background`.
    pub threads: bool,
    /// File descriptors that closed segments may hold open between reads.
    pub open_files_max: usize,
    /// Bytes of indexes of closed segments kept in memory.
    pub index_cache_bytes: usize,
    /// Ordinary appends are refused while less than this is free, so that deletes, commits and checkpoints still work.
    pub reserved_bytes: u64,
}

/// A log directory, locked against other processes while this lives.
#[derive(Debug)]
pub struct LogDir {
    path: PathBuf,
    meta: LogDirMeta,
}

impl LogDir {
    /// What `meta.properties` of a directory says; `None` if it was never formatted. SLOW.
    pub fn read_meta(fs: &dyn LogFs, path: &Path) -> Result<Option<LogDirMeta>> {
        let _ = (fs, path);
        unimplemented!("lands next")
    }

    /// Lock and open a directory, writing `meta.properties` if there is none. Reads checkpoints and the clean-shutdown
    /// marker; no partition is opened yet. SLOW.
    ///
    /// # Errors
    /// `DirectoryLocked`, `DirectoryMismatch`, `MalformedFile` (meta.properties only), `Storage`.
    pub fn open(options: LogDirOptions) -> Result<Arc<Self>> {
        let _ = &options.path;
        unimplemented!("lands next")
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose the directory is.
    pub fn meta(&self) -> &LogDirMeta {
        &self.meta
    }

    /// Partitions found in the directory when it was opened, in order of name.
    pub fn partitions(&self) -> Vec<TopicPartition> {
        unimplemented!("lands next")
    }

    /// Whether the last stop was clean (nothing needs a scan).
    pub fn was_clean(&self) -> bool {
        unimplemented!("lands next")
    }

    /// Completions since the last call, in order; at most one of a kind per partition and batch. QUICK.
    pub fn drain_completions(&self) -> Vec<Completion> {
        unimplemented!("lands next")
    }

    /// Bytes of appends taken and not yet written: what back-pressure looks at. QUICK.
    pub fn tail_bytes(&self) -> u64 {
        unimplemented!("lands next")
    }

    /// Without threads: carry out what is queued; `false` if nothing was.
    pub fn step_writer(&self) -> bool {
        unimplemented!("lands next")
    }

    /// Without threads: carry out one background job (sync of a rolled segment, removal of files); `false` if none was due.
    pub fn step_background(&self, now_ms: i64) -> bool {
        let _ = now_ms;
        unimplemented!("lands next")
    }

    /// Whether the directory refuses ordinary appends for want of space. QUICK.
    pub fn is_full(&self) -> bool {
        unimplemented!("lands next")
    }

    /// Write the recovery-point, log-start-offset and replication-offset checkpoints. SLOW; call every few seconds.
    ///
    /// # Errors
    /// `Storage`; the old checkpoints stay.
    pub fn write_checkpoints(&self) -> Result<()> {
        unimplemented!("lands next")
    }

    /// After every partition was closed: write checkpoints and the clean-shutdown marker, stop the threads, unlock. SLOW.
    pub fn close(&self) -> Result<()> {
        unimplemented!("lands next")
    }
}
