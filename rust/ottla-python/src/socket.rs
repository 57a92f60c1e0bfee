//! The system calls on non-blocking sockets: receive, send buffers.

use std::io;
use std::os::fd::RawFd;

use bytes::{BufMut, BytesMut};
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

/// Send until the output is empty or the kernel's buffer is full. Returns the bytes sent.
pub fn send(fd: RawFd, output: &mut Output) -> io::Result<usize> {
    let mut total = 0;
    while !output.is_empty() {
        let Attempt::Bytes(bytes) = send_once(fd, output)? else {
            break;
        };
        output.sent(bytes);
        total += bytes;
    }
    Ok(total)
}

fn send_once(fd: RawFd, output: &Output) -> io::Result<Attempt> {
    let mut buffers = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; BUFFERS_MAX];
    let mut count = 0;
    for (slot, (chunk, sent)) in buffers.iter_mut().zip(output.pending()) {
        let Chunk::Bytes(bytes) = chunk;
        *slot = libc::iovec {
            iov_base: bytes[sent..].as_ptr().cast_mut().cast(),
            iov_len: bytes.len() - sent,
        };
        count += 1;
    }
    // SAFETY: msghdr is plain data for which all zero is valid; the buffers outlive the call.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = buffers.as_mut_ptr();
        message.msg_iovlen = count as _;
        libc::sendmsg(fd, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    attempt(sent)
}
