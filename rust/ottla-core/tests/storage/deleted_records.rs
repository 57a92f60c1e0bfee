//! Where a log starts after `DeleteRecords` and a crash. The new start is written down with the next checkpoint
//! (once a minute, as in Kafka), so deleted records may be there again; but what the log says of itself fits
//! together.

use std::sync::Arc;

use ottla_core::error::{Error, Result};
use ottla_core::partition::Partition;
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::log_dir::LogDir;
use ottla_core::storage::sim_fs::{Crash, SimFs};
use ottla_core::types::Isolation;

use super::support::{WALL_MS, batch, consume, dir_options, open_as_leader, settle};

const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// What is known of a log that crashed.
#[derive(Default, Debug)]
struct Known {
    /// Value and leader epoch of each record, by offset: the last one that was sent.
    sent: Vec<(Vec<u8>, i32)>,
    synced_to: i64,
    acknowledged_to: i64,
    /// As a checkpoint that was written says.
    start: i64,
    /// As the last deletion that was begun says.
    start_limit: i64,
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 500,
        index_interval_bytes: 150,
        flush_messages: i64::MAX,
        ..LogConfig::default()
    }
}

fn open_dir(fs: &SimFs) -> Result<Arc<LogDir>> {
    LogDir::open(&dir_options(Arc::new(fs.clone()), std::path::Path::new("/data/log")))
}

/// Append batches of two records, which become visible.
fn produce(dir: &LogDir, partition: &Partition, known: &mut Known, count: usize) -> Result<()> {
    for _ in 0..count {
        let offsets = partition.offsets();
        let values: Vec<Vec<u8>> = (0..2)
            .map(|number| format!("{} of {}", offsets.log_end_offset + number, offsets.leader_epoch).into_bytes())
            .collect();
        let slices: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let timestamp = WALL_MS + offsets.log_end_offset;
        partition.append_as_leader(batch(&slices, timestamp, None), None, WALL_MS)?;
        known.sent.truncate(offsets.log_end_offset as usize);
        known
            .sent
            .extend(values.into_iter().map(|value| (value, offsets.leader_epoch)));
    }
    settle(dir, &[partition]);
    known.acknowledged_to = partition.offsets().high_watermark;
    Ok(())
}

fn delete(dir: &LogDir, partition: &Partition, known: &mut Known, offset: i64) -> Result<()> {
    known.start_limit = offset;
    partition.delete_records(offset)?;
    settle(dir, &[partition]);
    while dir.step_background() {}
    settle(dir, &[partition]);
    Ok(())
}

fn write_checkpoints(dir: &LogDir, known: &mut Known) -> Result<()> {
    dir.write_checkpoints()?;
    known.start = known.start_limit;
    Ok(())
}

/// Deletions within what is synced and behind it, within a segment and of whole ones, with and without a checkpoint after
/// them, in several leader epochs.
fn workload(fs: &SimFs, known: &mut Known) -> Result<()> {
    let dir = open_dir(fs)?;
    let partition = open_as_leader(&dir, "t", config(), 1)?;
    produce(&dir, &partition, known, 7)?;
    partition.set_leadership(2)?;
    produce(&dir, &partition, known, 6)?;
    known.synced_to = partition.flush()?;
    write_checkpoints(&dir, known)?;
    delete(&dir, &partition, known, 5)?;
    partition.set_leadership(3)?;
    produce(&dir, &partition, known, 3)?;
    delete(&dir, &partition, known, 17)?;
    write_checkpoints(&dir, known)?;
    produce(&dir, &partition, known, 4)?;
    // Nothing says that these are on the disk.
    delete(&dir, &partition, known, 37)?;
    write_checkpoints(&dir, known)?;
    produce(&dir, &partition, known, 3)?;
    delete(&dir, &partition, known, 43)?;
    produce(&dir, &partition, known, 1)
}

/// Everything that a log tells of itself, against each other and what is known.
fn check(partition: &Partition, known: &Known, context: &dyn Fn() -> String) {
    let offsets = partition.offsets();
    let (start, end) = (offsets.log_start_offset, offsets.log_end_offset);
    let context = || format!("{}: {offsets:?}, {:?}", context(), partition.recovery_report());
    assert!(start <= offsets.high_watermark, "{}", context());
    assert_eq!(offsets.high_watermark, end, "{}", context());
    assert_eq!(offsets.last_stable_offset, end, "{}", context());
    assert!(
        (known.start..=known.start_limit).contains(&start),
        "{known:?}; {}",
        context()
    );
    let listed = |timestamp| {
        partition
            .list_offset(timestamp, Some(Isolation::default()), -1)
            .unwrap()
    };
    assert_eq!(
        (listed(EARLIEST).offset, listed(LATEST).offset),
        (start, end),
        "{}",
        context()
    );

    let found = consume(partition, start, 300);
    let expected: Vec<(i64, Vec<u8>)> = (start..end)
        .map(|offset| (offset, known.sent[offset as usize].0.clone()))
        .collect();
    assert_eq!(found, expected, "{}", context());
    let read = |offset| partition.read(offset, 100, Isolation::default(), true, -1, -1);
    for offset in [start - 1, end + 1] {
        assert!(
            matches!(read(offset), Err(Error::OffsetOutOfRange { .. })),
            "{offset}; {}",
            context()
        );
    }
    for offset in start..=end {
        assert!(read(offset).is_ok(), "{offset}; {}", context());
    }
    for (offset, _) in &found {
        let epoch = known.sent[*offset as usize].1;
        let of_time = listed(WALL_MS + offset);
        assert!(
            of_time.offset <= *offset && *offset <= of_time.offset + 1,
            "{of_time:?}; {}",
            context()
        );
        // Who read this record must not be told that its leader's records end before it.
        let ended = partition.end_offset_for_epoch(epoch, -1).unwrap();
        assert!(
            ended.end_offset > *offset,
            "{ended:?} of {epoch} for {offset}; {}",
            context()
        );
    }
}

fn enumerate(crash: Crash, seeds: u64) {
    let whole = SimFs::new(0);
    workload(&whole, &mut Known::default()).unwrap();
    let changes = whole.changes();
    assert!(changes > 40, "{changes}");
    let (mut has_come_back, mut has_started_over) = (false, false);
    for seed in 0..seeds {
        for at in 0..=changes {
            let fs = SimFs::new(seed * 1_000_003 + at);
            fs.crash_after(at);
            let mut known = Known::default();
            // All that can be wrong with it is the crash.
            let _ = workload(&fs, &mut known);
            fs.restart(crash);
            let context = || format!("{crash:?} in change {at}, seed {seed}");
            let dir = open_dir(&fs).unwrap();
            let partition = open_as_leader(&dir, "t", config(), 4).unwrap();
            let owed = match crash {
                Crash::ProcessDies => known.acknowledged_to,
                Crash::PowerFails => known.synced_to,
            };
            let offsets = partition.offsets();
            assert!(offsets.log_end_offset >= owed, "{offsets:?}, {owed}; {}", context());
            check(&partition, &known, &context);
            has_come_back |= offsets.log_start_offset < known.start_limit;
            has_started_over |= offsets.log_start_offset == offsets.log_end_offset && offsets.log_end_offset > 0;

            // The deletion is asked for once more, and the log goes on and crashes again.
            known.acknowledged_to = offsets.log_end_offset;
            known.start = offsets.log_start_offset;
            let again = known.start_limit.min(offsets.high_watermark);
            delete(&dir, &partition, &mut known, again).unwrap();
            produce(&dir, &partition, &mut known, 2).unwrap();
            check(&partition, &known, &context);
            drop((partition, dir));
            fs.restart(Crash::ProcessDies);
            let dir = open_dir(&fs).unwrap();
            let partition = open_as_leader(&dir, "t", config(), 5).unwrap();
            assert_eq!(
                partition.offsets().log_end_offset,
                known.acknowledged_to,
                "{}",
                context()
            );
            check(&partition, &known, &context);
        }
    }
    assert!(has_come_back, "no crash came between a deletion and its checkpoint");
    assert_eq!(
        has_started_over,
        crash == Crash::PowerFails,
        "below its start only what was not synced is lost"
    );
}

#[test]
fn the_process_dies_around_deletions() {
    enumerate(Crash::ProcessDies, 1);
}

#[test]
fn the_power_fails_around_deletions() {
    enumerate(Crash::PowerFails, 4);
}
