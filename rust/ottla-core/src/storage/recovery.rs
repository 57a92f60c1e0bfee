//! Opening a partition's directory: leftovers, segments, the end of the log, producers and epochs.
//!
//! How much is looked at depends on the last stop (see `log_dir`): after a clean one only the end of the last segment is
//! walked; after the process died, the last segment from its last index entry on, with checksums; after a power failure,
//! everything from the recovery point on. Bad bytes at the very end are a torn write: cut, and reported. Bad bytes with
//! whole batches behind them are damage: the partition stays closed, so that nobody decides silently what is lost.

mod end_of_log;
mod replay;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::config::LogConfig;
use super::damage::{self, Verdict};
use super::epoch_cache::EpochCache;
use super::index::IndexEntry;
use super::leftovers;
use super::log::{ActiveSegment, ClosedSegment, LogParts};
use super::log_dir::LastStop;
use super::offset_index::OffsetEntry;
use super::producer_state::ProducerState;
use super::segment::{Files, IndexBuilder, Segment, file_name, parse_file_name, remove_if_there};
use super::time_index::TimeEntry;
use super::txn_index::AbortedTxnRow;
use super::walk::{Walk, WalkError};
use super::writer::is_no_space;
use crate::error::{Error, Result};
use crate::record::batch::{BATCH_OVERHEAD, BatchHeader};
use crate::types::TopicPartition;

/// What is known before a look into the directory.
pub(crate) struct LoadContext<'a> {
    pub files: &'a Files,
    pub dir: &'a Arc<Path>,
    pub topic_partition: &'a TopicPartition,
    pub config: &'a LogConfig,
    pub last_stop: LastStop,
    /// From the checkpoints.
    pub log_start_offset: i64,
    pub recovery_point: i64,
    /// Not this broker wrote the log, so a compacted one may have gaps above the recovery point, too.
    pub is_foreign: bool,
    pub wall_ms: i64,
}

/// What was found and done, for the broker's log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecoveryReport {
    /// Bytes that were read with their checksums.
    pub scanned_bytes: u64,
    /// Torn writes that were cut off: file, where, how many bytes.
    pub cut: Vec<CutTail>,
    /// Other things worth a line.
    pub notes: Vec<String>,
}

impl RecoveryReport {
    /// Each thing in a line.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let cut = self.cut.iter().map(|tail| {
            let CutTail {
                file,
                position,
                size_bytes,
                reason,
            } = tail;
            format!("{size_bytes} bytes were cut off {file} at {position}: {reason}")
        });
        cut.chain(self.notes.iter().cloned())
    }
}

/// A torn write at the end of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CutTail {
    /// The file, without its directory.
    pub file: String,
    /// Where it was cut, in bytes.
    pub position: u64,
    /// How many bytes were cut off.
    pub size_bytes: u64,
    /// What was wrong with them.
    pub reason: String,
}

/// Open the log in a directory that exists.
pub(crate) fn load(context: &LoadContext<'_>) -> Result<(LogParts, RecoveryReport)> {
    let mut loader = Loader {
        context,
        report: RecoveryReport::default(),
        has_removed: false,
        is_after_power_failure: false,
    };
    let parts = loader.load()?;
    // What comes back would be taken for a part of what is written from now on. A recovery that was interrupted may have
    // cut and removed before, without a trace but in memory.
    if loader.is_after_power_failure {
        match parts.active.segment.file(context.files, false) {
            Ok(file) => file.sync_data().map_err(reading)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(reading(error)),
        }
    }
    if loader.has_removed || loader.is_after_power_failure {
        context.files.fs.sync_dir(context.dir).map_err(reading)?;
    }
    Ok((parts, loader.report))
}

/// The log of a directory that was just made.
pub(crate) fn empty(context: &LoadContext<'_>) -> (LogParts, RecoveryReport) {
    let base_offset = context.log_start_offset;
    let segment = Segment::new(Arc::clone(context.dir), base_offset);
    let parts = LogParts {
        closed: Vec::new(),
        active: ActiveSegment::new(segment, context.wall_ms),
        next_offset: base_offset,
        log_start_offset: base_offset,
        producers: ProducerState::default(),
        epochs: EpochCache::default(),
        last_snapshot: None,
    };
    (parts, RecoveryReport::default())
}

struct Loader<'a> {
    context: &'a LoadContext<'a>,
    report: RecoveryReport,
    /// Files were removed since the directory was listed.
    has_removed: bool,
    /// What was not synced may be missing, so everything from the recovery point on was checked.
    is_after_power_failure: bool,
}

/// The end of the last segment.
struct Tail {
    active: ActiveSegment,
    next_offset: i64,
}

impl Loader<'_> {
    fn load(&mut self) -> Result<LogParts> {
        let LoadContext {
            files,
            dir,
            log_start_offset,
            ..
        } = *self.context;
        let names = leftovers::clear(files, dir, &mut self.report.notes).map_err(reading)?;
        let mut segments = self.list_segments(&names).map_err(reading)?;
        let mut is_unsure = self.context.last_stop != LastStop::Clean;
        let mut tail = None;
        if self.context.last_stop == LastStop::CleanEarlierBoot {
            // A clean stop syncs everything and leaves the recovery point at the end. If that is where the log ends, the stop
            // is as good as one of this boot; a longer log was not synced, of a shorter one the disk has lost a part.
            tail = self
                .open_last(&segments, false)?
                .filter(|tail| tail.next_offset == self.context.recovery_point);
            is_unsure = tail.is_none();
        }
        // Everything from here on is walked again for producers and transactions.
        let mut checked_from = i64::MAX;
        self.is_after_power_failure = is_unsure && self.context.last_stop != LastStop::ProcessDied;
        if self.is_after_power_failure {
            checked_from = self.check_from_recovery_point(&mut segments)?;
        }
        let mut tail = match tail {
            Some(tail) => tail,
            None => match self.open_last(&segments, is_unsure)? {
                Some(tail) => tail,
                // The end is not what a clean stop leaves: look at it as after a crash.
                None => self
                    .open_last(&segments, true)?
                    .ok_or_else(|| reading(io::ErrorKind::InvalidData.into()))?,
            },
        };
        segments.pop();
        if tail.next_offset < log_start_offset {
            // Kafka starts over at the log start offset: everything below it is deleted already.
            self.report.notes.push(format!(
                "the log ends at {}, below its start offset {log_start_offset}, and starts over there",
                tail.next_offset
            ));
            for (segment, _) in &segments {
                self.remove_segment(segment).map_err(reading)?;
            }
            self.remove_segment(&tail.active.segment).map_err(reading)?;
            segments.clear();
            for name in names
                .iter()
                .filter(|name| matches!(parse_file_name(name), Some((_, "snapshot"))))
            {
                remove_if_there(&*files.fs, &dir.join(name)).map_err(reading)?;
            }
            let segment = Segment::new(Arc::clone(dir), log_start_offset);
            tail = Tail {
                active: ActiveSegment::new(segment, self.context.wall_ms),
                next_offset: log_start_offset,
            };
        }
        if tail.next_offset < self.context.recovery_point {
            self.report.notes.push(format!(
                "the log ends at {}, but everything below {} had been synced: the disk has lost it",
                tail.next_offset, self.context.recovery_point
            ));
        }
        let names: Vec<String> = if self.has_removed {
            let entries = files.fs.read_dir(dir).map_err(reading)?;
            entries.into_iter().map(|entry| entry.name).collect()
        } else {
            names
        };
        let closed: Vec<ClosedSegment> = segments
            .into_iter()
            .map(|(segment, size_bytes)| {
                let index = file_name(segment.base_offset(), AbortedTxnRow::SUFFIX);
                ClosedSegment {
                    has_aborted: names.contains(&index),
                    segment,
                    size_bytes,
                    unsettled: None,
                }
            })
            .collect();
        let first_base = closed
            .first()
            .map_or(tail.active.base_offset(), |closed| closed.segment.base_offset());
        let log_start_offset = log_start_offset.max(first_base);
        self.replay(&names, closed, tail, log_start_offset, checked_from)
    }

    /// The segments by their `.log` files, and what those hold in bytes; at least one. Indexes without a log go.
    fn list_segments(&mut self, names: &[String]) -> io::Result<Vec<(Arc<Segment>, u64)>> {
        let LoadContext { files, dir, .. } = *self.context;
        let mut segments = BTreeMap::new();
        for name in names {
            if let Some((base_offset, "log")) = parse_file_name(name) {
                let segment = Segment::new(Arc::clone(dir), base_offset);
                let size_bytes = files.fs.file_size_bytes(&segment.path("log"))?;
                segments.insert(base_offset, (segment, size_bytes));
            }
        }
        for name in names {
            if let Some((base_offset, suffix)) = parse_file_name(name)
                && [OffsetEntry::SUFFIX, TimeEntry::SUFFIX, AbortedTxnRow::SUFFIX].contains(&suffix)
                && !segments.contains_key(&base_offset)
            {
                self.report.notes.push(format!("{name} has no log and was removed"));
                files.fs.remove_file(&dir.join(name))?;
            }
        }
        if segments.is_empty() {
            let base_offset = self.context.log_start_offset;
            segments.insert(base_offset, (Segment::new(Arc::clone(dir), base_offset), 0));
        }
        Ok(segments.into_values().collect())
    }

    /// Check, with checksums, every segment that ends above the recovery point, rebuilding its indexes. Whatever follows a
    /// torn write goes. Returns the base offset of the first segment checked.
    fn check_from_recovery_point(&mut self, segments: &mut Vec<(Arc<Segment>, u64)>) -> Result<i64> {
        let recovery_point = self.context.recovery_point;
        let first = segments
            .partition_point(|(segment, _)| segment.base_offset() <= recovery_point)
            .saturating_sub(1);
        let checked_from = segments[first].0.base_offset();
        let mut kept = first;
        let mut next_offset = checked_from;
        // Segments above the recovery point follow each other without a gap (only durable ones are compacted here): one
        // that does not lost its predecessor's end. Apache Kafka compacts those that are not durable as well.
        let may_have_gaps = self.context.is_foreign && self.context.config.cleanup_policy.compact;
        while let Some((segment, size_bytes)) = segments
            .get(kept)
            .cloned()
            .filter(|(segment, _)| segment.base_offset() == next_offset || may_have_gaps)
        {
            kept += 1;
            next_offset = next_offset.max(segment.base_offset());
            if size_bytes == 0 {
                // Indexes of records that are lost would be taken for those of the next ones.
                for suffix in [TimeEntry::SUFFIX, OffsetEntry::SUFFIX] {
                    remove_if_there(&*self.context.files.fs, &segment.path(suffix)).map_err(reading)?;
                }
                continue;
            }
            let mut builder = IndexBuilder::new(segment.base_offset(), self.context.config.index_interval_bytes);
            let end = self.check(&segment, size_bytes, 0, next_offset, &mut builder)?;
            next_offset = builder.next_offset.unwrap_or(next_offset);
            builder
                .finish()
                .write(&*self.context.files.fs, &segment)
                .map_err(reading)?;
            segments[kept - 1].1 = end;
            if end < size_bytes {
                break;
            }
        }
        for (lost, size_bytes) in segments.drain(kept..) {
            self.report.notes.push(format!(
                "{} ({size_bytes} bytes) follows records that were lost and was removed",
                file_name(lost.base_offset(), "log")
            ));
            self.remove_segment(&lost).map_err(reading)?;
        }
        Ok(checked_from)
    }

    /// Walk whole batches from `position` on, feeding the index; returns where good bytes end. What is behind them was cut
    /// off if it was a torn write.
    fn check(
        &mut self,
        segment: &Arc<Segment>,
        size_bytes: u64,
        position: u64,
        next_offset: i64,
        builder: &mut IndexBuilder,
    ) -> Result<u64> {
        let files = self.context.files;
        let file = segment.file(files, false).map_err(reading)?;
        let mut next_offset = next_offset;
        let mut walk = Walk::new(&*file, position, size_bytes);
        let may_have_gaps = self.context.config.cleanup_policy.compact;
        let (bad_at, reason, is_whole) = loop {
            match walk.next_batch() {
                Ok(None) => {
                    self.report.scanned_bytes += size_bytes - position;
                    return Ok(size_bytes);
                }
                Ok(Some((position, batch))) => {
                    if let Some(reason) = misplaced(*batch, segment.base_offset(), next_offset, may_have_gaps) {
                        break (position, reason, true);
                    }
                    builder.add(position as u32, *batch);
                    next_offset = batch.next_offset();
                }
                Err(WalkError::Bad { position, error }) => break (position, error.to_string(), false),
                Err(WalkError::Io(error)) => return Err(reading(error)),
            }
        };
        self.report.scanned_bytes += size_bytes - position;
        let name = file_name(segment.base_offset(), "log");
        let after_power_failure = self.context.last_stop != LastStop::ProcessDied;
        let verdict = if after_power_failure && next_offset < self.context.recovery_point {
            Verdict::Damaged(format!(
                "{reason}; everything below offset {} had been synced",
                self.context.recovery_point
            ))
        } else if is_whole && !after_power_failure {
            // No write that was interrupted leaves a batch with a good checksum and another one's offset.
            Verdict::Damaged("its checksum is good".to_owned())
        } else {
            damage::judge(&*file, bad_at, size_bytes, next_offset, after_power_failure).map_err(reading)?
        };
        if let Verdict::Damaged(behind) = verdict {
            return Err(Error::Damaged {
                file: format!("{}/{name}", self.context.topic_partition),
                position: bad_at,
                reason: format!("{reason}; {behind}"),
            });
        }
        if !self.is_after_power_failure {
            // Were this start interrupted before the cut is durable, the next one would find nothing to cut. And the torn
            // batch may lack only zeros, by which a file grows in a power failure: it must not become whole then.
            let spoilt = [0xff; BATCH_OVERHEAD];
            let spoilt = &spoilt[..spoilt.len().min((size_bytes - bad_at) as usize)];
            let written = file.write_all_at(&[io::IoSlice::new(spoilt)], bad_at);
            match written.and_then(|()| file.sync_data()) {
                // Where overwriting takes room: the cut makes some.
                Err(error) if is_no_space(&error) => {}
                written => written.map_err(Error::storage("spoiling a torn write"))?,
            }
        }
        // Behind what is written from now on, whole batches of a torn write would be taken for its continuation.
        file.truncate(bad_at)
            .and_then(|()| file.sync_data())
            .map_err(Error::storage("cutting off a torn write"))?;
        self.report.cut.push(CutTail {
            file: name,
            position: bad_at,
            size_bytes: size_bytes - bad_at,
            reason,
        });
        Ok(bad_at)
    }

    fn remove_segment(&mut self, segment: &Segment) -> io::Result<()> {
        self.has_removed = true;
        for suffix in [
            "log",
            OffsetEntry::SUFFIX,
            TimeEntry::SUFFIX,
            AbortedTxnRow::SUFFIX,
            "snapshot",
        ] {
            remove_if_there(&*self.context.files.fs, &segment.path(suffix))?;
        }
        Ok(())
    }
}

fn reading(source: io::Error) -> Error {
    Error::Storage {
        doing: "opening a log",
        source,
    }
}

/// Why a batch that is whole cannot be at this place, if so. Offsets are covered by no checksum, but follow each other
/// unless the topic is compacted.
fn misplaced(batch: BatchHeader<'_>, base_offset: i64, next_offset: i64, may_have_gaps: bool) -> Option<String> {
    let found = batch.base_offset();
    if found < next_offset || (found > next_offset && !may_have_gaps) {
        return Some(format!("base offset {found}, {next_offset} expected"));
    }
    if batch.last_offset_delta() < 0 || batch.last_offset() - base_offset > i64::from(i32::MAX) {
        return Some(format!(
            "last offset {} does not fit a segment that begins at {base_offset}",
            batch.last_offset()
        ));
    }
    None
}
