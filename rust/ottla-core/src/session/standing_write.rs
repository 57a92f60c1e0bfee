//! Requests that are carried out by an append, like the one before them.
//!
//! Somebody carried out a request by appending a batch, and answered it. The next one on the connection says the same but
//! for a few numbers, which stand in its bytes where they stood before (its *holes*), and so they do in the batch that it
//! asks for. What the numbers mean is not known here: it is for whoever lets such a request stand to see to it that all
//! values do.

use bytes::BytesMut;

use super::header::RequestHeader;
use super::standing::{StandingId, framed};
use crate::record::batch::{BATCH_OVERHEAD, BatchView, stamp_crc};
use crate::storage::log_dir::PartitionId;

/// Size of a timestamp in bytes.
const CLOCK_BYTES: usize = 8;
/// The first field of a batch that its CRC covers and that may be filled in.
const FILLED_FROM: usize = 27;

/// Bytes that differ from one request to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// Where they are in the request's body.
    pub request_at: usize,
    /// Where they go in the batch.
    pub batch_at: usize,
    /// How many they are.
    pub size_bytes: usize,
}

/// One request of those that are carried out, with what was made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Which API.
    pub api_key: i16,
    /// Version of the request.
    pub api_version: i16,
    /// What the client calls itself.
    pub client_id: Option<String>,
    /// The request behind its header.
    pub body: Vec<u8>,
    /// The response behind its correlation id, which is the same for all.
    pub response: Vec<u8>,
    /// One whole batch, not compressed.
    pub batch: Vec<u8>,
    /// What differs, in the order of the request.
    pub holes: Vec<Hole>,
    /// Where the batch tells the time of the append, in Unix ms.
    pub clocks: Vec<usize>,
}

/// How requests are to be carried out.
#[derive(Debug)]
pub struct StandingWrite {
    /// Names it.
    pub id: StandingId,
    /// Where to append.
    pub partition_id: PartitionId,
    /// The epoch in which this must be the leader.
    pub leader_epoch: i32,
    /// How long an append may stay uncommitted before somebody else is to deal with the request.
    pub timeout_ms: i64,
    example: Example,
}

/// Why an example says nothing about other requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadExample {
    /// The batch is none.
    #[error("the batch is not one whole batch")]
    Batch,
    /// Holes overlap, are not in order, or reach beyond the request.
    #[error("the holes of the request are not one after the other within it")]
    RequestHoles,
    /// What is to be filled in is not within what the CRC covers.
    #[error("what is to be filled in reaches beyond the batch")]
    BatchHoles,
}

impl StandingWrite {
    /// # Errors
    /// `BadExample`.
    pub fn new(
        id: StandingId,
        partition_id: PartitionId,
        leader_epoch: i32,
        timeout_ms: i64,
        example: Example,
    ) -> Result<Self, BadExample> {
        let batch = &example.batch;
        let is_whole = BatchView::parse(batch).is_ok_and(|view| view.size_bytes() == batch.len());
        if !is_whole || batch.len() < BATCH_OVERHEAD {
            return Err(BadExample::Batch);
        }
        let mut position = 0;
        for hole in &example.holes {
            let end = hole.request_at.checked_add(hole.size_bytes);
            match end {
                Some(end) if hole.request_at >= position && end <= example.body.len() => position = end,
                _ => return Err(BadExample::RequestHoles),
            }
        }
        let clocks = example.clocks.iter().map(|at| (*at, CLOCK_BYTES));
        let holes = example.holes.iter().map(|hole| (hole.batch_at, hole.size_bytes));
        let is_within = |(at, size_bytes): (usize, usize)| {
            at >= FILLED_FROM && at.checked_add(size_bytes).is_some_and(|end| end <= batch.len())
        };
        if !clocks.chain(holes).all(is_within) {
            return Err(BadExample::BatchHoles);
        }
        Ok(Self {
            id,
            partition_id,
            leader_epoch,
            timeout_ms,
            example,
        })
    }

    /// Whether this is a request to be carried out so.
    pub fn is_for(&self, header: &RequestHeader<'_>, body: &[u8]) -> bool {
        let example = &self.example;
        example.api_key == header.api_key
            && example.api_version == header.api_version
            && example.client_id.as_deref() == header.client_id.as_deref()
            && self.is_same_beside_holes(body)
    }

    fn is_same_beside_holes(&self, body: &[u8]) -> bool {
        let example = &self.example;
        if body.len() != example.body.len() {
            return false;
        }
        let mut position = 0;
        for hole in &example.holes {
            if body[position..hole.request_at] != example.body[position..hole.request_at] {
                return false;
            }
            position = hole.request_at + hole.size_bytes;
        }
        body[position..] == example.body[position..]
    }

    /// What a request for which this stands says: the bytes of its holes, one after the other.
    pub fn said(&self, body: &[u8]) -> Vec<u8> {
        let holes = &self.example.holes;
        let mut said = Vec::with_capacity(holes.iter().map(|hole| hole.size_bytes).sum());
        for hole in holes {
            said.extend_from_slice(&body[hole.request_at..hole.request_at + hole.size_bytes]);
        }
        said
    }

    /// The batch that carries a request out.
    pub fn batch(&self, said: &[u8], wall_ms: i64) -> BytesMut {
        let mut batch = BytesMut::from(&self.example.batch[..]);
        let mut rest = said;
        for hole in &self.example.holes {
            let (bytes, left) = rest.split_at(hole.size_bytes.min(rest.len()));
            batch[hole.batch_at..hole.batch_at + bytes.len()].copy_from_slice(bytes);
            rest = left;
        }
        for at in &self.example.clocks {
            batch[*at..*at + CLOCK_BYTES].copy_from_slice(&wall_ms.to_be_bytes());
        }
        stamp_crc(&mut batch);
        batch
    }

    /// The answer as a frame, size included.
    pub fn frame(&self, correlation_id: i32) -> Vec<u8> {
        framed(&self.example.response, correlation_id)
    }
}

#[cfg(test)]
mod tests;
