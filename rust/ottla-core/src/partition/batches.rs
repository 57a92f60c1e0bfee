//! Reading whole batches with their extents, for who hands out records by offset without looking at them (share groups).

use std::collections::HashSet;

use super::{AbortedTxn, Partition};
use crate::error::{Error, Result};
use crate::record::batch::{BatchHeader, Batches};
use crate::types::Isolation;

/// Where in the bytes of a `BatchesRead` a batch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchExtent {
    /// Its first offset, as it was built.
    pub base_offset: i64,
    /// Its last offset, as it was built.
    pub last_offset: i64,
    /// Where it starts, in bytes.
    pub position: usize,
    /// Its records are of a transaction that was aborted. Known only of committed reads.
    pub is_aborted: bool,
}

/// Whole batches, one after the other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BatchesRead {
    /// The batches as they are in the log.
    pub bytes: Vec<u8>,
    /// What is where in them.
    pub batches: Vec<BatchExtent>,
}

impl Partition {
    /// Whole batches that are visible under `isolation`, from the one that holds `offset` on; the first comes whatever its
    /// size, the others while `max_bytes` allow. SLOW.
    ///
    /// # Errors
    /// `OffsetOutOfRange`, `NotLeader`, `LogOffline`, `CorruptBatch`, `Storage`.
    pub fn read_batches(&self, offset: i64, max_bytes: usize, isolation: Isolation) -> Result<BatchesRead> {
        let read = self.read(offset, max_bytes, isolation, true, -1, -1)?;
        let mut bytes = read.to_bytes().map_err(Error::storage("reading records"))?;
        let mut aborting = Aborting::new(read.aborted.unwrap_or_default());
        let mut batches = Vec::new();
        let mut walk = Batches::new(&bytes);
        let mut position = 0;
        while let Some(batch) = walk.next() {
            let batch = match batch {
                Ok(batch) => batch,
                // What is whole before damage is served; a reader that comes to the damage is told.
                Err(_) if !batches.is_empty() => break,
                Err(error) => {
                    return Err(Error::CorruptBatch {
                        file: self.topic_partition.to_string(),
                        position: read.slices.first().map_or(0, |slice| slice.position),
                        reason: error.to_string(),
                    });
                }
            };
            batches.push(BatchExtent {
                base_offset: batch.base_offset(),
                last_offset: batch.last_offset(),
                position,
                is_aborted: aborting.covers(*batch),
            });
            position = walk.position();
        }
        bytes.truncate(position);
        Ok(BatchesRead { bytes, batches })
    }
}

/// Follows aborted transactions through the batches of a read, as consumers do (KIP-98).
struct Aborting {
    /// By first offset, the next one last.
    to_come: Vec<AbortedTxn>,
    /// Producers whose transaction has begun and will be aborted.
    open: HashSet<i64>,
}

impl Aborting {
    fn new(mut aborted: Vec<AbortedTxn>) -> Self {
        aborted.reverse();
        Self {
            to_come: aborted,
            open: HashSet::new(),
        }
    }

    fn covers(&mut self, batch: BatchHeader<'_>) -> bool {
        while let Some(next) = self.to_come.pop_if(|next| next.first_offset <= batch.last_offset()) {
            self.open.insert(next.producer_id);
        }
        if batch.is_control() {
            self.open.remove(&batch.producer_id());
            return false;
        }
        batch.is_transactional() && self.open.contains(&batch.producer_id())
    }
}
