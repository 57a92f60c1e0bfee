//! Retention and compaction of one partition. These calls read and write files; a worker thread makes them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::{Partition, State, Status};
use crate::error::{Error, Result};
use crate::storage::cache::lock;
use crate::storage::cleaner::{CleanPlan, CleanedGroup, LastRecord, SourceSegment};
use crate::storage::config::LogConfig;
use crate::storage::log::{ClosedSegment, LogPosition};
use crate::storage::retention::{RetentionSegment, count_deletable};
use crate::storage::segment::Segment;
use crate::storage::txn_index::AbortedTxnRow;
use crate::storage::walk::Walk;

/// How much there is to clean.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct CleanCandidate {
    pub first_dirty_offset: i64,
    /// Base offset of the first segment that may not be cleaned yet.
    pub end_offset: i64,
    pub dirty_bytes: u64,
    /// The dirty part of what could be cleaned.
    pub dirty_ratio: f64,
    /// `min.cleanable.dirty.ratio` is exceeded, or `max.compaction.lag.ms` is over.
    pub is_due: bool,
}

/// A swap whose files are not all in their place.
#[derive(Debug)]
pub(super) struct UnfinishedSwap {
    group: CleanedGroup,
    new: Arc<Segment>,
}

/// The closed segments and the end of each, as they were at one moment.
struct Closed {
    segments: Vec<(ClosedSegment, i64)>,
    config: Arc<LogConfig>,
}

impl Closed {
    fn of(state: &State) -> Self {
        let log = &state.log;
        let ends = log.closed.iter().skip(1).map(|closed| closed.segment.base_offset());
        let ends = ends.chain([log.active.base_offset()]);
        Self {
            segments: log.closed.iter().cloned().zip(ends).collect(),
            config: Arc::clone(&log.config),
        }
    }

    /// From the segment on that contains `offset`.
    fn from(&self, offset: i64) -> &[(ClosedSegment, i64)] {
        &self.segments[self.segments.partition_point(|(_, end)| *end <= offset)..]
    }
}

impl Partition {
    /// Delete the oldest segments as `retention.ms`, `retention.bytes` and the log start offset say; returns how many.
    /// If all are to go, a new one is begun first. SLOW; call every `log.retention.check.interval.ms`.
    ///
    /// # Errors
    /// `Storage`, `LogOffline`, `LogClosed`.
    pub fn delete_old_segments(&self, wall_ms: i64) -> Result<usize> {
        let _maintenance = lock(&self.maintenance);
        self.finish_swap()?;
        let (closed, active, log_start_offset, high_watermark) = {
            let state = lock(&self.state);
            self.check_online(&state)?;
            let log = &state.log;
            let active = RetentionSegment {
                end_offset: log.next_offset,
                size_bytes: u64::from(log.active.size_bytes),
                newest_ms: Some(match log.active.max_timestamp.timestamp {
                    timestamp if timestamp >= 0 => timestamp,
                    _ => log.active.created_ms,
                }),
            };
            (
                Closed::of(&state),
                active,
                log.log_start_offset,
                state.high_watermark.offset,
            )
        };
        let config = &closed.config;
        let expires = config.cleanup_policy.delete && config.retention_ms >= 0;
        // Reading the age of a segment may read a file: only as far as it matters.
        let mut may_be_over = expires;
        let mut segments = Vec::with_capacity(closed.segments.len() + 1);
        for (
            ClosedSegment {
                segment, size_bytes, ..
            },
            end_offset,
        ) in &closed.segments
        {
            let newest_ms = if may_be_over {
                self.newest_ms(segment, *size_bytes, config)?
            } else {
                None
            };
            may_be_over = newest_ms.is_some_and(|newest_ms| wall_ms.saturating_sub(newest_ms) > config.retention_ms);
            segments.push(RetentionSegment {
                end_offset: *end_offset,
                size_bytes: *size_bytes,
                newest_ms,
            });
        }
        segments.push(active);
        let count = count_deletable(&segments, config, log_start_offset, high_watermark, wall_ms);
        if count == 0 {
            return Ok(0);
        }
        let io = {
            let mut state = lock(&self.state);
            self.check_online(&state)?;
            if count > closed.segments.len() {
                if state.log.next_offset > active.end_offset {
                    return Ok(0); // appended meanwhile: the next check sees it
                }
                state.log.roll(wall_ms);
            }
            Arc::clone(&state.log.io)
        };
        // The last index entries of what was just closed have files to come.
        self.dir.wait_written(&io);
        let mut state = lock(&self.state);
        self.check_online(&state)?;
        let is_same = |(now, then): (&ClosedSegment, &(ClosedSegment, i64))| Arc::ptr_eq(&now.segment, &then.0.segment);
        if state.log.closed.len() < count || !state.log.closed.iter().zip(&closed.segments).take(count).all(is_same) {
            return Ok(0); // truncated or reopened meanwhile
        }
        state.log.advance_log_start_offset(segments[count - 1].end_offset);
        state.log.remove_segments(count);
        Ok(count)
    }

    /// The greatest timestamp of a closed segment; if its records have none, when its file was last written.
    fn newest_ms(&self, segment: &Arc<Segment>, size_bytes: u64, config: &LogConfig) -> Result<Option<i64>> {
        let files = &self.dir.files;
        let max = segment
            .max_timestamp(files, size_bytes, config.index_interval_bytes)
            .map_err(Error::storage("reading the age of a segment"))?;
        if max.timestamp >= 0 {
            return Ok(Some(max.timestamp));
        }
        // Not every file system knows; then the segment stays.
        Ok(files.fs.modified_ms(&segment.path("log")).ok())
    }

    /// What there is to clean, if the topic is compacted. `checkpoint`: everything below it was cleaned before. SLOW.
    pub(crate) fn assess_cleaning(&self, checkpoint: Option<i64>, wall_ms: i64) -> Result<Option<CleanCandidate>> {
        let (closed, log_start_offset, log_end_offset, active_offset, mut limit) = {
            let state = lock(&self.state);
            self.check_online(&state)?;
            let log = &state.log;
            let active_offset = log.active.base_offset();
            // Above the recovery point recovery takes a gap for a loss.
            let limit = state
                .last_stable_offset()
                .min(log.io.cell.recovery_point())
                .min(active_offset);
            (
                Closed::of(&state),
                log.log_start_offset,
                log.next_offset,
                active_offset,
                limit,
            )
        };
        let config = Arc::clone(&closed.config);
        if !config.cleanup_policy.compact {
            return Ok(None);
        }
        // One that is out of range is of an earlier life of the log: everything is dirty.
        let first_dirty_offset = checkpoint
            .filter(|offset| (log_start_offset..=log_end_offset).contains(offset))
            .unwrap_or(log_start_offset);
        let dirty = closed.from(first_dirty_offset);
        if config.min_compaction_lag_ms > 0 {
            let newest_allowed_ms = wall_ms.saturating_sub(config.min_compaction_lag_ms);
            for (
                ClosedSegment {
                    segment, size_bytes, ..
                },
                _,
            ) in dirty
            {
                if self
                    .newest_ms(segment, *size_bytes, &config)?
                    .is_none_or(|newest| newest > newest_allowed_ms)
                {
                    limit = limit.min(segment.base_offset());
                    break;
                }
            }
        }
        let limit = limit.max(first_dirty_offset);
        let end_offset = closed
            .from(limit)
            .first()
            .map_or(active_offset, |(closed, _)| closed.segment.base_offset());
        let size_of =
            |segments: &[(ClosedSegment, i64)]| -> u64 { segments.iter().map(|(closed, _)| closed.size_bytes).sum() };
        let below = |offset: i64| -> &[(ClosedSegment, i64)] {
            &closed.segments[..closed
                .segments
                .partition_point(|(closed, _)| closed.segment.base_offset() < offset)]
        };
        let dirty_count = below(end_offset)
            .len()
            .saturating_sub(closed.segments.len() - dirty.len());
        let dirty_bytes = size_of(&dirty[..dirty_count]);
        let total_bytes = size_of(below(first_dirty_offset)) + dirty_bytes;
        if total_bytes == 0 {
            return Ok(None);
        }
        #[allow(clippy::cast_precision_loss)] // a ratio
        let dirty_ratio = dirty_bytes as f64 / total_bytes as f64;
        let is_due = dirty_bytes > 0
            && (dirty_ratio > config.min_cleanable_dirty_ratio
                || self
                    .max_lag_is_over(dirty, &config, wall_ms)
                    .map_err(Error::storage("reading the age of a batch"))?);
        Ok(Some(CleanCandidate {
            first_dirty_offset,
            end_offset,
            dirty_bytes,
            dirty_ratio,
            is_due,
        }))
    }

    /// Whether some dirty segment began before `max.compaction.lag.ms` ago.
    fn max_lag_is_over(&self, dirty: &[(ClosedSegment, i64)], config: &LogConfig, wall_ms: i64) -> io::Result<bool> {
        if config.max_compaction_lag_ms == i64::MAX {
            return Ok(false);
        }
        let clean_until_ms = wall_ms.saturating_sub(config.max_compaction_lag_ms.max(0));
        for (
            ClosedSegment {
                segment, size_bytes, ..
            },
            _,
        ) in dirty
        {
            let file = segment.file(&self.dir.files, false)?;
            let first = Walk::new(&*file, 0, *size_bytes)
                .next_header()?
                .map(|(_, header)| header.max_timestamp());
            if first.is_some_and(|first_ms| first_ms > 0 && first_ms < clean_until_ms) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a round of cleaning works on. SLOW.
    pub(crate) fn plan_cleaning(&self, candidate: &CleanCandidate, wall_ms: i64) -> Result<CleanPlan> {
        let _maintenance = lock(&self.maintenance);
        self.finish_swap()?;
        let io = Arc::clone(&lock(&self.state).log.io);
        // The indexes of the newest closed segment may still be in the writer's queue.
        self.dir.wait_written(&io);
        let is_durable = io.cell.recovery_point() >= candidate.end_offset;
        // The recovery point that allows gaps must be the one that a start would find.
        self.dir.write_checkpoints()?;
        let (segments, producers, config, aborted_in, mut aborted) = {
            let state = lock(&self.state);
            self.check_online(&state)?;
            let log = &state.log;
            let producers: HashMap<i64, LastRecord> = log
                .producers
                .iter()
                .map(|(producer_id, entry)| {
                    let last_offset = Some(entry.last_offset()).filter(|offset| *offset >= 0);
                    (
                        producer_id,
                        LastRecord {
                            last_offset,
                            epoch: entry.epoch,
                        },
                    )
                })
                .collect();
            let segments: Vec<SourceSegment> = log
                .closed
                .iter()
                .filter(|closed| closed.segment.base_offset() < candidate.end_offset)
                .map(|closed| SourceSegment {
                    segment: Arc::clone(&closed.segment),
                    size_bytes: closed.size_bytes,
                })
                .collect();
            // A transaction of these segments may have ended in any later one.
            let aborted_in: Vec<Arc<Segment>> = log
                .closed
                .iter()
                .filter(|closed| closed.has_aborted)
                .map(|closed| &closed.segment)
                .chain((log.active.aborted.dropped_len() > 0).then_some(&log.active.segment))
                .cloned()
                .collect();
            let rows: Vec<AbortedTxnRow> = log.active.aborted.in_memory().iter().collect();
            let next = log
                .closed
                .get(segments.len())
                .map_or(&log.active.segment, |closed| &closed.segment);
            let ends_there = next.base_offset() == candidate.end_offset;
            // Truncated meanwhile: there is nothing to do in this round.
            let segments = if ends_there && is_durable { segments } else { Vec::new() };
            (segments, producers, Arc::clone(&log.config), aborted_in, rows)
        };
        for segment in aborted_in {
            let rows = segment
                .aborted_rows(&self.dir.files)
                .map_err(Error::storage("reading a transaction index"))?;
            aborted.extend(rows);
        }
        aborted.retain(|row| row.first_offset < candidate.end_offset);
        Ok(CleanPlan {
            dir: Arc::clone(&self.path),
            name: self.topic_partition.to_string(),
            segments,
            first_dirty_offset: candidate.first_dirty_offset,
            end_offset: candidate.end_offset,
            aborted,
            producers,
            config,
            wall_ms,
        })
    }

    /// Put a cleaned segment in the place of its sources; `false`: they are not what they were (deleted, truncated), and
    /// the cleaned one is gone. SLOW.
    pub(crate) fn swap_in(&self, group: CleanedGroup) -> Result<bool> {
        let failed = |source| Error::Storage {
            doing: "putting a cleaned segment in its place",
            source,
        };
        let _maintenance = lock(&self.maintenance);
        self.finish_swap()?;
        let files = &self.dir.files;
        let new = match group.begin(files) {
            Ok(new) => new,
            Err(error) => {
                group.undo(files).map_err(failed)?;
                return Err(failed(error));
            }
        };
        let is_replaced = {
            let mut state = lock(&self.state);
            state.status == Status::Online && state.replace(&group, &new)
        };
        if !is_replaced {
            group.undo(files).map_err(failed)?;
            return Ok(false);
        }
        *lock(&self.unfinished_swap) = Some(UnfinishedSwap { group, new });
        self.finish_swap()?;
        Ok(true)
    }

    /// Carry a swap to its end that an error interrupted. Meanwhile the new segment is read under its interim names, and
    /// no file of the log is removed.
    fn finish_swap(&self) -> Result<()> {
        let mut unfinished = lock(&self.unfinished_swap);
        if let Some(swap) = &mut *unfinished {
            let finished = swap.group.finish(&self.dir.files, &swap.new);
            finished.map_err(Error::storage("putting a cleaned segment in its place"))?;
            *unfinished = None;
            lock(&self.state).log.is_swapping = false;
        }
        Ok(())
    }
}

impl State {
    /// Replace segments in memory; `false` if they are not all there.
    fn replace(&mut self, group: &CleanedGroup, new: &Arc<Segment>) -> bool {
        let closed = &mut self.log.closed;
        let Some(first) = closed
            .iter()
            .position(|closed| Arc::ptr_eq(&closed.segment, &group.sources[0]))
        else {
            return false;
        };
        let range = first..first + group.sources.len();
        let is_same = closed.get(range.clone()).is_some_and(|closed| {
            closed
                .iter()
                .zip(&group.sources)
                .all(|(closed, source)| Arc::ptr_eq(&closed.segment, source))
        });
        if !is_same {
            return false;
        }
        let replacement = ClosedSegment {
            segment: Arc::clone(new),
            size_bytes: group.size_bytes,
            has_aborted: group.has_aborted,
            unsettled: None,
        };
        closed.splice(range, [replacement]);
        let next_offset = closed
            .get(first + 1)
            .map_or(self.log.active.base_offset(), |closed| closed.segment.base_offset());
        // A position at the end of what was replaced is now at the start of what follows.
        for position in [&mut self.high_watermark, &mut self.log.visible] {
            if (group.base_offset..next_offset).contains(&position.segment) {
                *position = LogPosition {
                    segment: next_offset,
                    position: 0,
                    ..*position
                };
            }
        }
        self.log.is_swapping = true;
        true
    }
}
