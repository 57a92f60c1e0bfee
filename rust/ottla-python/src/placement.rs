//! Which log directory a new partition goes to.

use std::sync::{Arc, Mutex, PoisonError};

use ottla_core::error::Error;
use ottla_core::partition::{Partition, PartitionOptions};
use ottla_core::storage::log_dir::{LogDir, PartitionId};

/// A disk that takes longer than this to make a directory gets no further partitions meanwhile, in ms.
const HELD_UP_AFTER_MS: i64 = 1000;
/// A directory in which a partition could not be made is asked behind all others for so long, in ms.
const SHUNNED_FOR_MS: i64 = 10_000;

/// Partitions that are being opened.
#[derive(Debug, Default)]
pub struct Openings {
    under_way: Mutex<Vec<Opening>>,
    /// Log directories in which a partition could not be made, and when.
    shunned: Mutex<Vec<(usize, i64)>>,
}

#[derive(Debug)]
struct Opening {
    id: PartitionId,
    log_dir: usize,
    since_ms: i64,
}

impl Openings {
    /// How full a log directory is in comparison with others: one that is held up, or failed a moment ago, comes behind
    /// all others.
    fn rank(&self, log_dir: usize, partition_count: usize, wall_ms: i64) -> (bool, usize) {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let here = under_way.iter().filter(|opening| opening.log_dir == log_dir);
        let is_held_up = here
            .clone()
            .any(|opening| wall_ms - opening.since_ms > HELD_UP_AFTER_MS);
        let shunned = self.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_shunned = shunned
            .iter()
            .any(|&(dir, at_ms)| dir == log_dir && (0..SHUNNED_FOR_MS).contains(&(wall_ms - at_ms)));
        (is_held_up || is_shunned, partition_count + here.count())
    }

    /// A partition could not be made in a log directory.
    fn shun(&self, log_dir: usize, wall_ms: i64) {
        let mut shunned = self.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        shunned.retain(|&(dir, _)| dir != log_dir);
        shunned.push((log_dir, wall_ms));
    }

    /// Open a partition in the log directory that is given (that holds it, for example), or else in the emptiest of those
    /// in which it can be made.
    ///
    /// # Errors
    /// As `Partition::open`.
    pub fn open(
        &self,
        log_dirs: &[Arc<LogDir>],
        given: Option<usize>,
        options: &PartitionOptions,
        wall_ms: i64,
        partition_count: impl Fn(usize) -> usize,
    ) -> Result<(Arc<Partition>, usize), Error> {
        let open_in = |log_dir: usize| {
            let _under_way = self.begin(options.id, log_dir, wall_ms);
            Partition::open(&log_dirs[log_dir], options.clone(), wall_ms)
        };
        if let Some(log_dir) = given {
            return Ok((open_in(log_dir)?, log_dir));
        }
        let topic_partition = &options.topic_partition;
        let rank = |log_dir: &usize| {
            let (comes_last, count) = self.rank(*log_dir, partition_count(*log_dir), wall_ms);
            (comes_last || log_dirs[*log_dir].is_full(), count)
        };
        let mut left: Vec<usize> = (0..log_dirs.len()).collect();
        loop {
            let log_dir = left.iter().copied().min_by_key(rank).expect("one is left to be asked");
            left.retain(|dir| *dir != log_dir);
            let dir = &log_dirs[log_dir];
            let made = {
                let _under_way = self.begin(options.id, log_dir, wall_ms);
                dir.make_place(topic_partition)
            };
            // What cannot be taken back would stand in two directories.
            let (error, is_gone) = match made {
                Ok(is_new) => match open_in(log_dir) {
                    Ok(opened) => return Ok((opened, log_dir)),
                    Err(error) => (error, is_new && dir.take_back(topic_partition)),
                },
                Err(error) => (error, true),
            };
            self.shun(log_dir, wall_ms);
            if left.is_empty() || !is_gone || !matches!(error, Error::Storage { .. }) {
                return Err(error);
            }
            let path = dir.path().display();
            dir.complain(&format!(
                "{topic_partition} is made elsewhere, as {path} does not take it: {error}"
            ));
        }
    }

    /// A partition is being opened until what this returns is dropped.
    fn begin(&self, id: PartitionId, log_dir: usize, wall_ms: i64) -> impl Drop {
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
