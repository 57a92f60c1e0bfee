//! What a session has to send, in order: buffers and, between them, ranges of files.

use std::collections::VecDeque;

use crate::partition::FileSlice;

/// A part of the output.
#[derive(Debug)]
pub enum Chunk {
    /// Bytes in memory.
    Bytes(Vec<u8>),
    /// A range of a segment file, which stays open until it was sent.
    File(FileSlice),
}

impl Chunk {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File(slice) => slice.len,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A queue of chunks, the first of which may be sent in part.
#[derive(Debug, Default)]
pub struct Output {
    chunks: VecDeque<Chunk>,
    sent_of_first: usize,
    left_bytes: usize,
}

impl Output {
    /// Append a chunk.
    pub fn push(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.left_bytes += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// Bytes not sent yet.
    pub fn left_bytes(&self) -> usize {
        self.left_bytes
    }

    /// Whether everything was sent.
    pub fn is_empty(&self) -> bool {
        self.left_bytes == 0
    }

    /// The unsent chunks in order, each with the number of its bytes that were sent (0 for all but the first).
    pub fn pending(&self) -> impl Iterator<Item = (&Chunk, usize)> {
        self.chunks
            .iter()
            .enumerate()
            .map(|(i, chunk)| (chunk, if i == 0 { self.sent_of_first } else { 0 }))
    }

    /// Note that the next `bytes` were sent; what they held is released.
    pub fn sent(&mut self, bytes: usize) {
        assert!(bytes <= self.left_bytes, "more was sent than there was");
        self.left_bytes -= bytes;
        self.sent_of_first += bytes;
        while let Some(first) = self.chunks.front()
            && self.sent_of_first >= first.len()
        {
            self.sent_of_first -= first.len();
            self.chunks.pop_front();
        }
    }
}
