//! Compaction: of each key only the newest record stays (Kafka: `Cleaner`).
//!
//! A round takes the closed segments of one log in two passes. The first reads the dirty ones (those written since the last
//! round) and notes the newest offset of each key. The second copies all of them into new segments, several small ones
//! into one, leaving out what a newer record replaced, what an aborted transaction wrote, and tombstones and markers whose
//! time is over. Offsets never change. A new segment then takes the place of those that it was made from; see `swap`.
//!
//! A job does a bounded piece of work a step and says how many bytes it moved, so that its caller can pace it.

mod filter;
mod offset_map;
pub(crate) mod swap;
mod transactions;

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use filter::LastRecord;
use filter::{Cleaned, EXPANSION_LIMIT_BYTES, Filter};
use offset_map::OffsetMap;
pub(crate) use swap::CleanedGroup;
use transactions::CleanedTransactions;

use super::config::LogConfig;
use super::fs::{LogFile, OpenMode};
use super::index::{IndexEntries, IndexEntry};
use super::offset_index::OffsetEntry;
use super::segment::{Files, IndexBuilder, Segment, file_name};
use super::time_index::TimeEntry;
use super::txn_index::AbortedTxnRow;
use super::walk::{Walk, WalkError};
use crate::error::{Error, Result};
use crate::record::batch::BatchView;
use crate::record::records::{Records, RecordsError};

/// Cleaned batches are written in pieces of about this size.
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// A closed segment of a log to be cleaned.
#[derive(Clone, Debug)]
pub(crate) struct SourceSegment {
    pub segment: Arc<Segment>,
    pub size_bytes: u64,
}

/// What a round works on.
#[derive(Debug)]
pub(crate) struct CleanPlan {
    pub dir: Arc<Path>,
    /// `<topic>-<partition>`, for errors.
    pub name: String,
    /// All closed segments below `end_offset`, in order; the last one ends there.
    pub segments: Vec<SourceSegment>,
    /// Everything below was cleaned before.
    pub first_dirty_offset: i64,
    /// Nothing from here on is looked at.
    pub end_offset: i64,
    /// Aborted transactions that overlap the segments.
    pub aborted: Vec<AbortedTxnRow>,
    pub producers: HashMap<i64, LastRecord>,
    pub config: Arc<LogConfig>,
    /// When the round began, in Unix ms.
    pub wall_ms: i64,
}

/// What a round did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CleanStats {
    /// Bytes of the segments that were cleaned.
    pub read_bytes: u64,
    /// Bytes of the segments that took their place.
    pub written_bytes: u64,
    /// Records that were read.
    pub records_read: u64,
    /// Records that stayed.
    pub records_kept: u64,
    /// Keys seen in the dirty part.
    pub keys: u64,
    /// Segments before and after.
    pub segments_before: u32,
    /// See `segments_before`.
    pub segments_after: u32,
}

/// What came of one step.
#[derive(Debug)]
pub(crate) enum JobStep {
    /// There is more to do.
    Working,
    /// A new segment is complete and durable; it must take its place before the next step.
    Swap(CleanedGroup),
    /// The round is over: everything below the offset is clean.
    Finished { clean_offset: i64 },
}

/// One round of cleaning.
#[derive(Debug)]
pub(crate) struct CleanJob {
    plan: CleanPlan,
    map: OffsetMap,
    /// Everything at or below it is in the map.
    latest_offset: i64,
    transactions: CleanedTransactions,
    phase: Phase,
    groups: Vec<Range<usize>>,
    stats: CleanStats,
    moved_bytes: u64,
}

#[derive(Debug)]
enum Phase {
    Map { segment: usize, position: Option<u64> },
    Clean { group: usize, output: Option<Box<Output>> },
    Finished,
}

/// The new segment of a group, and how far its sources are read.
#[derive(Debug)]
struct Output {
    source: usize,
    position: u64,
    file: Arc<dyn LogFile>,
    buffer: Vec<u8>,
    written_bytes: u64,
    index: IndexBuilder,
    rows: IndexEntries<AbortedTxnRow>,
}

impl CleanJob {
    /// A round over `plan`, remembering keys in about `map_bytes` of memory.
    pub fn new(plan: CleanPlan, map_bytes: usize) -> Self {
        // The first pass begins in the middle of the log: what ended before must not seem to go on.
        let ongoing = plan
            .aborted
            .iter()
            .filter(|row| row.last_offset >= plan.first_dirty_offset);
        let transactions = CleanedTransactions::new(ongoing.copied().collect());
        let first = plan
            .segments
            .partition_point(|source| source.segment.base_offset() <= plan.first_dirty_offset);
        let stats = CleanStats {
            segments_before: plan.segments.len() as u32,
            ..CleanStats::default()
        };
        Self {
            latest_offset: plan.first_dirty_offset - 1,
            phase: Phase::Map {
                segment: first.saturating_sub(1),
                position: None,
            },
            map: OffsetMap::new(map_bytes),
            transactions,
            groups: Vec::new(),
            stats,
            moved_bytes: 0,
            plan,
        }
    }

    /// What was done so far.
    pub fn stats(&self) -> CleanStats {
        CleanStats {
            keys: self.map.len() as u64,
            ..self.stats
        }
    }

    /// Bytes read and written by the last step.
    pub fn moved_bytes(&self) -> u64 {
        self.moved_bytes
    }

    /// Do some work: about `budget_bytes` of reading and writing. After an error the job is to be given up
    /// (`abandon`); the log is as it was.
    ///
    /// # Errors
    /// `Storage`, `Damaged` (names file and byte).
    pub fn step(&mut self, files: &Files, budget_bytes: u64) -> Result<JobStep> {
        self.moved_bytes = 0;
        loop {
            let step = match &self.phase {
                Phase::Map { .. } => self.map_some(files, budget_bytes)?,
                Phase::Clean { .. } => self.clean_some(files, budget_bytes)?,
                Phase::Finished => Some(JobStep::Finished {
                    clean_offset: self.latest_offset + 1,
                }),
            };
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    /// Remove what an unfinished round left.
    pub fn abandon(&mut self, files: &Files) -> io::Result<()> {
        if let Phase::Clean { group, output: Some(_) } = &self.phase {
            let base_offset = self.base_offset_of(*group);
            swap::remove_files(files, &self.plan.dir, base_offset, swap::CLEANED)?;
        }
        self.phase = Phase::Finished;
        Ok(())
    }

    fn base_offset_of(&self, group: usize) -> i64 {
        self.plan.segments[self.groups[group].start].segment.base_offset()
    }

    fn end_of(&self, source: usize) -> i64 {
        let next = self.plan.segments.get(source + 1);
        next.map_or(self.plan.end_offset, |next| next.segment.base_offset())
    }

    /// Put keys into the map; `None`: this phase is over.
    fn map_some(&mut self, files: &Files, budget_bytes: u64) -> Result<Option<JobStep>> {
        let Phase::Map {
            segment: number,
            position,
        } = self.phase
        else {
            return Ok(None);
        };
        if number >= self.plan.segments.len() || self.map.is_full() {
            self.groups = self.group();
            self.stats.segments_after = self.groups.len() as u32;
            self.transactions = CleanedTransactions::new(std::mem::take(&mut self.plan.aborted));
            self.phase = Phase::Clean { group: 0, output: None };
            return Ok(None);
        }
        let SourceSegment { segment, size_bytes } = self.plan.segments[number].clone();
        let start_offset = self.plan.first_dirty_offset;
        let position = match position {
            Some(position) => position,
            None => self.dirty_position(files, &segment, size_bytes)?,
        };
        let file = segment.file(files, false).map_err(reading)?;
        let mut walk = Walk::new(&*file, position, size_bytes);
        while !self.map.is_full() && self.moved_bytes < budget_bytes {
            let Some((position, batch)) = walk.next_batch().map_err(|error| self.broken(&segment, error))? else {
                break;
            };
            self.moved_bytes += batch.size_bytes() as u64;
            let damaged = |error| damaged(&self.plan.name, &segment, position, &error);
            if batch.is_control() {
                self.transactions.on_control_batch(&batch).map_err(damaged)?;
            } else if !self.transactions.on_batch(*batch) {
                put_keys(&mut self.map, &batch, start_offset).map_err(damaged)?;
            }
            self.latest_offset = self.latest_offset.max(batch.last_offset());
        }
        let position = walk.position();
        self.phase = if position >= size_bytes {
            // What lies between the last batch and the next segment is covered, too.
            self.latest_offset = self.latest_offset.max(self.end_of(number) - 1);
            Phase::Map {
                segment: number + 1,
                position: None,
            }
        } else {
            Phase::Map {
                segment: number,
                position: Some(position),
            }
        };
        Ok((self.moved_bytes >= budget_bytes).then_some(JobStep::Working))
    }

    /// Where in a segment the dirty part begins, or a little before.
    fn dirty_position(&self, files: &Files, segment: &Arc<Segment>, size_bytes: u64) -> Result<u64> {
        let relative_offset = self.plan.first_dirty_offset - segment.base_offset();
        if relative_offset <= 0 || size_bytes == 0 {
            return Ok(0);
        }
        let index = segment
            .offset_index(files, size_bytes, self.plan.config.index_interval_bytes)
            .map_err(reading)?;
        Ok(u64::from(index.position_for(relative_offset)))
    }

    /// Which segments become one: as many as surely fit (Kafka: `groupSegmentsBySize`).
    fn group(&self) -> Vec<Range<usize>> {
        let config = &self.plan.config;
        let count = self
            .plan
            .segments
            .partition_point(|source| source.segment.base_offset() <= self.latest_offset);
        let mut groups: Vec<Range<usize>> = Vec::new();
        let mut group_bytes = 0;
        for (number, source) in self.plan.segments[..count].iter().enumerate() {
            let last = groups.last_mut().filter(|group| {
                let with_this_bytes = group_bytes + source.size_bytes;
                let entries = with_this_bytes / u64::from(config.index_interval_bytes.max(1));
                let first_offset = self.plan.segments[group.start].segment.base_offset();
                with_this_bytes <= u64::from(config.segment_bytes)
                    && entries * TimeEntry::SIZE_BYTES as u64 <= u64::from(config.segment_index_bytes)
                    && (source.size_bytes == 0 || self.end_of(number) - 1 - first_offset <= i64::from(i32::MAX))
            });
            if let Some(group) = last {
                group.end = number + 1;
                group_bytes += source.size_bytes;
            } else {
                groups.push(number..number + 1);
                group_bytes = source.size_bytes;
            }
        }
        groups
    }

    /// Copy what stays; `None`: this phase is over.
    fn clean_some(&mut self, files: &Files, budget_bytes: u64) -> Result<Option<JobStep>> {
        let Phase::Clean { group, output } = &mut self.phase else {
            return Ok(None);
        };
        let (group, output) = (*group, output.take());
        let Some(range) = self.groups.get(group).cloned() else {
            self.phase = Phase::Finished;
            return Ok(None);
        };
        let mut output = match output {
            Some(output) => output,
            None => Box::new(self.create_output(files, range.start)?),
        };
        // From here on `abandon` knows that there are files.
        let result = self.copy(files, &mut output, &range, budget_bytes);
        let is_read = output.source >= range.end;
        let finished = match result {
            Ok(()) if is_read => self.finish_output(files, &mut output, &range).map(Some),
            Ok(()) => Ok(None),
            Err(error) => Err(error),
        };
        match finished {
            Ok(Some(cleaned)) => {
                self.phase = Phase::Clean {
                    group: group + 1,
                    output: None,
                };
                Ok(Some(JobStep::Swap(cleaned)))
            }
            Ok(None) => {
                self.phase = Phase::Clean {
                    group,
                    output: Some(output),
                };
                Ok(Some(JobStep::Working))
            }
            Err(error) => {
                self.phase = Phase::Clean {
                    group,
                    output: Some(output),
                };
                Err(error)
            }
        }
    }

    fn create_output(&self, files: &Files, source: usize) -> Result<Output> {
        let base_offset = self.plan.segments[source].segment.base_offset();
        // Of a round that was given up.
        swap::remove_files(files, &self.plan.dir, base_offset, swap::CLEANED).map_err(writing)?;
        let file = files
            .fs
            .open(&self.cleaned_path(base_offset, "log"), OpenMode::Create)
            .map_err(writing)?;
        Ok(Output {
            source,
            position: 0,
            file,
            buffer: Vec::new(),
            written_bytes: 0,
            index: IndexBuilder::new(base_offset, self.plan.config.index_interval_bytes),
            rows: IndexEntries::default(),
        })
    }

    fn cleaned_path(&self, base_offset: i64, suffix: &str) -> PathBuf {
        self.plan.dir.join(file_name(base_offset, suffix) + swap::CLEANED)
    }

    fn copy(&mut self, files: &Files, output: &mut Output, range: &Range<usize>, budget_bytes: u64) -> Result<()> {
        while output.source < range.end && self.moved_bytes < budget_bytes {
            let SourceSegment { segment, size_bytes } = self.plan.segments[output.source].clone();
            let file = segment.file(files, false).map_err(reading)?;
            let filter = Filter {
                map: &self.map,
                latest_offset: self.latest_offset,
                end_offset: self.plan.end_offset,
                producers: &self.plan.producers,
                delete_retention_ms: self.plan.config.delete_retention_ms,
                wall_ms: self.plan.wall_ms,
            };
            let mut walk = Walk::new(&*file, output.position, size_bytes);
            while self.moved_bytes < budget_bytes {
                let next = walk
                    .next_batch()
                    .map_err(|error| broken(&self.plan.name, &segment, error))?;
                let Some((position, batch)) = next else { break };
                self.moved_bytes += batch.size_bytes() as u64;
                self.stats.read_bytes += batch.size_bytes() as u64;
                self.stats.records_read += batch.record_count().max(0) as u64;
                let outcome = filter
                    .clean(&batch, &mut self.transactions)
                    .map_err(|error| damaged(&self.plan.name, &segment, position, &error))?;
                if let Some(row) = outcome.row {
                    output.rows.push(row);
                }
                self.stats.records_kept += outcome.records_kept as u64;
                if let Cleaned::Kept(bytes) = outcome.batch {
                    output.append(&bytes).map_err(writing)?;
                    self.moved_bytes += bytes.len() as u64;
                    self.stats.written_bytes += bytes.len() as u64;
                }
            }
            output.position = walk.position();
            if output.position >= size_bytes {
                output.source += 1;
                output.position = 0;
            }
        }
        Ok(())
    }

    /// Write the indexes and make everything durable.
    fn finish_output(&self, files: &Files, output: &mut Output, range: &Range<usize>) -> Result<CleanedGroup> {
        let base_offset = self.plan.segments[range.start].segment.base_offset();
        let index = std::mem::replace(&mut output.index, IndexBuilder::new(base_offset, 0)).finish();
        let has_aborted = !output.rows.is_empty();
        let mut finish = || -> io::Result<()> {
            output.flush()?;
            output.file.sync_data()?;
            let write = |suffix: &str, content: &[u8]| {
                let file = files
                    .fs
                    .open(&self.cleaned_path(base_offset, suffix), OpenMode::Create)?;
                file.truncate(0)?;
                file.write_all_at(&[IoSlice::new(content)], 0)?;
                file.sync_data()
            };
            write(OffsetEntry::SUFFIX, index.offsets.bytes_from(0))?;
            write(TimeEntry::SUFFIX, index.times.bytes_from(0))?;
            if has_aborted {
                write(AbortedTxnRow::SUFFIX, output.rows.bytes_from(0))?;
            }
            Ok(())
        };
        finish().map_err(writing)?;
        Ok(CleanedGroup {
            dir: Arc::clone(&self.plan.dir),
            base_offset,
            sources: self.plan.segments[range.clone()]
                .iter()
                .map(|source| Arc::clone(&source.segment))
                .collect(),
            size_bytes: output.written_bytes,
            has_aborted,
            sources_are_removed: false,
        })
    }

    fn broken(&self, segment: &Segment, error: WalkError) -> Error {
        broken(&self.plan.name, segment, error)
    }
}

impl Output {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let position = self.written_bytes + self.buffer.len() as u64;
        if position + bytes.len() as u64 > i32::MAX as u64 {
            return Err(io::Error::other("the cleaned segment grows beyond 2 GiB"));
        }
        let view = BatchView::parse(bytes).map_err(io::Error::other)?;
        self.index.add(position as u32, *view);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file
            .write_all_at(&[IoSlice::new(&self.buffer)], self.written_bytes)?;
        self.written_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

fn put_keys(map: &mut OffsetMap, batch: &BatchView<'_>, start_offset: i64) -> std::result::Result<(), RecordsError> {
    let payload = batch.decompressed(EXPANSION_LIMIT_BYTES)?;
    for record in Records::new(&payload, batch.record_count()) {
        let record = record?;
        let offset = record.offset(batch);
        if let Some(key) = record.key.filter(|_| offset >= start_offset) {
            map.put(key, offset);
        }
    }
    Ok(())
}

fn reading(source: io::Error) -> Error {
    Error::Storage {
        doing: "reading a log to clean it",
        source,
    }
}

fn writing(source: io::Error) -> Error {
    Error::Storage {
        doing: "writing a cleaned segment",
        source,
    }
}

fn broken(name: &str, segment: &Segment, error: WalkError) -> Error {
    match error {
        WalkError::Io(source) => reading(source),
        WalkError::Bad { position, error } => damaged(name, segment, position, &RecordsError::Batch(error)),
    }
}

fn damaged(name: &str, segment: &Segment, position: u64, error: &RecordsError) -> Error {
    Error::Damaged {
        file: format!("{name}/{}", file_name(segment.base_offset(), "log")),
        position,
        reason: error.to_string(),
    }
}
