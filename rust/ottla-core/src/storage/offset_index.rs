//! `.index`: the last offset of a batch (relative to the segment's base) and the position at which that batch starts.
//!
//! Sparse: an entry is made for a batch when more than `index.interval.bytes` were appended since the last entry, so the
//! first batch has none (Kafka: `OffsetIndex`, `LogSegment.append`). A lookup takes the greatest entry at or below the
//! offset and scans batches forward from there.

use super::index::{IndexEntries, IndexEntry};

/// An entry of an offset index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffsetEntry {
    /// The batch's last offset minus the segment's base offset.
    pub relative_offset: u32,
    /// Where the batch starts in the segment, in bytes.
    pub position: u32,
}

impl IndexEntry for OffsetEntry {
    const SIZE_BYTES: usize = 8;
    const SUFFIX: &'static str = "index";

    fn encode(self, out: &mut Vec<u8>) {
        let entry = u64::from(self.relative_offset) << 32 | u64::from(self.position);
        out.extend_from_slice(&entry.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        let entry = u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
        Self {
            relative_offset: (entry >> 32) as u32,
            position: entry as u32,
        }
    }
}

impl IndexEntries<OffsetEntry> {
    /// Position from which to scan for `relative_offset`: 0 if no entry is at or below it.
    pub fn position_for(&self, relative_offset: i64) -> u32 {
        self.floor(|entry| i64::from(entry.relative_offset) <= relative_offset)
            .map_or(0, |entry| entry.position)
    }

    /// The greatest indexed position at or below `position` (a batch starts there), if any.
    pub fn floor_position(&self, position: u32) -> Option<u32> {
        self.floor(|entry| entry.position <= position)
            .map(|entry| entry.position)
    }

    /// Whether offsets and positions strictly ascend and lie inside a segment of `size_bytes`: an index that was torn
    /// (a hole of zeros, a wild entry) fails.
    pub fn is_sane(&self, size_bytes: u64) -> bool {
        let mut last: Option<OffsetEntry> = None;
        self.iter().all(|entry| {
            let ascends =
                last.is_none_or(|last| entry.relative_offset > last.relative_offset && entry.position > last.position);
            last = Some(entry);
            ascends && entry.position > 0 && u64::from(entry.position) < size_bytes
        })
    }
}
