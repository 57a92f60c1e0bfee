//! Random operations against a model: a list of records and two offsets.

use std::path::Path;
use std::sync::Arc;

use ottla_core::error::Error;
use ottla_core::partition::{AppendState, Appended, MAX_TIMESTAMP, Partition};
use ottla_core::record::batch::Batches;
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::log_dir::LogDir;
use ottla_core::storage::sim_fs::{Crash, SimFs};
use ottla_core::types::Isolation;
use proptest::prelude::*;

use super::support::{Producer, WALL_MS, batch, consume, dir_options, open, settle};

#[derive(Clone, Debug)]
enum Operation {
    Append {
        records: u8,
        value_bytes: u16,
        advance_ms: i16,
    },
    AppendIdempotent {
        records: u8,
    },
    RepeatLast {
        back: u8,
    },
    Write,
    Read {
        offset: u16,
        max_bytes: u16,
    },
    Lookup {
        advance_ms: u16,
    },
    DeleteRecords {
        offset: u16,
    },
    Truncate {
        offset: u16,
    },
    Flush,
    Tick,
    Checkpoint,
    Background,
    SegmentBytes(u16),
    RestartCleanly,
    ProcessDies,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        12 => (1..5_u8, 0..300_u16, -20..40_i16)
            .prop_map(|(records, value_bytes, advance_ms)| Operation::Append { records, value_bytes, advance_ms }),
        4 => (1..4_u8).prop_map(|records| Operation::AppendIdempotent { records }),
        2 => (0..7_u8).prop_map(|back| Operation::RepeatLast { back }),
        6 => Just(Operation::Write),
        6 => (any::<u16>(), 0..4000_u16).prop_map(|(offset, max_bytes)| Operation::Read { offset, max_bytes }),
        3 => any::<u16>().prop_map(|advance_ms| Operation::Lookup { advance_ms }),
        1 => any::<u16>().prop_map(|offset| Operation::DeleteRecords { offset }),
        1 => any::<u16>().prop_map(|offset| Operation::Truncate { offset }),
        1 => Just(Operation::Flush),
        1 => Just(Operation::Tick),
        1 => Just(Operation::Checkpoint),
        2 => Just(Operation::Background),
        1 => (400..4000_u16).prop_map(Operation::SegmentBytes),
        2 => Just(Operation::RestartCleanly),
        2 => Just(Operation::ProcessDies),
    ];
    prop::collection::vec(operation, 1..120)
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    value: Vec<u8>,
    timestamp: i64,
}

struct Model {
    fs: SimFs,
    dir: Arc<LogDir>,
    partition: Arc<Partition>,
    config: LogConfig,
    /// From offset 0 on, deleted ones included.
    records: Vec<Record>,
    /// Base offset of each batch.
    bases: Vec<usize>,
    log_start_offset: usize,
    clock_ms: i64,
    pending: Vec<Appended>,
    producer_id: i64,
    next_sequence: i32,
    /// Base offset, sequence and size of the idempotent producer's batches since it was last certain of them.
    sent: Vec<(i64, i32, u8)>,
}

impl Model {
    fn new() -> Self {
        let fs = SimFs::new(1);
        let dir = LogDir::open(&dir_options(Arc::new(fs.clone()), Path::new("/log"))).unwrap();
        let config = LogConfig {
            segment_bytes: 1500,
            index_interval_bytes: 250,
            ..LogConfig::default()
        };
        let partition = open(&dir, "t", config.clone());
        Self {
            fs,
            dir,
            partition,
            config,
            records: Vec::new(),
            bases: Vec::new(),
            log_start_offset: 0,
            clock_ms: WALL_MS,
            pending: Vec::new(),
            producer_id: 77,
            next_sequence: 0,
            sent: Vec::new(),
        }
    }

    fn append(&mut self, records: u8, value_bytes: u16, producer: Option<Producer>) -> Appended {
        let values: Vec<Vec<u8>> = (0..records)
            .map(|number| {
                let mut value = format!("{}:{number}", self.records.len()).into_bytes();
                value.resize(value.len() + usize::from(value_bytes), b'.');
                value
            })
            .collect();
        let slices: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let appended = self
            .partition
            .append_as_leader(batch(&slices, self.clock_ms, producer), None, WALL_MS)
            .unwrap();
        if !appended.duplicate {
            assert_eq!(appended.base_offset, self.records.len() as i64);
            self.bases.push(self.records.len());
            for (number, value) in values.into_iter().enumerate() {
                self.records.push(Record {
                    value,
                    timestamp: self.clock_ms + number as i64,
                });
            }
        }
        self.pending.push(appended);
        appended
    }

    fn write(&mut self) {
        settle(&self.dir, &[&self.partition]);
        for appended in self.pending.drain(..) {
            assert_eq!(self.partition.append_state(&appended), AppendState::Committed);
        }
        let offsets = self.partition.offsets();
        assert_eq!(offsets.high_watermark, self.records.len() as i64);
        assert_eq!(offsets.last_stable_offset, self.records.len() as i64);
        assert_eq!(offsets.log_end_offset, self.records.len() as i64);
    }

    fn check_all(&mut self) {
        self.write();
        let found = consume(&self.partition, self.log_start_offset as i64, 700);
        let expected: Vec<(i64, Vec<u8>)> = self
            .records
            .iter()
            .enumerate()
            .skip(self.log_start_offset)
            .map(|(offset, record)| (offset as i64, record.value.clone()))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(self.partition.offsets().log_start_offset, self.log_start_offset as i64);
    }

    fn read(&mut self, offset: u16, max_bytes: u16) {
        let visible = self.partition.offsets().high_watermark;
        let offset = i64::from(offset) % (self.records.len() as i64 + 2);
        let max_bytes = usize::from(max_bytes);
        let result = self
            .partition
            .read(offset, max_bytes, Isolation::ReadUncommitted, true, -1, -1);
        if offset < self.log_start_offset as i64 || offset > self.records.len() as i64 {
            assert!(
                matches!(result, Err(Error::OffsetOutOfRange { .. })),
                "{offset}: {result:?}"
            );
            return;
        }
        let result = result.unwrap();
        assert_eq!(result.slices.is_empty(), offset >= visible);
        let mut batches = Vec::new();
        for slice in &result.slices {
            let mut bytes = vec![0; slice.len];
            slice.file.read_exact_at(&mut bytes, slice.position).unwrap();
            for batch in Batches::new(&bytes) {
                let batch = batch.unwrap();
                batches.push((batch.base_offset(), batch.last_offset(), batch.size_bytes()));
            }
        }
        if let (Some(first), Some(last)) = (batches.first(), batches.last()) {
            assert!(first.0 <= offset && offset <= first.1, "{batches:?} for {offset}");
            assert!(last.1 < visible);
            assert!(result.size_bytes() <= max_bytes.max(first.2));
            assert!(batches.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0));
            assert!(self.partition.bytes_available(offset, Isolation::ReadUncommitted) > 0);
        }
        let without_minimum = self
            .partition
            .read(offset, max_bytes, Isolation::ReadUncommitted, false, -1, -1)
            .unwrap();
        assert!(without_minimum.size_bytes() <= max_bytes);
    }

    fn lookup(&mut self, advance_ms: u16) {
        self.write();
        let visible = &self.records[self.log_start_offset..];
        let first = visible.iter().map(|record| record.timestamp).min().unwrap_or(WALL_MS);
        let timestamp = first - 5 + i64::from(advance_ms) % 400;
        // Among batches whose greatest timestamp is late enough, the first record that is.
        let expected = self.records.iter().enumerate().skip(self.log_start_offset);
        let expected = expected.clone().find(|(_, record)| record.timestamp >= timestamp);
        let found = self
            .partition
            .list_offset(timestamp, Some(Isolation::ReadUncommitted), -1)
            .unwrap();
        let expected = expected.map_or((-1, -1), |(offset, record)| (offset as i64, record.timestamp));
        assert_eq!((found.offset, found.timestamp), expected, "at {timestamp}");
        let found = self
            .partition
            .list_offset(MAX_TIMESTAMP, Some(Isolation::ReadUncommitted), -1)
            .unwrap();
        let max = visible.iter().map(|record| record.timestamp).max();
        // Records below the log start offset may still be in its segment, and count for Kafka too.
        if let Some(max) = max.filter(|_| self.log_start_offset == 0) {
            let offset = self.records.iter().position(|record| record.timestamp == max).unwrap();
            assert_eq!((found.offset, found.timestamp), (offset as i64, max));
        }
    }

    fn repeat(&mut self, back: u8) {
        self.write();
        let Some(number) = self.sent.len().checked_sub(usize::from(back) + 1) else {
            return;
        };
        let (base_offset, sequence, records) = self.sent[number];
        let producer = Producer {
            id: self.producer_id,
            epoch: 0,
            sequence,
        };
        let values = vec![&b"again"[..]; usize::from(records)];
        let result = self
            .partition
            .append_as_leader(batch(&values, self.clock_ms, Some(producer)), None, WALL_MS);
        if back < 5 {
            let appended = result.unwrap();
            assert!(appended.duplicate);
            assert_eq!(appended.base_offset, base_offset);
        } else {
            assert!(matches!(result, Err(Error::OutOfOrderSequence { .. })), "{result:?}");
        }
    }

    fn truncate(&mut self, offset: u16) {
        self.write();
        let span = self.records.len() - self.log_start_offset + 1;
        let wanted = self.log_start_offset + usize::from(offset) % span;
        self.partition.truncate_to(wanted as i64, WALL_MS).unwrap();
        // The whole batch goes.
        let kept = self.bases.iter().take_while(|base| **base < wanted).count();
        let ends = self.bases.iter().copied().skip(1).chain([self.records.len()]);
        let end = self.bases.iter().zip(ends).take(kept).last().map_or(
            0,
            |(base, end)| {
                if end <= wanted { end } else { *base }
            },
        );
        let end = end.max(self.log_start_offset);
        self.records.truncate(end);
        self.bases.retain(|base| *base < end);
        self.forget_producer();
        // A consumer of the log start offset's batch sees what is below it too: keep to batch borders.
        assert_eq!(self.partition.offsets().log_end_offset, end as i64);
    }

    /// Where a cut leaves the producer in its sequence is a subject of its own; here another one comes.
    fn forget_producer(&mut self) {
        self.producer_id += 1;
        self.next_sequence = 0;
        self.sent.clear();
    }

    fn reopen(&mut self) {
        // A snapshot holds the last batch of each producer only, and deleted records take theirs along.
        self.sent.drain(..self.sent.len().saturating_sub(1));
        let log_start_offset = self.log_start_offset as i64;
        self.sent
            .retain(|(base_offset, _, records)| base_offset + i64::from(*records) > log_start_offset);
        self.dir = LogDir::open(&dir_options(Arc::new(self.fs.clone()), Path::new("/log"))).unwrap();
        self.partition = open(&self.dir, "t", self.config.clone());
        let offsets = self.partition.offsets();
        assert_eq!(offsets.log_end_offset, self.records.len() as i64);
        assert_eq!(self.partition.recovery_report().cut, []);
    }

    fn run(&mut self, operation: &Operation) {
        match *operation {
            Operation::Append {
                records,
                value_bytes,
                advance_ms,
            } => {
                self.clock_ms += i64::from(advance_ms);
                self.append(records, value_bytes, None);
            }
            Operation::AppendIdempotent { records } => {
                let producer = Producer {
                    id: self.producer_id,
                    epoch: 0,
                    sequence: self.next_sequence,
                };
                let appended = self.append(records, 10, Some(producer));
                self.sent.push((appended.base_offset, self.next_sequence, records));
                self.next_sequence += i32::from(records);
            }
            Operation::RepeatLast { back } => self.repeat(back),
            Operation::Write => self.write(),
            Operation::Read { offset, max_bytes } => self.read(offset, max_bytes),
            Operation::Lookup { advance_ms } => self.lookup(advance_ms),
            Operation::DeleteRecords { offset } => {
                self.write();
                let wanted = usize::from(offset) % (self.records.len() + 1);
                self.partition.delete_records(wanted as i64).unwrap();
                self.log_start_offset = self.log_start_offset.max(wanted);
            }
            Operation::Truncate { offset } => self.truncate(offset),
            Operation::Flush => {
                assert_eq!(self.partition.flush().unwrap(), self.records.len() as i64);
            }
            Operation::Tick => self.partition.on_tick(self.clock_ms - WALL_MS, WALL_MS),
            Operation::Checkpoint => self.dir.write_checkpoints().unwrap(),
            Operation::Background => while self.dir.step_background() {},
            Operation::SegmentBytes(segment_bytes) => {
                self.config.segment_bytes = u32::from(segment_bytes).max(1500);
                self.partition.configure(self.config.clone());
            }
            Operation::RestartCleanly => {
                self.write();
                self.partition.close().unwrap();
                self.dir.close().unwrap();
                assert!(
                    self.partition
                        .append_as_leader(batch(&[b"x"], WALL_MS, None), None, WALL_MS)
                        .is_err()
                );
                self.reopen();
                assert_eq!(self.partition.recovery_report().scanned_bytes, 0);
            }
            Operation::ProcessDies => {
                self.write();
                // A deletion that reached no checkpoint is made again by whoever asked for it.
                self.dir.write_checkpoints().unwrap();
                self.fs.restart(Crash::ProcessDies);
                self.reopen();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_a_list_of_records(operations in operations()) {
        let mut model = Model::new();
        for operation in &operations {
            model.run(operation);
        }
        model.check_all();
    }
}
