//! Reads ranges of files into the page cache, so that the event loop can send them without waiting for a disk.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ottla_core::data_plane::SessionId;
use ottla_core::partition::FileSlice;

/// How much is read at a time.
const READ_BYTES: usize = 128 * 1024;

type Done = Vec<(SessionId, io::Result<()>)>;

/// Has ranges read by the readers of their log directories.
pub struct Warmer {
    done: Arc<Mutex<Done>>,
    waker: Arc<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Warmer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warmer").finish_non_exhaustive()
    }
}

fn lock(done: &Mutex<Done>) -> MutexGuard<'_, Done> {
    // Nothing but a push or a take runs under the lock: a panic cannot leave it half done.
    done.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Warmer {
    /// `waker` is called when a range is in memory.
    pub fn new(waker: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self {
            done: Arc::default(),
            waker,
        }
    }

    /// Read a range for a session, which `drain` names when it is done. Without what this returns nobody wants it.
    pub fn submit(&self, session_id: SessionId, slice: FileSlice) -> Arc<()> {
        let wish = Arc::new(());
        let wanted = Arc::downgrade(&wish);
        let (done, waker) = (Arc::clone(&self.done), Arc::clone(&self.waker));
        let readers = Arc::clone(&slice.readers);
        readers.submit(Box::new(move || {
            if wanted.strong_count() == 0 {
                return;
            }
            let result = read(&slice);
            let mut done = lock(&done);
            done.push((session_id, result));
            let is_first = done.len() == 1;
            drop(done);
            if is_first {
                waker();
            }
        }));
        wish
    }

    /// The sessions whose range was read, or could not be.
    pub fn drain(&self) -> Vec<(SessionId, io::Result<()>)> {
        std::mem::take(&mut lock(&self.done))
    }
}

fn read(slice: &FileSlice) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES.min(slice.len)];
    let end = slice.position + slice.len as u64;
    let mut position = slice.position;
    while position < end {
        match slice.file.read_at(&mut buffer, position)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => position += read as u64,
        }
    }
    Ok(())
}
