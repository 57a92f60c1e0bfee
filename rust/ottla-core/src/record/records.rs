//! The records of a batch, once decompressed.
//!
//! A record: length (varint of all that follows), attributes (1 byte, unused), timestamp delta (varlong), offset delta,
//! key length and key, value length and value (a negative length is null), header count, and for each header key length,
//! key, value length, value. Every read is checked against the record's and the payload's end.

use std::borrow::Cow;

use super::batch::{BatchError, BatchView, TimestampType};
use super::varint;
use crate::compression::{self, Codec, CompressionError};

/// Why a batch's records cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// The header is at fault.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The payload cannot be expanded.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// A record's fields do not fit its length.
    #[error("record {index}: {what}")]
    Malformed {
        /// Index of the record in the batch.
        index: i32,
        /// Which field.
        what: &'static str,
    },
    /// The payload holds more bytes than the records counted in the header.
    #[error("bytes are left after {count} records")]
    TrailingBytes {
        /// What the header counts.
        count: i32,
    },
    /// The header counts fewer than no records.
    #[error("the batch counts {count} records")]
    NegativeCount {
        /// What the header counts.
        count: i32,
    },
}

/// One record, borrowing from the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Relative to the batch's base offset.
    pub offset_delta: i32,
    /// Relative to the batch's base timestamp, in ms.
    pub timestamp_delta: i64,
    /// None: null.
    pub key: Option<&'a [u8]>,
    /// None: null, on a compacted topic a tombstone.
    pub value: Option<&'a [u8]>,
    /// In the order in which the producer set them.
    pub headers: Headers<'a>,
}

impl Record<'_> {
    /// Offset of the record.
    pub fn offset(&self, batch: &BatchView<'_>) -> i64 {
        batch.base_offset().wrapping_add(i64::from(self.offset_delta))
    }

    /// The timestamp as consumers see it, in Unix ms: the batch's own under `LogAppendTime`.
    pub fn timestamp(&self, batch: &BatchView<'_>) -> i64 {
        match batch.timestamp_type() {
            TimestampType::CreateTime => batch.base_timestamp().wrapping_add(self.timestamp_delta),
            TimestampType::LogAppendTime => batch.max_timestamp(),
        }
    }
}

/// Headers of one record, checked when the record was read.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Number of headers.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Key and value, one after the other. Keys are UTF-8 if the producer kept to the protocol.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let (bytes, mut at) = (self.bytes, 0);
        (0..self.count).map_while(move |_| {
            let key = read_blob(bytes, &mut at)??;
            Some((key, read_blob(bytes, &mut at)?))
        })
    }
}

impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A length and that many bytes; `Some(None)`: null; None: cut or malformed.
#[inline]
#[allow(clippy::option_option)] // cut, null and present are three things
fn read_blob<'a>(bytes: &'a [u8], at: &mut usize) -> Option<Option<&'a [u8]>> {
    let Ok(length) = usize::try_from(varint::read_i32(bytes, at)?) else {
        return Some(None);
    };
    let blob = bytes.get(*at..)?.get(..length)?;
    *at += length;
    Some(Some(blob))
}

/// Skips headers; None: cut or malformed.
pub(super) fn skip_headers(bytes: &[u8], at: &mut usize, count: i32) -> Option<()> {
    for _ in 0..count {
        read_blob(bytes, at)??;
        read_blob(bytes, at)?;
    }
    Some(())
}

/// Reads the body of one record: everything after its length.
pub(super) fn read_body(body: &[u8]) -> Result<Record<'_>, &'static str> {
    let mut at = 1; // attributes: none is in use
    let timestamp_delta = varint::read_i64(body, &mut at).ok_or("timestamp delta")?;
    let offset_delta = varint::read_i32(body, &mut at).ok_or("offset delta")?;
    let key = read_blob(body, &mut at).ok_or("key")?;
    let value = read_blob(body, &mut at).ok_or("value")?;
    let count = varint::read_i32(body, &mut at).ok_or("header count")?;
    let headers_at = at;
    let count_checked = usize::try_from(count).map_err(|_| "header count")?;
    skip_headers(body, &mut at, count).ok_or("headers")?;
    if at != body.len() {
        return Err("length");
    }
    let headers = Headers {
        count: count_checked,
        bytes: &body[headers_at..],
    };
    Ok(Record {
        offset_delta,
        timestamp_delta,
        key,
        value,
        headers,
    })
}

/// Iterates over the records of a decompressed payload; ends after the first error. A payload that holds more than
/// `count` records is an error after the last.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    payload: &'a [u8],
    at: usize,
    index: i32,
    count: i32,
}

impl<'a> Records<'a> {
    /// The `count` records of `payload`.
    pub fn new(payload: &'a [u8], count: i32) -> Self {
        Self {
            payload,
            at: 0,
            index: 0,
            count,
        }
    }

    fn read(&mut self) -> Result<Record<'a>, &'static str> {
        let length = varint::read_i32(self.payload, &mut self.at).ok_or("length")?;
        let length = usize::try_from(length).map_err(|_| "length")?;
        let body = self.payload[self.at..].get(..length).ok_or("length")?;
        self.at += length;
        read_body(body)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index < self.count {
            let record = self.read().map_err(|what| RecordsError::Malformed {
                index: self.index,
                what,
            });
            self.index = if record.is_ok() { self.index + 1 } else { self.count };
            if record.is_err() {
                self.at = self.payload.len();
            }
            return Some(record);
        }
        let count = self.count;
        if count < 0 {
            self.count = 0;
            self.at = self.payload.len();
            return Some(Err(RecordsError::NegativeCount { count }));
        }
        let trailing = self.at < self.payload.len();
        self.at = self.payload.len();
        trailing.then_some(Err(RecordsError::TrailingBytes { count }))
    }
}

impl<'a> BatchView<'a> {
    /// The records' bytes, decompressed if need be, at most `limit_bytes` of them.
    ///
    /// # Errors
    /// `UnknownCodec`, `Corrupt`, `ExpansionLimit`.
    pub fn decompressed(&self, limit_bytes: usize) -> Result<Cow<'a, [u8]>, RecordsError> {
        match self.codec()? {
            Codec::None => Ok(Cow::Borrowed(self.payload())),
            _ if self.record_count() == 0 => Ok(Cow::Borrowed(&[])), // what compaction leaves has no stream
            codec => Ok(Cow::Owned(compression::decompress(codec, self.payload(), limit_bytes)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_by_hand() {
        let body = [0, 4, 6, 2, b'k', 1, 4, 2, b'a', 2, b'b', 2, b'c', 1];
        let payload = [&[body.len() as u8 * 2][..], &body].concat();
        let mut records = Records::new(&payload, 1);
        let record = records.next().unwrap().unwrap();
        assert_eq!((record.timestamp_delta, record.offset_delta), (2, 3));
        assert_eq!((record.key, record.value), (Some(&b"k"[..]), None));
        let headers: Vec<_> = record.headers.iter().collect();
        assert_eq!(headers, [(&b"a"[..], Some(&b"b"[..])), (b"c", None)]);
        assert!(records.next().is_none());
    }

    #[test]
    fn every_truncation_is_an_error() {
        let body = [0, 4, 6, 2, b'k', 4, b'v', b'w', 2, 2, b'a', 2, b'b'];
        let payload = [&[body.len() as u8 * 2][..], &body].concat();
        for cut in 0..payload.len() {
            let results: Vec<_> = Records::new(&payload[..cut], 1).collect();
            assert!(matches!(results[..], [Err(RecordsError::Malformed { index: 0, .. })]));
        }
        for cut in 0..body.len() {
            assert!(read_body(&body[..cut]).is_err());
        }
        let mut results = Records::new(&payload, 0);
        assert_eq!(results.next(), Some(Err(RecordsError::TrailingBytes { count: 0 })));
        assert_eq!(results.next(), None);
        assert_eq!(
            Records::new(&[], -4).next(),
            Some(Err(RecordsError::NegativeCount { count: -4 }))
        );
    }
}
