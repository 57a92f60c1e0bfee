//! Serving Fetch: reads, sessions, and waiting for bytes.

use std::collections::HashMap;

use super::lookups::{Cold, LookedUp};
use super::{DataPlane, Now, REQUEST_ITEMS_MAX, SessionId};
use crate::partition::ReadResult;
use crate::partition_table::TopicKey;
use crate::session::fetch::{
    FetchPartition, FetchRequest, FetchResponse, PartitionResponse, TopicName, VERSIONS, uses_topic_ids,
};
use crate::session::fetch_session::{Fetch, SessionKey, SessionRequest};
use crate::session::pipeline::{NativeRequest, Session, Slot};
use crate::session::waiting::{Call, FetchLimits, ParkedFetch, Watched};
use crate::storage::log_dir::PartitionId;
use crate::types::Isolation;
use crate::wire::Reader;

const UNKNOWN_SERVER_ERROR: i16 = -1;
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
const FENCED_LEADER_EPOCH: i16 = 74;

/// What a look at all partitions of a fetch came to.
struct Look {
    responses: Vec<PartitionResponse>,
    bytes: u64,
    /// Waiting would be wrong: an error, a diverging epoch, or records of an older segment.
    is_urgent: bool,
    /// Partitions that were left out because what is wanted of them is not in memory.
    cold: Vec<Cold>,
}

impl DataPlane {
    pub(super) fn on_fetch(&mut self, session_id: SessionId, request: &NativeRequest, now: Now) {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        let version = request.api_version;
        if !VERSIONS.contains(&version) {
            session.close(format!("Fetch version {version} is not supported"));
            return;
        }
        let mut reader = Reader::at(&request.frame, request.body_position).limit_items(REQUEST_ITEMS_MAX);
        let decoded = match FetchRequest::read(&mut reader, version) {
            Ok(decoded) => decoded,
            Err(error) => {
                session.close(format!("malformed Fetch request of version {version}: {error}"));
                return;
            }
        };
        let call = Call {
            version,
            correlation_id: request.correlation_id,
            started_us: now.stopwatch_us,
            size_bytes: request.frame.len(),
        };
        let slot_id = session.place(Slot::Owed, call.size_bytes);
        let session_request = SessionRequest {
            session_id: decoded.session_id,
            epoch: decoded.session_epoch,
            uses_topic_ids: uses_topic_ids(version),
        };
        let (wanted, forgotten) = self.keys(&decoded);
        match self
            .fetch_sessions
            .begin(session_request, wanted, &forgotten, now.now_ms)
        {
            // The isolation is looked at where there is something to read; then it fails the whole, as in Kafka.
            Ok(_) if decoded.isolation.is_none() && self.reads_any(&decoded) => {
                let mut response = self.refuse_fetch(&decoded, UNKNOWN_SERVER_ERROR);
                if uses_topic_ids(version) {
                    response.partitions.clear(); // from then on the error of the whole is enough
                }
                self.answer_fetch(session_id, slot_id, call, response, now);
            }
            Ok(fetch) => {
                let isolation = decoded.isolation.unwrap_or(Isolation::ReadUncommitted);
                let limits = self.limits(&decoded, isolation);
                self.start_fetch(session_id, slot_id, call, limits, decoded.max_wait_ms, fetch, now);
            }
            Err(response) => self.answer_fetch(session_id, slot_id, call, response, now),
        }
    }

    fn topic_of(&self, name: TopicName<'_>) -> TopicKey {
        match name {
            TopicName::Name(name) => self.table.key_by_name(name),
            TopicName::Id(id) => TopicKey::Id(id),
        }
    }

    fn keys(&self, request: &FetchRequest<'_>) -> (Vec<(TopicKey, FetchPartition)>, Vec<SessionKey>) {
        let mut wanted = Vec::new();
        for (name, partitions) in &request.topics {
            let topic = self.topic_of(*name);
            wanted.extend(partitions.iter().map(|partition| (topic.clone(), *partition)));
        }
        let mut forgotten = Vec::new();
        for (name, partitions) in &request.forgotten {
            let topic = self.topic_of(*name);
            forgotten.extend(partitions.iter().map(|partition| (topic.clone(), *partition)));
        }
        (wanted, forgotten)
    }

    /// Whether a request names a partition that exists.
    fn reads_any(&self, request: &FetchRequest<'_>) -> bool {
        let (wanted, _) = self.keys(request);
        let mut existing = wanted
            .iter()
            .filter(|(topic, partition)| self.table.resolve(topic, partition.partition).is_ok());
        existing.next().is_some()
    }

    /// Every partition and the whole with one error, as for a request that makes no sense.
    fn refuse_fetch(&self, request: &FetchRequest<'_>, error_code: i16) -> FetchResponse {
        let (wanted, _) = self.keys(request);
        let refuse = |(topic, wanted): (TopicKey, FetchPartition)| {
            (topic, PartitionResponse::error(wanted.partition, error_code))
        };
        let partitions = wanted.into_iter().map(refuse).collect();
        FetchResponse {
            partitions,
            ..FetchResponse::error(error_code, 0)
        }
    }

    fn limits(&self, request: &FetchRequest<'_>, isolation: Isolation) -> FetchLimits {
        let max_bytes = usize::try_from(request.max_bytes)
            .unwrap_or(0)
            .min(self.options.fetch_max_bytes);
        FetchLimits {
            min_bytes: u64::try_from(request.min_bytes).unwrap_or(0).min(max_bytes as u64),
            max_bytes,
            isolation,
            replica_id: request.replica_id,
        }
    }

    #[allow(clippy::too_many_arguments)] // the parts of one request
    fn start_fetch(
        &mut self,
        session_id: SessionId,
        slot_id: u64,
        call: Call,
        limits: FetchLimits,
        max_wait_ms: i32,
        fetch: Fetch,
        now: Now,
    ) {
        let look = self.look(&fetch.wanted, limits, &mut HashMap::new());
        let is_cold = !look.cold.is_empty();
        let has_left = self.sessions.get(&session_id).is_none_or(Session::input_ended);
        let has_enough = look.is_urgent || look.bytes >= limits.min_bytes.max(u64::from(is_cold));
        let waits = is_cold || (max_wait_ms > 0 && !fetch.wanted.is_empty() && !has_enough);
        if !waits || has_left {
            let response = self.fetch_sessions.finish(fetch, look.responses, now.now_ms);
            self.answer_fetch(session_id, slot_id, call, response, now);
            return;
        }
        let mut parked = ParkedFetch::new(call, now.now_ms + i64::from(max_wait_ms), fetch, limits);
        if is_cold {
            parked.is_urgent = look.is_urgent;
            parked.begin_looking(look.bytes, now.now_ms);
        }
        self.park(session_id, slot_id, parked, &look.cold, now);
    }

    /// Read all partitions in order, within the limits. The first that has any records returns a whole batch, however
    /// large (KIP-74).
    /// `found`, by place: what was looked up before; what is used of it is taken out.
    fn look(
        &self,
        wanted: &[(TopicKey, FetchPartition)],
        limits: FetchLimits,
        found: &mut HashMap<usize, LookedUp>,
    ) -> Look {
        let mut look = Look {
            responses: Vec::with_capacity(wanted.len()),
            bytes: 0,
            is_urgent: false,
            cold: Vec::new(),
        };
        let mut left_bytes = limits.max_bytes;
        let mut previous: Option<(&TopicKey, i32, Result<PartitionId, i16>)> = None;
        for (place, (topic, partition)) in wanted.iter().enumerate() {
            let id = match previous {
                Some((known, index, id)) if known == topic && index == partition.partition => id,
                _ => self.table.resolve(topic, partition.partition),
            };
            previous = Some((topic, partition.partition, id));
            let min_one = look.bytes == 0;
            let response = match id {
                Err(code) => PartitionResponse::error(partition.partition, code),
                Ok(id) => {
                    let found = found.remove(&place);
                    let read = self.read_one(id, partition, left_bytes, min_one, limits, found);
                    let (response, is_urgent) = read.unwrap_or_else(|| {
                        look.cold.push(Cold {
                            place,
                            partition_id: id,
                            bytes_max: wanted_bytes(partition).min(left_bytes),
                            min_one,
                        });
                        (self.read_nothing(id, partition, limits.isolation), false)
                    });
                    look.is_urgent |= is_urgent;
                    response
                }
            };
            let bytes = response.records_bytes();
            left_bytes = left_bytes.saturating_sub(bytes);
            look.bytes += bytes as u64;
            look.is_urgent |= response.error_code != 0 || response.diverging.is_some();
            look.responses.push(response);
        }
        look
    }

    /// The answer for a partition of which nothing is read this time.
    fn read_nothing(&self, id: PartitionId, wanted: &FetchPartition, isolation: Isolation) -> PartitionResponse {
        let Some(entry) = self.table.get(id) else {
            return PartitionResponse::error(wanted.partition, NOT_LEADER_OR_FOLLOWER);
        };
        let offsets = entry.partition.offsets();
        PartitionResponse {
            partition: wanted.partition,
            error_code: 0,
            high_watermark: offsets.high_watermark,
            last_stable_offset: offsets.last_stable_offset,
            log_start_offset: offsets.log_start_offset,
            aborted: (isolation == Isolation::ReadCommitted).then(Vec::new),
            diverging: None,
            current_leader: None,
            records: Vec::new(),
        }
    }

    /// The answer for a partition, and whether it should not wait. None: what is wanted is not in memory, nor `found`.
    fn read_one(
        &self,
        id: PartitionId,
        wanted: &FetchPartition,
        left_bytes: usize,
        min_one: bool,
        limits: FetchLimits,
        found: Option<LookedUp>,
    ) -> Option<(PartitionResponse, bool)> {
        let Some(entry) = self.table.get(id) else {
            let response = PartitionResponse::error(wanted.partition, NOT_LEADER_OR_FOLLOWER);
            return Some((response, false));
        };
        let refuse = |error_code: i16| {
            let knows_leader = matches!(error_code, NOT_LEADER_OR_FOLLOWER | FENCED_LEADER_EPOCH);
            let leader = || (self.options.broker_id, entry.partition.offsets().leader_epoch);
            let response = PartitionResponse {
                aborted: None,
                current_leader: knows_leader.then(leader),
                ..PartitionResponse::error(wanted.partition, error_code)
            };
            Some((response, false))
        };
        if limits.replica_id >= 0 {
            return refuse(NOT_LEADER_OR_FOLLOWER); // nobody follows a lone broker
        }
        let bytes_max = wanted_bytes(wanted).min(left_bytes);
        let fits = |found: &LookedUp| min_one || !found.as_ref().is_ok_and(|read| read.size_bytes() > bytes_max);
        let in_memory = entry.partition.read_in_memory(
            wanted.fetch_offset,
            bytes_max,
            limits.isolation,
            min_one,
            wanted.current_leader_epoch,
            wanted.last_fetched_epoch,
        );
        // What was looked up may be older.
        let read = in_memory.map_err(|error| error.kafka_code()).transpose();
        match read.or_else(|| found.filter(fits))? {
            Err(code) => refuse(code),
            Ok(read) if wanted.max_bytes < 0 && wanted.fetch_offset < visible_end(&read, limits.isolation) => {
                refuse(UNKNOWN_SERVER_ERROR)
            }
            Ok(read) => {
                let ReadResult {
                    high_watermark,
                    last_stable_offset,
                    log_start_offset,
                    ..
                } = read;
                let response = PartitionResponse {
                    partition: wanted.partition,
                    error_code: 0,
                    high_watermark,
                    last_stable_offset,
                    log_start_offset,
                    aborted: read.aborted,
                    diverging: read.diverging,
                    current_leader: None,
                    records: read.slices,
                };
                Some((response, read.from_older_segment))
            }
        }
    }

    fn park(&mut self, session_id: SessionId, slot_id: u64, mut parked: ParkedFetch, cold: &[Cold], now: Now) {
        let isolation = parked.limits.isolation;
        for (place, (topic, wanted)) in parked.fetch.wanted.iter().enumerate() {
            let Ok(partition_id) = self.table.resolve(topic, wanted.partition) else {
                continue;
            };
            let Some(entry) = self.table.get_mut(partition_id) else {
                continue;
            };
            let max_bytes = u64::try_from(wanted.max_bytes).unwrap_or(0);
            let is_cold = cold.iter().any(|cold| cold.place == place);
            let available_bytes = if is_cold {
                0
            } else {
                let available_bytes = entry.partition.bytes_available(wanted.fetch_offset, isolation);
                available_bytes.min(max_bytes)
            };
            entry.attached.fetchers.insert(session_id, parked.watched.len());
            parked.available_bytes += available_bytes;
            parked.watched.push(Watched {
                partition_id,
                offset: wanted.fetch_offset,
                max_bytes,
                place,
                is_cold,
                available_bytes,
            });
        }
        self.metrics.fetches_parked += 1;
        self.deadlines.insert((parked.deadline_ms, session_id, slot_id));
        self.look_up(&parked, cold, (session_id, slot_id));
        let has_enough = cold.is_empty() && parked.has_enough();
        if let Some(slot) = self
            .sessions
            .get_mut(&session_id)
            .and_then(|session| session.slot(slot_id))
        {
            *slot = Slot::Fetch(Box::new(parked));
        }
        if has_enough {
            self.complete_fetch(session_id, slot_id, now);
        }
    }

    /// Take a waiting fetch out of everything that would wake it.
    pub(super) fn unpark(&mut self, session_id: SessionId, slot_id: u64) -> Option<Box<ParkedFetch>> {
        let slot = self.sessions.get_mut(&session_id)?.slot(slot_id)?;
        if !matches!(slot, Slot::Fetch(_)) {
            return None;
        }
        let Slot::Fetch(parked) = std::mem::replace(slot, Slot::Owed) else {
            return None;
        };
        self.deadlines.remove(&(parked.deadline_ms, session_id, slot_id));
        for watched in &parked.watched {
            if let Some(entry) = self.table.get_mut(watched.partition_id) {
                entry.attached.fetchers.remove(&session_id);
            }
        }
        Some(parked)
    }

    /// A partition has more to read (or, with `at_once`, something that no fetch should wait for): answer the fetches
    /// that have enough. Costs one look at this partition for each fetch that watches it.
    pub(super) fn wake_fetchers(&mut self, id: PartitionId, at_once: bool, now: Now) {
        let Some(entry) = self.table.get(id) else { return };
        let mut ready = Vec::new();
        for (&session_id, &index) in &entry.attached.fetchers {
            let Some(session) = self.sessions.get_mut(&session_id) else {
                continue;
            };
            let Some((slot_id, parked)) = session.parked() else {
                continue;
            };
            let watched = &mut parked.watched[index];
            if watched.is_cold && !at_once {
                continue;
            }
            let available_bytes = entry.partition.bytes_available(watched.offset, parked.limits.isolation);
            let available_bytes = available_bytes.min(watched.max_bytes);
            parked.available_bytes = parked.available_bytes - watched.available_bytes + available_bytes;
            watched.available_bytes = available_bytes;
            if at_once || parked.has_enough() || parked.is_looking() {
                ready.push((session_id, slot_id));
            }
        }
        for (session_id, slot_id) in ready {
            if at_once {
                self.complete_fetch(session_id, slot_id, now);
            } else {
                self.end_wait(session_id, slot_id, now);
            }
        }
    }

    /// Answer a fetch if it has enough and nothing of it is being looked up; else see how long it waits from now on.
    pub(super) fn end_wait(&mut self, session_id: SessionId, slot_id: u64, now: Now) {
        let session = self.sessions.get_mut(&session_id);
        let Some(Slot::Fetch(parked)) = session.and_then(|session| session.slot(slot_id)) else {
            return;
        };
        let Some(deadline_ms) = parked.next_deadline_ms(now.now_ms) else {
            self.complete_fetch(session_id, slot_id, now);
            return;
        };
        let before_ms = std::mem::replace(&mut parked.deadline_ms, deadline_ms);
        self.deadlines.remove(&(before_ms, session_id, slot_id));
        self.deadlines.insert((deadline_ms, session_id, slot_id));
    }

    /// The sessions whose fetches watch a partition.
    pub(super) fn take_fetchers(&mut self, id: PartitionId) -> Vec<(SessionId, u64)> {
        let Some(entry) = self.table.get_mut(id) else {
            return Vec::new();
        };
        let fetchers = std::mem::take(&mut entry.attached.fetchers);
        let sessions = fetchers.into_keys();
        sessions
            .filter_map(|session_id| {
                let (slot_id, _) = self.sessions.get_mut(&session_id)?.parked()?;
                Some((session_id, slot_id))
            })
            .collect()
    }

    /// Answer a fetch that waited, with what there is.
    pub(super) fn complete_fetch(&mut self, session_id: SessionId, slot_id: u64, now: Now) {
        let Some(parked) = self.unpark(session_id, slot_id) else {
            return;
        };
        let ParkedFetch {
            call,
            fetch,
            limits,
            mut found,
            ..
        } = *parked;
        let look = self.look(&fetch.wanted, limits, &mut found);
        let response = self.fetch_sessions.finish(fetch, look.responses, now.now_ms);
        self.answer_fetch(session_id, slot_id, call, response, now);
        self.touch(session_id);
    }

    fn answer_fetch(&mut self, session_id: SessionId, slot_id: u64, call: Call, response: FetchResponse, now: Now) {
        let errors = response
            .partitions
            .iter()
            .filter(|(_, partition)| partition.error_code != 0)
            .count();
        let record_bytes: usize = response
            .partitions
            .iter()
            .map(|(_, partition)| partition.records_bytes())
            .sum();
        let metrics = &mut self.metrics.fetch;
        metrics.errors += errors as u64 + u64::from(response.error_code != 0);
        metrics.record_bytes += record_bytes as u64;
        metrics.observe(call.size_bytes, now.stopwatch_us.saturating_sub(call.started_us));
        if let Some(session) = self.sessions.get_mut(&session_id) {
            session.complete(slot_id, response.into_chunks(call.version, call.correlation_id));
        }
    }
}

/// How many bytes of a partition are wanted at most. A negative number is looked at where there is something to read.
fn wanted_bytes(wanted: &FetchPartition) -> usize {
    usize::try_from(wanted.max_bytes).unwrap_or(0)
}

/// Where what a reader may see ends.
fn visible_end(read: &ReadResult, isolation: Isolation) -> i64 {
    match isolation {
        Isolation::ReadUncommitted => read.high_watermark,
        Isolation::ReadCommitted => read.last_stable_offset,
    }
}
