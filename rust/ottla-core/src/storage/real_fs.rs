//! The machine's own file system.
#![allow(clippy::disallowed_methods, reason = "this is the door that the rule points to")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

use super::fs::{DirEntry, LogFile, LogFs, OpenMode};
use super::page_cache;

/// `pwritev` takes at most this many buffers (`IOV_MAX` on Linux).
const IOV_MAX: usize = 1024;

/// The machine's own file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

#[derive(Debug)]
struct RealFile {
    file: File,
    /// Something may have been read from the disk for it, and the kernel may still be reading on. Not so of a file that was
    /// made here and only written since.
    was_read: AtomicBool,
}

impl LogFile for RealFile {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.was_read.store(true, Ordering::Relaxed);
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        let file = self.file.as_raw_fd();
        let left_bytes = self.size_bytes()?.saturating_sub(position);
        let len = buffer.len().min(usize::try_from(left_bytes).unwrap_or(usize::MAX));
        // Where a page is missing, reading it begins even for those who do not wait, and that may have to wait by itself: for
        // a place in the queue of a disk that does not answer.
        let has_pages = || page_cache::has_pages(file, position, len);
        if len > 0 && !has_pages().unwrap_or_else(|| page_cache::has_content(file, position, len)) {
            return Ok(None);
        }
        match page_cache::read_without_waiting(file, &mut buffer[..len], position) {
            Ok(read) => Ok((read == len).then_some(read)),
            Err(error)
                if error.kind() == io::ErrorKind::Unsupported && page_cache::has_content(file, position, len) =>
            {
                self.read_at(&mut buffer[..len], position).map(Some)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Unsupported) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_cached(&self, position: u64, len: usize) -> bool {
        let file = self.file.as_raw_fd();
        let has_pages = page_cache::has_pages(file, position, len);
        match (has_pages, self.was_read.load(Ordering::Relaxed)) {
            (Some(false), _) => false,
            (Some(true), false) => true,
            (Some(true), true) | (None, _) => page_cache::has_content(file, position, len),
        }
    }

    fn write_all_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        if let [buffer] = buffers {
            return self.file.write_all_at(buffer, position);
        }
        let mut position = position;
        let mut buffers = buffers.to_vec();
        let mut rest = &mut buffers[..];
        IoSlice::advance_slices(&mut rest, 0); // drops leading empty buffers
        while !rest.is_empty() {
            let count = rest.len().min(IOV_MAX);
            // SAFETY: IoSlice is ABI-compatible with iovec, and the buffers outlive the call.
            let written = unsafe {
                libc::pwritev(
                    self.file.as_raw_fd(),
                    rest.as_ptr().cast(),
                    count as libc::c_int,
                    position as libc::off_t,
                )
            };
            if written < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            }
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            position += written as u64;
            IoSlice::advance_slices(&mut rest, written as usize);
        }
        Ok(())
    }

    fn truncate(&self, size_bytes: u64) -> io::Result<()> {
        self.file.set_len(size_bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn raw_fd(&self) -> Option<RawFd> {
        Some(self.file.as_raw_fd())
    }
}

impl LogFs for RealFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn LogFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(mode != OpenMode::Read)
            .create(mode == OpenMode::Create)
            .truncate(false)
            .open(path)?;
        let is_new = mode == OpenMode::Create && file.metadata()?.len() == 0;
        Ok(Arc::new(RealFile {
            file,
            was_read: AtomicBool::new(!is_new),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(DirEntry {
                    name,
                    is_dir: entry.file_type()?.is_dir(),
                });
            }
        }
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        let dir = File::open(path)?;
        // SAFETY: the descriptor is open.
        match unsafe { libc::syncfs(dir.as_raw_fd()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn file_size_bytes(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn modified_ms(&self, path: &Path) -> io::Result<i64> {
        let since = fs::metadata(path)?
            .modified()?
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Ok(since.as_millis() as i64)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        // An open-file-description lock: unlike flock(2) it also conflicts with the POSIX record lock that Apache Kafka
        // (java.nio FileLock) takes on the same file, and unlike a POSIX lock it is not lost when another descriptor of
        // the file is closed (fcntl(2), "Open file description locks").
        // SAFETY: zero is a valid value for every field of flock.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        // SAFETY: the descriptor is open and `lock` outlives the call.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } != 0 {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EACCES) => io::ErrorKind::WouldBlock.into(),
                _ => error,
            });
        }
        Ok(Box::new(file))
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
        // SAFETY: zero is a valid value for every field of statvfs, and the path is terminated.
        let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        if unsafe { libc::statvfs(path.as_ptr(), &raw mut found) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(found.f_bavail * found.f_frsize)
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
    }
}
