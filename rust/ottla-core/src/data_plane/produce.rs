//! Serving Produce: checks, appends, acknowledgements.
//!
//! acks=1 and acks=all both wait for the high watermark here: a record counts as written by the leader when the log
//! directory's writer has written it, and on a lone broker that is what moves the high watermark.

use std::collections::HashMap;
use std::ops::Range;

use bytes::BytesMut;

use super::validation::{Check, Checked, Checks as RecordChecks, Done, Effort, Job};
use super::{Attached, DataPlane, Now, REQUEST_ITEMS_MAX, SessionId};
use crate::partition::{AppendState, Appended};
use crate::partition_table::{Entry, TopicKey, UNKNOWN_TOPIC_OR_PARTITION};
use crate::record::validate::Origin;
use crate::session::output::Chunk;
use crate::session::pipeline::{NativeRequest, Slot};
use crate::session::produce::{
    PartitionResponse, ProduceRequest, TopicResponse, VERSIONS, uses_topic_ids, write_response,
};
use crate::session::waiting::{Call, Candidate, PendingProduce, PreparedProduce, Target, Unacknowledged};
use crate::storage::log_dir::PartitionId;
use crate::storage::producer_state::Checks;
use crate::storage::verification::Verified;
use crate::types::TopicId;
use crate::wire::Reader;

const INVALID_TOPIC_EXCEPTION: i16 = 17;
const INVALID_REQUIRED_ACKS: i16 = 21;
const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;

/// Said of every transactional produce until there are transactions. The code is the one by which a Kafka that does not
/// grant the transactional id refuses it: clients take it as final.
const NO_TRANSACTIONAL_ID: &str = "transactional records in a request without a transactional id";

/// Errors beside which the response does not name where the log starts: `CORRUPT_MESSAGE`, `UNKNOWN_TOPIC_OR_PARTITION`,
/// `NOT_LEADER_OR_FOLLOWER`, `MESSAGE_TOO_LARGE`, `RECORD_LIST_TOO_LARGE`, `KAFKA_STORAGE_ERROR`, `UNKNOWN_TOPIC_ID`.
const WITHOUT_LOG_START: [i16; 7] = [2, 3, 6, 10, 18, 56, 100];

/// Topics that only coordinators and Kafka's own admin tools write to (`Topic.INTERNAL_TOPICS`, and the metadata log).
const INTERNAL_TOPICS: [&str; 4] = [
    "__consumer_offsets",
    "__transaction_state",
    "__share_group_state",
    "__cluster_metadata",
];

/// Records of at least so many bytes keep the memory of the frame that brought them; smaller ones are copied, so that
/// a few of them do not hold a whole receive buffer until they are written.
const KEEP_BYTES_MIN: usize = 32 * 1024;

/// A produce request waits so long at least for its records to be written, whatever timeout it names: Kafka's leaders write before the timeout
/// counts, so a producer with a timeout of 0 still expects its record to be written.
const TIMEOUT_MS_MIN: i64 = 1000;

impl DataPlane {
    pub(super) fn on_produce(&mut self, session_id: SessionId, request: NativeRequest, now: Now) {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        let version = request.api_version;
        if !VERSIONS.contains(&version) {
            session.close(format!("Produce version {version} is not supported"));
            return;
        }
        let mut reader = Reader::at(&request.frame, request.body_position).limit_items(REQUEST_ITEMS_MAX);
        let decoded = match ProduceRequest::read(&mut reader, version) {
            Ok(decoded) => decoded,
            Err(error) => {
                session.close(format!("malformed Produce request of version {version}: {error}"));
                return;
            }
        };
        if let Some(log_dir) = self.full_log_dir(&decoded, version) {
            self.metrics.stalls += 1;
            self.stalled[log_dir].push(session_id);
            if let Some(session) = self.sessions.get_mut(&session_id) {
                session.hold(request);
            }
            return;
        }
        let call = Call {
            version,
            correlation_id: request.correlation_id,
            started_us: now.stopwatch_us,
            size_bytes: request.frame.len(),
        };
        let (mut prepared, mut ranges) = self.prepare(&decoded, call, request.from_admin_client);
        let (mut effort, mut is_transactional) = (Effort::default(), false);
        for (target, range) in prepared.targets.iter().zip(&ranges) {
            if let Some((entry, range)) = self.table.get(target.partition_id).zip(range.clone()) {
                let (records, rules) = (&request.frame[range], &entry.attached.rules);
                effort.add(records, |codec| rules.recompresses(codec));
                is_transactional = is_transactional || Check::is_transactional(records);
            }
        }
        if is_transactional {
            if let Some(transactional_id) = decoded.transactional_id {
                prepared.transactional_id = Some(transactional_id.to_owned());
            } else {
                prepared.refuse_all(TRANSACTIONAL_ID_AUTHORIZATION_FAILED, NO_TRANSACTIONAL_ID);
                ranges.clear();
                effort = Effort::default();
            }
        }
        let mut checks = RecordChecks::new(self.checks(&prepared, &ranges, request.frame, now));
        if effort.is_deep() || !checks.run_quickly() {
            let Some(session) = self.sessions.get_mut(&session_id) else {
                return;
            };
            let slot_id = session.place(Slot::Validating(Box::new(prepared)), call.size_bytes);
            self.validator.submit(Job {
                session_id,
                slot_id,
                checks,
            });
            return;
        }
        self.append_all(session_id, None, prepared, checks.into_checked().into_iter(), now);
    }

    /// The answers of a worker came.
    pub(super) fn on_checked(&mut self, done: Done, now: Now) {
        let Done {
            session_id,
            slot_id,
            checked,
        } = done;
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        let Some(slot) = session.slot(slot_id) else { return };
        let Slot::Validating(prepared) = std::mem::replace(slot, Slot::Owed) else {
            return;
        };
        self.append_all(session_id, Some(slot_id), *prepared, checked.into_iter(), now);
        self.touch(session_id);
    }

    /// A log directory that the request writes to and whose tail is full.
    fn full_log_dir(&self, request: &ProduceRequest<'_>, version: i16) -> Option<usize> {
        let is_full = |index: usize| self.log_dirs[index].tail_bytes() >= self.options.tail_max_bytes;
        if !(0..self.log_dirs.len()).any(is_full) {
            return None;
        }
        let named = request.topics.iter().flat_map(|topic| {
            let key = self.topic_key(topic.name, topic.topic_id, version);
            topic
                .partitions
                .iter()
                .map(move |partition| (key.clone(), partition.partition))
        });
        let entries = named.filter_map(|(key, partition)| self.table.get(self.table.resolve(&key, partition).ok()?));
        entries
            .map(|entry| entry.attached.log_dir)
            .find(|log_dir| is_full(*log_dir))
    }

    fn topic_key(&self, name: &str, topic_id: TopicId, version: i16) -> TopicKey {
        if uses_topic_ids(version) {
            TopicKey::Id(topic_id)
        } else {
            self.table.key_by_name(name)
        }
    }

    /// Look the partitions up and sort out those that are refused whatever their records are. Returns also where the
    /// records of each target lie in the frame. A partition that is named twice counts and is answered once, with its
    /// last records (Kafka collects a request in a map).
    fn prepare(
        &self,
        request: &ProduceRequest<'_>,
        call: Call,
        from_admin_client: bool,
    ) -> (PreparedProduce, Vec<Option<Range<usize>>>) {
        let mut topics: Vec<TopicResponse> = Vec::with_capacity(request.topics.len());
        let mut targets: Vec<Target> = Vec::new();
        let mut ranges: Vec<Option<Range<usize>>> = Vec::new();
        let mut seen: HashMap<PartitionId, usize> = HashMap::new();
        let is_single = request.topics.len() == 1 && request.topics[0].partitions.len() == 1;
        for topic in &request.topics {
            let key = self.topic_key(topic.name, topic.topic_id, call.version);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for wanted in &topic.partitions {
                let resolved = self.table.resolve(&key, wanted.partition).map_err(|code| (code, None));
                let accepted = resolved.and_then(|id| match self.refusal(request, &key, from_admin_client) {
                    Some(refusal) => Err(refusal),
                    None => Ok(id),
                });
                let (code, message) = match accepted {
                    Err(refusal) => refusal,
                    Ok(partition_id) => {
                        if !is_single && let Some(index) = seen.insert(partition_id, targets.len()) {
                            ranges[index].clone_from(&wanted.records);
                            seen.insert(partition_id, index);
                            continue;
                        }
                        targets.push(Target {
                            topic: topics.len(),
                            partition: partitions.len(),
                            partition_id,
                        });
                        ranges.push(wanted.records.clone());
                        (0, None)
                    }
                };
                partitions.push(PartitionResponse::error(
                    wanted.partition,
                    code,
                    message.map(str::to_owned),
                ));
            }
            if !partitions.is_empty() {
                topics.push(TopicResponse {
                    name: topic.name.to_owned(),
                    topic_id: topic.topic_id,
                    partitions,
                });
            }
        }
        let (acks, timeout_ms) = (request.acks, request.timeout_ms);
        (
            PreparedProduce {
                call,
                acks,
                timeout_ms,
                transactional_id: None,
                topics,
                targets,
            },
            ranges,
        )
    }

    /// Why a request is refused for a whole topic.
    fn refusal(
        &self,
        request: &ProduceRequest<'_>,
        key: &TopicKey,
        from_admin_client: bool,
    ) -> Option<(i16, Option<&'static str>)> {
        if !matches!(request.acks, -1..=1) {
            return Some((INVALID_REQUIRED_ACKS, None));
        }
        let is_internal = self.table.name(key).is_some_and(|name| INTERNAL_TOPICS.contains(&name));
        (is_internal && !from_admin_client).then_some((INVALID_TOPIC_EXCEPTION, None))
    }

    /// Take the records out of the frame, with the rules they are under.
    fn checks(
        &self,
        prepared: &PreparedProduce,
        ranges: &[Option<Range<usize>>],
        mut frame: BytesMut,
        now: Now,
    ) -> Vec<Option<Check>> {
        let mut order: Vec<usize> = (0..ranges.len()).collect();
        order.sort_unstable_by_key(|index| ranges[*index].as_ref().map(|range| range.start));
        let mut records: Vec<Option<BytesMut>> = Vec::new();
        records.resize_with(ranges.len(), || None);
        let mut cut_bytes = 0;
        for index in order {
            let Some(range) = ranges[index].clone() else { continue };
            let _before = frame.split_to(range.start - cut_bytes);
            let cut = frame.split_to(range.len());
            cut_bytes = range.end;
            records[index] = Some(if cut.len() < KEEP_BYTES_MIN {
                BytesMut::from(&cut[..])
            } else {
                cut
            });
        }
        let targets = prepared.targets.iter().zip(records);
        targets
            .map(|(target, records)| {
                let rules = &self.table.get(target.partition_id)?.attached.rules;
                let context = rules.context(Origin::Client, prepared.call.version, now.wall_ms);
                Some(Check { records, context })
            })
            .collect()
    }

    /// Append what passed its check, then answer or wait for acknowledgements. `slot_id` is the request's slot if it
    /// has one already.
    fn append_all(
        &mut self,
        session_id: SessionId,
        slot_id: Option<u64>,
        mut prepared: PreparedProduce,
        checked: impl Iterator<Item = Option<Checked>>,
        now: Now,
    ) {
        let targets = std::mem::take(&mut prepared.targets);
        let candidates = targets.into_iter().zip(checked).map(|(target, checked)| Candidate {
            target,
            checked,
            verified: Verified::NotRequired,
        });
        if prepared.transactional_id.is_some() {
            self.verify(session_id, slot_id, prepared, candidates.collect(), now);
        } else {
            self.append_verified(session_id, slot_id, prepared, candidates, now);
        }
    }

    /// Append what may be appended, as far as transactions are concerned.
    pub(super) fn append_verified(
        &mut self,
        session_id: SessionId,
        slot_id: Option<u64>,
        prepared: PreparedProduce,
        candidates: impl Iterator<Item = Candidate>,
        now: Now,
    ) {
        let PreparedProduce {
            call,
            acks,
            timeout_ms,
            mut topics,
            ..
        } = prepared;
        let mut unacknowledged = Vec::new();
        for candidate in candidates {
            let Candidate {
                target,
                checked,
                verified,
            } = candidate;
            let Target {
                topic,
                partition,
                partition_id,
            } = target;
            let response = &mut topics[topic].partitions[partition];
            let Some((entry, checked)) = self.table.get(partition_id).zip(checked) else {
                *response = PartitionResponse::error(response.partition, UNKNOWN_TOPIC_OR_PARTITION, None);
                continue;
            };
            match append(entry, checked, verified, now, response) {
                Some(appended) if acks != 0 => {
                    unacknowledged.push(Unacknowledged {
                        topic,
                        partition,
                        partition_id,
                        appended,
                    });
                }
                _ => {}
            }
        }
        let errors = topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .filter(|response| response.error_code != 0);
        self.metrics.produce.errors += errors.count() as u64;
        self.metrics.produce.record_bytes += call.size_bytes as u64;
        unacknowledged.retain(|append| {
            let entry = self.table.get(append.partition_id);
            !append.appended.duplicate || entry.is_some_and(|e| !is_settled(e.partition.append_state(&append.appended)))
        });
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        if unacknowledged.is_empty() {
            let latency_us = now.stopwatch_us.saturating_sub(call.started_us);
            self.metrics.produce.observe(call.size_bytes, latency_us);
            let mut reply = Vec::new();
            if acks != 0 {
                reply.push(Chunk::Bytes(write_response(call.version, call.correlation_id, &topics)));
            } else if let Some((topic, error)) = first_error(&topics) {
                // There is no response to carry the error: a closed connection is the sign (as in Kafka).
                let message = error.error_message.as_deref().unwrap_or_default();
                let (partition, code) = (error.partition, error.error_code);
                session.close(format!(
                    "produce with acks=0 to {topic}-{partition} failed: error {code} {message}"
                ));
            }
            let slot_id = slot_id.unwrap_or_else(|| session.place(Slot::Owed, call.size_bytes));
            session.complete(slot_id, reply);
            return;
        }
        let deadline_ms = now.now_ms + i64::from(timeout_ms).max(TIMEOUT_MS_MIN);
        let waiting: Vec<_> = unacknowledged
            .iter()
            .map(|append| (append.partition_id, append.appended))
            .collect();
        let slot = Slot::Produce(Box::new(PendingProduce {
            call,
            deadline_ms,
            topics,
            unacknowledged,
        }));
        let slot_id = session.put(slot_id, slot, call.size_bytes);
        self.deadlines.insert((deadline_ms, session_id, slot_id));
        for (partition_id, appended) in waiting {
            if let Some(entry) = self.table.get_mut(partition_id) {
                let queue = &mut entry.attached.unacknowledged;
                // Appends come in order; only the repetition of an older one does not.
                let place = match queue.back() {
                    Some((last, ..)) if last.last_offset > appended.last_offset => {
                        queue.partition_point(|(other, ..)| other.last_offset <= appended.last_offset)
                    }
                    _ => queue.len(),
                };
                queue.insert(place, (appended, session_id, slot_id));
            }
        }
    }
}

/// Append checked records and fill in the response. Returns what the append was given, if there was one.
fn append(
    entry: &Entry<Attached>,
    checked: Checked,
    verified: Verified,
    now: Now,
    response: &mut PartitionResponse,
) -> Option<Appended> {
    let batch = match checked {
        Ok(batch) => batch,
        Err(rejection) => {
            response.error_code = rejection.code;
            response.error_message = Some(rejection.message);
            response.record_errors = rejection.record_errors;
            if !rejection.is_of_request {
                name_log_start(entry, response);
            }
            return None;
        }
    };
    match entry
        .partition
        .append(batch, None, Checks::Client(verified), now.wall_ms)
    {
        Ok(appended) => {
            response.base_offset = appended.base_offset;
            response.log_append_time_ms = appended.log_append_time_ms;
            response.log_start_offset = appended.log_start_offset;
            Some(appended)
        }
        Err(error) => {
            response.error_code = error.kafka_code();
            response.error_message = Some(error.to_string());
            name_log_start(entry, response);
            None
        }
    }
}

/// Say where the log starts beside an error of the log's, but not beside those that Kafka takes for everyday ones
/// (`ReplicaManager.appendRecordsToLocalLog`).
fn name_log_start(entry: &Entry<Attached>, response: &mut PartitionResponse) {
    if !WITHOUT_LOG_START.contains(&response.error_code) {
        response.log_start_offset = entry.partition.offsets().log_start_offset;
    }
}

/// Whether an append can be answered.
pub(super) fn is_settled(state: AppendState) -> bool {
    matches!(state, AppendState::Committed | AppendState::Failed)
}

fn first_error(topics: &[TopicResponse]) -> Option<(&str, &PartitionResponse)> {
    let all = topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|response| (topic.name.as_str(), response)));
    all.into_iter().find(|(_, response)| response.error_code != 0)
}
