//! Fetch (key 1), versions 4 to 18: from bytes, and the response to buffers and file ranges.
//!
//! Version 5 brought log start offsets, 7 fetch sessions (KIP-227), 9 the leader epoch (KIP-320), 10 zstd, 11 the rack
//! (KIP-392), 12 the flexible encoding and diverging epochs (KIP-595), 13 topic ids (KIP-516), 15 the replica state
//! (KIP-903), 16 leader hints (KIP-951), 17 directory ids (KIP-853), 18 the follower's high watermark (KIP-1166).
//! Source: `FetchRequest.json`, `FetchResponse.json`.

use super::output::Chunk;
use crate::partition::{AbortedTxn, EpochEndOffset, FileSlice};
use crate::partition_table::TopicKey;
use crate::types::{Isolation, TopicId};
use crate::wire::{Reader, WireError, Writer};

/// Versions that are served.
pub const VERSIONS: std::ops::RangeInclusive<i16> = 4..=18;

const FLEXIBLE_FROM: i16 = 12;
const TOPIC_IDS_FROM: i16 = 13;
const LEADER_HINTS_FROM: i16 = 16;

/// Whether a version names topics by id.
pub fn uses_topic_ids(version: i16) -> bool {
    version >= TOPIC_IDS_FROM
}

/// Bytes of a partition's entry at least: index, offset, size.
const PARTITION_BYTES_MIN: usize = 16;
/// Bytes of a topic's entry at least: an empty name and an empty array.
const TOPIC_BYTES_MIN: usize = 2;

/// One partition of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FetchPartition {
    /// Partition index.
    pub partition: i32,
    /// Leader epoch that the client knows; -1 for none.
    pub current_leader_epoch: i32,
    /// First offset wanted.
    pub fetch_offset: i64,
    /// Epoch of the last record fetched; -1 for none.
    pub last_fetched_epoch: i32,
    /// First offset that a follower holds; -1 from consumers.
    pub log_start_offset: i64,
    /// Bound of this partition's records in bytes; the first batch of a response may exceed it (KIP-74).
    pub max_bytes: i32,
}

/// A topic of the request, as named on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicName<'a> {
    /// Up to version 12.
    Name(&'a str),
    /// From version 13 on.
    Id(TopicId),
}

/// A Fetch request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest<'a> {
    /// -1 from consumers.
    pub replica_id: i32,
    /// How long to wait for `min_bytes`.
    pub max_wait_ms: i32,
    /// Answer at once when there are so many.
    pub min_bytes: i32,
    /// Bound of the response's records in bytes.
    pub max_bytes: i32,
    /// What may be seen; None for a level that does not exist.
    pub isolation: Option<Isolation>,
    /// Fetch session, 0 for none.
    pub session_id: i32,
    /// -1: no session; 0: a new one; n: its nth continuation.
    pub session_epoch: i32,
    /// What to fetch: in a continued session, what to add or change.
    pub topics: Vec<(TopicName<'a>, Vec<FetchPartition>)>,
    /// What to drop from the session.
    pub forgotten: Vec<(TopicName<'a>, Vec<i32>)>,
}

impl<'a> FetchRequest<'a> {
    /// Read a request's body; `reader` stands behind the header.
    pub fn read(reader: &mut Reader<'a>, version: i16) -> Result<Self, WireError> {
        let flexible = version >= FLEXIBLE_FROM;
        let mut replica_id = if version <= 14 { reader.i32()? } else { -1 };
        let max_wait_ms = reader.i32()?;
        let min_bytes = reader.i32()?;
        let max_bytes = reader.i32()?;
        let isolation = match reader.i8()? {
            0 => Some(Isolation::ReadUncommitted),
            1 => Some(Isolation::ReadCommitted),
            _ => None,
        };
        let (session_id, session_epoch) = if version >= 7 {
            (reader.i32()?, reader.i32()?)
        } else {
            (0, -1)
        };
        let topic_count = reader.array_len(flexible, TOPIC_BYTES_MIN, "topics")?;
        let mut topics = Vec::new();
        for _ in 0..topic_count {
            topics.push(read_topic(reader, version)?);
        }
        let forgotten_count = if version >= 7 {
            reader.array_len(flexible, TOPIC_BYTES_MIN, "forgotten topics")?
        } else {
            0
        };
        let mut forgotten = Vec::new();
        for _ in 0..forgotten_count {
            forgotten.push(read_forgotten(reader, version)?);
        }
        if version >= 11 {
            reader.string(flexible, "rack id")?;
        }
        reader.tagged_fields(flexible, |tag, field| match tag {
            1 if version >= 15 => {
                replica_id = field.i32()?;
                field.i64()?; // the replica's epoch
                field.skip_tagged_fields(true)?;
                Ok(true)
            }
            _ => Ok(false),
        })?;
        Ok(Self {
            replica_id,
            max_wait_ms,
            min_bytes,
            max_bytes,
            isolation,
            session_id,
            session_epoch,
            topics,
            forgotten,
        })
    }
}

fn read_name<'a>(reader: &mut Reader<'a>, version: i16) -> Result<TopicName<'a>, WireError> {
    if uses_topic_ids(version) {
        return reader.uuid().map(TopicName::Id);
    }
    reader
        .string(version >= FLEXIBLE_FROM, "topic name")
        .map(TopicName::Name)
}

fn read_topic<'a>(reader: &mut Reader<'a>, version: i16) -> Result<(TopicName<'a>, Vec<FetchPartition>), WireError> {
    let flexible = version >= FLEXIBLE_FROM;
    let name = read_name(reader, version)?;
    let partition_count = reader.array_len(flexible, PARTITION_BYTES_MIN, "partitions")?;
    let mut partitions = Vec::new();
    for _ in 0..partition_count {
        let partition = reader.i32()?;
        // As in Kafka any negative epoch is "none" here, though not in ListOffsets.
        let current_leader_epoch = if version >= 9 { reader.i32()?.max(-1) } else { -1 };
        let fetch_offset = reader.i64()?;
        let last_fetched_epoch = if version >= 12 { reader.i32()? } else { -1 };
        let log_start_offset = if version >= 5 { reader.i64()? } else { -1 };
        let max_bytes = reader.i32()?;
        reader.skip_tagged_fields(flexible)?; // directory id and high watermark of followers
        partitions.push(FetchPartition {
            partition,
            current_leader_epoch,
            fetch_offset,
            last_fetched_epoch,
            log_start_offset,
            max_bytes,
        });
    }
    reader.skip_tagged_fields(flexible)?;
    Ok((name, partitions))
}

fn read_forgotten<'a>(reader: &mut Reader<'a>, version: i16) -> Result<(TopicName<'a>, Vec<i32>), WireError> {
    let flexible = version >= FLEXIBLE_FROM;
    let name = read_name(reader, version)?;
    let partition_count = reader.array_len(flexible, 4, "forgotten partitions")?;
    let mut partitions = Vec::new();
    for _ in 0..partition_count {
        partitions.push(reader.i32()?);
    }
    reader.skip_tagged_fields(flexible)?;
    Ok((name, partitions))
}

/// What was read of one partition.
#[derive(Debug, Clone)]
pub struct PartitionResponse {
    /// Partition index.
    pub partition: i32,
    /// Kafka's error code, 0 for none.
    pub error_code: i16,
    /// -1 on error.
    pub high_watermark: i64,
    /// -1 on error.
    pub last_stable_offset: i64,
    /// -1 on error.
    pub log_start_offset: i64,
    /// For `ReadCommitted`, sorted by first offset; None for null.
    pub aborted: Option<Vec<AbortedTxn>>,
    /// The client's history leaves the leader's there.
    pub diverging: Option<EpochEndOffset>,
    /// (leader id, leader epoch) for a client that asked the wrong broker or in an old epoch (KIP-951).
    pub current_leader: Option<(i32, i32)>,
    /// The records.
    pub records: Vec<FileSlice>,
}

impl PartitionResponse {
    /// An error.
    pub fn error(partition: i32, error_code: i16) -> Self {
        Self {
            partition,
            error_code,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted: Some(Vec::new()),
            diverging: None,
            current_leader: None,
            records: Vec::new(),
        }
    }

    /// Bytes of records.
    pub fn records_bytes(&self) -> usize {
        self.records.iter().map(|slice| slice.len).sum()
    }
}

/// A response: partitions of one topic in a row belong together.
#[derive(Debug, Clone)]
pub struct FetchResponse {
    /// Kafka's error code of the whole, 0 for none.
    pub error_code: i16,
    /// The fetch session, 0 for none.
    pub session_id: i32,
    /// What was read, in order.
    pub partitions: Vec<(TopicKey, PartitionResponse)>,
}

impl FetchResponse {
    /// An error of the whole.
    pub fn error(error_code: i16, session_id: i32) -> Self {
        Self {
            error_code,
            session_id,
            partitions: Vec::new(),
        }
    }

    /// Write the whole frame (size, header, body) as buffers and, between them, file ranges. Endpoints of leaders
    /// (tagged) are left out: the client knows the only broker.
    pub fn into_chunks(self, version: i16, correlation_id: i32) -> Vec<Chunk> {
        let flexible = version >= FLEXIBLE_FROM;
        let mut writer = FrameWriter {
            out: Writer::with_capacity(64 + 64 * self.partitions.len()),
            splices: Vec::new(),
        };
        let out = &mut writer.out;
        out.i32(0);
        out.i32(correlation_id);
        out.no_tagged_fields(flexible);
        out.i32(0); // throttle time
        if version >= 7 {
            out.i16(self.error_code);
            out.i32(self.session_id);
        }
        let topics = || self.partitions.chunk_by(|(a, _), (b, _)| a == b);
        out.array_len(flexible, topics().count());
        for topic in topics() {
            match &topic[0].0 {
                TopicKey::Name(name) => writer.out.string(flexible, name),
                TopicKey::Id(id) => writer.out.uuid(*id),
            }
            writer.out.array_len(flexible, topic.len());
            for (_, partition) in topic {
                writer.partition(version, partition);
            }
            writer.out.no_tagged_fields(flexible);
        }
        writer.out.no_tagged_fields(flexible);
        writer.finish(self.partitions)
    }
}

fn write_tagged_fields(out: &mut Writer, version: i16, partition: &PartitionResponse) {
    let current_leader = partition.current_leader.filter(|_| version >= LEADER_HINTS_FROM);
    out.uvarint(u32::from(partition.diverging.is_some()) + u32::from(current_leader.is_some()));
    if let Some(diverging) = partition.diverging {
        out.uvarint(0); // DivergingEpoch,
        out.uvarint(4 + 8 + 1); // of this size
        out.i32(diverging.leader_epoch);
        out.i64(diverging.end_offset);
        out.uvarint(0);
    }
    if let Some((leader_id, leader_epoch)) = current_leader {
        out.uvarint(1); // CurrentLeader,
        out.uvarint(4 + 4 + 1); // of this size
        out.i32(leader_id);
        out.i32(leader_epoch);
        out.uvarint(0);
    }
}

struct FrameWriter {
    out: Writer,
    /// Where each partition's records go between the written bytes.
    splices: Vec<usize>,
}

impl FrameWriter {
    fn partition(&mut self, version: i16, partition: &PartitionResponse) {
        let flexible = version >= FLEXIBLE_FROM;
        let out = &mut self.out;
        out.i32(partition.partition);
        out.i16(partition.error_code);
        out.i64(partition.high_watermark);
        out.i64(partition.last_stable_offset);
        if version >= 5 {
            out.i64(partition.log_start_offset);
        }
        match &partition.aborted {
            None => out.null_array(flexible),
            Some(aborted) => {
                out.array_len(flexible, aborted.len());
                for txn in aborted {
                    out.i64(txn.producer_id);
                    out.i64(txn.first_offset);
                    out.no_tagged_fields(flexible);
                }
            }
        }
        if version >= 11 {
            out.i32(-1); // preferred read replica
        }
        out.array_len(flexible, partition.records_bytes());
        self.splices.push(out.len());
        if flexible {
            write_tagged_fields(out, version, partition);
        }
    }

    fn finish(mut self, partitions: Vec<(TopicKey, PartitionResponse)>) -> Vec<Chunk> {
        let records_bytes: usize = partitions.iter().map(|(_, p)| p.records_bytes()).sum();
        let size = self.out.len() - 4 + records_bytes;
        self.out.set_i32(0, size as i32);
        let mut bytes = self.out.into_bytes();
        let mut chunks = Vec::new();
        // Back to front, so that each tail is split off once.
        for (position, (_, partition)) in self.splices.into_iter().zip(partitions).rev() {
            if partition.records.is_empty() {
                continue;
            }
            chunks.push(Chunk::Bytes(bytes.split_off(position)));
            chunks.extend(partition.records.into_iter().rev().map(Chunk::File));
        }
        chunks.push(Chunk::Bytes(bytes));
        chunks.reverse();
        chunks
    }
}
