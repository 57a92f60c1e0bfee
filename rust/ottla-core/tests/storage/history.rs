//! What was appended to a partition, batch by batch, and what follows from it for everything that a broker keeps beside
//! the records: indexes, producers, transactions, leader epochs.

use std::collections::BTreeMap;
use std::path::Path;

use ottla_core::partition::Partition;
use ottla_core::record::batch::{BatchView, Batches};
use ottla_core::record::builder::{BatchOptions, NewRecord, build_batch};
use ottla_core::record::control::{MarkerType, TransactionMarker};
use ottla_core::record::records::Records;
use ottla_core::record::validate::Origin;
use ottla_core::storage::fs::LogFs;
use ottla_core::storage::index::{IndexEntries, IndexEntry};
use ottla_core::storage::offset_index::OffsetEntry;
use ottla_core::storage::producer_state::ProducerState;
use ottla_core::storage::sim_fs::SimFs;
use ottla_core::storage::time_index::TimeEntry;
use ottla_core::storage::txn_index::AbortedTxnRow;
use ottla_core::types::Isolation;

use super::support::{WALL_MS, validated};

/// What a batch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Plain,
    Transactional,
    Marker(MarkerType),
}

/// A batch of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub base_offset: i64,
    pub last_offset: i64,
    pub leader_epoch: i32,
    pub producer_id: i64,
    pub base_sequence: i32,
    pub kind: Kind,
    /// Of the first record; says in which life of the log it was written.
    pub value: String,
}

/// A producer: sequence of its last record, first offset of its open transaction (-1: none).
pub type Producers = BTreeMap<i64, (i32, i64)>;

/// The batches of a log from its very beginning, deleted ones included.
#[derive(Clone, Default, Debug)]
pub struct History {
    pub entries: Vec<Entry>,
}

impl History {
    pub fn end(&self) -> i64 {
        self.entries.last().map_or(0, |entry| entry.last_offset + 1)
    }

    /// The log ends at `end`: what came behind is lost. Panics if that is within a batch.
    pub fn cut(&mut self, end: i64) {
        self.entries.retain(|entry| entry.base_offset < end);
        assert_eq!(self.end(), end, "a batch is cut");
    }

    /// Append a batch of two records, as the producer's next ones.
    pub fn append(
        &mut self,
        partition: &Partition,
        producer_id: i64,
        transactional: bool,
        life: &str,
    ) -> Result<(), ottla_core::error::Error> {
        let base_sequence = self
            .producers_at(self.end())
            .get(&producer_id)
            .map_or(0, |(last_sequence, _)| last_sequence + 1);
        let offsets = partition.offsets();
        let value = format!("{life} {} of {producer_id}", offsets.log_end_offset);
        let options = BatchOptions {
            producer_id,
            producer_epoch: 0,
            base_sequence,
            transactional,
            ..BatchOptions::default()
        };
        let records = [value.as_bytes(), b"second"]
            .into_iter()
            .zip(0..)
            .map(|(value, at)| NewRecord {
                timestamp_ms: WALL_MS + offsets.log_end_offset + at,
                value: Some(value),
                ..NewRecord::default()
            });
        let bytes = build_batch(options, records).unwrap();
        let found = partition.append_as_leader(validated(&bytes, Origin::Client), None, WALL_MS)?;
        assert!(!found.duplicate);
        self.entries.push(Entry {
            base_offset: found.base_offset,
            last_offset: found.last_offset,
            leader_epoch: offsets.leader_epoch,
            producer_id,
            base_sequence,
            kind: if transactional {
                Kind::Transactional
            } else {
                Kind::Plain
            },
            value,
        });
        Ok(())
    }

    pub fn end_transaction(
        &mut self,
        partition: &Partition,
        producer_id: i64,
        marker_type: MarkerType,
    ) -> Result<(), ottla_core::error::Error> {
        let offsets = partition.offsets();
        let marker = TransactionMarker {
            producer_id,
            producer_epoch: 0,
            marker_type,
            coordinator_epoch: 1,
        };
        let found = partition.append_marker(&marker, 0, None, WALL_MS + offsets.log_end_offset)?;
        self.entries.push(Entry {
            base_offset: found.base_offset,
            last_offset: found.last_offset,
            leader_epoch: offsets.leader_epoch,
            producer_id,
            base_sequence: -1,
            kind: Kind::Marker(marker_type),
            value: String::new(),
        });
        Ok(())
    }

    /// The producers as a snapshot at that offset has them.
    pub fn producers_at(&self, offset: i64) -> Producers {
        let mut producers = Producers::new();
        for entry in self.entries.iter().filter(|entry| entry.base_offset < offset) {
            let (last_sequence, txn_first_offset) = producers.entry(entry.producer_id).or_insert((-1, -1));
            match entry.kind {
                Kind::Marker(_) => *txn_first_offset = -1,
                Kind::Transactional if *txn_first_offset < 0 => *txn_first_offset = entry.base_offset,
                _ => {}
            }
            if !matches!(entry.kind, Kind::Marker(_)) {
                *last_sequence = entry.base_sequence + (entry.last_offset - entry.base_offset) as i32;
            }
        }
        producers
    }

    /// The aborted transactions, in order of their markers.
    pub fn aborted(&self) -> Vec<AbortedTxnRow> {
        let (mut open, mut rows) = (BTreeMap::new(), Vec::new());
        for entry in &self.entries {
            let Entry { producer_id, .. } = *entry;
            match entry.kind {
                Kind::Transactional => {
                    open.entry(producer_id).or_insert(entry.base_offset);
                }
                Kind::Marker(marker_type) => {
                    if let (Some(first_offset), MarkerType::Abort) = (open.remove(&producer_id), marker_type) {
                        rows.push(AbortedTxnRow {
                            producer_id,
                            first_offset,
                            last_offset: entry.last_offset,
                            last_stable_offset: open.values().min().copied().unwrap_or(entry.last_offset + 1),
                        });
                    }
                }
                Kind::Plain => {}
            }
        }
        rows
    }

    /// Each leader epoch and where it ended.
    fn epoch_ends(&self) -> BTreeMap<i32, i64> {
        self.entries
            .iter()
            .map(|entry| (entry.leader_epoch, entry.last_offset + 1))
            .collect()
    }

    /// Compare with what an open partition says.
    pub fn check_served(&self, partition: &Partition, context: &dyn Fn() -> String) {
        let offsets = partition.offsets();
        let start = offsets.log_start_offset;
        let kept: Vec<Entry> = self
            .entries
            .iter()
            .filter(|entry| entry.last_offset >= start)
            .cloned()
            .collect();
        assert_eq!(offsets.high_watermark, self.end(), "{}", context());
        assert_eq!(read_all(partition), kept, "the records; {}", context());
        let producers: Producers = partition
            .active_producers()
            .unwrap()
            .into_iter()
            .map(|found| (found.producer_id, (found.last_sequence, found.current_txn_start_offset)))
            .collect();
        assert_eq!(producers, self.producers_at(self.end()), "the producers; {}", context());
        let open = producers
            .values()
            .map(|(_, first_offset)| *first_offset)
            .filter(|first| *first >= 0);
        let last_stable_offset = open.min().unwrap_or(self.end()).max(start);
        assert_eq!(offsets.last_stable_offset, last_stable_offset, "{}", context());
        // A read ends with its segment at the latest.
        let mut from = start;
        while from < last_stable_offset {
            let read = partition
                .read(from, 1 << 20, Isolation::ReadCommitted, true, -1, -1)
                .unwrap();
            let slice = read.slices.last().unwrap();
            let mut bytes = vec![0; slice.len];
            slice.file.read_exact_at(&mut bytes, slice.position).unwrap();
            let read_end = Batches::new(&bytes).last().unwrap().unwrap().next_offset();
            let told: Vec<_> = read
                .aborted
                .unwrap()
                .iter()
                .map(|txn| (txn.producer_id, txn.first_offset))
                .collect();
            let rows = self.aborted().into_iter();
            let mut expected: Vec<_> = rows
                .filter(|row| row.last_offset >= from && row.first_offset < read_end)
                .map(|row| (row.producer_id, row.first_offset))
                .collect();
            expected.sort_unstable_by_key(|(_, first_offset)| *first_offset);
            assert_eq!(told, expected, "the aborted transactions; {}", context());
            from = read_end;
        }
        for (epoch, end) in self.epoch_ends().into_iter().filter(|(_, end)| *end > start) {
            let found = partition.end_offset_for_epoch(epoch, -1).unwrap();
            assert_eq!(
                (found.leader_epoch, found.end_offset),
                (epoch, end),
                "the end of a leader epoch; {}",
                context()
            );
        }
        for entry in &kept {
            let base_offset = entry.base_offset.max(start);
            let found = partition
                .list_offset(WALL_MS + base_offset, Some(Isolation::default()), -1)
                .unwrap();
            assert_eq!(found.offset, base_offset, "by timestamp; {}", context());
        }
    }

    /// Compare with the files of a partition that was closed in order.
    pub fn check_files(&self, fs: &SimFs, dir: &Path, index_interval_bytes: usize, context: &dyn Fn() -> String) {
        let files: BTreeMap<(i64, String), Vec<u8>> = fs
            .paths()
            .into_iter()
            .filter(|path| path.parent() == Some(dir))
            .filter_map(|path| {
                let (base_offset, suffix) = parse_name(&path)?;
                Some(((base_offset, suffix), fs.read(&path).unwrap()))
            })
            .collect();
        let of = |suffix: &str| -> BTreeMap<i64, &[u8]> {
            files
                .iter()
                .filter(|((_, found), _)| found == suffix)
                .map(|((base_offset, _), bytes)| (*base_offset, &bytes[..]))
                .collect()
        };
        let segments = of("log");
        let mut next_offset = segments.keys().next().copied();
        let mut rows = self.aborted();
        rows.retain(|row| next_offset.is_some_and(|first| row.last_offset >= first));
        for (base_offset, bytes) in &segments {
            assert_eq!(Some(*base_offset), next_offset, "a gap between segments; {}", context());
            let end = check_segment(*base_offset, bytes, &of, index_interval_bytes, context);
            next_offset = Some(end);
            let of_segment: Vec<AbortedTxnRow> = rows
                .iter()
                .copied()
                .filter(|row| (*base_offset..end).contains(&row.last_offset))
                .collect();
            let found: Vec<AbortedTxnRow> = of(AbortedTxnRow::SUFFIX)
                .get(base_offset)
                .map_or(vec![], |bytes| entries_of(bytes, context));
            assert_eq!(
                found,
                of_segment,
                "transactions of segment {base_offset}; {}",
                context()
            );
        }
        assert_eq!(next_offset.unwrap_or(self.end()), self.end(), "{}", context());
        for (offset, bytes) in of("snapshot") {
            // A torn one is passed over.
            let Ok(found) = ProducerState::decode_snapshot(bytes, WALL_MS, i64::MAX) else {
                continue;
            };
            let found: Producers = found
                .iter()
                .map(|(id, entry)| (id, (entry.last_sequence(), entry.txn_first_offset.unwrap_or(-1))))
                .collect();
            assert_eq!(found, self.producers_at(offset), "snapshot at {offset}; {}", context());
        }
    }
}

fn parse_name(path: &Path) -> Option<(i64, String)> {
    let base_offset = path.file_stem()?.to_str()?.parse().ok()?;
    Some((base_offset, path.extension()?.to_str()?.to_owned()))
}

fn entries_of<E: IndexEntry>(bytes: &[u8], context: &dyn Fn() -> String) -> Vec<E> {
    let entries = IndexEntries::<E>::from_bytes(bytes.to_vec());
    let entries = entries.unwrap_or_else(|| panic!("{} bytes of .{}; {}", bytes.len(), E::SUFFIX, context()));
    entries.iter().collect()
}

/// The records follow each other and the indexes are those that appending made. Returns the offset after the last record.
fn check_segment<'f>(
    base_offset: i64,
    bytes: &[u8],
    of: &dyn Fn(&str) -> BTreeMap<i64, &'f [u8]>,
    index_interval_bytes: usize,
    context: &dyn Fn() -> String,
) -> i64 {
    let (mut next_offset, mut position, mut bytes_since_entry) = (base_offset, 0, 0);
    let mut expected = Vec::new();
    let mut greatest = BTreeMap::new();
    let mut max_timestamp = -1;
    for batch in Batches::new(bytes) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        assert_eq!(batch.base_offset(), next_offset, "{}", context());
        next_offset = batch.next_offset();
        if bytes_since_entry > index_interval_bytes {
            expected.push(OffsetEntry {
                relative_offset: (batch.last_offset() - base_offset) as u32,
                position,
            });
            bytes_since_entry = 0;
        }
        bytes_since_entry += batch.size_bytes();
        position += batch.size_bytes() as u32;
        if batch.max_timestamp() > max_timestamp {
            max_timestamp = batch.max_timestamp();
            greatest.insert((batch.last_offset() - base_offset) as u32, max_timestamp);
        }
    }
    assert_eq!(position as usize, bytes.len(), "{}", context());
    let index = of(OffsetEntry::SUFFIX).get(&base_offset).copied();
    if let Some(index) = index {
        let found: Vec<OffsetEntry> = entries_of(index, context);
        assert_eq!(found, expected, "the index of segment {base_offset}; {}", context());
    }
    if let Some(index) = of(TimeEntry::SUFFIX).get(&base_offset) {
        let found: Vec<TimeEntry> = entries_of(index, context);
        assert!(
            found.is_sorted_by(|one, next| one.timestamp < next.timestamp),
            "{found:?}; {}",
            context()
        );
        for entry in &found {
            let greatest = greatest.get(&entry.relative_offset);
            assert_eq!(greatest, Some(&entry.timestamp), "{entry:?}; {}", context());
        }
        let last = found.last().map_or(-1, |entry| entry.timestamp);
        assert_eq!(last, max_timestamp, "segment {base_offset}; {}", context());
    }
    next_offset
}

/// The batches that a consumer is given, from the log start offset to the high watermark.
fn read_all(partition: &Partition) -> Vec<Entry> {
    let offsets = partition.offsets();
    let (mut offset, mut found) = (offsets.log_start_offset, Vec::new());
    while offset < offsets.high_watermark {
        let read = partition
            .read(offset, 700, Isolation::ReadUncommitted, true, -1, -1)
            .unwrap();
        let before = offset;
        for slice in read.slices {
            let mut bytes = vec![0; slice.len];
            slice.file.read_exact_at(&mut bytes, slice.position).unwrap();
            for batch in Batches::new(&bytes) {
                let Ok(batch) = batch else { break }; // the last one is cut where the limit fell
                offset = batch.next_offset();
                found.push(entry_of(&batch));
            }
        }
        assert!(offset > before, "a read at {before} returned nothing new");
    }
    found
}

fn entry_of(batch: &BatchView<'_>) -> Entry {
    batch.verify_crc().unwrap();
    let marker = if batch.is_control() {
        TransactionMarker::parse(batch).unwrap()
    } else {
        None
    };
    let payload = batch.decompressed(1 << 20).unwrap();
    let first = Records::new(&payload, batch.record_count()).next().unwrap().unwrap();
    Entry {
        base_offset: batch.base_offset(),
        last_offset: batch.last_offset(),
        leader_epoch: batch.partition_leader_epoch(),
        producer_id: batch.producer_id(),
        base_sequence: batch.base_sequence(),
        kind: match marker {
            Some(marker) => Kind::Marker(marker.marker_type),
            None if batch.is_transactional() => Kind::Transactional,
            None => Kind::Plain,
        },
        value: match marker {
            Some(_) => String::new(),
            None => String::from_utf8_lossy(first.value.unwrap_or_default()).into_owned(),
        },
    }
}
