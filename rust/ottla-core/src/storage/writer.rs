//! The write queue of a log directory: jobs in, completions out, one writer.
//!
//! Jobs of one log are carried out in the order in which they were queued; many appends become one `pwritev` (and, where
//! asked, one sync). After a failure every queued job of that log's generation is dropped, so nothing is ever written behind
//! a hole; the log starts a new generation once it has taken the lost appends back.

mod chores;
mod job;

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::ballast::BALLAST_BYTES;
use super::cache::lock;
use super::fs::OpenMode;
use super::leftovers;
use super::log_dir::{Completion, Outcome};
use super::relief::is_out_of_files;
use super::segment::{Files, Segment, overwrite, remove_if_there};
use super::txn_index::AbortedTxnRow;
use crate::storage::index::IndexEntry;
use chores::Chores;
pub(crate) use job::{Chore, Gate, Job, LogIo, Work};
use job::{IoState, run_length};

/// How often a full disk is tried again.
const FULL_PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// Completions leave at the latest after this many bytes, however long the queue is.
const COMPLETION_INTERVAL_BYTES: usize = 1 << 20;
/// Bytes written to find out whether there is room again.
const PROBE_BYTES: usize = 64 << 10;
/// How much is written before the file system is asked again how much room there is: others write to it, too.
const ROOM_CHECK_INTERVAL_BYTES: u64 = 1 << 20;
/// Name of the file they are written to.
pub(crate) const PROBE_FILE: &str = ".room-probe";

#[derive(Debug, Default)]
struct Queue {
    jobs: Vec<Job>,
    sleeping: bool,
    /// More jobs are about to come: the writer is not woken for each.
    corked: bool,
    stopping: bool,
}

/// The queue, what comes out of it, and what the writer needs.
pub(crate) struct WriteQueue {
    pub files: Arc<Files>,
    dir: PathBuf,
    reserved_bytes: u64,
    /// What may be written before the room is looked at again.
    unchecked_bytes: AtomicU64,
    /// There was no room for the ballast.
    pub lacks_ballast: AtomicBool,
    waker: Arc<dyn Fn() + Send + Sync>,
    queue: Mutex<Queue>,
    queued: Condvar,
    chores: Mutex<Chores>,
    chores_changed: Condvar,
    completions: Mutex<Vec<Completion>>,
    tail_bytes: AtomicU64,
    full: AtomicBool,
    /// Errors of work whose failure changes nothing for readers and writers (a checkpoint, a removal).
    pub complaints: Mutex<Vec<String>>,
}

impl std::fmt::Debug for WriteQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteQueue")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// Whether the system says that there is no room (and not that the disk is broken).
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

impl WriteQueue {
    pub fn new(files: Arc<Files>, dir: PathBuf, reserved_bytes: u64, waker: Arc<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Arc::new(Self {
            files,
            dir,
            reserved_bytes,
            unchecked_bytes: AtomicU64::new(0),
            lacks_ballast: AtomicBool::new(false),
            waker,
            queue: Mutex::default(),
            queued: Condvar::new(),
            chores: Mutex::default(),
            chores_changed: Condvar::new(),
            completions: Mutex::default(),
            tail_bytes: AtomicU64::new(0),
            full: AtomicBool::new(false),
            complaints: Mutex::default(),
        })
    }

    /// Queue a job. The caller holds its partition's lock, so that jobs of a log keep their order.
    pub fn submit(&self, job: Job) {
        if let Work::Append { bytes, .. } = &job.work {
            self.tail_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        // Somebody waits for a barrier, perhaps whoever would uncork.
        let is_awaited = matches!(job.work, Work::Barrier(_));
        let mut queue = lock(&self.queue);
        queue.jobs.push(job);
        if is_awaited || !queue.corked {
            self.wake(queue);
        }
    }

    /// Let jobs come together before the writer is woken: it then takes many at a time. `uncork` must follow soon.
    pub fn cork(&self) {
        lock(&self.queue).corked = true;
    }

    /// Wake the writer if `cork` kept it asleep.
    pub fn uncork(&self) {
        let mut queue = lock(&self.queue);
        queue.corked = false;
        if !queue.jobs.is_empty() {
            self.wake(queue);
        }
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        if std::mem::take(&mut queue.sleeping) {
            drop(queue);
            self.queued.notify_one();
        }
    }

    /// Call the waker.
    pub fn wake_owner(&self) {
        (self.waker)();
    }

    pub fn tail_bytes(&self) -> u64 {
        self.tail_bytes.load(Ordering::Relaxed)
    }

    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub fn drain_completions(&self) -> Vec<Completion> {
        std::mem::take(&mut *lock(&self.completions))
    }

    /// Carry out what is queued; `false` if nothing was.
    pub fn step(&self) -> bool {
        if self.is_full() {
            self.probe();
        }
        let jobs = std::mem::take(&mut lock(&self.queue).jobs);
        let any = !jobs.is_empty();
        self.run(jobs);
        any
    }

    /// The writer thread: until `stop`, and then whatever is left.
    pub fn run_until_stopped(&self) {
        loop {
            let mut queue = lock(&self.queue);
            while queue.jobs.is_empty() {
                if queue.stopping {
                    return;
                }
                queue.sleeping = true;
                if self.is_full() {
                    let (woken, timeout) = self
                        .queued
                        .wait_timeout(queue, FULL_PROBE_INTERVAL)
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    queue = woken;
                    if timeout.timed_out() {
                        drop(queue);
                        self.probe();
                        queue = lock(&self.queue);
                    }
                } else {
                    queue = self
                        .queued
                        .wait(queue)
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                }
                queue.sleeping = false;
            }
            let jobs = std::mem::take(&mut queue.jobs);
            drop(queue);
            self.run(jobs);
        }
    }

    pub fn stop(&self) {
        lock(&self.queue).stopping = true;
        self.queued.notify_all();
        lock(&self.chores).stopping = true;
        self.chores_changed.notify_all();
    }

    fn run(&self, mut jobs: Vec<Job>) {
        if jobs.len() > 1 {
            // Stable: the order within a log stays, and its appends come together.
            jobs.sort_by_key(|job| job.log.partition);
        }
        let mut batch = Batch::default();
        let mut rest = &mut jobs[..];
        while let Some(first) = rest.first() {
            let log = Arc::clone(&first.log);
            let count = rest.iter().take_while(|job| Arc::ptr_eq(&job.log, &log)).count();
            let (of_log, others) = rest.split_at_mut(count);
            self.run_log(&log, of_log, &mut batch);
            rest = others;
        }
        self.post(&mut batch);
        for (log, generation) in std::mem::take(&mut batch.to_sync) {
            self.sync_log(&log, generation, &mut batch);
        }
        self.post(&mut batch);
        for gate in batch.gates {
            gate.open();
        }
    }

    fn run_log(&self, log: &Arc<LogIo>, jobs: &mut [Job], batch: &mut Batch) {
        let mut state = lock(&log.state);
        let mut number = 0;
        while number < jobs.len() {
            let generation = jobs[number].generation;
            let dropped = state.failed.is_some_and(|failed| generation <= failed);
            let result = match &jobs[number].work {
                Work::Barrier(gate) => {
                    batch.gates.push(Arc::clone(gate));
                    Ok(())
                }
                Work::Append { bytes, .. } if dropped => {
                    self.tail_bytes.fetch_sub(bytes.len() as u64, Ordering::Relaxed);
                    Ok(())
                }
                // Retiring files needs no room and follows nothing that failed.
                Work::Retire(paths) => {
                    self.retire(paths);
                    Ok(())
                }
                _ if dropped => Ok(()),
                Work::Append { .. } => {
                    let count = run_length(&jobs[number..]);
                    let appends = &jobs[number..number + count];
                    number += count - 1;
                    self.append(log, &mut state, appends, batch)
                }
                Work::Index {
                    segment,
                    suffix,
                    position,
                    bytes,
                    closing,
                } => self.write_index(segment, suffix, *position, bytes, *closing),
                Work::Overwrite { path, content } => {
                    if let Err(error) = overwrite(&*self.files.fs, path, content) {
                        self.complain(&format!("{} was not written: {error}", path.display()));
                    }
                    Ok(())
                }
                Work::Remove { path } => {
                    self.remove(path);
                    Ok(())
                }
                Work::Settle(segment) if log.cell.recovery_point() >= state.written_offset => {
                    self.sync_indexes(segment)
                }
                Work::Settle(_) => Ok(()),
                Work::Sync => {
                    batch.sync(log, generation);
                    Ok(())
                }
            };
            if let Err(error) = result {
                self.fail(log, &mut state, generation, &error, batch);
            }
            number += 1;
        }
    }

    /// Write appends that follow each other in one segment.
    fn append(&self, log: &Arc<LogIo>, state: &mut IoState, jobs: &[Job], batch: &mut Batch) -> io::Result<()> {
        let mut slices = Vec::with_capacity(jobs.len());
        let (mut start, mut written_offset, mut sync) = (None, 0, false);
        let (mut size_bytes, generation) = (0, jobs[0].generation);
        for job in jobs {
            if let Work::Append {
                segment,
                position,
                bytes,
                next_offset,
                sync: wanted,
            } = &job.work
            {
                start.get_or_insert((segment, *position));
                slices.push(IoSlice::new(bytes));
                size_bytes += bytes.len();
                written_offset = *next_offset;
                sync |= *wanted;
            }
        }
        self.tail_bytes.fetch_sub(size_bytes as u64, Ordering::Relaxed);
        let Some((segment, position)) = start else {
            return Ok(());
        };
        if !log.critical && !self.has_room(size_bytes as u64)? {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let file = segment.file(&self.files, position == 0)?;
        if let Err(error) = file.write_all_at(&slices, u64::from(position)) {
            if is_no_space(&error) {
                // Cut the partial append off. If even that fails the log must be recovered before it is written again.
                file.truncate(u64::from(position))?;
            }
            return Err(error);
        }
        if !state.unsynced.iter().any(|known| Arc::ptr_eq(known, segment)) {
            state.unsynced.push(Arc::clone(segment));
        }
        state.new_names |= position == 0;
        state.written_offset = written_offset;
        batch.completions.push(Completion {
            partition: log.partition,
            outcome: Outcome::Written {
                next_offset: written_offset,
                generation,
            },
        });
        if sync {
            batch.sync(log, generation);
        }
        batch.written_bytes += size_bytes;
        if batch.written_bytes > COMPLETION_INTERVAL_BYTES {
            self.post(batch);
        }
        Ok(())
    }

    /// Whether so many bytes may be written without touching what is kept back.
    fn has_room(&self, size_bytes: u64) -> io::Result<bool> {
        if self.reserved_bytes == 0 {
            return Ok(true);
        }
        let unchecked_bytes = self.unchecked_bytes.load(Ordering::Relaxed);
        if let Some(left_bytes) = unchecked_bytes.checked_sub(size_bytes) {
            self.unchecked_bytes.store(left_bytes, Ordering::Relaxed);
            return Ok(true);
        }
        let available_bytes = self.files.fs.available_bytes(&self.dir)?;
        let room_bytes = available_bytes.checked_sub(self.reserved_bytes);
        // The less room there is, the closer it is watched.
        let unchecked_bytes = room_bytes.map_or(0, |room| (room / 2).min(ROOM_CHECK_INTERVAL_BYTES));
        self.unchecked_bytes.store(unchecked_bytes, Ordering::Relaxed);
        if room_bytes.is_some_and(|room| room >= BALLAST_BYTES as u64)
            && self.lacks_ballast.swap(false, Ordering::Relaxed)
        {
            self.chore(Chore::TakeBallast);
        }
        Ok(room_bytes.is_some())
    }

    fn write_index(
        &self,
        segment: &Segment,
        suffix: &str,
        position: u64,
        bytes: &[u8],
        closing: bool,
    ) -> io::Result<()> {
        let path = segment.path(suffix);
        let write = || {
            let file = self.files.fs.open(&path, OpenMode::Create)?;
            file.write_all_at(&[IoSlice::new(bytes)], position)?;
            if closing {
                // A longer one of a life that ended may lie beneath.
                file.truncate(position + bytes.len() as u64)?;
            }
            Ok(())
        };
        let result: io::Result<()> = write();
        if closing && result.is_err() && suffix != AbortedTxnRow::SUFFIX {
            // Nobody would write it again; without it, it is rebuilt when it is first needed.
            remove_if_there(&*self.files.fs, &path)?;
        }
        result
    }

    fn sync_log(&self, log: &Arc<LogIo>, generation: u32, batch: &mut Batch) {
        let mut state = lock(&log.state);
        if state.failed.is_some_and(|failed| generation <= failed) {
            return;
        }
        let result = (|| {
            for segment in &state.unsynced {
                match segment.file(&self.files, false) {
                    Ok(file) => file.sync_data()?,
                    // Removed by retention: nothing is left to be lost.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            if let (true, Some(segment)) = (state.new_names, state.unsynced.last()) {
                if let Some(dir) = segment.path("log").parent() {
                    self.files.fs.sync_dir(dir)?;
                }
                self.files.fs.sync_dir(&self.dir)?;
            }
            Ok::<_, io::Error>(())
        })();
        match result {
            Ok(()) => {
                state.unsynced.clear();
                state.new_names = false;
                // Behind a rolled segment the recovery point waits until that one's indexes are durable too.
                if log.cell.rolls_outstanding.load(Ordering::Acquire) == 0 {
                    log.cell.advance_recovery_point(state.written_offset);
                }
                batch.completions.push(Completion {
                    partition: log.partition,
                    outcome: Outcome::Synced {
                        next_offset: state.written_offset,
                        generation,
                    },
                });
            }
            Err(error) => {
                // A failed sync says nothing about what is on the disk, and the next one would succeed without
                // having written it (fsync(2), "errors are reported once"): never repeated, always recovered from.
                state.failed = Some(generation);
                batch.completions.push(failure(log, generation, false, &error));
            }
        }
    }

    fn fail(&self, log: &Arc<LogIo>, state: &mut IoState, generation: u32, error: &io::Error, batch: &mut Batch) {
        if is_no_space(error) {
            if !self.full.swap(true, Ordering::Relaxed) {
                self.complain(&format!(
                    "{} is full: records are refused until there is room",
                    self.dir.display()
                ));
            }
        } else {
            self.complain(&format!("writing a log in {} failed: {error}", self.dir.display()));
        }
        // Without a descriptor nothing was written: that passes, like a full disk.
        let no_space = is_no_space(error) || is_out_of_files(error);
        state.failed = Some(generation);
        batch.completions.push(failure(log, generation, no_space, error));
    }

    fn post(&self, batch: &mut Batch) {
        batch.written_bytes = 0;
        if batch.completions.is_empty() {
            return;
        }
        let mut completions = lock(&self.completions);
        for completion in batch.completions.drain(..) {
            // The newest of a kind says it all.
            match completions.last_mut() {
                Some(last) if last.is_followed_by(&completion) => *last = completion,
                _ => completions.push(completion),
            }
        }
        drop(completions);
        (self.waker)();
    }

    /// Whether there is room again: by the file system's word, and by writing (a quota is not in its word).
    fn probe(&self) {
        let fs = &self.files.fs;
        let path = self.dir.join(PROBE_FILE);
        let has_room = (|| {
            if fs.available_bytes(&self.dir)? < self.reserved_bytes + PROBE_BYTES as u64 {
                return Ok(false);
            }
            let file = fs.open(&path, OpenMode::Create)?;
            let written = file.write_all_at(&[IoSlice::new(&vec![0xa5; PROBE_BYTES])], 0);
            fs.remove_file(&path)?;
            written.map(|()| true)
        })();
        let has_room: io::Result<bool> = has_room;
        if has_room.unwrap_or(false) {
            self.full.store(false, Ordering::Relaxed);
            self.complain(&format!("{} has room again", self.dir.display()));
        }
    }

    fn retire(&self, paths: &[PathBuf]) {
        let mut retired = Vec::new();
        for path in paths {
            let mut name = path.clone().into_os_string();
            name.push(leftovers::DELETED);
            match self.files.fs.rename(path, std::path::Path::new(&name)) {
                Ok(()) => retired.push(name.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.complain(&format!("{} was not removed: {error}", path.display())),
            }
        }
        self.chore(Chore::RemoveFiles(retired));
    }

    fn remove(&self, path: &std::path::Path) {
        match self.files.fs.remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.complain(&format!("{} was not removed: {error}", path.display()));
            }
            _ => {}
        }
    }

    pub fn complain(&self, complaint: &str) {
        let mut complaints = lock(&self.complaints);
        // Whoever drains them is slow: the first ones tell the story.
        if complaints.len() < 1000 {
            complaints.push(complaint.to_owned());
        }
    }
}

fn failure(log: &LogIo, generation: u32, no_space: bool, error: &io::Error) -> Completion {
    Completion {
        partition: log.partition,
        outcome: Outcome::Failed {
            generation,
            no_space,
            reason: error.to_string(),
        },
    }
}

#[derive(Default)]
struct Batch {
    completions: Vec<Completion>,
    to_sync: Vec<(Arc<LogIo>, u32)>,
    gates: Vec<Arc<Gate>>,
    written_bytes: usize,
}

impl Batch {
    fn sync(&mut self, log: &Arc<LogIo>, generation: u32) {
        match self.to_sync.last_mut() {
            Some(last) if Arc::ptr_eq(&last.0, log) => last.1 = generation,
            _ => self.to_sync.push((Arc::clone(log), generation)),
        }
    }
}
