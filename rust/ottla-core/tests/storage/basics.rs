//! Append, read, restart.

use std::sync::Arc;

use ottla_core::partition::{AppendState, EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, MAX_TIMESTAMP};
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::log_dir::{LastStop, LogDir};
use ottla_core::storage::real_fs::RealFs;
use ottla_core::types::Isolation;

use super::support::{
    Scratch, WALL_MS, append, commit, consume, dir_options, open, open_as_leader, records_of, settle, topic_partition,
};

fn small_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 1000,
        index_interval_bytes: 200,
        ..LogConfig::default()
    }
}

#[test]
fn what_is_written_is_read_again_also_after_a_clean_restart() {
    let scratch = Scratch::new("restart");
    let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
    assert_eq!(dir.last_stop(), LastStop::PowerFailed);
    let partition = open(&dir, "t", small_segments());
    let mut expected = Vec::new();
    for number in 0..40_i64 {
        let value = format!("value {number}");
        let appended = append(&partition, &[value.as_bytes(), b"second"], WALL_MS + number);
        assert_eq!(appended.base_offset, number * 2);
        assert_eq!(partition.append_state(&appended), AppendState::Pending);
        commit(&dir, &partition, &appended);
        expected.push((number * 2, value.into_bytes()));
        expected.push((number * 2 + 1, b"second".to_vec()));
    }
    assert_eq!(consume(&partition, 0, 1), expected);
    assert_eq!(consume(&partition, 0, 300), expected);
    assert_eq!(consume(&partition, 33, 1 << 20), expected[33..]);
    partition.close().unwrap();
    dir.close().unwrap();

    let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
    assert_eq!(dir.last_stop(), LastStop::Clean);
    assert_eq!(dir.partitions(), [topic_partition("t", 0)]);
    let partition = open(&dir, "t", small_segments());
    assert_eq!(partition.recovery_report().scanned_bytes, 0);
    assert_eq!(partition.offsets().log_end_offset, 80);
    assert_eq!(consume(&partition, 0, 300), expected);
    let appended = append(&partition, &[b"more"], WALL_MS);
    assert_eq!(appended.base_offset, 80);
    commit(&dir, &partition, &appended);
    assert_eq!(consume(&partition, 80, 300), [(80, b"more".to_vec())]);
    for offset in 0..80 {
        let timestamp = WALL_MS + offset / 2 + offset % 2;
        let found = partition
            .list_offset(timestamp, Some(Isolation::ReadUncommitted), -1)
            .unwrap();
        // Timestamp n is that of offset 2n, and of 2n - 1 before it.
        assert_eq!(
            (found.timestamp, found.offset),
            (timestamp, (2 * (timestamp - WALL_MS) - 1).max(0)),
            "{offset}"
        );
    }
    let list = |timestamp| {
        partition
            .list_offset(timestamp, Some(Isolation::ReadUncommitted), -1)
            .unwrap()
            .offset
    };
    assert_eq!(
        (list(LATEST_TIMESTAMP), list(EARLIEST_TIMESTAMP), list(MAX_TIMESTAMP)),
        (81, 0, 79)
    );
    assert_eq!(list(WALL_MS + 1000), -1);
}

#[test]
fn a_directory_serves_one_process() {
    let scratch = Scratch::new("lock");
    let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
    let second = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap_err();
    assert!(second.to_string().contains("in use by another process"), "{second}");
    drop(dir);
    LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
}

#[test]
fn the_writer_thread_wakes_its_owner() {
    let scratch = Scratch::new("threads");
    let (sender, woken) = std::sync::mpsc::channel();
    let mut options = dir_options(Arc::new(RealFs), &scratch.0);
    options.threads = true;
    options.waker = Arc::new(move || {
        let _ = sender.send(());
    });
    let dir = LogDir::open(&options).unwrap();
    let partition = open(&dir, "t", LogConfig::default());
    let appended = append(&partition, &[b"a"], WALL_MS);
    while partition.append_state(&appended) != AppendState::Committed {
        woken.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        settle(&dir, &[&partition]);
    }
    let result = partition
        .read(0, 1000, Isolation::ReadUncommitted, true, -1, -1)
        .unwrap();
    assert_eq!(records_of(&result), [(0, b"a".to_vec())]);
    partition.close().unwrap();
    dir.close().unwrap();
}

#[test]
fn a_place_for_a_partition_is_made_in_what_still_is_the_log_directory_and_taken_back() {
    let scratch = Scratch::new("place");
    let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
    let (wanted, place) = (topic_partition("t", 0), scratch.0.join("t-0"));
    let (meta, elsewhere) = (scratch.0.join("meta.properties"), scratch.0.join("elsewhere"));
    for _ in 0..2 {
        assert!(dir.make_place(&wanted).unwrap());
        // A disk that is full by now: the partition's own first file cannot be made.
        std::fs::create_dir(place.join("partition.metadata")).unwrap();
        open_as_leader(&dir, "t", LogConfig::default(), 0).unwrap_err();
        assert!(dir.take_back(&wanted));
        assert!(!place.exists() && !dir.contains(&wanted));
    }
    std::fs::rename(&meta, &elsewhere).unwrap();
    assert!(dir.make_place(&wanted).is_err());
    assert!(!place.exists());
    std::fs::rename(&elsewhere, &meta).unwrap();
    assert!(dir.make_place(&wanted).unwrap());
    assert!(place.exists() && !dir.contains(&wanted));
}

#[test]
fn what_stands_in_a_partitions_place_is_held() {
    let scratch = Scratch::new("held-place");
    let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
    let wanted = topic_partition("t", 0);
    std::fs::create_dir(scratch.0.join("t-0")).unwrap();
    assert!(!dir.make_place(&wanted).unwrap());
    assert!(dir.contains(&wanted));
}

#[test]
fn what_a_disk_has_lost_is_told_of() {
    let scratch = Scratch::new("lost");
    let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
    let partition = open(&dir, "t", LogConfig::default());
    commit(&dir, &partition, &append(&partition, &[b"a", b"b"], WALL_MS));
    partition.close().unwrap();
    dir.close().unwrap();
    drop((partition, dir));
    std::fs::write(scratch.0.join("t-0/00000000000000000000.log"), b"").unwrap();
    let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
    let _partition = open(&dir, "t", LogConfig::default());
    let told = dir.drain_complaints();
    let expected = "t-0: the log ends at 0, but everything below 2 had been synced: the disk has lost it";
    assert!(told.iter().any(|line| line == expected), "{told:?}");
}
