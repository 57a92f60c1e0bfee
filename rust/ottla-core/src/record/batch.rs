//! A whole record batch in a buffer: its bytes, its checksum, and changes in place.

use super::header::{ATTRIBUTES_AT, CRC_AT, LEADER_EPOCH_AT, MAX_TIMESTAMP_AT, TIMESTAMP_TYPE_FLAG};
pub use super::header::{
    BATCH_OVERHEAD, BatchError, BatchHeader, HeaderFields, LOG_OVERHEAD, MAGIC, NO_LEADER_EPOCH, NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TimestampType, increment_sequence,
};

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

#[cfg(test)]
mod tests {
    use super::super::header::{LENGTH_AT, MAGIC_AT};
    use super::*;
    use crate::compression::Codec;

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
