//! What a leader checks of a batch before it assigns offsets (everything that does not need the log).

use bytes::BytesMut;

use super::batch::{BatchView, TimestampType, stamp_offset_and_epoch};
use crate::compression::Compression;

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

/// Why a batch is refused, as the produce response says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProduceRejection {
    /// Kafka's error code.
    pub code: i16,
    /// For the response's `error_message`.
    pub message: String,
    /// `(index of the record in the batch, message)`, for responses from v8 on.
    pub record_errors: Vec<(i32, Option<String>)>,
}

/// A batch that passed every check, owning its bytes. Offsets and leader epoch are still to be stamped.
#[derive(Clone, Debug)]
pub struct ValidatedBatch {
    bytes: BytesMut,
    log_append_time_ms: i64,
}

impl ValidatedBatch {
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

/// Checks one partition's records of a Produce request.
///
/// # Errors
/// The rejection to answer with.
pub fn validate_produce(records: BytesMut, context: &ValidateContext) -> Result<ValidatedBatch, ProduceRejection> {
    let reject = |code: i16, message: String| ProduceRejection {
        code,
        message,
        record_errors: Vec::new(),
    };
    let size_bytes = match BatchView::parse(&records).and_then(|view| view.verify_crc().map(|()| view.size_bytes())) {
        Ok(size_bytes) => size_bytes,
        Err(error) => return Err(reject(2, error.to_string())),
    };
    if size_bytes > context.max_message_bytes {
        return Err(reject(
            10,
            format!(
                "the batch has {size_bytes} bytes, at most {} fit",
                context.max_message_bytes
            ),
        ));
    }
    let mut bytes = records;
    bytes.truncate(size_bytes);
    Ok(ValidatedBatch {
        bytes,
        log_append_time_ms: -1,
    })
}
