//! What a partition knows of its producers: duplicates, sequence gaps, fencing, open and aborted transactions.
//!
//! Kafka: `ProducerStateManager`, `ProducerAppendInfo`, `ProducerStateEntry`. The last five batches of each producer are
//! kept, because a client has at most five requests in flight. A change comes with its undo, so that an append whose write
//! fails can be taken back.

use std::collections::{BTreeMap, HashMap};

use crate::error::{Error, Result};
use crate::types::TopicPartition;

/// Batches remembered of each producer.
const BATCHES_MAX: usize = 5;
/// No epoch of a producer is known.
const NO_EPOCH: i16 = -1;
/// No sequence.
const NO_SEQUENCE: i32 = -1;

/// A batch that a producer appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProducerBatch {
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Offset of its last record.
    pub last_offset: i64,
    /// Last offset minus first offset.
    pub offset_delta: i32,
    /// The batch's largest timestamp, in Unix ms.
    pub timestamp: i64,
}

impl ProducerBatch {
    /// Sequence of its first record.
    pub fn first_sequence(&self) -> i32 {
        // Sequences run from 0 to i32::MAX and then from 0 again.
        let first = i64::from(self.last_sequence) - i64::from(self.offset_delta);
        (if first < 0 { first + (1 << 31) } else { first }) as i32
    }

    /// Offset of its first record.
    pub fn first_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }
}

/// One producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerEntry {
    /// Its epoch; -1 if none was seen.
    pub epoch: i16,
    /// Epoch of the coordinator that wrote its last marker; -1 if none.
    pub coordinator_epoch: i32,
    /// Timestamp of its last batch or marker, in Unix ms.
    pub last_timestamp: i64,
    /// First offset of its open transaction.
    pub txn_first_offset: Option<i64>,
    batches: [ProducerBatch; BATCHES_MAX],
    batch_count: u8,
}

impl ProducerEntry {
    const EMPTY: Self = Self {
        epoch: NO_EPOCH,
        coordinator_epoch: -1,
        last_timestamp: -1,
        txn_first_offset: None,
        batches: [ProducerBatch {
            last_sequence: 0,
            last_offset: 0,
            offset_delta: 0,
            timestamp: 0,
        }; BATCHES_MAX],
        batch_count: 0,
    };

    /// The batches remembered, oldest first.
    pub fn batches(&self) -> &[ProducerBatch] {
        &self.batches[..usize::from(self.batch_count)]
    }

    /// Sequence of the last record; -1 if none.
    pub fn last_sequence(&self) -> i32 {
        self.batches().last().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    /// Offset of the last record; -1 if none.
    pub fn last_offset(&self) -> i64 {
        self.batches().last().map_or(-1, |batch| batch.last_offset)
    }

    fn set_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batch_count = 0;
        }
    }

    fn push(&mut self, batch: ProducerBatch) {
        if usize::from(self.batch_count) == BATCHES_MAX {
            self.batches.rotate_left(1);
            self.batches[BATCHES_MAX - 1] = batch;
        } else {
            self.batches[usize::from(self.batch_count)] = batch;
            self.batch_count += 1;
        }
    }
}

/// The end of a transaction, as its control batch says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndTxnMarker {
    /// Commit or abort.
    pub commit: bool,
    /// Epoch of the coordinator that wrote it.
    pub coordinator_epoch: i32,
}

/// What producer state needs of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchInfo {
    /// The producer; never -1.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// First sequence; -1 in control batches.
    pub base_sequence: i32,
    /// Last sequence.
    pub last_sequence: i32,
    /// First offset.
    pub base_offset: i64,
    /// Last offset.
    pub last_offset: i64,
    /// Largest timestamp, in Unix ms.
    pub timestamp: i64,
    /// Part of a transaction.
    pub is_transactional: bool,
    /// The marker, for a control batch that ends a transaction.
    pub marker: Option<EndTxnMarker>,
}

/// Who appends: only what a client sends is checked for its sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checks {
    /// Epoch and sequence are checked.
    Client,
    /// Epoch is checked (coordinators have no sequences).
    Coordinator,
}

/// A transaction that a marker ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompletedTxn {
    /// The producer.
    pub producer_id: i64,
    /// First offset of the transaction.
    pub first_offset: i64,
    /// Offset of the marker.
    pub last_offset: i64,
    /// Whether it was aborted.
    pub aborted: bool,
    /// The last stable offset without this transaction.
    pub last_stable_offset: i64,
}

/// How to take an applied batch back.
#[derive(Clone, Copy, Debug)]
pub struct Undo {
    producer_id: i64,
    previous: Option<ProducerEntry>,
    started_at: Option<i64>,
    completed_at: Option<i64>,
}

/// All producers of a partition.
#[derive(Clone, Debug, Default)]
pub struct ProducerState {
    producers: HashMap<i64, ProducerEntry>,
    /// Open transactions: first offset to producer.
    ongoing: BTreeMap<i64, i64>,
    /// Ended ones whose marker is not below the high watermark yet: first offset to (producer, marker's offset). They still
    /// hold the last stable offset back.
    unreplicated: BTreeMap<i64, (i64, i64)>,
}

impl ProducerState {
    /// The producer's entry.
    pub fn get(&self, producer_id: i64) -> Option<&ProducerEntry> {
        self.producers.get(&producer_id)
    }

    /// All producers, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &ProducerEntry)> {
        self.producers.iter().map(|(&producer_id, entry)| (producer_id, entry))
    }

    /// Number of producers.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether no producer is known.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// The batch that `info` repeats: same epoch, same first and last sequence as one of the last five.
    pub fn find_duplicate(&self, info: &BatchInfo) -> Option<ProducerBatch> {
        let entry = self.producers.get(&info.producer_id)?;
        if entry.epoch != info.producer_epoch || info.marker.is_some() {
            return None;
        }
        entry
            .batches()
            .iter()
            .find(|batch| batch.first_sequence() == info.base_sequence && batch.last_sequence == info.last_sequence)
            .copied()
    }

    /// Check a batch against its producer.
    ///
    /// # Errors
    /// `InvalidProducerEpoch`, `OutOfOrderSequence`, `InvalidTxnState`, `TransactionCoordinatorFenced`.
    pub fn check(&self, info: &BatchInfo, checks: Checks, topic_partition: &TopicPartition) -> Result<()> {
        let entry = self.producers.get(&info.producer_id).unwrap_or(&ProducerEntry::EMPTY);
        if info.producer_epoch < entry.epoch {
            return Err(Error::InvalidProducerEpoch {
                topic_partition: topic_partition.clone(),
                producer_id: info.producer_id,
                found: info.producer_epoch,
                current: entry.epoch,
            });
        }
        if let Some(marker) = info.marker {
            if marker.coordinator_epoch < entry.coordinator_epoch {
                return Err(Error::TransactionCoordinatorFenced {
                    topic_partition: topic_partition.clone(),
                    producer_id: info.producer_id,
                    found: marker.coordinator_epoch,
                    current: entry.coordinator_epoch,
                });
            }
            return Ok(());
        }
        if checks == Checks::Client {
            check_sequence(entry, info, topic_partition)?;
        }
        if entry.txn_first_offset.is_some() && !info.is_transactional {
            return Err(Error::InvalidTxnState {
                topic_partition: topic_partition.clone(),
                producer_id: info.producer_id,
                reason: "a transaction is open and the batch is not part of it",
            });
        }
        Ok(())
    }

    /// Take a batch in that was checked, or that is in the log already.
    pub fn apply(&mut self, info: &BatchInfo) -> (Option<CompletedTxn>, Undo) {
        let previous = self.producers.get(&info.producer_id).copied();
        let mut entry = previous.unwrap_or(ProducerEntry::EMPTY);
        let mut undo = Undo {
            producer_id: info.producer_id,
            previous,
            started_at: None,
            completed_at: None,
        };
        let mut completed = None;
        entry.set_epoch(info.producer_epoch);
        entry.last_timestamp = info.timestamp;
        if let Some(marker) = info.marker {
            entry.coordinator_epoch = marker.coordinator_epoch;
            // An empty transaction's marker touches neither the last stable offset nor the transaction index.
            if let Some(first_offset) = entry.txn_first_offset.take() {
                self.ongoing.remove(&first_offset);
                self.unreplicated
                    .insert(first_offset, (info.producer_id, info.last_offset));
                undo.completed_at = Some(first_offset);
                completed = Some(CompletedTxn {
                    producer_id: info.producer_id,
                    first_offset,
                    last_offset: info.last_offset,
                    aborted: !marker.commit,
                    last_stable_offset: self.ongoing.keys().next().copied().unwrap_or(info.last_offset + 1),
                });
            }
        } else {
            entry.push(ProducerBatch {
                last_sequence: info.last_sequence,
                last_offset: info.last_offset,
                offset_delta: (info.last_offset - info.base_offset) as i32,
                timestamp: info.timestamp,
            });
            if info.is_transactional && entry.txn_first_offset.is_none() {
                entry.txn_first_offset = Some(info.base_offset);
                self.ongoing.insert(info.base_offset, info.producer_id);
                undo.started_at = Some(info.base_offset);
            }
        }
        self.producers.insert(info.producer_id, entry);
        (completed, undo)
    }

    /// Take back the newest of the batches applied and not taken back.
    pub fn undo(&mut self, undo: Undo) {
        if let Some(first_offset) = undo.started_at {
            self.ongoing.remove(&first_offset);
        }
        if let Some(first_offset) = undo.completed_at {
            self.unreplicated.remove(&first_offset);
            self.ongoing.insert(first_offset, undo.producer_id);
        }
        match undo.previous {
            Some(entry) => self.producers.insert(undo.producer_id, entry),
            None => self.producers.remove(&undo.producer_id),
        };
    }

    /// First offset that is not decided, or decided by a marker that is not below the high watermark.
    pub fn first_unstable_offset(&self) -> Option<i64> {
        let ongoing = self.ongoing.keys().next();
        let unreplicated = self.unreplicated.keys().next();
        ongoing.into_iter().chain(unreplicated).min().copied()
    }

    /// The high watermark moved: markers below it count now.
    pub fn on_high_watermark(&mut self, high_watermark: i64) {
        if !self.unreplicated.is_empty() {
            self.unreplicated
                .retain(|_, &mut (_, last_offset)| last_offset >= high_watermark);
        }
    }

    /// The log start offset moved: transactions that ended before it hold nothing back.
    pub fn on_log_start_offset(&mut self, log_start_offset: i64) {
        self.unreplicated
            .retain(|_, &mut (_, last_offset)| last_offset >= log_start_offset);
    }

    /// Forget producers that were silent for `expiration_ms`; never one with an open transaction.
    pub fn expire(&mut self, wall_ms: i64, expiration_ms: i64) {
        self.producers
            .retain(|_, entry| !is_expired(entry, wall_ms, expiration_ms));
    }

    /// The `.snapshot` file: `version i16, crc u32, entries`, with the last batch of each producer (Kafka:
    /// `ProducerSnapshot` v1). The CRC-32C covers what follows it.
    pub fn encode_snapshot(&self) -> Vec<u8> {
        let mut entries: Vec<_> = self.producers.iter().collect();
        entries.sort_unstable_by_key(|(producer_id, _)| **producer_id);
        let mut out = Vec::with_capacity(SNAPSHOT_HEADER_BYTES + entries.len() * SNAPSHOT_ENTRY_BYTES);
        out.extend_from_slice(&SNAPSHOT_VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(entries.len() as i32).to_be_bytes());
        for (producer_id, entry) in entries {
            let last = entry.batches().last();
            out.extend_from_slice(&producer_id.to_be_bytes());
            out.extend_from_slice(&entry.epoch.to_be_bytes());
            out.extend_from_slice(&entry.last_sequence().to_be_bytes());
            out.extend_from_slice(&entry.last_offset().to_be_bytes());
            out.extend_from_slice(&last.map_or(0, |batch| batch.offset_delta).to_be_bytes());
            out.extend_from_slice(&entry.last_timestamp.to_be_bytes());
            out.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
            out.extend_from_slice(&entry.txn_first_offset.unwrap_or(-1).to_be_bytes());
        }
        let crc = crc32c::crc32c(&out[SNAPSHOT_CRC_END..]);
        out[2..SNAPSHOT_CRC_END].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// Read a `.snapshot` file, leaving out producers whose time is over.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn decode_snapshot(content: &[u8], wall_ms: i64, expiration_ms: i64) -> std::result::Result<Self, String> {
        if content.len() < SNAPSHOT_HEADER_BYTES {
            return Err(format!(
                "{} bytes, at least {SNAPSHOT_HEADER_BYTES} expected",
                content.len()
            ));
        }
        let version = i16::from_be_bytes([content[0], content[1]]);
        if version != SNAPSHOT_VERSION {
            return Err(format!("version {version}, expected {SNAPSHOT_VERSION}"));
        }
        let expected = u32::from_be_bytes(content[2..6].try_into().expect("four bytes"));
        let found = crc32c::crc32c(&content[SNAPSHOT_CRC_END..]);
        if found != expected {
            return Err(format!("crc {found:#010x}, header says {expected:#010x}"));
        }
        let count = i32::from_be_bytes(content[6..10].try_into().expect("four bytes"));
        let rows = &content[SNAPSHOT_HEADER_BYTES..];
        if usize::try_from(count).ok() != Some(rows.len() / SNAPSHOT_ENTRY_BYTES)
            || !rows.len().is_multiple_of(SNAPSHOT_ENTRY_BYTES)
        {
            return Err(format!(
                "{} bytes of entries, the header says {count} entries",
                rows.len()
            ));
        }
        let mut state = Self::default();
        for row in rows.chunks_exact(SNAPSHOT_ENTRY_BYTES) {
            let (producer_id, entry) = decode_entry(row);
            if is_expired(&entry, wall_ms, expiration_ms) {
                continue;
            }
            if let Some(first_offset) = entry.txn_first_offset {
                state.ongoing.insert(first_offset, producer_id);
            }
            state.producers.insert(producer_id, entry);
        }
        Ok(state)
    }
}

const SNAPSHOT_VERSION: i16 = 1;
const SNAPSHOT_CRC_END: usize = 6;
const SNAPSHOT_HEADER_BYTES: usize = 10;
const SNAPSHOT_ENTRY_BYTES: usize = 46;

fn decode_entry(row: &[u8]) -> (i64, ProducerEntry) {
    let i32_at = |at: usize| i32::from_be_bytes(row[at..at + 4].try_into().expect("four bytes"));
    let i64_at = |at: usize| i64::from_be_bytes(row[at..at + 8].try_into().expect("eight bytes"));
    let (last_sequence, last_offset, timestamp) = (i32_at(10), i64_at(14), i64_at(26));
    let mut entry = ProducerEntry {
        epoch: i16::from_be_bytes([row[8], row[9]]),
        coordinator_epoch: i32_at(34),
        last_timestamp: timestamp,
        txn_first_offset: Some(i64_at(38)).filter(|&offset| offset >= 0),
        ..ProducerEntry::EMPTY
    };
    if last_offset >= 0 {
        entry.push(ProducerBatch {
            last_sequence,
            last_offset,
            offset_delta: i32_at(22),
            timestamp,
        });
    }
    (i64_at(0), entry)
}

fn is_expired(entry: &ProducerEntry, wall_ms: i64, expiration_ms: i64) -> bool {
    entry.txn_first_offset.is_none() && wall_ms.saturating_sub(entry.last_timestamp) >= expiration_ms
}

/// A new epoch starts at 0; within an epoch sequences follow each other; a producer that is not known (expired, or all of
/// its records deleted) may start anywhere.
fn check_sequence(entry: &ProducerEntry, info: &BatchInfo, topic_partition: &TopicPartition) -> Result<()> {
    let expected = if entry.epoch == NO_EPOCH {
        return Ok(());
    } else if info.producer_epoch != entry.epoch {
        0
    } else {
        entry.last_sequence().checked_add(1).unwrap_or(0)
    };
    if info.base_sequence == expected {
        return Ok(());
    }
    Err(Error::OutOfOrderSequence {
        topic_partition: topic_partition.clone(),
        producer_id: info.producer_id,
        expected,
        found: info.base_sequence,
    })
}
