//! Bounds-checked reading and writing of the primitive types of the Kafka protocol.
//!
//! A length or a count that arrives from outside is never trusted: it is compared with the bytes that are really there
//! before anything is allocated for it. Source: the protocol guide's "Protocol Primitive Types" and KIP-482 (compact
//! types and tagged fields).

use std::borrow::Cow;

use crate::types::TopicId;

/// Why bytes are not the message that they claim to be. The connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends inside a field.
    #[error("the message ends inside {field}")]
    Truncated {
        /// Kind of the field.
        field: &'static str,
    },
    /// A length or count is negative, or larger than what is left of the message.
    #[error("{field} claims {claimed} with {left_bytes} bytes left in the message")]
    BadLength {
        /// Kind of the field.
        field: &'static str,
        /// What the message says.
        claimed: i64,
        /// What is really there.
        left_bytes: usize,
    },
    /// More items than `Reader::limit_items` allows.
    #[error("{field} brings the items of the message above {limit}")]
    TooManyItems {
        /// Kind of the field.
        field: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A variable-length integer of more than 32 bits.
    #[error("a variable-length integer is longer than 5 bytes")]
    BadVarint,
    /// A string that is not UTF-8.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// Kind of the field.
        field: &'static str,
    },
    /// Null where the schema has no null.
    #[error("{field} is null")]
    UnexpectedNull {
        /// Kind of the field.
        field: &'static str,
    },
    /// A tagged field is longer or shorter than its type.
    #[error("tagged field {tag} has bytes left over")]
    TagSize {
        /// The offending tag.
        tag: u32,
    },
}

type Result<T> = std::result::Result<T, WireError>;

/// A cursor over one message, or a part of one. Copying it is cheap; nothing it returns owns memory.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    items_max: usize,
    items: usize,
}

macro_rules! read_number {
    ($name:ident, $type:ty, $doc:literal) => {
        #[doc = $doc]
        #[inline]
        pub fn $name(&mut self) -> Result<$type> {
            self.array(stringify!($type)).map(<$type>::from_be_bytes)
        }
    };
}

impl<'a> Reader<'a> {
    /// Start at the first byte of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::at(bytes, 0)
    }

    /// Start at `position`, which counts as read; behind the end, nothing is left.
    pub fn at(bytes: &'a [u8], position: usize) -> Self {
        Self {
            bytes,
            position: position.min(bytes.len()),
            items_max: usize::MAX,
            items: 0,
        }
    }

    /// Refuse a message whose arrays have more items than this, all of them together.
    #[must_use]
    pub fn limit_items(mut self, items_max: usize) -> Self {
        self.items_max = items_max;
        self
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// The next `len` bytes.
    #[inline]
    pub fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8]> {
        let end = self.position.checked_add(len).ok_or(WireError::Truncated { field })?;
        let taken = self
            .bytes
            .get(self.position..end)
            .ok_or(WireError::Truncated { field })?;
        self.position = end;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N]> {
        let taken = self.take(N, field)?;
        let mut out = [0; N];
        out.copy_from_slice(taken);
        Ok(out)
    }

    read_number!(i8, i8, "A signed byte.");
    read_number!(i16, i16, "Two bytes, big endian.");
    read_number!(i32, i32, "Four bytes, big endian.");
    read_number!(i64, i64, "Eight bytes, big endian.");

    /// An unsigned variable-length integer of at most 32 bits.
    #[inline]
    pub fn uvarint(&mut self) -> Result<u32> {
        let mut value = 0_u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array::<1>("a variable-length integer")?;
            if shift == 28 && byte > 0x0f {
                return Err(WireError::BadVarint);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::BadVarint)
    }

    /// A topic id or another UUID.
    pub fn uuid(&mut self) -> Result<TopicId> {
        self.array("a uuid").map(TopicId)
    }

    fn nullable_len(&mut self, flexible: bool, narrow: bool, field: &'static str) -> Result<Option<usize>> {
        let claimed = match (flexible, narrow) {
            (true, _) => i64::from(self.uvarint()?) - 1,
            (false, true) => i64::from(self.i16()?),
            (false, false) => i64::from(self.i32()?),
        };
        // Kafka takes any negative length for null.
        if claimed < 0 {
            return Ok(None);
        }
        match usize::try_from(claimed) {
            Ok(len) if len <= self.left() => Ok(Some(len)),
            _ => Err(WireError::BadLength {
                field,
                claimed,
                left_bytes: self.left(),
            }),
        }
    }

    /// A nullable string; compact when `flexible`.
    pub fn nullable_string(&mut self, flexible: bool, field: &'static str) -> Result<Option<&'a str>> {
        let Some(len) = self.nullable_len(flexible, true, field)? else {
            return Ok(None);
        };
        let bytes = self.take(len, field)?;
        std::str::from_utf8(bytes)
            .map(Some)
            .map_err(|_| WireError::NotUtf8 { field })
    }

    /// A nullable string of which what is not UTF-8 is replaced; always in the old encoding.
    pub fn nullable_string_lossy(&mut self, field: &'static str) -> Result<Option<Cow<'a, str>>> {
        let Some(len) = self.nullable_len(false, true, field)? else {
            return Ok(None);
        };
        self.take(len, field).map(String::from_utf8_lossy).map(Some)
    }

    /// A string that may not be null; compact when `flexible`.
    pub fn string(&mut self, flexible: bool, field: &'static str) -> Result<&'a str> {
        self.nullable_string(flexible, field)?
            .ok_or(WireError::UnexpectedNull { field })
    }

    /// Nullable bytes (also records); compact when `flexible`.
    pub fn nullable_bytes(&mut self, flexible: bool, field: &'static str) -> Result<Option<&'a [u8]>> {
        let Some(len) = self.nullable_len(flexible, false, field)? else {
            return Ok(None);
        };
        self.take(len, field).map(Some)
    }

    /// The length of an array that may not be null. Each item takes at least `item_bytes_min` bytes on the wire, so a
    /// count that cannot fit in the rest of the message is refused before anything is allocated.
    pub fn array_len(&mut self, flexible: bool, item_bytes_min: usize, field: &'static str) -> Result<usize> {
        let claimed = if flexible {
            i64::from(self.uvarint()?) - 1
        } else {
            i64::from(self.i32()?)
        };
        if claimed == -1 {
            return Err(WireError::UnexpectedNull { field });
        }
        let len = match usize::try_from(claimed) {
            Ok(len) if len.saturating_mul(item_bytes_min) <= self.left() => len,
            _ => {
                return Err(WireError::BadLength {
                    field,
                    claimed,
                    left_bytes: self.left(),
                });
            }
        };
        self.items = self.items.saturating_add(len);
        if self.items > self.items_max {
            let limit = self.items_max;
            return Err(WireError::TooManyItems { field, limit });
        }
        Ok(len)
    }

    /// The tagged fields of one structure (KIP-482), each handed to `on_field` with a reader of just its bytes.
    /// Does nothing unless `flexible`. A field that `on_field` does not know it returns false for. The order of tags is
    /// not checked (nor does Kafka).
    pub fn tagged_fields(
        &mut self,
        flexible: bool,
        mut on_field: impl FnMut(u32, &mut Reader<'a>) -> Result<bool>,
    ) -> Result<()> {
        if !flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let len = self.uvarint()? as usize;
            let mut field = Reader::new(self.take(len, "a tagged field")?);
            if on_field(tag, &mut field)? && field.left() != 0 {
                return Err(WireError::TagSize { tag });
            }
        }
        Ok(())
    }

    /// Tagged fields of a structure that has none of its own.
    pub fn skip_tagged_fields(&mut self, flexible: bool) -> Result<()> {
        self.tagged_fields(flexible, |_, _| Ok(false))
    }
}

/// Appends primitive types to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

macro_rules! write_number {
    ($name:ident, $type:ty, $doc:literal) => {
        #[doc = $doc]
        #[inline]
        pub fn $name(&mut self, value: $type) {
            self.bytes.extend_from_slice(&value.to_be_bytes());
        }
    };
}

impl Writer {
    /// An empty buffer with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
        }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    write_number!(i8, i8, "A signed byte.");
    write_number!(i16, i16, "Two bytes, big endian.");
    write_number!(i32, i32, "Four bytes, big endian.");
    write_number!(i64, i64, "Eight bytes, big endian.");

    /// Overwrite four bytes at `position`, which must have been written.
    pub fn set_i32(&mut self, position: usize, value: i32) {
        self.bytes[position..position + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// An unsigned variable-length integer.
    #[inline]
    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A UUID.
    pub fn uuid(&mut self, value: TopicId) {
        self.raw(&value.0);
    }

    /// A string; compact when `flexible`.
    pub fn string(&mut self, flexible: bool, value: &str) {
        if flexible {
            self.uvarint(value.len() as u32 + 1);
        } else {
            self.i16(value.len() as i16);
        }
        self.raw(value.as_bytes());
    }

    /// A string or null; compact when `flexible`.
    pub fn nullable_string(&mut self, flexible: bool, value: Option<&str>) {
        match value {
            Some(value) => self.string(flexible, value),
            None if flexible => self.uvarint(0),
            None => self.i16(-1),
        }
    }

    /// The length of an array, or of bytes; compact when `flexible`.
    pub fn array_len(&mut self, flexible: bool, len: usize) {
        if flexible {
            self.uvarint(len as u32 + 1);
        } else {
            self.i32(len as i32);
        }
    }

    /// The length of a null array, or of null bytes; compact when `flexible`.
    pub fn null_array(&mut self, flexible: bool) {
        if flexible {
            self.uvarint(0);
        } else {
            self.i32(-1);
        }
    }

    /// The mark of "no tagged fields here"; nothing unless `flexible`.
    pub fn no_tagged_fields(&mut self, flexible: bool) {
        if flexible {
            self.uvarint(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_count_that_the_message_cannot_hold_is_refused_before_anything_is_allocated() {
        let mut writer = Writer::default();
        writer.i32(i32::MAX);
        writer.raw(&[0; 100]);
        let bytes = writer.into_bytes();
        let claimed = Reader::new(&bytes).array_len(false, 1, "things");
        assert_eq!(
            claimed,
            Err(WireError::BadLength {
                field: "things",
                claimed: i64::from(i32::MAX),
                left_bytes: 100
            })
        );
    }

    #[test]
    fn tagged_fields_must_fill_their_size() {
        let read = |bytes: &[u8]| {
            Reader::new(bytes).tagged_fields(true, |_, field| {
                field.i8()?;
                Ok(true)
            })
        };
        assert_eq!(read(&[2, 1, 1, 0, 3, 1, 0]), Ok(()));
        assert_eq!(read(&[1, 1, 2, 0, 0]), Err(WireError::TagSize { tag: 1 }));
        assert!(matches!(read(&[1, 1, 200, 0, 0]), Err(WireError::Truncated { .. })));
    }

    #[test]
    fn a_varint_above_32_bits_is_refused() {
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).uvarint(), Ok(u32::MAX));
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).uvarint(),
            Err(WireError::BadVarint)
        );
        assert_eq!(Reader::new(&[0x80; 9]).uvarint(), Err(WireError::BadVarint));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            flexible: bool, a: i8, b: i16, c: i32, d: i64, e: u32, text in ".{0,40}", null: bool, id: [u8; 16],
        ) {
            let mut writer = Writer::default();
            writer.i8(a);
            writer.i16(b);
            writer.i32(c);
            writer.i64(d);
            writer.uvarint(e);
            writer.nullable_string(flexible, (!null).then_some(&text));
            writer.uuid(TopicId(id));
            writer.array_len(flexible, 3);
            writer.raw(&[7; 3]);
            writer.no_tagged_fields(flexible);
            let bytes = writer.into_bytes();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.i8(), Ok(a));
            prop_assert_eq!(reader.i16(), Ok(b));
            prop_assert_eq!(reader.i32(), Ok(c));
            prop_assert_eq!(reader.i64(), Ok(d));
            prop_assert_eq!(reader.uvarint(), Ok(e));
            prop_assert_eq!(reader.nullable_string(flexible, "text"), Ok((!null).then_some(text.as_str())));
            prop_assert_eq!(reader.uuid(), Ok(TopicId(id)));
            prop_assert_eq!(reader.nullable_bytes(flexible, "bytes"), Ok(Some(&[7_u8; 3][..])));
            prop_assert_eq!(reader.skip_tagged_fields(flexible), Ok(()));
            prop_assert_eq!(reader.left(), 0);
        }
    }
}
