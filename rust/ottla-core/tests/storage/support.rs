//! Verbs of the storage tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ottla_core::compression::Compression;
use ottla_core::partition::{AppendState, Appended, Partition, PartitionOptions, ReadResult};
use ottla_core::record::batch::{Batches, TimestampType};
use ottla_core::record::builder::{BatchOptions, NewRecord, build_batch};
use ottla_core::record::records::Records;
use ottla_core::record::validate::{Origin, TopicCompression, ValidateContext, ValidatedBatch, validate_produce};
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::fs::LogFs;
use ottla_core::storage::log_dir::{LogDir, LogDirMeta, LogDirOptions, PartitionId};
use ottla_core::storage::sim_fs::SimFs;
use ottla_core::types::{Isolation, TopicId, TopicPartition};

pub const WALL_MS: i64 = 1_700_000_000_000;

pub fn meta() -> LogDirMeta {
    LogDirMeta {
        cluster_id: "MkU3OEVBNTcwNTJENDM2Qg".to_owned(),
        node_id: 1,
        directory_id: "AAAAAAAAAAAAAAAAAAAAAQ".to_owned(),
    }
}

pub fn dir_options(fs: Arc<dyn LogFs>, path: &Path) -> LogDirOptions {
    LogDirOptions {
        fs,
        path: path.to_path_buf(),
        meta: meta(),
        waker: Arc::new(|| {}),
        threads: false,
        open_files_max: 4,
        index_cache_bytes: 1 << 16,
        reserved_bytes: 0,
    }
}

pub fn topic_partition(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition {
        topic: topic.into(),
        partition,
    }
}

/// A scratch directory of the real file system, removed in the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ottla-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn open(dir: &Arc<LogDir>, topic: &str, config: LogConfig) -> Arc<Partition> {
    try_open(dir, topic, config).unwrap()
}

pub fn try_open(dir: &Arc<LogDir>, topic: &str, config: LogConfig) -> ottla_core::error::Result<Arc<Partition>> {
    open_as_leader(dir, topic, config, 1)
}

pub fn open_as_leader(
    dir: &Arc<LogDir>,
    topic: &str,
    config: LogConfig,
    leader_epoch: i32,
) -> ottla_core::error::Result<Arc<Partition>> {
    let options = PartitionOptions {
        id: PartitionId(u64::from(crc32c::crc32c(topic.as_bytes()))),
        topic_partition: topic_partition(topic, 0),
        topic_id: TopicId([7; 16]),
        config,
    };
    let partition = Partition::open(dir, options, WALL_MS)?;
    partition.set_leadership(leader_epoch)?;
    Ok(partition)
}

/// Who writes a batch, and where it stands in that producer's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub sequence: i32,
}

/// A batch of records of these values, one ms apart.
pub fn batch(values: &[&[u8]], timestamp: i64, producer: Option<Producer>) -> ValidatedBatch {
    let options = BatchOptions {
        compression: Compression::default(),
        producer_id: producer.map_or(-1, |producer| producer.id),
        producer_epoch: producer.map_or(-1, |producer| producer.epoch),
        base_sequence: producer.map_or(-1, |producer| producer.sequence),
        ..BatchOptions::default()
    };
    let records = values.iter().enumerate().map(|(number, value)| NewRecord {
        timestamp_ms: timestamp + number as i64,
        key: None,
        value: Some(value),
        ..NewRecord::default()
    });
    let bytes = build_batch(options, records).unwrap();
    validated(&bytes, Origin::Client)
}

pub fn validated(bytes: &[u8], origin: Origin) -> ValidatedBatch {
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
    validate_produce(bytes.into(), &context).unwrap()
}

pub fn append(partition: &Partition, values: &[&[u8]], timestamp: i64) -> Appended {
    partition
        .append_as_leader(batch(values, timestamp, None), None, WALL_MS)
        .unwrap()
}

/// Let the writer do everything that is queued and tell the partitions.
pub fn settle(dir: &LogDir, partitions: &[&Partition]) {
    while dir.step_writer() {}
    for completion in dir.drain_completions() {
        for partition in partitions
            .iter()
            .filter(|partition| partition.id() == completion.partition)
        {
            partition.on_completion(&completion);
        }
    }
}

/// Write and expect success.
pub fn commit(dir: &LogDir, partition: &Partition, appended: &Appended) {
    settle(dir, &[partition]);
    assert_eq!(partition.append_state(appended), AppendState::Committed);
}

/// Offset and value of each record that a read returns.
pub fn records_of(result: &ReadResult) -> Vec<(i64, Vec<u8>)> {
    let mut found = Vec::new();
    for slice in &result.slices {
        let mut bytes = vec![0; slice.len];
        slice.file.read_exact_at(&mut bytes, slice.position).unwrap();
        for batch in Batches::new(&bytes) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            let payload = batch.decompressed(1 << 24).unwrap();
            for record in Records::new(&payload, batch.record_count()) {
                let record = record.unwrap();
                found.push((record.offset(&batch), record.value.unwrap_or_default().to_vec()));
            }
        }
    }
    found
}

/// All records from an offset to the high watermark, as a consumer reads them.
pub fn consume(partition: &Partition, from: i64, max_bytes: usize) -> Vec<(i64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut offset = from;
    loop {
        let result = partition
            .read(offset, max_bytes, Isolation::ReadUncommitted, true, -1, -1)
            .unwrap();
        let records = records_of(&result);
        let Some(last) = records.last() else { break };
        assert!(last.0 >= offset, "a read at {offset} returned nothing new");
        let next = last.0 + 1;
        found.extend(records.into_iter().filter(|(found, _)| *found >= offset));
        offset = next;
    }
    found
}

pub fn open_dir(fs: &SimFs) -> Arc<LogDir> {
    LogDir::open(&dir_options(Arc::new(fs.clone()), Path::new("/log"))).unwrap()
}

pub fn logs(fs: &SimFs) -> Vec<String> {
    let is_log = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == "log");
    let name = |path: PathBuf| {
        path.file_stem()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_start_matches('0')
            .to_owned()
    };
    fs.paths().into_iter().filter(is_log).map(name).collect()
}
