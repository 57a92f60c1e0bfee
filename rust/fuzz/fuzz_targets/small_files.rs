//! Files beside a log: checkpoints, indexes, producer snapshots.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ottla_core::storage::checkpoint::{decode_offsets, encode_offsets};
use ottla_core::storage::index::IndexEntries;
use ottla_core::storage::meta::{decode_uuid, encode_uuid};
use ottla_core::storage::offset_index::OffsetEntry;
use ottla_core::storage::producer_state::ProducerState;
use ottla_core::storage::time_index::TimeEntry;
use ottla_core::storage::txn_index::AbortedTxnRow;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(rows) = decode_offsets(text) {
            assert_eq!(decode_offsets(&encode_offsets(&rows)).as_ref(), Ok(&rows));
        }
        if let Some(id) = decode_uuid(text) {
            assert_eq!(decode_uuid(&encode_uuid(id)), Some(id));
        }
    }
    if let Some(entries) = IndexEntries::<OffsetEntry>::from_bytes(data.to_vec()) {
        let _ = (
            entries.is_sane(1 << 20),
            entries.position_for(7),
            entries.floor_position(7),
            entries.last(),
        );
    }
    if let Some(entries) = IndexEntries::<TimeEntry>::from_bytes(data.to_vec()) {
        let _ = (entries.is_sane(), entries.floor_timestamp(7), entries.last());
    }
    if let Some(entries) = IndexEntries::<AbortedTxnRow>::from_bytes(data.to_vec()) {
        let _ = (entries.is_sane(5), entries.iter().count());
    }
    for expiration_ms in [0, 86_400_000, i64::MAX] {
        if let Ok(states) = ProducerState::decode_snapshot(data, 1_700_000_000_000, expiration_ms) {
            let again = states.encode_snapshot();
            ProducerState::decode_snapshot(&again, 1_700_000_000_000, expiration_ms).expect("our own snapshot");
        }
    }
});
