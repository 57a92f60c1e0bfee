//! The core's error: what, where, found against expected, and its code on the wire.

use crate::types::TopicPartition;

/// An error of storage, validation or lookup. `kafka_code` is what a client is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation on files failed; the log concerned is offline until it is recovered.
    #[error("storage failed while {doing}: {source}")]
    Storage {
        /// What was being done.
        doing: &'static str,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// The disk has no room: appends are refused until it has, everything else goes on.
    #[error("no space left in {dir}: appends to {topic_partition} wait for room")]
    NoSpace {
        /// The log directory that is full.
        dir: String,
        /// The partition whose append was refused.
        topic_partition: TopicPartition,
    },
    /// The log had an I/O error or is damaged; it serves nothing until it is recovered.
    #[error("the log of {topic_partition} is offline: {reason}")]
    LogOffline {
        /// The partition concerned.
        topic_partition: TopicPartition,
        /// Why it went offline.
        reason: String,
    },
    /// The log has lost appends of which whoever appends has not heard yet.
    #[error("the log of {topic_partition} has lost what was appended before")]
    LogCut {
        /// The partition concerned.
        topic_partition: TopicPartition,
    },
    /// The partition was closed or deleted.
    #[error("the log of {topic_partition} is closed")]
    LogClosed {
        /// The partition concerned.
        topic_partition: TopicPartition,
    },
    /// A file holds bytes that cannot be what was written.
    #[error("{file} is damaged at byte {position}: {reason}")]
    Damaged {
        /// The file, relative to its log directory.
        file: String,
        /// The first bad byte.
        position: u64,
        /// What was found against what was expected.
        reason: String,
    },
    /// A text file (checkpoint, properties) does not follow its format.
    #[error("{file} is malformed: {reason}")]
    MalformedFile {
        /// The file's path.
        file: String,
        /// What was found against what was expected.
        reason: String,
    },
    /// A partition's directory belongs to an earlier topic of the same name.
    #[error("{dir} belongs to topic id {found}, not to {expected}")]
    InconsistentTopicId {
        /// The partition's directory.
        dir: String,
        /// The id asked for.
        expected: String,
        /// The id in `partition.metadata`.
        found: String,
    },
    /// Another process holds the log directory.
    #[error("log directory {dir} is in use by another process")]
    DirectoryLocked {
        /// The directory.
        dir: String,
    },
    /// The log directory belongs to another node or cluster.
    #[error("log directory {dir} belongs to {found}, not to {expected}")]
    DirectoryMismatch {
        /// The directory.
        dir: String,
        /// Whose it should be.
        expected: String,
        /// Whose it says it is.
        found: String,
    },
    /// A read or a deletion asked for an offset that the log does not hold.
    #[error("offset {offset} of {topic_partition} is outside {log_start_offset}..={log_end_offset}")]
    OffsetOutOfRange {
        /// The partition concerned.
        topic_partition: TopicPartition,
        /// The offset asked for.
        offset: i64,
        /// First offset held.
        log_start_offset: i64,
        /// Offset after the last one held (or visible).
        log_end_offset: i64,
    },
    /// The latest offset cannot be told until the new leader's epoch is committed.
    #[error("the latest offset of {topic_partition} is not known yet in this leader epoch")]
    OffsetNotAvailable {
        /// The partition concerned.
        topic_partition: TopicPartition,
    },
    /// This broker does not lead the partition.
    #[error("this broker does not lead {topic_partition}")]
    NotLeader {
        /// The partition concerned.
        topic_partition: TopicPartition,
    },
    /// The caller's leader epoch is older than the broker's.
    #[error("leader epoch {found} of {topic_partition} is older than {current}")]
    FencedLeaderEpoch {
        /// The partition concerned.
        topic_partition: TopicPartition,
        /// The caller's epoch.
        found: i32,
        /// The broker's epoch.
        current: i32,
    },
    /// The caller's leader epoch is newer than the broker's.
    #[error("leader epoch {found} of {topic_partition} is newer than {current}")]
    UnknownLeaderEpoch {
        /// The partition concerned.
        topic_partition: TopicPartition,
        /// The caller's epoch.
        found: i32,
        /// The broker's epoch.
        current: i32,
    },
    /// A batch is larger than a whole segment may be.
    #[error("{size_bytes} bytes of records exceed segment.bytes {segment_bytes} of {topic_partition}")]
    RecordListTooLarge {
        /// The partition concerned.
        topic_partition: TopicPartition,
        /// Size of the append.
        size_bytes: usize,
        /// The limit.
        segment_bytes: usize,
    },
    /// A gap in an idempotent producer's sequence.
    #[error("sequence {found} of producer {producer_id} in {topic_partition}: expected {expected}")]
    OutOfOrderSequence {
        /// The partition concerned.
        topic_partition: TopicPartition,
        /// The producer.
        producer_id: i64,
        /// The sequence that should have come.
        expected: i32,
        /// The sequence that came.
        found: i32,
    },
    /// An older instance of a producer.
    #[error("epoch {found} of producer {producer_id} in {topic_partition} is older than {current}")]
    InvalidProducerEpoch {
        /// The partition concerned.
        topic_partition: TopicPartition,
        /// The producer.
        producer_id: i64,
        /// The epoch that came.
        found: i16,
        /// The newest epoch known.
        current: i16,
    },
    /// A non-transactional append inside a transaction, or the reverse.
    #[error("producer {producer_id} in {topic_partition}: {reason}")]
    InvalidTxnState {
        /// The partition concerned.
        topic_partition: TopicPartition,
        /// The producer.
        producer_id: i64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A marker of a coordinator that has been replaced.
    #[error("coordinator epoch {found} for producer {producer_id} in {topic_partition} is older than {current}")]
    TransactionCoordinatorFenced {
        /// The partition concerned.
        topic_partition: TopicPartition,
        /// The producer.
        producer_id: i64,
        /// The marker's coordinator epoch.
        found: i32,
        /// The newest coordinator epoch known.
        current: i32,
    },
    /// The operation is not allowed by the topic's policy.
    #[error("{reason} ({topic_partition})")]
    PolicyViolation {
        /// The partition concerned.
        topic_partition: TopicPartition,
        /// What is not allowed.
        reason: &'static str,
    },
    /// A batch in the log does not match its checksum.
    #[error("corrupt batch in {file} at byte {position}: {reason}")]
    CorruptBatch {
        /// The file, relative to its log directory.
        file: String,
        /// Where the batch starts.
        position: u64,
        /// What was found against what was expected.
        reason: String,
    },
    /// A configuration value that Kafka would refuse.
    #[error("invalid value {value} for {key}: {reason}")]
    InvalidConfig {
        /// The key, as Kafka names it.
        key: String,
        /// The value.
        value: String,
        /// What is expected.
        reason: String,
    },
}

impl Error {
    /// The code on the wire (Kafka: `Errors`).
    pub const fn kafka_code(&self) -> i16 {
        match self {
            Self::OffsetOutOfRange { .. } => 1,
            Self::CorruptBatch { .. } => 2,
            Self::NotLeader { .. } => 6,
            Self::RecordListTooLarge { .. } => 18,
            Self::InvalidConfig { .. } => 40,
            Self::PolicyViolation { .. } => 44,
            Self::OutOfOrderSequence { .. } => 45,
            Self::InvalidProducerEpoch { .. } => 47,
            Self::InvalidTxnState { .. } => 48,
            Self::TransactionCoordinatorFenced { .. } => 52,
            Self::Storage { .. }
            | Self::NoSpace { .. }
            | Self::LogOffline { .. }
            | Self::LogCut { .. }
            | Self::LogClosed { .. }
            | Self::Damaged { .. }
            | Self::MalformedFile { .. }
            | Self::DirectoryLocked { .. }
            | Self::DirectoryMismatch { .. } => 56,
            Self::InconsistentTopicId { .. } => 103,
            Self::FencedLeaderEpoch { .. } => 74,
            Self::UnknownLeaderEpoch { .. } => 75,
            Self::OffsetNotAvailable { .. } => 78,
        }
    }

    /// A function that names what was being done when the system refused.
    pub fn storage(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Storage { doing, source }
    }
}

/// The core's result.
pub type Result<T> = std::result::Result<T, Error>;
