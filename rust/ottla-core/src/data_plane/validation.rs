//! Deep checks of produced batches (decompression, recompression) away from the event loop.
//!
//! A connection waits for its own check before anything behind it is decoded, so its records keep their order; other
//! connections go on meanwhile. Workers take one batch of one request at a time, in turn, so that a request of many
//! batches that expand without end delays nobody else's by more than one of them.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::BytesMut;

use super::SessionId;
use crate::compression::Codec;
use crate::record::batch::BatchHeader;
use crate::record::validate::{ProduceRejection, ValidateContext, ValidatedBatch, validate_produce};

/// Compressed payloads from this size on are checked by a worker: below, the hand-over costs more than the check.
const DEEP_PAYLOAD_BYTES_MIN: usize = 8 * 1024;
/// The same for the codecs that decompress at more than 1 GB/s.
const DEEP_FAST_PAYLOAD_BYTES_MIN: usize = 32 * 1024;

/// So far may a small payload expand on the event loop; the check of one that goes on is begun again by a worker.
const QUICK_EXPANSION_BYTES_MAX: usize = 128 * 1024;
/// Compressed batches of one request that are checked on the event loop at most.
const QUICK_COMPRESSED_MAX: usize = 8;
/// Bytes of records of one request that are checked on the event loop at most.
const QUICK_BYTES_MAX: usize = 2 * 1024 * 1024;

/// `MESSAGE_TOO_LARGE`.
const MESSAGE_TOO_LARGE: i16 = 10;
/// `UNKNOWN_SERVER_ERROR`.
const UNKNOWN_SERVER_ERROR: i16 = -1;

/// One batch to check.
#[derive(Debug)]
pub struct Check {
    /// The batch; None where the request had null.
    pub records: Option<BytesMut>,
    /// Rules and circumstances.
    pub context: ValidateContext,
}

/// What came of it.
pub type Checked = Result<ValidatedBatch, ProduceRejection>;

impl Check {
    /// Check the batch. Takes long for large compressed ones.
    pub fn run(self) -> Checked {
        let Self { records, context } = self;
        // A bug that foreign bytes can reach must cost one request, not the worker that all connections share.
        let check = AssertUnwindSafe(|| validate_produce(records.unwrap_or_default(), &context));
        catch_unwind(check).unwrap_or_else(|_| {
            Err(ProduceRejection {
                code: UNKNOWN_SERVER_ERROR,
                message: "the check of the records failed unexpectedly".to_owned(),
                record_errors: Vec::new(),
                is_of_request: false,
            })
        })
    }

    /// Check the batch on the event loop. Returns the check for a worker if the payload, small as it is, expands to
    /// more than the loop has time for.
    fn run_quickly(self) -> Result<Checked, Self> {
        let records = self.records.as_deref().unwrap_or_default();
        let is_compressed = BatchHeader::parse(records).is_ok_and(|header| header.codec() != Ok(Codec::None));
        if !is_compressed || self.context.expansion_limit_bytes <= QUICK_EXPANSION_BYTES_MAX {
            return Ok(self.run());
        }
        let quick = Self {
            records: self.records.clone(),
            context: ValidateContext {
                expansion_limit_bytes: QUICK_EXPANSION_BYTES_MAX,
                ..self.context
            },
        };
        match quick.run() {
            Err(rejection) if rejection.code == MESSAGE_TOO_LARGE => Err(self),
            checked => Ok(checked),
        }
    }

    /// Whether the batch says that it is part of a transaction.
    pub fn is_transactional(records: &[u8]) -> bool {
        BatchHeader::parse(records).is_ok_and(BatchHeader::is_transactional)
    }
}

/// What the checks of one request will cost, as far as that can be seen from outside.
#[derive(Debug, Default, Clone, Copy)]
pub struct Effort {
    is_deep: bool,
    compressed: usize,
    bytes: usize,
}

impl Effort {
    /// Add a batch. `recompresses` says whether a codec differs from the topic's.
    pub fn add(&mut self, records: &[u8], recompresses: impl Fn(Codec) -> bool) {
        self.bytes += records.len();
        let Ok(Ok(codec)) = BatchHeader::parse(records).map(BatchHeader::codec) else {
            return;
        };
        self.compressed += usize::from(codec != Codec::None);
        let bytes_min = match codec {
            _ if recompresses(codec) => DEEP_PAYLOAD_BYTES_MIN,
            Codec::None => return,
            Codec::Gzip | Codec::Zstd => DEEP_PAYLOAD_BYTES_MIN,
            Codec::Snappy | Codec::Lz4 => DEEP_FAST_PAYLOAD_BYTES_MIN,
        };
        self.is_deep |= records.len() >= bytes_min;
    }

    /// Whether the checks belong to a worker.
    pub fn is_deep(self) -> bool {
        self.is_deep || self.compressed > QUICK_COMPRESSED_MAX || self.bytes > QUICK_BYTES_MAX
    }
}

/// The checks of one request, some of which may be done.
#[derive(Debug, Default)]
pub struct Checks {
    /// What came of each; None: not checked (yet), or the partition is gone.
    checked: Vec<Option<Checked>>,
    /// Those to do, the last one first, each with its place in `checked`.
    left: Vec<(usize, Check)>,
}

impl Checks {
    /// One check for each partition of a request; None: the partition is gone.
    pub fn new(checks: Vec<Option<Check>>) -> Self {
        let mut all = Self::default();
        all.checked.resize_with(checks.len(), || None);
        all.left.extend(
            checks
                .into_iter()
                .enumerate()
                .filter_map(|(place, check)| Some((place, check?)))
                .rev(),
        );
        all
    }

    /// Do what can be done on the event loop; false: the rest belongs to a worker.
    pub fn run_quickly(&mut self) -> bool {
        let mut deep = Vec::new();
        while let Some((place, check)) = self.left.pop() {
            match check.run_quickly() {
                Ok(checked) => self.checked[place] = Some(checked),
                Err(check) => deep.push((place, check)),
            }
        }
        deep.reverse();
        self.left = deep;
        self.left.is_empty()
    }

    /// Do one check; false: none is left.
    fn step(&mut self) -> bool {
        if let Some((place, check)) = self.left.pop() {
            self.checked[place] = Some(check.run());
        }
        !self.left.is_empty()
    }

    /// What came of each check, in the order of the request.
    pub fn into_checked(self) -> Vec<Option<Checked>> {
        self.checked
    }
}

/// The checks of one request.
#[derive(Debug)]
pub struct Job {
    /// Whose.
    pub session_id: SessionId,
    /// Its slot.
    pub slot_id: u64,
    /// What to do.
    pub checks: Checks,
}

/// The answers to a `Job`.
#[derive(Debug)]
pub struct Done {
    /// Whose.
    pub session_id: SessionId,
    /// Its slot.
    pub slot_id: u64,
    /// In the order of the request; None: the partition is gone.
    pub checked: Vec<Option<Checked>>,
}

#[derive(Default)]
struct Queues {
    jobs: VecDeque<Job>,
    done: Vec<Done>,
    stopped: bool,
}

struct Shared {
    queues: Mutex<Queues>,
    work: Condvar,
    waker: Arc<dyn Fn() + Send + Sync>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        // A panic cannot happen while the lock is held: nothing but queue operations runs under it.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Worker threads, or a queue that the caller steps through.
pub struct Validator {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Validator")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

impl Validator {
    /// Start `threads` workers; with 0 the caller runs `step`. `waker` is called by a worker when answers are there.
    pub fn new(threads: usize, waker: Arc<dyn Fn() + Send + Sync>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queues: Mutex::default(),
            work: Condvar::new(),
            waker,
        });
        let threads = (0..threads)
            .map(|i| {
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name(format!("ottla-check-{i}"))
                    .spawn(move || work(&shared))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { shared, threads })
    }

    /// Queue a job.
    pub fn submit(&self, job: Job) {
        self.shared.lock().jobs.push_back(job);
        self.shared.work.notify_one();
    }

    /// The answers since the last call.
    pub fn drain(&self) -> Vec<Done> {
        std::mem::take(&mut self.shared.lock().done)
    }

    /// Without threads: do one check; `false` if there was none.
    pub fn step(&self) -> bool {
        let Some(job) = self.shared.lock().jobs.pop_front() else {
            return false;
        };
        step(&self.shared, job);
        true
    }
}

impl Drop for Validator {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A worker that panicked has printed its message; there is nobody to hand it to here.
            drop(thread.join());
        }
    }
}

/// Do one check of a job, after which it is another's turn. True: it was the last one, and answers wait for nobody yet.
fn step(shared: &Shared, mut job: Job) -> bool {
    let has_more = job.checks.step();
    let mut queues = shared.lock();
    if has_more {
        queues.jobs.push_back(job);
        return false;
    }
    queues.done.push(Done {
        session_id: job.session_id,
        slot_id: job.slot_id,
        checked: job.checks.into_checked(),
    });
    queues.done.len() == 1
}

fn work(shared: &Shared) {
    loop {
        let mut queues = shared.lock();
        let job = loop {
            if queues.stopped {
                return;
            }
            if let Some(job) = queues.jobs.pop_front() {
                break job;
            }
            queues = shared.work.wait(queues).unwrap_or_else(PoisonError::into_inner);
        };
        drop(queues);
        if step(shared, job) {
            (shared.waker)();
        }
    }
}
