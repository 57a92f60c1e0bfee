//! Opening, flushing, recovering, closing and deleting a partition. These calls read and write files.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::{Leadership, Partition, PartitionOptions, State, Status};
use crate::error::{Error, Result};
use crate::storage::cache::lock;
use crate::storage::log::{Log, LogParts};
use crate::storage::log_dir::{LastStop, LogDir};
use crate::storage::meta::{self, PARTITION_METADATA};
use crate::storage::recovery::{self, LoadContext};
use crate::storage::repair;
use crate::storage::writer::LogIo;
use crate::types::TopicId;

impl Partition {
    /// Open the partition's directory below `dir`, creating it if absent and recovering it if the last stop was not
    /// clean. SLOW only when it must recover.
    ///
    /// # Errors
    /// `Storage`, `Damaged` (fenced off: bad bytes with good ones behind them), `InconsistentTopicId`.
    pub fn open(dir: &Arc<LogDir>, options: PartitionOptions, wall_ms: i64) -> Result<Arc<Self>> {
        let PartitionOptions {
            id,
            topic_partition,
            topic_id,
            config,
        } = options;
        let path: Arc<Path> = dir.path().join(topic_partition.to_string()).into();
        let is_new = !dir.contains(&topic_partition);
        if is_new {
            dir.forget_checkpoints(&topic_partition)?;
        }
        let cell = dir.cell(&topic_partition);
        let is_internal = topic_partition.topic.starts_with("__");
        let io = LogIo::new(id, is_internal, 0, cell);
        let topic_id = prepare(dir, &path, topic_id, is_new)?;
        let context = LoadContext {
            files: &dir.files,
            dir: &path,
            topic_partition: &topic_partition,
            config: &config,
            last_stop: if is_new {
                LastStop::Clean
            } else {
                dir.last_stop_of(&topic_partition)
            },
            log_start_offset: io.cell.log_start_offset.load(Ordering::Relaxed),
            recovery_point: io.cell.recovery_point(),
            is_foreign: dir.is_foreign(&topic_partition),
            wall_ms,
        };
        let loaded = if is_new {
            Ok(recovery::empty(&context))
        } else {
            recovery::load(&context)
        };
        let (parts, report) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                dir.note_refused(&topic_partition)?;
                return Err(error);
            }
        };
        for line in report.lines() {
            dir.complain(&format!("{topic_partition}: {line}"));
        }
        lower_recovery_point(dir, &io, parts.next_offset)?;
        dir.note_opened(&topic_partition)?;
        let mut log = make_log(dir, &topic_partition, &path, Arc::new(config), parts, io);
        if log.config.flush_messages <= 1 && log.synced_offset < log.next_offset {
            // Nobody may see what a power failure could still take away.
            log.request_sync();
            dir.wait_written(&log.io);
            if log.io.failed_generation().is_some() {
                let source = std::io::Error::other("the sync of what was found failed");
                return Err(Error::Storage {
                    doing: "opening a log",
                    source,
                });
            }
        }
        let high_watermark = log.visible;
        let mut state = State {
            leader: Leadership {
                is_leader: false,
                epoch: -1,
                epoch_start_offset: log.next_offset,
            },
            told_high_watermark: high_watermark.offset,
            high_watermark,
            log,
            status: Status::Online,
            untold_failure: false,
            cut: None,
            unsynced_since_ms: None,
            told_damage: None,
            producers_checked_ms: None,
            report,
        };
        state.advance_high_watermark();
        let dir = Arc::clone(dir);
        Ok(Arc::new(Self {
            id,
            topic_partition,
            topic_id,
            dir,
            path,
            is_internal,
            state: Mutex::new(state),
            maintenance: Mutex::default(),
            unfinished_swap: Mutex::default(),
        }))
    }

    /// Sync everything appended so far; returns the offset below which all survives a power failure. SLOW.
    ///
    /// # Errors
    /// `LogOffline`, `LogClosed`.
    pub fn flush(&self) -> Result<i64> {
        let (io, generation, next_offset) = {
            let mut state = lock(&self.state);
            self.check_online(&state)?;
            state.log.request_sync();
            (Arc::clone(&state.log.io), state.log.generation, state.log.next_offset)
        };
        self.dir.wait_written(&io);
        match io.failed_generation() {
            Some(failed) if failed >= generation => Err(Error::LogOffline {
                topic_partition: self.topic_partition.clone(),
                reason: "a write or sync failed".to_owned(),
            }),
            _ => Ok(next_offset),
        }
    }

    /// Bring an offline log back through recovery. Data that was not synced is written once more: after a failed sync the
    /// system counts it as written whether or not it is. SLOW.
    ///
    /// # Errors
    /// `Storage` and `Damaged`: it stays offline. `LogClosed`.
    pub fn reopen(&self, wall_ms: i64) -> Result<()> {
        let _maintenance = lock(&self.maintenance);
        let (io, config, log_start_offset) = {
            let state = lock(&self.state);
            match state.status {
                Status::Online => return Ok(()),
                Status::Closed => {
                    return Err(Error::LogClosed {
                        topic_partition: self.topic_partition.clone(),
                    });
                }
                Status::Offline(_) => {}
            }
            (
                Arc::clone(&state.log.io),
                Arc::clone(&state.log.config),
                state.log.log_start_offset,
            )
        };
        self.dir.wait_written(&io);
        repair::rewrite_unsynced(&self.dir.files, &self.path, io.cell.recovery_point())?;
        self.reload(&io, &config, log_start_offset, wall_ms)?;
        lock(&self.state).status = Status::Online;
        Ok(())
    }

    /// Cut the log so that it ends at `offset`. The caller appends nothing meanwhile (followers do this before they fetch).
    /// SLOW.
    ///
    /// # Errors
    /// `OffsetOutOfRange` below the log start offset, `Storage`, `LogOffline`, `LogClosed`.
    pub fn truncate_to(&self, offset: i64, wall_ms: i64) -> Result<()> {
        let _maintenance = lock(&self.maintenance);
        let (io, config, log_start_offset) = {
            let mut state = lock(&self.state);
            self.check_online(&state)?;
            let (log_start_offset, log_end_offset) = (state.log.log_start_offset, state.log.next_offset);
            if offset < log_start_offset {
                return Err(Error::OffsetOutOfRange {
                    topic_partition: self.topic_partition.clone(),
                    offset,
                    log_start_offset,
                    log_end_offset,
                });
            }
            if offset >= log_end_offset {
                return Ok(());
            }
            // Nobody appends or reads while the files are cut.
            state.status = Status::Offline("being truncated".to_owned());
            state.log.flush_for_close();
            (
                Arc::clone(&state.log.io),
                Arc::clone(&state.log.config),
                log_start_offset,
            )
        };
        self.dir.wait_written(&io);
        if io.cell.recovery_point() > offset {
            io.cell.set_recovery_point(offset);
            self.dir.write_checkpoints()?;
        }
        repair::cut_at(&self.dir.files, &self.path, offset)?;
        self.reload(&io, &config, log_start_offset, wall_ms)?;
        lock(&self.state).status = Status::Online;
        Ok(())
    }

    fn reload(
        &self,
        io: &Arc<LogIo>,
        config: &Arc<crate::storage::config::LogConfig>,
        log_start_offset: i64,
        wall_ms: i64,
    ) -> Result<()> {
        // Recovery carries a swap to its end by the names of the files.
        lock(&self.unfinished_swap).take();
        let (parts, report) = recovery::load(&LoadContext {
            files: &self.dir.files,
            dir: &self.path,
            topic_partition: &self.topic_partition,
            config,
            last_stop: LastStop::ProcessDied,
            log_start_offset,
            recovery_point: io.cell.recovery_point(),
            is_foreign: false,
            wall_ms,
        })?;
        for line in report.lines() {
            self.dir.complain(&format!("{}: {line}", self.topic_partition));
        }
        lower_recovery_point(&self.dir, io, parts.next_offset)?;
        let mut state = lock(&self.state);
        let generation = state.log.generation + 1;
        let io = LogIo::new(self.id, self.is_internal, generation, Arc::clone(&io.cell));
        state.log.reload(parts, io);
        state.log.adopt_unsynced();
        state.untold_failure = true;
        state.note_cut(true);
        state.report = report;
        let visible = state.log.visible;
        if state.high_watermark.offset > visible.offset {
            state.told_high_watermark = state.told_high_watermark.min(visible.offset);
        }
        state.high_watermark = visible;
        state.advance_high_watermark();
        state.leader.epoch_start_offset = state.leader.epoch_start_offset.min(state.log.next_offset);
        let leader_epoch = state.leader.epoch;
        if state.leader.is_leader {
            state.log.begin_epoch(leader_epoch);
        }
        Ok(())
    }

    /// Write out what is pending, the final index entries and the producer snapshot; nothing can be appended after. SLOW.
    ///
    /// # Errors
    /// `LogOffline` if the log cannot be closed in order; it is closed all the same.
    pub fn close(&self) -> Result<()> {
        let _maintenance = lock(&self.maintenance);
        let (io, generation, next_offset) = {
            let mut state = lock(&self.state);
            match std::mem::replace(&mut state.status, Status::Closed) {
                Status::Closed => return Ok(()),
                Status::Offline(reason) => {
                    return Err(Error::LogOffline {
                        topic_partition: self.topic_partition.clone(),
                        reason,
                    });
                }
                Status::Online => {}
            }
            state.log.flush_for_close();
            (Arc::clone(&state.log.io), state.log.generation, state.log.next_offset)
        };
        self.dir.wait_written(&io);
        if io.failed_generation().is_some_and(|failed| failed >= generation) {
            return Err(Error::LogOffline {
                topic_partition: self.topic_partition.clone(),
                reason: "its last writes failed".to_owned(),
            });
        }
        // The completions may be drained after this, or never; what they say is known.
        let mut state = lock(&self.state);
        state.log.on_written(next_offset);
        state.advance_high_watermark();
        io.cell.closed_at.store(next_offset, Ordering::Release);
        Ok(())
    }

    /// Close and remove: renamed to `<topic>-<n>.<32 hex digits>-delete` at once, the files go in a background job. SLOW.
    ///
    /// # Errors
    /// `Storage`.
    pub fn delete(&self) -> Result<()> {
        let _maintenance = lock(&self.maintenance);
        let io = {
            let mut state = lock(&self.state);
            state.status = Status::Closed;
            Arc::clone(&state.log.io)
        };
        self.dir.wait_written(&io);
        self.dir.discard(&self.topic_partition)
    }
}

/// The disk has lost what was synced: what is written in its place is not, and must not count as such.
fn lower_recovery_point(dir: &LogDir, io: &LogIo, next_offset: i64) -> Result<()> {
    if io.cell.recovery_point() > next_offset {
        io.cell.set_recovery_point(next_offset);
        dir.write_checkpoints()?;
    }
    Ok(())
}

fn make_log(
    dir: &Arc<LogDir>,
    topic_partition: &crate::types::TopicPartition,
    path: &Arc<Path>,
    config: Arc<crate::storage::config::LogConfig>,
    parts: LogParts,
    io: Arc<LogIo>,
) -> Log {
    io.cell.closed_at.store(-1, Ordering::Release);
    io.cell
        .log_start_offset
        .store(parts.log_start_offset, Ordering::Relaxed);
    let mut log = Log::new(
        topic_partition.clone(),
        Arc::clone(path),
        config,
        parts,
        io,
        Arc::clone(&dir.queue),
    );
    log.adopt_unsynced();
    log
}

/// Make the directory if it is new and see that `partition.metadata` names the topic. The metadata log knows the topic's
/// id, so the file is not synced and one that cannot be read is made anew.
fn prepare(dir: &LogDir, path: &Path, topic_id: TopicId, is_new: bool) -> Result<TopicId> {
    let fs = &dir.files.fs;
    let file = path.join(PARTITION_METADATA);
    if is_new {
        fs.create_dir_all(path)
            .map_err(Error::storage("creating a partition's directory"))?;
    } else if let Some(found) = fs.read(&file).ok().and_then(|content| meta::decode_partition(&content)) {
        if topic_id.is_zero() || found == topic_id {
            return Ok(found);
        }
        return Err(Error::InconsistentTopicId {
            dir: path.display().to_string(),
            expected: meta::encode_uuid(topic_id),
            found: meta::encode_uuid(found),
        });
    }
    if !topic_id.is_zero() {
        let content = meta::encode_partition(topic_id);
        crate::storage::segment::write_whole(&**fs, &file, content.as_bytes())
            .map_err(Error::storage("writing partition.metadata"))?;
    }
    Ok(topic_id)
}
