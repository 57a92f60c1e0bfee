//! One raft entry is one record batch of Kafka's format: building and reading them.
//!
//! Data batches hold metadata records (null key, the value opaque to us); control batches hold the quorum's own records.
//! Neither is ever compressed (Kafka: `RaftClient` writes its log with `Compression.NONE`).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::record::batch::{BATCH_OVERHEAD, BatchError, BatchView};

/// The largest batch of the quorum's log (Kafka: `KafkaRaftClient.MAX_BATCH_SIZE_BYTES`).
pub const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

const CONTROL_ATTRIBUTES: i16 = 0x20;

/// Kinds of control records (Kafka: `ControlRecordType`); the quorum uses these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i16)]
pub enum ControlType {
    /// First record of a leader's epoch.
    LeaderChange = 2,
    /// First record of a snapshot.
    SnapshotHeader = 3,
    /// Last record of a snapshot.
    SnapshotFooter = 4,
}

/// Reasons to refuse a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The bytes are not a batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A batch, but not one that a quorum's log holds.
    #[error("{0}")]
    Shape(&'static str),
}

/// Appends `value` as an unsigned varint.
pub(crate) fn put_uvarint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Takes an unsigned varint of at most ten bytes.
pub(crate) fn get_uvarint(from: &mut impl Buf) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        if !from.has_remaining() {
            return None;
        }
        let byte = from.get_u8();
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_varint(out: &mut impl BufMut, value: i64) {
    put_uvarint(out, ((value << 1) ^ (value >> 63)) as u64);
}

fn get_varint(from: &mut impl Buf) -> Option<i64> {
    let raw = get_uvarint(from)?;
    Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

fn varint_len(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (raw | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_record(out: &mut BytesMut, offset_delta: i64, key: Option<&[u8]>, value: &[u8]) {
    let key_len = key.map_or(-1, |key| key.len() as i64);
    let body = 1 // attributes
        + 1 // timestamp delta 0
        + varint_len(offset_delta)
        + varint_len(key_len)
        + key.map_or(0, <[u8]>::len)
        + varint_len(value.len() as i64)
        + value.len()
        + 1; // no headers
    put_varint(out, body as i64);
    out.put_u8(0);
    put_varint(out, 0);
    put_varint(out, offset_delta);
    put_varint(out, key_len);
    out.put_slice(key.unwrap_or_default());
    put_varint(out, value.len() as i64);
    out.put_slice(value);
    put_varint(out, 0);
}

fn finish(mut out: BytesMut, base_offset: i64, epoch: i32, attributes: i16, timestamp_ms: i64, count: usize) -> Bytes {
    let length = (out.len() - 12) as i32;
    let mut header = &mut out[..BATCH_OVERHEAD];
    header.put_i64(base_offset);
    header.put_i32(length);
    header.put_i32(epoch);
    header.put_i8(2);
    header.put_u32(0);
    header.put_i16(attributes);
    header.put_i32(count as i32 - 1);
    header.put_i64(timestamp_ms);
    header.put_i64(timestamp_ms);
    header.put_i64(-1);
    header.put_i16(-1);
    header.put_i32(-1);
    header.put_i32(count as i32);
    let crc = crc32c::crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out.freeze()
}

/// A batch of metadata records: null keys, all with one timestamp. `values` must not be empty.
pub fn data_batch(base_offset: i64, epoch: i32, timestamp_ms: i64, values: &[Bytes]) -> Bytes {
    debug_assert!(!values.is_empty());
    let size: usize = values.iter().map(|value| value.len() + 24).sum();
    let mut out = BytesMut::with_capacity(BATCH_OVERHEAD + size);
    out.put_bytes(0, BATCH_OVERHEAD);
    for (delta, value) in values.iter().enumerate() {
        put_record(&mut out, delta as i64, None, value);
    }
    finish(out, base_offset, epoch, 0, timestamp_ms, values.len())
}

/// A control batch of one record.
pub fn control_batch(base_offset: i64, epoch: i32, timestamp_ms: i64, kind: ControlType, value: &[u8]) -> Bytes {
    let mut key = [0; 4]; // version 0, then the type
    key[2..].copy_from_slice(&(kind as i16).to_be_bytes());
    let mut out = BytesMut::with_capacity(BATCH_OVERHEAD + value.len() + 32);
    out.put_bytes(0, BATCH_OVERHEAD);
    put_record(&mut out, 0, Some(&key), value);
    finish(out, base_offset, epoch, CONTROL_ATTRIBUTES, timestamp_ms, 1)
}

/// The batch that opens a leader's epoch (Kafka: `LeaderChangeMessage` version 0), raft's empty entry of a new leader.
pub fn leader_change_batch(base_offset: i64, epoch: i32, timestamp_ms: i64, leader_id: i32, voters: &[i32]) -> Bytes {
    let mut value = Vec::with_capacity(12 + voters.len() * 10);
    value.put_i16(0);
    value.put_i32(leader_id);
    for _ in 0..2 {
        // voters, then granting voters: who of them granted is not kept by the consensus
        put_uvarint(&mut value, voters.len() as u64 + 1);
        for voter in voters {
            value.put_i32(*voter);
            value.put_u8(0);
        }
    }
    value.put_u8(0);
    control_batch(base_offset, epoch, timestamp_ms, ControlType::LeaderChange, &value)
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
    shape(batch.attributes() & 0x17 == 0, "compressed or transactional batch")?;
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

/// A record of a batch: key (None if null) and value (empty if null).
pub type KeyValue = (Option<Bytes>, Bytes);

/// The records of an uncompressed batch, sharing its memory.
///
/// # Errors
/// `Shape` if a record contradicts its length or the count.
pub fn records(batch: &Bytes) -> Result<Vec<KeyValue>, EntryError> {
    const CUT: EntryError = EntryError::Shape("a record contradicts its length");
    let view = BatchView::parse(batch)?;
    let mut rest = batch.slice(BATCH_OVERHEAD..view.size_bytes());
    let mut found = Vec::with_capacity((view.record_count().max(0) as usize).min(rest.len() / 7 + 1));
    let take = |from: &mut Bytes, length: i64| -> Result<Option<Bytes>, EntryError> {
        match usize::try_from(length) {
            Ok(length) if length <= from.len() => Ok(Some(from.split_to(length))),
            Err(_) if length == -1 => Ok(None),
            _ => Err(CUT),
        }
    };
    while rest.has_remaining() {
        let length = get_varint(&mut rest).ok_or(CUT)?;
        let mut body = take(&mut rest, length)?.ok_or(CUT)?;
        if !body.has_remaining() {
            return Err(CUT);
        }
        body.advance(1);
        get_varint(&mut body).ok_or(CUT)?; // timestamp delta
        get_varint(&mut body).ok_or(CUT)?; // offset delta
        let key_len = get_varint(&mut body).ok_or(CUT)?;
        let key = take(&mut body, key_len)?;
        let value_len = get_varint(&mut body).ok_or(CUT)?;
        let value = take(&mut body, value_len)?.unwrap_or_default();
        found.push((key, value));
    }
    if found.len() as i64 != i64::from(view.record_count()) {
        return Err(EntryError::Shape("the record count does not match the records"));
    }
    Ok(found)
}

/// The type of a control batch's record, from its key.
pub fn control_type(key: Option<&Bytes>) -> Option<i16> {
    key.filter(|key| key.len() >= 4)
        .map(|key| i16::from_be_bytes([key[2], key[3]]))
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
            let read: Vec<Bytes> = records(&batch).unwrap().into_iter().map(|(_, value)| value).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn foreign_payloads_never_panic(payload in prop::collection::vec(any::<u8>(), 0..200), count in any::<i32>()) {
            let mut batch = BytesMut::new();
            batch.put_bytes(0, BATCH_OVERHEAD);
            batch.put_slice(&payload);
            let mut bytes = finish(batch, 0, 1, 0, 0, 1).to_vec();
            bytes[57..61].copy_from_slice(&count.to_be_bytes());
            let _ = records(&Bytes::from(bytes));
        }
    }
}
