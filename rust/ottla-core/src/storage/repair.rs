//! Changes to the files of a log that nobody serves at the moment: cutting it, and writing again what was not synced.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use super::fs::OpenMode;
use super::index::{IndexEntries, IndexEntry};
use super::offset_index::OffsetEntry;
use super::segment::{Files, Segment, find_offset, parse_file_name, remove_if_there, write_whole};
use super::time_index::TimeEntry;
use super::txn_index::AbortedTxnRow;
use super::walk::Reach;
use crate::error::{Error, Result};

const COPY_BYTES: usize = 1 << 20;

/// Base offsets of the segments in a directory, ascending.
fn base_offsets(files: &Files, dir: &Path) -> io::Result<Vec<i64>> {
    let mut found: Vec<i64> = files
        .fs
        .read_dir(dir)?
        .iter()
        .filter_map(|entry| parse_file_name(&entry.name).filter(|(_, suffix)| *suffix == "log"))
        .map(|(base_offset, _)| base_offset)
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// Write everything above the recovery point once more and sync it. After a failed sync the system counts pages as clean
/// that never reached the disk; only writing them makes a sync mean something again.
///
/// # Errors
/// `Storage`.
pub(crate) fn rewrite_unsynced(files: &Files, dir: &Path, recovery_point: i64) -> Result<()> {
    let rewrite = || {
        let bases = base_offsets(files, dir)?;
        let first = bases.partition_point(|base| *base <= recovery_point).saturating_sub(1);
        let mut buffer = vec![0; COPY_BYTES];
        for base_offset in &bases[first..] {
            let segment = Segment::new(dir.into(), *base_offset);
            let file = files.fs.open(&segment.path("log"), OpenMode::ReadWrite)?;
            let mut position = 0;
            loop {
                let read = file.read_at(&mut buffer, position)?;
                if read == 0 {
                    break;
                }
                file.write_all_at(&[IoSlice::new(&buffer[..read])], position)?;
                position += read as u64;
            }
            file.sync_data()?;
        }
        Ok(())
    };
    rewrite().map_err(Error::storage("writing again what was not synced"))
}

/// Cut a log so that it ends at `offset` or at the start of the batch that contains it. The segment in which that lies
/// stays, even if empty: its name says where the log ends.
///
/// # Errors
/// `Storage`.
pub(crate) fn cut_at(files: &Files, dir: &Arc<Path>, offset: i64) -> Result<()> {
    let cut = || {
        let bases = base_offsets(files, dir)?;
        let kept = bases.partition_point(|base| *base <= offset).max(1);
        // From the end, so that a crash in between leaves a log without a hole.
        for base_offset in bases.iter().skip(kept).rev() {
            let segment = Segment::new(Arc::clone(dir), *base_offset);
            for suffix in [
                "log",
                OffsetEntry::SUFFIX,
                TimeEntry::SUFFIX,
                AbortedTxnRow::SUFFIX,
                "snapshot",
            ] {
                remove_if_there(&*files.fs, &segment.path(suffix))?;
            }
        }
        let Some(base_offset) = bases.get(kept - 1) else {
            return Ok(());
        };
        let segment = Segment::new(Arc::clone(dir), *base_offset);
        let file = files.fs.open(&segment.path("log"), OpenMode::ReadWrite)?;
        let size_bytes = file.size_bytes()?;
        let relative_offset = offset - base_offset;
        cut_index::<OffsetEntry>(files, &segment, |entry| {
            i64::from(entry.relative_offset) < relative_offset
        })?;
        cut_index::<TimeEntry>(files, &segment, |entry| {
            i64::from(entry.relative_offset) < relative_offset
        })?;
        cut_index::<AbortedTxnRow>(files, &segment, |row| row.last_offset < offset)?;
        let index = read_index::<OffsetEntry>(files, &segment)?.unwrap_or_default();
        let from = u64::from(index.position_for(relative_offset));
        if let Some(position) = find_offset(Reach::Disk, &*file, from, size_bytes, offset)? {
            file.truncate(position)?;
        }
        // What comes back would be taken for a continuation of what is written from now on.
        file.sync_data()?;
        files.fs.sync_dir(dir)
    };
    cut().map_err(Error::storage("cutting a log"))
}

fn read_index<E: IndexEntry>(files: &Files, segment: &Segment) -> io::Result<Option<IndexEntries<E>>> {
    match files.fs.read(&segment.path(E::SUFFIX)) {
        Ok(mut bytes) => {
            bytes.truncate(bytes.len() / E::SIZE_BYTES * E::SIZE_BYTES);
            Ok(IndexEntries::from_bytes(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn cut_index<E: IndexEntry>(files: &Files, segment: &Segment, is_kept: impl Fn(&E) -> bool) -> io::Result<()> {
    let Some(mut entries) = read_index::<E>(files, segment)? else {
        return Ok(());
    };
    let kept = entries.iter().take_while(is_kept).count();
    entries.truncate(kept);
    write_whole(&*files.fs, &segment.path(E::SUFFIX), entries.bytes_from(0))
}
