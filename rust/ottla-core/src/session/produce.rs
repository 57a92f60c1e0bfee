//! Produce (key 0), versions 3 to 13: from bytes, and the response to bytes.
//!
//! Version 3 brought batches v2 and the transactional id, 5 the log start offset, 7 zstd, 8 errors of single records
//! (KIP-467), 9 the flexible encoding, 10 leader hints (KIP-951), 12 implicit addition to transactions (KIP-890), 13 topic
//! ids (KIP-516). Source: `ProduceRequest.json`, `ProduceResponse.json`.

use std::ops::Range;

use crate::types::TopicId;
use crate::wire::{Reader, WireError, Writer};

/// Versions that are served. 0 to 2 are advertised for old librdkafka's sake (KAFKA-18659), but do not exist.
pub const VERSIONS: std::ops::RangeInclusive<i16> = 3..=13;

const FLEXIBLE_FROM: i16 = 9;
const TOPIC_IDS_FROM: i16 = 13;

/// Whether a version names topics by id.
pub fn uses_topic_ids(version: i16) -> bool {
    version >= TOPIC_IDS_FROM
}

/// Bytes of a partition's entry at least: index and length of the records.
const PARTITION_BYTES_MIN: usize = 5;
/// Bytes of a topic's entry at least: an empty name and an empty array.
const TOPIC_BYTES_MIN: usize = 2;

/// One partition's records: where they lie in the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducePartition {
    /// Partition index.
    pub partition: i32,
    /// Where the records lie in the bytes that were read; None for null.
    pub records: Option<Range<usize>>,
}

/// One topic of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceTopic<'a> {
    /// Name, up to version 12.
    pub name: &'a str,
    /// Id, from version 13 on.
    pub topic_id: TopicId,
    /// Its partitions in the order of the request.
    pub partitions: Vec<ProducePartition>,
}

/// A Produce request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceRequest<'a> {
    /// Set by transactional producers.
    pub transactional_id: Option<&'a str>,
    /// 0: no response; 1: the leader wrote it; -1: all in-sync replicas have it.
    pub acks: i16,
    /// How long to wait for that.
    pub timeout_ms: i32,
    /// Topics in the order of the request.
    pub topics: Vec<ProduceTopic<'a>>,
}

impl<'a> ProduceRequest<'a> {
    /// Read a request's body; `reader` stands behind the header, and ranges count from its first byte.
    pub fn read(reader: &mut Reader<'a>, version: i16) -> Result<Self, WireError> {
        let flexible = version >= FLEXIBLE_FROM;
        let transactional_id = reader.nullable_string(flexible, "transactional id")?;
        let acks = reader.i16()?;
        let timeout_ms = reader.i32()?;
        let topic_count = reader.array_len(flexible, TOPIC_BYTES_MIN, "topic data")?;
        let mut topics = Vec::new();
        for _ in 0..topic_count {
            topics.push(read_topic(reader, version)?);
        }
        reader.skip_tagged_fields(flexible)?;
        Ok(Self {
            transactional_id,
            acks,
            timeout_ms,
            topics,
        })
    }
}

fn read_topic<'a>(reader: &mut Reader<'a>, version: i16) -> Result<ProduceTopic<'a>, WireError> {
    let flexible = version >= FLEXIBLE_FROM;
    let (name, topic_id) = if uses_topic_ids(version) {
        ("", reader.uuid()?)
    } else {
        (reader.string(flexible, "topic name")?, TopicId::ZERO)
    };
    let partition_count = reader.array_len(flexible, PARTITION_BYTES_MIN, "partition data")?;
    let mut partitions = Vec::new();
    for _ in 0..partition_count {
        let partition = reader.i32()?;
        let records = reader.nullable_bytes(flexible, "records")?;
        let end = reader.position();
        let records = records.map(|records| end - records.len()..end);
        reader.skip_tagged_fields(flexible)?;
        partitions.push(ProducePartition { partition, records });
    }
    reader.skip_tagged_fields(flexible)?;
    Ok(ProduceTopic {
        name,
        topic_id,
        partitions,
    })
}

/// What became of one partition's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionResponse {
    /// Partition index.
    pub partition: i32,
    /// Kafka's error code, 0 for none.
    pub error_code: i16,
    /// Offset of the first record; -1 on error.
    pub base_offset: i64,
    /// The broker's time (Unix ms) under `LogAppendTime`, else -1.
    pub log_append_time_ms: i64,
    /// First offset that the log holds; -1 if unknown.
    pub log_start_offset: i64,
    /// (index in the batch, what is wrong) of the records to blame.
    pub record_errors: Vec<(i32, Option<String>)>,
    /// What is wrong, in words.
    pub error_message: Option<String>,
}

impl PartitionResponse {
    /// An error.
    pub fn error(partition: i32, error_code: i16, error_message: Option<String>) -> Self {
        Self {
            partition,
            error_code,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: Vec::new(),
            error_message,
        }
    }
}

/// One topic of the response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicResponse {
    /// Name, up to version 12.
    pub name: String,
    /// Id, from version 13 on.
    pub topic_id: TopicId,
    /// Its partitions in the order of the request.
    pub partitions: Vec<PartitionResponse>,
}

/// Write a whole response frame: size, header, body. Leader hints (tagged) are left out: a lone broker has no other
/// leader to name.
pub fn write_response(version: i16, correlation_id: i32, topics: &[TopicResponse]) -> Vec<u8> {
    let flexible = version >= FLEXIBLE_FROM;
    let mut out = Writer::with_capacity(128);
    out.i32(0);
    out.i32(correlation_id);
    out.no_tagged_fields(flexible);
    out.array_len(flexible, topics.len());
    for topic in topics {
        if uses_topic_ids(version) {
            out.uuid(topic.topic_id);
        } else {
            out.string(flexible, &topic.name);
        }
        out.array_len(flexible, topic.partitions.len());
        for partition in &topic.partitions {
            write_partition(&mut out, version, partition);
        }
        out.no_tagged_fields(flexible);
    }
    out.i32(0); // throttle time
    out.no_tagged_fields(flexible);
    let size = out.len() - 4;
    out.set_i32(0, size as i32);
    out.into_bytes()
}

fn write_partition(out: &mut Writer, version: i16, partition: &PartitionResponse) {
    let flexible = version >= FLEXIBLE_FROM;
    out.i32(partition.partition);
    out.i16(partition.error_code);
    out.i64(partition.base_offset);
    out.i64(partition.log_append_time_ms);
    if version >= 5 {
        out.i64(partition.log_start_offset);
    }
    if version >= 8 {
        out.array_len(flexible, partition.record_errors.len());
        for (index, message) in &partition.record_errors {
            out.i32(*index);
            out.nullable_string(flexible, message.as_deref());
            out.no_tagged_fields(flexible);
        }
        out.nullable_string(flexible, partition.error_message.as_deref());
    }
    out.no_tagged_fields(flexible);
}
