//! Transactions as the cleaner passes them: which batches are aborted, and which markers have nothing left to mark
//! (Kafka: `CleanedTransactionMetadata`).

use std::collections::{HashMap, HashSet};

use super::filter::EXPANSION_LIMIT_BYTES;
use crate::record::batch::{BatchHeader, BatchView};
use crate::record::control::{ControlType, MarkerType};
use crate::record::records::{Records, RecordsError};
use crate::storage::txn_index::AbortedTxnRow;

/// Fed with the batches of a log in order.
#[derive(Debug)]
pub(crate) struct CleanedTransactions {
    /// By first offset.
    aborted: Vec<AbortedTxnRow>,
    /// How many of them have begun.
    begun: usize,
    /// Producers within an aborted transaction, and whether a batch of it was seen.
    ongoing_aborted: HashMap<i64, (AbortedTxnRow, bool)>,
    /// Producers of which a batch was seen since their last marker.
    ongoing_committed: HashSet<i64>,
}

/// What a marker is still good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Marker {
    /// Batches of its transaction are, or just were, in the log.
    Needed,
    /// It ends an aborted transaction of which batches were in the log: the row stays in the transaction index.
    NeededWithRow(AbortedTxnRow),
    /// Nothing of its transaction is left: it may go once its delete horizon is over.
    Discardable,
}

impl CleanedTransactions {
    /// The aborted transactions of the log, in any order.
    pub fn new(mut aborted: Vec<AbortedTxnRow>) -> Self {
        aborted.sort_unstable_by_key(|row| (row.first_offset, row.producer_id));
        aborted.dedup();
        Self {
            aborted,
            begun: 0,
            ongoing_aborted: HashMap::new(),
            ongoing_committed: HashSet::new(),
        }
    }

    fn begin_up_to(&mut self, offset: i64) {
        while let Some(row) = self.aborted.get(self.begun).filter(|row| row.first_offset <= offset) {
            self.ongoing_aborted.entry(row.producer_id).or_insert((*row, false));
            self.begun += 1;
        }
    }

    /// A batch of records; whether it is part of an aborted transaction.
    pub fn on_batch(&mut self, header: BatchHeader<'_>) -> bool {
        self.begin_up_to(header.last_offset());
        if !header.is_transactional() {
            return false;
        }
        let Some((_, seen)) = self.ongoing_aborted.get_mut(&header.producer_id()) else {
            self.ongoing_committed.insert(header.producer_id());
            return false;
        };
        *seen = true;
        true
    }

    /// A control batch.
    ///
    /// # Errors
    /// Its record cannot be read.
    pub fn on_control_batch(&mut self, batch: &BatchView<'_>) -> Result<Marker, RecordsError> {
        self.begin_up_to(batch.last_offset());
        let payload = batch.decompressed(EXPANSION_LIMIT_BYTES)?;
        let Some(record) = Records::new(&payload, batch.record_count()).next() else {
            return Ok(Marker::Discardable); // cleaned before
        };
        let producer_id = batch.producer_id();
        Ok(match record?.key.and_then(ControlType::parse) {
            Some(ControlType::Marker(MarkerType::Abort)) => match self.ongoing_aborted.remove(&producer_id) {
                Some((row, true)) => Marker::NeededWithRow(row),
                _ => Marker::Discardable,
            },
            Some(ControlType::Marker(MarkerType::Commit)) => {
                if self.ongoing_committed.remove(&producer_id) {
                    Marker::Needed
                } else {
                    Marker::Discardable
                }
            }
            _ => Marker::Needed,
        })
    }
}
