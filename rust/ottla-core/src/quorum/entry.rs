//! One raft entry is one record batch of Kafka's format: building, checking and reading them.
//!
//! Data batches hold metadata records (null key, the value opaque to us); control batches hold the quorum's own records.
//! Neither is ever compressed (Kafka: `RaftClient` writes its log with `Compression.NONE`).

use bytes::Bytes;

use crate::record::batch::{BatchError, BatchView};
use crate::record::builder::{BatchOptions, NewRecord, build_batch};
use crate::record::control::{ControlType, LeaderChange};
use crate::record::records::{Records, RecordsError};

/// The largest batch of the quorum's log (Kafka: `KafkaRaftClient.MAX_BATCH_SIZE_BYTES`).
pub const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;
/// The most that one record takes beside its value: lengths, attributes, deltas, no headers.
pub const RECORD_OVERHEAD_MAX: usize = 24;

/// Compression, a transaction, or timestamps of the append.
const FOREIGN_ATTRIBUTES: i16 = 0x1f;

/// Reasons to refuse a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The bytes are not a batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The records are not.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// A batch, but not one that a quorum's log holds.
    #[error("{0}")]
    Shape(&'static str),
}

fn options(base_offset: i64, epoch: i32) -> BatchOptions {
    BatchOptions {
        base_offset,
        partition_leader_epoch: epoch,
        ..BatchOptions::default()
    }
}

/// A batch of metadata records: null keys, all with one timestamp. `values` must not be empty.
///
/// # Panics
/// Never: only compression can fail.
pub fn data_batch(base_offset: i64, epoch: i32, timestamp_ms: i64, values: &[Bytes]) -> Bytes {
    debug_assert!(!values.is_empty());
    let record = |value| NewRecord {
        timestamp_ms,
        value: Some(value),
        ..NewRecord::default()
    };
    let values = values.iter().map(|value| record(&value[..]));
    Bytes::from(build_batch(options(base_offset, epoch), values).expect("nothing is compressed"))
}

/// A control batch of one record.
///
/// # Panics
/// Never: only compression can fail.
pub fn control_batch(base_offset: i64, epoch: i32, timestamp_ms: i64, kind: ControlType, value: &[u8]) -> Bytes {
    let record = NewRecord {
        timestamp_ms,
        key: Some(&kind.key()),
        value: Some(value),
        headers: &[],
    };
    let options = BatchOptions {
        control: true,
        ..options(base_offset, epoch)
    };
    Bytes::from(build_batch(options, [record]).expect("nothing is compressed"))
}

/// The batch that opens a leader's epoch, raft's empty entry of a new leader. Who of the voters granted their votes is
/// not kept by the consensus: all are named.
pub fn leader_change_batch(base_offset: i64, epoch: i32, timestamp_ms: i64, leader_id: i32, voters: &[i32]) -> Bytes {
    let change = LeaderChange {
        leader_id,
        voters: voters.to_vec(),
        granting_voters: voters.to_vec(),
    };
    Bytes::from(change.to_batch(base_offset, epoch, timestamp_ms))
}

/// Checks a batch that came from a disk or another voter: whole, intact, and of a shape that this log can hold.
///
/// # Errors
/// What is wrong with it.
pub fn check(batch: &BatchView<'_>) -> Result<(), EntryError> {
    batch.verify_crc()?;
    let shape = |ok: bool, what: &'static str| if ok { Ok(()) } else { Err(EntryError::Shape(what)) };
    shape(batch.size_bytes() <= MAX_BATCH_BYTES, "batch larger than 8 MiB")?;
    shape(batch.base_offset() >= 0, "negative base offset")?;
    shape(batch.partition_leader_epoch() >= 0, "negative leader epoch")?;
    shape(
        batch.attributes() & FOREIGN_ATTRIBUTES == 0,
        "compressed or transactional batch",
    )?;
    shape(batch.record_count() > 0, "batch without records")?;
    shape(
        batch.last_offset_delta() == batch.record_count() - 1,
        "last offset delta does not match the record count",
    )?;
    shape(
        batch.base_offset() <= i64::MAX - i64::from(i32::MAX),
        "base offset too large",
    )
}

/// The values of an uncompressed batch's records, sharing its memory; empty where null.
///
/// # Errors
/// The records contradict their lengths or their count.
pub fn values(batch: &Bytes) -> Result<Vec<Bytes>, EntryError> {
    let view = BatchView::parse(batch)?;
    let value = |record: &[u8]| batch.slice_ref(record);
    Records::new(view.payload(), view.record_count())
        .map(|record| Ok(record?.value.map(value).unwrap_or_default()))
        .collect()
}

/// The control records of a batch: type and value, those without a type left out.
///
/// # Errors
/// As [`values`].
pub fn control_records(batch: &Bytes) -> Result<Vec<(ControlType, Bytes)>, EntryError> {
    let view = BatchView::parse(batch)?;
    let mut found = Vec::new();
    for record in Records::new(view.payload(), view.record_count()) {
        let record = record?;
        if let Some(kind) = record.key.and_then(ControlType::parse) {
            found.push((
                kind,
                record.value.map(|value| batch.slice_ref(value)).unwrap_or_default(),
            ));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn leader_change_is_what_kafka_writes() {
        // The first batch of the metadata log of Apache Kafka 4.3.1 (node 1, the only voter).
        let kafka = [
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x4f, 0, 0, 0, 1, 2, 0x26, 0xc7, 0xa5, 0x84, 0, 0x20, 0, 0, 0, 0, 0, 0, 1,
            0xa2, 6, 0x3a, 0x84, 0xed, 0, 0, 1, 0xa2, 6, 0x3a, 0x84, 0xed, 255, 255, 255, 255, 255, 255, 255, 255, 255,
            255, 255, 255, 255, 255, 0, 0, 0, 1, 0x3a, 0, 0, 0, 8, 0, 0, 0, 2, 0x26, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1,
            0, 2, 0, 0, 0, 1, 0, 0, 0,
        ];
        let ours = leader_change_batch(0, 1, 0x01a2_063a_84ed, 1, &[1]);
        assert_eq!(&ours[..], &kafka[..ours.len()]);
    }

    proptest! {
        #[test]
        fn values_survive(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..40)) {
            let values: Vec<Bytes> = values.into_iter().map(Bytes::from).collect();
            let batch = data_batch(7, 3, 99, &values);
            let view = BatchView::parse(&batch).unwrap();
            check(&view).unwrap();
            prop_assert_eq!(view.size_bytes(), batch.len());
            prop_assert_eq!(view.next_offset(), 7 + values.len() as i64);
            prop_assert_eq!(super::values(&batch).unwrap(), values);
        }

        #[test]
        fn foreign_payloads_never_panic(payload in prop::collection::vec(any::<u8>(), 0..200), count in any::<i32>()) {
            let mut bytes = data_batch(0, 1, 0, &[Bytes::new()]).to_vec();
            bytes.truncate(61);
            bytes.extend(&payload);
            let length = bytes.len() as i32 - 12;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes[57..61].copy_from_slice(&count.to_be_bytes());
            let bytes = Bytes::from(bytes);
            let _ = super::values(&bytes);
            let _ = control_records(&bytes);
        }
    }
}
