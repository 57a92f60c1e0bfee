//! Producers in a `.snapshot` file: where recovery starts instead of at the first record.

use super::{ProducerBatch, ProducerEntry, ProducerState, is_expired};

const SNAPSHOT_VERSION: i16 = 1;
const SNAPSHOT_CRC_END: usize = 6;
const SNAPSHOT_HEADER_BYTES: usize = 10;
const SNAPSHOT_ENTRY_BYTES: usize = 46;

impl ProducerState {
    /// The `.snapshot` file: `version i16, crc u32, entries`, with the last batch of each producer (Kafka:
    /// `ProducerSnapshot` v1). The CRC-32C covers what follows it.
    pub fn encode_snapshot(&self) -> Vec<u8> {
        let mut entries: Vec<_> = self.producers.iter().collect();
        entries.sort_unstable_by_key(|(producer_id, _)| **producer_id);
        let mut out = Vec::with_capacity(SNAPSHOT_HEADER_BYTES + entries.len() * SNAPSHOT_ENTRY_BYTES);
        out.extend_from_slice(&SNAPSHOT_VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(entries.len() as i32).to_be_bytes());
        for (producer_id, entry) in entries {
            let last = entry.batches().last();
            out.extend_from_slice(&producer_id.to_be_bytes());
            out.extend_from_slice(&entry.epoch.to_be_bytes());
            out.extend_from_slice(&entry.last_sequence().to_be_bytes());
            out.extend_from_slice(&entry.last_offset().to_be_bytes());
            out.extend_from_slice(&last.map_or(0, |batch| batch.offset_delta).to_be_bytes());
            out.extend_from_slice(&entry.last_timestamp.to_be_bytes());
            out.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
            out.extend_from_slice(&entry.txn_first_offset.unwrap_or(-1).to_be_bytes());
        }
        let crc = crc32c::crc32c(&out[SNAPSHOT_CRC_END..]);
        out[2..SNAPSHOT_CRC_END].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// Read a `.snapshot` file, leaving out producers whose time is over.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn decode_snapshot(content: &[u8], wall_ms: i64, expiration_ms: i64) -> std::result::Result<Self, String> {
        if content.len() < SNAPSHOT_HEADER_BYTES {
            return Err(format!(
                "{} bytes, at least {SNAPSHOT_HEADER_BYTES} expected",
                content.len()
            ));
        }
        let version = i16::from_be_bytes([content[0], content[1]]);
        if version != SNAPSHOT_VERSION {
            return Err(format!("version {version}, expected {SNAPSHOT_VERSION}"));
        }
        let expected = u32::from_be_bytes(content[2..6].try_into().expect("four bytes"));
        let found = crc32c::crc32c(&content[SNAPSHOT_CRC_END..]);
        if found != expected {
            return Err(format!("crc {found:#010x}, header says {expected:#010x}"));
        }
        let count = i32::from_be_bytes(content[6..10].try_into().expect("four bytes"));
        let rows = &content[SNAPSHOT_HEADER_BYTES..];
        if usize::try_from(count).ok() != Some(rows.len() / SNAPSHOT_ENTRY_BYTES)
            || !rows.len().is_multiple_of(SNAPSHOT_ENTRY_BYTES)
        {
            return Err(format!(
                "{} bytes of entries, the header says {count} entries",
                rows.len()
            ));
        }
        let mut state = Self::default();
        for row in rows.chunks_exact(SNAPSHOT_ENTRY_BYTES) {
            let (producer_id, entry) = decode_entry(row);
            if is_expired(&entry, wall_ms, expiration_ms) {
                continue;
            }
            if let Some(first_offset) = entry.txn_first_offset {
                state.ongoing.insert(first_offset, producer_id);
            }
            state.producers.insert(producer_id, entry);
        }
        Ok(state)
    }
}

fn decode_entry(row: &[u8]) -> (i64, ProducerEntry) {
    let i32_at = |at: usize| i32::from_be_bytes(row[at..at + 4].try_into().expect("four bytes"));
    let i64_at = |at: usize| i64::from_be_bytes(row[at..at + 8].try_into().expect("eight bytes"));
    let (last_sequence, last_offset, timestamp) = (i32_at(10), i64_at(14), i64_at(26));
    let mut entry = ProducerEntry {
        epoch: i16::from_be_bytes([row[8], row[9]]),
        coordinator_epoch: i32_at(34),
        last_timestamp: timestamp,
        txn_first_offset: Some(i64_at(38)).filter(|&offset| offset >= 0),
        ..ProducerEntry::EMPTY
    };
    if last_offset >= 0 {
        entry.push(ProducerBatch {
            last_sequence,
            last_offset,
            offset_delta: i32_at(22),
            timestamp,
        });
    }
    (i64_at(0), entry)
}
