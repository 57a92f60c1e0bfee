//! A file system that closes files of its own when the process or the system has no descriptor left, and tries again.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::cache::Cache;
use super::fs::{DirEntry, LogFile, LogFs, OpenMode};

/// Any file system, with a cache of open files that can be made smaller.
#[derive(Debug)]
pub(crate) struct RelievedFs {
    pub fs: Arc<dyn LogFs>,
    pub open: Arc<Cache>,
}

/// Whether the system says that there is no file descriptor (or no memory for one), which passes.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

impl RelievedFs {
    fn patiently<T>(&self, call: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match call() {
            Err(error) if is_out_of_files(&error) => {
                self.open.relieve();
                call()
            }
            result => result,
        }
    }
}

impl LogFs for RelievedFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn LogFile>> {
        self.patiently(|| self.fs.open(path, mode))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.fs.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.patiently(|| self.fs.read_dir(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.fs.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.patiently(|| self.fs.remove_dir_all(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.patiently(|| self.fs.sync_dir(path))
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        self.patiently(|| self.fs.sync_all(path))
    }

    fn file_size_bytes(&self, path: &Path) -> io::Result<u64> {
        self.fs.file_size_bytes(path)
    }

    fn modified_ms(&self, path: &Path) -> io::Result<i64> {
        self.fs.modified_ms(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.fs.lock(path)
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        self.fs.available_bytes(path)
    }

    fn boot_id(&self) -> io::Result<String> {
        self.patiently(|| self.fs.boot_id())
    }
}
