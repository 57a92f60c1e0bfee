//! Where each leader epoch starts in the log: `leader-epoch-checkpoint` (Kafka: `LeaderEpochFileCache`).

use std::fmt::Write;

use super::checkpoint::decode_rows;

/// Name of the file, in the partition's directory.
pub const FILE_NAME: &str = "leader-epoch-checkpoint";
const VERSION: &str = "0";

/// A leader epoch and its first offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEntry {
    /// The leader epoch.
    pub epoch: i32,
    /// The first offset written in it.
    pub start_offset: i64,
}

/// The epochs of a log, both epochs and start offsets strictly ascending.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EpochCache {
    entries: Vec<EpochEntry>,
}

impl EpochCache {
    /// Read the file's text.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn decode(text: &str) -> Result<Self, String> {
        let mut cache = Self::default();
        for row in decode_rows(text, VERSION)? {
            let entry = row
                .split_once(' ')
                .and_then(|(epoch, offset)| {
                    Some(EpochEntry {
                        epoch: epoch.parse().ok()?,
                        start_offset: offset.trim().parse().ok()?,
                    })
                })
                .ok_or_else(|| format!("row {row:?}, expected `epoch start_offset`"))?;
            if !cache.assign(entry.epoch, entry.start_offset) {
                return Err(format!("row {row:?} does not ascend"));
            }
        }
        Ok(cache)
    }

    /// The file's text.
    pub fn encode(&self) -> String {
        let mut text = format!("{VERSION}\n{}\n", self.entries.len());
        for entry in &self.entries {
            writeln!(text, "{} {}", entry.epoch, entry.start_offset).expect("writes to memory");
        }
        text
    }

    /// A batch of `epoch` at `start_offset` was appended; whether that began a new epoch. Later entries that it
    /// contradicts are dropped, as after a truncation.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        if epoch < 0 {
            return false;
        }
        if self
            .entries
            .last()
            .is_some_and(|last| last.epoch == epoch && last.start_offset <= start_offset)
        {
            return false;
        }
        while self
            .entries
            .last()
            .is_some_and(|last| last.epoch >= epoch || last.start_offset >= start_offset)
        {
            self.entries.pop();
        }
        self.entries.push(EpochEntry { epoch, start_offset });
        true
    }

    /// The epochs in order.
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// The newest epoch.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// The epoch that an offset of the log belongs to.
    pub fn epoch_of(&self, offset: i64) -> Option<i32> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        after.checked_sub(1).map(|number| self.entries[number].epoch)
    }

    /// The greatest epoch at or below the one asked for, and where it ended (KIP-320). `None`: nothing is known.
    ///
    /// The newest epoch ends at the log's end; an epoch older than all known ends where the first known starts; one newer
    /// than all known is unknown.
    pub fn end_offset_for(&self, epoch: i32, log_end_offset: i64) -> Option<(i32, i64)> {
        if epoch == -1 {
            return None;
        }
        let last = self.entries.last()?;
        if epoch == last.epoch {
            return Some((epoch, log_end_offset));
        }
        if epoch > last.epoch {
            return None;
        }
        let after = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let end_offset = self.entries[after].start_offset;
        Some(match after.checked_sub(1) {
            None => (epoch, end_offset),
            Some(floor) => (self.entries[floor].epoch, end_offset),
        })
    }

    /// Forget epochs that begin at or after `end_offset`; whether there were any.
    pub fn truncate_from_end(&mut self, end_offset: i64) -> bool {
        let len = self.entries.len();
        self.entries.retain(|entry| entry.start_offset < end_offset);
        self.entries.len() != len
    }

    /// Forget epochs that ended at or before `start_offset`; the one that contains it starts there from now on.
    pub fn truncate_from_start(&mut self, start_offset: i64) -> bool {
        let after = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        let Some(floor) = after.checked_sub(1) else {
            return false;
        };
        let changed = floor > 0 || self.entries[0].start_offset != start_offset;
        self.entries.drain(..floor);
        self.entries[0].start_offset = start_offset;
        changed
    }
}
