//! Acknowledging produced records: when the high watermark is above them, when they are lost, or when it takes too long.

use super::produce::is_settled;
use super::{DataPlane, Now, SessionId};
use crate::partition::{AppendState, Appended};
use crate::session::output::Chunk;
use crate::session::pipeline::Slot;
use crate::session::produce::{PartitionResponse, write_response};
use crate::session::waiting::{PendingProduce, Unacknowledged};
use crate::storage::log_dir::PartitionId;

const NOT_LEADER_OR_FOLLOWER: i16 = 6;
const REQUEST_TIMED_OUT: i16 = 7;
const KAFKA_STORAGE_ERROR: i16 = 56;

impl DataPlane {
    /// Settle the appends of a partition that are committed by now, or lost.
    pub(super) fn acknowledge(&mut self, id: PartitionId, failed: bool, now: Now) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let (partition, queue) = (&entry.partition, &mut entry.attached.unacknowledged);
        let mut settled = Vec::new();
        if failed {
            queue.retain(|(appended, session_id, slot_id)| {
                let state = partition.append_state(appended);
                if is_settled(state) {
                    settled.push((*appended, *session_id, *slot_id, state));
                }
                !is_settled(state)
            });
        } else {
            while let Some((appended, session_id, slot_id)) = queue.front().copied() {
                let state = partition.append_state(&appended);
                if !is_settled(state) {
                    break;
                }
                queue.pop_front();
                settled.push((appended, session_id, slot_id, state));
            }
        }
        for (appended, session_id, slot_id, state) in settled {
            let error = (state == AppendState::Failed).then_some((KAFKA_STORAGE_ERROR, "the write to the log failed"));
            self.settle(session_id, slot_id, id, &appended, error, now);
        }
    }

    /// A partition is served no longer: what waits for it is refused.
    pub(super) fn abandon(&mut self, id: PartitionId, now: Now) {
        self.acknowledge(id, true, now);
        let Some(entry) = self.table.get_mut(id) else { return };
        for (appended, session_id, slot_id) in std::mem::take(&mut entry.attached.unacknowledged) {
            let error = Some((NOT_LEADER_OR_FOLLOWER, "the partition is served no longer"));
            self.settle(session_id, slot_id, id, &appended, error, now);
        }
    }

    fn settle(
        &mut self,
        session_id: SessionId,
        slot_id: u64,
        id: PartitionId,
        appended: &Appended,
        error: Option<(i16, &str)>,
        now: Now,
    ) {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        let Some(Slot::Produce(pending)) = session.slot(slot_id) else {
            return;
        };
        let is_it = |append: &Unacknowledged| append.partition_id == id && append.appended == *appended;
        let Some(index) = pending.unacknowledged.iter().position(is_it) else {
            return;
        };
        let append = pending.unacknowledged.swap_remove(index);
        if let Some((code, message)) = error {
            let response = &mut pending.topics[append.topic].partitions[append.partition];
            *response = PartitionResponse::error(response.partition, code, Some(message.to_owned()));
            self.metrics.produce.errors += 1;
        }
        if pending.unacknowledged.is_empty() {
            self.finish_produce(session_id, slot_id, now);
        }
    }

    pub(super) fn on_produce_timeout(&mut self, session_id: SessionId, slot_id: u64, now: Now) {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        let Some(Slot::Produce(pending)) = session.slot(slot_id) else {
            return;
        };
        for append in std::mem::take(&mut pending.unacknowledged) {
            pending.topics[append.topic].partitions[append.partition].error_code = REQUEST_TIMED_OUT;
            self.metrics.produce.errors += 1;
        }
        self.finish_produce(session_id, slot_id, now);
    }

    fn finish_produce(&mut self, session_id: SessionId, slot_id: u64, now: Now) {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        let Some(Slot::Produce(pending)) = session.slot(slot_id) else {
            return;
        };
        let PendingProduce {
            call,
            deadline_ms,
            topics,
            ..
        } = &**pending;
        let (call, deadline_ms) = (*call, *deadline_ms);
        let reply = write_response(call.version, call.correlation_id, topics);
        session.complete(slot_id, vec![Chunk::Bytes(reply)]);
        self.deadlines.remove(&(deadline_ms, session_id, slot_id));
        self.metrics
            .produce
            .observe(call.size_bytes, now.stopwatch_us.saturating_sub(call.started_us));
        self.touch(session_id);
    }
}
