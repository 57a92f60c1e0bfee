//! Compaction, rule by rule.

use ottla_core::compression::Codec;
use ottla_core::log_cleaner::LogCleaner;
use ottla_core::record::batch::{BatchView, TimestampType};
use ottla_core::record::builder::BatchOptions;
use ottla_core::record::control::MarkerType;
use ottla_core::storage::config::{CleanupPolicy, LogConfig};

use super::bench::{Bench, key};
use super::reader::{all_records, clean, committed_records, compacted, end, entry, packed, plain, put};
use super::support::WALL_MS;

#[test]
fn only_the_newest_record_of_a_key_stays_at_its_offset() {
    let mut bench = Bench::new("newest", compacted());
    bench.put(&[("a", Some("1")), ("b", Some("1")), ("a", Some("2"))]);
    bench.put(&[("c", Some("1")), ("b", Some("2"))]);
    bench.fill();
    bench.put(&[("a", Some("3"))]);
    let end_offset = bench.partition.offsets().log_end_offset;
    bench.clean(WALL_MS);
    // what is in the active segment replaces nothing yet
    assert_eq!(bench.keys(), [key(2, "a"), key(3, "c"), key(4, "b"), key(6, "a")]);
    assert_eq!(bench.partition.offsets().log_end_offset, end_offset);
    assert_eq!(bench.cleaner.clean_offset(bench.partition.topic_partition()), Some(6));
    assert_eq!(
        clean(&mut bench.cleaner, &bench.partition, WALL_MS),
        None,
        "nothing is dirty any more"
    );
}

#[test]
fn the_next_round_compares_with_what_was_cleaned_before() {
    let mut bench = Bench::new("rounds", compacted());
    bench.put(&[("a", Some("1")), ("b", Some("1"))]);
    bench.fill();
    bench.put(&[("a", Some("2"))]);
    bench.clean(WALL_MS);
    bench.fill();
    bench.fill();
    bench.clean(WALL_MS);
    assert_eq!(bench.keys(), [key(1, "b"), key(3, "a")]);
}

#[test]
fn small_segments_become_one() {
    let mut bench = Bench::new("group", compacted());
    for round in 0..12 {
        bench.put(&[("a", Some(&"v".repeat(200))), ("b", Some(&round.to_string()))]);
    }
    bench.fill();
    let stats = clean(&mut bench.cleaner, &bench.partition, WALL_MS).unwrap();
    assert!(stats.segments_before >= 6, "{stats:?}");
    assert!(stats.written_bytes < stats.read_bytes / 4, "{stats:?}");
    bench.fill();
    bench.fill();
    let stats = clean(&mut bench.cleaner, &bench.partition, WALL_MS).unwrap();
    assert!(stats.segments_after <= 3, "{stats:?}");
    assert_eq!(bench.keys(), [key(22, "a"), key(23, "b")]);
}

#[test]
fn a_tombstone_outlives_its_first_cleaning_by_delete_retention() {
    let config = LogConfig {
        delete_retention_ms: 1_000,
        ..compacted()
    };
    let mut bench = Bench::new("tombstone", config);
    bench.put(&[("a", Some("1")), ("b", Some("1"))]);
    bench.put(&[("a", None)]);
    bench.fill();
    bench.fill();
    bench.clean(WALL_MS);
    assert_eq!(bench.keys(), [key(1, "b"), key(2, "a")]);
    let batch = bench.batch_at(2).unwrap();
    let view = BatchView::parse(&batch).unwrap();
    assert_eq!(view.delete_horizon_ms(), Some(WALL_MS + 1_000));
    assert_eq!(
        all_records(&bench.partition)[&2].timestamp_ms,
        WALL_MS,
        "its timestamp is relative to the horizon"
    );
    bench.fill();
    bench.clean(WALL_MS + 999);
    assert_eq!(bench.keys(), [key(1, "b"), key(2, "a")]);
    assert_eq!(
        BatchView::parse(&bench.batch_at(2).unwrap())
            .unwrap()
            .delete_horizon_ms(),
        Some(WALL_MS + 1_000)
    );
    bench.fill();
    bench.clean(WALL_MS + 1_000);
    assert_eq!(bench.keys(), [key(1, "b")]);
}

#[test]
fn records_without_a_key_go() {
    let mut bench = Bench::new(
        "keyless",
        LogConfig {
            cleanup_policy: LogConfig::default().cleanup_policy,
            ..compacted()
        },
    );
    super::support::append(&bench.partition, &[b"no key"], WALL_MS);
    bench.put(&[("a", Some("1"))]);
    bench.fill();
    bench.fill();
    bench.partition.configure(compacted());
    bench.clean(WALL_MS);
    assert_eq!(bench.keys(), [key(1, "a")]);
}

#[test]
fn the_active_segment_and_young_records_are_left_alone() {
    let config = LogConfig {
        min_compaction_lag_ms: 60_000,
        ..compacted()
    };
    let mut bench = Bench::new("young", config);
    bench.put(&[("a", Some("1")), ("a", Some("2"))]);
    assert_eq!(
        clean(&mut bench.cleaner, &bench.partition, WALL_MS + 90_000),
        None,
        "it is in the active segment"
    );
    bench.fill();
    bench.fill();
    assert_eq!(clean(&mut bench.cleaner, &bench.partition, WALL_MS + 59_999), None);
    bench.clean(WALL_MS + 60_000);
    assert_eq!(bench.keys(), [key(1, "a")]);
}

#[test]
fn dirty_ratio_and_max_lag_decide_when_it_is_due() {
    let config = LogConfig {
        min_cleanable_dirty_ratio: 0.5,
        max_compaction_lag_ms: 60_000,
        ..compacted()
    };
    let mut bench = Bench::new("due", config);
    for number in 0..6 {
        bench.put(&[(&number.to_string(), Some(&"v".repeat(300)))]);
    }
    bench.fill();
    bench.clean(WALL_MS); // all of it is dirty
    bench.put(&[("0", Some("2"))]);
    bench.fill();
    bench.fill();
    assert_eq!(
        clean(&mut bench.cleaner, &bench.partition, WALL_MS + 60_000),
        None,
        "a small part is dirty"
    );
    bench.clean(WALL_MS + 60_001);
    assert!(bench.keys().contains(&key(7, "0")) && !bench.keys().contains(&key(0, "0")));
}

#[test]
fn nothing_beyond_the_last_stable_offset_is_cleaned() {
    let mut bench = Bench::new("unstable", compacted());
    let transactional = BatchOptions {
        producer_id: 9,
        producer_epoch: 0,
        base_sequence: 0,
        transactional: true,
        ..plain()
    };
    bench.put(&[("a", Some("1")), ("a", Some("2"))]);
    put(&bench.dir, &bench.partition, transactional, &[entry("a", Some("3"))]);
    bench.fill();
    bench.fill();
    assert_eq!(
        clean(&mut bench.cleaner, &bench.partition, WALL_MS),
        None,
        "the first segment holds an open transaction"
    );
    end(&bench.dir, &bench.partition, (9, 0), MarkerType::Commit, WALL_MS);
    bench.fill();
    bench.clean(WALL_MS);
    assert_eq!(bench.keys(), [key(2, "a")]);
}

#[test]
fn aborted_records_go_whatever_their_key_and_replace_nothing() {
    let mut bench = Bench::new(
        "aborted",
        LogConfig {
            delete_retention_ms: 1_000,
            ..compacted()
        },
    );
    let transactional = |sequence| BatchOptions {
        producer_id: 9,
        producer_epoch: 0,
        base_sequence: sequence,
        transactional: true,
        ..plain()
    };
    bench.put(&[("a", Some("1"))]);
    put(
        &bench.dir,
        &bench.partition,
        transactional(0),
        &[entry("a", Some("2")), entry("only here", Some("1"))],
    );
    let abort = end(&bench.dir, &bench.partition, (9, 0), MarkerType::Abort, WALL_MS);
    put(&bench.dir, &bench.partition, transactional(2), &[entry("b", Some("1"))]);
    let commit = end(&bench.dir, &bench.partition, (9, 0), MarkerType::Commit, WALL_MS);
    bench.fill();
    bench.fill();
    bench.clean(WALL_MS);
    assert_eq!(bench.keys(), [key(0, "a"), key(4, "b")]);
    let committed: Vec<i64> = committed_records(&bench.partition)
        .into_keys()
        .filter(|offset| *offset < 6)
        .collect();
    assert_eq!(committed, [0, 4]);
    // both markers still have batches to mark, or had until just now
    for marker in [abort, commit] {
        assert!(BatchView::parse(&bench.batch_at(marker).unwrap()).unwrap().is_control());
    }
    bench.fill();
    bench.clean(WALL_MS + 1);
    let batch = bench.batch_at(abort).unwrap();
    let horizon_ms = BatchView::parse(&batch).unwrap().delete_horizon_ms();
    assert_eq!(
        horizon_ms,
        Some(WALL_MS + 1_001),
        "its transaction is gone: the horizon begins"
    );
    bench.fill();
    bench.clean(WALL_MS + 2_000);
    assert_eq!(bench.batch_at(abort), None);
    assert!(
        bench.batch_at(commit).is_some(),
        "its transaction has a record in the log"
    );
}

#[test]
fn the_last_batch_of_a_live_producer_stays_as_a_header() {
    let mut bench = Bench::new("producer", compacted());
    let options = BatchOptions {
        producer_id: 7,
        producer_epoch: 2,
        base_sequence: 40,
        ..packed(Codec::Zstd)
    };
    put(
        &bench.dir,
        &bench.partition,
        options,
        &[entry("a", Some("1")), entry("b", Some("1"))],
    );
    bench.put(&[("a", Some("2")), ("b", Some("2"))]);
    bench.fill();
    bench.fill();
    bench.clean(WALL_MS);
    assert_eq!(bench.keys(), [key(2, "a"), key(3, "b")]);
    let bytes = bench.batch_at(0).unwrap();
    let batch = BatchView::parse(&bytes).unwrap();
    assert_eq!((batch.record_count(), batch.size_bytes()), (0, 61));
    assert_eq!((batch.producer_id(), batch.producer_epoch()), (7, 2));
    assert_eq!((batch.base_sequence(), batch.last_sequence()), (40, 41));
    assert_eq!(
        (batch.base_offset(), batch.last_offset(), batch.max_timestamp()),
        (0, 1, WALL_MS)
    );
    assert_eq!(batch.codec(), Ok(Codec::None));
}

#[test]
fn rewritten_batches_keep_codec_offsets_and_sequences() {
    for codec in Codec::ALL {
        let mut bench = Bench::new(&format!("rewrite-{}", codec.name()), compacted());
        let options = BatchOptions {
            producer_id: 7,
            producer_epoch: 2,
            base_sequence: 40,
            ..packed(codec)
        };
        let entries = [entry("a", Some("1")), entry("b", Some("1")), entry("c", Some("1"))];
        put(&bench.dir, &bench.partition, options, &entries);
        bench.put(&[("a", Some("2")), ("c", Some("2"))]);
        bench.fill();
        bench.fill();
        bench.clean(WALL_MS);
        let bytes = bench.batch_at(1).unwrap();
        let batch = BatchView::parse(&bytes).unwrap();
        assert_eq!(batch.codec(), Ok(codec));
        assert_eq!(
            (batch.base_offset(), batch.last_offset(), batch.record_count()),
            (0, 2, 1)
        );
        assert_eq!((batch.base_sequence(), batch.last_sequence()), (40, 42));
        assert_eq!(all_records(&bench.partition)[&1], entries[1]);
    }
}

#[test]
fn log_append_times_survive() {
    let mut bench = Bench::new("append-time", compacted());
    let options = BatchOptions {
        timestamp_type: TimestampType::LogAppendTime,
        ..plain()
    };
    // as a batch comes out of validation: the time of the append is its max timestamp
    let mut late = [entry("a", Some("1")), entry("b", Some("1"))];
    late[1].timestamp_ms = WALL_MS + 500;
    let bytes = ottla_core::record::builder::build_batch(
        BatchOptions {
            timestamp_type: TimestampType::CreateTime,
            ..options
        },
        late.iter().map(|entry| ottla_core::record::builder::NewRecord {
            timestamp_ms: entry.timestamp_ms,
            key: Some(&entry.key),
            value: entry.value.as_deref(),
            ..Default::default()
        }),
    )
    .unwrap();
    let context = ottla_core::record::validate::ValidateContext {
        origin: ottla_core::record::validate::Origin::Client,
        produce_version: 12,
        wall_ms: WALL_MS + 77,
        compacted: true,
        compression: ottla_core::record::validate::TopicCompression::Producer,
        timestamp_type: TimestampType::LogAppendTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        max_message_bytes: 1 << 20,
        expansion_limit_bytes: 1 << 20,
    };
    let valid = ottla_core::record::validate::validate_produce(bytes[..].into(), &context).unwrap();
    bench.partition.append_as_leader(valid, None, WALL_MS).unwrap();
    bench.put(&[("a", Some("2"))]);
    bench.fill();
    bench.fill();
    bench.clean(WALL_MS);
    assert_eq!(all_records(&bench.partition)[&1].timestamp_ms, WALL_MS + 77);
}

#[test]
fn a_small_map_cleans_in_several_rounds() {
    let mut bench = Bench::new("small-map", compacted());
    bench.cleaner = LogCleaner::open(&bench.dir, 3 * 32);
    for round in 0..4 {
        for number in 0..6 {
            bench.put(&[(&format!("key {number}"), Some(&format!("{round} {}", "v".repeat(100))))]);
        }
    }
    bench.fill();
    bench.fill();
    let mut rounds = 0;
    while clean(&mut bench.cleaner, &bench.partition, WALL_MS).is_some() {
        rounds += 1;
    }
    assert!(rounds > 2, "{rounds}");
    assert_eq!(bench.keys().len(), 6);
    assert!(bench.keys().iter().all(|(offset, _)| (18..24).contains(offset)));
}

#[test]
fn compact_and_delete_does_both() {
    let cleanup_policy = CleanupPolicy {
        delete: true,
        compact: true,
    };
    let mut bench = Bench::new(
        "both",
        LogConfig {
            cleanup_policy,
            retention_ms: 1_000,
            ..compacted()
        },
    );
    bench.put(&[("a", Some("1")), ("a", Some("2"))]);
    bench.fill();
    bench.fill();
    bench.clean(WALL_MS);
    assert_eq!(bench.keys(), [key(1, "a")]);
    assert!(bench.partition.delete_old_segments(WALL_MS + 1_001).unwrap() > 0);
    assert_eq!(bench.keys(), []);
    assert!(bench.partition.offsets().log_start_offset >= 2);
}
