//! The system calls on non-blocking sockets: receive, send buffers, send ranges of files.
//!
//! Nothing here waits for a disk: a range of a file is sent only if the page cache has it; otherwise the caller has it
//! read ahead by another thread and comes back.

use std::io;
use std::os::fd::RawFd;

use bytes::{BufMut, BytesMut};
use ottla_core::partition::FileSlice;
use ottla_core::session::output::{Chunk, Output};

/// What one attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// So many bytes.
    Bytes(usize),
    /// The kernel's buffer is empty (receiving) or full (sending).
    WouldBlock,
    /// The peer sent its last byte.
    EndOfInput,
}

fn attempt(result: isize) -> io::Result<Attempt> {
    match usize::try_from(result) {
        Ok(0) => Ok(Attempt::EndOfInput),
        Ok(bytes) => Ok(Attempt::Bytes(bytes)),
        Err(_) => {
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(Attempt::WouldBlock),
                _ => Err(error),
            }
        }
    }
}

/// Receive into the spare capacity of `buffer`, at most `bytes_max`.
pub fn receive(fd: RawFd, buffer: &mut BytesMut, bytes_max: usize) -> io::Result<Attempt> {
    let spare = buffer.spare_capacity_mut();
    let bytes_max = bytes_max.min(spare.len());
    // SAFETY: the kernel writes at most `bytes_max` bytes into memory that `buffer` owns.
    let received = unsafe { libc::recv(fd, spare.as_mut_ptr().cast(), bytes_max, libc::MSG_DONTWAIT) };
    let attempt = attempt(received)?;
    if let Attempt::Bytes(bytes) = attempt {
        // SAFETY: the kernel has just initialised these bytes.
        unsafe { buffer.advance_mut(bytes) };
    }
    Ok(attempt)
}

/// Most buffers that one call sends.
const BUFFERS_MAX: usize = 64;
/// A shorter range of a file is read and sent with the buffers around it: one call less than `sendfile` between two.
const COPIED_BYTES_MAX: usize = 16 * 1024;
/// A range of a file is looked up in the page cache and sent in pieces of this size.
const PIECE_BYTES: usize = 1024 * 1024;

/// Where sending stopped.
#[derive(Debug)]
pub enum Sent {
    /// Everything is sent.
    All,
    /// The kernel's buffer is full.
    WouldBlock,
    /// This range must be read from the disk first.
    Cold(FileSlice),
}

/// Send until the output is empty, the kernel's buffer is full or a range is not in memory. `is_warm`: the first range was
/// read a moment ago, and is sent wherever it is. `scratch` is working memory.
pub fn send(fd: RawFd, output: &mut Output, mut is_warm: bool, scratch: &mut Vec<u8>) -> io::Result<Sent> {
    loop {
        let Some((first, sent)) = output.pending().next() else {
            return Ok(Sent::All);
        };
        let progress = match first {
            Chunk::File(slice) if slice.len - sent > COPIED_BYTES_MAX => {
                let rest = FileSlice {
                    file: slice.file.clone(),
                    position: slice.position + sent as u64,
                    len: (slice.len - sent).min(PIECE_BYTES),
                    readers: slice.readers.clone(),
                };
                send_file(fd, rest, is_warm)?
            }
            _ => send_buffers(fd, output, is_warm, scratch)?,
        };
        is_warm = false;
        match progress {
            Progress::Bytes(bytes) => output.sent(bytes),
            Progress::WouldBlock => return Ok(Sent::WouldBlock),
            Progress::Cold(slice) => return Ok(Sent::Cold(slice)),
        }
    }
}

enum Progress {
    Bytes(usize),
    WouldBlock,
    Cold(FileSlice),
}

impl From<Attempt> for Progress {
    fn from(attempt: Attempt) -> Self {
        match attempt {
            Attempt::Bytes(bytes) => Self::Bytes(bytes),
            Attempt::WouldBlock | Attempt::EndOfInput => Self::WouldBlock,
        }
    }
}

/// A piece of the output that goes into one `sendmsg`: in memory already, or read into the scratch buffer.
enum Piece<'a> {
    Memory(&'a [u8]),
    Scratch(std::ops::Range<usize>),
}

fn send_buffers(fd: RawFd, output: &Output, is_warm: bool, scratch: &mut Vec<u8>) -> io::Result<Progress> {
    scratch.clear();
    let mut pieces = Vec::with_capacity(4);
    let mut more = false;
    for (chunk, sent) in output.pending() {
        match chunk {
            _ if pieces.len() == BUFFERS_MAX => break,
            Chunk::Bytes(bytes) => pieces.push(Piece::Memory(&bytes[sent..])),
            Chunk::File(slice) if slice.len - sent > COPIED_BYTES_MAX => {
                more = true;
                break;
            }
            Chunk::File(slice) => {
                let start = scratch.len();
                scratch.resize(start + slice.len - sent, 0);
                let into = &mut scratch[start..];
                if is_warm && pieces.is_empty() {
                    slice.file.read_exact_at(into, slice.position + sent as u64)?;
                } else if !read_cached(slice, sent, into)? {
                    if pieces.is_empty() {
                        return Ok(Progress::Cold(slice.clone()));
                    }
                    more = true;
                    break;
                }
                pieces.push(Piece::Scratch(start..scratch.len()));
            }
        }
    }
    let mut buffers = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; BUFFERS_MAX];
    for (buffer, piece) in buffers.iter_mut().zip(&pieces) {
        let bytes = match piece {
            Piece::Memory(bytes) => bytes,
            Piece::Scratch(range) => &scratch[range.clone()],
        };
        *buffer = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
    // SAFETY: msghdr is plain data for which all zero is valid; the buffers outlive the call.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = buffers.as_mut_ptr();
        message.msg_iovlen = pieces.len() as _;
        libc::sendmsg(fd, &raw const message, flags)
    };
    attempt(sent).map(Progress::from)
}

fn send_file(fd: RawFd, slice: FileSlice, is_warm: bool) -> io::Result<Progress> {
    let Some(file) = slice.file.raw_fd() else {
        let mut bytes = vec![0; slice.len];
        slice.file.read_exact_at(&mut bytes, slice.position)?;
        // SAFETY: the buffer outlives the call.
        let sent = unsafe {
            libc::send(
                fd,
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        return attempt(sent).map(Progress::from);
    };
    if !is_warm && !slice.file.is_cached(slice.position, slice.len) {
        return Ok(Progress::Cold(slice));
    }
    let mut position = slice.position as i64;
    // SAFETY: plain system call on two open descriptors; `slice` keeps the file open.
    let sent = unsafe { libc::sendfile(fd, file, &raw mut position, slice.len) };
    match attempt(sent)? {
        Attempt::EndOfInput => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("a segment ends before byte {}", slice.position + slice.len as u64),
        )),
        attempt => Ok(attempt.into()),
    }
}

/// Read the rest of a small range if that needs no disk; false if it would.
fn read_cached(slice: &FileSlice, skipped: usize, into: &mut [u8]) -> io::Result<bool> {
    match slice.file.read_cached_at(into, slice.position + skipped as u64)? {
        Some(read) if read < into.len() => Err(io::ErrorKind::UnexpectedEof.into()),
        read => Ok(read.is_some()),
    }
}
