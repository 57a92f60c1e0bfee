//! Producers, transactions and leader epochs of a log that is opened: what the files say, then every batch behind.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use super::{LoadContext, Loader, Tail, reading};
use crate::error::{Error, Result};
use crate::record::batch::{BatchHeader, BatchView};
use crate::storage::epoch_cache::{self, EpochCache};
use crate::storage::fs::OpenMode;
use crate::storage::index::IndexEntry;
use crate::storage::index::{IndexEntries, IndexTail};
use crate::storage::log::{ActiveSegment, ClosedSegment, LogParts, batch_info, end_txn_marker};
use crate::storage::producer_state::{CompletedTxn, ProducerState};
use crate::storage::segment::{Segment, file_name, overwrite, parse_file_name, remove_if_there};
use crate::storage::txn_index::AbortedTxnRow;
use crate::storage::walk::Walk;

impl Loader<'_> {
    /// Producers, transactions and epochs: what the files say, then every batch behind.
    pub(super) fn replay(
        &mut self,
        names: &[String],
        mut closed: Vec<ClosedSegment>,
        tail: Tail,
        log_start_offset: i64,
        checked_from: i64,
    ) -> Result<LogParts> {
        let Tail {
            mut active,
            next_offset,
        } = tail;
        let files = self.context.files;
        let read_epochs = self.read_epochs(names);
        let is_complete = read_epochs.is_some() || next_offset == log_start_offset;
        let mut epochs = read_epochs.unwrap_or_default();
        let read = epochs.clone();
        // Batches below the log start offset count as long as they are in a file: else a producer would be taken to stand
        // where an older snapshot saw it.
        let segments: Vec<(Arc<Segment>, u64)> = closed
            .iter()
            .map(|closed| (Arc::clone(&closed.segment), closed.size_bytes))
            .chain([(Arc::clone(&active.segment), u64::from(active.size_bytes))])
            .collect();
        let first_base = segments[0].0.base_offset();
        let mut snapshot_limit = next_offset.min(checked_from);
        if !is_complete {
            self.report
                .notes
                .push("leader epochs were collected from the whole log".to_owned());
            snapshot_limit = first_base;
        }
        let unsound = self
            .unsound_transaction_indexes(names, &segments, checked_from)
            .map_err(reading)?;
        snapshot_limit = unsound.first().map_or(snapshot_limit, |base| snapshot_limit.min(*base));
        let (mut producers, snapshot) = self
            .read_snapshot(names, &segments, first_base..=snapshot_limit, next_offset)
            .map_err(reading)?;
        epochs.truncate_from_end(next_offset);
        let from = snapshot.unwrap_or(first_base);
        let mut aborted = self.replay_batches(&segments, &active, from..next_offset, &mut producers, |header| {
            let (epoch, offset) = (
                header.partition_leader_epoch(),
                header.base_offset().max(log_start_offset),
            );
            // What the file says holds until a batch contradicts it: an epoch may have begun before the first of these.
            if epochs.epoch_of(offset) != Some(epoch) {
                epochs.assign(epoch, offset);
            }
        })?;
        for (segment, _) in &segments {
            let rows = aborted.remove(&segment.base_offset()).unwrap_or_default();
            if !rows.is_empty()
                && let Some(closed) = closed.iter_mut().find(|closed| Arc::ptr_eq(&closed.segment, segment))
            {
                closed.has_aborted = true;
            }
            let is_active = segment.base_offset() == active.base_offset();
            let base_offset = segment.base_offset();
            let anew = base_offset >= checked_from || unsound.contains(&base_offset);
            self.restore_aborted(segment, &rows, anew, is_active.then_some(&mut active))
                .map_err(reading)?;
        }
        epochs.truncate_from_start(log_start_offset);
        if epochs != read || !is_complete {
            let path = self.context.dir.join(epoch_cache::FILE_NAME);
            overwrite(&*files.fs, &path, epochs.encode().as_bytes()).map_err(Error::storage("writing epochs"))?;
        }
        let last_snapshot = snapshot.filter(|&offset| offset == next_offset);
        active.inner_snapshot =
            snapshot.filter(|&offset| !segments.iter().any(|(segment, _)| segment.base_offset() == offset));
        Ok(LogParts {
            closed,
            active,
            next_offset,
            log_start_offset,
            producers,
            epochs,
            last_snapshot,
        })
    }

    /// Every batch of those offsets: all are shown to `on_batch`, producers take theirs in. Returns the transactions that
    /// were aborted, by segment.
    fn replay_batches(
        &self,
        segments: &[(Arc<Segment>, u64)],
        active: &ActiveSegment,
        offsets: Range<i64>,
        producers: &mut ProducerState,
        mut on_batch: impl FnMut(BatchHeader<'_>),
    ) -> Result<BTreeMap<i64, Vec<CompletedTxn>>> {
        let LoadContext { files, config, .. } = *self.context;
        let mut aborted: BTreeMap<i64, Vec<CompletedTxn>> = BTreeMap::new();
        let first = segments
            .partition_point(|(segment, _)| segment.base_offset() <= offsets.start)
            .saturating_sub(1);
        for (segment, size_bytes) in segments[first..].iter().filter(|(_, size_bytes)| *size_bytes > 0) {
            if offsets.is_empty() {
                break;
            }
            let relative_offset = offsets.start - segment.base_offset();
            let mut position = 0;
            if relative_offset > 0 {
                position = u64::from(if Arc::ptr_eq(segment, &active.segment) {
                    let in_memory = active.offsets.in_memory().position_for(relative_offset);
                    if in_memory > 0 || active.offsets.dropped_len() == 0 {
                        in_memory
                    } else {
                        let flushed = segment.flushed_offset_index(files, active.offsets.dropped_len());
                        flushed.map_err(reading)?.position_for(relative_offset)
                    }
                } else {
                    let index = segment.offset_index(files, *size_bytes, config.index_interval_bytes);
                    index.map_err(reading)?.position_for(relative_offset)
                });
            }
            let file = segment.file(files, false).map_err(reading)?;
            let mut walk = Walk::new(&*file, position, *size_bytes);
            while let Some((position, header)) = walk.next_header().map_err(|error| reading(error.into()))? {
                if header.last_offset() < offsets.start {
                    continue;
                }
                on_batch(header);
                if header.producer_id() < 0 {
                    continue;
                }
                let info = if header.is_control() {
                    let mut bytes = vec![0; header.size_bytes()];
                    file.read_exact_at(&mut bytes, position).map_err(reading)?;
                    let batch = BatchView::parse(&bytes).map_err(|error| reading(io::Error::other(error)))?;
                    batch_info(*batch, end_txn_marker(&batch))
                } else {
                    batch_info(header, None)
                };
                let (completed, _) = producers.apply(&info);
                if let Some(completed) = completed.filter(|completed| completed.aborted) {
                    aborted.entry(segment.base_offset()).or_default().push(completed);
                }
            }
        }
        Ok(aborted)
    }

    /// The segments, by base offset, whose transaction index cannot be right (Kafka: `TransactionIndex.sanityCheck`).
    fn unsound_transaction_indexes(
        &mut self,
        names: &[String],
        segments: &[(Arc<Segment>, u64)],
        checked_from: i64,
    ) -> io::Result<BTreeSet<i64>> {
        let mut unsound = BTreeSet::new();
        for (segment, _) in segments
            .iter()
            .filter(|(segment, _)| segment.base_offset() < checked_from)
        {
            let name = file_name(segment.base_offset(), AbortedTxnRow::SUFFIX);
            if !names.contains(&name) {
                continue;
            }
            // Only of the last segment the last row may be under way.
            let is_last = segments.last().is_some_and(|(last, _)| Arc::ptr_eq(last, segment));
            let size_bytes = self
                .context
                .files
                .fs
                .file_size_bytes(&segment.path(AbortedTxnRow::SUFFIX))?;
            let is_whole = is_last || size_bytes.is_multiple_of(AbortedTxnRow::SIZE_BYTES as u64);
            match segment.aborted_rows(self.context.files) {
                Ok(_) if is_whole => continue,
                Err(error) if error.kind() != io::ErrorKind::InvalidData => return Err(error),
                _ => {}
            }
            self.report.notes.push(format!("{name} is damaged and was made anew"));
            unsound.insert(segment.base_offset());
        }
        Ok(unsound)
    }

    /// Rows of aborted transactions: all are made `anew`, or those that are missing are added.
    fn restore_aborted(
        &self,
        segment: &Arc<Segment>,
        found: &[CompletedTxn],
        anew: bool,
        active: Option<&mut ActiveSegment>,
    ) -> io::Result<()> {
        if found.is_empty() && active.is_none() && !anew {
            return Ok(());
        }
        let files = self.context.files;
        let path = segment.path(AbortedTxnRow::SUFFIX);
        let mut rows = IndexEntries::<AbortedTxnRow>::default();
        let mut in_file = 0;
        if !anew {
            segment.aborted_rows(files)?.into_iter().for_each(|row| rows.push(row));
            in_file = rows.len();
        }
        for txn in found {
            if rows.last().is_none_or(|last| last.last_offset < txn.last_offset) {
                rows.push(AbortedTxnRow {
                    producer_id: txn.producer_id,
                    first_offset: txn.first_offset,
                    last_offset: txn.last_offset,
                    last_stable_offset: txn.last_stable_offset,
                });
            }
        }
        if in_file < rows.len() {
            // Behind the rows that are there: those lie below the snapshot, so that no later start could make them again
            // if it came to a crash while they are written anew.
            let file = files.fs.open(&path, OpenMode::Create)?;
            file.write_all_at(
                &[IoSlice::new(rows.bytes_from(in_file))],
                (in_file * AbortedTxnRow::SIZE_BYTES) as u64,
            )?;
            file.truncate((rows.len() * AbortedTxnRow::SIZE_BYTES) as u64)?;
        } else if rows.is_empty() && anew {
            remove_if_there(&*files.fs, &path)?;
        }
        if let Some(active) = active {
            active.aborted = IndexTail::of_file(rows.len(), rows.last());
        }
        Ok(())
    }

    fn read_epochs(&mut self, names: &[String]) -> Option<EpochCache> {
        if !names.iter().any(|name| name == epoch_cache::FILE_NAME) {
            return None;
        }
        let content = self
            .context
            .files
            .fs
            .read(&self.context.dir.join(epoch_cache::FILE_NAME))
            .ok()?;
        match EpochCache::decode(&String::from_utf8_lossy(&content)) {
            Ok(epochs) => Some(epochs),
            Err(reason) => {
                self.report
                    .notes
                    .push(format!("{} is malformed: {reason}", epoch_cache::FILE_NAME));
                None
            }
        }
    }

    /// The newest good snapshot within `limits`, and its offset. Those above the log's end, bad ones, and those inside
    /// a segment that are not the newest go.
    fn read_snapshot(
        &mut self,
        names: &[String],
        segments: &[(Arc<Segment>, u64)],
        limits: RangeInclusive<i64>,
        next_offset: i64,
    ) -> io::Result<(ProducerState, Option<i64>)> {
        let LoadContext {
            files,
            dir,
            config,
            wall_ms,
            ..
        } = *self.context;
        let mut offsets: Vec<i64> = names
            .iter()
            .filter_map(|name| parse_file_name(name).filter(|(_, suffix)| *suffix == "snapshot"))
            .map(|(offset, _)| offset)
            .collect();
        offsets.sort_unstable();
        let mut newest = None;
        for offset in offsets.into_iter().rev() {
            let path = dir.join(file_name(offset, "snapshot"));
            let is_of_segment = segments.iter().any(|(segment, _)| segment.base_offset() == offset);
            let is_stray = !is_of_segment && newest.is_some();
            if offset > next_offset || is_stray {
                files.fs.remove_file(&path)?;
                self.has_removed = true;
            } else if limits.contains(&offset) && newest.is_none() {
                let content = files.fs.read(&path)?;
                match ProducerState::decode_snapshot(&content, wall_ms, config.producer_id_expiration_ms) {
                    Ok(state) => newest = Some((state, offset)),
                    Err(reason) => {
                        self.report
                            .notes
                            .push(format!("snapshot at {offset} was removed: {reason}"));
                        files.fs.remove_file(&path)?;
                        self.has_removed = true;
                    }
                }
            }
        }
        Ok(newest.map_or_else(Default::default, |(state, offset)| (state, Some(offset))))
    }
}
