//! A full, failing, stalled or lying disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ottla_core::error::Error;
use ottla_core::partition::{AppendState, Partition};
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::fs::LogFs;
use ottla_core::storage::log_dir::{LastStop, LogDir};
use ottla_core::storage::sim_fs::{Crash, Effect, Fault, Operation, SimFs};
use ottla_core::types::Isolation;

use super::support::{Producer, WALL_MS, append, batch, commit, consume, dir_options, open, settle, try_open};

fn open_dir(fs: &SimFs) -> Arc<LogDir> {
    LogDir::open(&dir_options(Arc::new(fs.clone()), Path::new("/log"))).unwrap()
}

fn small_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 700,
        index_interval_bytes: 150,
        ..LogConfig::default()
    }
}

fn fault(path_suffix: &str, operation: Operation, effect: Effect) -> Fault {
    Fault {
        path_suffix: path_suffix.to_owned(),
        operation,
        effect,
        after: 0,
        times: 1,
    }
}

fn value(offset: i64) -> Vec<u8> {
    format!("value {offset}").into_bytes()
}

/// One record whose value names its offset, from an idempotent producer whose sequence is the offset.
fn send(partition: &Partition) -> Result<ottla_core::partition::Appended, Error> {
    let offset = partition.offsets().log_end_offset;
    let producer = Producer {
        id: 3,
        epoch: 0,
        sequence: offset as i32,
    };
    partition.append_as_leader(
        batch(&[&value(offset)], WALL_MS + offset, Some(producer)),
        None,
        WALL_MS,
    )
}

fn check_prefix(partition: &Partition) {
    let end = partition.offsets().high_watermark;
    let expected: Vec<(i64, Vec<u8>)> = (0..end).map(|offset| (offset, value(offset))).collect();
    assert_eq!(consume(partition, 0, 400), expected);
}

#[test]
fn a_full_disk_refuses_appends_and_heals_without_a_restart() {
    // Every amount of room: the disk fills up in log, index, snapshot and epoch files, in the middle of a batch, at a roll.
    for room in (0..4000).step_by(13) {
        let fs = SimFs::new(room);
        let dir = open_dir(&fs);
        let partition = open(&dir, "t", small_segments());
        fs.set_capacity(Some(fs.used_bytes() + room));
        let mut waiting = Vec::new();
        let refused = loop {
            match send(&partition) {
                Ok(appended) => waiting.push(appended),
                Err(error) => break error,
            }
            // Two or three appends at a time, so that more than one waits when the disk is full.
            if waiting.len() % 3 != 0 || partition.offsets().log_end_offset % 7 == 0 {
                settle(&dir, &[&partition]);
            }
            assert!(partition.offsets().log_end_offset < 100);
        };
        assert!(matches!(refused, Error::NoSpace { .. }), "{refused}");
        assert_eq!(refused.kafka_code(), 56);
        settle(&dir, &[&partition]);
        assert!(dir.is_full());
        let end = partition.offsets().log_end_offset;
        assert_eq!(partition.offsets().high_watermark, end, "what waited was taken back");
        let mut lost = 0;
        for appended in &waiting {
            match partition.append_state(appended) {
                AppendState::Failed => lost += 1,
                AppendState::Committed => assert_eq!(lost, 0, "nothing is kept behind a hole"),
                state => panic!("{appended:?} is {state:?}"),
            }
        }
        assert!(lost > 0);
        check_prefix(&partition);
        // Still full: still refused.
        dir.step_writer();
        assert!(send(&partition).is_err());
        // The producer's retry is taken as soon as there is room.
        fs.set_capacity(None);
        dir.step_writer();
        assert!(!dir.is_full());
        for _ in 0..20 {
            let appended = send(&partition).unwrap();
            assert!(!appended.duplicate);
            commit(&dir, &partition, &appended);
        }
        check_prefix(&partition);
        partition.close().unwrap();
        dir.close().unwrap();
        let dir = open_dir(&fs);
        assert_eq!(dir.last_stop(), LastStop::Clean);
        let partition = open(&dir, "t", small_segments());
        assert_eq!(partition.offsets().high_watermark, end + 20);
        check_prefix(&partition);
        for offset in 0..end + 20 {
            let found = partition
                .list_offset(WALL_MS + offset, Some(Isolation::default()), -1)
                .unwrap();
            assert_eq!(found.offset, offset);
        }
        assert!(send(&partition).is_ok());
    }
}

#[test]
fn the_process_dies_while_the_disk_is_full() {
    for room in (0..4000).step_by(17) {
        let fs = SimFs::new(room);
        let dir = open_dir(&fs);
        let partition = open(&dir, "t", small_segments());
        fs.set_capacity(Some(fs.used_bytes() + room));
        while send(&partition).is_ok() {
            settle(&dir, &[&partition]);
        }
        let end = partition.offsets().high_watermark;
        fs.restart(Crash::ProcessDies);
        fs.set_capacity(None);
        let dir = open_dir(&fs);
        let partition = open(&dir, "t", small_segments());
        assert_eq!(partition.offsets().high_watermark, end);
        check_prefix(&partition);
        commit(&dir, &partition, &send(&partition).unwrap());
    }
}

#[test]
fn internal_topics_may_use_the_room_that_is_kept_back() {
    let fs = SimFs::new(1);
    let mut options = dir_options(Arc::new(fs.clone()), Path::new("/log"));
    options.reserved_bytes = 1 << 20;
    let dir = LogDir::open(&options).unwrap();
    let (ordinary, internal) = (
        open(&dir, "t", LogConfig::default()),
        open(&dir, "__consumer_offsets", LogConfig::default()),
    );
    fs.set_capacity(Some(1 << 20));
    let (refused, taken) = (append(&ordinary, &[b"a"], WALL_MS), append(&internal, &[b"a"], WALL_MS));
    settle(&dir, &[&ordinary, &internal]);
    assert_eq!(ordinary.append_state(&refused), AppendState::Failed);
    assert_eq!(internal.append_state(&taken), AppendState::Committed);
    assert!(
        ordinary
            .append_as_leader(batch(&[b"b"], WALL_MS, None), None, WALL_MS)
            .is_err()
    );
    commit(&dir, &internal, &append(&internal, &[b"b"], WALL_MS));
    fs.set_capacity(Some(8 << 20));
    dir.step_writer();
    commit(&dir, &ordinary, &append(&ordinary, &[b"b"], WALL_MS));
}

#[test]
fn an_error_of_the_disk_takes_the_log_offline_until_it_is_recovered() {
    for (operation, flush_messages) in [
        (Operation::Write, i64::MAX),
        (Operation::Write, 1),
        (Operation::Sync, 1),
    ] {
        for seed in 0..20 {
            let fs = SimFs::new(seed);
            let dir = open_dir(&fs);
            let config = LogConfig {
                flush_messages,
                ..small_segments()
            };
            let (partition, other) = (open(&dir, "t", config), open(&dir, "other", LogConfig::default()));
            for _ in 0..7 {
                commit(&dir, &partition, &send(&partition).unwrap());
            }
            fs.inject(fault(
                "t-0/00000000000000000000.log",
                operation,
                Effect::Fails(libc::EIO),
            ));
            fs.inject(fault(
                "t-0/00000000000000000007.log",
                operation,
                Effect::Fails(libc::EIO),
            ));
            let lost = [send(&partition).unwrap(), send(&partition).unwrap()];
            settle(&dir, &[&partition, &other]);
            fs.heal();
            for appended in lost {
                assert_eq!(partition.append_state(&appended), AppendState::Failed);
            }
            assert!(partition.offline_reason().is_some());
            assert!(matches!(send(&partition), Err(Error::LogOffline { .. })));
            assert!(partition.read(0, 100, Isolation::default(), true, -1, -1).is_err());
            // Others in the directory go on.
            commit(&dir, &other, &append(&other, &[b"a"], WALL_MS));
            let syncs = fs.changes();
            partition.reopen(WALL_MS).unwrap();
            assert!(fs.changes() > syncs, "what was not synced is written once more");
            let end = partition.offsets().high_watermark;
            assert!((7..=9).contains(&end), "{end}");
            check_prefix(&partition);
            commit(&dir, &partition, &send(&partition).unwrap());
            check_prefix(&partition);
        }
    }
}

#[test]
fn a_log_that_cannot_be_recovered_stays_offline() {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs);
    let partition = open(&dir, "t", LogConfig::default());
    commit(&dir, &partition, &send(&partition).unwrap());
    let broken = Fault {
        times: u32::MAX,
        ..fault(
            "t-0/00000000000000000000.log",
            Operation::Write,
            Effect::Fails(libc::EIO),
        )
    };
    fs.inject(broken);
    send(&partition).unwrap();
    settle(&dir, &[&partition]);
    assert!(partition.reopen(WALL_MS).is_err());
    assert!(partition.offline_reason().is_some());
    fs.heal();
    partition.reopen(WALL_MS).unwrap();
    check_prefix(&partition);
}

#[test]
fn a_stalled_disk_delays_its_own_partitions_only() {
    let fs = [SimFs::new(1), SimFs::new(2)];
    let (sender, woken) = std::sync::mpsc::channel();
    let dirs = fs.clone().map(|fs| {
        let sender = sender.clone();
        let mut options = dir_options(Arc::new(fs), Path::new("/log"));
        options.threads = true;
        options.waker = Arc::new(move || {
            let _ = sender.send(());
        });
        LogDir::open(&options).unwrap()
    });
    let partitions = [
        open(&dirs[0], "stalled", LogConfig::default()),
        open(&dirs[1], "t", LogConfig::default()),
    ];
    fs[0].inject(Fault {
        times: u32::MAX,
        ..fault(".log", Operation::Write, Effect::Stalls)
    });
    let stalled = append(&partitions[0], &[b"a"], WALL_MS);
    for number in 0..50 {
        // Appending to the stalled partition costs its callers nothing either.
        append(&partitions[0], &[b"more"], WALL_MS);
        let appended = append(&partitions[1], &[b"a"], WALL_MS + number);
        while partitions[1].append_state(&appended) != AppendState::Committed {
            woken.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
            for completion in dirs[1].drain_completions() {
                partitions[1].on_completion(&completion);
            }
        }
    }
    assert!(dirs[0].drain_completions().is_empty());
    assert_eq!(partitions[0].append_state(&stalled), AppendState::Pending);
    assert!(dirs[0].tail_bytes() > 0);
    fs[0].release_stalled();
    while partitions[0].offsets().high_watermark < 51 {
        woken.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        for completion in dirs[0].drain_completions() {
            partitions[0].on_completion(&completion);
        }
    }
    assert_eq!(dirs[0].tail_bytes(), 0);
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_old_one() {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs);
    let partition = open(&dir, "t", LogConfig::default());
    commit(&dir, &partition, &send(&partition).unwrap());
    dir.write_checkpoints().unwrap();
    let path = PathBuf::from("/log/replication-offset-checkpoint");
    let before = fs.read(&path).unwrap();
    assert_eq!(before, b"0\n1\nt 0 1\n");
    for effect in [Effect::Fails(libc::EIO), Effect::Fails(libc::ENOSPC)] {
        for operation in [Operation::Write, Operation::Sync, Operation::Rename] {
            commit(&dir, &partition, &send(&partition).unwrap());
            fs.inject(fault("tmp", operation, effect));
            assert!(dir.write_checkpoints().is_err());
            assert_eq!(fs.read(&path).unwrap(), before);
            fs.heal();
        }
    }
    dir.write_checkpoints().unwrap();
    assert_eq!(fs.read(&path).unwrap(), b"0\n1\nt 0 7\n");
}

/// A log of 30 records in segments, stopped by a crash of the process.
fn crashed(fs: &SimFs) {
    let dir = open_dir(fs);
    let partition = open(&dir, "t", small_segments());
    for _ in 0..30 {
        commit(&dir, &partition, &send(&partition).unwrap());
    }
    fs.restart(Crash::ProcessDies);
}

fn last_log(fs: &SimFs) -> PathBuf {
    fs.paths()
        .into_iter()
        .rfind(|path| path.extension().is_some_and(|suffix| suffix == "log"))
        .unwrap()
}

#[test]
fn a_torn_tail_is_cut_and_reported() {
    for cut in 1..=60 {
        let fs = SimFs::new(cut);
        crashed(&fs);
        let path = last_log(&fs);
        let file = fs.open(&path, ottla_core::storage::fs::OpenMode::ReadWrite).unwrap();
        let size_bytes = file.size_bytes().unwrap();
        file.truncate(size_bytes - cut).unwrap();
        let dir = open_dir(&fs);
        assert_eq!(dir.last_stop(), LastStop::ProcessDied);
        let partition = open(&dir, "t", small_segments());
        assert_eq!(partition.offsets().log_end_offset, 29);
        let report = partition.recovery_report();
        assert_eq!(report.cut.len(), 1);
        assert_eq!(report.cut[0].file, path.file_name().unwrap().to_str().unwrap());
        assert_eq!(report.cut[0].position + report.cut[0].size_bytes, size_bytes - cut);
        check_prefix(&partition);
        commit(&dir, &partition, &send(&partition).unwrap());
        check_prefix(&partition);
    }
}

#[test]
fn damage_with_good_batches_behind_it_fences_the_partition_off() {
    let whole = SimFs::new(1);
    crashed(&whole);
    let path = last_log(&whole);
    let content = whole.read(&path).unwrap();
    let mut fenced = 0;
    for position in 0..content.len() {
        for crash in [Crash::ProcessDies, Crash::PowerFails] {
            let fs = whole.fork(1);
            fs.restart(Crash::ProcessDies);
            if crash == Crash::PowerFails {
                // Everything was synced, so that only the flipped bit is wrong.
                fs.sync_all(Path::new("/")).unwrap();
                fs.restart(crash);
            }
            fs.flip_bit(&path, position, 3).unwrap();
            let dir = open_dir(&fs);
            match try_open(&dir, "t", small_segments()) {
                Err(Error::Damaged {
                    file, position: found, ..
                }) => {
                    assert!(file.starts_with("t-0/"), "{file}");
                    assert!(found <= position as u64);
                    // Nothing was touched, so that it can be looked at.
                    assert_eq!(fs.read(&path).unwrap().len(), content.len());
                    fenced += 1;
                }
                Err(error) => panic!("{error} for byte {position}"),
                Ok(partition) => {
                    // The very last batch looks like a torn write; a leader epoch is covered by no checksum.
                    let end = partition.offsets().log_end_offset;
                    assert!((29..=30).contains(&end), "{end} for byte {position} after {crash:?}");
                    check_prefix(&partition);
                }
            }
        }
    }
    assert!(fenced > content.len(), "{fenced} of {}", 2 * content.len());
}

#[test]
fn a_lost_sync_is_found_out_after_a_power_failure_at_the_latest() {
    for seed in 0..50 {
        let fs = SimFs::new(seed);
        let dir = open_dir(&fs);
        let config = LogConfig {
            flush_messages: 1,
            ..LogConfig::default()
        };
        let partition = open(&dir, "t", config.clone());
        for _ in 0..5 {
            commit(&dir, &partition, &send(&partition).unwrap());
        }
        fs.inject(Fault {
            times: u32::MAX,
            ..fault(".log", Operation::Sync, Effect::IsLost)
        });
        for _ in 0..5 {
            commit(&dir, &partition, &send(&partition).unwrap());
        }
        dir.write_checkpoints().unwrap();
        fs.restart(Crash::PowerFails);
        let dir = open_dir(&fs);
        // A disk that lies cannot be helped; but it is never served as if nothing had happened.
        match try_open(&dir, "t", config) {
            Err(Error::Damaged { .. }) => {}
            Err(error) => panic!("{error}"),
            Ok(partition) => {
                let end = partition.offsets().log_end_offset;
                assert!(
                    end == 10 || !partition.recovery_report().notes.is_empty(),
                    "{end}, seed {seed}"
                );
                check_prefix(&partition);
            }
        }
    }
}

#[test]
fn whoever_rests_on_the_log_appends_nothing_before_he_has_heard_what_it_lost() {
    for (errno, is_reloaded) in [(libc::ENOSPC, false), (libc::EIO, true)] {
        let fs = SimFs::new(1);
        let dir = open_dir(&fs);
        let partition = open(&dir, "t", small_segments());
        partition.set_leadership(3).unwrap();
        let append = || partition.append_as_leader(batch(&[b"v"], WALL_MS, None), Some(3), WALL_MS);
        append().unwrap();
        settle(&dir, &[&partition]);
        assert_eq!(partition.take_cut(), None);
        fs.inject(fault(".log", Operation::Write, Effect::Fails(errno)));
        append().unwrap();
        append().unwrap();
        settle(&dir, &[&partition]);
        settle(&dir, &[&partition]); // there is room again
        if is_reloaded {
            assert!(matches!(append(), Err(Error::LogOffline { .. })));
            assert_eq!(partition.take_cut(), None, "nobody knows yet");
            partition.reopen(WALL_MS).unwrap();
        }
        assert!(matches!(append(), Err(Error::LogCut { .. })));
        let of_a_client = partition.append_as_leader(batch(&[b"v"], WALL_MS, None), None, WALL_MS);
        let end = of_a_client.unwrap().base_offset;
        assert_eq!(partition.take_cut().map(|cut| cut.is_reloaded), Some(is_reloaded));
        assert_eq!(partition.take_cut(), None);
        assert_eq!(append().unwrap().base_offset, end + 1);
    }
}

#[test]
fn without_file_descriptors_appends_are_refused_and_the_log_goes_on() {
    for seed in 0..10 {
        let fs = SimFs::new(seed);
        let dir = open_dir(&fs);
        let partition = open(&dir, "t", small_segments());
        for number in 0..40 {
            if number % 8 == 5 {
                // Both the call and its repetition fail.
                let out_of_files = Effect::Fails(if seed % 2 == 0 { libc::EMFILE } else { libc::ENFILE });
                fs.inject(Fault {
                    times: 2,
                    ..fault("", Operation::Create, out_of_files)
                });
            }
            let before = partition.offsets().log_end_offset;
            let appended = send(&partition).unwrap();
            settle(&dir, &[&partition]);
            assert_eq!(partition.offline_reason(), None);
            if partition.append_state(&appended) == AppendState::Failed {
                assert_eq!(partition.offsets().log_end_offset, before);
                commit(&dir, &partition, &send(&partition).unwrap());
            }
        }
        fs.heal();
        check_prefix(&partition);
        partition.close().unwrap();
        dir.close().unwrap();
        let dir = open_dir(&fs);
        let partition = open(&dir, "t", small_segments());
        assert_eq!(partition.offsets().high_watermark, 40);
        check_prefix(&partition);
    }
}
