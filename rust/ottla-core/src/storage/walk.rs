//! Walking the batches of a segment file from one position to another.

use std::io;

use super::fs::LogFile;
use crate::record::batch::{BATCH_OVERHEAD, BatchError, BatchHeader, BatchView};

/// Why a walk cannot go on.
#[derive(Debug)]
pub enum WalkError {
    /// The file could not be read.
    Io(io::Error),
    /// The bytes at `position` are no batch.
    Bad {
        /// Where the batch should start.
        position: u64,
        /// What is wrong with it.
        error: BatchError,
    },
}

impl From<io::Error> for WalkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// `WalkError::Bad` as the cause of an `io::Error`, so that who knows the file can name it.
#[derive(Debug, thiserror::Error)]
#[error("at byte {position}: {error}")]
pub(crate) struct BadBatch {
    pub position: u64,
    pub error: BatchError,
}

impl From<WalkError> for io::Error {
    fn from(error: WalkError) -> Self {
        match error {
            WalkError::Io(error) => error,
            WalkError::Bad { position, error } => {
                io::Error::new(io::ErrorKind::InvalidData, BadBatch { position, error })
            }
        }
    }
}

/// Headers are read through a buffer of one page: a walk between two index entries takes one or two reads.
const HEADER_BUFFER_BYTES: usize = 4096;
/// Whole batches are read through a buffer of this size, or of a batch if that is larger.
const BATCH_BUFFER_BYTES: usize = 1 << 20;

/// How far a read may go for what it needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// As far as nothing has to be waited for; else it fails with `WouldBlock`.
    Memory,
    /// To the disk.
    Disk,
}

/// A position in a file, moving from batch to batch.
#[derive(Debug)]
pub struct Walk<'f> {
    reach: Reach,
    file: &'f dyn LogFile,
    position: u64,
    end: u64,
    buffer: Vec<u8>,
    buffer_start: u64,
}

impl<'f> Walk<'f> {
    /// Walk the batches from `position` (where one starts) to `end`, both in bytes.
    pub fn new(file: &'f dyn LogFile, position: u64, end: u64) -> Self {
        Self::within(Reach::Disk, file, position, end)
    }

    /// As `new`; a walk that stays in memory ends with `WouldBlock` where it would leave it.
    pub fn within(reach: Reach, file: &'f dyn LogFile, position: u64, end: u64) -> Self {
        Self {
            reach,
            file,
            position,
            end,
            buffer: Vec::new(),
            buffer_start: position,
        }
    }

    /// Where the next batch starts.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next header and its position; `None` at the end. A batch that ends beyond `end` is `Truncated`.
    pub fn next_header(&mut self) -> Result<Option<(u64, BatchHeader<'_>)>, WalkError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let at = self.fill(BATCH_OVERHEAD, HEADER_BUFFER_BYTES)?;
        let available = usize::try_from(self.end - position).unwrap_or(usize::MAX);
        let header = BatchHeader::parse(&self.buffer[at..]).map_err(|error| WalkError::Bad { position, error })?;
        if header.size_bytes() > available {
            let error = BatchError::Truncated {
                needed: header.size_bytes(),
                available,
            };
            return Err(WalkError::Bad { position, error });
        }
        self.position += header.size_bytes() as u64;
        Ok(Some((position, header)))
    }

    /// The next whole batch, with its checksum verified, and its position; `None` at the end.
    pub fn next_batch(&mut self) -> Result<Option<(u64, BatchView<'_>)>, WalkError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let bad = |error| WalkError::Bad { position, error };
        let available = usize::try_from(self.end - position).unwrap_or(usize::MAX);
        let mut at = self.fill(BATCH_OVERHEAD, BATCH_BUFFER_BYTES)?;
        let size_bytes = BatchHeader::parse(&self.buffer[at..]).map_err(bad)?.size_bytes();
        if size_bytes > available {
            return Err(bad(BatchError::Truncated {
                needed: size_bytes,
                available,
            }));
        }
        if self.buffer.len() - at < size_bytes {
            at = self.fill(size_bytes, BATCH_BUFFER_BYTES)?;
        }
        let batch = BatchView::parse(&self.buffer[at..]).map_err(bad)?;
        batch.verify_crc().map_err(bad)?;
        self.position += size_bytes as u64;
        Ok(Some((position, batch)))
    }

    /// Have `needed` bytes from the current position on in the buffer, as far as there are; returns where they start.
    fn fill(&mut self, needed: usize, chunk_bytes: usize) -> io::Result<usize> {
        let offset = (self.position - self.buffer_start) as usize;
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        if offset + needed.min(left) <= self.buffer.len() {
            return Ok(offset);
        }
        self.buffer.resize(needed.max(chunk_bytes).min(left), 0);
        let read = match self.reach {
            Reach::Disk => self.file.read_at(&mut self.buffer, self.position)?,
            Reach::Memory => {
                let read = self.file.read_cached_at(&mut self.buffer, self.position);
                // What the buffer holds now is of nowhere: a walk that fails does not go on.
                read?.ok_or(io::ErrorKind::WouldBlock)?
            }
        };
        self.buffer.truncate(read);
        self.buffer_start = self.position;
        Ok(0)
    }
}
