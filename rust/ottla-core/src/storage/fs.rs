//! The one door to files: [`LogFs`] and [`LogFile`], and the machine's own file system behind them.
//!
//! Everything that storage asks of a disk goes through these two traits, so that `sim_fs` can put a faulty disk
//! underneath. Positions are explicit (no cursors), nothing syncs unless told to, and a file's name is durable only after
//! `sync_dir` of its directory (`fsync(2)` asks for "an explicit `fsync()` on a file descriptor for the directory").

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;

/// How to open a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// Must exist; reads only.
    Read,
    /// Must exist; reads and writes.
    ReadWrite,
    /// Created if absent; reads and writes.
    Create,
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// The name, without its directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// An open file. All positions and lengths are in bytes.
pub trait LogFile: Send + Sync + Debug {
    /// The file's length.
    fn size_bytes(&self) -> io::Result<u64>;
    /// Read up to `buffer.len()` bytes at `position`; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// As `read_at`, of what is in memory: `None` where the disk would have to be waited for.
    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<Option<usize>>;
    /// Whether a whole range is in memory, so that sending it waits for no disk.
    fn is_cached(&self, position: u64, len: usize) -> bool;
    /// Write all of `buffers` one after another from `position` on. After an error any prefix may have been written.
    fn write_all_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<()>;
    /// Cut or extend (with zeros) to `size_bytes`.
    fn truncate(&self, size_bytes: u64) -> io::Result<()>;
    /// Make the data (and the length) durable.
    fn sync_data(&self) -> io::Result<()>;
    /// The descriptor for `sendfile`, where there is one. It lives as long as this object.
    fn raw_fd(&self) -> Option<RawFd>;

    /// Read exactly `buffer.len()` bytes at `position`; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        let read = self.read_at(buffer, position)?;
        if read < buffer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// A file system. Paths are absolute or relative to the process; none is ever followed outside the log directory.
pub trait LogFs: Send + Sync + Debug {
    /// Open a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn LogFile>>;
    /// Create a directory and its parents; fine if it exists.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in no particular order.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Rename a file or directory, replacing a file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Remove a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Remove a directory and all below.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Make the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Make everything on the file system of `path` durable.
    fn sync_all(&self, path: &Path) -> io::Result<()>;
    /// The length of a file in bytes.
    fn file_size_bytes(&self, path: &Path) -> io::Result<u64>;
    /// When a file was last written, in Unix ms. `Unsupported` where that is not known.
    fn modified_ms(&self, path: &Path) -> io::Result<i64> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Take the exclusive lock on a file, creating it; `WouldBlock` if another process holds it. Dropping it releases it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// Bytes that an unprivileged writer may still use below `path`.
    fn available_bytes(&self, path: &Path) -> io::Result<u64>;
    /// A name that changes when the machine restarts, so that "the process died" can be told from "the power failed".
    fn boot_id(&self) -> io::Result<String>;

    /// A whole small file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let mut content = vec![0; usize::try_from(file.size_bytes()?).map_err(io::Error::other)?];
        let read = file.read_at(&mut content, 0)?;
        content.truncate(read);
        Ok(content)
    }

    /// Replace a whole small file: written beside it under `<name>.tmp`, then renamed. With `durable`, synced before and
    /// after the rename, so that a power failure leaves the old or the new content, never a mixture.
    fn replace(&self, path: &Path, content: &[u8], durable: bool) -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(".tmp");
        let beside = Path::new(&name);
        let file = self.open(beside, OpenMode::Create)?;
        file.truncate(0)?;
        file.write_all_at(&[IoSlice::new(content)], 0)?;
        if durable {
            file.sync_data()?;
        }
        self.rename(beside, path)?;
        if let (true, Some(dir)) = (durable, path.parent()) {
            self.sync_dir(dir)?;
        }
        Ok(())
    }
}
