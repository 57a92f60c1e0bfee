//! Checks records without reading keys and values: lengths, deltas, key nullness.
//!
//! The hot path of Produce. The scanner is fed pieces as the decompressor gives them and keeps nothing of them: a record
//! that lies in one piece is checked in one go (about 10 ns), a longer one field by field, so the memory needed does not
//! depend on what a record's length claims.

use super::batch::NO_TIMESTAMP;
use super::records::{RecordsError, skip_headers};
use super::varint;

/// Bytes that the fields before a key take at most: length 5, attributes 1, timestamp 10, offset 5, key length 5.
const PREFIX_BYTES_MAX: usize = 26;
const VARINT_BYTES_MAX: usize = 5;

/// What a scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Largest timestamp, -1 if none is larger (timestamps below -1 do not count, as in Kafka).
    pub max_timestamp: i64,
    /// Smallest timestamp, `i64::MAX` without records.
    pub min_timestamp: i64,
    /// Whether some record has no key.
    pub null_key: bool,
    /// Whether the offset deltas are 0, 1, 2, ...
    pub offsets_in_order: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Scanner {
    base_timestamp: i64,
    count: i32,
    index: i32,
    found: Scan,
    stage: Stage,
    /// Bytes left of the record that `stage` is in.
    left: usize,
}

/// Where in a record that did not fit one piece.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Start,
    /// Pass over a blob, then do the next.
    Skip(usize, Then),
    Length(Then),
}

/// What comes after a blob or is the length about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Value,
    HeaderCount,
    HeaderKey(i32),
    HeaderValue(i32),
}

impl Scanner {
    /// A scan of `count` records whose timestamps are relative to `base_timestamp`.
    pub fn new(base_timestamp: i64, count: i32) -> Self {
        let found = Scan {
            max_timestamp: NO_TIMESTAMP,
            min_timestamp: i64::MAX,
            null_key: false,
            offsets_in_order: true,
        };
        Self {
            base_timestamp,
            count,
            index: 0,
            found,
            stage: Stage::Start,
            left: 0,
        }
    }

    /// Takes more of the payload; returns how many bytes were used. What is left (less than a few fields) must come
    /// again at the start of the next piece. With `last`, all must be used.
    ///
    /// # Errors
    /// Malformed, `TrailingBytes`.
    pub fn feed(&mut self, bytes: &[u8], last: bool) -> Result<usize, RecordsError> {
        let mut at = 0;
        loop {
            match self.stage {
                Stage::Start => {
                    at = self.whole_records(bytes, at)?;
                    if self.index >= self.count {
                        return if at == bytes.len() {
                            Ok(at)
                        } else {
                            Err(RecordsError::TrailingBytes { count: self.count })
                        };
                    }
                    if !last && bytes.len() - at < PREFIX_BYTES_MAX {
                        return Ok(at);
                    }
                    self.start_long_record(bytes, &mut at)
                        .ok_or_else(|| self.malformed("length or deltas"))?;
                }
                Stage::Skip(count, then) => {
                    let now = count.min(bytes.len() - at);
                    at += now;
                    self.left -= now;
                    if now < count {
                        if last {
                            return Err(self.malformed("cut in a key, value or header"));
                        }
                        self.stage = Stage::Skip(count - now, then);
                        return Ok(at);
                    }
                    self.stage = Stage::Length(then);
                }
                Stage::Length(then) => {
                    if !last && bytes.len() - at < VARINT_BYTES_MAX {
                        return Ok(at);
                    }
                    self.step(bytes, &mut at, then)
                        .ok_or_else(|| self.malformed("value, headers or length"))?;
                }
            }
        }
    }

    /// The result, once everything was fed.
    ///
    /// # Errors
    /// Malformed, if records are missing.
    pub fn finish(&self) -> Result<Scan, RecordsError> {
        if self.index < self.count {
            return Err(self.malformed("missing"));
        }
        Ok(self.found)
    }

    fn malformed(&self, what: &'static str) -> RecordsError {
        RecordsError::Malformed {
            index: self.index,
            what,
        }
    }

    /// Checks records from `at` on while they lie whole in `bytes`; returns where the first that does not starts.
    fn whole_records(&mut self, bytes: &[u8], mut at: usize) -> Result<usize, RecordsError> {
        let (mut index, mut found) = (self.index, self.found);
        let mut fault = None;
        while index < self.count {
            let mut body_at = at;
            let Some(length) = varint::read_i32(bytes, &mut body_at) else {
                break; // cut, or too long: the caller finds out
            };
            let Some(body) = usize::try_from(length)
                .ok()
                .and_then(|length| bytes[body_at..].get(..length))
            else {
                break;
            };
            let Some((timestamp_delta, offset_delta, null_key)) = scan_body(body) else {
                fault = Some("a field does not fit the record's length");
                break;
            };
            let timestamp = self.base_timestamp.wrapping_add(timestamp_delta);
            found.max_timestamp = found.max_timestamp.max(timestamp);
            found.min_timestamp = found.min_timestamp.min(timestamp);
            found.null_key |= null_key;
            found.offsets_in_order &= offset_delta == index;
            at = body_at + body.len();
            index += 1;
        }
        (self.index, self.found) = (index, found);
        fault.map_or(Ok(at), |what| Err(self.malformed(what)))
    }

    fn start_long_record(&mut self, bytes: &[u8], at: &mut usize) -> Option<()> {
        let length = usize::try_from(varint::read_i32(bytes, at)?).ok()?;
        let body_at = *at;
        *at += 1; // attributes
        let timestamp = self.base_timestamp.wrapping_add(varint::read_i64(bytes, at)?);
        let offset_delta = varint::read_i32(bytes, at)?;
        let key_length = varint::read_i32(bytes, at)?;
        self.left = length.checked_sub(*at - body_at)?;
        self.found.max_timestamp = self.found.max_timestamp.max(timestamp);
        self.found.min_timestamp = self.found.min_timestamp.min(timestamp);
        self.found.null_key |= key_length < 0;
        self.found.offsets_in_order &= offset_delta == self.index;
        self.skip(key_length, Then::Value)
    }

    /// Goes on behind a blob of `length` bytes (negative: null, nothing to pass).
    fn skip(&mut self, length: i32, then: Then) -> Option<()> {
        let length = usize::try_from(length).unwrap_or(0);
        if length > self.left {
            return None;
        }
        self.stage = Stage::Skip(length, then);
        Some(())
    }

    /// Reads one length and decides what comes next; None: malformed.
    fn step(&mut self, bytes: &[u8], at: &mut usize, then: Then) -> Option<()> {
        if let Then::HeaderKey(0) = then {
            if self.left != 0 {
                return None;
            }
            self.index += 1;
            self.stage = Stage::Start;
            return Some(());
        }
        let before = *at;
        let length = varint::read_i32(bytes, at)?;
        self.left = self.left.checked_sub(*at - before)?;
        match then {
            Then::Value => self.skip(length, Then::HeaderCount),
            Then::HeaderCount | Then::HeaderKey(_) if length < 0 => None,
            Then::HeaderCount => {
                self.stage = Stage::Length(Then::HeaderKey(length));
                Some(())
            }
            Then::HeaderKey(count) => self.skip(length, Then::HeaderValue(count)),
            Then::HeaderValue(count) => self.skip(length, Then::HeaderKey(count - 1)),
        }
    }
}

/// Timestamp delta, offset delta, whether the key is null; None: malformed.
#[inline]
fn scan_body(body: &[u8]) -> Option<(i64, i32, bool)> {
    let mut at = 1; // attributes
    let timestamp_delta = varint::read_i64(body, &mut at)?;
    let offset_delta = varint::read_i32(body, &mut at)?;
    let key_length = varint::read_i32(body, &mut at)?;
    at += key_length.max(0) as usize;
    let value_length = varint::read_i32(body, &mut at)?;
    at += value_length.max(0) as usize;
    let header_count = varint::read_i32(body, &mut at)?;
    if header_count != 0 {
        if header_count < 0 {
            return None;
        }
        skip_headers(body, &mut at, header_count)?;
    }
    (at == body.len()).then_some((timestamp_delta, offset_delta, key_length < 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::batch::BatchView;
    use super::super::builder::{BatchOptions, NewRecord, build_batch};
    use super::super::records::Records;
    use super::*;

    type Blob = Option<Vec<u8>>;

    fn payloads() -> impl Strategy<Value = (Vec<u8>, i32)> {
        let blob = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..90));
        let headers = proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..40), blob()), 0..3);
        let record = (blob(), blob(), -1i64..5_000_000_000, headers);
        proptest::collection::vec(record, 0..40).prop_map(|records| payload(&records))
    }

    #[allow(clippy::type_complexity)] // key, value, timestamp, headers
    fn payload(records: &[(Blob, Blob, i64, Vec<(Vec<u8>, Blob)>)]) -> (Vec<u8>, i32) {
        let headers: Vec<Vec<_>> = records
            .iter()
            .map(|(_, _, _, headers)| {
                headers
                    .iter()
                    .map(|(key, value)| (&key[..], value.as_deref()))
                    .collect()
            })
            .collect();
        let new = records
            .iter()
            .zip(&headers)
            .map(|((key, value, timestamp_ms, _), headers)| NewRecord {
                timestamp_ms: *timestamp_ms,
                key: key.as_deref(),
                value: value.as_deref(),
                headers,
            });
        let batch = build_batch(BatchOptions::default(), new).unwrap();
        let view = BatchView::parse(&batch).unwrap();
        (view.payload().to_vec(), view.record_count())
    }

    /// What reading every record in full gives.
    fn by_reading(payload: &[u8], count: i32) -> Result<Scan, RecordsError> {
        let mut scan = Scanner::new(0, count).found;
        for (index, record) in (0..).zip(Records::new(payload, count)) {
            let record = record?;
            scan.max_timestamp = scan.max_timestamp.max(record.timestamp_delta);
            scan.min_timestamp = scan.min_timestamp.min(record.timestamp_delta);
            scan.null_key |= record.key.is_none();
            scan.offsets_in_order &= record.offset_delta == index;
        }
        Ok(scan)
    }

    /// What scanning gives when the payload comes in pieces of these sizes, over and over.
    fn by_pieces(payload: &[u8], count: i32, sizes: &[usize]) -> Result<Scan, RecordsError> {
        let mut scanner = Scanner::new(0, count);
        let (mut window, mut rest) = (Vec::new(), payload);
        for size in sizes.iter().cycle() {
            let (piece, later) = rest.split_at(rest.len().min(*size));
            rest = later;
            window.extend_from_slice(piece);
            let used = scanner.feed(&window, rest.is_empty())?;
            window.drain(..used);
            if rest.is_empty() {
                break;
            }
            assert!(window.len() < PREFIX_BYTES_MAX, "{} bytes are kept", window.len());
        }
        scanner.finish()
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            (payload, count) in payloads(),
            sizes in proptest::collection::vec(1usize..120, 1..6),
        ) {
            prop_assert_eq!(by_pieces(&payload, count, &sizes), by_reading(&payload, count));
        }

        #[test]
        fn damage_is_found_like_by_reading(
            (mut payload, count) in payloads(),
            count_change in -1i32..=1,
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            sizes in proptest::collection::vec(1usize..120, 1..6),
        ) {
            for (at, byte) in damage {
                if !payload.is_empty() {
                    let at = at.index(payload.len());
                    payload[at] = byte;
                }
            }
            let count = (count + count_change).max(0);
            let (read, whole) = (by_reading(&payload, count), by_pieces(&payload, count, &[usize::MAX]));
            prop_assert_eq!(read.is_ok(), whole.is_ok(), "{:?} {:?}", read, whole);
            let pieces = by_pieces(&payload, count, &sizes);
            prop_assert_eq!(whole.is_ok(), pieces.is_ok(), "{:?} {:?}", whole, pieces);
            if let (Ok(read), Ok(whole), Ok(pieces)) = (read, whole, pieces) {
                prop_assert_eq!(read, whole);
                prop_assert_eq!(read, pieces);
            }
        }
    }
}
