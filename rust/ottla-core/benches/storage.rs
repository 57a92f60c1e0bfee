//! What storage costs: appends small and large, reads at the end and from the start, opening many partitions.
//!
//! `cargo bench -p ottla-core --bench storage -- DIR` (a directory on the disk to measure; default: the temporary one).
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    reason = "a program that measures time"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ottla_core::compression::Compression;
use ottla_core::partition::{Partition, PartitionOptions};
use ottla_core::record::batch::TimestampType;
use ottla_core::record::builder::{BatchOptions, NewRecord, build_batch};
use ottla_core::record::validate::{Origin, TopicCompression, ValidateContext, ValidatedBatch, validate_produce};
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::log_dir::{LogDir, LogDirMeta, LogDirOptions, PartitionId};
use ottla_core::storage::real_fs::RealFs;
use ottla_core::types::{Isolation, TopicId, TopicPartition};

const WALL_MS: i64 = 1_700_000_000_000;

fn context() -> ValidateContext {
    ValidateContext {
        origin: Origin::Client,
        produce_version: 12,
        wall_ms: WALL_MS,
        compacted: false,
        compression: TopicCompression::Producer,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        max_message_bytes: 1 << 30,
        expansion_limit_bytes: 1 << 30,
    }
}

fn open_dir(path: &std::path::Path) -> Arc<LogDir> {
    LogDir::open(&LogDirOptions {
        fs: Arc::new(RealFs),
        path: path.to_path_buf(),
        meta: LogDirMeta {
            cluster_id: "c".to_owned(),
            node_id: 1,
            directory_id: "d".to_owned(),
        },
        waker: Arc::new(|| {}),
        threads: true,
        open_files_max: 1000,
        index_cache_bytes: 64 << 20,
        reserved_bytes: 0,
    })
    .unwrap()
}

fn open(dir: &Arc<LogDir>, topic: &str, partition: i32) -> Arc<Partition> {
    let options = PartitionOptions {
        id: PartitionId(partition as u64),
        topic_partition: TopicPartition {
            topic: topic.into(),
            partition,
        },
        topic_id: TopicId([1; 16]),
        config: LogConfig::default(),
    };
    let partition = Partition::open(dir, options, WALL_MS).unwrap();
    partition.set_leadership(1).unwrap();
    partition
}

fn make_batch(records: usize, record_bytes: usize) -> Vec<u8> {
    let value = vec![b'v'; record_bytes];
    let records = (0..records).map(|_| NewRecord {
        timestamp_ms: WALL_MS,
        value: Some(&value),
        ..NewRecord::default()
    });
    build_batch(
        BatchOptions {
            compression: Compression::default(),
            ..BatchOptions::default()
        },
        records,
    )
    .unwrap()
}

fn cpu() -> Duration {
    // SAFETY: zero is a valid rusage, and the pointer lives through the call.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn measure(name: &str, count: u32, run: impl FnOnce()) {
    let (cpu_before, started) = (cpu(), Instant::now());
    run();
    let (elapsed, cpu) = (started.elapsed(), cpu().saturating_sub(cpu_before));
    println!(
        "{name:<58} {:>9.2?} each, CPU {:>9.2?} each, {elapsed:>8.2?} in all",
        elapsed / count,
        cpu / count
    );
}

/// Append prepared batches and wait until all is written.
fn append_all(dir: &LogDir, partitions: &[Arc<Partition>], batches: Vec<ValidatedBatch>) {
    for (number, batch) in batches.into_iter().enumerate() {
        partitions[number % partitions.len()]
            .append_as_leader(batch, None, WALL_MS)
            .unwrap();
        while dir.tail_bytes() > 64 << 20 {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    while dir.tail_bytes() > 0 {
        std::thread::sleep(Duration::from_micros(20));
    }
    settle(dir, partitions);
}

fn settle(dir: &LogDir, partitions: &[Arc<Partition>]) {
    for completion in dir.drain_completions() {
        if let Some(partition) = partitions
            .iter()
            .find(|partition| partition.id() == completion.partition)
        {
            partition.on_completion(&completion);
        }
    }
}

fn main() {
    let path = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let path = path
        .map_or_else(std::env::temp_dir, PathBuf::from)
        .join(format!("ottla-bench-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    let dir = open_dir(&path);

    for (name, records, record_bytes, count) in [
        ("append 1 record of 100 B", 1, 100, 200_000_u32),
        ("append 16 KiB (150 records)", 150, 100, 20_000),
        ("append 64 KiB (600 records)", 600, 100, 10_000),
        ("append 1 MiB (1000 records)", 1000, 1000, 500),
    ] {
        let bytes = make_batch(records, record_bytes);
        for partitions in [1, 6, 100] {
            let opened: Vec<_> = (0..partitions)
                .map(|number| open(&dir, &format!("a{records}x{partitions}"), number))
                .collect();
            let validated = validate_produce(BytesMut::from(&bytes[..]), &context()).unwrap();
            let batches = vec![validated; count as usize];
            measure(&format!("{name}, {partitions} partitions"), count, || {
                append_all(&dir, &opened, batches);
            });
            for partition in opened {
                partition.delete().unwrap();
            }
        }
    }
    let bytes = make_batch(600, 100);
    measure("validate 64 KiB", 2000, || {
        for _ in 0..2000 {
            std::hint::black_box(validate_produce(BytesMut::from(&bytes[..]), &context()).unwrap());
        }
    });
    measure("CRC of 64 KiB", 2000, || {
        for _ in 0..2000 {
            std::hint::black_box(crc32c::crc32c(std::hint::black_box(&bytes)));
        }
    });

    let partition = open(&dir, "read", 0);
    let validated = validate_produce(BytesMut::from(&make_batch(10, 100)[..]), &context()).unwrap();
    append_all(&dir, &[Arc::clone(&partition)], vec![validated; 200_000]);
    let end = partition.offsets().high_watermark;
    let read = |offset, max_bytes| {
        let result = partition.read(offset, max_bytes, Isolation::ReadUncommitted, true, -1, -1);
        std::hint::black_box(result.unwrap().size_bytes());
    };
    measure("read the last batch", 100_000, || {
        for _ in 0..100_000 {
            read(end - 10, 1 << 20);
        }
    });
    measure("read at the end: nothing", 100_000, || {
        for _ in 0..100_000 {
            read(end, 1 << 20);
        }
    });
    measure("read 64 KiB anywhere", 100_000, || {
        for number in 0..100_000_i64 {
            read(number * 7_919 % end, 64 << 10);
        }
    });

    let count = 5000;
    let mut opened = Vec::new();
    measure("create a partition", count, || {
        opened.extend((0..count).map(|number| open(&dir, "many", number as i32)));
    });
    measure("first append to each", count, || {
        let validated = validate_produce(BytesMut::from(&make_batch(1, 100)[..]), &context()).unwrap();
        append_all(&dir, &opened, vec![validated; count as usize]);
    });
    for partition in opened.drain(..) {
        partition.close().unwrap();
    }
    partition.close().unwrap();
    measure("close the directory", 1, || dir.close().unwrap());
    drop(dir);
    let dir = open_dir(&path);
    println!("{:?}", dir.last_stop());
    measure("open a partition after a clean stop", count, || {
        opened.extend((0..count).map(|number| open(&dir, "many", number as i32)));
    });
    drop((opened, dir));
    let dir = open_dir(&path);
    println!("{:?}", dir.last_stop());
    let mut opened = Vec::new();
    measure("open a partition after the process died", count, || {
        opened.extend((0..count).map(|number| open(&dir, "many", number as i32)));
    });
    measure("open a partition of 200 MiB after the process died", 1, || {
        drop(open(&dir, "read", 0));
    });
    drop((opened, dir));
    let _ = std::fs::remove_dir_all(&path);
}
