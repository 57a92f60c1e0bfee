//! `.timeindex`: the greatest timestamp so far and the last offset of the batch that holds it (relative to the base).
//!
//! An entry is tried whenever the offset index gets one, and once more when the segment is rolled or closed; it is made
//! only if its timestamp is greater than the last one's (Kafka: `TimeIndex.maybeAppend`).

use super::index::{IndexEntries, IndexEntry};

/// An entry of a time index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeEntry {
    /// Greatest timestamp up to here, in Unix ms.
    pub timestamp: i64,
    /// The last offset of the batch that holds it, minus the segment's base offset.
    pub relative_offset: u32,
}

impl IndexEntry for TimeEntry {
    const SIZE_BYTES: usize = 12;
    const SUFFIX: &'static str = "timeindex";

    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        let (timestamp, relative_offset) = bytes.split_at(8);
        Self {
            timestamp: i64::from_be_bytes(timestamp.try_into().expect("eight bytes")),
            relative_offset: u32::from_be_bytes(relative_offset.try_into().expect("four bytes")),
        }
    }
}

impl IndexEntries<TimeEntry> {
    /// The last entry whose timestamp is at or below `timestamp`: every record before its offset is older or equal.
    pub fn floor_timestamp(&self, timestamp: i64) -> Option<TimeEntry> {
        self.floor(|entry| entry.timestamp <= timestamp)
    }

    /// Whether timestamps strictly ascend and offsets do not fall.
    pub fn is_sane(&self) -> bool {
        let mut last: Option<TimeEntry> = None;
        self.iter().all(|entry| {
            let ascends = last
                .is_none_or(|last| entry.timestamp > last.timestamp && entry.relative_offset >= last.relative_offset);
            last = Some(entry);
            ascends && entry.timestamp >= 0
        })
    }
}
