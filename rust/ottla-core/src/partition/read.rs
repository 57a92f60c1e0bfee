//! Reading: which part of which file holds the records from an offset on.
//!
//! Under the lock a plan is made from what is in memory; the files (an index, a few headers) are read without it. A reader
//! at the end of the log is served from memory alone, apart from the file that its records are in.

use std::io;
use std::sync::Arc;

use super::{AbortedTxn, EpochEndOffset, FileSlice, Partition, ReadResult, State};
use crate::error::{Error, Result};
use crate::storage::cache::lock;
use crate::storage::fs::LogFile;
use crate::storage::index::IndexTail;
use crate::storage::log::Log;
use crate::storage::segment::{Files, Segment, find_offset};
use crate::storage::txn_index::AbortedTxnRow;
use crate::storage::walk::{BadBatch, Reach, Walk, WalkError};
use crate::types::Isolation;

/// A segment may be removed between plan and reading; then the plan is made anew.
pub(super) const ATTEMPTS_MAX: usize = 8;

/// Where in a segment's file something is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// There.
    At(u64),
    /// At or behind that position.
    From(u64),
    /// The index file must tell.
    InIndex,
}

/// What a read needs to know of the partition.
struct Plan {
    segment: Arc<Segment>,
    start: Place,
    size_bytes: u64,
    /// Bytes of the segment that may be looked at.
    bound: u64,
    /// The first offset that may not be seen, if it lies inside this segment at a place that is not known.
    limit: Option<i64>,
    /// A batch starts there, at or before the wanted end.
    trim: Option<u64>,
    /// Where to go on if the segment holds nothing at or above the offset.
    next_base_offset: Option<i64>,
    /// Of a segment whose index is not all in its file: how many entries surely are.
    in_file: Option<usize>,
    index_interval_bytes: u32,
    aborted: Option<AbortedPlan>,
    head: ReadResult,
}

/// Where rows of aborted transactions are that may concern a read: in files, and in memory.
struct AbortedPlan {
    segments: Vec<Arc<Segment>>,
    rows: Vec<AbortedTxnRow>,
    /// What the read may see ends there.
    end_offset: i64,
}

impl AbortedPlan {
    /// From that segment on, of what ends at `offset` or behind it: a transaction of its records may end in any later one.
    fn from(log: &Log, number: usize, offset: i64, end_offset: i64) -> Self {
        let (mut segments, mut rows) = (Vec::new(), Vec::new());
        let mut in_memory = |segment: &Arc<Segment>, aborted: &IndexTail<AbortedTxnRow>| {
            let kept = aborted.in_memory();
            // Rows stand in the order in which their transactions ended.
            let is_past_dropped = kept.get(0).is_some_and(|first| first.last_offset <= offset);
            if aborted.dropped_len() > 0 && !is_past_dropped {
                segments.push(Arc::clone(segment));
            }
            rows.extend(kept.iter().filter(|row| row.last_offset >= offset));
        };
        let mut in_files = Vec::new();
        for closed in &log.closed[number..] {
            match &closed.unsettled {
                Some(unsettled) => in_memory(&closed.segment, &unsettled.aborted),
                None if closed.has_aborted => in_files.push(Arc::clone(&closed.segment)),
                None => {}
            }
        }
        in_memory(&log.active.segment, &log.active.aborted);
        in_files.append(&mut segments);
        Self {
            segments: in_files,
            rows,
            end_offset,
        }
    }

    fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.rows.is_empty()
    }

    /// Aborted transactions that overlap `offset..end_offset`, by first offset (Kafka: `TransactionIndex.collectAbortedTxns`).
    ///
    /// Those behind what was read are left out: a reader that is far behind would be told of all that ever were.
    fn collect(&self, reach: Reach, files: &Files, offset: i64, end_offset: i64) -> io::Result<Vec<AbortedTxn>> {
        let mut found = Vec::new();
        // Whether nothing later can overlap.
        let mut take = |row: &AbortedTxnRow| {
            if row.last_offset >= offset && row.first_offset < end_offset {
                found.push(AbortedTxn {
                    producer_id: row.producer_id,
                    first_offset: row.first_offset,
                });
            }
            row.last_stable_offset >= end_offset
        };
        let mut is_complete = false;
        for segment in &self.segments {
            if is_complete {
                break;
            }
            if reach == Reach::Memory {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            is_complete = segment.aborted_rows(files)?.iter().any(&mut take);
        }
        if !is_complete {
            // Every row: those of the active segment are in memory.
            let _ = self.rows.iter().any(&mut take);
        }
        found.sort_unstable_by_key(|txn| (txn.first_offset, txn.producer_id));
        found.dedup();
        Ok(found)
    }
}

/// What to do about an offset.
enum Planned {
    Nothing(ReadResult),
    Read(Box<Plan>),
}

impl Partition {
    /// Records from `offset` on, visible under `isolation`, at most `max_bytes` (soft with `min_one`: the first batch comes
    /// whole even if larger, KIP-74). QUICK when the index and the position are in memory, else a few small file reads.
    ///
    /// `current_leader_epoch`, `last_fetched_epoch`: -1 for none.
    ///
    /// # Errors
    /// `OffsetOutOfRange`, `FencedLeaderEpoch`, `UnknownLeaderEpoch`, `NotLeader`, `LogOffline`, `CorruptBatch`, `Storage`.
    pub fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        isolation: Isolation,
        min_one: bool,
        current_leader_epoch: i32,
        last_fetched_epoch: i32,
    ) -> Result<ReadResult> {
        let limits = (max_bytes, isolation, min_one);
        self.read_within(Reach::Disk, offset, limits, current_leader_epoch, last_fetched_epoch)
    }

    /// As `read`, as far as that needs no disk; `None` where it does. QUICK.
    ///
    /// # Errors
    /// As `read`.
    pub fn read_in_memory(
        &self,
        offset: i64,
        max_bytes: usize,
        isolation: Isolation,
        min_one: bool,
        current_leader_epoch: i32,
        last_fetched_epoch: i32,
    ) -> Result<Option<ReadResult>> {
        let limits = (max_bytes, isolation, min_one);
        match self.read_within(Reach::Memory, offset, limits, current_leader_epoch, last_fetched_epoch) {
            Err(Error::Storage { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => Ok(None),
            read => read.map(Some),
        }
    }

    fn read_within(
        &self,
        reach: Reach,
        offset: i64,
        (max_bytes, isolation, min_one): (usize, Isolation, bool),
        current_leader_epoch: i32,
        last_fetched_epoch: i32,
    ) -> Result<ReadResult> {
        let mut from = offset;
        for attempt in 1.. {
            let planned = {
                let state = lock(&self.state);
                self.check_online(&state)?;
                self.check_leader(&state, current_leader_epoch)?;
                let plan_trim = max_bytes;
                self.plan(&state, offset, from, plan_trim, isolation, last_fetched_epoch)?
            };
            let plan = match planned {
                Planned::Nothing(result) => return Ok(result),
                Planned::Read(plan) => *plan,
            };
            let (next_base_offset, segment) = (plan.next_base_offset, Arc::clone(&plan.segment));
            match self.carry_out(reach, plan, from, max_bytes, min_one) {
                Ok(Ok(result)) => return Ok(result),
                // Nothing is left at the end of this segment.
                Ok(Err(head)) => match next_base_offset {
                    Some(next) => {
                        self.tell_of_gap(from, next);
                        from = next;
                    }
                    None => return Ok(head),
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS_MAX => {}
                Err(source) => return Err(self.read_error(&segment, "reading records", source)),
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// Records between segments go missing only where a log is compacted. It is told of once a place.
    fn tell_of_gap(&self, from: i64, next_base_offset: i64) {
        let mut state = lock(&self.state);
        let place = (next_base_offset, 0);
        if !state.log.config.cleanup_policy.compact && state.told_damage.replace(place) != Some(place) {
            let (topic_partition, last) = (&self.topic_partition, next_base_offset - 1);
            self.dir.complain(&format!(
                "no segment of {topic_partition} holds the offsets {from} to {last}"
            ));
        }
    }

    /// What a failed look into a segment is called. Bytes that are no batch are damage: a client that waited for them to
    /// get better would wait for ever. It is told of once a place.
    pub(super) fn read_error(&self, segment: &Segment, doing: &'static str, source: io::Error) -> Error {
        let Some(bad) = source.get_ref().and_then(|cause| cause.downcast_ref::<BadBatch>()) else {
            return Error::Storage { doing, source };
        };
        let (base_offset, position) = (segment.base_offset(), bad.position);
        let error = Error::CorruptBatch {
            file: format!("{}/{base_offset:020}.log", self.topic_partition),
            position,
            reason: bad.error.to_string(),
        };
        if lock(&self.state).told_damage.replace((base_offset, position)) != Some((base_offset, position)) {
            self.dir.complain(&error.to_string());
        }
        error
    }

    fn plan(
        &self,
        state: &State,
        offset: i64,
        from: i64,
        max_bytes: usize,
        isolation: Isolation,
        last_fetched_epoch: i32,
    ) -> Result<Planned> {
        let log = &state.log;
        let (log_start_offset, log_end_offset) = (log.log_start_offset, log.next_offset);
        let last_stable_offset = state.last_stable_offset();
        let mut head = ReadResult {
            slices: Vec::new(),
            high_watermark: state.high_watermark.offset,
            last_stable_offset,
            log_start_offset,
            aborted: (isolation == Isolation::ReadCommitted).then(Vec::new),
            diverging: None,
            from_older_segment: false,
        };
        let out_of_range = || Error::OffsetOutOfRange {
            topic_partition: self.topic_partition.clone(),
            offset,
            log_start_offset,
            log_end_offset,
        };
        if last_fetched_epoch >= 0 {
            // An unknown epoch leaves the reader no way to tell where it stands; below the start nothing can be compared.
            let (epoch, end_offset) = log
                .epochs
                .end_offset_for(last_fetched_epoch, log_end_offset)
                .ok_or_else(out_of_range)?;
            if offset < log_start_offset {
                return Err(out_of_range());
            }
            if epoch < last_fetched_epoch || end_offset < offset {
                head.diverging = Some(EpochEndOffset {
                    leader_epoch: epoch,
                    end_offset,
                });
                return Ok(Planned::Nothing(head));
            }
        }
        if offset < log_start_offset || offset > log_end_offset {
            return Err(out_of_range());
        }
        let limit = state.visible_end(isolation);
        if from >= limit {
            return Ok(Planned::Nothing(head));
        }
        let number = log.segment_number(from);
        let end_is_known = limit == state.high_watermark.offset;
        let end = state.high_watermark;
        let (segment, size_bytes, next_base_offset) = match log.closed.get(number) {
            Some(closed) => {
                let next = log
                    .closed
                    .get(number + 1)
                    .map_or(&log.active.segment, |next| &next.segment);
                (&closed.segment, closed.size_bytes, Some(next.base_offset()))
            }
            None => (&log.active.segment, u64::from(log.active.size_bytes), None),
        };
        let base_offset = segment.base_offset();
        // Behind the high watermark the file may still be being written.
        let bound = if base_offset == end.segment {
            end.position
        } else {
            size_bytes
        };
        let limit_is_here = next_base_offset.is_none_or(|next| limit < next);
        let start = if from <= base_offset {
            Place::At(0)
        } else {
            place_of(state, number, from)
        };
        let indexes = log.memory_indexes(number);
        let trim = match (start, indexes) {
            (Place::At(position) | Place::From(position), Some((offsets, _))) => offsets
                .in_memory()
                .floor_position(position.saturating_add(max_bytes as u64) as u32),
            _ => None,
        };
        head.from_older_segment = number < log.closed.len() && !limit_is_here;
        let aborted = (isolation == Isolation::ReadCommitted).then(|| AbortedPlan::from(log, number, offset, limit));
        Ok(Planned::Read(Box::new(Plan {
            segment: Arc::clone(segment),
            start,
            size_bytes,
            bound,
            limit: (limit_is_here && !end_is_known).then_some(limit),
            trim: trim.map(u64::from),
            next_base_offset: next_base_offset.filter(|next| *next < limit),
            in_file: indexes.map(|(offsets, _)| offsets.dropped_len()),
            index_interval_bytes: log.config.index_interval_bytes,
            aborted,
            head,
        })))
    }

    /// Read what the plan says; `Ok(Err(..))` if the segment holds nothing at or above the offset.
    fn carry_out(
        &self,
        reach: Reach,
        plan: Plan,
        offset: i64,
        max_bytes: usize,
        min_one: bool,
    ) -> io::Result<std::result::Result<ReadResult, ReadResult>> {
        let files = &self.dir.files;
        let Plan {
            segment,
            size_bytes,
            bound,
            mut head,
            ..
        } = plan;
        let file = match reach {
            Reach::Memory => segment.open_file().ok_or(io::ErrorKind::WouldBlock)?,
            Reach::Disk => segment.file(files, false)?,
        };
        let index = || match plan.in_file {
            _ if reach == Reach::Memory => segment
                .loaded_offset_index()
                .ok_or_else(|| io::ErrorKind::WouldBlock.into()),
            None => segment.offset_index(files, size_bytes, plan.index_interval_bytes),
            Some(entries) => segment.flushed_offset_index(files, entries),
        };
        let found = match plan.start {
            // The first batch of a segment is named by the file and nothing else: it is looked at.
            Place::At(0) => Walk::within(reach, &*file, 0, bound).next_header()?.map(|_| 0),
            Place::At(position) => Some(position).filter(|position| *position < bound),
            Place::From(position) => find_offset(reach, &*file, position, bound, offset)?,
            Place::InIndex => {
                let relative_offset = offset - segment.base_offset();
                let position = index()?.position_for(relative_offset);
                find_offset(reach, &*file, u64::from(position), bound, offset)?
            }
        };
        let Some(start) = found else { return Ok(Err(head)) };
        let end = match plan.limit {
            None => bound,
            Some(limit) => find_offset(reach, &*file, start, bound, limit)?.unwrap_or(bound),
        };
        let mut len = end - start;
        if len > max_bytes as u64 {
            let trim = match plan.trim {
                None if plan.in_file.is_none() => index()?
                    .floor_position((start + max_bytes as u64) as u32)
                    .map(u64::from),
                trim => trim,
            };
            len = match trim {
                // Whole batches: what a client could not use need not be sent.
                Some(trim) if trim > start && trim - start <= max_bytes as u64 => trim - start,
                _ => first_batches(reach, &*file, start, end, max_bytes, min_one)?,
            };
        }
        if len > 0 {
            head.slices.push(FileSlice {
                file,
                position: start,
                len: len as usize,
                readers: Arc::clone(self.dir.readers()),
            });
        }
        if let Some(aborted) = plan.aborted {
            let end_offset = match head.slices.first() {
                Some(slice) if !aborted.is_empty() && start + len < end => {
                    base_offset_at(reach, &*slice.file, start + len, bound)?.unwrap_or(aborted.end_offset)
                }
                _ => plan.next_base_offset.unwrap_or(aborted.end_offset),
            };
            head.aborted = Some(aborted.collect(reach, files, offset, end_offset)?);
        }
        Ok(Ok(head))
    }

    /// About how many bytes a read from `offset` could return, for `min_bytes`. QUICK, never reads files.
    pub fn bytes_available(&self, offset: i64, isolation: Isolation) -> u64 {
        let state = lock(&self.state);
        let limit = state.visible_end(isolation);
        let log = &state.log;
        if offset >= limit || offset < log.log_start_offset {
            return 0;
        }
        let (first, last) = (log.segment_number(offset), log.segment_number(limit));
        let position_in = |number: usize, offset: i64| match place_of(&state, number, offset) {
            Place::At(position) | Place::From(position) => position,
            // Not known without reading: take the middle of the segment.
            Place::InIndex => log.closed.get(number).map_or(0, |closed| closed.size_bytes / 2),
        };
        let end = if limit == state.high_watermark.offset && state.high_watermark.segment == segment_base(&state, last)
        {
            state.high_watermark.position
        } else {
            position_in(last, limit)
        };
        let between: u64 = log
            .closed
            .get(first..last)
            .unwrap_or_default()
            .iter()
            .map(|closed| closed.size_bytes)
            .sum();
        // Something is visible, so it is at least one.
        (between + end).saturating_sub(position_in(first, offset)).max(1)
    }
}

/// How many bytes of whole batches fit; with `min_one` at least the first.
fn first_batches(
    reach: Reach,
    file: &dyn LogFile,
    start: u64,
    end: u64,
    max_bytes: usize,
    min_one: bool,
) -> std::result::Result<u64, WalkError> {
    let mut walk = Walk::within(reach, file, start, end);
    let mut len = 0;
    loop {
        match walk.next_header() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            // What is whole before damage is served; a reader that comes to the damage is told.
            Err(WalkError::Bad { .. }) if len > 0 => break,
            Err(error) => return Err(error),
        }
        let with_this = walk.position() - start;
        if with_this > max_bytes as u64 && !(min_one && len == 0) {
            break;
        }
        len = with_this;
        if len >= max_bytes as u64 {
            break;
        }
    }
    Ok(len)
}

/// The base offset of the batch that starts there; `None` if it is damaged.
fn base_offset_at(reach: Reach, file: &dyn LogFile, position: u64, end: u64) -> io::Result<Option<i64>> {
    match Walk::within(reach, file, position, end).next_header() {
        Ok(found) => Ok(found.map(|(_, header)| header.base_offset())),
        Err(WalkError::Bad { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn segment_base(state: &State, number: usize) -> i64 {
    state
        .log
        .closed
        .get(number)
        .map_or(state.log.active.base_offset(), |closed| closed.segment.base_offset())
}

/// What memory knows of the place of `offset` (above the base offset) in a segment.
pub(super) fn place_of(state: &State, number: usize, offset: i64) -> Place {
    let log = &state.log;
    if number == log.closed.len()
        && let Some(position) = log.recent_position(offset)
    {
        return Place::At(position);
    }
    let Some((offsets, _)) = log.memory_indexes(number) else {
        return Place::InIndex;
    };
    let relative_offset = offset - segment_base(state, number);
    let is_in_memory = offsets.dropped_len() == 0
        || offsets
            .in_memory()
            .get(0)
            .is_some_and(|first| i64::from(first.relative_offset) <= relative_offset);
    if is_in_memory {
        Place::From(u64::from(offsets.in_memory().position_for(relative_offset)))
    } else {
        Place::InIndex
    }
}
