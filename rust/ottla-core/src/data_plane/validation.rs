//! Deep checks of produced batches (decompression, recompression) away from the event loop.
//!
//! A connection waits for its own check before anything behind it is decoded, so its records keep their order; other
//! connections go on meanwhile.

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
            })
        })
    }

    /// Whether the check belongs to a worker. `recompresses` says whether a codec differs from the topic's.
    pub fn is_deep(records: &[u8], recompresses: impl Fn(Codec) -> bool) -> bool {
        let Ok(header) = BatchHeader::parse(records) else {
            return false;
        };
        let Ok(codec) = header.codec() else { return false };
        let bytes_min = match codec {
            _ if recompresses(codec) => DEEP_PAYLOAD_BYTES_MIN,
            Codec::None => return false,
            Codec::Gzip | Codec::Zstd => DEEP_PAYLOAD_BYTES_MIN,
            Codec::Snappy | Codec::Lz4 => DEEP_FAST_PAYLOAD_BYTES_MIN,
        };
        records.len() >= bytes_min
    }

    /// Whether the batch says that it is part of a transaction.
    pub fn is_transactional(records: &[u8]) -> bool {
        BatchHeader::parse(records).is_ok_and(BatchHeader::is_transactional)
    }
}

/// The checks of one request.
#[derive(Debug)]
pub struct Job {
    /// Whose.
    pub session_id: SessionId,
    /// Its slot.
    pub slot_id: u64,
    /// One for each partition of the request.
    pub checks: Vec<Option<Check>>,
}

/// The answers to a `Job`, in its order.
#[derive(Debug)]
pub struct Done {
    /// Whose.
    pub session_id: SessionId,
    /// Its slot.
    pub slot_id: u64,
    /// None where the job had None.
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

    /// Without threads: do one job; `false` if there was none.
    pub fn step(&self) -> bool {
        let Some(job) = self.shared.lock().jobs.pop_front() else {
            return false;
        };
        let done = run(job);
        self.shared.lock().done.push(done);
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

fn run(job: Job) -> Done {
    let checked = job.checks.into_iter().map(|check| check.map(Check::run)).collect();
    Done {
        session_id: job.session_id,
        slot_id: job.slot_id,
        checked,
    }
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
        let done = run(job);
        let mut queues = shared.lock();
        queues.done.push(done);
        let first = queues.done.len() == 1;
        drop(queues);
        if first {
            (shared.waker)();
        }
    }
}
