//! What a consumer sees of a compacted log.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ottla_core::compression::Compression;
use ottla_core::log_cleaner::{CleanProgress, CleanStats, LogCleaner};
use ottla_core::partition::{AppendState, Partition};
use ottla_core::record::batch::{BatchView, Batches};
use ottla_core::record::builder::{BatchOptions, NewRecord, build_batch};
use ottla_core::record::control::{MarkerType, TransactionMarker};
use ottla_core::record::records::Records;
use ottla_core::record::validate::Origin;
use ottla_core::storage::config::{CleanupPolicy, LogConfig};
use ottla_core::storage::log_dir::LogDir;
use ottla_core::types::Isolation;

use super::support::{WALL_MS, settle, validated};

/// A record of a test: key, value (`None`: a tombstone), timestamp in Unix ms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
    pub timestamp_ms: i64,
}

pub fn entry(key: &str, value: Option<&str>) -> Entry {
    Entry {
        key: key.into(),
        value: value.map(Into::into),
        timestamp_ms: WALL_MS,
    }
}

/// Small segments, compacted as soon as anything is dirty.
pub fn compacted() -> LogConfig {
    LogConfig {
        segment_bytes: 500,
        index_interval_bytes: 100,
        cleanup_policy: CleanupPolicy {
            delete: false,
            compact: true,
        },
        min_cleanable_dirty_ratio: 0.0,
        ..LogConfig::default()
    }
}

/// Append a batch; returns its base offset.
pub fn put(dir: &LogDir, partition: &Partition, options: BatchOptions, entries: &[Entry]) -> i64 {
    let records = entries.iter().map(|entry| NewRecord {
        timestamp_ms: entry.timestamp_ms,
        key: Some(&entry.key),
        value: entry.value.as_deref(),
        ..NewRecord::default()
    });
    let bytes = build_batch(options, records).unwrap();
    append_bytes(dir, partition, &bytes, Origin::Client)
}

/// End a producer's transaction; returns the marker's offset.
pub fn end(dir: &LogDir, partition: &Partition, producer: (i64, i16), marker_type: MarkerType, wall_ms: i64) -> i64 {
    let (producer_id, producer_epoch) = producer;
    let marker = TransactionMarker {
        producer_id,
        producer_epoch,
        marker_type,
        coordinator_epoch: 0,
    };
    append_bytes(dir, partition, &marker.to_batch(0, -1, wall_ms), Origin::Coordinator)
}

fn append_bytes(dir: &LogDir, partition: &Partition, bytes: &[u8], origin: Origin) -> i64 {
    let appended = partition
        .append_as_leader(validated(bytes, origin), None, WALL_MS)
        .unwrap();
    settle(dir, &[partition]);
    assert_eq!(partition.append_state(&appended), AppendState::Committed);
    while dir.step_background() {}
    appended.base_offset
}

pub fn plain() -> BatchOptions {
    BatchOptions::default()
}

pub fn packed(codec: ottla_core::compression::Codec) -> BatchOptions {
    BatchOptions {
        compression: Compression { codec, level: None },
        ..plain()
    }
}

/// One round of cleaning in small steps; `None` if nothing was due.
pub fn clean(cleaner: &mut LogCleaner, partition: &Arc<Partition>, wall_ms: i64) -> Option<CleanStats> {
    cleaner.pick(std::slice::from_ref(partition), wall_ms).unwrap()?;
    loop {
        match cleaner.step(300).unwrap() {
            CleanProgress::Working { .. } => {}
            CleanProgress::Finished { stats, .. } => return Some(stats),
            other => panic!("{other:?}"),
        }
    }
}

/// Every whole batch from an offset on.
pub fn batches_from(partition: &Partition, from: i64, isolation: Isolation) -> (Vec<Vec<u8>>, Vec<(i64, i64)>) {
    let (mut batches, mut aborted) = (Vec::new(), Vec::new());
    let mut offset = from;
    loop {
        let result = partition.read(offset, 700, isolation, true, -1, -1).unwrap();
        for txn in result.aborted.unwrap_or_default() {
            if !aborted.contains(&(txn.producer_id, txn.first_offset)) {
                aborted.push((txn.producer_id, txn.first_offset));
            }
        }
        let before = offset;
        for slice in &result.slices {
            let mut bytes = vec![0; slice.len];
            slice.file.read_exact_at(&mut bytes, slice.position).unwrap();
            for batch in Batches::new(&bytes) {
                let batch = batch.unwrap();
                batch.verify_crc().unwrap();
                if batch.next_offset() > offset {
                    offset = batch.next_offset();
                    batches.push(batch.bytes().to_vec());
                }
            }
        }
        if offset == before {
            return (batches, aborted);
        }
    }
}

/// All records by offset, control records left out.
pub fn all_records(partition: &Partition) -> BTreeMap<i64, Entry> {
    let (batches, _) = batches_from(
        partition,
        partition.offsets().log_start_offset,
        Isolation::ReadUncommitted,
    );
    let views: Vec<_> = batches.iter().map(|bytes| BatchView::parse(bytes).unwrap()).collect();
    views
        .iter()
        .filter(|batch| !batch.is_control())
        .flat_map(entries_of)
        .collect()
}

/// Records by offset as a consumer of committed data sees them.
pub fn committed_records(partition: &Partition) -> BTreeMap<i64, Entry> {
    let start = partition.offsets().log_start_offset;
    let (batches, mut aborted) = batches_from(partition, start, Isolation::ReadCommitted);
    let mut records = BTreeMap::new();
    let mut aborting = HashSet::new();
    for bytes in &batches {
        let batch = BatchView::parse(bytes).unwrap();
        aborted.retain(|(producer_id, first_offset)| {
            let begins = *first_offset <= batch.last_offset();
            if begins {
                aborting.insert(*producer_id);
            }
            !begins
        });
        if batch.is_control() {
            if batch.record_count() > 0 {
                let marker = TransactionMarker::parse(&batch).unwrap().unwrap();
                if marker.marker_type == MarkerType::Abort {
                    aborting.remove(&marker.producer_id);
                }
            }
        } else if !(batch.is_transactional() && aborting.contains(&batch.producer_id())) {
            records.extend(entries_of(&batch));
        }
    }
    records
}

pub fn entries_of(batch: &BatchView<'_>) -> Vec<(i64, Entry)> {
    let payload = batch.decompressed(1 << 24).unwrap();
    Records::new(&payload, batch.record_count())
        .map(|record| {
            let record = record.unwrap();
            let entry = Entry {
                key: record.key.unwrap_or_default().to_vec(),
                value: record.value.map(<[u8]>::to_vec),
                timestamp_ms: record.timestamp(batch),
            };
            (record.offset(batch), entry)
        })
        .collect()
}

/// The value of each key after all records; keys whose last record is a tombstone are absent.
pub fn final_state(records: &BTreeMap<i64, Entry>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut state = BTreeMap::new();
    for entry in records.values() {
        match &entry.value {
            Some(value) => state.insert(entry.key.clone(), value.clone()),
            None => state.remove(&entry.key),
        };
    }
    state
}
