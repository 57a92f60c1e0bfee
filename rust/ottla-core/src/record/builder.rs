//! Builds record batches of format v2.

use super::batch::{
    BATCH_OVERHEAD, HeaderFields, NO_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP,
    TimestampType,
};
use super::varint;
use crate::compression::{Compression, CompressionError, Encoder};

/// What a batch's header shall say beyond its records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchOptions {
    /// Offset of the first record; 0 for a produce request.
    pub base_offset: i64,
    /// -1 for a produce request.
    pub partition_leader_epoch: i32,
    /// Codec and level.
    pub compression: Compression,
    /// Who set the timestamps. Under `LogAppendTime` the max timestamp is the time of the append.
    pub timestamp_type: TimestampType,
    /// -1: none.
    pub producer_id: i64,
    /// -1: none.
    pub producer_epoch: i16,
    /// -1: none.
    pub base_sequence: i32,
    /// Part of a transaction.
    pub transactional: bool,
    /// Control records.
    pub control: bool,
    /// Marks the batch with a delete horizon (KIP-534), in Unix ms: record timestamps are then relative to it.
    pub delete_horizon_ms: Option<i64>,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            base_offset: 0,
            partition_leader_epoch: NO_LEADER_EPOCH,
            compression: Compression::default(),
            timestamp_type: TimestampType::CreateTime,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            transactional: false,
            control: false,
            delete_horizon_ms: None,
        }
    }
}

/// One record to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewRecord<'a> {
    /// In Unix ms; -1: none.
    pub timestamp_ms: i64,
    /// None: null.
    pub key: Option<&'a [u8]>,
    /// None: null.
    pub value: Option<&'a [u8]>,
    /// Key and value of each.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// Builds one batch, record by record.
pub struct BatchBuilder {
    options: BatchOptions,
    encoder: Encoder,
    scratch: Vec<u8>,
    base_timestamp: Option<i64>,
    max_timestamp: i64,
    last_offset_delta: i32,
    record_count: i32,
    uncompressed_bytes: usize,
}

impl BatchBuilder {
    /// An empty batch.
    ///
    /// # Errors
    /// `InvalidLevel`.
    pub fn new(options: BatchOptions) -> Result<Self, CompressionError> {
        Ok(Self {
            options,
            encoder: Encoder::new(options.compression, vec![0; BATCH_OVERHEAD])?,
            scratch: Vec::new(),
            base_timestamp: options.delete_horizon_ms,
            max_timestamp: NO_TIMESTAMP,
            last_offset_delta: -1,
            record_count: 0,
            uncompressed_bytes: 0,
        })
    }

    /// Adds a record at the next offset.
    ///
    /// # Errors
    /// As [`Encoder::write`].
    pub fn append(&mut self, record: &NewRecord<'_>) -> Result<(), CompressionError> {
        self.append_at(self.last_offset_delta + 1, record)
    }

    /// Adds a record at an offset relative to the base offset, larger than that of the one before.
    ///
    /// # Errors
    /// As [`Encoder::write`].
    ///
    /// # Panics
    /// If the offset does not grow, or the record has 2 GiB or more.
    pub fn append_at(&mut self, offset_delta: i32, record: &NewRecord<'_>) -> Result<(), CompressionError> {
        assert!(offset_delta > self.last_offset_delta, "offsets grow");
        let base_timestamp = *self.base_timestamp.get_or_insert(record.timestamp_ms);
        let timestamp_delta = record.timestamp_ms.wrapping_sub(base_timestamp);
        self.scratch.clear();
        write_record(offset_delta, timestamp_delta, record, &mut self.scratch);
        self.encoder.write(&self.scratch)?;
        self.uncompressed_bytes += self.scratch.len();
        self.max_timestamp = self.max_timestamp.max(record.timestamp_ms);
        self.last_offset_delta = offset_delta;
        self.record_count += 1;
        Ok(())
    }

    /// Bytes of the batch so far, as if it were not compressed.
    pub fn uncompressed_size_bytes(&self) -> usize {
        BATCH_OVERHEAD + self.uncompressed_bytes
    }

    /// Largest timestamp so far, -1 if none.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Number of records so far.
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// The batch.
    ///
    /// # Errors
    /// As [`Encoder::finish`].
    pub fn finish(self) -> Result<Vec<u8>, CompressionError> {
        let (last_offset_delta, max_timestamp) = (self.last_offset_delta, self.max_timestamp);
        self.finish_with(last_offset_delta, max_timestamp)
    }

    /// The batch, with a last offset and max timestamp of its own: what compaction has to keep.
    ///
    /// # Errors
    /// As [`Encoder::finish`].
    ///
    /// # Panics
    /// If the last offset is below that of a record, or the batch has 2 GiB or more.
    pub fn finish_with(self, last_offset_delta: i32, max_timestamp: i64) -> Result<Vec<u8>, CompressionError> {
        assert!(
            last_offset_delta >= self.last_offset_delta,
            "the last offset covers the records"
        );
        let fields = HeaderFields {
            base_offset: self.options.base_offset,
            partition_leader_epoch: self.options.partition_leader_epoch,
            codec: self.options.compression.codec,
            timestamp_type: self.options.timestamp_type,
            transactional: self.options.transactional,
            control: self.options.control,
            delete_horizon: self.options.delete_horizon_ms.is_some(),
            last_offset_delta,
            base_timestamp: self.base_timestamp.unwrap_or(NO_TIMESTAMP),
            max_timestamp,
            producer_id: self.options.producer_id,
            producer_epoch: self.options.producer_epoch,
            base_sequence: self.options.base_sequence,
            record_count: self.record_count,
        };
        let mut batch = self.encoder.finish()?;
        fields.write(&mut batch);
        Ok(batch)
    }
}

/// A batch of `records`, at successive offsets.
///
/// # Errors
/// `InvalidLevel`.
pub fn build_batch<'a>(
    options: BatchOptions,
    records: impl IntoIterator<Item = NewRecord<'a>>,
) -> Result<Vec<u8>, CompressionError> {
    let mut builder = BatchBuilder::new(options)?;
    for record in records {
        builder.append(&record)?;
    }
    builder.finish()
}

/// Appends one record: length and body.
fn write_record(offset_delta: i32, timestamp_delta: i64, record: &NewRecord<'_>, out: &mut Vec<u8>) {
    let body_bytes = 1
        + varint::size_bytes(timestamp_delta)
        + varint::size_bytes(i64::from(offset_delta))
        + blob_size_bytes(record.key)
        + blob_size_bytes(record.value)
        + varint::size_bytes(record.headers.len() as i64)
        + record
            .headers
            .iter()
            .map(|(key, value)| blob_size_bytes(Some(key)) + blob_size_bytes(*value))
            .sum::<usize>();
    let length = i32::try_from(body_bytes).expect("a record is smaller than 2 GiB");
    varint::write(i64::from(length), out);
    out.push(0);
    varint::write(timestamp_delta, out);
    varint::write(i64::from(offset_delta), out);
    write_blob(record.key, out);
    write_blob(record.value, out);
    varint::write(record.headers.len() as i64, out);
    for (key, value) in record.headers {
        write_blob(Some(key), out);
        write_blob(*value, out);
    }
}

fn blob_size_bytes(blob: Option<&[u8]>) -> usize {
    blob.map_or(1, |blob| varint::size_bytes(blob.len() as i64) + blob.len())
}

fn write_blob(blob: Option<&[u8]>, out: &mut Vec<u8>) {
    match blob {
        None => varint::write(-1, out),
        Some(blob) => {
            varint::write(blob.len() as i64, out);
            out.extend_from_slice(blob);
        }
    }
}
