//! Reads ranges of files into the page cache, so that the event loop can send them without waiting for a disk.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use ottla_core::data_plane::SessionId;
use ottla_core::partition::FileSlice;

/// How much is read at a time.
const READ_BYTES: usize = 128 * 1024;

#[derive(Default)]
struct Queues {
    ranges: VecDeque<(SessionId, FileSlice)>,
    done: Vec<(SessionId, io::Result<()>)>,
    stopped: bool,
}

struct Shared {
    queues: Mutex<Queues>,
    work: Condvar,
    waker: Arc<dyn Fn() + Send + Sync>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        // Nothing but queue operations runs under the lock: a panic cannot leave it half done.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Threads that read ahead.
pub struct Warmer {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Warmer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warmer")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

impl Warmer {
    /// Start `threads` threads; `waker` is called when a range is in memory.
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
                    .name(format!("ottla-warm-{i}"))
                    .spawn(move || work(&shared))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { shared, threads })
    }

    /// Read a range for a session, which `drain` names when it is done.
    pub fn submit(&self, session_id: SessionId, slice: FileSlice) {
        self.shared.lock().ranges.push_back((session_id, slice));
        self.shared.work.notify_one();
    }

    /// The sessions whose range was read, or could not be.
    pub fn drain(&self) -> Vec<(SessionId, io::Result<()>)> {
        std::mem::take(&mut self.shared.lock().done)
    }
}

impl Drop for Warmer {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has printed its message; there is nobody to hand it to here.
            drop(thread.join());
        }
    }
}

fn work(shared: &Shared) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let mut queues = shared.lock();
        let (session_id, slice) = loop {
            if queues.stopped {
                return;
            }
            if let Some(range) = queues.ranges.pop_front() {
                break range;
            }
            queues = shared.work.wait(queues).unwrap_or_else(PoisonError::into_inner);
        };
        drop(queues);
        let result = read(&slice, &mut buffer);
        let mut queues = shared.lock();
        queues.done.push((session_id, result));
        let first = queues.done.len() == 1;
        drop(queues);
        if first {
            (shared.waker)();
        }
    }
}

fn read(slice: &FileSlice, buffer: &mut [u8]) -> io::Result<()> {
    let end = slice.position + slice.len as u64;
    let mut position = slice.position;
    while position < end {
        match slice.file.read_at(buffer, position)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => position += read as u64,
        }
    }
    Ok(())
}
