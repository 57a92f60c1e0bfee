//! What goes into a partition's calls and comes out of them.

use std::io;
use std::sync::Arc;

use crate::storage::fs::LogFile;
use crate::storage::readers::Readers;

/// What an append was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record; acknowledge when the high watermark is above it.
    pub last_offset: i64,
    /// The broker's time if the topic says `LogAppendTime`, else -1.
    pub log_append_time_ms: i64,
    /// First offset that the log holds.
    pub log_start_offset: i64,
    /// The batch was already in the log: these are its old offsets.
    pub duplicate: bool,
    /// Which life of the tail took it; for `append_state`.
    pub generation: u32,
}

/// Where an append stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendState {
    /// Neither.
    Pending,
    /// In this broker's file (what `acks=1` waits for), not yet below the high watermark.
    Written,
    /// Below the high watermark.
    Committed,
    /// Lost to a failed write: answer `KAFKA_STORAGE_ERROR` (56), the client retries.
    Failed,
}

/// What of a log was lost to a failed write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Nothing that was appended from here on is in the log, unless it was appended again since.
    pub offset: i64,
    /// The log went through recovery, which may have found what was lost for its appender: only the log itself says what is
    /// in it.
    pub is_reloaded: bool,
}

/// A range of a segment file, ready for `sendfile`.
#[derive(Clone, Debug)]
pub struct FileSlice {
    /// The segment; stays open while this lives.
    pub file: Arc<dyn LogFile>,
    /// Where the range starts, in bytes.
    pub position: u64,
    /// Its length in bytes.
    pub len: usize,
    /// Who reads it if it is not in memory.
    pub readers: Arc<Readers>,
}

/// An aborted transaction that overlaps a read (KIP-98).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbortedTxn {
    /// The producer.
    pub producer_id: i64,
    /// First offset of the transaction.
    pub first_offset: i64,
}

/// Where a follower's or consumer's history leaves the leader's (KIP-595).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEndOffset {
    /// The epoch; -1 if unknown.
    pub leader_epoch: i32,
    /// The offset after its last record; -1 if unknown.
    pub end_offset: i64,
}

/// What a read found. Only whole batches, except that the last may be cut where the limit fell (as in Kafka).
#[derive(Clone, Debug)]
pub struct ReadResult {
    /// The records, in order; starts with the batch that contains the offset asked for.
    pub slices: Vec<FileSlice>,
    /// The high watermark.
    pub high_watermark: i64,
    /// The last stable offset.
    pub last_stable_offset: i64,
    /// First offset that the log holds.
    pub log_start_offset: i64,
    /// For `ReadCommitted`: aborted transactions that overlap, sorted by first offset.
    pub aborted: Option<Vec<AbortedTxn>>,
    /// The reader's history diverges there; `slices` is empty then.
    pub diverging: Option<EpochEndOffset>,
    /// The read came from an older segment: a long poll ends at once, however little there is.
    pub from_older_segment: bool,
}

impl ReadResult {
    /// Bytes in all slices.
    pub fn size_bytes(&self) -> usize {
        self.slices.iter().map(|slice| slice.len).sum()
    }

    /// The records themselves. SLOW.
    ///
    /// # Errors
    /// What the file says.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.size_bytes()];
        let mut rest = &mut bytes[..];
        for slice in &self.slices {
            let (now, later) = rest.split_at_mut(slice.len);
            slice.file.read_exact_at(now, slice.position)?;
            rest = later;
        }
        Ok(bytes)
    }
}

/// A partition's offsets at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionOffsets {
    /// First offset held.
    pub log_start_offset: i64,
    /// Consumers see below it.
    pub high_watermark: i64,
    /// `ReadCommitted` consumers see below it.
    pub last_stable_offset: i64,
    /// The next offset to be assigned.
    pub log_end_offset: i64,
    /// The offset after the last record in the file.
    pub written_offset: i64,
    /// The current leader epoch; -1 before the first.
    pub leader_epoch: i32,
}

/// What a completion changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Readers may see more: wake fetches and acknowledgements.
    pub high_watermark_moved: bool,
    /// Appends of an ended generation were lost: ask `append_state` for every waiting acknowledgement.
    pub appends_failed: bool,
    /// The log went offline; it comes back through `reopen`.
    pub went_offline: bool,
}

/// The answer to a lookup by timestamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListedOffset {
    /// The record's timestamp; -1 for special lookups and "none".
    pub timestamp: i64,
    /// The offset; -1 for "none".
    pub offset: i64,
    /// Its leader epoch; -1 if unknown.
    pub leader_epoch: i32,
}

/// `ListOffsets`: the high watermark, or the last stable offset for `ReadCommitted`.
pub const LATEST_TIMESTAMP: i64 = -1;
/// `ListOffsets`: the log start offset.
pub const EARLIEST_TIMESTAMP: i64 = -2;
/// `ListOffsets`: the first record with the greatest timestamp (KIP-734).
pub const MAX_TIMESTAMP: i64 = -3;
/// `ListOffsets`: the first offset held locally (KIP-405).
pub const EARLIEST_LOCAL_TIMESTAMP: i64 = -4;
/// `ListOffsets`: the last offset in tiered storage (KIP-1005); always "none" here.
pub const LATEST_TIERED_TIMESTAMP: i64 = -5;
/// `ListOffsets`: the first offset not yet in tiered storage (KIP-1023).
pub const EARLIEST_PENDING_UPLOAD_TIMESTAMP: i64 = -6;
