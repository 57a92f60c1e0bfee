//! What a partition knows of its producers: duplicates, sequence gaps, fencing, open and aborted transactions.
//!
//! Kafka: `ProducerStateManager`, `ProducerAppendInfo`, `ProducerStateEntry`. The last five batches of each producer are
//! kept, because a client has at most five requests in flight. A change comes with its undo, so that an append whose write
//! fails can be taken back.

mod snapshot;

use std::collections::{BTreeMap, HashMap};

use super::verification::{Guard, Verifications, Verified};
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

/// Who appends, and so what is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checks {
    /// A client: transaction, epoch and sequence.
    Client(Verified),
    /// A coordinator on behalf of a client: transaction and epoch (there are no sequences).
    Coordinator(Verified),
    /// The transaction coordinator, with a marker: epochs, by the rules of the transaction's version.
    Marker {
        /// From 2 on a marker bears an epoch above that of the records (KIP-890).
        transaction_version: i16,
    },
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
    /// What the transaction coordinator is being asked about.
    verifications: Verifications,
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

    /// Memory that the producers take, in bytes. As in Kafka, only time bounds their number (`producer.id.expiration.ms`): an
    /// id costs a slot of this table, which is filled to between seven sixteenths and seven eighths while it grows.
    pub fn size_bytes(&self) -> usize {
        self.producers.capacity() * size_of::<(i64, ProducerEntry)>()
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

    /// Whether the producer has a transaction open in this epoch.
    pub fn has_open_transaction(&self, producer_id: i64, epoch: i16) -> bool {
        self.producers
            .get(&producer_id)
            .is_some_and(|entry| entry.txn_first_offset.is_some() && entry.epoch == epoch)
    }

    /// Find out whether the transaction coordinator must be asked before a transactional batch may be appended; None: it
    /// need not, the transaction is open. `now_ms` is monotonic (Kafka: `UnifiedLog.maybeStartTransactionVerification`).
    ///
    /// # Errors
    /// `InvalidProducerEpoch`: the producer is fenced, whatever the coordinator says.
    pub fn begin_verification(
        &mut self,
        producer_id: i64,
        epoch: i16,
        base_sequence: i32,
        supports_epoch_bump: bool,
        now_ms: i64,
        topic_partition: &TopicPartition,
    ) -> Result<Option<Guard>> {
        // Of an unknown producer any epoch is let through: its coordinator says what is wrong with it.
        if let Some(entry) = self.producers.get(&producer_id)
            && epoch < entry.epoch
        {
            return Err(Error::InvalidProducerEpoch {
                topic_partition: topic_partition.clone(),
                producer_id,
                found: epoch,
                current: entry.epoch,
            });
        }
        if self.has_open_transaction(producer_id, epoch) {
            return Ok(None);
        }
        let verifications = &mut self.verifications;
        Ok(Some(verifications.begin(
            producer_id,
            epoch,
            base_sequence,
            supports_epoch_bump,
            now_ms,
        )))
    }

    /// Check a batch against its producer.
    ///
    /// # Errors
    /// `InvalidProducerEpoch`, `OutOfOrderSequence`, `InvalidTxnState`, `TransactionCoordinatorFenced`.
    pub fn check(&self, info: &BatchInfo, checks: Checks, topic_partition: &TopicPartition) -> Result<()> {
        let entry = self.producers.get(&info.producer_id).unwrap_or(&ProducerEntry::EMPTY);
        let invalid_txn_state = |reason| Error::InvalidTxnState {
            topic_partition: topic_partition.clone(),
            producer_id: info.producer_id,
            reason,
        };
        match checks {
            Checks::Marker { transaction_version } => {
                return check_marker(entry, info, transaction_version, topic_partition);
            }
            Checks::Client(verified) | Checks::Coordinator(verified) => {
                let is_known = match verified {
                    Verified::NotRequired => true,
                    Verified::Open => false,
                    Verified::By(guard) => self.verifications.is_current(info.producer_id, guard),
                };
                let is_open = entry.txn_first_offset.is_some() && entry.epoch == info.producer_epoch;
                if info.is_transactional && !is_open && !is_known {
                    return Err(invalid_txn_state("the record is not part of an ongoing transaction"));
                }
            }
        }
        if info.producer_epoch < entry.epoch {
            return Err(invalid_epoch(topic_partition, info, entry.epoch));
        }
        if matches!(checks, Checks::Client(_)) {
            self.check_sequence(entry, info, topic_partition)?;
        }
        if entry.txn_first_offset.is_some() && !info.is_transactional {
            return Err(invalid_txn_state(
                "a transaction is open and the batch is not part of it",
            ));
        }
        Ok(())
    }

    /// A new epoch starts at 0; within an epoch sequences follow each other; a producer that is not known (expired, or all
    /// of its records deleted) may start anywhere, unless its epoch rises with each transaction, so that it must be at 0.
    fn check_sequence(&self, entry: &ProducerEntry, info: &BatchInfo, topic_partition: &TopicPartition) -> Result<()> {
        let verification = self.verifications.get(info.producer_id);
        let out_of_order = |expected| Error::OutOfOrderSequence {
            topic_partition: topic_partition.clone(),
            producer_id: info.producer_id,
            expected,
            found: info.base_sequence,
        };
        if let Some(verification) = verification {
            if verification.supports_epoch_bump && info.base_sequence != 0 && entry.batches().is_empty() {
                return Err(out_of_order(0));
            }
            // A later request overtook the one that asked first, which was refused: what it holds must not be skipped.
            if info.base_sequence > verification.lowest_sequence {
                return Err(out_of_order(verification.lowest_sequence));
            }
        }
        let expected = if entry.epoch == NO_EPOCH {
            return Ok(());
        } else if info.producer_epoch != entry.epoch {
            0
        } else {
            entry.last_sequence().checked_add(1).unwrap_or(0)
        };
        if info.base_sequence == expected {
            Ok(())
        } else {
            Err(out_of_order(expected))
        }
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
        if info.is_transactional {
            // The transaction is open now, or over: what the coordinator was asked before does not count any more.
            let marker_epoch = info.marker.is_some().then_some(info.producer_epoch);
            self.verifications.settle(info.producer_id, marker_epoch);
        }
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

    /// When the producer of the oldest open transaction was last heard of, in Unix ms (Kafka: `oldestTxnLastTimestamp`).
    pub fn oldest_transaction_ms(&self) -> Option<i64> {
        let producer_id = self.ongoing.values().next()?;
        self.producers.get(producer_id).map(|entry| entry.last_timestamp)
    }

    /// Forget producers that were silent for `expiration_ms`, never one with an open transaction; and questions to the
    /// coordinator that nobody settled.
    pub fn expire(&mut self, now_ms: i64, wall_ms: i64, expiration_ms: i64) {
        self.verifications.expire(now_ms, expiration_ms);
        self.producers
            .retain(|_, entry| !is_expired(entry, wall_ms, expiration_ms));
        give_back(&mut self.producers);
    }
}

/// Let go of what a table had to hold once: it never becomes smaller by itself.
pub(super) fn give_back<V>(by_producer: &mut HashMap<i64, V>) {
    if by_producer.len() < by_producer.capacity() / 4 {
        by_producer.shrink_to(by_producer.len() * 2);
    }
}

fn is_expired(entry: &ProducerEntry, wall_ms: i64, expiration_ms: i64) -> bool {
    entry.txn_first_offset.is_none() && wall_ms.saturating_sub(entry.last_timestamp) >= expiration_ms
}

/// A marker bears an epoch that is not below the producer's; from transaction.version 2 on it must be above, but for a
/// repetition of the one that ended the transaction (Kafka: `ProducerAppendInfo.checkProducerEpoch`).
fn check_marker(
    entry: &ProducerEntry,
    info: &BatchInfo,
    transaction_version: i16,
    topic_partition: &TopicPartition,
) -> Result<()> {
    let epoch = info.producer_epoch;
    // An epoch that cannot rise any more comes with the last transaction's records as with its marker.
    let is_repeated = epoch == entry.epoch && (entry.txn_first_offset.is_none() || epoch == i16::MAX);
    let is_too_low = if transaction_version >= 2 {
        epoch <= entry.epoch && !is_repeated
    } else {
        epoch < entry.epoch
    };
    if is_too_low {
        return Err(invalid_epoch(topic_partition, info, entry.epoch));
    }
    match info.marker {
        Some(marker) if marker.coordinator_epoch < entry.coordinator_epoch => {
            Err(Error::TransactionCoordinatorFenced {
                topic_partition: topic_partition.clone(),
                producer_id: info.producer_id,
                found: marker.coordinator_epoch,
                current: entry.coordinator_epoch,
            })
        }
        _ => Ok(()),
    }
}

fn invalid_epoch(topic_partition: &TopicPartition, info: &BatchInfo, current: i16) -> Error {
    Error::InvalidProducerEpoch {
        topic_partition: topic_partition.clone(),
        producer_id: info.producer_id,
        found: info.producer_epoch,
        current,
    }
}
