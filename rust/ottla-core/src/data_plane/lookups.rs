//! Fetches of what is not in memory: the readers of the log directory look it up, and nobody else waits for the disk.
//!
//! The same lookup is under way once, however many fetches want it and however often. What it found is given to those
//! who wait for it; for those that come later it is in memory.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use super::{DataPlane, Now, SessionId};
use crate::partition::{Partition, ReadResult};
use crate::session::fetch::FetchPartition;
use crate::session::pipeline::Slot;
use crate::session::waiting::ParkedFetch;
use crate::storage::cache::lock;
use crate::storage::log_dir::PartitionId;
use crate::types::Isolation;

const UNKNOWN_SERVER_ERROR: i16 = -1;

/// What a lookup found, or Kafka's error code.
pub type LookedUp = Result<ReadResult, i16>;

/// A partition of a fetch that is not in memory, and what of it is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cold {
    /// Its place in the fetch.
    pub place: usize,
    pub partition_id: PartitionId,
    pub bytes_max: usize,
    pub min_one: bool,
}

/// Lookups under way at most: beyond that a fetch waits for nothing but its deadline.
const UNDER_WAY_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Lookup {
    partition_id: PartitionId,
    wanted: FetchPartition,
    bytes_max: usize,
    min_one: bool,
    isolation: Isolation,
}

impl Lookup {
    fn run(&self, partition: &Partition) -> LookedUp {
        let Self {
            wanted,
            bytes_max,
            min_one,
            isolation,
            ..
        } = *self;
        let read = || {
            partition.read(
                wanted.fetch_offset,
                bytes_max,
                isolation,
                min_one,
                wanted.current_leader_epoch,
                wanted.last_fetched_epoch,
            )
        };
        // A bug that bytes on a disk can reach must cost one answer.
        match catch_unwind(AssertUnwindSafe(read)) {
            Ok(read) => read.map_err(|error| error.kafka_code()),
            Err(_) => Err(UNKNOWN_SERVER_ERROR),
        }
    }
}

/// A fetch that waits for a lookup, and where in it the partition is.
#[derive(Debug, Clone, Copy)]
struct Waiter {
    session_id: SessionId,
    slot_id: u64,
    place: usize,
}

/// The lookups under way.
#[derive(Default)]
pub(super) struct Lookups {
    under_way: HashMap<Lookup, Vec<Waiter>>,
    done: Arc<Mutex<Vec<(Lookup, LookedUp)>>>,
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups")
            .field("under_way", &self.under_way.len())
            .finish_non_exhaustive()
    }
}

impl DataPlane {
    /// Have the cold partitions of a fetch looked up, which is about to be parked in that slot.
    pub(super) fn look_up(&mut self, parked: &ParkedFetch, cold: &[Cold], (session_id, slot_id): (SessionId, u64)) {
        for cold in cold {
            let Some(entry) = self.table.get(cold.partition_id) else {
                continue;
            };
            let lookup = Lookup {
                partition_id: cold.partition_id,
                wanted: parked.fetch.wanted[cold.place].1,
                bytes_max: cold.bytes_max,
                min_one: cold.min_one,
                isolation: parked.limits.isolation,
            };
            let count = self.lookups.under_way.len();
            let waiters = match self.lookups.under_way.entry(lookup) {
                Occupied(waiters) => waiters.into_mut(),
                Vacant(_) if count >= UNDER_WAY_MAX => continue,
                Vacant(place) => {
                    let (partition, done) = (Arc::clone(&entry.partition), Arc::clone(&self.lookups.done));
                    let dir = Arc::clone(&self.log_dirs[entry.attached.log_dir]);
                    let readers = Arc::clone(dir.readers());
                    readers.submit(Box::new(move || {
                        let found = lookup.run(&partition);
                        lock(&done).push((lookup, found));
                        dir.wake();
                    }));
                    place.insert(Vec::new())
                }
            };
            // A disk that does not answer is asked for by the same client again and again.
            waiters.retain(|waiter| waiter.session_id != session_id || waiter.slot_id == slot_id);
            waiters.push(Waiter {
                session_id,
                slot_id,
                place: cold.place,
            });
        }
    }

    /// Take in what was looked up: fetches that wait for it have it from now on, and are answered if it is enough.
    pub(super) fn take_in_lookups(&mut self, now: Now) {
        let done = std::mem::take(&mut *lock(&self.lookups.done));
        let mut concerned = BTreeSet::new();
        for (lookup, found) in done {
            let entry = self.table.get(lookup.partition_id);
            let available_bytes = entry.map_or(0, |entry| {
                let offset = lookup.wanted.fetch_offset;
                entry.partition.bytes_available(offset, lookup.isolation)
            });
            for waiter in self.lookups.under_way.remove(&lookup).unwrap_or_default() {
                let Waiter {
                    session_id,
                    slot_id,
                    place,
                } = waiter;
                let slot = self
                    .sessions
                    .get_mut(&session_id)
                    .and_then(|session| session.slot(slot_id));
                if let Some(Slot::Fetch(parked)) = slot {
                    parked.look_is_over(place, found.clone(), available_bytes);
                    concerned.insert((session_id, slot_id));
                }
            }
        }
        for (session_id, slot_id) in concerned {
            self.end_wait(session_id, slot_id, now);
        }
    }
}
