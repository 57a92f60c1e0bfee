//! Random histories of a compacted log against a model that keeps everything.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use ottla_core::compression::{Codec, Compression};
use ottla_core::log_cleaner::LogCleaner;
use ottla_core::partition::Partition;
use ottla_core::record::builder::BatchOptions;
use ottla_core::record::control::MarkerType;
use ottla_core::storage::config::{CleanupPolicy, LogConfig};
use ottla_core::storage::fs::LogFs;
use ottla_core::storage::log_dir::LogDir;
use ottla_core::storage::sim_fs::{Crash, SimFs};
use proptest::prelude::*;

use super::reader::{Entry, all_records, clean, committed_records, end, final_state, put};
use super::support::{WALL_MS, dir_options, open, settle};

const KEYS: u8 = 7;
const DELETE_RETENTION_MS: i64 = 5_000;

#[derive(Clone, Debug)]
enum Op {
    /// By a producer (0: none): keys with values, `None` a tombstone.
    Put {
        producer: u8,
        codec: Codec,
        records: Vec<(u8, Option<u8>)>,
    },
    /// A producer's transaction begins with its next batch.
    Begin {
        producer: u8,
    },
    End {
        producer: u8,
        commits: bool,
    },
    Clean {
        map_keys: usize,
    },
    Wait {
        ms: i64,
    },
    /// Stop in order, or die, and start again; without the snapshots of producers if asked.
    Restart {
        dies: bool,
        loses_snapshots: bool,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let producer = 0u8..4;
    let records = proptest::collection::vec((0..KEYS, proptest::option::weighted(0.75, any::<u8>())), 1..6);
    let codec = proptest::sample::select(&[Codec::None, Codec::Lz4][..]);
    let op = prop_oneof![
        10 => (producer.clone(), codec, records).prop_map(|(producer, codec, records)| Op::Put { producer, codec, records }),
        2 => (1u8..4).prop_map(|producer| Op::Begin { producer }),
        4 => (1u8..4, any::<bool>()).prop_map(|(producer, commits)| Op::End { producer, commits }),
        3 => (1usize..30).prop_map(|map_keys| Op::Clean { map_keys }),
        2 => (1i64..DELETE_RETENTION_MS).prop_map(|ms| Op::Wait { ms }),
        1 => any::<(bool, bool)>().prop_map(|(dies, loses_snapshots)| Op::Restart { dies, loses_snapshots }),
    ];
    proptest::collection::vec(op, 1..70)
}

#[derive(Clone, Copy, Default)]
struct Transaction {
    sequence: i32,
    /// Asked for, with or without a batch yet.
    is_open: bool,
    has_batches: bool,
}

struct Machine {
    fs: SimFs,
    dir: Arc<LogDir>,
    partition: Arc<Partition>,
    cleaner: LogCleaner,
    wall_ms: i64,
    /// Everything ever appended, and whether it counts.
    history: BTreeMap<i64, Entry>,
    committed: BTreeMap<i64, Entry>,
    undecided: HashMap<u8, BTreeMap<i64, Entry>>,
    transactions: HashMap<u8, Transaction>,
    map_keys: usize,
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 600,
        index_interval_bytes: 120,
        cleanup_policy: CleanupPolicy {
            delete: false,
            compact: true,
        },
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: DELETE_RETENTION_MS,
        ..LogConfig::default()
    }
}

fn start(fs: &SimFs) -> (Arc<LogDir>, Arc<Partition>) {
    let dir = LogDir::open(&dir_options(Arc::new(fs.clone()), Path::new("/data/log"))).unwrap();
    let partition = open(&dir, "t", config());
    (dir, partition)
}

impl Machine {
    fn new(seed: u64) -> Self {
        let fs = SimFs::new(seed);
        let (dir, partition) = start(&fs);
        let cleaner = LogCleaner::open(&dir, 1 << 20);
        Self {
            fs,
            dir,
            partition,
            cleaner,
            wall_ms: WALL_MS,
            history: BTreeMap::new(),
            committed: BTreeMap::new(),
            undecided: HashMap::new(),
            transactions: HashMap::new(),
            map_keys: 1 << 15,
        }
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Put {
                producer,
                codec,
                records,
            } => self.put(*producer, *codec, records),
            Op::Begin { producer } => self.transactions.entry(*producer).or_default().is_open = true,
            Op::End { producer, commits } => self.end(*producer, *commits),
            Op::Clean { map_keys } => {
                if *map_keys != self.map_keys {
                    self.cleaner = LogCleaner::open(&self.dir, map_keys * 32);
                    self.map_keys = *map_keys;
                }
                clean(&mut self.cleaner, &self.partition, self.wall_ms);
            }
            Op::Wait { ms } => self.wall_ms += ms,
            Op::Restart { dies, loses_snapshots } => self.restart(*dies, *loses_snapshots),
        }
    }

    fn put(&mut self, producer: u8, codec: Codec, records: &[(u8, Option<u8>)]) {
        let entries: Vec<Entry> = records
            .iter()
            .map(|(key, value)| Entry {
                key: vec![b'k', *key],
                value: value.map(|value| vec![value; 20]),
                timestamp_ms: self.wall_ms,
            })
            .collect();
        let mut options = BatchOptions {
            compression: Compression { codec, level: None },
            ..BatchOptions::default()
        };
        let mut is_transactional = false;
        if producer > 0 {
            let transaction = self.transactions.entry(producer).or_default();
            options.producer_id = i64::from(producer);
            options.producer_epoch = 0;
            options.base_sequence = transaction.sequence;
            options.transactional = transaction.is_open;
            transaction.sequence += entries.len() as i32;
            transaction.has_batches |= transaction.is_open;
            is_transactional = transaction.is_open;
        }
        let base_offset = put(&self.dir, &self.partition, options, &entries);
        for (offset, entry) in (base_offset..).zip(entries) {
            self.history.insert(offset, entry.clone());
            if is_transactional {
                self.undecided.entry(producer).or_default().insert(offset, entry);
            } else {
                self.committed.insert(offset, entry);
            }
        }
    }

    fn end(&mut self, producer: u8, commits: bool) {
        let transaction = self.transactions.entry(producer).or_default();
        if !std::mem::take(&mut transaction.is_open) {
            return;
        }
        if std::mem::take(&mut transaction.has_batches) {
            let marker_type = if commits { MarkerType::Commit } else { MarkerType::Abort };
            end(
                &self.dir,
                &self.partition,
                (i64::from(producer), 0),
                marker_type,
                self.wall_ms,
            );
            let records = self.undecided.remove(&producer).unwrap_or_default();
            if commits {
                self.committed.extend(records);
            }
        }
    }

    fn restart(&mut self, dies: bool, loses_snapshots: bool) {
        if dies {
            self.fs.restart(Crash::ProcessDies);
        } else {
            self.partition.close().unwrap();
            settle(&self.dir, &[&self.partition]);
            self.dir.close().unwrap();
        }
        if loses_snapshots {
            for path in self
                .fs
                .paths()
                .iter()
                .filter(|path| path.extension().is_some_and(|end| end == "snapshot"))
            {
                self.fs.remove_file(path).unwrap();
            }
        }
        (self.dir, self.partition) = start(&self.fs);
        self.cleaner = LogCleaner::open(&self.dir, self.map_keys * 32);
    }

    fn check(&mut self) {
        let clean_offset = self.cleaner.clean_offset(self.partition.topic_partition()).unwrap_or(0);
        let left = all_records(&self.partition);
        for (offset, entry) in &left {
            assert_eq!(self.history.get(offset), Some(entry), "a record changed");
        }
        // aborted records may go with the segment that the round ended in
        for offset in self.committed.range(clean_offset..).map(|(offset, _)| offset) {
            assert!(
                left.contains_key(offset),
                "{offset} is gone, only what is below {clean_offset} was cleaned"
            );
        }
        for offset in self.undecided.values().flat_map(BTreeMap::keys) {
            assert!(left.contains_key(offset), "{offset} is gone, its transaction is open");
        }
        let stable = self
            .undecided
            .values()
            .filter_map(|records| records.keys().next())
            .min()
            .copied();
        let below_stable = |records: &BTreeMap<i64, Entry>| -> BTreeMap<i64, Entry> {
            records
                .range(..stable.unwrap_or(i64::MAX))
                .map(|(offset, entry)| (*offset, entry.clone()))
                .collect()
        };
        let seen = committed_records(&self.partition);
        let expected = below_stable(&self.committed);
        assert_eq!(final_state(&seen), final_state(&expected));
        for (offset, entry) in &seen {
            assert_eq!(expected.get(offset), Some(entry), "{offset} was aborted");
        }
        let mut newest: BTreeMap<&[u8], i64> = BTreeMap::new();
        for (offset, entry) in expected.range(..clean_offset) {
            newest.insert(&entry.key, *offset);
        }
        for (offset, entry) in &expected {
            let is_newest = *offset >= clean_offset || newest[&entry.key[..]] == *offset;
            if is_newest && entry.value.is_some() {
                assert!(seen.contains_key(offset), "{offset} is the newest of its key");
            }
            if !is_newest {
                assert!(
                    !seen.contains_key(offset),
                    "{offset} is not the newest of its key below {clean_offset}"
                );
            }
        }
        for (producer, transaction) in &self.transactions {
            // whoever continues its sequence is not refused: the last batch of each producer is still known
            if transaction.sequence > 0 {
                let before = self.partition.offsets().log_end_offset;
                let entries = [Entry {
                    key: b"probe".to_vec(),
                    value: None,
                    timestamp_ms: self.wall_ms,
                }];
                let options = BatchOptions {
                    producer_id: i64::from(*producer),
                    producer_epoch: 0,
                    base_sequence: transaction.sequence,
                    transactional: transaction.is_open,
                    ..BatchOptions::default()
                };
                // a wrong sequence is refused, so it is known
                let wrong = BatchOptions {
                    base_sequence: transaction.sequence + 5,
                    ..options
                };
                let bytes = ottla_core::record::builder::build_batch(
                    wrong,
                    entries.iter().map(|entry| ottla_core::record::builder::NewRecord {
                        timestamp_ms: entry.timestamp_ms,
                        key: Some(&entry.key),
                        ..Default::default()
                    }),
                )
                .unwrap();
                let batch = super::support::validated(&bytes, ottla_core::record::validate::Origin::Client);
                let refused = self.partition.append_as_leader(batch, None, self.wall_ms);
                assert!(refused.is_err(), "the sequence of producer {producer} is forgotten");
                assert_eq!(self.partition.offsets().log_end_offset, before);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn compaction_keeps_what_counts(ops in ops(), seed: u64) {
        let mut machine = Machine::new(seed);
        for op in &ops {
            machine.run(op);
            if matches!(op, Op::Clean { .. } | Op::Restart { .. }) {
                machine.check();
            }
        }
        machine.check();
        // and once more from the files alone
        machine.restart(true, true);
        machine.check();
    }
}
