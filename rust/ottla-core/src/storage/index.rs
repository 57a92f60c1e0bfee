//! What the offset index and the time index share: fixed-size big-endian entries, ascending, without any checksum.
//!
//! Entries stay in their file form (bytes) in memory too: a lookup is a binary search over the bytes, a flush is a copy.

use std::marker::PhantomData;

/// An entry of an index file.
pub trait IndexEntry: Copy {
    /// Size in the file, in bytes.
    const SIZE_BYTES: usize;
    /// Suffix of the file's name.
    const SUFFIX: &'static str;
    /// Append the entry's bytes.
    fn encode(self, out: &mut Vec<u8>);
    /// Read an entry from exactly `SIZE_BYTES` bytes.
    fn decode(bytes: &[u8]) -> Self;
}

/// Entries of an index, or a contiguous part of them, in file form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexEntries<E> {
    bytes: Vec<u8>,
    entry: PhantomData<E>,
}

impl<E> Default for IndexEntries<E> {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            entry: PhantomData,
        }
    }
}

impl<E: IndexEntry> IndexEntries<E> {
    /// Take a file's content; `None` if its size is not that of whole entries.
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        bytes.len().is_multiple_of(E::SIZE_BYTES).then_some(Self {
            bytes,
            entry: PhantomData,
        })
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.bytes.len() / E::SIZE_BYTES
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The entry of that number.
    pub fn get(&self, number: usize) -> Option<E> {
        let start = number * E::SIZE_BYTES;
        self.bytes.get(start..start + E::SIZE_BYTES).map(E::decode)
    }

    /// The last entry.
    pub fn last(&self) -> Option<E> {
        self.len().checked_sub(1).and_then(|number| self.get(number))
    }

    /// The last entry for which `is_at_or_below` holds; it must hold for a prefix of the entries.
    pub fn floor(&self, is_at_or_below: impl Fn(&E) -> bool) -> Option<E> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = E::decode(&self.bytes[middle * E::SIZE_BYTES..(middle + 1) * E::SIZE_BYTES]);
            if is_at_or_below(&entry) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.checked_sub(1).and_then(|number| self.get(number))
    }

    /// Append an entry.
    pub fn push(&mut self, entry: E) {
        entry.encode(&mut self.bytes);
    }

    /// Keep the first `len` entries.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len * E::SIZE_BYTES);
    }

    /// Forget the first `count` entries.
    pub fn drop_front(&mut self, count: usize) {
        self.bytes.drain(..count * E::SIZE_BYTES);
    }

    /// The entries from number `from` on, in file form.
    pub fn bytes_from(&self, from: usize) -> &[u8] {
        self.bytes.get(from * E::SIZE_BYTES..).unwrap_or_default()
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = E> + '_ {
        self.bytes.chunks_exact(E::SIZE_BYTES).map(E::decode)
    }

    /// Memory held, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// The index of an active segment: a flushed part that may have left memory, and the part behind it.
#[derive(Clone, Debug)]
pub struct IndexTail<E> {
    /// Entries no longer in memory; all of them are in the file.
    dropped: usize,
    /// Entries whose write is queued or done.
    flushed: usize,
    /// Entries known to be in the file.
    confirmed: usize,
    last: Option<E>,
    entries: IndexEntries<E>,
}

impl<E> Default for IndexTail<E> {
    fn default() -> Self {
        Self {
            dropped: 0,
            flushed: 0,
            confirmed: 0,
            last: None,
            entries: IndexEntries::default(),
        }
    }
}

/// A position to return to when an append is taken back.
#[derive(Clone, Copy, Debug)]
pub struct IndexMark<E> {
    len: usize,
    last: Option<E>,
}

impl<E: IndexEntry> IndexTail<E> {
    /// Entries that remain in memory after others were dropped: 512 cover 2 MiB of log at the default interval.
    const KEPT_IN_MEMORY: usize = 512;

    /// An index whose first `len` entries are in the file, the last of them being `last`.
    pub fn of_file(len: usize, last: Option<E>) -> Self {
        Self {
            dropped: len,
            flushed: len,
            confirmed: len,
            last,
            entries: IndexEntries::default(),
        }
    }

    /// An index of which nothing is in the file yet.
    pub fn of_memory(entries: IndexEntries<E>) -> Self {
        Self {
            last: entries.last(),
            entries,
            ..Self::default()
        }
    }

    /// Number of entries, in memory or not.
    pub fn len(&self) -> usize {
        self.dropped + self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last entry.
    pub fn last(&self) -> Option<E> {
        self.last
    }

    /// Append an entry.
    pub fn push(&mut self, entry: E) {
        self.entries.push(entry);
        self.last = Some(entry);
    }

    /// Where the index stands now.
    pub fn mark(&self) -> IndexMark<E> {
        IndexMark {
            len: self.len(),
            last: self.last,
        }
    }

    /// Take back what was appended since `mark`, and trust only what is known to be in the file.
    pub fn rewind(&mut self, mark: &IndexMark<E>) {
        self.entries.truncate(mark.len.saturating_sub(self.dropped));
        self.last = mark.last;
        self.confirmed = self.confirmed.min(mark.len);
        self.flushed = self.confirmed;
    }

    /// What was queued and is not known to be in the file may never come there: it is to be queued again.
    pub fn distrust(&mut self) {
        self.flushed = self.confirmed;
    }

    /// The entries that are not known to be in the file, with their position there in bytes.
    pub fn unconfirmed(&self) -> (u64, &[u8]) {
        let position = (self.confirmed * E::SIZE_BYTES) as u64;
        (position, self.entries.bytes_from(self.confirmed - self.dropped))
    }

    /// The entries not yet queued for writing, with their position in the file in bytes; they count as queued from now on.
    pub fn take_unflushed(&mut self) -> Option<(u64, Vec<u8>)> {
        let bytes = self.entries.bytes_from(self.flushed - self.dropped);
        if bytes.is_empty() {
            return None;
        }
        let taken = ((self.flushed * E::SIZE_BYTES) as u64, bytes.to_vec());
        self.flushed = self.len();
        Some(taken)
    }

    /// Whether some entries are neither written nor queued.
    pub fn has_unflushed(&self) -> bool {
        self.flushed < self.len()
    }

    /// The first `len` entries are in the file: memory needs only the newest of them.
    pub fn confirm(&mut self, len: usize) {
        self.confirmed = self.confirmed.max(len.min(self.flushed));
        let droppable = self.confirmed.saturating_sub(self.dropped);
        // Dropping moves what is kept: do it rarely.
        if droppable > 4 * Self::KEPT_IN_MEMORY {
            let count = droppable - Self::KEPT_IN_MEMORY;
            self.entries.drop_front(count);
            self.dropped += count;
        }
    }

    /// Entries queued for writing so far; what to `confirm` once a later write of the same log is known to be done.
    pub fn flushed_len(&self) -> usize {
        self.flushed
    }

    /// Entries that are only in the file.
    pub fn dropped_len(&self) -> usize {
        self.dropped
    }

    /// The entries in memory.
    pub fn in_memory(&self) -> &IndexEntries<E> {
        &self.entries
    }
}
