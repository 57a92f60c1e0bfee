//! What cleaning leaves of one batch (Kafka: `Cleaner.cleanInto`, `MemoryRecords.filterTo`).

use std::borrow::Cow;
use std::collections::HashMap;

use super::offset_map::OffsetMap;
use super::transactions::{CleanedTransactions, Marker};
use crate::compression::Compression;
use crate::record::batch::{BATCH_OVERHEAD, BatchView, HeaderFields, NO_TIMESTAMP, TimestampType};
use crate::record::builder::{BatchBuilder, BatchOptions, NewRecord};
use crate::record::records::{Record, Records, RecordsError};
use crate::storage::txn_index::AbortedTxnRow;

/// Records of a batch may expand to this much, in bytes; what a producer may send is bounded by far less.
pub(crate) const EXPANSION_LIMIT_BYTES: usize = 1 << 30;

/// The last thing a live producer wrote: what duplicates and fencing are told by after a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LastRecord {
    /// Offset of its last record; `None`: only markers are left of it.
    pub last_offset: Option<i64>,
    pub epoch: i16,
}

/// What one round of cleaning decides by.
#[derive(Debug)]
pub(crate) struct Filter<'a> {
    pub map: &'a OffsetMap,
    /// Everything at or below it was put into the map.
    pub latest_offset: i64,
    /// End of the round: the batch that ends there stays, if only as a header, so that the offset is not lost.
    pub end_offset: i64,
    pub producers: &'a HashMap<i64, LastRecord>,
    pub delete_retention_ms: i64,
    pub wall_ms: i64,
}

/// What becomes of a batch.
#[derive(Debug)]
pub(crate) enum Cleaned<'a> {
    Gone,
    /// As it was, or rewritten.
    Kept(Cow<'a, [u8]>),
}

/// What becomes of a batch, and the row of the transaction index that its marker needs.
#[derive(Debug)]
pub(crate) struct Outcome<'a> {
    pub batch: Cleaned<'a>,
    pub row: Option<AbortedTxnRow>,
    pub records_kept: i32,
}

impl Filter<'_> {
    /// Clean the next batch.
    ///
    /// # Errors
    /// Its records cannot be read.
    pub fn clean<'a>(
        &self,
        batch: &BatchView<'a>,
        transactions: &mut CleanedTransactions,
    ) -> Result<Outcome<'a>, RecordsError> {
        let (marker, is_aborted) = if batch.is_control() {
            (Some(transactions.on_control_batch(batch)?), false)
        } else {
            (None, transactions.on_batch(**batch))
        };
        let row = match marker {
            Some(Marker::NeededWithRow(row)) => Some(row),
            _ => None,
        };
        let is_discardable_marker = marker == Some(Marker::Discardable);
        let horizon_is_over = batch
            .delete_horizon_ms()
            .is_some_and(|horizon_ms| horizon_ms <= self.wall_ms);
        let discards_records = is_aborted || (is_discardable_marker && horizon_is_over);
        let keeps_header = self.is_last_of_producer(batch) || batch.next_offset() == self.end_offset;
        if discards_records && !keeps_header {
            let batch = Cleaned::Gone;
            return Ok(Outcome {
                batch,
                row,
                records_kept: 0,
            });
        }
        let payload = batch.decompressed(EXPANSION_LIMIT_BYTES)?;
        let (mut kept, mut has_tombstone) = (Vec::new(), false);
        for record in Records::new(&payload, batch.record_count()) {
            let record = record?;
            if !discards_records && (batch.is_control() || self.retains(batch, &record)) {
                has_tombstone |= record.value.is_none();
                kept.push(record);
            }
        }
        let records_kept = kept.len() as i32;
        let batch = if kept.is_empty() {
            if keeps_header {
                Cleaned::Kept(Cow::Owned(empty(batch)?))
            } else {
                Cleaned::Gone
            }
        } else {
            let starts_horizon = batch.delete_horizon_ms().is_none() && (has_tombstone || is_discardable_marker);
            if kept.len() as i64 == i64::from(batch.record_count()) && !starts_horizon {
                Cleaned::Kept(Cow::Borrowed(batch.bytes()))
            } else {
                let new_horizon_ms = self.wall_ms.saturating_add(self.delete_retention_ms);
                let horizon_ms = batch.delete_horizon_ms().or(starts_horizon.then_some(new_horizon_ms));
                Cleaned::Kept(Cow::Owned(rewrite(batch, &kept, horizon_ms)?))
            }
        };
        Ok(Outcome {
            batch,
            row,
            records_kept,
        })
    }

    fn is_last_of_producer(&self, batch: &BatchView<'_>) -> bool {
        batch.has_producer_id()
            && self
                .producers
                .get(&batch.producer_id())
                .is_some_and(|last| match last.last_offset {
                    Some(last_offset) => batch.last_offset() == last_offset,
                    None => batch.is_control() && batch.producer_epoch() == last.epoch,
                })
    }

    fn retains(&self, batch: &BatchView<'_>, record: &Record<'_>) -> bool {
        let offset = record.offset(batch);
        if offset > self.latest_offset {
            return true;
        }
        // A record without a key cannot be compacted; the topic was not always compacted.
        let Some(key) = record.key else { return false };
        let is_newest = self.map.get(key).is_none_or(|newest| offset >= newest);
        let is_expired = record.value.is_none()
            && batch
                .delete_horizon_ms()
                .is_some_and(|horizon_ms| self.wall_ms >= horizon_ms);
        is_newest && !is_expired
    }
}

/// The batch without records: it still says how far its producer got, and which offsets it covered.
fn empty(batch: &BatchView<'_>) -> Result<Vec<u8>, RecordsError> {
    let mut bytes = vec![0; BATCH_OVERHEAD];
    let fields = HeaderFields {
        codec: crate::compression::Codec::None,
        delete_horizon: false,
        base_timestamp: NO_TIMESTAMP,
        record_count: 0,
        ..HeaderFields::of(batch)?
    };
    fields.write(&mut bytes);
    Ok(bytes)
}

/// The batch with some of its records. Offsets, and the range of offsets and sequences, stay.
fn rewrite(batch: &BatchView<'_>, kept: &[Record<'_>], horizon_ms: Option<i64>) -> Result<Vec<u8>, RecordsError> {
    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset: batch.base_offset(),
        partition_leader_epoch: batch.partition_leader_epoch(),
        compression: Compression {
            codec: batch.codec()?,
            level: None,
        },
        timestamp_type: batch.timestamp_type(),
        producer_id: batch.producer_id(),
        producer_epoch: batch.producer_epoch(),
        base_sequence: batch.base_sequence(),
        transactional: batch.is_transactional(),
        control: batch.is_control(),
        delete_horizon_ms: horizon_ms,
    })?;
    let mut next = 0;
    for (index, record) in (0..).zip(kept) {
        if !(next..=batch.last_offset_delta()).contains(&record.offset_delta) {
            return Err(RecordsError::Malformed {
                index,
                what: "offset delta out of order",
            });
        }
        next = record.offset_delta.saturating_add(1);
        let headers: Vec<_> = record.headers.iter().collect();
        let timestamp_ms = record.timestamp(batch);
        let new = NewRecord {
            timestamp_ms,
            key: record.key,
            value: record.value,
            headers: &headers,
        };
        builder.append_at(record.offset_delta, &new)?;
    }
    let max_timestamp = match batch.timestamp_type() {
        TimestampType::CreateTime => builder.max_timestamp(),
        TimestampType::LogAppendTime => batch.max_timestamp(),
    };
    Ok(builder.finish_with(batch.last_offset_delta(), max_timestamp)?)
}
