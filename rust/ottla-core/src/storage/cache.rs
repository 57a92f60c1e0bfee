//! Bounded sets of what may be open or in memory: file descriptors and indexes of segments.
//!
//! Second chance (CLOCK): whatever was used since it was last looked at stays, else it goes. A use costs one flag.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError, Weak};

use super::segment::Segment;

/// A lock whose data is consistent whenever it is released, also by a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What a cache holds of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// The open `.log` file.
    Log,
    /// The offset index.
    OffsetIndex,
    /// The time index.
    TimeIndex,
}

/// A place for a value that can be fetched again. Whoever fetches it keeps the lock meanwhile, which may be for as long as
/// a disk does not answer: who must not wait for that calls `peek`, `clear` and `evict` only.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    /// The value, with the number of `clears` when its fetching began: if there are more by now, it is out of date.
    value: Mutex<Option<(u64, T)>>,
    clears: AtomicU64,
    used: AtomicBool,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self {
            value: Mutex::new(None),
            clears: AtomicU64::new(0),
            used: AtomicBool::new(false),
        }
    }
}

impl<T: Clone> Slot<T> {
    /// The value, fetched if it is not here; whether it was fetched. Others who want it wait meanwhile.
    pub fn get_or_fetch<E>(&self, fetch: impl FnOnce() -> Result<T, E>) -> Result<(T, bool), E> {
        let mut value = lock(&self.value);
        self.used.store(true, Ordering::Relaxed);
        if let Some(value) = self.current(value.as_ref()) {
            return Ok((value, false));
        }
        let clears = self.clears.load(Ordering::Acquire);
        let fetched = fetch()?;
        *value = Some((clears, fetched.clone()));
        Ok((fetched, true))
    }

    /// The value, if it is here and nobody is fetching it.
    pub fn peek(&self) -> Option<T> {
        let value = self.try_lock()?;
        self.used.store(true, Ordering::Relaxed);
        self.current(value.as_ref())
    }

    fn current(&self, value: Option<&(u64, T)>) -> Option<T> {
        let (before, value) = value?;
        (*before == self.clears.load(Ordering::Acquire)).then(|| value.clone())
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Option<(u64, T)>>> {
        match self.value.try_lock() {
            Ok(value) => Some(value),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Keep everyone from getting or fetching the value for a while.
    pub fn hold(&self) -> impl Sized + '_ {
        lock(&self.value)
    }

    /// Forget the value; what is being fetched at the moment is for those alone who asked before.
    pub fn clear(&self) {
        self.clears.fetch_add(1, Ordering::AcqRel);
        if let Some(mut value) = self.try_lock() {
            value.take();
        }
    }

    /// Forget the value unless it was used since the last call; whether it is gone.
    pub fn evict(&self) -> bool {
        if self.used.swap(false, Ordering::Relaxed) {
            return false;
        }
        // Whoever holds the lock is fetching the value, and may be the one who asks for room.
        let Some(mut value) = self.try_lock() else {
            return false;
        };
        value.take();
        true
    }
}

#[derive(Debug, Default)]
struct Clock {
    hand: VecDeque<(Weak<Segment>, Part, usize)>,
    total: usize,
}

/// A bound on the sum of what the slots of many segments hold.
#[derive(Debug)]
pub(crate) struct Cache {
    limit: usize,
    clock: Mutex<Clock>,
}

impl Cache {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            clock: Mutex::default(),
        }
    }

    /// A slot was filled at that cost; others make room.
    pub fn admit(&self, segment: Weak<Segment>, part: Part, cost: usize) {
        let mut clock = lock(&self.clock);
        clock.hand.push_back((segment, part, cost));
        clock.total += cost;
        let limit = self.limit;
        Self::shrink(&mut clock, limit);
    }

    /// Give back half of everything: the process is out of file descriptors.
    pub fn relieve(&self) {
        let mut clock = lock(&self.clock);
        let limit = clock.total / 2;
        Self::shrink(&mut clock, limit);
    }

    fn shrink(clock: &mut Clock, limit: usize) {
        // Two rounds suffice: the first takes the flag of use away. The newest entry stays.
        let mut steps = 2 * clock.hand.len();
        while clock.total > limit && clock.hand.len() > 1 && steps > 0 {
            steps -= 1;
            let Some((weak, part, cost)) = clock.hand.pop_front() else {
                break;
            };
            match weak.upgrade() {
                Some(segment) if !segment.evict(part) => clock.hand.push_back((weak, part, cost)),
                _ => clock.total -= cost,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(slot: &Slot<i32>, value: i32) -> (i32, bool) {
        slot.get_or_fetch(|| Ok::<_, ()>(value)).expect("fetched")
    }

    #[test]
    fn what_is_cleared_while_it_is_fetched_is_for_those_alone_who_asked_before() {
        let slot = Slot::default();
        let fetched = slot.get_or_fetch(|| {
            assert_eq!(slot.peek(), None, "nobody waits for the disk");
            slot.clear();
            Ok::<_, ()>(1)
        });
        assert_eq!(fetched, Ok((1, true)));
        assert_eq!(slot.peek(), None);
        assert_eq!(fetch(&slot, 2), (2, true));
        assert_eq!(fetch(&slot, 3), (2, false));
        assert_eq!(slot.peek(), Some(2));
        slot.clear();
        assert_eq!(slot.peek(), None);
    }
}
