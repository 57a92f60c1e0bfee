//! What the kernel's page cache holds of a file, as far as it tells.

use std::io;
use std::os::fd::RawFd;

/// Ranges are looked at in pieces of this size.
const PIECE_BYTES: u64 = 1024 * 1024;
/// The smallest pages that there are.
const PAGE_BYTES_MIN: u64 = 4096;
/// Pages of one piece at most, which may begin and end inside of one.
const PIECE_PAGES_MAX: usize = (PIECE_BYTES / PAGE_BYTES_MIN) as usize + 2;
/// `cachestat(2)`, since Linux 6.5: the number is the same on every architecture that has wheels.
const SYS_CACHESTAT: libc::c_long = 451;

#[repr(C)]
struct CachestatRange {
    off: u64,
    len: u64,
}

#[repr(C)]
#[derive(Default)]
#[allow(clippy::struct_field_names)] // the kernel's
struct Cachestat {
    nr_cache: u64,
    nr_dirty: u64,
    nr_writeback: u64,
    nr_evicted: u64,
    nr_recently_evicted: u64,
}

fn page_bytes() -> u64 {
    // SAFETY: a plain call.
    let found = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(found).unwrap_or(0).max(PAGE_BYTES_MIN)
}

/// Whether every page of a range is there. Those count, too, that are still being read from the disk; `None` where the
/// system cannot tell.
pub(super) fn has_pages(file: RawFd, position: u64, len: usize) -> Option<bool> {
    let page_bytes = page_bytes();
    let pages = (position + len as u64).div_ceil(page_bytes) - position / page_bytes;
    let count = || {
        let range = CachestatRange {
            off: position,
            len: len as u64,
        };
        let mut stat = Cachestat::default();
        // SAFETY: both structures have the layout of the kernel's and outlive the call.
        let result = unsafe { libc::syscall(SYS_CACHESTAT, file, &raw const range, &raw mut stat, 0) };
        (result == 0).then_some(stat.nr_cache)
    };
    // Linux was seen (6.18) to count too few pages when the call is interrupted by another task: ask again before the long
    // way is taken.
    Some(count()? >= pages || count()? >= pages)
}

/// Whether every page of a range is there and holds what is on the disk. Costs several times as much as `has_pages`.
pub(super) fn has_content(file: RawFd, position: u64, len: usize) -> bool {
    let (page_bytes, end) = (page_bytes(), position + len as u64);
    let mut start = position / page_bytes * page_bytes;
    while start < end {
        let piece_end = end.min(start + PIECE_BYTES);
        if !piece_has_content(file, start, (piece_end - start) as usize, page_bytes) {
            return false;
        }
        start = piece_end;
    }
    true
}

/// As `has_content` of at most `PIECE_BYTES`, which begin with a page.
fn piece_has_content(file: RawFd, start: u64, len: usize, page_bytes: u64) -> bool {
    let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
    // SAFETY: a new mapping, into which nobody looks.
    let mapping = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, file, start as libc::off_t) };
    if mapping == libc::MAP_FAILED {
        // A file that cannot be mapped: the first byte and the last one must do.
        return is_readable(file, start) && is_readable(file, start + len as u64 - 1);
    }
    let mut pages = [0_u8; PIECE_PAGES_MAX];
    // SAFETY: the kernel writes a byte for each page of the mapping, of which there are no more than `pages` has.
    let result = unsafe { libc::mincore(mapping, len, pages.as_mut_ptr()) };
    // SAFETY: the mapping from above, which nobody else knows.
    unsafe { libc::munmap(mapping, len) };
    let count = len.div_ceil(page_bytes as usize);
    result == 0 && pages[..count].iter().all(|page| page & 1 == 1)
}

/// Whether a byte can be read without waiting.
fn is_readable(file: RawFd, position: u64) -> bool {
    let mut byte = [0];
    !matches!(read_without_waiting(file, &mut byte, position), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Read what can be read without waiting for the disk.
///
/// # Errors
/// `WouldBlock` where nothing can; `Unsupported` on a file system that cannot tell (such as overlayfs on older kernels).
pub(super) fn read_without_waiting(file: RawFd, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let target = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
    let read = unsafe { libc::preadv2(file, &raw const target, 1, position as libc::off_t, libc::RWF_NOWAIT) };
    usize::try_from(read).map_err(|_| {
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => io::ErrorKind::WouldBlock.into(),
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => io::ErrorKind::Unsupported.into(),
            _ => error,
        }
    })
}
