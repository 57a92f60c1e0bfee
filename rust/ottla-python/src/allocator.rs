//! What the C library's allocator does with memory that is freed.

use pyo3::prelude::*;

/// Freed memory at the end of the heap from which on it goes back to the system: what receiving and writing take and
/// free many times a second is less.
#[cfg(target_env = "gnu")]
const KEPT_BYTES_MAX: libc::c_int = 16 << 20;
/// Allocations from this size on are mapped, and unmapped when they are freed: a few large ones do not keep the heap large.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES_MIN: libc::c_int = 4 << 20;

/// By default glibc gives the end of the heap back as soon as it exceeds twice the largest buffer freed so far: the
/// kernel then cleared the pages of nearly every receive buffer again.
#[pyfunction]
pub fn keep_freed_memory() -> bool {
    #[cfg(target_env = "gnu")]
    // SAFETY: both calls only set parameters, under the allocator's own lock.
    return unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES_MAX) == 1
            && libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN) == 1
    };
    #[cfg(not(target_env = "gnu"))]
    false
}
