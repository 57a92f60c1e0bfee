//! Directories and partitions that come, go, belong to others, or are recovered twice.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use ottla_core::error::Error;
use ottla_core::partition::{Partition, PartitionOptions};
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::fs::{LogFs, OpenMode};
use ottla_core::storage::log_dir::{LastStop, LogDir, LogDirOptions, PartitionId};
use ottla_core::storage::real_fs::RealFs;
use ottla_core::storage::sim_fs::{Crash, Effect, Fault, Operation, SimFs};
use ottla_core::types::TopicId;

use super::support::{
    Scratch, WALL_MS, append, batch, commit, consume, dir_options, meta, open, open_dir, settle, topic_partition,
    try_open,
};

#[test]
fn a_deleted_partition_leaves_nothing_and_may_come_again() {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs);
    for _ in 0..3 {
        let partition = open(&dir, "t", LogConfig::default());
        assert_eq!(partition.offsets().log_end_offset, 0);
        commit(&dir, &partition, &append(&partition, &[b"a", b"b"], WALL_MS));
        partition.flush().unwrap();
        dir.write_checkpoints().unwrap();
        partition.delete().unwrap();
        assert!(matches!(
            partition.append_as_leader(batch(&[b"x"], WALL_MS, None), None, WALL_MS),
            Err(Error::LogClosed { .. })
        ));
    }
    let left = |fs: &SimFs| {
        fs.paths()
            .into_iter()
            .filter(|path| path.to_string_lossy().contains("t-0"))
            .count()
    };
    assert!(left(&fs) > 0);
    // Files that were not removed in time are removed by the next start.
    fs.restart(Crash::ProcessDies);
    let dir = open_dir(&fs);
    assert_eq!(dir.partitions(), []);
    while dir.step_background() {}
    assert_eq!(left(&fs), 0);
    assert_eq!(dir.last_stop(), LastStop::ProcessDied);
}

#[test]
fn a_partition_without_a_topic_is_discarded() {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs);
    let partition = open(&dir, "t", LogConfig::default());
    commit(&dir, &partition, &append(&partition, &[b"a"], WALL_MS));
    fs.restart(Crash::ProcessDies);
    let dir = open_dir(&fs);
    dir.discard(&topic_partition("t", 0)).unwrap();
    dir.discard(&topic_partition("never", 0)).unwrap();
    while dir.step_background() {}
    assert!(
        fs.paths().iter().all(|path| !path.to_string_lossy().contains("t-0")),
        "{:?}",
        fs.paths()
    );
    assert_eq!(dir.partitions(), []);
}

#[test]
fn a_directory_of_another_node_is_refused() {
    let fs = SimFs::new(1);
    open_dir(&fs).close().unwrap();
    let mut options = dir_options(Arc::new(fs.clone()), Path::new("/log"));
    options.meta.node_id = 2;
    assert!(matches!(LogDir::open(&options), Err(Error::DirectoryMismatch { .. })));
    assert_eq!(LogDir::read_meta(&fs, Path::new("/log")).unwrap(), Some(meta()));
    assert_eq!(LogDir::read_meta(&fs, Path::new("/other")).unwrap(), None);
}

#[test]
fn a_directory_of_an_earlier_topic_of_the_same_name_is_refused() {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs);
    open(&dir, "t", LogConfig::default());
    fs.restart(Crash::ProcessDies);
    let dir = open_dir(&fs);
    let options = PartitionOptions {
        id: PartitionId(1),
        topic_partition: topic_partition("t", 0),
        topic_id: TopicId([8; 16]),
        config: LogConfig::default(),
    };
    let error = Partition::open(&dir, options, WALL_MS).unwrap_err();
    assert_eq!(error.kafka_code(), 103);
    assert!(error.to_string().contains("BwcHBwcHBwcHBwcHBwcHBw"), "{error}");
}

#[test]
fn a_crash_during_recovery_is_recovered_from() {
    for seed in 0..20 {
        let fs = SimFs::new(seed);
        let dir = open_dir(&fs);
        let config = LogConfig {
            segment_bytes: 600,
            index_interval_bytes: 100,
            ..LogConfig::default()
        };
        let partition = open(&dir, "t", config.clone());
        for number in 0..20 {
            append(&partition, &[format!("value {number}").as_bytes()], WALL_MS + number);
            if number == 9 {
                partition.flush().unwrap();
                dir.write_checkpoints().unwrap();
            }
        }
        settle(&dir, &[&partition]);
        fs.restart(Crash::PowerFails);
        let whole = fs.fork(seed);
        let start = whole.changes();
        let found = open(&open_dir(&whole), "t", config.clone()).offsets().log_end_offset;
        assert!(found >= 10);
        for at in start..whole.changes() {
            for crash in [Crash::ProcessDies, Crash::PowerFails] {
                let fs = fs.fork(at);
                fs.crash_after(at);
                let interrupted = LogDir::open(&dir_options(Arc::new(fs.clone()), Path::new("/log")))
                    .and_then(|dir| try_open(&dir, "t", config.clone()));
                assert!(interrupted.is_err() || fs.is_down());
                fs.restart(crash);
                let dir = open_dir(&fs);
                let partition = open(&dir, "t", config.clone());
                let end = partition.offsets().log_end_offset;
                assert!((10..=found).contains(&end), "{end} of {found} after {crash:?} in {at}");
                let expected: Vec<_> = (0..end)
                    .map(|offset| (offset, format!("value {offset}").into_bytes()))
                    .collect();
                assert_eq!(consume(&partition, 0, 300), expected);
            }
        }
    }
}

#[test]
fn an_error_in_the_background_takes_the_log_offline_too() {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs);
    let partition = open(
        &dir,
        "t",
        LogConfig {
            segment_bytes: 400,
            ..LogConfig::default()
        },
    );
    fs.inject(Fault {
        path_suffix: "t-0/00000000000000000000.log".to_owned(),
        operation: Operation::Sync,
        effect: Effect::Fails(libc::EIO),
        after: 0,
        times: 1,
    });
    for number in 0..10 {
        append(&partition, &[b"some value"], WALL_MS + number);
    }
    settle(&dir, &[&partition]);
    while dir.step_background() {}
    settle(&dir, &[&partition]);
    assert!(partition.offline_reason().is_some());
    partition.reopen(WALL_MS).unwrap();
    assert_eq!(consume(&partition, 0, 300).len(), 10);
    while dir.step_background() {}
    assert_eq!(partition.flush().unwrap(), 10);
    dir.write_checkpoints().unwrap();
    assert_eq!(
        fs.read(Path::new("/log/recovery-point-offset-checkpoint")).unwrap(),
        b"0\n1\nt 0 10\n"
    );
    assert_eq!(dir.partitions(), [topic_partition("t", 0)]);
}

const FIRST_SEGMENT: &str = "/log/t-0/00000000000000000000.log";
/// Of a batch of one record of one byte.
const BATCH_BYTES: usize = 69;

/// A log of that many batches of a byte, closed in order; then the machine is switched off and on.
fn stopped_before_a_boot(batches: i64) -> SimFs {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs);
    let partition = open(&dir, "t", LogConfig::default());
    for number in 0..batches {
        append(&partition, &[b"v"], WALL_MS + number);
    }
    settle(&dir, &[&partition]);
    partition.close().unwrap();
    dir.close().unwrap();
    fs.restart(Crash::PowerFails);
    fs
}

fn cut_file(fs: &SimFs, size_bytes: usize) {
    let file = fs.open(Path::new(FIRST_SEGMENT), OpenMode::ReadWrite).unwrap();
    file.truncate(size_bytes as u64).unwrap();
    file.sync_data().unwrap();
}

#[test]
fn a_clean_stop_in_an_earlier_boot_counts_only_if_the_log_ends_where_it_was_synced() {
    let fs = stopped_before_a_boot(3);
    let dir = open_dir(&fs);
    assert_eq!(dir.last_stop(), LastStop::CleanEarlierBoot);
    let partition = open(&dir, "t", LogConfig::default());
    assert_eq!(partition.recovery_report().scanned_bytes, 0, "nothing is missing");
    // Where the disk has lost the end, what it kept is not taken at its word either.
    let fs = stopped_before_a_boot(3);
    cut_file(&fs, 2 * BATCH_BYTES);
    let dir = open_dir(&fs);
    let partition = open(&dir, "t", LogConfig::default());
    let report = partition.recovery_report();
    assert!(report.scanned_bytes > 0);
    assert!(
        report.notes[0].contains("the log ends at 2, but everything below 3 had been synced"),
        "{report:?}"
    );
    let fs = stopped_before_a_boot(3);
    cut_file(&fs, 2 * BATCH_BYTES);
    fs.flip_bit(Path::new(FIRST_SEGMENT), BATCH_BYTES - 1, 0).unwrap();
    let error = try_open(&open_dir(&fs), "t", LogConfig::default()).unwrap_err();
    assert!(matches!(error, Error::Damaged { position: 0, .. }), "{error}");
}

#[test]
fn what_is_written_in_place_of_lost_records_does_not_count_as_synced() {
    let fs = stopped_before_a_boot(3);
    cut_file(&fs, 2 * BATCH_BYTES);
    let dir = open_dir(&fs);
    let partition = open(&dir, "t", LogConfig::default());
    commit(&dir, &partition, &append(&partition, &[b"w"], WALL_MS));
    assert_eq!(partition.offsets().log_end_offset, 3);
    // Of the new record, half reaches the disk.
    fs.sync_all(Path::new("/log")).unwrap();
    cut_file(&fs, 3 * BATCH_BYTES - 9);
    fs.restart(Crash::PowerFails);
    let partition = open(&open_dir(&fs), "t", LogConfig::default());
    assert_eq!(partition.offsets().log_end_offset, 2, "a torn write, no damage");
}

#[test]
fn a_damaged_partition_is_refused_by_every_start_until_it_is_mended() {
    let fs = SimFs::new(1);
    let config = LogConfig {
        segment_bytes: 4 * BATCH_BYTES as u32,
        ..LogConfig::default()
    };
    let dir = open_dir(&fs);
    let (damaged, whole) = (open(&dir, "t", config.clone()), open(&dir, "u", config.clone()));
    for number in 0..10 {
        append(&damaged, &[b"v"], WALL_MS + number);
        append(&whole, &[b"v"], WALL_MS + number);
    }
    settle(&dir, &[&damaged, &whole]);
    fs.sync_all(Path::new("/log")).unwrap();
    fs.restart(Crash::PowerFails);
    let middle = BATCH_BYTES + BATCH_BYTES / 2;
    fs.flip_bit(Path::new(FIRST_SEGMENT), middle, 3).unwrap();
    let mut scanned = Vec::new();
    for _ in 0..3 {
        let dir = open_dir(&fs);
        let error = try_open(&dir, "t", config.clone()).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        scanned.push(open(&dir, "u", config.clone()).recovery_report().scanned_bytes);
        fs.restart(Crash::ProcessDies);
    }
    let all = 10 * BATCH_BYTES as u64;
    assert!(scanned[0] >= all, "{scanned:?}");
    assert!(
        scanned[1..].iter().all(|bytes| *bytes < all),
        "the other is looked at in full once: {scanned:?}"
    );
    fs.flip_bit(Path::new(FIRST_SEGMENT), middle, 3).unwrap();
    for is_suspect in [true, false] {
        let dir = open_dir(&fs);
        let partition = open(&dir, "t", config.clone());
        let report = partition.recovery_report();
        assert_eq!(report.scanned_bytes >= all, is_suspect, "{report:?}");
        open(&dir, "u", config.clone());
        fs.restart(Crash::ProcessDies);
    }
}

#[test]
fn checkpoints_that_several_threads_ask_for_are_whole_and_never_go_back() {
    let scratch = Scratch::new("checkpoints-together");
    let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
    let partitions: Vec<_> = (0..4)
        .map(|number| open(&dir, &format!("t{number}"), LogConfig::default()))
        .collect();
    for partition in &partitions {
        commit(&dir, partition, &append(partition, &[b"a".as_slice(); 50], WALL_MS));
    }
    std::thread::scope(|scope| {
        for (number, partition) in partitions.iter().enumerate() {
            let (dir, path) = (&dir, scratch.0.join("log-start-offset-checkpoint"));
            scope.spawn(move || {
                for offset in 1..50 {
                    assert_eq!(partition.delete_records(offset).unwrap(), offset);
                    dir.write_checkpoints().unwrap();
                    let written = std::fs::read_to_string(&path).unwrap();
                    let row = format!("t{number} 0 {offset}");
                    assert!(written.lines().any(|line| line == row), "no {row} in {written}");
                }
            });
        }
    });
}

#[test]
fn a_directory_that_was_left_corked_is_closed_all_the_same() {
    let scratch = Scratch::new("corked");
    let options = || LogDirOptions {
        threads: true,
        ..dir_options(Arc::new(RealFs), &scratch.0)
    };
    let dir = LogDir::open(&options()).unwrap();
    let partition = open(&dir, "t", LogConfig::default());
    partition.flush().unwrap();
    // The writer has nothing left to do and sleeps, or is about to.
    std::thread::sleep(Duration::from_millis(50));
    dir.cork();
    append(&partition, &[b"a".as_slice(), b"b"], WALL_MS);
    let (closed, outcome) = mpsc::channel();
    std::thread::spawn(move || closed.send(partition.close().and_then(|()| dir.close())));
    let outcome = outcome.recv_timeout(Duration::from_secs(20));
    outcome.expect("the close waits for somebody to uncork").unwrap();
    let dir = LogDir::open(&options()).unwrap();
    assert!(dir.was_clean());
    assert_eq!(open(&dir, "t", LogConfig::default()).offsets().log_end_offset, 2);
}
