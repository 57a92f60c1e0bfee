//! Transactions that their coordinator is being asked about (KIP-890).
//!
//! The first batch of a transaction is appended only once the coordinator has said that the partition belongs to it. Between
//! question and answer the transaction may end and another begin (ABA), so the answer counts for one *guard* only, which any
//! batch of the producer takes away, and any marker but that of the transaction before (Kafka: `VerificationStateEntry`,
//! `VerificationGuard`).

use std::collections::HashMap;

use super::producer_state::give_back;

/// Names one question to the coordinator; never used twice while a log is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guard(u64);

impl Guard {
    /// A guard as a caller kept it.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// From 1 on.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What an appender knows of its transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verified {
    /// Nobody wants to know (`transaction.partition.verification.enable=false`).
    NotRequired,
    /// The transaction was open here when it was looked for, so that nobody was asked.
    Open,
    /// The coordinator knows of it.
    By(Guard),
}

/// A question that is not settled by an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verification {
    guard: Guard,
    /// The lowest first sequence of the batches that were asked for: none above it may be the first.
    pub lowest_sequence: i32,
    epoch: i16,
    /// Whether the producer's epoch rises with each transaction (transaction.version 2), so that each begins at sequence 0.
    pub supports_epoch_bump: bool,
    started_ms: i64,
}

/// The questions of a partition, by producer.
#[derive(Clone, Debug, Default)]
pub struct Verifications {
    by_producer: HashMap<i64, Verification>,
    last_guard: u64,
}

impl Verifications {
    /// The question about a producer, if there is one.
    pub fn get(&self, producer_id: i64) -> Option<&Verification> {
        self.by_producer.get(&producer_id)
    }

    /// Whether `guard` is the one of the question about a producer.
    pub fn is_current(&self, producer_id: i64, guard: Guard) -> bool {
        self.get(producer_id).is_some_and(|found| found.guard == guard)
    }

    /// Ask, or join whoever asks already; `now_ms` is monotonic.
    pub fn begin(
        &mut self,
        producer_id: i64,
        epoch: i16,
        base_sequence: i32,
        supports_epoch_bump: bool,
        now_ms: i64,
    ) -> Guard {
        let last_guard = &mut self.last_guard;
        let found = self.by_producer.entry(producer_id).or_insert_with(|| {
            *last_guard += 1;
            Verification {
                guard: Guard(*last_guard),
                lowest_sequence: base_sequence,
                epoch,
                supports_epoch_bump,
                started_ms: now_ms,
            }
        });
        if epoch == found.epoch {
            found.lowest_sequence = found.lowest_sequence.min(base_sequence);
        } else if epoch > found.epoch {
            found.epoch = epoch;
            found.lowest_sequence = base_sequence;
        }
        found.guard
    }

    /// The producer wrote to its transaction, or it ended, by a marker of that epoch: later batches must ask anew, or find it
    /// open. The marker that ends a transaction bears the epoch of the next one, where the epoch rises with each: what is
    /// asked about that one goes on (Kafka: `UnifiedLog.updateProducers`).
    pub fn settle(&mut self, producer_id: i64, marker_epoch: Option<i16>) {
        if self.by_producer.is_empty() {
            return;
        }
        let is_of_next = self
            .get(producer_id)
            .is_some_and(|found| found.supports_epoch_bump && marker_epoch == Some(found.epoch));
        if !is_of_next {
            self.by_producer.remove(&producer_id);
        }
    }

    /// Forget questions that were never settled.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.by_producer
            .retain(|_, found| now_ms.saturating_sub(found.started_ms) < expiration_ms);
        give_back(&mut self.by_producer);
    }
}
