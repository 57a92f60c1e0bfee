//! The header of a record batch, read and rewritten in place.
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

const LENGTH_AT: usize = 8;
const LEADER_EPOCH_AT: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const LAST_OFFSET_DELTA_AT: usize = 23;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;
const PRODUCER_ID_AT: usize = 43;
const PRODUCER_EPOCH_AT: usize = 51;
const BASE_SEQUENCE_AT: usize = 53;
const RECORD_COUNT_AT: usize = 57;

const CODEC_MASK: i16 = 0x07;
const TIMESTAMP_TYPE_FLAG: i16 = 0x08;
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

/// One whole batch in a buffer. Dereferences to its header.
#[derive(Clone, Copy)]
pub struct BatchView<'a> {
    header: BatchHeader<'a>,
    bytes: &'a [u8],
}

impl<'a> std::ops::Deref for BatchView<'a> {
    type Target = BatchHeader<'a>;

    fn deref(&self) -> &Self::Target {
        &self.header
    }
}

impl<'a> BatchView<'a> {
    /// Views the batch at the start of `bytes`; more may follow it. Does not check the CRC.
    ///
    /// # Errors
    /// Truncated, `InvalidLength`, `UnsupportedMagic`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let needed = header.size_bytes();
        let Some(bytes) = bytes.get(..needed) else {
            return Err(BatchError::Truncated {
                needed,
                available: bytes.len(),
            });
        };
        Ok(Self { header, bytes })
    }

    /// The whole batch.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The records, compressed if a codec is set.
    pub fn payload(self) -> &'a [u8] {
        &self.bytes[BATCH_OVERHEAD..]
    }

    /// Compares the stored CRC-32C with the bytes.
    ///
    /// # Errors
    /// `CrcMismatch`.
    pub fn verify_crc(self) -> Result<(), BatchError> {
        let (stored, computed) = (self.crc(), crc32c::crc32c(&self.bytes[ATTRIBUTES_AT..]));
        if stored == computed {
            Ok(())
        } else {
            Err(BatchError::CrcMismatch { stored, computed })
        }
    }
}

impl std::fmt::Debug for BatchView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchView")
            .field("offsets", &(self.base_offset()..=self.last_offset()))
            .field("size_bytes", &self.size_bytes())
            .field("leader_epoch", &self.partition_leader_epoch())
            .field("attributes", &self.attributes())
            .field(
                "producer",
                &(self.producer_id(), self.producer_epoch(), self.base_sequence()),
            )
            .field("record_count", &self.record_count())
            .finish_non_exhaustive()
    }
}

/// The batches of a buffer, one after the other. Ends at the end of the buffer or after the first error; bytes that
/// do not make a whole batch are reported as `Truncated`.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
    failed: bool,
}

impl<'a> Batches<'a> {
    /// Walks `bytes` from its start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            position: 0,
            failed: false,
        }
    }

    /// Where the next batch starts, in bytes from the start of the buffer; after an error, where the bad one starts.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.position..];
        if rest.is_empty() || self.failed {
            return None;
        }
        let batch = BatchView::parse(rest);
        match &batch {
            Ok(view) => self.position += view.size_bytes(),
            Err(_) => self.failed = true,
        }
        Some(batch)
    }
}

/// Stamps what the leader assigns; the CRC covers neither field.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn stamp_offset_and_epoch(batch: &mut [u8], base_offset: i64, leader_epoch: i32) {
    assert!(batch.len() >= BATCH_OVERHEAD, "a batch has a header");
    batch[..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[LEADER_EPOCH_AT..LEADER_EPOCH_AT + 4].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// Sets timestamp type and max timestamp of one whole batch; recomputes the CRC if either changed.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn stamp_timestamp(batch: &mut [u8], timestamp_type: TimestampType, max_timestamp: i64) {
    assert!(batch.len() >= BATCH_OVERHEAD, "a batch has a header");
    let old_attributes = i16::from_be_bytes([batch[ATTRIBUTES_AT], batch[ATTRIBUTES_AT + 1]]);
    let attributes = match timestamp_type {
        TimestampType::CreateTime => old_attributes & !TIMESTAMP_TYPE_FLAG,
        TimestampType::LogAppendTime => old_attributes | TIMESTAMP_TYPE_FLAG,
    };
    let max_field = MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8;
    if attributes == old_attributes && batch[max_field.clone()] == max_timestamp.to_be_bytes() {
        return;
    }
    batch[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
    batch[max_field].copy_from_slice(&max_timestamp.to_be_bytes());
    stamp_crc(batch);
}

/// Computes the CRC-32C of one whole batch and stores it.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn stamp_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
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
        stamp_crc(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> HeaderFields {
        HeaderFields {
            base_offset: 40,
            partition_leader_epoch: 7,
            codec: Codec::Zstd,
            timestamp_type: TimestampType::CreateTime,
            transactional: true,
            control: false,
            delete_horizon: false,
            last_offset_delta: 9,
            base_timestamp: 1_000,
            max_timestamp: 1_009,
            producer_id: 5,
            producer_epoch: 3,
            base_sequence: i32::MAX - 4,
            record_count: 10,
        }
    }

    fn batch(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; BATCH_OVERHEAD];
        bytes.extend_from_slice(payload);
        fields().write(&mut bytes);
        bytes
    }

    #[test]
    fn fields_written_are_fields_read() {
        let bytes = batch(b"payload");
        let view = BatchView::parse(&bytes).unwrap();
        assert_eq!(HeaderFields::of(&view), Ok(fields()));
        assert_eq!(
            (view.last_offset(), view.next_offset(), view.size_bytes()),
            (49, 50, 68)
        );
        assert_eq!(view.payload(), b"payload");
        assert_eq!(view.delete_horizon_ms(), None);
        view.verify_crc().unwrap();
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let bytes = batch(b"");
        assert_eq!(BatchView::parse(&bytes).unwrap().last_sequence(), 4);
        assert_eq!(increment_sequence(i32::MAX, 1), 0);
        assert_eq!(increment_sequence(i32::MAX, i32::MAX), i32::MAX - 1);
        assert_eq!(increment_sequence(0, 0), 0);
    }

    #[test]
    fn stamping_offset_and_epoch_keeps_the_crc() {
        let mut bytes = batch(b"payload");
        stamp_offset_and_epoch(&mut bytes, 1 << 40, 12);
        let view = BatchView::parse(&bytes).unwrap();
        assert_eq!(
            (view.base_offset(), view.last_offset(), view.partition_leader_epoch()),
            (1 << 40, (1 << 40) + 9, 12)
        );
        view.verify_crc().unwrap();
    }

    #[test]
    fn stamping_timestamps_recomputes_the_crc() {
        let mut bytes = batch(b"payload");
        stamp_timestamp(&mut bytes, TimestampType::LogAppendTime, 77);
        let view = BatchView::parse(&bytes).unwrap();
        assert_eq!(
            (view.timestamp_type(), view.max_timestamp()),
            (TimestampType::LogAppendTime, 77)
        );
        assert!(view.is_transactional() && view.codec() == Ok(Codec::Zstd));
        view.verify_crc().unwrap();
    }

    #[test]
    fn any_changed_byte_after_the_crc_is_noticed() {
        let bytes = batch(b"payload");
        for at in ATTRIBUTES_AT..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(matches!(
                BatchView::parse(&damaged).unwrap().verify_crc(),
                Err(BatchError::CrcMismatch { .. })
            ));
        }
    }

    #[test]
    fn batches_stop_at_a_cut_tail_and_say_where() {
        let mut bytes = batch(b"one");
        bytes.extend_from_slice(&batch(b"two")[..20]);
        let mut batches = Batches::new(&bytes);
        assert_eq!(batches.next().unwrap().unwrap().payload(), b"one");
        assert_eq!(
            batches.next().unwrap().unwrap_err(),
            BatchError::Truncated {
                needed: 61,
                available: 20
            }
        );
        assert_eq!(batches.position(), 64);
        assert!(batches.next().is_none());
    }

    #[test]
    fn impossible_headers_are_refused() {
        let mut bytes = batch(b"");
        bytes[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&(-1i32).to_be_bytes());
        assert_eq!(
            BatchView::parse(&bytes).unwrap_err(),
            BatchError::InvalidLength { length: -1 }
        );
        let mut bytes = batch(b"");
        bytes[MAGIC_AT] = 1;
        assert_eq!(
            BatchView::parse(&bytes).unwrap_err(),
            BatchError::UnsupportedMagic { magic: 1 }
        );
        let mut fields = batch(b"");
        fields[ATTRIBUTES_AT + 1] = 5;
        assert_eq!(
            BatchView::parse(&fields).unwrap().codec(),
            Err(BatchError::UnknownCodec { id: 5 })
        );
        assert_eq!(
            BatchView::parse(&[0; 60]).unwrap_err(),
            BatchError::Truncated {
                needed: 61,
                available: 60
            }
        );
    }
}
