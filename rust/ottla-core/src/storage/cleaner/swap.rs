//! How a cleaned segment takes the place of those it was made from, so that a crash at any moment leaves one or the other.
//!
//! 1. `.cleaned` files are complete and synced. A crash before the end of the next step removes them at the next start.
//! 2. They are renamed to `.swap`, and the names synced. From here on a start carries the swap to its end (`leftovers`).
//! 3. In memory the new segment replaces the old ones. Readers that hold an old one keep its open file, or look again.
//! 4. The old files are removed, and that is synced: none may come back beside the new segment.
//! 5. The new files get their names.
//!
//! Kafka does the same (`LocalLog.replaceSegments`) without the syncs of names.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::index::IndexEntry;
use super::super::offset_index::OffsetEntry;
use super::super::segment::{Files, Segment, file_name};
use super::super::time_index::TimeEntry;
use super::super::txn_index::AbortedTxnRow;

/// End of the names of files that are being written.
pub(crate) const CLEANED: &str = ".cleaned";
/// End of the names of files that wait to take their place.
pub(crate) const SWAP: &str = ".swap";

/// The log is last: with its name the step from `.cleaned` to `.swap` is done.
const SUFFIXES: [&str; 4] = [OffsetEntry::SUFFIX, TimeEntry::SUFFIX, AbortedTxnRow::SUFFIX, "log"];

/// A complete and durable new segment, under `.cleaned` names.
#[derive(Debug)]
pub(crate) struct CleanedGroup {
    pub dir: Arc<Path>,
    /// That of its first source.
    pub base_offset: i64,
    pub sources: Vec<Arc<Segment>>,
    pub size_bytes: u64,
    pub has_aborted: bool,
    /// Step 4 is done: files of the sources' names are the new ones from now on.
    pub sources_are_removed: bool,
}

fn path(dir: &Path, base_offset: i64, suffix: &str, end: &str) -> PathBuf {
    dir.join(file_name(base_offset, suffix) + end)
}

fn remove(files: &Files, path: &Path) -> io::Result<()> {
    match files.fs.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Remove the files of a segment that have these name ends.
pub(crate) fn remove_files(files: &Files, dir: &Path, base_offset: i64, end: &str) -> io::Result<()> {
    SUFFIXES
        .iter()
        .try_for_each(|suffix| remove(files, &path(dir, base_offset, suffix, end)))
}

impl CleanedGroup {
    /// Step 2. The segment returned reads the `.swap` files.
    pub fn begin(&self, files: &Files) -> io::Result<Arc<Segment>> {
        let mut suffixes = SUFFIXES.to_vec();
        suffixes.retain(|suffix| *suffix != AbortedTxnRow::SUFFIX || self.has_aborted);
        for suffix in &suffixes {
            let from = path(&self.dir, self.base_offset, suffix, CLEANED);
            files
                .fs
                .rename(&from, &path(&self.dir, self.base_offset, suffix, SWAP))?;
        }
        files.fs.sync_dir(&self.dir)?;
        Ok(Segment::new_swap(Arc::clone(&self.dir), self.base_offset, &suffixes))
    }

    /// Take step 2 back: the sources are not what they were. The indexes go first and for sure: alone they would be given
    /// to the old log at the next start.
    pub fn undo(&self, files: &Files) -> io::Result<()> {
        for suffix in &SUFFIXES[..3] {
            remove(files, &path(&self.dir, self.base_offset, suffix, SWAP))?;
        }
        files.fs.sync_dir(&self.dir)?;
        remove(files, &path(&self.dir, self.base_offset, "log", SWAP))?;
        remove_files(files, &self.dir, self.base_offset, CLEANED)
    }

    /// Steps 4 and 5, after step 3. Can be repeated after an error.
    pub fn finish(&mut self, files: &Files, new: &Segment) -> io::Result<()> {
        if !self.sources_are_removed {
            for source in &self.sources {
                // Whoever opens a file of it from now on is told that it is gone.
                source.retire();
                remove_files(files, &self.dir, source.base_offset(), "")?;
                if source.base_offset() != self.base_offset {
                    remove(files, &path(&self.dir, source.base_offset(), "snapshot", ""))?;
                }
            }
            files.fs.sync_dir(&self.dir)?;
            self.sources_are_removed = true;
        }
        new.take_final_names(&*files.fs)?;
        files.fs.sync_dir(&self.dir)
    }
}
