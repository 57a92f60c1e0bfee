//! The header of a record batch: what its fields say, and writing them.
//!
//! Layout (big-endian; Kafka: `DefaultRecordBatch`):
//!
//! ```text
//!  0 base offset i64        17 crc u32               43 producer id i64
//!  8 length i32 (from 12)   21 attributes i16        51 producer epoch i16
//! 12 leader epoch i32       23 last offset delta i32 53 base sequence i32
//! 16 magic i8 (2)           27 base timestamp i64    57 record count i32
//!                           35 max timestamp i64     61 records
//! ```
//!
//! The CRC-32C covers everything from the attributes on. A leader can therefore stamp base offset and leader epoch
//! without touching it, and must recompute it when it changes timestamps.

use crate::compression::Codec;

/// Bytes before a batch's length counts: base offset and length.
pub const LOG_OVERHEAD: usize = 12;
/// Bytes of a batch's header; the records follow.
pub const BATCH_OVERHEAD: usize = 61;
/// The only format that exists since Kafka 4.0.
pub const MAGIC: i8 = 2;
/// "No producer id" in a header.
pub const NO_PRODUCER_ID: i64 = -1;
/// "No producer epoch" in a header.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// "No sequence" in a header.
pub const NO_SEQUENCE: i32 = -1;
/// "No timestamp" of a record or a batch.
pub const NO_TIMESTAMP: i64 = -1;
/// "No leader epoch": what producers send.
pub const NO_LEADER_EPOCH: i32 = -1;

pub(super) const LENGTH_AT: usize = 8;
pub(super) const LEADER_EPOCH_AT: usize = 12;
pub(super) const MAGIC_AT: usize = 16;
pub(super) const CRC_AT: usize = 17;
pub(super) const ATTRIBUTES_AT: usize = 21;
const LAST_OFFSET_DELTA_AT: usize = 23;
const BASE_TIMESTAMP_AT: usize = 27;
pub(super) const MAX_TIMESTAMP_AT: usize = 35;
const PRODUCER_ID_AT: usize = 43;
const PRODUCER_EPOCH_AT: usize = 51;
const BASE_SEQUENCE_AT: usize = 53;
const RECORD_COUNT_AT: usize = 57;

const CODEC_MASK: i16 = 0x07;
pub(super) const TIMESTAMP_TYPE_FLAG: i16 = 0x08;
const TRANSACTIONAL_FLAG: i16 = 0x10;
const CONTROL_FLAG: i16 = 0x20;
const DELETE_HORIZON_FLAG: i16 = 0x40;

/// Who set the timestamps of a batch (Kafka: `TimestampType`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TimestampType {
    /// The producer.
    #[default]
    CreateTime,
    /// The broker, at the append: every record's timestamp is the batch's max timestamp.
    LogAppendTime,
}

/// What is wrong with the bytes of a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does: a cut tail, or a read that was too short.
    #[error("batch cut short: {needed} bytes needed, {available} available")]
    Truncated {
        /// Bytes that the batch (or its first fields) takes.
        needed: usize,
        /// Bytes that were there.
        available: usize,
    },
    /// The length field cannot be that of a batch.
    #[error("batch length field is {length}, at least {min} expected", min = BATCH_OVERHEAD - LOG_OVERHEAD)]
    InvalidLength {
        /// What the field says.
        length: i32,
    },
    /// Not format v2.
    #[error("batch magic is {magic}, expected 2")]
    UnsupportedMagic {
        /// What the field says.
        magic: i8,
    },
    /// The checksum does not match.
    #[error("batch crc: {computed:#010x} computed, header says {stored:#010x}")]
    CrcMismatch {
        /// The header's checksum.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// Attributes name a codec that does not exist.
    #[error("batch codec id {id} is unknown")]
    UnknownCodec {
        /// Bits 0 to 2 of the attributes.
        id: u8,
    },
}

/// The 61 bytes of a batch's header; all getters are plain reads of fields.
#[derive(Clone, Copy)]
pub struct BatchHeader<'a> {
    bytes: &'a [u8; BATCH_OVERHEAD],
}

impl<'a> BatchHeader<'a> {
    /// Views the header at the start of `bytes`, which need not hold the rest of the batch.
    ///
    /// # Errors
    /// Truncated (fewer than 61 bytes), `InvalidLength`, `UnsupportedMagic`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let Some(header) = bytes.first_chunk::<BATCH_OVERHEAD>() else {
            return Err(BatchError::Truncated {
                needed: BATCH_OVERHEAD,
                available: bytes.len(),
            });
        };
        let view = Self { bytes: header };
        let length = view.i32_at(LENGTH_AT);
        if length < (BATCH_OVERHEAD - LOG_OVERHEAD) as i32 {
            return Err(BatchError::InvalidLength { length });
        }
        if view.magic() != MAGIC {
            return Err(BatchError::UnsupportedMagic { magic: view.magic() });
        }
        Ok(view)
    }

    fn array_at<const N: usize>(self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.bytes[at..at + N]);
        field
    }

    fn i64_at(self, at: usize) -> i64 {
        i64::from_be_bytes(self.array_at(at))
    }

    fn i32_at(self, at: usize) -> i32 {
        i32::from_be_bytes(self.array_at(at))
    }

    fn i16_at(self, at: usize) -> i16 {
        i16::from_be_bytes(self.array_at(at))
    }

    /// Offset of the first record that the batch was built with (compaction may have removed it).
    pub fn base_offset(self) -> i64 {
        self.i64_at(0)
    }

    /// Offset of the last record that the batch was built with. Survives compaction; never derive it from the count.
    pub fn last_offset(self) -> i64 {
        self.base_offset().wrapping_add(i64::from(self.last_offset_delta()))
    }

    /// The offset after the batch.
    pub fn next_offset(self) -> i64 {
        self.last_offset().wrapping_add(1)
    }

    /// Size of the whole batch, header included.
    pub fn size_bytes(self) -> usize {
        // `parse` saw a positive length
        LOG_OVERHEAD + self.i32_at(LENGTH_AT) as usize
    }

    /// Epoch of the leader that appended the batch; -1 from producers.
    pub fn partition_leader_epoch(self) -> i32 {
        self.i32_at(LEADER_EPOCH_AT)
    }

    /// Format version, 2.
    pub fn magic(self) -> i8 {
        self.bytes[MAGIC_AT] as i8
    }

    /// The stored CRC-32C.
    pub fn crc(self) -> u32 {
        self.i32_at(CRC_AT) as u32
    }

    /// All attribute bits.
    pub fn attributes(self) -> i16 {
        self.i16_at(ATTRIBUTES_AT)
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// `UnknownCodec` for ids 5 to 7.
    pub fn codec(self) -> Result<Codec, BatchError> {
        let id = (self.attributes() & CODEC_MASK) as u8;
        Codec::from_id(id).ok_or(BatchError::UnknownCodec { id })
    }

    /// Who set the timestamps.
    pub fn timestamp_type(self) -> TimestampType {
        if self.attributes() & TIMESTAMP_TYPE_FLAG == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(self) -> bool {
        self.attributes() & TRANSACTIONAL_FLAG != 0
    }

    /// Whether the records are control records (transaction markers, the quorum's own).
    pub fn is_control(self) -> bool {
        self.attributes() & CONTROL_FLAG != 0
    }

    /// When compaction may drop the batch's tombstones or marker (KIP-534), in Unix ms. While set, the base timestamp
    /// field holds this instant and record timestamps are relative to it.
    pub fn delete_horizon_ms(self) -> Option<i64> {
        (self.attributes() & DELETE_HORIZON_FLAG != 0).then(|| self.base_timestamp())
    }

    /// Last offset minus base offset; also the last sequence's distance.
    pub fn last_offset_delta(self) -> i32 {
        self.i32_at(LAST_OFFSET_DELTA_AT)
    }

    /// What record timestamps are relative to, in Unix ms.
    pub fn base_timestamp(self) -> i64 {
        self.i64_at(BASE_TIMESTAMP_AT)
    }

    /// Largest timestamp of the batch, in Unix ms; -1 if none.
    pub fn max_timestamp(self) -> i64 {
        self.i64_at(MAX_TIMESTAMP_AT)
    }

    /// Producer id, -1 if the producer is not idempotent.
    pub fn producer_id(self) -> i64 {
        self.i64_at(PRODUCER_ID_AT)
    }

    /// Whether a producer id is set.
    pub fn has_producer_id(self) -> bool {
        self.producer_id() > NO_PRODUCER_ID
    }

    /// Producer epoch, -1 without a producer id.
    pub fn producer_epoch(self) -> i16 {
        self.i16_at(PRODUCER_EPOCH_AT)
    }

    /// Sequence of the first record, -1 if none.
    pub fn base_sequence(self) -> i32 {
        self.i32_at(BASE_SEQUENCE_AT)
    }

    /// Sequence of the last record, -1 if none; wraps from `i32::MAX` to 0.
    pub fn last_sequence(self) -> i32 {
        match self.base_sequence() {
            NO_SEQUENCE => NO_SEQUENCE,
            base => increment_sequence(base, self.last_offset_delta()),
        }
    }

    /// Number of records in the batch; after compaction less than the offsets span, possibly 0.
    pub fn record_count(self) -> i32 {
        self.i32_at(RECORD_COUNT_AT)
    }
}

/// `sequence` moved on by `increment` >= 0, wrapping from `i32::MAX` to 0 (Kafka: `incrementSequence`).
pub fn increment_sequence(sequence: i32, increment: i32) -> i32 {
    (i64::from(sequence) + i64::from(increment)).rem_euclid(1 << 31) as i32
}

/// The fields of a header that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderFields {
    /// Offset of the first record.
    pub base_offset: i64,
    /// -1 from producers.
    pub partition_leader_epoch: i32,
    /// How the payload is compressed.
    pub codec: Codec,
    /// Who set the timestamps.
    pub timestamp_type: TimestampType,
    /// Part of a transaction.
    pub transactional: bool,
    /// Control records.
    pub control: bool,
    /// The base timestamp is a delete horizon (KIP-534).
    pub delete_horizon: bool,
    /// Last offset minus base offset.
    pub last_offset_delta: i32,
    /// What record timestamps are relative to, in Unix ms.
    pub base_timestamp: i64,
    /// Largest timestamp, in Unix ms.
    pub max_timestamp: i64,
    /// -1: none.
    pub producer_id: i64,
    /// -1: none.
    pub producer_epoch: i16,
    /// -1: none.
    pub base_sequence: i32,
    /// Records in the payload.
    pub record_count: i32,
}

impl HeaderFields {
    /// The fields of an existing batch, to be changed and written again.
    ///
    /// # Errors
    /// `UnknownCodec`.
    pub fn of(header: &BatchHeader<'_>) -> Result<Self, BatchError> {
        Ok(Self {
            base_offset: header.base_offset(),
            partition_leader_epoch: header.partition_leader_epoch(),
            codec: header.codec()?,
            timestamp_type: header.timestamp_type(),
            transactional: header.is_transactional(),
            control: header.is_control(),
            delete_horizon: header.delete_horizon_ms().is_some(),
            last_offset_delta: header.last_offset_delta(),
            base_timestamp: header.base_timestamp(),
            max_timestamp: header.max_timestamp(),
            producer_id: header.producer_id(),
            producer_epoch: header.producer_epoch(),
            base_sequence: header.base_sequence(),
            record_count: header.record_count(),
        })
    }

    fn attributes(&self) -> i16 {
        let flag = |set: bool, bit: i16| if set { bit } else { 0 };
        i16::from(self.codec.id())
            | flag(self.timestamp_type == TimestampType::LogAppendTime, TIMESTAMP_TYPE_FLAG)
            | flag(self.transactional, TRANSACTIONAL_FLAG)
            | flag(self.control, CONTROL_FLAG)
            | flag(self.delete_horizon, DELETE_HORIZON_FLAG)
    }

    /// Writes length, magic, CRC and these fields over the first 61 bytes of `batch`, which is the whole batch with
    /// its payload already in place.
    ///
    /// # Panics
    /// If `batch` is shorter than a header or longer than a length field can say.
    pub fn write(&self, batch: &mut [u8]) {
        assert!(batch.len() >= BATCH_OVERHEAD, "a batch has a header");
        let length = i32::try_from(batch.len() - LOG_OVERHEAD).expect("a batch is smaller than 2 GiB");
        let mut put = |at: usize, field: &[u8]| batch[at..at + field.len()].copy_from_slice(field);
        put(0, &self.base_offset.to_be_bytes());
        put(LENGTH_AT, &length.to_be_bytes());
        put(LEADER_EPOCH_AT, &self.partition_leader_epoch.to_be_bytes());
        put(MAGIC_AT, &MAGIC.to_be_bytes());
        put(ATTRIBUTES_AT, &self.attributes().to_be_bytes());
        put(LAST_OFFSET_DELTA_AT, &self.last_offset_delta.to_be_bytes());
        put(BASE_TIMESTAMP_AT, &self.base_timestamp.to_be_bytes());
        put(MAX_TIMESTAMP_AT, &self.max_timestamp.to_be_bytes());
        put(PRODUCER_ID_AT, &self.producer_id.to_be_bytes());
        put(PRODUCER_EPOCH_AT, &self.producer_epoch.to_be_bytes());
        put(BASE_SEQUENCE_AT, &self.base_sequence.to_be_bytes());
        put(RECORD_COUNT_AT, &self.record_count.to_be_bytes());
        super::batch::stamp_crc(batch);
    }
}
