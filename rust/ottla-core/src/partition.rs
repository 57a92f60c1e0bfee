//! One partition: its log, leadership cell, high watermark and last stable offset.
//!
//! Appends and completions are here; opening and closing in `lifecycle`, reads in `read`, lookups in `lookup`. All state is
//! behind one lock that is never held across I/O: what needs files first takes what it needs to know, then reads without it.

mod batches;
mod lifecycle;
mod lookup;
mod maintenance;
mod read;
mod transactions;
mod types;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

pub use batches::{BatchExtent, BatchesRead};
pub(crate) use maintenance::CleanCandidate;
pub use transactions::ActiveProducer;
pub use types::{
    AbortedTxn, AppendState, Appended, Cut, EARLIEST_LOCAL_TIMESTAMP, EARLIEST_PENDING_UPLOAD_TIMESTAMP,
    EARLIEST_TIMESTAMP, EpochEndOffset, FileSlice, LATEST_TIERED_TIMESTAMP, LATEST_TIMESTAMP, ListedOffset,
    MAX_TIMESTAMP, PartitionOffsets, Progress, ReadResult,
};

use crate::error::{Error, Result};
use crate::record::validate::ValidatedBatch;
use crate::storage::cache::lock;
use crate::storage::config::LogConfig;
use crate::storage::log::{self, Incoming, Log, LogPosition, batch_info, end_txn_marker};
use crate::storage::log_dir::{Completion, LogDir, Outcome, PartitionId};
use crate::storage::producer_state::{BatchInfo, Checks};
use crate::storage::recovery::RecoveryReport;
use crate::storage::verification::Verified;
use crate::types::{Isolation, TopicId, TopicPartition};

/// How to open or create a partition.
#[derive(Clone, Debug)]
pub struct PartitionOptions {
    /// The name of its completions.
    pub id: PartitionId,
    /// Topic and index.
    pub topic_partition: TopicPartition,
    /// The topic's id; compared with `partition.metadata` where that exists.
    pub topic_id: TopicId,
    /// The topic's settings.
    pub config: LogConfig,
}

/// One partition. Internally locked; the lock is never held across I/O.
#[derive(Debug)]
#[allow(clippy::struct_field_names, reason = "topic_partition is what Kafka calls it")]
pub struct Partition {
    id: PartitionId,
    topic_partition: TopicPartition,
    topic_id: TopicId,
    dir: Arc<LogDir>,
    path: Arc<Path>,
    /// Its records are the broker's own (commits, metadata): it may use the space kept back on a full disk.
    is_internal: bool,
    state: Mutex<State>,
    /// Held by whoever exchanges files of the log; taken before `state`.
    maintenance: Mutex<()>,
    unfinished_swap: Mutex<Option<maintenance::UnfinishedSwap>>,
}

#[derive(Debug)]
struct State {
    log: Log,
    status: Status,
    leader: Leadership,
    high_watermark: LogPosition,
    /// The high watermark that `on_completion` last told of.
    told_high_watermark: i64,
    /// Failed generations that `on_completion` has not told of.
    untold_failure: bool,
    /// What of the log was lost since somebody last looked.
    cut: Option<Cut>,
    /// When records were first seen that `flush.ms` must sync, in monotonic ms.
    unsynced_since_ms: Option<i64>,
    /// Base offset of a segment and position in it where damage was last told of.
    told_damage: Option<(i64, u64)>,
    /// When idle producers were last looked for, in monotonic ms.
    producers_checked_ms: Option<i64>,
    report: RecoveryReport,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Status {
    Online,
    Offline(String),
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Leadership {
    is_leader: bool,
    epoch: i32,
    /// The log end offset when the epoch began: until the high watermark is there, "latest" is not known.
    epoch_start_offset: i64,
}

impl State {
    /// What all replicas in sync have. There is one replica, so it is what this broker has; with more, the least of theirs.
    fn replicated(&self) -> LogPosition {
        self.log.visible
    }

    /// The high watermark never goes back on the leader.
    fn advance_high_watermark(&mut self) {
        let replicated = self.replicated();
        if replicated.offset >= self.high_watermark.offset {
            self.high_watermark = replicated;
            self.log.producers.on_high_watermark(replicated.offset);
            self.log
                .io
                .cell
                .high_watermark
                .store(replicated.offset, Ordering::Relaxed);
        }
    }

    /// Deleted records of an open transaction are not waited for, but what is left of it is.
    fn last_stable_offset(&self) -> i64 {
        let (high_watermark, log_start_offset) = (self.high_watermark.offset, self.log.log_start_offset);
        self.log
            .producers
            .first_unstable_offset()
            .map_or(high_watermark, |offset| {
                offset.max(log_start_offset).min(high_watermark)
            })
    }

    /// A repeated batch is answered with what its first copy was given (Kafka: `UnifiedLog.append`).
    fn find_duplicate(&self, info: &BatchInfo) -> Option<Appended> {
        let batch = self.log.producers.find_duplicate(info)?;
        Some(Appended {
            base_offset: batch.first_offset(),
            last_offset: batch.last_offset,
            log_append_time_ms: batch.timestamp,
            log_start_offset: self.log.log_start_offset,
            duplicate: true,
            generation: self.log.generation,
        })
    }

    fn visible_end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark.offset,
            Isolation::ReadCommitted => self.last_stable_offset(),
        }
    }

    /// The log ends where it was written to, and whoever has taken its content in must hear of that.
    fn note_cut(&mut self, is_reloaded: bool) {
        let offset = self.log.written_offset;
        let before = self.cut.unwrap_or(Cut { offset, is_reloaded });
        self.cut = Some(Cut {
            offset: offset.min(before.offset),
            is_reloaded: is_reloaded || before.is_reloaded,
        });
    }

    fn told(&mut self) -> Progress {
        let high_watermark_moved = self.high_watermark.offset > self.told_high_watermark;
        self.told_high_watermark = self.high_watermark.offset;
        Progress {
            high_watermark_moved,
            appends_failed: std::mem::take(&mut self.untold_failure),
            went_offline: false,
        }
    }
}

impl Partition {
    /// Topic and index.
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.topic_partition
    }

    /// The name of its completions.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// The topic's id.
    pub fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// The directory that holds it.
    pub fn log_dir(&self) -> &Arc<LogDir> {
        &self.dir
    }

    fn check_online(&self, state: &State) -> Result<()> {
        match &state.status {
            Status::Online => Ok(()),
            Status::Offline(reason) => Err(Error::LogOffline {
                topic_partition: self.topic_partition.clone(),
                reason: reason.clone(),
            }),
            Status::Closed => Err(Error::LogClosed {
                topic_partition: self.topic_partition.clone(),
            }),
        }
    }

    /// -1 (a client that knows no epoch) passes.
    fn check_leader(&self, state: &State, current_leader_epoch: i32) -> Result<()> {
        let current = state.leader.epoch;
        let topic_partition = || self.topic_partition.clone();
        if current_leader_epoch != -1 && current_leader_epoch < current {
            return Err(Error::FencedLeaderEpoch {
                topic_partition: topic_partition(),
                found: current_leader_epoch,
                current,
            });
        }
        if current_leader_epoch > current {
            return Err(Error::UnknownLeaderEpoch {
                topic_partition: topic_partition(),
                found: current_leader_epoch,
                current,
            });
        }
        if state.leader.is_leader {
            Ok(())
        } else {
            Err(Error::NotLeader {
                topic_partition: topic_partition(),
            })
        }
    }

    /// Assign offsets, check the producer, stamp, roll if needed, take the bytes into the tail and queue their write.
    /// Never touches the disk. QUICK.
    ///
    /// `required_leader_epoch`: refuse unless it is the current one (coordinators write under the epoch they loaded in), and
    /// the appender has heard of everything that was lost (`take_cut`).
    ///
    /// # Errors
    /// `NotLeader`, `FencedLeaderEpoch`, `UnknownLeaderEpoch`, `RecordListTooLarge`, `OutOfOrderSequence`,
    /// `InvalidProducerEpoch`, `InvalidTxnState`, `TransactionCoordinatorFenced`, `NoSpace`, `LogOffline`, `LogCut`,
    /// `LogClosed`.
    pub fn append_as_leader(
        &self,
        batch: ValidatedBatch,
        required_leader_epoch: Option<i32>,
        wall_ms: i64,
    ) -> Result<Appended> {
        let view = batch.view();
        let checks = if view.is_control() {
            Checks::Marker { transaction_version: 0 }
        } else if view.base_sequence() < 0 {
            Checks::Coordinator(Verified::NotRequired)
        } else {
            Checks::Client(Verified::NotRequired)
        };
        self.append(batch, required_leader_epoch, checks, wall_ms)
    }

    /// As `append_as_leader`, with what is to be checked of the producer.
    ///
    /// # Errors
    /// As `append_as_leader`.
    pub fn append(
        &self,
        mut batch: ValidatedBatch,
        required_leader_epoch: Option<i32>,
        checks: Checks,
        wall_ms: i64,
    ) -> Result<Appended> {
        let mut state = lock(&self.state);
        self.check_online(&state)?;
        self.check_leader(&state, required_leader_epoch.unwrap_or(-1))?;
        if required_leader_epoch.is_some() && state.cut.is_some() {
            return Err(Error::LogCut {
                topic_partition: self.topic_partition.clone(),
            });
        }
        let log_append_time_ms = batch.log_append_time_ms();
        let (leader_epoch, base_offset) = (state.leader.epoch, state.log.next_offset);
        batch.stamp(base_offset, leader_epoch);
        let view = batch.view();
        let marker = end_txn_marker(&view);
        let producer = (view.producer_id() >= 0).then(|| batch_info(*view, marker));
        // Without sequences two batches are never the same, however alike.
        if matches!(checks, Checks::Client(_))
            && let Some(duplicate) = producer.and_then(|info| state.find_duplicate(&info))
        {
            return Ok(duplicate);
        }
        if self.dir.is_full() && !self.is_internal {
            return Err(Error::NoSpace {
                dir: self.dir.path().display().to_string(),
                topic_partition: self.topic_partition.clone(),
            });
        }
        log::check_size(batch.size_bytes(), &state.log.config, &self.topic_partition)?;
        let (last_offset, max_timestamp) = (view.last_offset(), view.max_timestamp());
        let bytes = batch.into_bytes().freeze();
        let incoming = Incoming {
            bytes,
            last_offset,
            max_timestamp,
            leader_epoch,
            producer,
            checks,
        };
        let assigned = state.log.append(incoming, wall_ms)?;
        Ok(Appended {
            base_offset: assigned.base_offset,
            last_offset: assigned.last_offset,
            log_append_time_ms,
            log_start_offset: state.log.log_start_offset,
            duplicate: false,
            generation: state.log.generation,
        })
    }

    /// Where an append stands. QUICK.
    pub fn append_state(&self, appended: &Appended) -> AppendState {
        let state = lock(&self.state);
        if let Some(cut) = state.log.cut_of(appended.generation)
            && appended.last_offset >= cut
        {
            return AppendState::Failed;
        }
        if appended.last_offset < state.high_watermark.offset {
            AppendState::Committed
        } else if state.status != Status::Online {
            AppendState::Failed
        } else if appended.last_offset < state.log.visible.offset {
            AppendState::Written
        } else {
            AppendState::Pending
        }
    }

    /// Feed a completion of this partition's jobs. QUICK.
    pub fn on_completion(&self, completion: &Completion) -> Progress {
        let mut state = lock(&self.state);
        let current = state.log.generation;
        match &completion.outcome {
            Outcome::Written {
                next_offset,
                generation,
            } if *generation == current => {
                state.log.on_written(*next_offset);
                state.advance_high_watermark();
            }
            Outcome::Synced {
                next_offset,
                generation,
            } if *generation == current => {
                state.log.on_synced(*next_offset);
                state.advance_high_watermark();
            }
            Outcome::Failed {
                generation,
                no_space,
                reason,
            } if *generation == current => {
                state.untold_failure = true;
                if *no_space {
                    state.log.roll_back();
                    state.note_cut(false);
                } else if state.status == Status::Online {
                    state.status = Status::Offline(reason.clone());
                    return Progress {
                        went_offline: true,
                        ..state.told()
                    };
                }
            }
            // Of a generation that ended: told already.
            _ => {}
        }
        state.told()
    }

    /// What was lost of the log since the last call: appends that were taken and could not be written. Until it is asked for,
    /// nobody who requires a leader epoch may append: what he appends would rest on what is lost. QUICK.
    pub fn take_cut(&self) -> Option<Cut> {
        lock(&self.state).cut.take()
    }

    /// The offsets at this moment. QUICK.
    pub fn offsets(&self) -> PartitionOffsets {
        let state = lock(&self.state);
        PartitionOffsets {
            log_start_offset: state.log.log_start_offset,
            high_watermark: state.high_watermark.offset,
            last_stable_offset: state.last_stable_offset(),
            log_end_offset: state.log.next_offset,
            written_offset: state.log.written_offset,
            leader_epoch: state.leader.epoch,
        }
    }

    /// Become leader in `leader_epoch`. QUICK.
    ///
    /// # Errors
    /// `FencedLeaderEpoch` if a newer epoch is known, `LogClosed`.
    pub fn set_leadership(&self, leader_epoch: i32) -> Result<()> {
        let mut state = lock(&self.state);
        if state.status == Status::Closed {
            return Err(Error::LogClosed {
                topic_partition: self.topic_partition.clone(),
            });
        }
        if leader_epoch < state.leader.epoch {
            return Err(Error::FencedLeaderEpoch {
                topic_partition: self.topic_partition.clone(),
                found: leader_epoch,
                current: state.leader.epoch,
            });
        }
        if state.leader.is_leader && state.leader.epoch == leader_epoch {
            return Ok(());
        }
        let epoch_start_offset = state.log.next_offset;
        state.leader = Leadership {
            is_leader: true,
            epoch: leader_epoch,
            epoch_start_offset,
        };
        state.log.begin_epoch(leader_epoch);
        Ok(())
    }

    /// Take new settings; they hold from the next append on. QUICK.
    pub fn configure(&self, config: LogConfig) {
        let mut state = lock(&self.state);
        let synced_before_visible = state.log.config.flush_messages <= 1;
        state.log.config = Arc::new(config);
        if synced_before_visible != (state.log.config.flush_messages <= 1) {
            // What waits for a sync that nobody asks for any more, or has not asked for yet, must not wait for ever.
            state.log.request_sync();
        }
    }

    /// The settings now. QUICK.
    pub fn config(&self) -> Arc<LogConfig> {
        Arc::clone(&lock(&self.state).log.config)
    }

    /// Bytes of all segments, the unwritten tail included. QUICK.
    pub fn size_bytes(&self) -> u64 {
        lock(&self.state).log.size_bytes()
    }

    /// Move the log start offset up to `offset` (-1: the high watermark); returns the new one. Files go later. QUICK.
    ///
    /// # Errors
    /// `OffsetOutOfRange` above the high watermark, `PolicyViolation` for a topic that is only compacted, `NotLeader`.
    pub fn delete_records(&self, offset: i64) -> Result<i64> {
        let mut state = lock(&self.state);
        self.check_online(&state)?;
        self.check_leader(&state, -1)?;
        let policy = state.log.config.cleanup_policy;
        if policy.compact && !policy.delete {
            return Err(Error::PolicyViolation {
                topic_partition: self.topic_partition.clone(),
                reason: "records of a topic that is only compacted cannot be deleted",
            });
        }
        let high_watermark = state.high_watermark.offset;
        let offset = if offset == -1 { high_watermark } else { offset };
        if !(0..=high_watermark).contains(&offset) {
            return Err(Error::OffsetOutOfRange {
                topic_partition: self.topic_partition.clone(),
                offset,
                log_start_offset: state.log.log_start_offset,
                log_end_offset: high_watermark,
            });
        }
        state.log.advance_log_start_offset(offset);
        state.log.remove_segments_below_start();
        Ok(state.log.log_start_offset)
    }

    /// Syncs due by `flush.ms` are queued; producers whose time is over are forgotten. QUICK; call every second or so.
    pub fn on_tick(&self, now_ms: i64, wall_ms: i64) {
        let mut state = lock(&self.state);
        if state.status != Status::Online {
            return;
        }
        if state.log.messages_since_sync() == 0 {
            state.unsynced_since_ms = None;
        } else {
            let since_ms = *state.unsynced_since_ms.get_or_insert(now_ms);
            if now_ms - since_ms >= state.log.config.flush_ms {
                state.unsynced_since_ms = None;
                state.log.request_sync();
            }
        }
        // Not at once: records with old timestamps may be written again by a producer that saw no answer.
        let checked_ms = *state.producers_checked_ms.get_or_insert(now_ms);
        if now_ms - checked_ms >= state.log.config.producer_id_expiration_check_interval_ms {
            state.producers_checked_ms = Some(now_ms);
            let expiration_ms = state.log.config.producer_id_expiration_ms;
            state.log.producers.expire(now_ms, wall_ms, expiration_ms);
        }
    }

    /// What opening it found and did, for the broker's log. QUICK.
    pub fn recovery_report(&self) -> RecoveryReport {
        lock(&self.state).report.clone()
    }

    /// Whether the log serves. QUICK.
    pub fn is_online(&self) -> bool {
        lock(&self.state).status == Status::Online
    }

    /// Why the log is offline, if it is. QUICK.
    pub fn offline_reason(&self) -> Option<String> {
        match &lock(&self.state).status {
            Status::Offline(reason) => Some(reason.clone()),
            Status::Online | Status::Closed => None,
        }
    }
}
