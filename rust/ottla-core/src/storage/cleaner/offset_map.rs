//! The newest offset of each key in the part of a log that is being cleaned (Kafka: `SkimpyOffsetMap`).
//!
//! Keys are known by a hash of 128 bits. Two keys with the same one would cost the older record its life; among five
//! million keys the odds of that are one in 10^25. Whoever writes keys with equal hashes on purpose can as well write the
//! keys themselves. Memory is taken as keys come, up to a bound.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use twox_hash::XxHash3_128;

/// Bytes of an entry, with the room that the table leaves free.
const ENTRY_BYTES: usize = 32;

/// Takes a part of the key's hash as it is.
#[derive(Clone, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 ^= word;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct OffsetMap {
    offsets: HashMap<KeyHash, i64, BuildHasherDefault<Identity>>,
    keys_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct KeyHash(u64, u64);

impl std::hash::Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

impl OffsetMap {
    /// A map that is full at about `memory_bytes`.
    pub fn new(memory_bytes: usize) -> Self {
        Self {
            offsets: HashMap::default(),
            keys_max: (memory_bytes / ENTRY_BYTES).max(1),
        }
    }

    /// Note the newest offset of a key.
    pub fn put(&mut self, key: &[u8], offset: i64) {
        let newest = self.offsets.entry(hash(key)).or_insert(offset);
        *newest = offset.max(*newest);
    }

    /// The newest offset of a key.
    pub fn get(&self, key: &[u8]) -> Option<i64> {
        self.offsets.get(&hash(key)).copied()
    }

    /// Whether no more should be put in (it still can be).
    pub fn is_full(&self) -> bool {
        self.offsets.len() >= self.keys_max
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }
}

fn hash(key: &[u8]) -> KeyHash {
    let hash = XxHash3_128::oneshot(key);
    KeyHash(hash as u64, (hash >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_offset_wins() {
        let mut map = OffsetMap::new(1 << 20);
        map.put(b"a", 5);
        map.put(b"b", 6);
        map.put(b"a", 9);
        map.put(b"a", 7);
        assert_eq!((map.get(b"a"), map.get(b"b"), map.get(b"")), (Some(9), Some(6), None));
        assert_eq!(map.len(), 2);
    }

    #[test]
    fn a_full_map_still_takes_the_rest_of_a_batch() {
        let mut map = OffsetMap::new(10 * ENTRY_BYTES);
        for number in 0..12u32 {
            assert_eq!(map.is_full(), number >= 10);
            map.put(&number.to_le_bytes(), i64::from(number));
        }
        assert!((0..12u32).all(|number| map.get(&number.to_le_bytes()) == Some(i64::from(number))));
    }
}
