//! A partition's directory with arbitrary content: it opens or is refused, and what opened can be read and closed.
//! The input is a list of files: a byte that names one, two bytes of length, the content.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use ottla_core::partition::{Partition, PartitionOptions};
use ottla_core::record::batch::{BATCH_OVERHEAD, stamp_crc};
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::fs::LogFs;
use ottla_core::storage::log_dir::{LogDir, LogDirMeta, LogDirOptions, PartitionId};
use ottla_core::storage::sim_fs::SimFs;
use ottla_core::types::{TopicId, TopicPartition};

const NAMES: [&str; 14] = [
    "t-0/00000000000000000000.log",
    "t-0/00000000000000000000.index",
    "t-0/00000000000000000000.timeindex",
    "t-0/00000000000000000000.txnindex",
    "t-0/00000000000000000000.snapshot",
    "t-0/00000000000000000005.log",
    "t-0/00000000000000000005.index",
    "t-0/00000000000000000005.timeindex",
    "t-0/00000000000000000005.snapshot",
    "t-0/leader-epoch-checkpoint",
    "t-0/partition.metadata",
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    ".kafka_cleanshutdown",
];

fn seal(content: &mut [u8]) {
    if content.len() >= BATCH_OVERHEAD {
        let length = i32::try_from(content.len() - 12).expect("two bytes of length");
        content[8..12].copy_from_slice(&length.to_be_bytes());
        content[16] = 2;
        stamp_crc(content);
    }
}

fuzz_target!(|data: &[u8]| {
    let fs = SimFs::new(1);
    let root = Path::new("/d");
    fs.create_dir_all(&root.join("t-0")).expect("an empty disk");
    let mut rest = data;
    while let [name, high, low, tail @ ..] = rest {
        let size = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (content, behind) = tail.split_at(size);
        rest = behind;
        let number = usize::from(*name & 0x7f) % NAMES.len();
        let mut content = content.to_vec();
        if *name & 0x80 == 0 && NAMES[number].ends_with(".log") {
            seal(&mut content);
        }
        fs.replace(&root.join(NAMES[number]), &content, true)
            .expect("a whole disk");
    }
    let opened = LogDir::open(&LogDirOptions {
        fs: Arc::new(fs),
        path: root.to_path_buf(),
        meta: LogDirMeta {
            cluster_id: "c".to_owned(),
            node_id: 1,
            directory_id: "AAAAAAAAAAAAAAAAAAAAAQ".to_owned(),
        },
        waker: Arc::new(|| {}),
        threads: false,
        open_files_max: 4,
        index_cache_bytes: 1 << 16,
        reserved_bytes: 0,
    });
    let Ok(dir) = opened else { return };
    let options = PartitionOptions {
        id: PartitionId(1),
        topic_partition: TopicPartition {
            topic: "t".into(),
            partition: 0,
        },
        topic_id: TopicId::ZERO,
        config: LogConfig::default(),
    };
    if let Ok(partition) = Partition::open(&dir, options, 1_700_000_000_000) {
        let offsets = partition.offsets();
        assert!(offsets.log_start_offset <= offsets.log_end_offset, "{offsets:?}");
        let _ = partition.recovery_report();
        let _ = partition.active_producers();
    }
});
