//! Looking offsets up by timestamp and by leader epoch.

use std::io;
use std::sync::Arc;

use super::read::{ATTEMPTS_MAX, Place, place_of};
use super::{
    EARLIEST_LOCAL_TIMESTAMP, EARLIEST_PENDING_UPLOAD_TIMESTAMP, EARLIEST_TIMESTAMP, EpochEndOffset,
    LATEST_TIERED_TIMESTAMP, LATEST_TIMESTAMP, ListedOffset, MAX_TIMESTAMP, Partition, State,
};
use crate::compression::EXPANSION_LIMIT_BYTES;
use crate::error::{Error, Result};
use crate::record::batch::BatchView;
use crate::record::records::Records;
use crate::storage::cache::lock;
use crate::storage::fs::LogFile;
use crate::storage::segment::{Files, MaxTimestamp, Segment};
use crate::storage::time_index::TimeEntry;
use crate::storage::walk::Walk;
use crate::types::Isolation;

/// No timestamp, offset or epoch.
const NONE: ListedOffset = ListedOffset {
    timestamp: -1,
    offset: -1,
    leader_epoch: -1,
};

/// A segment as a lookup by time sees it.
struct TimedSegment {
    segment: Arc<Segment>,
    size_bytes: u64,
    /// Bytes that may be looked at.
    bound: u64,
    /// Of a segment whose indexes are not all in their files.
    in_memory: Option<TimesInMemory>,
}

/// What memory knows of a segment.
struct TimesInMemory {
    max: MaxTimestamp,
    /// An offset at or before the first record wanted; `None`: before all that memory knows.
    from_offset: Option<i64>,
    /// Where that is.
    place: Place,
    /// Entries that are only in the index files.
    times_in_file: usize,
    offsets_in_file: usize,
}

struct TimePlan {
    segments: Vec<TimedSegment>,
    log_start_offset: i64,
    end_offset: i64,
    epoch_is_uncertain: bool,
    index_interval_bytes: u32,
}

impl Partition {
    /// Look an offset up by timestamp (Unix ms) or by one of the special values. QUICK for `LATEST`, `EARLIEST` and their
    /// kin; SLOW otherwise (reads and decompresses a batch).
    ///
    /// `isolation`: `None` for followers, who see everything up to the log end offset.
    ///
    /// # Errors
    /// `OffsetNotAvailable` right after an election, `FencedLeaderEpoch`, `UnknownLeaderEpoch`, `NotLeader`, `LogOffline`,
    /// `CorruptBatch`, `Storage`.
    pub fn list_offset(
        &self,
        timestamp: i64,
        isolation: Option<Isolation>,
        current_leader_epoch: i32,
    ) -> Result<ListedOffset> {
        let mut attempt = 1;
        loop {
            match self.try_list_offset(timestamp, isolation, current_leader_epoch) {
                // Retention or the cleaner took a segment away between plan and reading.
                Err(Error::Storage { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn try_list_offset(
        &self,
        timestamp: i64,
        isolation: Option<Isolation>,
        current_leader_epoch: i32,
    ) -> Result<ListedOffset> {
        let plan = {
            let state = lock(&self.state);
            self.check_online(&state)?;
            self.check_leader(&state, current_leader_epoch)?;
            let end_offset = isolation.map_or(state.log.next_offset, |isolation| state.visible_end(isolation));
            let epoch_is_uncertain =
                isolation.is_some() && state.leader.epoch_start_offset > state.high_watermark.offset;
            match timestamp {
                LATEST_TIMESTAMP if epoch_is_uncertain => return Err(self.offset_not_available()),
                LATEST_TIMESTAMP => {
                    return Ok(ListedOffset {
                        timestamp: -1,
                        offset: end_offset,
                        leader_epoch: state.leader.epoch,
                    });
                }
                EARLIEST_TIMESTAMP | EARLIEST_LOCAL_TIMESTAMP => {
                    let offset = state.log.log_start_offset;
                    let leader_epoch = state.log.epochs.epoch_of(offset).unwrap_or(-1);
                    return Ok(ListedOffset {
                        timestamp: -1,
                        offset,
                        leader_epoch,
                    });
                }
                LATEST_TIERED_TIMESTAMP | EARLIEST_PENDING_UPLOAD_TIMESTAMP => return Ok(NONE),
                _ => plan(&state, timestamp, end_offset, epoch_is_uncertain),
            }
        };
        match self.find_time(timestamp, &plan)? {
            Some(found) if found.offset < plan.end_offset => Ok(found),
            _ if plan.epoch_is_uncertain => Err(self.offset_not_available()),
            _ => Ok(NONE),
        }
    }

    fn offset_not_available(&self) -> Error {
        Error::OffsetNotAvailable {
            topic_partition: self.topic_partition.clone(),
        }
    }

    fn find_time(&self, timestamp: i64, plan: &TimePlan) -> Result<Option<ListedOffset>> {
        let files = &self.dir.files;
        let failed = |timed: &TimedSegment, source| self.read_error(&timed.segment, "looking up a timestamp", source);
        if timestamp == MAX_TIMESTAMP {
            let mut latest: Option<(MaxTimestamp, &TimedSegment)> = None;
            for timed in &plan.segments {
                let max = timed.max_timestamp(files, plan).map_err(|error| failed(timed, error))?;
                if max.timestamp >= 0 && latest.as_ref().is_none_or(|(best, _)| max.timestamp > best.timestamp) {
                    latest = Some((max, timed));
                }
            }
            let Some((max, timed)) = latest else { return Ok(None) };
            let found = timed.search(files, plan, max.timestamp, Some(max.offset));
            return found.map_err(|error| failed(timed, error));
        }
        for timed in &plan.segments {
            let found = timed.max_timestamp(files, plan).and_then(|max| match max.timestamp {
                earlier if earlier < timestamp => Ok(None),
                _ => timed.search(files, plan, timestamp, None),
            });
            if let Some(found) = found.map_err(|error| failed(timed, error))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Where a leader epoch ended (KIP-320); (-1, -1) if that is not known. QUICK.
    ///
    /// # Errors
    /// `FencedLeaderEpoch`, `UnknownLeaderEpoch`, `NotLeader`, `LogOffline`.
    pub fn end_offset_for_epoch(&self, leader_epoch: i32, current_leader_epoch: i32) -> Result<EpochEndOffset> {
        let state = lock(&self.state);
        self.check_online(&state)?;
        self.check_leader(&state, current_leader_epoch)?;
        let found = state.log.epochs.end_offset_for(leader_epoch, state.log.next_offset);
        let (leader_epoch, end_offset) = found.unwrap_or((-1, -1));
        Ok(EpochEndOffset {
            leader_epoch,
            end_offset,
        })
    }
}

fn plan(state: &State, timestamp: i64, end_offset: i64, epoch_is_uncertain: bool) -> TimePlan {
    let log = &state.log;
    let active = &log.active;
    let first = log.segment_number(log.log_start_offset);
    let segments = log.closed.get(first..).unwrap_or_default().iter();
    let segments = segments
        .map(|closed| (&closed.segment, closed.size_bytes))
        .chain([(&active.segment, u64::from(active.size_bytes))])
        .zip(first..)
        .filter(|((segment, size_bytes), _)| segment.base_offset() <= log.visible.segment && *size_bytes > 0)
        .map(|((segment, size_bytes), number)| TimedSegment {
            segment: Arc::clone(segment),
            size_bytes,
            bound: if segment.base_offset() == log.visible.segment {
                log.visible.position
            } else {
                size_bytes
            },
            in_memory: in_memory(state, number, timestamp),
        })
        .collect();
    TimePlan {
        segments,
        log_start_offset: log.log_start_offset,
        end_offset,
        epoch_is_uncertain,
        index_interval_bytes: log.config.index_interval_bytes,
    }
}

fn in_memory(state: &State, number: usize, timestamp: i64) -> Option<TimesInMemory> {
    let log = &state.log;
    let (offsets, times) = log.memory_indexes(number)?;
    let (segment, end_offset, max) = match log.closed.get(number) {
        Some(closed) => (&closed.segment, None, closed.segment.known_max_timestamp()?),
        None => (&log.active.segment, Some(log.next_offset), log.active.max_timestamp),
    };
    let base_offset = segment.base_offset();
    let from_offset = if timestamp == MAX_TIMESTAMP {
        Some(max.offset)
    } else {
        // Without any earlier entry the search starts at the first record.
        let base = (times.dropped_len() == 0).then_some(base_offset);
        let floor = times.in_memory().floor_timestamp(timestamp);
        floor
            .map(|entry| base_offset + i64::from(entry.relative_offset))
            .or(base)
    };
    let place = from_offset.map_or(Place::InIndex, |offset| {
        let offset = offset.max(log.log_start_offset).max(base_offset);
        place_of(
            state,
            number,
            end_offset.map_or(offset, |end_offset| offset.min(end_offset)),
        )
    });
    Some(TimesInMemory {
        max,
        from_offset,
        place,
        times_in_file: times.dropped_len(),
        offsets_in_file: offsets.dropped_len(),
    })
}

impl TimedSegment {
    fn max_timestamp(&self, files: &Files, plan: &TimePlan) -> io::Result<MaxTimestamp> {
        match &self.in_memory {
            Some(times) => Ok(times.max),
            None => self
                .segment
                .max_timestamp(files, self.size_bytes, plan.index_interval_bytes),
        }
    }

    /// The first record at or after `timestamp` (and at or above the log start offset), or, with `batch_of`, in the batch
    /// that ends there.
    fn search(
        &self,
        files: &Files,
        plan: &TimePlan,
        timestamp: i64,
        batch_of: Option<i64>,
    ) -> io::Result<Option<ListedOffset>> {
        let file = self.segment.file(files, false)?;
        let base_offset = self.segment.base_offset();
        let interval = plan.index_interval_bytes;
        let offset_of = |entry: Option<TimeEntry>| entry.map_or(0, |entry| i64::from(entry.relative_offset));
        let position = match &self.in_memory {
            Some(TimesInMemory {
                place: Place::At(position) | Place::From(position),
                ..
            }) => *position,
            Some(memory) => {
                let relative_offset = if let Some(offset) = memory.from_offset {
                    offset - base_offset
                } else {
                    let times = self.segment.flushed_time_index(files, memory.times_in_file)?;
                    offset_of(times.floor_timestamp(timestamp))
                };
                let offsets = self.segment.flushed_offset_index(files, memory.offsets_in_file)?;
                u64::from(offsets.position_for(relative_offset))
            }
            None => {
                let relative_offset = if let Some(offset) = batch_of {
                    offset - base_offset
                } else {
                    let times = self.segment.time_index(files, self.size_bytes, interval)?;
                    offset_of(times.floor_timestamp(timestamp)).max(plan.log_start_offset - base_offset)
                };
                let offsets = self.segment.offset_index(files, self.size_bytes, interval)?;
                u64::from(offsets.position_for(relative_offset))
            }
        };
        let mut walk = Walk::new(&*file, position, self.bound);
        while let Some((position, header)) = walk.next_header()? {
            if header.max_timestamp() >= timestamp && header.last_offset() >= plan.log_start_offset {
                let size_bytes = header.size_bytes();
                let found = first_at_or_after(&*file, position, size_bytes, timestamp, plan.log_start_offset)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }
}

/// The first record of a batch at or after a timestamp and at or above an offset.
fn first_at_or_after(
    file: &dyn LogFile,
    position: u64,
    size_bytes: usize,
    timestamp: i64,
    from_offset: i64,
) -> io::Result<Option<ListedOffset>> {
    let invalid = |error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidData, format!("batch at byte {position}: {error}"))
    };
    let mut bytes = vec![0; size_bytes];
    file.read_exact_at(&mut bytes, position)?;
    let batch = BatchView::parse(&bytes).map_err(|error| invalid(&error))?;
    let payload = batch
        .decompressed(EXPANSION_LIMIT_BYTES)
        .map_err(|error| invalid(&error))?;
    for record in Records::new(&payload, batch.record_count()) {
        let record = record.map_err(|error| invalid(&error))?;
        if record.timestamp(&batch) >= timestamp && record.offset(&batch) >= from_offset {
            return Ok(Some(ListedOffset {
                timestamp: record.timestamp(&batch),
                offset: record.offset(&batch),
                leader_epoch: batch.partition_leader_epoch(),
            }));
        }
    }
    Ok(None)
}
