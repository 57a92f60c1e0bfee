//! What a leader checks of a batch before it assigns offsets (everything that does not need the log).
//!
//! The checks, their order and their codes are those of Kafka's `ProduceRequest.validateRecords`,
//! `UnifiedLog.analyzeAndValidateRecords` and `LogValidator`, asked of a running broker
//! (`tests/golden/records/produce_checks.tsv`). Some answers differ on purpose:
//!
//! - A compressed record whose length does not match its fields is `INVALID_RECORD` here too. Kafka does not look at
//!   it and stores a batch that no consumer can read.
//! - Offset deltas other than 0, 1, 2, ... are put right. Kafka stores them as they come if the batch is uncompressed,
//!   so that records overlap the next batch, and fails (`UNKNOWN_SERVER_ERROR`) if it is compressed.
//! - A payload that expands beyond the limit is `MESSAGE_TOO_LARGE`. Kafka has no limit.
//! - The answer names the first 1000 bad records of a batch. Kafka names all of them.

use bytes::BytesMut;

use super::batch::{
    BATCH_OVERHEAD, BatchView, HeaderFields, LOG_OVERHEAD, MAGIC, NO_TIMESTAMP, TimestampType, stamp_offset_and_epoch,
    stamp_timestamp,
};
use super::builder::{BatchBuilder, BatchOptions, NewRecord};
use super::control::TransactionMarker;
use super::records::{Record, Records, RecordsError};
pub use super::rejection::ProduceRejection;
use super::rejection::{
    CORRUPT_MESSAGE, INVALID_RECORD, INVALID_TIMESTAMP, MESSAGE_TOO_LARGE, UNSUPPORTED_COMPRESSION_TYPE, reject,
};
use super::scan::{Scan, Scanner};
use crate::compression::{Codec, Compression, Decoder, Encoder};

/// Produce versions before this one carry no zstd (KIP-110).
const ZSTD_PRODUCE_VERSION: i16 = 7;
/// The smallest length field of any format that ever was (v0).
const LENGTH_MIN: i32 = 14;
const MAGIC_AT: usize = 16;
/// Records of one batch that are named in the answer at most; clients take the others for good ones in bad company. A
/// batch of a few KiB may expand to millions.
const RECORD_ERRORS_MAX: usize = 1000;

/// Who appends (Kafka: `AppendOrigin`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Origin {
    /// A producer, through Produce.
    #[default]
    Client,
    /// A coordinator of this broker; may write control batches.
    Coordinator,
}

/// A topic's `compression.type` with the level of its codec.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TopicCompression {
    /// `producer`: what the producer chose is kept.
    #[default]
    Producer,
    /// Any other value: batches with another codec are compressed anew. `Codec::None` is `uncompressed`.
    Fixed(Compression),
}

/// The topic's settings and the request's circumstances.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ValidateContext {
    /// Who appends.
    pub origin: Origin,
    /// Version of the Produce request; `i16::MAX` for other origins.
    pub produce_version: i16,
    /// The wall clock, in Unix ms.
    pub wall_ms: i64,
    /// `cleanup.policy` contains `compact`: every record needs a key.
    pub compacted: bool,
    /// `compression.type` and its level.
    pub compression: TopicCompression,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `max.message.bytes`: bound of the batch as stored, in bytes.
    pub max_message_bytes: usize,
    /// Bound of the records once decompressed, in bytes.
    pub expansion_limit_bytes: usize,
}

/// A batch that passed every check, owning its bytes. Offsets and leader epoch are still to be stamped.
#[derive(Clone, Debug)]
pub struct ValidatedBatch {
    bytes: BytesMut,
    log_append_time_ms: i64,
}

impl ValidatedBatch {
    /// A marker of the transaction coordinator: made here, so there is nothing to check.
    pub fn of_marker(marker: &TransactionMarker, wall_ms: i64) -> Self {
        Self {
            bytes: BytesMut::from(&marker.to_batch(0, -1, wall_ms)[..]),
            log_append_time_ms: NO_TIMESTAMP,
        }
    }

    /// The header and payload.
    pub fn view(&self) -> BatchView<'_> {
        BatchView::parse(&self.bytes).expect("validated when made")
    }

    /// The broker's time if the topic says `LogAppendTime`, else -1; for the produce response.
    pub fn log_append_time_ms(&self) -> i64 {
        self.log_append_time_ms
    }

    /// Size in bytes as it will be stored.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Stamps base offset and leader epoch in place.
    pub fn stamp(&mut self, base_offset: i64, leader_epoch: i32) {
        stamp_offset_and_epoch(&mut self.bytes, base_offset, leader_epoch);
    }

    /// Gives the bytes away.
    pub fn into_bytes(self) -> BytesMut {
        self.bytes
    }
}

/// Checks one partition's records of a Produce request, or a batch of a coordinator.
///
/// # Errors
/// The rejection to answer with.
pub fn validate_produce(mut records: BytesMut, context: &ValidateContext) -> Result<ValidatedBatch, ProduceRejection> {
    let size_bytes = check_frame(&records, context).map_err(ProduceRejection::of_request)?;
    records.truncate(size_bytes); // a cut batch behind the first is passed over, as Kafka does
    let batch = BatchView::parse(&records)?;
    check_header(&batch, context)?;
    let source = batch.codec()?;
    let target = match context.compression {
        TopicCompression::Producer => source,
        TopicCompression::Fixed(compression) => compression.codec,
    };
    // control records are as small as can be: they stay as they were written
    let keep = source == target || (source == Codec::None && batch.is_control());
    let (scan, recompressed) = scan_records(
        &batch,
        source,
        if keep { None } else { context.compression.fixed() },
        context.expansion_limit_bytes,
    )?;
    check_records(&batch, &scan, context)?;

    let rewritten = if scan.offsets_in_order {
        recompressed
    } else {
        let level = context.compression.fixed().and_then(|fixed| fixed.level);
        Some(renumber(
            &batch,
            Compression {
                codec: if keep { source } else { target },
                level,
            },
            context,
        )?)
    };
    let max_timestamp = max_timestamp(&batch, &scan);
    if let Some(rewritten) = rewritten {
        check_size(rewritten.len(), context)?;
        records = BytesMut::from(&rewritten[..]);
    }
    let log_append_time_ms = match context.timestamp_type {
        TimestampType::CreateTime => NO_TIMESTAMP,
        TimestampType::LogAppendTime => context.wall_ms,
    };
    let max_timestamp = if context.timestamp_type == TimestampType::CreateTime {
        max_timestamp
    } else {
        context.wall_ms
    };
    stamp_timestamp(&mut records, context.timestamp_type, max_timestamp);
    Ok(ValidatedBatch {
        bytes: records,
        log_append_time_ms,
    })
}

/// How Kafka's reader of a request's records (`ByteBufferLogInputStream`) sees the next batch.
enum Framed {
    Batch {
        size_bytes: usize,
        magic: u8,
    },
    /// Fewer bytes than the batch takes: passed over in silence.
    Cut,
    /// A length or magic that no batch can have.
    Corrupt(String),
}

fn frame(bytes: &[u8]) -> Framed {
    let Some(&[l0, l1, l2, l3]) = bytes.get(8..LOG_OVERHEAD) else {
        return Framed::Cut;
    };
    let length = i32::from_be_bytes([l0, l1, l2, l3]);
    if length < LENGTH_MIN {
        return Framed::Corrupt(format!("batch length field is {length}"));
    }
    match bytes.get(MAGIC_AT) {
        None => Framed::Cut,
        Some(&magic) if magic > MAGIC as u8 => Framed::Corrupt(format!("batch magic is {magic}")),
        Some(&magic) => {
            let size_bytes = LOG_OVERHEAD + length as usize;
            if bytes.len() < size_bytes {
                Framed::Cut
            } else {
                Framed::Batch { size_bytes, magic }
            }
        }
    }
}

/// The size of the one batch, in bytes.
fn check_frame(records: &[u8], context: &ValidateContext) -> Result<usize, ProduceRejection> {
    let (size_bytes, magic) = match frame(records) {
        Framed::Batch { size_bytes, magic } => (size_bytes, magic),
        Framed::Cut => return Err(reject(INVALID_RECORD, "the request holds no whole record batch")),
        Framed::Corrupt(message) => return Err(reject(CORRUPT_MESSAGE, message)),
    };
    if magic != MAGIC as u8 {
        return Err(reject(
            INVALID_RECORD,
            format!("record batches have magic 2, this one has {magic}"),
        ));
    }
    if size_bytes < BATCH_OVERHEAD {
        return Err(reject(
            CORRUPT_MESSAGE,
            format!("a record batch of {size_bytes} bytes is smaller than its header"),
        ));
    }
    if context.produce_version < ZSTD_PRODUCE_VERSION && BatchView::parse(records)?.codec() == Ok(Codec::Zstd) {
        return Err(reject(UNSUPPORTED_COMPRESSION_TYPE, "zstd needs version 7 of Produce"));
    }
    match frame(&records[size_bytes..]) {
        Framed::Cut => Ok(size_bytes),
        Framed::Corrupt(message) => Err(reject(CORRUPT_MESSAGE, message)),
        Framed::Batch { .. } => Err(reject(INVALID_RECORD, "more than one record batch for a partition")),
    }
}

fn check_size(size_bytes: usize, context: &ValidateContext) -> Result<(), ProduceRejection> {
    if size_bytes > context.max_message_bytes {
        let max = context.max_message_bytes;
        return Err(reject(
            MESSAGE_TOO_LARGE,
            format!("the record batch has {size_bytes} bytes, the topic allows {max}"),
        ));
    }
    Ok(())
}

fn check_header(batch: &BatchView<'_>, context: &ValidateContext) -> Result<(), ProduceRejection> {
    let client = context.origin == Origin::Client;
    if client && batch.base_offset() != 0 {
        let offset = batch.base_offset();
        return Err(reject(
            INVALID_RECORD,
            format!("base offset of a produced batch is 0, this one has {offset}"),
        ));
    }
    check_size(batch.size_bytes(), context)?;
    batch.verify_crc()?;
    batch.codec()?;
    let (delta, count) = (batch.last_offset_delta(), batch.record_count());
    if count <= 0 || i64::from(delta) + 1 != i64::from(count) {
        return Err(reject(
            INVALID_RECORD,
            format!("last offset delta {delta} does not fit {count} records"),
        ));
    }
    if client && batch.is_control() {
        return Err(reject(INVALID_RECORD, "clients do not write control records"));
    }
    if client && batch.has_producer_id() && batch.base_sequence() < 0 {
        let (producer_id, sequence) = (batch.producer_id(), batch.base_sequence());
        return Err(reject(
            INVALID_RECORD,
            format!("sequence {sequence} with producer id {producer_id}"),
        ));
    }
    Ok(())
}

/// Walks over the records, decompressing as it goes; compresses them anew on the way if `recompress` says how.
fn scan_records(
    batch: &BatchView<'_>,
    source: Codec,
    recompress: Option<Compression>,
    expansion_limit_bytes: usize,
) -> Result<(Scan, Option<Vec<u8>>), RecordsError> {
    let mut scanner = Scanner::new(batch.base_timestamp(), batch.record_count());
    let mut encoder = recompress
        .map(|to| Encoder::new(to, vec![0; BATCH_OVERHEAD]))
        .transpose()?;
    if source == Codec::None {
        scanner.feed(batch.payload(), true)?;
        if let Some(encoder) = &mut encoder {
            encoder.write(batch.payload())?;
        }
    } else {
        let mut decoder = Decoder::new(source, batch.payload(), expansion_limit_bytes);
        let mut window = Vec::new();
        let mut more = true;
        while more {
            let fresh_at = window.len();
            more = decoder.next_chunk(&mut window)?;
            if let Some(encoder) = &mut encoder {
                encoder.write(&window[fresh_at..])?;
            }
            let used = scanner.feed(&window, !more)?;
            window.drain(..used);
        }
    }
    let scan = scanner.finish()?;
    let rewritten = match (encoder, recompress) {
        (Some(encoder), Some(to)) => {
            let mut rewritten = encoder.finish()?;
            HeaderFields {
                codec: to.codec,
                ..HeaderFields::of(batch)?
            }
            .write(&mut rewritten);
            Some(rewritten)
        }
        _ => None,
    };
    Ok((scan, rewritten))
}

/// The batch built anew with the offsets that its records should have had.
fn renumber(
    batch: &BatchView<'_>,
    compression: Compression,
    context: &ValidateContext,
) -> Result<Vec<u8>, RecordsError> {
    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset: batch.base_offset(),
        partition_leader_epoch: batch.partition_leader_epoch(),
        compression,
        timestamp_type: batch.timestamp_type(),
        producer_id: batch.producer_id(),
        producer_epoch: batch.producer_epoch(),
        base_sequence: batch.base_sequence(),
        transactional: batch.is_transactional(),
        control: batch.is_control(),
        delete_horizon_ms: batch.delete_horizon_ms(),
    })?;
    let payload = batch.decompressed(context.expansion_limit_bytes)?;
    for record in Records::new(&payload, batch.record_count()) {
        let record = record?;
        let headers: Vec<_> = record.headers.iter().collect();
        let timestamp_ms = batch.base_timestamp().wrapping_add(record.timestamp_delta);
        builder.append(&NewRecord {
            timestamp_ms,
            key: record.key,
            value: record.value,
            headers: &headers,
        })?;
    }
    Ok(builder.finish()?)
}

/// The largest of the timestamps that consumers will see; a batch that claims `LogAppendTime` has one for all.
fn max_timestamp(batch: &BatchView<'_>, scan: &Scan) -> i64 {
    match batch.timestamp_type() {
        TimestampType::CreateTime => scan.max_timestamp,
        TimestampType::LogAppendTime => batch.max_timestamp().max(NO_TIMESTAMP),
    }
}

/// Keys and timestamps. What the scan found settles nearly every batch; the records are read only to name the bad ones.
fn check_records(batch: &BatchView<'_>, scan: &Scan, context: &ValidateContext) -> Result<(), ProduceRejection> {
    let keys_fine = !(context.compacted && scan.null_key);
    let timestamps_fine = match (batch.timestamp_type(), context.timestamp_type) {
        (TimestampType::LogAppendTime, _) => false, // rare: look closer
        (TimestampType::CreateTime, TimestampType::LogAppendTime) => true,
        (TimestampType::CreateTime, TimestampType::CreateTime) => {
            scan.min_timestamp >= context.wall_ms.saturating_sub(context.timestamp_before_max_ms)
                && scan.max_timestamp <= context.wall_ms.saturating_add(context.timestamp_after_max_ms)
        }
    };
    if keys_fine && timestamps_fine {
        return Ok(());
    }
    let payload = batch.decompressed(context.expansion_limit_bytes)?;
    let mut record_errors = Vec::new();
    let mut rejected = 0;
    let mut code = INVALID_RECORD;
    for (index, record) in (0..).zip(Records::new(&payload, batch.record_count())) {
        if let Err(fault) = context.check_record(batch, &record?) {
            rejected += 1;
            if fault.code() == INVALID_TIMESTAMP {
                code = INVALID_TIMESTAMP;
            }
            if record_errors.len() < RECORD_ERRORS_MAX {
                record_errors.push((index, Some(fault.message(context))));
            }
        }
    }
    if rejected == 0 {
        return Ok(());
    }
    let what = if code == INVALID_TIMESTAMP {
        "timestamps out of range"
    } else {
        "records without a key"
    };
    let message = format!("{rejected} of {} records rejected: {what}", batch.record_count());
    Err(ProduceRejection {
        record_errors,
        ..reject(code, message)
    })
}

impl ValidateContext {
    /// Whether a producer may give a record this timestamp. Wraps where Java does.
    fn allows(&self, timestamp: i64) -> bool {
        let age_ms = self.wall_ms.wrapping_sub(timestamp);
        timestamp == NO_TIMESTAMP
            || (age_ms <= self.timestamp_before_max_ms && age_ms.wrapping_neg() <= self.timestamp_after_max_ms)
    }

    fn check_record(&self, batch: &BatchView<'_>, record: &Record<'_>) -> Result<(), RecordFault> {
        if self.compacted && record.key.is_none() {
            return Err(RecordFault::NoKey);
        }
        let timestamp = record.timestamp(batch);
        if self.timestamp_type == TimestampType::CreateTime && timestamp != NO_TIMESTAMP {
            if !self.allows(timestamp) {
                return Err(RecordFault::Timestamp(timestamp));
            }
        } else if batch.timestamp_type() == TimestampType::LogAppendTime {
            return Err(RecordFault::LogAppendTime);
        }
        Ok(())
    }
}

/// What is wrong with a record.
enum RecordFault {
    NoKey,
    /// It is too old, or from the future.
    Timestamp(i64),
    LogAppendTime,
}

impl RecordFault {
    fn code(&self) -> i16 {
        match self {
            Self::NoKey => INVALID_RECORD,
            Self::Timestamp(_) | Self::LogAppendTime => INVALID_TIMESTAMP,
        }
    }

    fn message(&self, context: &ValidateContext) -> String {
        match self {
            Self::NoKey => "a record of a compacted topic needs a key".to_owned(),
            Self::Timestamp(timestamp) => {
                let (before, after) = (context.timestamp_before_max_ms, context.timestamp_after_max_ms);
                let now = context.wall_ms;
                format!("timestamp {timestamp} is not within [now - {before} ms, now + {after} ms]; now is {now}")
            }
            Self::LogAppendTime => "LogAppendTime is for the broker to set".to_owned(),
        }
    }
}

impl TopicCompression {
    fn fixed(self) -> Option<Compression> {
        match self {
            Self::Producer => None,
            Self::Fixed(compression) => Some(compression),
        }
    }
}
