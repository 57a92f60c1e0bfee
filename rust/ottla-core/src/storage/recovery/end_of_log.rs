//! Finding the end of the last segment.

use std::io;
use std::sync::Arc;

use super::LoadContext;
use super::{Loader, Tail, reading};
use crate::error::Result;
use crate::record::batch::{BATCH_OVERHEAD, BatchHeader};
use crate::storage::fs::{LogFile, OpenMode};
use crate::storage::index::{IndexEntry, IndexTail};
use crate::storage::log::ActiveSegment;
use crate::storage::offset_index::OffsetEntry;
use crate::storage::segment::{Files, IndexBuilder, Segment};
use crate::storage::time_index::TimeEntry;
use crate::storage::walk::{Walk, WalkError};

impl Loader<'_> {
    /// Find the end of the last segment from its last index entry on: headers only, or (`check`) whole batches.
    /// `None` if headers alone do not lead to the end of the file.
    pub(super) fn open_last(&mut self, segments: &[(Arc<Segment>, u64)], check: bool) -> Result<Option<Tail>> {
        let LoadContext { files, config, .. } = *self.context;
        let Some((segment, size_bytes)) = segments.last().cloned() else {
            return Ok(None);
        };
        let base_offset = segment.base_offset();
        let mut active = ActiveSegment::new(Arc::clone(&segment), self.context.wall_ms);
        if size_bytes == 0 {
            return Ok(Some(Tail {
                active,
                next_offset: base_offset,
            }));
        }
        let file = segment.file(files, false).map_err(reading)?;
        let first = match Walk::new(&*file, 0, size_bytes).next_header() {
            Ok(Some((_, header))) => Some(header.max_timestamp()),
            Ok(None) => None,
            Err(WalkError::Bad { .. }) if check => None,
            Err(WalkError::Bad { .. }) => return Ok(None),
            Err(WalkError::Io(error)) => return Err(reading(error)),
        };
        let offsets = last_entry::<OffsetEntry>(files, &segment).map_err(reading)?;
        let times = last_entry::<TimeEntry>(files, &segment).map_err(reading)?;
        let (mut start, mut start_offset, mut from_scratch) = (0, base_offset, false);
        match offsets {
            // An entry that does not point at the batch it names cannot be trusted, nor can those before it.
            Some((count, Some(entry))) => {
                match batch_of_entry(&*file, size_bytes, base_offset, entry, check).map_err(reading)? {
                    Some(batch_offset) => {
                        (start, start_offset) = (entry.position, batch_offset);
                        active.offsets = IndexTail::of_file(count, Some(entry));
                    }
                    None => from_scratch = true,
                }
            }
            Some((_, None)) => {}
            // A small segment has none until it is closed. One without the other is a leftover.
            None => from_scratch = times.is_some(),
        }
        if let Some((count, Some(entry))) = times.filter(|_| !from_scratch) {
            active.times = IndexTail::of_file(count, Some(entry));
            active.max_timestamp = segment.max_timestamp_of(entry);
        }
        let mut builder = IndexBuilder::new(base_offset, config.index_interval_bytes);
        builder.continue_from(active.times.last(), active.max_timestamp);
        let (end, next_offset) = if check {
            let end = self.check(&segment, size_bytes, u64::from(start), start_offset, &mut builder)?;
            (end, builder.next_offset.unwrap_or(base_offset))
        } else {
            let mut walk = Walk::new(&*file, u64::from(start), size_bytes);
            loop {
                match walk.next_header() {
                    Ok(Some((position, header))) => builder.add(position as u32, header),
                    Ok(None) => break (size_bytes, builder.next_offset.unwrap_or(base_offset)),
                    Err(WalkError::Bad { .. }) => return Ok(None),
                    Err(WalkError::Io(error)) => return Err(reading(error)),
                }
            }
        };
        active.size_bytes = end as u32;
        active.first_timestamp = if end == 0 {
            None
        } else {
            first.or(builder.first_timestamp)
        };
        active.max_timestamp = builder.max_timestamp;
        active.bytes_since_entry = builder.bytes_since_entry;
        if from_scratch {
            let indexes = builder.indexes;
            indexes.write(&*files.fs, &segment).map_err(reading)?;
            active.offsets = IndexTail::of_file(indexes.offsets.len(), indexes.offsets.last());
            active.times = IndexTail::of_file(indexes.times.len(), indexes.times.last());
        } else {
            builder
                .indexes
                .offsets
                .iter()
                .for_each(|entry| active.offsets.push(entry));
            builder.indexes.times.iter().for_each(|entry| active.times.push(entry));
        }
        active.index_flushed_at = start;
        active.snapshot_at = start;
        Ok(Some(Tail { active, next_offset }))
    }
}

/// Number of whole entries in an index file and the last one; `None` if there is no such file.
fn last_entry<E: IndexEntry>(files: &Files, segment: &Segment) -> io::Result<Option<(usize, Option<E>)>> {
    let file = match files.fs.open(&segment.path(E::SUFFIX), OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let count = file.size_bytes()? as usize / E::SIZE_BYTES;
    let Some(last) = count.checked_sub(1) else {
        return Ok(Some((0, None)));
    };
    let mut bytes = vec![0; E::SIZE_BYTES];
    file.read_exact_at(&mut bytes, (last * E::SIZE_BYTES) as u64)?;
    Ok(Some((count, Some(E::decode(&bytes)))))
}

/// Base offset of the batch that an entry of the offset index names, if there is such a batch (with `check`: a whole one).
fn batch_of_entry(
    file: &dyn LogFile,
    size_bytes: u64,
    base_offset: i64,
    entry: OffsetEntry,
    check: bool,
) -> io::Result<Option<i64>> {
    let position = u64::from(entry.position);
    if position == 0 || position + BATCH_OVERHEAD as u64 > size_bytes {
        return Ok(None);
    }
    let last_offset = base_offset + i64::from(entry.relative_offset);
    let offsets_of = |header: BatchHeader<'_>| (header.base_offset(), header.last_offset());
    let mut walk = Walk::new(file, position, size_bytes);
    let found = if check {
        walk.next_batch()
            .map(|batch| batch.map(|(_, batch)| offsets_of(*batch)))
    } else {
        walk.next_header()
            .map(|header| header.map(|(_, header)| offsets_of(header)))
    };
    match found {
        Ok(found) => Ok(found.filter(|(_, last)| *last == last_offset).map(|(base, _)| base)),
        Err(WalkError::Bad { .. }) => Ok(None),
        Err(WalkError::Io(error)) => Err(error),
    }
}
