//! What raft has ready: entries and votes become jobs, committed entries become events, messages wait for what they
//! rest on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use raft::eraftpb::{Entry, EntryType, Message};
use raft::{ProgressState, RawNode, Ready, SnapshotStatus, StateRole};

use super::entry;
use super::error::QuorumError;
use super::log::Op;
use super::message::{self, node_id};
use super::node::{Batch, Quorum};
use super::snapshot;
use super::state::VoterState;
use super::store::Store;
use super::types::{CommittedBatch, Event, Outgoing};
use crate::record::batch::BatchHeader;

/// The wait for a snapshot's acknowledgement doubles this many times.
const SNAPSHOT_FAILURES_COUNTED_MAX: u32 = 5;

impl Quorum {
    /// raft sends a follower nothing more after a snapshot until it is told how that went. A snapshot, or the answer to
    /// it, may be lost without anybody noticing: after a while it counts as failed, after longer each time.
    pub(super) fn give_up_lost_snapshots(&mut self) -> Result<(), QuorumError> {
        let mut lost = Vec::new();
        let peers = self.raft.raft.prs().iter();
        for (peer, progress) in peers {
            if self.leads.is_none() || progress.state != ProgressState::Snapshot {
                // an acknowledgement ends the patience, a failure that was reported does not
                if progress.state == ProgressState::Replicate {
                    self.snapshot_patience.remove(peer);
                } else if let Some(patience) = self.snapshot_patience.get_mut(peer) {
                    patience.waited_ticks = 0;
                }
                continue;
            }
            let patience = self.snapshot_patience.entry(*peer).or_default();
            patience.waited_ticks += 1;
            if patience.waited_ticks >= (3 * self.election_ticks) << patience.failures {
                patience.waited_ticks = 0;
                patience.failures = (patience.failures + 1).min(SNAPSHOT_FAILURES_COUNTED_MAX);
                lost.push(*peer);
            }
        }
        if lost.is_empty() {
            return Ok(());
        }
        self.drive(|raft| {
            for peer in lost {
                raft.report_snapshot(peer, SnapshotStatus::Failure);
            }
            Ok(())
        })
    }

    /// Whether another voter's snapshot is being written.
    pub(super) fn is_installing(&self) -> bool {
        !self.snapshot_records.is_empty()
    }

    pub(super) fn check_failed(&self) -> Result<(), QuorumError> {
        match &self.failed {
            Some(reason) => Err(QuorumError::Failed { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    pub(super) fn fail(&mut self, reason: String) -> QuorumError {
        self.failed = Some(reason.clone());
        QuorumError::Failed { reason }
    }

    /// raft panics where an invariant does not hold (its `fatal!`); that ends this instance, not the process.
    pub(super) fn judge(&mut self, result: std::thread::Result<Result<(), QuorumError>>) -> Result<(), QuorumError> {
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                if let QuorumError::Failed { reason } = &error {
                    self.failed = Some(reason.clone());
                }
                Err(error)
            }
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Err(self.fail(text.unwrap_or_else(|| "the consensus panicked".to_owned())))
            }
        }
    }

    pub(super) fn drive(
        &mut self,
        call: impl FnOnce(&mut RawNode<Store>) -> raft::Result<()>,
    ) -> Result<(), QuorumError> {
        self.check_failed()?;
        let result = catch_unwind(AssertUnwindSafe(|| {
            call(&mut self.raft).map_err(|error| QuorumError::Failed {
                reason: error.to_string(),
            })?;
            self.note_role();
            Ok(())
        }));
        self.judge(result)
    }

    /// After anything that may have changed the role: a new leader has just appended its empty entry, which becomes
    /// Kafka's `LeaderChange` batch.
    pub(super) fn note_role(&mut self) {
        let raft = &self.raft.raft;
        let epoch = raft.term as i32;
        let now_leads = (raft.state == StateRole::Leader).then_some(epoch);
        if now_leads != self.leads {
            if let Some(old) = self.leads.take() {
                self.noop = None;
                if std::mem::take(&mut self.claimed) {
                    self.out.events.push(Event::Resigned { epoch: old });
                }
            }
            if now_leads.is_some() {
                let store = self.raft.store();
                let base_offset = store.table().end_offset();
                let batch = entry::leader_change_batch(base_offset, epoch, self.wall_ms, self.own_id, store.voters());
                self.noop = Some((raft.raft_log.last_index(), batch));
                self.next_offset = base_offset + 1;
                self.leads = now_leads;
            }
        }
        let leader = (node_id(raft.leader_id), epoch);
        if leader != self.known_leader {
            self.known_leader = leader;
            self.out.events.push(Event::LeaderChanged {
                leader_id: leader.0,
                epoch,
            });
        }
    }

    pub(super) fn collect(&mut self) -> Result<(), QuorumError> {
        loop {
            while self.raft.has_ready() {
                let ready = self.raft.ready();
                self.handle(ready)?;
                self.note_role();
            }
            if !self.next.fresh || !self.next.ops.is_empty() || self.in_flight.is_some() {
                break;
            }
            // nothing to write, and nothing before it is still being written
            let batch = std::mem::take(&mut self.next);
            self.finish_quietly(batch);
        }
        if let Some(id) = self.raft.store().take_wanted_snapshot() {
            self.next.ops.push(Op::LoadSnapshot(id));
        }
        Ok(())
    }

    pub(super) fn handle(&mut self, mut ready: Ready) -> Result<(), QuorumError> {
        let messages = ready.take_messages();
        self.encode_into(messages, false);
        let persisted = ready.take_persisted_messages();
        if !ready.snapshot().is_empty() {
            self.install(&ready)?;
        }
        if let Some(hard_state) = ready.hs() {
            self.raft.mut_store().set_hard_state(hard_state.clone());
            let vote = (hard_state.term, hard_state.vote);
            if vote != self.vote {
                self.vote = vote;
                self.next.ops.push(Op::VoterState(VoterState {
                    epoch: hard_state.term as i32,
                    voted_id: node_id(hard_state.vote),
                    leader_id: self.known_leader.0,
                }));
            }
        }
        let mut entries = ready.take_entries();
        for entry in &mut entries {
            self.fill(entry);
        }
        if let Some(first) = entries.first() {
            self.cap_in_flight(first.index - 1);
        }
        self.raft.mut_store().append(&entries, &mut self.next.ops)?;
        self.encode_into(persisted, true);
        let committed = ready.take_committed_entries();
        self.next.number = ready.number();
        self.next.last_index = self.raft.store().table().last_index();
        self.next.fresh = true;
        self.raft.advance_append_async(ready);
        let applied = committed.last().map(|entry| entry.index);
        self.deliver(committed)?;
        if let Some(index) = applied {
            self.raft.advance_apply_to(index);
        }
        Ok(())
    }

    /// What is being written now is replaced from here on by what comes next: its end is no proof for the new entries.
    pub(super) fn cap_in_flight(&mut self, index: u64) {
        if let Some(batch) = &mut self.in_flight {
            batch.last_index = batch.last_index.min(index);
        }
    }

    pub(super) fn fill(&self, entry: &mut Entry) {
        if !entry.data.is_empty() || entry.get_entry_type() != EntryType::EntryNormal {
            return;
        }
        if let Some((_, batch)) = self.noop.as_ref().filter(|(index, _)| *index == entry.index) {
            entry.data = batch.clone();
        }
    }

    pub(super) fn encode_into(&mut self, messages: Vec<Message>, after_persist: bool) {
        for mut message in messages {
            let to = node_id(message.to);
            for entry in message.mut_entries().iter_mut() {
                self.fill(entry);
            }
            if let Some(bytes) = message::encode(&message) {
                let list = if after_persist {
                    &mut self.next.messages
                } else {
                    &mut self.out.messages
                };
                list.push(Outgoing { to, bytes });
            }
        }
    }

    pub(super) fn install(&mut self, ready: &Ready) -> Result<(), QuorumError> {
        let failed = |reason: &str| QuorumError::Failed {
            reason: reason.to_owned(),
        };
        let (id, file) =
            message::split_snapshot_data(&ready.snapshot().data).ok_or_else(|| failed("a snapshot without an id"))?;
        let (meta, records) = snapshot::decode(id, &file)?;
        self.cap_in_flight(0);
        let op = self.raft.mut_store().install(meta.clone(), &file);
        self.next.ops.push(op);
        self.next.installed = Some(meta);
        self.snapshot_records.push_back((id, records));
        Ok(())
    }

    pub(super) fn deliver(&mut self, committed: Vec<Entry>) -> Result<(), QuorumError> {
        for mut entry in committed {
            self.fill(&mut entry);
            let failed = |reason: String| QuorumError::Failed { reason };
            let header = BatchHeader::parse(&entry.data).map_err(|error| failed(error.to_string()))?;
            let records = if header.is_control() {
                Vec::new()
            } else {
                entry::values(&entry.data).map_err(|error| failed(error.to_string()))?
            };
            let epoch = header.partition_leader_epoch();
            self.high_watermark = header.next_offset();
            self.out.events.push(Event::Committed(CommittedBatch {
                base_offset: header.base_offset(),
                last_offset: header.last_offset(),
                epoch,
                timestamp_ms: header.max_timestamp(),
                records,
            }));
            if self.noop.as_ref().is_some_and(|(index, _)| *index == entry.index) && self.leads == Some(epoch) {
                self.claimed = true;
                self.out.events.push(Event::Claimed { epoch });
            }
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, batch: Batch) -> Result<(), QuorumError> {
        let result = catch_unwind(AssertUnwindSafe(|| {
            self.finish_quietly(batch);
            Ok(())
        }));
        self.judge(result)
    }

    pub(super) fn finish_quietly(&mut self, mut batch: Batch) {
        self.out.messages.append(&mut batch.messages);
        if let Some(meta) = batch.written {
            self.writing_snapshot = false;
            let op = self.raft.mut_store().snapshot_written(meta);
            self.next.ops.extend(op);
        }
        let mut installed = None;
        if let Some(meta) = batch.installed
            && let Some((_, records)) = self.snapshot_records.pop_front()
        {
            self.high_watermark = meta.id.end_offset;
            installed = Some(meta.index);
            self.out.events.push(Event::Snapshot { meta, records });
        }
        if batch.fresh {
            self.raft.mut_store().set_persisted(batch.last_index);
            self.raft.on_persist_ready(batch.number);
            if let Some(index) = installed {
                self.raft.advance_apply_to(index);
            }
            self.note_role();
        }
    }
}
