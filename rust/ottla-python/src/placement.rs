//! Which log directory a new partition goes to.

use std::sync::{Mutex, PoisonError};

use ottla_core::storage::log_dir::PartitionId;

/// A disk that takes longer than this to make a directory gets no further partitions meanwhile, in ms.
const HELD_UP_AFTER_MS: i64 = 1000;

/// Partitions that are being opened.
#[derive(Debug, Default)]
pub struct Openings {
    under_way: Mutex<Vec<Opening>>,
}

#[derive(Debug)]
struct Opening {
    id: PartitionId,
    log_dir: usize,
    since_ms: i64,
}

impl Openings {
    /// How full a log directory is in comparison with others: one that is held up comes behind all others.
    pub fn rank(&self, log_dir: usize, partition_count: usize, wall_ms: i64) -> (bool, usize) {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let here = under_way.iter().filter(|opening| opening.log_dir == log_dir);
        let is_held_up = here
            .clone()
            .any(|opening| wall_ms - opening.since_ms > HELD_UP_AFTER_MS);
        (is_held_up, partition_count + here.count())
    }

    /// A partition is being opened until what this returns is dropped.
    pub fn begin(&self, id: PartitionId, log_dir: usize, wall_ms: i64) -> impl Drop {
        let opening = Opening {
            id,
            log_dir,
            since_ms: wall_ms,
        };
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(opening);
        UnderWay { openings: self, id }
    }
}

struct UnderWay<'a> {
    openings: &'a Openings,
    id: PartitionId,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut under_way = self.openings.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|opening| opening.id != self.id);
    }
}
