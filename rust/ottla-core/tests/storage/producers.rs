//! What producer ids cost: only time bounds their number, and nothing is left of them when it is over.

use ottla_core::storage::producer_state::{BatchInfo, ProducerState};

use super::support::WALL_MS;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const IDS: i64 = 100_000;

fn batch_of(producer_id: i64, timestamp: i64, is_transactional: bool) -> BatchInfo {
    BatchInfo {
        producer_id,
        producer_epoch: 0,
        base_sequence: 0,
        last_sequence: 0,
        base_offset: producer_id,
        last_offset: producer_id,
        timestamp,
        is_transactional,
        marker: None,
    }
}

#[test]
fn a_flood_of_producer_ids_ends_with_their_time_and_gives_its_memory_back() {
    let mut state = ProducerState::default();
    for producer_id in 0..IDS {
        state.apply(&batch_of(producer_id, WALL_MS, false));
    }
    let each = state.size_bytes() / IDS as usize;
    assert!(each < 400, "{each} bytes for each of {} ids", state.len());
    // One that was heard of since and one with an open transaction stay.
    state.apply(&batch_of(7, WALL_MS + DAY_MS, false));
    state.apply(&batch_of(IDS, WALL_MS, true));
    state.expire(0, WALL_MS + DAY_MS - 1, DAY_MS);
    assert_eq!(state.len() as i64, IDS + 1);
    state.expire(0, WALL_MS + DAY_MS, DAY_MS);
    let mut left: Vec<i64> = state.iter().map(|(producer_id, _)| producer_id).collect();
    left.sort_unstable();
    assert_eq!(left, [7, IDS]);
    assert!(state.size_bytes() < 4096, "{} bytes", state.size_bytes());
    assert_eq!(state.first_unstable_offset(), Some(IDS));
}
