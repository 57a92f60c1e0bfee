//! Retention through a partition: what goes from the disk, and where the log begins then.

use std::sync::Arc;

use ottla_core::partition::Partition;
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::log_dir::LogDir;
use ottla_core::storage::real_fs::RealFs;

use super::support::{Scratch, WALL_MS, append, commit, consume, dir_options, open, settle};

fn segments(scratch: &Scratch) -> Vec<String> {
    let entries = std::fs::read_dir(scratch.0.join("t-0")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("partition") && !name.starts_with("leader"))
        .collect();
    names.sort();
    names
}

/// Let everything that was queued be done.
fn rest(dir: &LogDir, partition: &Partition) {
    settle(dir, &[partition]);
    while dir.step_background() {}
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 300,
        retention_ms: 10_000,
        ..LogConfig::default()
    }
}

#[test]
fn old_segments_go_with_all_their_files() {
    let scratch = Scratch::new("retention-time");
    let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
    let partition = open(&dir, "t", config());
    for number in 0..6 {
        let appended = append(&partition, &[&[b'x'; 150]], WALL_MS + number * 1_000);
        commit(&dir, &partition, &appended);
    }
    rest(&dir, &partition);
    assert_eq!(partition.delete_old_segments(WALL_MS + 10_000).unwrap(), 0);
    assert_eq!(partition.delete_old_segments(WALL_MS + 12_001).unwrap(), 3);
    rest(&dir, &partition);
    assert_eq!(partition.offsets().log_start_offset, 3);
    assert!(
        segments(&scratch)
            .iter()
            .all(|name| name.as_str() >= "00000000000000000003"),
        "{:?}",
        segments(&scratch)
    );
    assert_eq!(consume(&partition, 3, 1 << 20).len(), 3);
}

/// Files below the directory that are open and have no name any more: the room that they take is not free.
fn open_without_a_name(scratch: &Scratch) -> Vec<String> {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = links.filter_map(|link| std::fs::read_link(link.unwrap().path()).ok());
    targets
        .filter(|target| target.starts_with(&scratch.0))
        .map(|target| target.display().to_string())
        .filter(|target| target.ends_with(" (deleted)"))
        .collect()
}

#[test]
fn removed_segments_give_their_room_back() {
    let scratch = Scratch::new("retention-room");
    let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
    let partition = open(&dir, "t", config());
    for number in 0..6 {
        let appended = append(&partition, &[&[b'x'; 150]], WALL_MS + number * 1_000);
        commit(&dir, &partition, &appended);
        if number % 2 == 0 {
            rest(&dir, &partition); // some are removed before they are synced, some after
        }
    }
    settle(&dir, &[&partition]);
    assert_eq!(consume(&partition, 0, 1 << 20).len(), 6);
    assert_eq!(partition.delete_old_segments(WALL_MS + 60_000).unwrap(), 6);
    rest(&dir, &partition);
    assert_eq!(open_without_a_name(&scratch), Vec::<String>::new());
    partition.close().unwrap();
    dir.close().unwrap();
}

#[test]
fn a_quiet_log_is_emptied_and_goes_on() {
    let scratch = Scratch::new("retention-all");
    let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
    let partition = open(&dir, "t", config());
    for number in 0..3 {
        let appended = append(&partition, &[&[b'x'; 150]], WALL_MS + number * 1_000);
        commit(&dir, &partition, &appended);
    }
    rest(&dir, &partition);
    assert_eq!(partition.delete_old_segments(WALL_MS + 60_000).unwrap(), 3);
    rest(&dir, &partition);
    let offsets = partition.offsets();
    assert_eq!(
        (offsets.log_start_offset, offsets.high_watermark, offsets.log_end_offset),
        (3, 3, 3)
    );
    assert!(
        !segments(&scratch)
            .iter()
            .any(|name| name.contains(".log") || name.ends_with("index")),
        "{:?}",
        segments(&scratch)
    );
    assert_eq!(partition.delete_old_segments(WALL_MS + 90_000).unwrap(), 0);
    assert_eq!(consume(&partition, 3, 1 << 20), []);
    let appended = append(&partition, &[b"again"], WALL_MS + 61_000);
    commit(&dir, &partition, &appended);
    assert_eq!(consume(&partition, 3, 1 << 20), [(3, b"again".to_vec())]);
    partition.close().unwrap();
    dir.close().unwrap();
    drop((partition, dir));
    let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
    let partition = open(&dir, "t", config());
    assert_eq!(partition.offsets().log_start_offset, 3);
    assert_eq!(consume(&partition, 3, 1 << 20), [(3, b"again".to_vec())]);
}

#[test]
fn size_counts_the_active_segment() {
    let scratch = Scratch::new("retention-size");
    let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
    let partition = open(
        &dir,
        "t",
        LogConfig {
            retention_ms: -1,
            retention_bytes: 500,
            ..config()
        },
    );
    for number in 0..6 {
        let appended = append(&partition, &[&[b'x'; 150]], WALL_MS + number);
        commit(&dir, &partition, &appended);
    }
    let batch_bytes = partition.size_bytes() / 6;
    let expected = (6 * batch_bytes - 500) / batch_bytes;
    assert_eq!(partition.delete_old_segments(WALL_MS).unwrap() as u64, expected);
    assert!(partition.size_bytes() >= 500);
}

#[test]
fn records_without_timestamps_age_with_their_file() {
    let scratch = Scratch::new("retention-no-time");
    let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
    let partition = open(&dir, "t", config());
    for _ in 0..3 {
        let appended = append(&partition, &[&[b'x'; 150]], -1);
        commit(&dir, &partition, &appended);
    }
    let modified = std::fs::metadata(scratch.0.join("t-0/00000000000000000000.log"))
        .unwrap()
        .modified()
        .unwrap();
    let written_ms = modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    assert_eq!(partition.delete_old_segments(written_ms + 10_000).unwrap(), 0);
    assert!(partition.delete_old_segments(written_ms + 11_000).unwrap() >= 2);
}

#[test]
fn a_log_start_inside_a_segment_keeps_it() {
    let scratch = Scratch::new("retention-start");
    let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
    let partition = open(
        &dir,
        "t",
        LogConfig {
            retention_ms: -1,
            ..config()
        },
    );
    for number in 0..4 {
        let appended = append(&partition, &[b"one", b"two"], WALL_MS + number);
        commit(&dir, &partition, &appended);
    }
    partition.delete_records(3).unwrap();
    partition.delete_old_segments(i64::MAX).unwrap();
    assert_eq!(partition.offsets().log_start_offset, 3);
    assert_eq!(consume(&partition, 3, 1 << 20).len(), 5);
}
