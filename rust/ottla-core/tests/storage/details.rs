//! What epochs and timestamps say, and what settings change.

use std::path::Path;

use ottla_core::error::Error;
use ottla_core::partition::{
    AppendState, EARLIEST_TIMESTAMP, EpochEndOffset, LATEST_TIERED_TIMESTAMP, LATEST_TIMESTAMP, MAX_TIMESTAMP,
    Partition,
};
use ottla_core::storage::config::{CleanupPolicy, LogConfig};
use ottla_core::storage::fs::LogFs;
use ottla_core::storage::sim_fs::{Crash, SimFs};
use ottla_core::types::Isolation;

use super::support::{Producer, WALL_MS, append, batch, commit, consume, logs, open, open_as_leader, open_dir, settle};

#[test]
fn leader_epochs_are_remembered_and_tell_where_histories_part() {
    let fs = SimFs::new(1);
    let mut dir = open_dir(&fs);
    let mut partition = open(&dir, "t", LogConfig::default());
    let end_of = |partition: &Partition, epoch| {
        let EpochEndOffset {
            leader_epoch,
            end_offset,
        } = partition.end_offset_for_epoch(epoch, -1).unwrap();
        (leader_epoch, end_offset)
    };
    assert_eq!(end_of(&partition, 1), (1, 0));
    append(&partition, &[b"a", b"b"], WALL_MS);
    partition.set_leadership(4).unwrap();
    assert_eq!(end_of(&partition, 4), (4, 2), "known before its first record");
    append(&partition, &[b"c"], WALL_MS);
    partition.set_leadership(6).unwrap();
    append(&partition, &[b"d"], WALL_MS);
    for crash in [None, Some(Crash::ProcessDies)] {
        settle(&dir, &[&partition]);
        assert_eq!(end_of(&partition, 0), (0, 0));
        assert_eq!(end_of(&partition, 1), (1, 2));
        assert_eq!(end_of(&partition, 3), (1, 2));
        assert_eq!(end_of(&partition, 4), (4, 3));
        assert_eq!(end_of(&partition, 5), (4, 3));
        assert_eq!(end_of(&partition, 6), (6, 4));
        assert_eq!(end_of(&partition, 70), (-1, -1));
        let read = |offset, last_fetched_epoch| {
            partition.read(offset, 100, Isolation::ReadUncommitted, true, -1, last_fetched_epoch)
        };
        assert_eq!(read(3, 4).unwrap().diverging, None);
        assert_eq!(
            read(4, 4).unwrap().diverging,
            Some(EpochEndOffset {
                leader_epoch: 4,
                end_offset: 3
            })
        );
        assert_eq!(
            read(2, 3).unwrap().diverging,
            Some(EpochEndOffset {
                leader_epoch: 1,
                end_offset: 2
            })
        );
        assert!(matches!(read(2, 70), Err(Error::OffsetOutOfRange { .. })));
        match crash {
            None => {
                partition.close().unwrap();
                dir.close().unwrap();
            }
            Some(crash) => fs.restart(crash),
        }
        dir = open_dir(&fs);
        partition = open_as_leader(&dir, "t", LogConfig::default(), 6).unwrap();
    }
    partition.set_leadership(7).unwrap();
    assert!(matches!(
        partition.set_leadership(6),
        Err(Error::FencedLeaderEpoch { .. })
    ));
    assert!(matches!(
        partition.read(0, 1, Isolation::ReadUncommitted, true, 6, -1),
        Err(Error::FencedLeaderEpoch { .. })
    ));
    assert!(matches!(
        partition.read(0, 1, Isolation::ReadUncommitted, true, 8, -1),
        Err(Error::UnknownLeaderEpoch { .. })
    ));
    assert!(
        partition
            .append_as_leader(batch(&[b"x"], WALL_MS, None), Some(6), WALL_MS)
            .is_err()
    );
    append(&partition, &[b"e"], WALL_MS);
    settle(&dir, &[&partition]);
    assert_eq!(
        fs.read(Path::new("/log/t-0/leader-epoch-checkpoint")).unwrap(),
        b"0\n4\n1 0\n4 2\n6 3\n7 4\n"
    );
}

#[test]
fn the_latest_offset_is_not_told_before_the_epoch_has_begun_for_all() {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs);
    let partition = open(&dir, "t", LogConfig::default());
    append(&partition, &[b"a"], WALL_MS);
    partition.set_leadership(2).unwrap();
    let list = |timestamp, isolation| partition.list_offset(timestamp, isolation, -1);
    let latest = || list(LATEST_TIMESTAMP, Some(Isolation::ReadUncommitted));
    assert!(matches!(latest(), Err(Error::OffsetNotAvailable { .. })));
    assert_eq!(
        list(LATEST_TIMESTAMP, None).unwrap().offset,
        1,
        "a follower asks for the log's end"
    );
    assert_eq!(
        list(EARLIEST_TIMESTAMP, Some(Isolation::ReadUncommitted))
            .unwrap()
            .offset,
        0
    );
    assert_eq!(
        list(LATEST_TIERED_TIMESTAMP, Some(Isolation::ReadUncommitted))
            .unwrap()
            .offset,
        -1
    );
    settle(&dir, &[&partition]);
    assert_eq!(latest().unwrap().offset, 1);
    assert_eq!(latest().unwrap().leader_epoch, 2);
}

#[test]
fn records_below_the_log_start_are_gone_and_their_files_too() {
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
    for number in 0..20 {
        commit(
            &dir,
            &partition,
            &append(&partition, &[b"some value"], WALL_MS + number),
        );
    }
    let before = logs(&fs).len();
    assert!(matches!(
        partition.delete_records(21),
        Err(Error::OffsetOutOfRange { .. })
    ));
    assert!(matches!(
        partition.delete_records(-2),
        Err(Error::OffsetOutOfRange { .. })
    ));
    assert_eq!(partition.delete_records(11).unwrap(), 11);
    assert_eq!(partition.delete_records(3).unwrap(), 11, "never back");
    assert!(matches!(
        partition.read(10, 1, Isolation::ReadUncommitted, true, -1, -1),
        Err(Error::OffsetOutOfRange { .. })
    ));
    assert_eq!(consume(&partition, 11, 100).len(), 9);
    settle(&dir, &[&partition]);
    while dir.step_background() {}
    assert!(logs(&fs).len() < before);
    assert_eq!(partition.delete_records(-1).unwrap(), 20);
    assert_eq!(consume(&partition, 20, 100).len(), 0);
    let compacted = CleanupPolicy {
        delete: false,
        compact: true,
    };
    partition.configure(LogConfig {
        cleanup_policy: compacted,
        ..LogConfig::default()
    });
    assert_eq!(partition.delete_records(-1).unwrap_err().kafka_code(), 44);
}

#[test]
fn flush_ms_and_flush_messages_sync() {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs);
    let partition = open(
        &dir,
        "t",
        LogConfig {
            flush_ms: 100,
            flush_messages: 5,
            ..LogConfig::default()
        },
    );
    let survives = |crash_seed| {
        let copy = fs.fork(crash_seed);
        copy.restart(Crash::PowerFails);
        let dir = open_dir(&copy);
        let partition = open(&dir, "t", LogConfig::default());
        partition.offsets().log_end_offset
    };
    append(&partition, &[b"a"], WALL_MS);
    partition.on_tick(1000, WALL_MS);
    partition.on_tick(1099, WALL_MS);
    settle(&dir, &[&partition]);
    assert_eq!((0..20).map(survives).min(), Some(0));
    partition.on_tick(1100, WALL_MS);
    settle(&dir, &[&partition]);
    assert_eq!((0..20).map(survives).min(), Some(1));
    for _ in 0..4 {
        append(&partition, &[b"a"], WALL_MS);
    }
    settle(&dir, &[&partition]);
    assert_eq!((0..20).map(survives).min(), Some(1));
    append(&partition, &[b"a"], WALL_MS);
    settle(&dir, &[&partition]);
    assert_eq!((0..20).map(survives).min(), Some(6));
}

#[test]
fn what_waits_for_a_sync_does_not_wait_for_ever_when_the_setting_goes() {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs);
    let partition = open(&dir, "t", LogConfig::default());
    let first = append(&partition, &[b"a"], WALL_MS);
    partition.configure(LogConfig {
        flush_messages: 1,
        ..LogConfig::default()
    });
    let second = append(&partition, &[b"b"], WALL_MS);
    partition.configure(LogConfig::default());
    settle(&dir, &[&partition]);
    for appended in [first, second] {
        assert_eq!(partition.append_state(&appended), AppendState::Committed);
    }
}

#[test]
fn indexes_that_left_memory_are_found_in_their_files() {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs);
    let partition = open(
        &dir,
        "t",
        LogConfig {
            index_interval_bytes: 0,
            ..LogConfig::default()
        },
    );
    let count = 40_000;
    for number in 0..count {
        // The greatest timestamp lies in the middle.
        let timestamp = if number == count / 2 {
            WALL_MS + 10 * count
        } else {
            WALL_MS + number
        };
        append(&partition, &[b"x"], timestamp);
        if number % 1000 == 0 {
            settle(&dir, &[&partition]);
        }
    }
    settle(&dir, &[&partition]);
    for offset in (0..count).step_by(997).chain([0, 1, count - 1, count - 100]) {
        let result = partition
            .read(offset, 1, Isolation::ReadUncommitted, true, -1, -1)
            .unwrap();
        let mut bytes = vec![0; result.slices[0].len];
        result.slices[0]
            .file
            .read_exact_at(&mut bytes, result.slices[0].position)
            .unwrap();
        assert_eq!(
            ottla_core::record::batch::BatchView::parse(&bytes)
                .unwrap()
                .base_offset(),
            offset
        );
        let found = partition
            .list_offset(WALL_MS + offset, Some(Isolation::ReadUncommitted), -1)
            .unwrap();
        assert_eq!(found.offset, offset.min(count / 2));
    }
    let found = partition
        .list_offset(MAX_TIMESTAMP, Some(Isolation::ReadUncommitted), -1)
        .unwrap();
    assert_eq!((found.offset, found.timestamp), (count / 2, WALL_MS + 10 * count));
    // Only what has no index entry yet is looked at after a crash.
    fs.restart(Crash::ProcessDies);
    let dir = open_dir(&fs);
    let partition = open(
        &dir,
        "t",
        LogConfig {
            index_interval_bytes: 0,
            ..LogConfig::default()
        },
    );
    assert_eq!(partition.offsets().log_end_offset, count);
    assert!(
        partition.recovery_report().scanned_bytes <= 2 << 20,
        "{:?}",
        partition.recovery_report()
    );
}

#[test]
fn a_producer_of_old_records_is_not_forgotten_as_soon_as_a_partition_is_opened() {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs);
    let config = LogConfig {
        producer_id_expiration_ms: 1000,
        ..LogConfig::default()
    };
    let partition = open(&dir, "t", config.clone());
    let send = || {
        let producer = Producer {
            id: 1,
            epoch: 0,
            sequence: 0,
        };
        partition.append_as_leader(batch(&[b"a"], WALL_MS - 5000, Some(producer)), None, WALL_MS)
    };
    assert!(!send().unwrap().duplicate);
    partition.on_tick(9_000_000, WALL_MS);
    assert!(send().unwrap().duplicate);
    partition.on_tick(9_599_999, WALL_MS);
    assert!(send().unwrap().duplicate);
    partition.on_tick(9_600_000, WALL_MS);
    assert!(!send().unwrap().duplicate, "it has been idle for its time by then");
    partition.configure(LogConfig {
        producer_id_expiration_check_interval_ms: 2000,
        ..config
    });
    partition.on_tick(9_601_999, WALL_MS);
    assert!(send().unwrap().duplicate);
    partition.on_tick(9_602_000, WALL_MS);
    assert!(!send().unwrap().duplicate);
}

#[test]
fn sequences_wrap_and_idle_producers_are_forgotten() {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs);
    let partition = open(
        &dir,
        "t",
        LogConfig {
            producer_id_expiration_ms: 1000,
            ..LogConfig::default()
        },
    );
    let send = |sequence, timestamp| {
        let producer = Producer {
            id: 1,
            epoch: 0,
            sequence,
        };
        partition.append_as_leader(batch(&[b"a", b"b"], timestamp, Some(producer)), None, WALL_MS)
    };
    send(i32::MAX - 1, WALL_MS).unwrap();
    send(0, WALL_MS).unwrap();
    assert!(send(i32::MAX - 1, WALL_MS).unwrap().duplicate);
    assert!(send(7, WALL_MS).is_err());
    partition.on_tick(600_000, WALL_MS + 999);
    assert!(send(7, WALL_MS).is_err());
    partition.on_tick(1_200_000, WALL_MS + 1001);
    send(7, WALL_MS + 1001).unwrap();
    // A batch that straddles the end of the sequence.
    let producer = |sequence| {
        Some(Producer {
            id: 2,
            epoch: 0,
            sequence,
        })
    };
    let straddling = || batch(&[b"a", b"b", b"c"], WALL_MS, producer(i32::MAX));
    assert!(
        !partition
            .append_as_leader(straddling(), None, WALL_MS)
            .unwrap()
            .duplicate
    );
    assert!(
        partition
            .append_as_leader(straddling(), None, WALL_MS)
            .unwrap()
            .duplicate
    );
    assert!(
        !partition
            .append_as_leader(batch(&[b"d"], WALL_MS, producer(2)), None, WALL_MS)
            .unwrap()
            .duplicate
    );
}

#[test]
fn readers_do_not_touch_the_indexes_of_a_segment_that_is_still_being_written() {
    // One more append is written in each round than in the one before: the high watermark, and what is in the files, end
    // everywhere in segments that are closed already.
    for written in 0..30 {
        let fs = SimFs::new(written);
        let dir = open_dir(&fs);
        let config = LogConfig {
            segment_bytes: 600,
            index_interval_bytes: 100,
            ..LogConfig::default()
        };
        let partition = open(&dir, "t", config.clone());
        let value = |offset: i64| format!("value {offset}").into_bytes();
        for offset in 0..written as i64 {
            append(&partition, &[&value(offset)], WALL_MS + offset);
        }
        while dir.step_writer() {}
        let completions = dir.drain_completions();
        for offset in written as i64..30 {
            append(&partition, &[&value(offset)], WALL_MS + offset);
        }
        let check = |visible: i64| {
            let expected: Vec<_> = (0..visible).map(|offset| (offset, value(offset))).collect();
            assert_eq!(consume(&partition, 0, 250), expected);
            for offset in 0..visible {
                let found = partition
                    .list_offset(WALL_MS + offset, Some(Isolation::ReadUncommitted), -1)
                    .unwrap();
                assert_eq!(found.offset, offset);
                assert!(partition.bytes_available(offset, Isolation::ReadUncommitted) > 0);
            }
            partition
                .list_offset(MAX_TIMESTAMP, Some(Isolation::ReadUncommitted), -1)
                .ok();
        };
        check(0);
        // Told, with others queued behind; then those are in the files, but not told.
        for completion in &completions {
            partition.on_completion(completion);
        }
        check(written as i64);
        dir.step_writer();
        check(written as i64);
        settle(&dir, &[&partition]);
        check(30);
        partition.close().unwrap();
        let found: Vec<_> = fs
            .paths()
            .into_iter()
            .map(|path| (fs.read(&path).unwrap(), path))
            .collect();
        // The same log written without any reader.
        let quiet = SimFs::new(0);
        let dir = open_dir(&quiet);
        let partition = open(&dir, "t", config);
        for offset in 0..30 {
            append(&partition, &[&value(offset)], WALL_MS + offset);
        }
        settle(&dir, &[&partition]);
        partition.close().unwrap();
        for (content, path) in found {
            assert_eq!(content, quiet.read(&path).unwrap(), "{path:?}");
        }
    }
}
