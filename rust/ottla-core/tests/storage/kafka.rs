//! A directory that Apache Kafka wrote: the same records, the same index bytes, the same producers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ottla_core::partition::{MAX_TIMESTAMP, Partition};
use ottla_core::record::batch::Batches;
use ottla_core::record::control::TransactionMarker;
use ottla_core::record::records::Records;
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::log_dir::{LastStop, LogDir, LogDirOptions};
use ottla_core::storage::producer_state::ProducerState;
use ottla_core::storage::real_fs::RealFs;
use ottla_core::types::{Isolation, TopicId};

use super::support::{Scratch, dir_options, meta, topic_partition};
use ottla_core::partition::PartitionOptions;
use ottla_core::storage::log_dir::PartitionId;

/// Soon after the directory was written: its producers have not expired.
const WALL_MS: i64 = 1_795_405_640_000;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/kafka-4.3.1-log-dir")
}

fn copy(name: &str) -> (Scratch, LogDirOptions) {
    let scratch = Scratch::new(name);
    for dir in ["", "golden-0"] {
        fs::create_dir_all(scratch.0.join(dir)).unwrap();
        for entry in fs::read_dir(golden().join(dir)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), scratch.0.join(dir).join(entry.file_name())).unwrap();
            }
        }
    }
    let options = dir_options(Arc::new(RealFs), &scratch.0);
    (scratch, options)
}

fn open(dir: &Arc<LogDir>) -> Arc<Partition> {
    let options = PartitionOptions {
        id: PartitionId(1),
        topic_partition: topic_partition("golden", 0),
        topic_id: TopicId::ZERO,
        config: LogConfig {
            index_interval_bytes: 300,
            segment_ms: 1500,
            ..LogConfig::default()
        },
    };
    let partition = Partition::open(dir, options, WALL_MS).unwrap();
    partition.set_leadership(1).unwrap();
    partition
}

/// `offset timestamp value` of every record, as `DumpLogSegments` shows them.
fn dump(partition: &Partition) -> Vec<String> {
    let mut lines = Vec::new();
    let mut offset = 0;
    while offset < partition.offsets().high_watermark {
        let result = partition
            .read(offset, 1000, Isolation::ReadCommitted, true, -1, -1)
            .unwrap();
        assert_eq!(result.aborted, Some(Vec::new()));
        for slice in &result.slices {
            let mut bytes = vec![0; slice.len];
            slice.file.read_exact_at(&mut bytes, slice.position).unwrap();
            for batch in Batches::new(&bytes) {
                let batch = batch.unwrap();
                batch.verify_crc().unwrap();
                let marker = TransactionMarker::parse(&batch);
                let payload = batch.decompressed(1 << 20).unwrap();
                for record in Records::new(&payload, batch.record_count()) {
                    let record = record.unwrap();
                    let mut value = String::from_utf8_lossy(record.value.unwrap()).into_owned();
                    if batch.is_control() {
                        value = format!("{:?}", marker.clone().unwrap().unwrap().marker_type).to_uppercase();
                    }
                    lines.push(format!(
                        "{} {} {value}",
                        record.offset(&batch),
                        record.timestamp(&batch)
                    ));
                }
                offset = batch.next_offset();
            }
        }
    }
    lines
}

fn expected() -> Vec<String> {
    fs::read_to_string(golden().join("records.txt"))
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn indexes(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
        .filter(|(name, _)| name.ends_with("index"))
        .map(|(name, path)| (name, fs::read(path).unwrap()))
        .collect();
    found.sort();
    found
}

fn check_lookups(partition: &Partition) {
    let expected = expected();
    let records: Vec<(i64, i64)> = expected
        .iter()
        .map(|line| {
            let mut fields = line.split(' ').map(|field| field.parse().unwrap_or(-1));
            (fields.next().unwrap(), fields.next().unwrap())
        })
        .collect();
    for (_, timestamp) in &records {
        let found = partition
            .list_offset(*timestamp, Some(Isolation::ReadUncommitted), -1)
            .unwrap();
        let first = records.iter().find(|(_, other)| other >= timestamp).unwrap();
        assert_eq!((found.offset, found.timestamp), *first);
    }
    let found = partition
        .list_offset(MAX_TIMESTAMP, Some(Isolation::ReadUncommitted), -1)
        .unwrap();
    assert_eq!((found.offset, found.timestamp), *records.last().unwrap());
}

#[test]
fn a_directory_that_kafka_closed_needs_no_scan_and_serves_its_records() {
    let (scratch, options) = copy("kafka-clean");
    assert_eq!(
        LogDir::read_meta(&RealFs, &scratch.0).unwrap().unwrap().cluster_id,
        meta().cluster_id
    );
    let dir = LogDir::open(&options).unwrap();
    assert_eq!(dir.last_stop(), LastStop::CleanEarlierBoot);
    assert_eq!(dir.partitions(), [topic_partition("golden", 0)]);
    let partition = open(&dir);
    assert_eq!(partition.recovery_report().scanned_bytes, 0);
    assert_ne!(partition.topic_id(), TopicId::ZERO);
    assert_eq!(dump(&partition), expected());
    check_lookups(&partition);
    partition.close().unwrap();
    dir.close().unwrap();
    assert_eq!(
        indexes(&scratch.0.join("golden-0")),
        indexes(&golden().join("golden-0"))
    );
}

#[test]
fn indexes_made_anew_have_the_bytes_of_kafkas() {
    let (scratch, options) = copy("kafka-rebuild");
    for (name, _) in indexes(&scratch.0.join("golden-0")) {
        fs::remove_file(scratch.0.join("golden-0").join(name)).unwrap();
    }
    let dir = LogDir::open(&options).unwrap();
    let partition = open(&dir);
    assert_eq!(dump(&partition), expected());
    check_lookups(&partition);
    partition.close().unwrap();
    dir.close().unwrap();
    assert_eq!(
        indexes(&scratch.0.join("golden-0")),
        indexes(&golden().join("golden-0"))
    );
}

#[test]
fn a_directory_that_kafka_did_not_close_is_recovered() {
    let (scratch, options) = copy("kafka-unclean");
    fs::remove_file(scratch.0.join(".kafka_cleanshutdown")).unwrap();
    fs::write(
        scratch.0.join("recovery-point-offset-checkpoint"),
        "0\n1\ngolden 0 120\n",
    )
    .unwrap();
    let dir = scratch.0.join("golden-0");
    // Kafka gives the indexes of the segment in use their full size at once.
    for (suffix, size_bytes) in [("index", 10_485_760), ("timeindex", 10_485_756)] {
        let path = dir.join(format!("{:020}.{suffix}", 300));
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(size_bytes)
            .unwrap();
    }
    fs::remove_file(dir.join(format!("{:020}.snapshot", 363))).unwrap();
    let log_dir = LogDir::open(&options).unwrap();
    assert_eq!(log_dir.last_stop(), LastStop::PowerFailed);
    let partition = open(&log_dir);
    assert!(partition.recovery_report().scanned_bytes > 0);
    assert_eq!(partition.recovery_report().cut, []);
    assert_eq!(dump(&partition), expected());
    check_lookups(&partition);
    partition.close().unwrap();
    log_dir.close().unwrap();
    assert_eq!(indexes(&dir), indexes(&golden().join("golden-0")));
    // The last batch of each producer, found again from the snapshot of offset 120 on.
    let read = |dir: &Path| {
        let content = fs::read(dir.join(format!("{:020}.snapshot", 363))).unwrap();
        let state = ProducerState::decode_snapshot(&content, WALL_MS, i64::MAX).unwrap();
        let mut entries: Vec<_> = state.iter().map(|(id, entry)| (id, *entry)).collect();
        entries.sort_unstable_by_key(|(id, _)| *id);
        assert_eq!(state.encode_snapshot().len(), content.len());
        entries
    };
    assert_eq!(read(&dir), read(&golden().join("golden-0")));
}

#[test]
fn a_snapshot_has_the_bytes_of_kafkas() {
    let content = fs::read(golden().join("golden-0").join(format!("{:020}.snapshot", 60))).unwrap();
    let state = ProducerState::decode_snapshot(&content, WALL_MS, i64::MAX).unwrap();
    assert_eq!((state.len(), state.encode_snapshot()), (1, content));
}
