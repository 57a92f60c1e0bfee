//! Transactions in a partition: their first batch, their end, and who takes part.

use super::{Appended, Partition};
use crate::error::Result;
use crate::record::control::TransactionMarker;
use crate::record::validate::ValidatedBatch;
use crate::storage::cache::lock;
use crate::storage::producer_state::Checks;
use crate::storage::verification::Guard;

/// A producer as administrators see it (KIP-664).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActiveProducer {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Sequence of its last record; -1 if none.
    pub last_sequence: i32,
    /// Timestamp of its last batch or marker, in Unix ms.
    pub last_timestamp: i64,
    /// Epoch of the coordinator that wrote its last marker; -1 if none.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction; -1 if none.
    pub current_txn_start_offset: i64,
}

impl Partition {
    /// Find out whether the transaction coordinator must be asked before a transactional batch of this producer may be
    /// appended; None: the transaction is open. QUICK.
    ///
    /// `base_sequence`: of the batch; -1 if there is none. `now_ms` is monotonic.
    ///
    /// # Errors
    /// `InvalidProducerEpoch`, `NotLeader`, `LogOffline`, `LogClosed`.
    pub fn begin_verification(
        &self,
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
        supports_epoch_bump: bool,
        now_ms: i64,
    ) -> Result<Option<Guard>> {
        let mut state = lock(&self.state);
        self.check_online(&state)?;
        self.check_leader(&state, -1)?;
        state.log.producers.begin_verification(
            producer_id,
            producer_epoch,
            base_sequence,
            supports_epoch_bump,
            now_ms,
            &self.topic_partition,
        )
    }

    /// End a producer's transaction here: append its marker. The transaction is decided once the high watermark is above it.
    /// QUICK, touches no disk.
    ///
    /// # Errors
    /// `InvalidProducerEpoch`, `TransactionCoordinatorFenced`, and those of every append.
    pub fn append_marker(
        &self,
        marker: &TransactionMarker,
        transaction_version: i16,
        required_leader_epoch: Option<i32>,
        wall_ms: i64,
    ) -> Result<Appended> {
        let batch = ValidatedBatch::of_marker(marker, wall_ms);
        self.append(
            batch,
            required_leader_epoch,
            Checks::Marker { transaction_version },
            wall_ms,
        )
    }

    /// The producers that are known here, by id. QUICK.
    ///
    /// # Errors
    /// `NotLeader`, `LogOffline`, `LogClosed`.
    pub fn active_producers(&self) -> Result<Vec<ActiveProducer>> {
        let state = lock(&self.state);
        self.check_online(&state)?;
        self.check_leader(&state, -1)?;
        let producers = state.log.producers.iter();
        let mut found: Vec<_> = producers
            .map(|(producer_id, entry)| ActiveProducer {
                producer_id,
                producer_epoch: entry.epoch,
                last_sequence: entry.last_sequence(),
                last_timestamp: entry.last_timestamp,
                coordinator_epoch: entry.coordinator_epoch,
                current_txn_start_offset: entry.txn_first_offset.unwrap_or(-1),
            })
            .collect();
        found.sort_unstable_by_key(|producer| producer.producer_id);
        Ok(found)
    }

    /// When the producer of the oldest open transaction was last heard of, in Unix ms. QUICK.
    pub fn oldest_transaction_ms(&self) -> Option<i64> {
        lock(&self.state).log.producers.oldest_transaction_ms()
    }
}
