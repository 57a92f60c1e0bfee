//! Standing writes, of all sessions, and what was appended for them.
//!
//! Whoever lets a write stand keeps a state that follows the partition, and has to take in what was appended here before
//! it looks at that state: `take_written`. It need not know of each append by itself, so the high watermark's moves over
//! such appends alone are not told (`DataPlane::take_moved`), unless they were taken in before they were committed.
//! Of one standing write only the last append that is committed is kept, and the one that is not yet, as nobody saw
//! the state in between: so what is kept is bounded by what stands.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::produce::is_settled;
use super::{DataPlane, Now, SessionId};
use crate::partition::{AppendState, Appended, Partition};
use crate::record::validate::{Origin, validate_produce};
use crate::session::output::Chunk;
use crate::session::pipeline::{OwedRequest, Slot};
use crate::session::standing::StandingId;
use crate::session::standing_write::StandingWrite;
use crate::session::waiting::PendingWrite;
use crate::storage::log_dir::PartitionId;

/// What was appended for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The standing write.
    pub id: StandingId,
    /// Offset of the first record.
    pub base_offset: i64,
    /// When it was appended, on the monotonic clock.
    pub now_ms: i64,
    /// As the records have it, in Unix ms.
    pub wall_ms: i64,
    /// The bytes of the request's holes, one after the other.
    pub said: Vec<u8>,
}

#[derive(Debug)]
struct Waiting {
    appended: Appended,
    session_id: SessionId,
    slot_id: u64,
    /// None: it was taken in.
    written: Option<Written>,
}

/// What was appended to one partition for standing writes.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// Not committed yet, by rising offset.
    waiting: VecDeque<Waiting>,
    /// Committed and not taken in, by base offset.
    committed: BTreeMap<i64, Written>,
    /// The base offset in `committed` of each standing write.
    newest: HashMap<StandingId, i64>,
    /// The high watermark up to which is known what moved it.
    seen_high_watermark: i64,
}

impl Writes {
    /// Take out what is committed by now, or lost. Returns (session, slot, whether it is committed) of each, and how many
    /// offsets were committed of which nobody knows.
    fn settle(&mut self, partition: &Partition, failed: bool) -> (Vec<(SessionId, u64, bool)>, i64) {
        let mut settled = Vec::new();
        let mut unknown = 0;
        let mut kept = VecDeque::new();
        while let Some(waiting) = self.waiting.pop_front() {
            let state = partition.append_state(&waiting.appended);
            if !is_settled(state) {
                kept.push_back(waiting);
                if failed {
                    continue;
                }
                break;
            }
            let is_committed = state == AppendState::Committed;
            settled.push((waiting.session_id, waiting.slot_id, is_committed));
            let Some(written) = waiting.written.filter(|_| is_committed) else {
                continue;
            };
            unknown += waiting.appended.last_offset - waiting.appended.base_offset + 1;
            if let Some(before) = self.newest.insert(written.id, written.base_offset) {
                self.committed.remove(&before);
            }
            self.committed.insert(written.base_offset, written);
        }
        kept.append(&mut self.waiting);
        self.waiting = kept;
        (settled, unknown)
    }

    fn take(&mut self) -> Vec<Written> {
        self.newest.clear();
        let committed = std::mem::take(&mut self.committed).into_values();
        let waiting = self.waiting.iter_mut().filter_map(|waiting| waiting.written.take());
        committed.chain(waiting).collect()
    }
}

impl DataPlane {
    /// Carry out requests of a session so, in place of what stood there before, until it is withdrawn, its partition has
    /// a failure, or the session ends. Nothing happens if there is no such session or partition.
    pub fn let_write_stand(&mut self, session_id: SessionId, write: StandingWrite) {
        let (Some(session), Some(entry)) = (
            self.sessions.get_mut(&session_id),
            self.table.get_mut(write.partition_id),
        ) else {
            return;
        };
        entry.attached.writes.seen_high_watermark = entry.partition.offsets().high_watermark;
        self.standing_writes.insert(write.id, (session_id, write.partition_id));
        if let Some(before) = session.let_write_stand(Some(Box::new(write))) {
            self.standing_writes.remove(&before.id);
        }
    }

    /// Carry out no more requests so; an id that does not stand is ignored. What was appended stays to be taken in.
    pub fn withdraw_write(&mut self, id: StandingId) {
        if let Some((session_id, _)) = self.standing_writes.remove(&id)
            && let Some(session) = self.sessions.get_mut(&session_id)
        {
            session.let_write_stand(None);
        }
    }

    /// What was appended to a partition and not taken in yet, by rising offset, as far as it was not overtaken; and the
    /// high watermark. Lost appends may be among what was taken in before they were. None: no such partition.
    pub fn take_written(&mut self, id: PartitionId) -> Option<(i64, Vec<Written>)> {
        let entry = self.table.get_mut(id)?;
        let high_watermark = entry.partition.offsets().high_watermark;
        Some((high_watermark, entry.attached.writes.take()))
    }

    /// Carry out a request as its session's standing write says. Returns it if that cannot be done.
    pub(super) fn on_write(&mut self, session_id: SessionId, request: OwedRequest, now: Now) -> Option<OwedRequest> {
        let session = self.sessions.get_mut(&session_id)?;
        let Some(write) = session.standing_write() else {
            return Some(request);
        };
        let (id, slot_id) = (write.id, request.request_id);
        let said = write.said(&request.body);
        let appended = self.table.get_mut(write.partition_id).and_then(|entry| {
            let context = entry.attached.rules.context(Origin::Coordinator, i16::MAX, now.wall_ms);
            let batch = validate_produce(write.batch(&said, now.wall_ms), &context).ok()?;
            let epoch = Some(write.leader_epoch);
            let appended = entry.partition.append_as_leader(batch, epoch, now.wall_ms).ok()?;
            entry.attached.writes.waiting.push_back(Waiting {
                appended,
                session_id,
                slot_id,
                written: Some(Written {
                    id,
                    base_offset: appended.base_offset,
                    now_ms: now.now_ms,
                    wall_ms: now.wall_ms,
                    said,
                }),
            });
            Some(())
        });
        if appended.is_none() {
            self.withdraw_write(id);
            return Some(request);
        }
        let deadline_ms = now.now_ms.saturating_add(write.timeout_ms);
        let reply = write.frame(request.correlation_id);
        let pending = PendingWrite {
            request,
            deadline_ms,
            reply,
        };
        session.put(Some(slot_id), Slot::Write(Box::new(pending)), 0);
        self.deadlines.insert((deadline_ms, session_id, slot_id));
        None
    }

    /// Answer the requests whose appends are committed, and hand those back whose appends are lost. Returns whether the
    /// high watermark has moved over something that its watchers must hear of.
    ///
    /// After a failure nothing is carried out until somebody lets it stand again, who knows of the failure then.
    pub(super) fn settle_writes(&mut self, id: PartitionId, failed: bool) -> bool {
        let Some(entry) = self.table.get_mut(id) else {
            return true;
        };
        let writes = &mut entry.attached.writes;
        if writes.waiting.is_empty() && !failed {
            return true;
        }
        let (settled, unknown) = writes.settle(&entry.partition, failed);
        let high_watermark = entry.partition.offsets().high_watermark;
        let moved = high_watermark - std::mem::replace(&mut writes.seen_high_watermark, high_watermark);
        for (session_id, slot_id, is_committed) in settled {
            if is_committed {
                self.finish_write(session_id, slot_id);
            } else {
                self.hand_back(session_id, slot_id);
            }
        }
        if failed {
            self.withdraw_writes_to(id);
        }
        failed || moved != unknown
    }

    /// A partition is served no longer: what waits for it is handed back.
    pub(super) fn abandon_writes(&mut self, id: PartitionId) {
        self.settle_writes(id, true);
        let Some(entry) = self.table.get_mut(id) else { return };
        for waiting in std::mem::take(&mut entry.attached.writes.waiting) {
            self.hand_back(waiting.session_id, waiting.slot_id);
        }
    }

    /// Have Python deal with a request that was carried out, as if it had not been.
    pub(super) fn hand_back(&mut self, session_id: SessionId, slot_id: u64) {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        let Some(deadline_ms) = session.hand_back(slot_id) else {
            return;
        };
        if let Some(write) = session.let_write_stand(None) {
            self.standing_writes.remove(&write.id);
        }
        self.deadlines.remove(&(deadline_ms, session_id, slot_id));
        self.touch(session_id);
    }

    fn finish_write(&mut self, session_id: SessionId, slot_id: u64) {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        let Some(Slot::Write(pending)) = session.slot(slot_id) else {
            return;
        };
        let (api_key, deadline_ms) = (pending.request.api_key, pending.deadline_ms);
        let reply = std::mem::take(&mut pending.reply);
        session.complete(slot_id, vec![Chunk::Bytes(reply)]);
        self.deadlines.remove(&(deadline_ms, session_id, slot_id));
        *self.metrics.answered.entry(api_key).or_default() += 1;
        self.touch(session_id);
    }

    fn withdraw_writes_to(&mut self, id: PartitionId) {
        let of_partition = self.standing_writes.iter().filter(|(_, (_, to))| *to == id);
        let ids: Vec<_> = of_partition.map(|(standing_id, _)| *standing_id).collect();
        for standing_id in ids {
            self.withdraw_write(standing_id);
        }
    }
}
