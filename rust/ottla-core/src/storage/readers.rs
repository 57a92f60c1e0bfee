//! Reading that may have to wait for a disk, away from those who must not wait.
//!
//! Each log directory has threads of its own for that, so that a disk that stalls holds up who reads from it and nobody
//! else. They are started when they are first needed. In simulations there are none: the caller steps.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use super::cache::lock;

/// What is to be done: it reads, and tells whoever waits for it.
pub type Reading = Box<dyn FnOnce() + Send>;

/// Threads of one directory: reading for many at a time is what the kernel's queue is for, but one that needs a small
/// part should not wait until a large one is there.
const THREADS_MAX: usize = 2;

#[derive(Default)]
struct Queue {
    readings: VecDeque<Reading>,
    threads: usize,
    idle: usize,
    stopped: bool,
}

/// The readers of one log directory.
pub struct Readers {
    queue: Mutex<Queue>,
    work: Condvar,
    has_threads: bool,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers")
            .field("has_threads", &self.has_threads)
            .finish_non_exhaustive()
    }
}

impl Readers {
    /// Without threads the caller runs `step`.
    pub(crate) fn new(has_threads: bool) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            work: Condvar::new(),
            has_threads,
        })
    }

    /// Have something read. QUICK.
    pub fn submit(self: &Arc<Self>, reading: Reading) {
        let mut queue = lock(&self.queue);
        if queue.stopped {
            return;
        }
        queue.readings.push_back(reading);
        if self.has_threads && queue.readings.len() > queue.idle && queue.threads < THREADS_MAX {
            let readers = Arc::clone(self);
            let started = thread::Builder::new()
                .name("log-reader".to_owned())
                .spawn(move || readers.run_until_stopped());
            // With one less the others have more to do; without any, the next call tries again.
            queue.threads += usize::from(started.is_ok());
        }
        drop(queue);
        self.work.notify_one();
    }

    /// Without threads: read one thing; `false` if there was none.
    pub fn step(&self) -> bool {
        let next = lock(&self.queue).readings.pop_front();
        let Some(reading) = next else { return false };
        reading();
        true
    }

    /// What is queued is forgotten. Threads end when the disk lets them: nobody waits for that.
    pub(crate) fn stop(&self) {
        let mut queue = lock(&self.queue);
        queue.stopped = true;
        queue.readings.clear();
        drop(queue);
        self.work.notify_all();
    }

    fn run_until_stopped(&self) {
        let mut queue = lock(&self.queue);
        while !queue.stopped {
            let Some(reading) = queue.readings.pop_front() else {
                queue.idle += 1;
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
                continue;
            };
            drop(queue);
            // The panic was printed. Whoever waits for this reading waits as for a disk that does not answer; the others
            // keep their thread.
            drop(catch_unwind(AssertUnwindSafe(reading)));
            queue = lock(&self.queue);
        }
    }
}
