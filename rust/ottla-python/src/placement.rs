//! Which log directory a new partition goes to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ottla_core::error::Error;
use ottla_core::partition::{Partition, PartitionOptions};
use ottla_core::storage::log_dir::{LogDir, PartitionId};

/// A disk that takes longer than this to make a directory gets no further partitions meanwhile, in ms.
const HELD_UP_AFTER_MS: i64 = 1000;
/// A directory in which a partition could not be made is asked behind all others for so long, in ms.
const SHUNNED_FOR_MS: i64 = 10_000;

/// Decides where partitions are opened.
#[derive(Debug, Default)]
pub struct Placement {
    under_way: Mutex<Vec<Opening>>,
    /// When a partition could last not be made, by log directory.
    shunned_ms: Mutex<HashMap<usize, i64>>,
}

/// A partition that is being opened.
#[derive(Debug)]
struct Opening {
    id: PartitionId,
    log_dir: usize,
    since_ms: i64,
}

impl Placement {
    /// Open a partition in the log directory that holds it, or else in the emptiest of those in which it can be made.
    ///
    /// # Errors
    /// As `Partition::open`.
    pub fn open(
        &self,
        log_dirs: &[Arc<LogDir>],
        options: &PartitionOptions,
        wall_ms: i64,
        partition_count: impl Fn(usize) -> usize,
    ) -> Result<(Arc<Partition>, usize), Error> {
        let topic_partition = &options.topic_partition;
        let holds = |dir: &Arc<LogDir>| dir.contains(topic_partition);
        if let Some(log_dir) = log_dirs.iter().position(holds) {
            let _under_way = self.begin(options.id, log_dir, wall_ms);
            return Ok((Partition::open(&log_dirs[log_dir], options.clone(), wall_ms)?, log_dir));
        }
        let rank = |log_dir: &usize| {
            let (comes_last, count) = self.rank(*log_dir, partition_count(*log_dir), wall_ms);
            (comes_last || log_dirs[*log_dir].is_full(), count)
        };
        let mut left: Vec<usize> = (0..log_dirs.len()).collect();
        loop {
            let log_dir = left.iter().copied().min_by_key(rank).expect("one is left to be asked");
            left.retain(|dir| *dir != log_dir);
            let dir = &log_dirs[log_dir];
            let error = match self.make(dir, log_dir, options, wall_ms) {
                Ok(opened) => return Ok((opened, log_dir)),
                Err(error) => error,
            };
            lock(&self.shunned_ms).insert(log_dir, wall_ms);
            // What is left of it there would stand in two directories at the next start.
            if left.is_empty() || holds(dir) || !matches!(error, Error::Storage { .. }) {
                return Err(error);
            }
            let path = dir.path().display();
            dir.complain(&format!(
                "{topic_partition} is made elsewhere, as {path} does not take it: {error}"
            ));
        }
    }

    /// Open a partition that no log directory holds in this one.
    fn make(
        &self,
        dir: &Arc<LogDir>,
        log_dir: usize,
        options: &PartitionOptions,
        wall_ms: i64,
    ) -> Result<Arc<Partition>, Error> {
        let _under_way = self.begin(options.id, log_dir, wall_ms);
        let is_made = dir.make_place(&options.topic_partition)?;
        Partition::open(dir, options.clone(), wall_ms).inspect_err(|_| {
            if is_made {
                dir.take_back(&options.topic_partition);
            }
        })
    }

    /// How full a log directory is in comparison with others: one that is held up, or failed a moment ago, comes behind
    /// all others.
    fn rank(&self, log_dir: usize, partition_count: usize, wall_ms: i64) -> (bool, usize) {
        let under_way = lock(&self.under_way);
        let here = under_way.iter().filter(|opening| opening.log_dir == log_dir);
        let is_held_up = here
            .clone()
            .any(|opening| wall_ms - opening.since_ms > HELD_UP_AFTER_MS);
        let shunned_ms = lock(&self.shunned_ms).get(&log_dir).copied();
        let is_shunned = shunned_ms.is_some_and(|at_ms| (0..SHUNNED_FOR_MS).contains(&(wall_ms - at_ms)));
        (is_held_up || is_shunned, partition_count + here.count())
    }

    /// A partition is being opened until what this returns is dropped.
    fn begin(&self, id: PartitionId, log_dir: usize, wall_ms: i64) -> impl Drop {
        lock(&self.under_way).push(Opening {
            id,
            log_dir,
            since_ms: wall_ms,
        });
        UnderWay { placement: self, id }
    }
}

struct UnderWay<'a> {
    placement: &'a Placement,
    id: PartitionId,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(&self.placement.under_way).retain(|opening| opening.id != self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
