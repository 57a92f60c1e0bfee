//! Transactional Produce: a transaction's first batch in a partition waits until the coordinator knows of it.
//!
//! Older clients have added the partition before they produce to it, and the coordinator is asked whether they have; from
//! Produce 12 on it is told to add the partition (KIP-890). While a transaction is open in a partition nobody is asked.

use std::sync::Arc;

use super::{DataPlane, Now, SessionId};
use crate::partition_table::UNKNOWN_TOPIC_OR_PARTITION;
use crate::session::pipeline::Slot;
use crate::session::produce::PartitionResponse;
use crate::session::waiting::{Candidate, PreparedProduce, VerifyingProduce};
use crate::storage::verification::Verified;

const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
/// From this version of Produce on partitions are added to transactions by producing to them.
const ADDS_PARTITIONS_VERSION: i16 = 12;

/// A Produce request that waits for the transaction coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified {
    /// Whose.
    pub session_id: SessionId,
    /// Names it in `DataPlane::on_verified`.
    pub request_id: u64,
    /// Version of the request.
    pub api_version: i16,
    /// The transaction.
    pub transactional_id: String,
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Where it has no transaction open that is known of.
    pub partitions: Vec<(Arc<str>, i32)>,
}

/// A partition that is not part of the transaction, and how the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Topic.
    pub topic: String,
    /// Index.
    pub partition: i32,
    /// Kafka's error code.
    pub code: i16,
    /// In words.
    pub message: Option<String>,
}

impl DataPlane {
    /// Whether the transaction coordinator is asked about clients that do not have their partitions added by producing to
    /// them (`transaction.partition.verification.enable`).
    pub fn verify_transactions(&mut self, verifies: bool) {
        self.verifies_transactions = verifies;
    }

    /// Whether `take_unverified` would return any.
    pub fn has_unverified(&self) -> bool {
        !self.unverified.is_empty()
    }

    /// Requests for the transaction coordinator since the last call; `on_verified` answers them.
    pub fn take_unverified(&mut self) -> Vec<Unverified> {
        std::mem::take(&mut self.unverified)
    }

    /// Have the coordinator asked where it must be; else append at once.
    pub(super) fn verify(
        &mut self,
        session_id: SessionId,
        slot_id: Option<u64>,
        mut prepared: PreparedProduce,
        candidates: Vec<Candidate>,
        now: Now,
    ) {
        let batches = candidates
            .iter()
            .filter_map(|candidate| candidate.checked.as_ref()?.as_ref().ok());
        let mut producers = batches
            .map(crate::record::validate::ValidatedBatch::view)
            .filter(|batch| batch.is_transactional())
            .map(|batch| (batch.producer_id(), batch.producer_epoch()));
        let producer = producers.next();
        if producer.is_some_and(|first| producers.any(|other| other != first)) {
            let message = "transactional records of more than one producer";
            prepared.refuse_all(INVALID_PRODUCER_ID_MAPPING, message);
            self.append_verified(session_id, slot_id, prepared, std::iter::empty(), now);
            return;
        }
        let version = prepared.call.version;
        let adds = version >= ADDS_PARTITIONS_VERSION;
        let is_required = adds || self.verifies_transactions;
        let mut partitions = Vec::new();
        let mut kept = Vec::with_capacity(candidates.len());
        for mut candidate in candidates {
            let batch = match &candidate.checked {
                Some(Ok(batch)) if is_required && batch.view().is_transactional() => batch.view(),
                _ => {
                    kept.push(candidate);
                    continue;
                }
            };
            let (producer_id, epoch, sequence) = (batch.producer_id(), batch.producer_epoch(), batch.base_sequence());
            let target = candidate.target;
            let response = &mut prepared.topics[target.topic].partitions[target.partition];
            let Some(entry) = self.table.get(target.partition_id) else {
                *response = PartitionResponse::error(response.partition, UNKNOWN_TOPIC_OR_PARTITION, None);
                continue;
            };
            let begun = entry
                .partition
                .begin_verification(producer_id, epoch, sequence, adds, now.now_ms);
            candidate.verified = match begun {
                Ok(None) => Verified::Open,
                Ok(Some(guard)) => {
                    let named = &entry.topic_partition;
                    partitions.push((Arc::clone(&named.topic), named.partition));
                    Verified::By(guard)
                }
                Err(error) => {
                    let message = Some(error.to_string());
                    *response = PartitionResponse::error(response.partition, error.kafka_code(), message);
                    continue;
                }
            };
            kept.push(candidate);
        }
        let (false, Some((producer_id, producer_epoch))) = (partitions.is_empty(), producer) else {
            self.append_verified(session_id, slot_id, prepared, kept.into_iter(), now);
            return;
        };
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        let (size_bytes, transactional_id) = (prepared.call.size_bytes, prepared.transactional_id.clone());
        let slot = Slot::Verifying(Box::new(VerifyingProduce {
            prepared,
            candidates: kept,
        }));
        let request_id = session.put(slot_id, slot, size_bytes);
        self.unverified.push(Unverified {
            session_id,
            request_id,
            api_version: version,
            transactional_id: transactional_id.unwrap_or_default(),
            producer_id,
            producer_epoch,
            partitions,
        });
    }

    /// The coordinator has answered about a request of `take_unverified`: `refused` are the partitions that are not part of
    /// the transaction. Returns false if nothing waits for it (any more).
    pub fn on_verified(&mut self, session_id: SessionId, request_id: u64, refused: &[Refused], now: Now) -> bool {
        let slot = self
            .sessions
            .get_mut(&session_id)
            .and_then(|session| session.slot(request_id));
        let Some(slot @ Slot::Verifying(_)) = slot else {
            return false;
        };
        let Slot::Verifying(verifying) = std::mem::replace(slot, Slot::Owed) else {
            return false;
        };
        let VerifyingProduce {
            mut prepared,
            mut candidates,
        } = *verifying;
        candidates.retain(|candidate| {
            let Verified::By(_) = candidate.verified else {
                return true;
            };
            let target = candidate.target;
            let Some(entry) = self.table.get(target.partition_id) else {
                return true; // the append says so
            };
            let named = &entry.topic_partition;
            let found = refused
                .iter()
                .find(|refused| *refused.topic == *named.topic && refused.partition == named.partition);
            if let Some(found) = found {
                let response = &mut prepared.topics[target.topic].partitions[target.partition];
                *response = PartitionResponse::error(response.partition, found.code, found.message.clone());
            }
            found.is_none()
        });
        self.append_verified(session_id, Some(request_id), prepared, candidates.into_iter(), now);
        self.touch(session_id);
        true
    }

    /// When each open transaction that is the oldest of its partition was last written to, in Unix ms.
    pub fn oldest_transactions_ms(&self) -> impl Iterator<Item = i64> {
        self.table
            .iter()
            .filter_map(|(_, entry)| entry.partition.oldest_transaction_ms())
    }
}
