//! What the writer and the background worker are asked to do, and for whom.

use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;

use crate::storage::cache::lock;
use crate::storage::log_dir::{CheckpointCell, PartitionId};
use crate::storage::segment::Segment;

/// One life of a log, as its writer knows it. A log that is reopened gets a new one.
#[derive(Debug)]
pub(crate) struct LogIo {
    pub partition: PartitionId,
    /// May use the reserved space.
    pub critical: bool,
    pub generation: AtomicU32,
    pub cell: Arc<CheckpointCell>,
    pub(super) state: Mutex<IoState>,
}

#[derive(Debug, Default)]
pub(super) struct IoState {
    /// Jobs of this generation and of older ones are dropped.
    pub failed: Option<u32>,
    /// Segments written since the last sync.
    pub unsynced: Vec<Arc<Segment>>,
    /// A file was created since the last sync.
    pub new_names: bool,
    pub written_offset: i64,
}

impl LogIo {
    pub fn new(partition: PartitionId, critical: bool, generation: u32, cell: Arc<CheckpointCell>) -> Arc<Self> {
        Arc::new(Self {
            partition,
            critical,
            generation: AtomicU32::new(generation),
            cell,
            state: Mutex::default(),
        })
    }

    /// What earlier lives left in files and did not sync.
    pub fn adopt(&self, unsynced: Vec<Arc<Segment>>, written_offset: i64) {
        let mut state = lock(&self.state);
        state.new_names |= !unsynced.is_empty();
        state.unsynced = unsynced;
        state.written_offset = written_offset;
    }

    /// A rolled segment is durable up to its end, `next_offset`, and is written no more. Whoever kept it would keep its
    /// file open, and the room that it takes, long after retention has removed it.
    pub(super) fn on_roll_synced(&self, segment: &Segment, next_offset: i64) {
        // By name: a segment that was taken back once is here under two lives.
        let is_other = |known: &Arc<Segment>| known.base_offset() != segment.base_offset();
        lock(&self.state).unsynced.retain(is_other);
        self.cell.on_roll_synced(next_offset);
    }

    /// The newest generation that failed, if any.
    pub fn failed_generation(&self) -> Option<u32> {
        lock(&self.state).failed
    }
}

/// What the writer is to do.
#[derive(Debug)]
pub(crate) enum Work {
    /// Write records at a position; they end at `next_offset`.
    Append {
        segment: Arc<Segment>,
        position: u32,
        bytes: Bytes,
        next_offset: i64,
        sync: bool,
    },
    /// Write index entries at a position. `closing`: the segment's last ones.
    Index {
        segment: Arc<Segment>,
        suffix: &'static str,
        position: u64,
        bytes: Vec<u8>,
        closing: bool,
    },
    /// Give a small file new content. It can be made again, and tells by itself whether it is whole.
    Overwrite { path: PathBuf, content: Vec<u8> },
    /// Remove a small file.
    Remove { path: PathBuf },
    /// Take files out of the log by renaming them; they are removed in the background, which may take long.
    Retire(Vec<PathBuf>),
    /// A segment was rolled, and its last index entries are queued before this. If the recovery point stands at its end
    /// already, a start after a power failure would not look at it: then its indexes are synced before the next one exists.
    Settle(Arc<Segment>),
    /// Sync everything written so far.
    Sync,
    /// Tell that everything queued before is done.
    Barrier(Arc<Gate>),
}

#[derive(Debug)]
pub(crate) struct Job {
    pub log: Arc<LogIo>,
    pub generation: u32,
    pub work: Work,
}

/// What has time: it is done beside the writer.
#[derive(Debug)]
pub(crate) enum Chore {
    /// Make a rolled segment durable; the recovery point moves to `next_offset`.
    SyncSegment {
        log: Arc<LogIo>,
        segment: Arc<Segment>,
        next_offset: i64,
    },
    /// Remove files, in this order; those that are gone are fine.
    RemoveFiles(Vec<PathBuf>),
    /// Remove a directory and all below.
    RemoveDir(PathBuf),
    /// Keep space back for a start on a full disk.
    TakeBallast,
}

/// Opens once.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub fn open(&self) {
        *lock(&self.open) = true;
        self.opened.notify_all();
    }

    pub fn is_open(&self) -> bool {
        *lock(&self.open)
    }

    pub fn wait(&self) {
        let mut open = lock(&self.open);
        while !*open {
            open = self
                .opened
                .wait(open)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}

/// How many of the jobs, from the first on, are appends behind each other in one segment and generation.
pub(super) fn run_length(jobs: &[Job]) -> usize {
    let mut expected = None;
    jobs.iter()
        .take_while(|job| match &job.work {
            Work::Append {
                segment,
                position,
                bytes,
                ..
            } => {
                let here = (Arc::as_ptr(segment), *position, job.generation);
                let follows = expected.is_none_or(|expected| expected == here);
                expected = Some((here.0, position + bytes.len() as u32, here.2));
                follows
            }
            _ => false,
        })
        .count()
}
