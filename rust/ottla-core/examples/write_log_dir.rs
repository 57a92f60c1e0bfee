//! Writes a log directory for Apache Kafka's own tools to read: `cargo run --example write_log_dir -- DIR`.
#![allow(clippy::print_stdout, reason = "a program for the command line")]

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use ottla_core::compression::{Codec, Compression};
use ottla_core::partition::{Partition, PartitionOptions};
use ottla_core::record::batch::TimestampType;
use ottla_core::record::builder::{BatchOptions, NewRecord, build_batch};
use ottla_core::record::control::{MarkerType, TransactionMarker};
use ottla_core::record::validate::{Origin, TopicCompression, ValidateContext, validate_produce};
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::log_dir::{LogDir, LogDirMeta, LogDirOptions, PartitionId};
use ottla_core::storage::real_fs::RealFs;
use ottla_core::types::{TopicId, TopicPartition};

const WALL_MS: i64 = 1_700_000_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: write_log_dir DIR")?;
    let dir = LogDir::open(&LogDirOptions {
        fs: Arc::new(RealFs),
        path: Path::new(&path).to_path_buf(),
        meta: LogDirMeta {
            cluster_id: "MkU3OEVBNTcwNTJENDM2Qg".to_owned(),
            node_id: 1,
            directory_id: "AAAAAAAAAAAAAAAAAAAAAQ".to_owned(),
        },
        waker: Arc::new(|| {}),
        threads: true,
        open_files_max: 100,
        index_cache_bytes: 1 << 20,
        reserved_bytes: 0,
    })?;
    let partition = Partition::open(
        &dir,
        PartitionOptions {
            id: PartitionId(1),
            topic_partition: TopicPartition {
                topic: "from-ottla".into(),
                partition: 0,
            },
            topic_id: TopicId([9; 16]),
            config: LogConfig {
                segment_bytes: 1 << 20,
                ..LogConfig::default()
            },
        },
        WALL_MS,
    )?;
    for number in 0..3000_i64 {
        if number % 1000 == 0 {
            partition.set_leadership(number as i32 / 1000)?;
        }
        let codec = Codec::ALL[(number % 5) as usize];
        let (producer_id, base_sequence) = if number % 3 == 0 {
            (4000, number as i32 / 3 * 7)
        } else {
            (-1, -1)
        };
        let options = BatchOptions {
            compression: Compression {
                codec,
                ..Compression::default()
            },
            producer_id,
            producer_epoch: if producer_id < 0 { -1 } else { 0 },
            base_sequence,
            ..BatchOptions::default()
        };
        append(&partition, Origin::Client, options, number)?;
        if number % 500 == 499 {
            let options = BatchOptions {
                producer_id: 5000,
                producer_epoch: 1,
                base_sequence: number as i32 / 500 * 7,
                transactional: true,
                ..BatchOptions::default()
            };
            append(&partition, Origin::Client, options, number)?;
            let marker_type = if number % 1000 == 999 {
                MarkerType::Abort
            } else {
                MarkerType::Commit
            };
            let marker = TransactionMarker {
                producer_id: 5000,
                producer_epoch: 1,
                marker_type,
                coordinator_epoch: 3,
            };
            let bytes = marker.to_batch(0, -1, WALL_MS + number);
            partition.append_as_leader(validated(&bytes, Origin::Coordinator)?, None, WALL_MS)?;
        }
    }
    partition.flush()?;
    partition.close()?;
    dir.close()?;
    println!("{:?}", partition.offsets());
    Ok(())
}

fn append(
    partition: &Partition,
    origin: Origin,
    options: BatchOptions,
    number: i64,
) -> Result<(), Box<dyn std::error::Error>> {
    let values: Vec<String> = (0..7)
        .map(|record| format!("{number}/{record} {}", "lorem ipsum ".repeat(20)))
        .collect();
    let records = values.iter().enumerate().map(|(record, value)| NewRecord {
        timestamp_ms: WALL_MS + number * 10 - record as i64 % 3,
        key: Some(b"key"),
        value: Some(value.as_bytes()),
        headers: &[],
    });
    let bytes = build_batch(options, records)?;
    partition.append_as_leader(validated(&bytes, origin)?, None, WALL_MS)?;
    Ok(())
}

fn validated(
    bytes: &[u8],
    origin: Origin,
) -> Result<ottla_core::record::validate::ValidatedBatch, Box<dyn std::error::Error>> {
    let context = ValidateContext {
        origin,
        produce_version: 12,
        wall_ms: WALL_MS,
        compacted: false,
        compression: TopicCompression::Producer,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        max_message_bytes: 1 << 30,
        expansion_limit_bytes: 1 << 30,
    };
    validate_produce(BytesMut::from(bytes), &context).map_err(|rejection| rejection.message.into())
}
