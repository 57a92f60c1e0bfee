//! One partition: its log, leadership cell, high watermark, last stable offset and waiters.

use std::sync::Arc;

use crate::error::Result;
use crate::record::validate::ValidatedBatch;
use crate::storage::config::LogConfig;
use crate::storage::fs::LogFile;
use crate::storage::log_dir::{Completion, LogDir, PartitionId};
use crate::types::{Isolation, TopicId, TopicPartition};

/// How to open or create a partition.
#[derive(Clone, Debug)]
pub struct PartitionOptions {
    /// The name of its completions.
    pub id: PartitionId,
    /// Topic and index.
    pub topic_partition: TopicPartition,
    /// The topic's id; compared with `partition.metadata` where that exists.
    pub topic_id: TopicId,
    /// The topic's settings.
    pub config: LogConfig,
}

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
    /// Not yet below the high watermark.
    Pending,
    /// Below the high watermark.
    Committed,
    /// Lost to a failed write: answer `KAFKA_STORAGE_ERROR` (56), the client retries.
    Failed,
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

/// One partition. Internally locked; the lock is never held across I/O.
#[derive(Debug)]
pub struct Partition {
    topic_partition: TopicPartition,
}

impl Partition {
    /// Open the partition's directory below `dir`, creating it if absent and recovering it if the last stop was not
    /// clean. SLOW only when it must recover.
    ///
    /// # Errors
    /// `Storage`, `Damaged` (fenced off: bad bytes with good ones behind them).
    pub fn open(dir: &Arc<LogDir>, options: PartitionOptions, wall_ms: i64) -> Result<Arc<Self>> {
        let _ = (dir, options.id, wall_ms);
        unimplemented!("lands next")
    }

    /// Topic and index.
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.topic_partition
    }

    /// The name of its completions.
    pub fn id(&self) -> PartitionId {
        unimplemented!("lands next")
    }

    /// The topic's id.
    pub fn topic_id(&self) -> TopicId {
        unimplemented!("lands next")
    }

    /// The directory that holds it.
    pub fn log_dir(&self) -> &Arc<LogDir> {
        unimplemented!("lands next")
    }

    /// Assign offsets, check the producer, stamp, roll if needed, take the bytes into the tail and queue their write.
    /// Never touches the disk. QUICK.
    ///
    /// `required_leader_epoch`: refuse unless it is the current one (coordinators write under the epoch they loaded in).
    ///
    /// # Errors
    /// `NotLeader`, `FencedLeaderEpoch`, `UnknownLeaderEpoch`, `RecordListTooLarge`, `OutOfOrderSequence`,
    /// `InvalidProducerEpoch`, `InvalidTxnState`, `TransactionCoordinatorFenced`, `NoSpace`, `LogOffline`, `LogClosed`.
    pub fn append_as_leader(
        &self,
        batch: ValidatedBatch,
        required_leader_epoch: Option<i32>,
        wall_ms: i64,
    ) -> Result<Appended> {
        let _ = (batch, required_leader_epoch, wall_ms);
        unimplemented!("lands next")
    }

    /// Where an append stands. QUICK.
    pub fn append_state(&self, appended: &Appended) -> AppendState {
        let _ = appended;
        unimplemented!("lands next")
    }

    /// Feed a completion of this partition's jobs. QUICK.
    pub fn on_completion(&self, completion: &Completion) -> Progress {
        let _ = completion;
        unimplemented!("lands next")
    }

    /// Records from `offset` on, visible under `isolation`, at most `max_bytes` (soft with `min_one`: the first batch comes
    /// whole even if larger, KIP-74). QUICK when the index and the position are in memory, else a few small file reads.
    ///
    /// `current_leader_epoch`, `last_fetched_epoch`: -1 for none.
    ///
    /// # Errors
    /// `OffsetOutOfRange`, `FencedLeaderEpoch`, `UnknownLeaderEpoch`, `NotLeader`, `LogOffline`, `Storage`.
    pub fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        isolation: Isolation,
        min_one: bool,
        current_leader_epoch: i32,
        last_fetched_epoch: i32,
    ) -> Result<ReadResult> {
        let _ = (
            offset,
            max_bytes,
            isolation,
            min_one,
            current_leader_epoch,
            last_fetched_epoch,
        );
        unimplemented!("lands next")
    }

    /// The offsets at this moment. QUICK.
    pub fn offsets(&self) -> PartitionOffsets {
        unimplemented!("lands next")
    }

    /// About how many bytes a read from `offset` could return, for `min_bytes`. QUICK, never reads files.
    pub fn bytes_available(&self, offset: i64, isolation: Isolation) -> u64 {
        let _ = (offset, isolation);
        unimplemented!("lands next")
    }

    /// Look an offset up by timestamp (Unix ms) or by one of the special values. QUICK for `LATEST`, `EARLIEST` and their
    /// kin; SLOW otherwise (reads and decompresses a batch).
    ///
    /// # Errors
    /// `OffsetNotAvailable` right after an election, `FencedLeaderEpoch`, `UnknownLeaderEpoch`, `LogOffline`, `Storage`.
    pub fn list_offset(
        &self,
        timestamp: i64,
        isolation: Option<Isolation>,
        current_leader_epoch: i32,
    ) -> Result<ListedOffset> {
        let _ = (timestamp, isolation, current_leader_epoch);
        unimplemented!("lands next")
    }

    /// Where a leader epoch ended (KIP-320). QUICK.
    pub fn end_offset_for_epoch(&self, leader_epoch: i32, current_leader_epoch: i32) -> Result<EpochEndOffset> {
        let _ = (leader_epoch, current_leader_epoch);
        unimplemented!("lands next")
    }

    /// Move the log start offset up to `offset` (-1: the high watermark); returns the new one. Files go later. QUICK.
    ///
    /// # Errors
    /// `OffsetOutOfRange` above the high watermark, `PolicyViolation` for a topic that is only compacted.
    pub fn delete_records(&self, offset: i64) -> Result<i64> {
        let _ = offset;
        unimplemented!("lands next")
    }

    /// Become leader in `leader_epoch`. The next append starts the epoch in the log.
    pub fn set_leadership(&self, leader_epoch: i32) -> Result<()> {
        let _ = leader_epoch;
        unimplemented!("lands next")
    }

    /// Take new settings; they hold from the next append on. QUICK.
    pub fn configure(&self, config: LogConfig) {
        let _ = config;
        unimplemented!("lands next")
    }

    /// The settings now. QUICK.
    pub fn config(&self) -> Arc<LogConfig> {
        unimplemented!("lands next")
    }

    /// Bytes of all segments, the unwritten tail included. QUICK.
    pub fn size_bytes(&self) -> u64 {
        unimplemented!("lands next")
    }

    /// Syncs due by `flush.ms` are queued; producers whose time is over are forgotten. QUICK; call every second or so.
    pub fn on_tick(&self, now_ms: i64, wall_ms: i64) {
        let _ = (now_ms, wall_ms);
        unimplemented!("lands next")
    }

    /// Sync everything appended so far; returns the offset below which all survives a power failure. SLOW.
    pub fn flush(&self) -> Result<i64> {
        unimplemented!("lands next")
    }

    /// Bring an offline log back through recovery. SLOW.
    pub fn reopen(&self, wall_ms: i64) -> Result<()> {
        let _ = wall_ms;
        unimplemented!("lands next")
    }

    /// Write out what is pending, the final index entries and the producer snapshot; nothing can be appended after. SLOW.
    pub fn close(&self) -> Result<()> {
        unimplemented!("lands next")
    }

    /// Close and remove: renamed to `<topic>-<n>.<uuid>-delete` at once, the files go in a background job. SLOW.
    pub fn delete(&self) -> Result<()> {
        unimplemented!("lands next")
    }
}
