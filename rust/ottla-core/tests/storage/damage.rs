//! Bytes that go bad while nobody looks: readers are told where, once in the log and each time in an answer.

use std::path::Path;

use ottla_core::error::{Error, Result};
use ottla_core::partition::{Partition, ReadResult};
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::log_dir::LogDir;
use ottla_core::storage::sim_fs::SimFs;
use ottla_core::types::Isolation;
use std::sync::Arc;

use super::support::{WALL_MS, append, open, open_dir, records_of, settle};

const RECORDS: i64 = 40;
/// Of a batch of one record of one byte.
const BATCH_BYTES: usize = 69;
const FIRST_SEGMENT: &str = "/log/t-0/00000000000000000000.log";

/// A log of several segments whose first batches are no longer in memory, with a byte of the first segment gone bad.
fn damaged(position: usize, bit: u8) -> (Arc<LogDir>, Arc<Partition>) {
    let fs = SimFs::new(1);
    let config = LogConfig {
        segment_bytes: 20 * BATCH_BYTES as u32,
        index_interval_bytes: 4 * BATCH_BYTES as u32,
        ..LogConfig::default()
    };
    let dir = open_dir(&fs);
    let partition = open(&dir, "t", config.clone());
    for number in 0..RECORDS {
        append(&partition, &[b"v"], WALL_MS + number);
        settle(&dir, &[&partition]);
    }
    partition.close().unwrap();
    dir.close().unwrap();
    fs.flip_bit(Path::new(FIRST_SEGMENT), position, bit).unwrap();
    let dir = open_dir(&fs);
    let partition = open(&dir, "t", config);
    settle(&dir, &[&partition]);
    assert_eq!(dir.drain_complaints(), Vec::<String>::new());
    (dir, partition)
}

fn read(partition: &Partition, offset: i64) -> Result<ReadResult> {
    partition.read(offset, 1 << 20, Isolation::ReadUncommitted, true, -1, -1)
}

#[track_caller]
fn assert_corrupt_at<T: std::fmt::Debug>(found: Result<T>, batch: usize) {
    match found {
        Err(Error::CorruptBatch { file, position, .. }) => {
            assert_eq!(
                (file.as_str(), position),
                ("t-0/00000000000000000000.log", (batch * BATCH_BYTES) as u64)
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reader_at_a_batch_whose_length_went_bad_is_told_so() {
    for batch in [0, 1, 7] {
        // The highest byte of the length, and its sign.
        for bit in [0, 7] {
            let (dir, partition) = damaged(batch * BATCH_BYTES + 8, bit);
            for _ in 0..3 {
                assert_corrupt_at(read(&partition, batch as i64), batch);
            }
            let complaints = dir.drain_complaints();
            assert_eq!(complaints.len(), 1, "{complaints:?}");
            assert!(complaints[0].contains(&format!("t-0/00000000000000000000.log at byte {}", batch * BATCH_BYTES)));
            assert_eq!(
                records_of(&read(&partition, 20).unwrap()).first(),
                Some(&(20, b"v".to_vec()))
            );
        }
    }
}

#[test]
fn a_reader_behind_damage_is_served_where_an_index_entry_leads_past_it() {
    let (_dir, partition) = damaged(BATCH_BYTES + 8, 0);
    assert_corrupt_at(read(&partition, 2), 1);
    let found = records_of(&read(&partition, 15).unwrap());
    assert!(found.contains(&(15, b"v".to_vec())), "{found:?}");
}

#[test]
fn a_lookup_by_time_in_damaged_bytes_is_told_so() {
    let (_dir, partition) = damaged(BATCH_BYTES + 8, 0);
    assert_corrupt_at(
        partition.list_offset(WALL_MS + 2, Some(Isolation::ReadUncommitted), -1),
        1,
    );
    let later = partition.list_offset(WALL_MS + 25, Some(Isolation::ReadUncommitted), -1);
    assert_eq!(later.unwrap().offset, 25);
}

#[test]
fn what_is_whole_before_damage_is_served() {
    let (_dir, partition) = damaged(2 * BATCH_BYTES + 8, 0);
    let found = partition.read(0, 4 * BATCH_BYTES, Isolation::ReadUncommitted, true, -1, -1);
    assert!(found.unwrap().slices[0].len >= 2 * BATCH_BYTES);
    let bytes_max = 2 * BATCH_BYTES + 10;
    let found = partition.read(0, bytes_max, Isolation::ReadUncommitted, true, -1, -1);
    assert_eq!(records_of(&found.unwrap()), [(0, b"v".to_vec()), (1, b"v".to_vec())]);
}
