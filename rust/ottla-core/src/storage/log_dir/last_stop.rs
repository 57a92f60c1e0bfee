//! How the last run of a log directory ended, and so what a start must check.
//!
//! `.kafka_cleanshutdown` (removed at start): nothing. The same boot of the machine: every completed write is there, only
//! the unwritten tail of each log can be torn. Another boot: only what was synced is sure, and each log is checked from its
//! recovery point on.

use std::collections::BTreeSet;
use std::path::Path;

use super::{LogDir, parse_dir_name};
use crate::error::{Error, Result};
use crate::storage::cache::lock;
use crate::storage::fs::LogFs;
use crate::types::TopicPartition;

/// Left by a stop in order.
pub(super) const CLEAN_SHUTDOWN_FILE: &str = ".kafka_cleanshutdown";
/// The boot of the machine in which every log of the directory was last known to be whole, and on further lines those that
/// were not: they could not be opened.
pub(super) const BOOT_ID_FILE: &str = ".boot-id";

/// How the last run ended, and so what a start must check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LastStop {
    /// In order, in this boot of the machine: nothing needs a look.
    Clean,
    /// In order, before the machine restarted: what was not synced may be missing all the same.
    CleanEarlierBoot,
    /// The process died: completed writes are all there.
    ProcessDied,
    /// The machine stopped: only what was synced is sure.
    PowerFailed,
}

impl LogDir {
    /// How it ended as far as a partition is concerned: one that could not be opened since the machine started is looked at
    /// in full, however often the process stops meanwhile.
    pub(crate) fn last_stop_of(&self, topic_partition: &TopicPartition) -> LastStop {
        if self.suspect.contains(topic_partition) {
            LastStop::PowerFailed
        } else {
            self.last_stop
        }
    }

    /// Whether the last stop was clean (nothing needs a scan).
    pub fn was_clean(&self) -> bool {
        self.last_stop == LastStop::Clean
    }

    /// A partition was opened (and recovered) or is gone.
    pub(crate) fn note_opened(&self, topic_partition: &TopicPartition) -> Result<()> {
        let has_changed = {
            let mut state = lock(&self.state);
            let was_refused = state.refused.remove(topic_partition);
            state.unopened.remove(topic_partition) || was_refused
        };
        if has_changed { self.note_whole() } else { Ok(()) }
    }

    /// A partition is damaged or could not be read: the others need not be looked at again for its sake.
    pub(crate) fn note_refused(&self, topic_partition: &TopicPartition) -> Result<()> {
        let has_changed = {
            let mut state = lock(&self.state);
            state.unopened.remove(topic_partition);
            state.refused.insert(topic_partition.clone())
        };
        if has_changed { self.note_whole() } else { Ok(()) }
    }

    /// Once no partition is left that might be torn, note the boot of the machine: if only the process dies from now on,
    /// only the tails need a look. Those that could not be opened are named with it.
    pub(super) fn note_whole(&self) -> Result<()> {
        let _replacing = lock(&self.replacing);
        let fs = &self.files.fs;
        let mut noted = fs.boot_id().map_err(Error::storage("reading the boot id"))?;
        {
            let state = lock(&self.state);
            if !state.unopened.is_empty() {
                return Ok(());
            }
            for topic_partition in &state.refused {
                noted.push('\n');
                noted.push_str(&topic_partition.to_string());
            }
        }
        fs.replace(&self.path.join(BOOT_ID_FILE), noted.as_bytes(), false)
            .map_err(Error::storage("writing the boot id"))
    }
}

/// Read how the last run ended, and which partitions it could not open, and remove the marker: it speaks of this start
/// only.
pub(super) fn take_last_stop(fs: &dyn LogFs, path: &Path) -> Result<(LastStop, BTreeSet<TopicPartition>)> {
    let storage = Error::storage;
    let marker = path.join(CLEAN_SHUTDOWN_FILE);
    let is_clean = match fs.remove_file(&marker) {
        Ok(()) => {
            // Else a power failure could bring it back.
            fs.sync_dir(path)
                .map_err(storage("removing the clean-shutdown marker"))?;
            true
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(storage("removing the clean-shutdown marker")(error)),
    };
    let boot_id = fs.boot_id().map_err(storage("reading the boot id"))?;
    // Unreadable or half-written counts as another boot: that only costs a longer look.
    let noted = fs.read(&path.join(BOOT_ID_FILE)).unwrap_or_default();
    let noted = String::from_utf8_lossy(&noted);
    let mut lines = noted.lines();
    let is_same_boot = lines.next() == Some(&boot_id);
    let suspect = lines.filter_map(parse_dir_name).filter(|_| is_same_boot).collect();
    let last_stop = match (is_clean, is_same_boot) {
        (true, true) => LastStop::Clean,
        (true, false) => LastStop::CleanEarlierBoot,
        (false, true) => LastStop::ProcessDied,
        (false, false) => LastStop::PowerFailed,
    };
    Ok((last_stop, suspect))
}
