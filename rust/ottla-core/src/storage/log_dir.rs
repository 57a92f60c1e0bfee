//! One log directory: its identity and lock, its file system, its write queue with the writer thread, its checkpoints.
//!
//! Appends arrive as jobs and leave as completions. Nobody but the writer writes to the logs of a directory, so a stalled or
//! failing disk holds up its own partitions and nothing else. In simulations there is no thread: the caller steps the writer.

mod checkpoints;
mod completion;
mod last_stop;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

pub(crate) use checkpoints::CheckpointCell;
use checkpoints::read_checkpoint;
pub use completion::{Completion, Outcome, PartitionId};
pub use last_stop::LastStop;
use last_stop::{BOOT_ID_FILE, CLEAN_SHUTDOWN_FILE, take_last_stop};

use super::ballast;
use super::cache::{Cache, lock};
use super::checkpoint::{self, OffsetCheckpoint};
use super::fs::LogFs;
use super::meta::{self, META_PROPERTIES};
use super::readers::Readers;
use super::relief::RelievedFs;
use super::segment::Files;
use super::writer::{Chore, Gate, Job, LogIo, PROBE_FILE, Work, WriteQueue};
use crate::error::{Error, Result};
use crate::types::TopicPartition;

pub use super::meta::LogDirMeta;

const LOCK_FILE: &str = ".lock";
/// Its directory belongs to the quorum, which recovers it by itself; no partition is ever opened there.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// As Kafka writes it; the broker epoch is not known here.
const CLEAN_SHUTDOWN: &[u8] = br#"{"version":0,"brokerEpoch":-1}"#;

/// How to open a log directory.
#[derive(Clone)]
pub struct LogDirOptions {
    /// The file system.
    pub fs: Arc<dyn LogFs>,
    /// The directory; created if absent.
    pub path: PathBuf,
    /// Written to a fresh directory, compared with an existing one (`directory_id` is only for a fresh one).
    pub meta: LogDirMeta,
    /// Called from the directory's threads, once per batch of completions; must be quick and must not call back.
    pub waker: Arc<dyn Fn() + Send + Sync>,
    /// Run the writer and the background worker on threads of their own. Without: `step_writer`, `step_background`.
    pub threads: bool,
    /// File descriptors that segments may hold open between uses.
    pub open_files_max: usize,
    /// Bytes of indexes of closed segments kept in memory.
    pub index_cache_bytes: usize,
    /// Ordinary appends are refused while less than this is free, so that deletes, commits and checkpoints still work.
    pub reserved_bytes: u64,
}

impl std::fmt::Debug for LogDirOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogDirOptions")
            .field("path", &self.path)
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

/// A log directory, locked against other processes while this lives.
#[derive(Debug)]
pub struct LogDir {
    path: PathBuf,
    meta: LogDirMeta,
    last_stop: LastStop,
    /// Partitions that no run in this boot could open.
    suspect: BTreeSet<TopicPartition>,
    /// Another program wrote to it last (Apache Kafka leaves no boot id).
    is_foreign: bool,
    pub(crate) files: Arc<Files>,
    pub(crate) queue: Arc<WriteQueue>,
    readers: Arc<Readers>,
    state: Mutex<DirState>,
    /// Held while small files of the directory are written anew, from when their content is decided: several threads ask
    /// for that, and what one found out earlier must not replace what another found out later.
    replacing: Mutex<()>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    has_threads: bool,
    lock: Mutex<Option<FileLock>>,
}

struct FileLock(#[allow(dead_code, reason = "held, not used")] Box<dyn Send + Sync>);

impl std::fmt::Debug for FileLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileLock")
    }
}

#[derive(Debug, Default)]
struct DirState {
    found: BTreeSet<TopicPartition>,
    /// Found and not opened yet; when none is left, the directory is known to be whole in this boot.
    unopened: BTreeSet<TopicPartition>,
    /// Found, and could not be opened in this boot: looked at in full by each start until they can.
    refused: BTreeSet<TopicPartition>,
    cells: BTreeMap<TopicPartition, Arc<CheckpointCell>>,
    checkpoints: BTreeMap<&'static str, OffsetCheckpoint>,
    removals: u64,
}

/// Take the exclusive lock of a directory.
fn take_lock(fs: &dyn LogFs, path: &Path) -> Result<Box<dyn Send + Sync>> {
    fs.lock(&path.join(LOCK_FILE)).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Error::DirectoryLocked {
            dir: path.display().to_string(),
        },
        _ => Error::Storage {
            doing: "locking the log directory",
            source: error,
        },
    })
}

/// See to the ballast, and say where it went if it was given away.
fn keep_space_back(queue: &WriteQueue, path: &Path, reserved_bytes: u64, is_relieved: bool) {
    if is_relieved {
        let (dir, file) = (path.display(), ballast::BALLAST_FILE);
        queue.complain(&format!(
            "{dir} is full: the space kept back in {file} is used for this start"
        ));
    }
    if reserved_bytes > 0 {
        queue.chore(Chore::TakeBallast);
    }
}

impl LogDir {
    /// What `meta.properties` of a directory says; `None` if it was never formatted. SLOW.
    pub fn read_meta(fs: &dyn LogFs, path: &Path) -> Result<Option<LogDirMeta>> {
        meta::read(fs, path)
    }

    /// Lock and open a directory, writing `meta.properties` if there is none. Reads checkpoints and the clean-shutdown
    /// marker; no partition is opened yet. SLOW.
    ///
    /// # Errors
    /// `DirectoryLocked`, `DirectoryMismatch`, `MalformedFile` (meta.properties only), `Storage`.
    pub fn open(options: &LogDirOptions) -> Result<Arc<Self>> {
        let LogDirOptions { fs, path, .. } = options;
        fs.create_dir_all(path)
            .map_err(Error::storage("creating the log directory"))?;
        let lock = take_lock(&**fs, path)?;
        let is_relieved = options.reserved_bytes > 0
            && ballast::release_if_full(&**fs, path).map_err(Error::storage("making room on a full disk"))?;
        let meta = match meta::read(&**fs, path)? {
            Some(found) if found.cluster_id != options.meta.cluster_id || found.node_id != options.meta.node_id => {
                return Err(Error::DirectoryMismatch {
                    dir: path.display().to_string(),
                    expected: options.meta.owner(),
                    found: found.owner(),
                });
            }
            Some(found) => found,
            None => {
                // A fresh directory's own name, and those of the directories above it, must outlive a power failure.
                for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
                    fs.sync_dir(above)
                        .map_err(Error::storage("syncing the directory above the log directory"))?;
                }
                fs.replace(&path.join(META_PROPERTIES), options.meta.encode().as_bytes(), true)
                    .map_err(Error::storage("writing meta.properties"))?;
                options.meta.clone()
            }
        };
        let open = Arc::new(Cache::new(options.open_files_max));
        let files = Arc::new(Files {
            fs: Arc::new(RelievedFs {
                fs: Arc::clone(fs),
                open: Arc::clone(&open),
            }),
            open,
            indexes: Cache::new(options.index_cache_bytes),
        });
        let queue = WriteQueue::new(
            Arc::clone(&files),
            path.clone(),
            options.reserved_bytes,
            Arc::clone(&options.waker),
        );
        keep_space_back(&queue, path, options.reserved_bytes, is_relieved);
        let is_foreign = fs.file_size_bytes(&path.join(BOOT_ID_FILE)).is_err();
        let (last_stop, suspect) = take_last_stop(&**fs, path)?;
        let mut state = DirState::default();
        for entry in fs.read_dir(path).map_err(Error::storage("listing the log directory"))? {
            if entry.is_dir && entry.name.ends_with(DELETED_SUFFIX) {
                queue.chore(Chore::RemoveDir(path.join(&entry.name)));
            } else if entry.is_dir
                && let Some(topic_partition) = parse_dir_name(&entry.name)
                && *topic_partition.topic != *METADATA_TOPIC
            {
                state.found.insert(topic_partition);
            } else if entry.name == PROBE_FILE {
                queue.chore(Chore::RemoveFiles(vec![path.join(PROBE_FILE)]));
            }
        }
        state.unopened.clone_from(&state.found);
        for name in [
            checkpoint::RECOVERY_POINT,
            checkpoint::LOG_START_OFFSET,
            checkpoint::HIGH_WATERMARK,
        ] {
            let rows = read_checkpoint(&**fs, &path.join(name), &queue);
            for (topic_partition, &offset) in &rows {
                let cell = state.cells.entry(topic_partition.clone()).or_default();
                match name {
                    checkpoint::RECOVERY_POINT => cell.set_recovery_point(offset),
                    checkpoint::LOG_START_OFFSET => cell.log_start_offset.store(offset, Ordering::Relaxed),
                    _ => cell.high_watermark.store(offset, Ordering::Relaxed),
                }
            }
            state.checkpoints.insert(name, rows);
        }
        state
            .cells
            .retain(|topic_partition, _| state.found.contains(topic_partition));
        let dir = Arc::new(Self {
            path: path.clone(),
            meta,
            last_stop,
            suspect,
            is_foreign,
            files,
            queue,
            readers: Readers::new(options.threads),
            state: Mutex::new(state),
            replacing: Mutex::default(),
            threads: Mutex::default(),
            has_threads: options.threads,
            lock: Mutex::new(Some(FileLock(lock))),
        });
        dir.note_whole()?;
        if options.threads {
            dir.start_threads()?;
        }
        Ok(dir)
    }

    fn start_threads(&self) -> Result<()> {
        let mut threads = lock(&self.threads);
        let writer = Arc::clone(&self.queue);
        let chores = Arc::clone(&self.queue);
        let started = Error::storage("starting a thread");
        let spawn =
            |name: &str, run: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name(name.to_owned()).spawn(run);
        let handles = spawn("log-writer", Box::new(move || writer.run_until_stopped())).and_then(|writer| {
            Ok([
                writer,
                spawn("log-chores", Box::new(move || chores.run_chores_until_stopped()))?,
            ])
        });
        threads.extend(handles.map_err(started)?);
        Ok(())
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
        lock(&self.state).found.iter().cloned().collect()
    }

    /// How the last run ended.
    pub fn last_stop(&self) -> LastStop {
        self.last_stop
    }

    /// Completions since the last call, in order. QUICK.
    pub fn drain_completions(&self) -> Vec<Completion> {
        self.queue.drain_completions()
    }

    /// Let appends come together before the writer is woken. `uncork` must follow soon. QUICK.
    pub fn cork(&self) {
        self.queue.cork();
    }

    /// Wake the writer if `cork` kept it asleep. QUICK.
    pub fn uncork(&self) {
        self.queue.uncork();
    }

    /// Bytes of appends taken and not yet written: what back-pressure looks at. QUICK.
    pub fn tail_bytes(&self) -> u64 {
        self.queue.tail_bytes()
    }

    /// Without threads: carry out what is queued; `false` if nothing was.
    pub fn step_writer(&self) -> bool {
        self.queue.step()
    }

    /// Without threads: carry out one background job (sync of a rolled segment, removal of files); `false` if none.
    pub fn step_background(&self) -> bool {
        self.queue.step_chore()
    }

    /// Have the owner look at what there is news of, as the directory's threads do. QUICK.
    pub(crate) fn wake(&self) {
        self.queue.wake_owner();
    }

    /// Who reads what has to be waited for.
    pub fn readers(&self) -> &Arc<Readers> {
        &self.readers
    }

    /// Whether the directory refuses ordinary appends for want of space. QUICK.
    pub fn is_full(&self) -> bool {
        self.queue.is_full()
    }

    /// Something for `drain_complaints`. QUICK.
    pub fn complain(&self, complaint: &str) {
        self.queue.complain(complaint);
    }

    /// What was found wrong since the last call and takes no log offline (a checkpoint that was not written, a file that was
    /// not removed, a batch that cannot be read), in words for the broker's log. QUICK.
    pub fn drain_complaints(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.queue.complaints))
    }

    /// After every partition was closed: sync, write checkpoints and the clean-shutdown marker, stop the threads, unlock.
    /// SLOW.
    ///
    /// # Errors
    /// `Storage`: the stop does not count as clean then. The directory is unlocked all the same.
    pub fn close(&self) -> Result<()> {
        self.readers.stop();
        self.queue.stop();
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                self.queue.complain("a thread of the log directory panicked");
            }
        }
        while self.queue.step() || self.queue.step_chore() {}
        let result = self.mark_clean();
        lock(&self.lock).take();
        result
    }

    fn mark_clean(&self) -> Result<()> {
        let fs = &self.files.fs;
        let all_closed = {
            let state = lock(&self.state);
            state.unopened.is_empty()
                && state
                    .cells
                    .values()
                    .all(|cell| cell.closed_at.load(Ordering::Acquire) >= 0)
        };
        if all_closed {
            fs.sync_all(&self.path)
                .map_err(Error::storage("syncing the log directory"))?;
            for cell in lock(&self.state).cells.values() {
                cell.advance_recovery_point(cell.closed_at.load(Ordering::Acquire));
            }
        }
        self.write_checkpoints()?;
        if all_closed {
            fs.replace(&self.path.join(CLEAN_SHUTDOWN_FILE), CLEAN_SHUTDOWN, true)
                .map_err(Error::storage("writing the clean-shutdown marker"))?;
        }
        Ok(())
    }

    /// Remove a partition that nobody wants any more (its topic was deleted while the broker was down). SLOW.
    ///
    /// # Errors
    /// `Storage`.
    pub fn discard(&self, topic_partition: &TopicPartition) -> Result<()> {
        if let Some(renamed) = self.move_away(topic_partition, DELETED_SUFFIX)? {
            self.queue.chore(Chore::RemoveDir(renamed));
        }
        self.note_opened(topic_partition)
    }

    /// Keep a partition that the metadata does not know, under a name that is nobody's; returns that. SLOW.
    ///
    /// # Errors
    /// `Storage`.
    pub fn set_aside(&self, topic_partition: &TopicPartition) -> Result<Option<PathBuf>> {
        let renamed = self.move_away(topic_partition, STRAY_SUFFIX)?;
        self.note_opened(topic_partition)?;
        Ok(renamed)
    }

    /// Forget a partition and rename its directory; None if that was never made.
    fn move_away(&self, topic_partition: &TopicPartition, suffix: &str) -> Result<Option<PathBuf>> {
        let number = {
            let mut state = lock(&self.state);
            state.cells.remove(topic_partition);
            state.found.remove(topic_partition);
            state.refused.remove(topic_partition);
            state.removals += 1;
            state.removals
        };
        let from = self.path.join(topic_partition.to_string());
        // Kafka appends 32 hex digits and cuts the name so that it fits a file name of 255 bytes.
        let mut name = topic_partition.to_string();
        name.truncate(255 - 32 - 1 - suffix.len());
        let mut number = u128::from(number);
        let to = loop {
            let to = self.path.join(format!("{name}.{number:032x}{suffix}"));
            match self.files.fs.read_dir(&to) {
                Err(_) => break to,
                Ok(_) => number += 1 << 64,
            }
        };
        match self.files.fs.rename(&from, &to) {
            Ok(()) => Ok(Some(to)),
            // Its directory is made with its first file.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Storage {
                doing: "renaming a partition's directory",
                source: error,
            }),
        }
    }

    /// Whether another program than this one wrote that partition, as far as the directory tells.
    pub(crate) fn is_foreign(&self, topic_partition: &TopicPartition) -> bool {
        let state = lock(&self.state);
        let has_row = |rows: &OffsetCheckpoint| rows.contains_key(topic_partition);
        self.is_foreign || !state.checkpoints.get(checkpoint::RECOVERY_POINT).is_some_and(has_row)
    }

    /// Whether the directory holds that partition: it did when it was opened, or something was left there since. QUICK.
    pub fn contains(&self, topic_partition: &TopicPartition) -> bool {
        lock(&self.state).found.contains(topic_partition)
    }

    /// Make the directory of a partition that no log directory holds; `false` if it stands there already, and is held
    /// from now on, as if it had been found at the start. SLOW.
    ///
    /// # Errors
    /// `Storage`: nothing was made. Also where this is the log directory no more: a disk that was unmounted leaves one
    /// behind that would take the partition, and hide it when the disk comes back.
    pub fn make_place(&self, topic_partition: &TopicPartition) -> Result<bool> {
        let fs = &self.files.fs;
        fs.file_size_bytes(&self.path.join(META_PROPERTIES))
            .map_err(Error::storage("looking for the log directory's meta.properties"))?;
        let path = self.path.join(topic_partition.to_string());
        match fs.read_dir(&path) {
            Ok(_) => {
                lock(&self.state).found.insert(topic_partition.clone());
                Ok(false)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fs.create_dir_all(&path)
                    .map_err(Error::storage("creating a partition's directory"))?;
                Ok(true)
            }
            Err(error) => Err(Error::storage("looking for a partition's directory")(error)),
        }
    }

    /// Take back what `make_place` made (not what stood there already) for a partition that could not be opened. Returns
    /// whether it is gone; what cannot be taken back stays held. SLOW.
    pub fn take_back(&self, topic_partition: &TopicPartition) -> bool {
        let path = self.path.join(topic_partition.to_string());
        let removed = self.files.fs.remove_dir_all(&path);
        let is_gone = removed.map_or_else(|error| error.kind() == std::io::ErrorKind::NotFound, |()| true);
        let mut state = lock(&self.state);
        if is_gone {
            state.found.remove(topic_partition);
            state.cells.remove(topic_partition);
        } else {
            state.found.insert(topic_partition.clone());
        }
        is_gone
    }

    /// Everything of this log that is queued is done when this returns (carried out here if there is no thread).
    pub(crate) fn wait_written(&self, log: &Arc<LogIo>) {
        let gate = Arc::new(Gate::default());
        self.queue.submit(Job {
            log: Arc::clone(log),
            generation: u32::MAX,
            work: Work::Barrier(Arc::clone(&gate)),
        });
        if self.has_threads && !lock(&self.threads).is_empty() {
            gate.wait();
        } else {
            while !gate.is_open() && self.queue.step() {}
        }
    }
}

impl Drop for LogDir {
    fn drop(&mut self) {
        self.readers.stop();
        self.queue.stop();
        for thread in lock(&self.threads).drain(..) {
            // A panic of the thread was already printed; there is nothing left to tell.
            let _ = thread.join();
        }
    }
}

const DELETED_SUFFIX: &str = "-delete";
/// Of directories that the metadata does not know (KIP-858).
const STRAY_SUFFIX: &str = "-stray";

/// `<topic>-<partition>`; directories under any other name are none of ours.
fn parse_dir_name(name: &str) -> Option<TopicPartition> {
    let (topic, partition) = name.rsplit_once('-')?;
    let well_formed = !topic.is_empty() && partition.bytes().all(|byte| byte.is_ascii_digit());
    let partition = partition.parse().ok().filter(|_| well_formed)?;
    Some(TopicPartition {
        topic: topic.into(),
        partition,
    })
}
