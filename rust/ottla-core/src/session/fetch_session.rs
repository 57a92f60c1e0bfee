//! Fetch sessions (KIP-227): a client names its partitions once, then only what changed.
//!
//! Source of the rules: Kafka's `FetchSession`. Where that returns a context object, `FetchSessionCache::begin` returns
//! what the request comes to, and `finish` turns what was read into the response.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::fetch::{FetchPartition, FetchResponse, PartitionResponse};
use crate::partition_table::TopicKey;

/// `FETCH_SESSION_ID_NOT_FOUND`.
const ID_NOT_FOUND: i16 = 70;
/// `INVALID_FETCH_SESSION_EPOCH`.
const INVALID_EPOCH: i16 = 71;
/// `FETCH_SESSION_TOPIC_ID_ERROR`.
const TOPIC_ID_ERROR: i16 = 106;

/// Epoch of a request without a session, which closes the one it names.
const FINAL_EPOCH: i32 = -1;
/// Epoch of a request for a new session.
const INITIAL_EPOCH: i32 = 0;

/// A session unused for so long gives way to a new one (Kafka: `MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS`).
const EVICTION_MS: i64 = 120_000;
/// A request for more partitions than this is served without a session, so that the cache's memory is bounded.
const SESSION_PARTITIONS_MAX: usize = 100_000;

/// Partitions in all sessions together; beyond, requests are served without one.
const CACHED_PARTITIONS_MAX: usize = 500_000;

/// A partition as a session names it.
pub type SessionKey = (TopicKey, i32);

/// The epoch after `epoch`: from the largest on to 1.
fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

#[derive(Debug)]
struct Cached {
    key: SessionKey,
    request: FetchPartition,
    /// What the client was told last; -1 for nothing yet, or after an error.
    high_watermark: i64,
    log_start_offset: i64,
}

impl Cached {
    fn new(topic: TopicKey, request: FetchPartition) -> Self {
        let key = (topic, request.partition);
        Self {
            key,
            request,
            high_watermark: -1,
            log_start_offset: -1,
        }
    }

    /// Whether the client must be told of `response`; if so, remember that it was.
    fn must_respond(&mut self, response: &PartitionResponse) -> bool {
        let changed = response.records_bytes() > 0
            || self.high_watermark != response.high_watermark
            || self.log_start_offset != response.log_start_offset
            || response.error_code != 0
            || response.diverging.is_some();
        self.high_watermark = if response.error_code == 0 {
            response.high_watermark
        } else {
            -1
        };
        self.log_start_offset = response.log_start_offset;
        changed
    }
}

/// A session: its partitions in the order in which they are served. Those that returned records go to the end, so
/// that every partition gets its turn under a tight size limit.
#[derive(Debug)]
struct FetchSession {
    epoch: i32,
    uses_topic_ids: bool,
    created_ms: i64,
    last_used_ms: i64,
    partitions: BTreeMap<u64, Cached>,
    positions: HashMap<SessionKey, u64>,
    next_position: u64,
    /// The size under which the cache ranks the session.
    ranked_size: usize,
}

impl FetchSession {
    fn put(&mut self, cached: Cached) {
        let position = self.next_position;
        self.next_position += 1;
        self.positions.insert(cached.key.clone(), position);
        self.partitions.insert(position, cached);
    }

    fn update(&mut self, wanted: Vec<(TopicKey, FetchPartition)>, forgotten: &[SessionKey]) {
        for (topic, request) in wanted {
            let new = Cached::new(topic, request);
            match self
                .positions
                .get(&new.key)
                .and_then(|position| self.partitions.get_mut(position))
            {
                Some(cached) => cached.request = request,
                None => self.put(new),
            }
        }
        for key in forgotten {
            if let Some(position) = self.positions.remove(key) {
                self.partitions.remove(&position);
            }
        }
    }

    /// Note what was read at `position`; returns whether the client must be told of it.
    fn respond(&mut self, position: u64, response: &PartitionResponse) -> bool {
        let Some(cached) = self.partitions.get_mut(&position) else {
            return false;
        };
        let told = cached.must_respond(response);
        if response.records_bytes() > 0
            && let Some(cached) = self.partitions.remove(&position)
        {
            self.put(cached);
        }
        told
    }
}

/// How to answer a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Everything that was read, and no session.
    Sessionless,
    /// Everything that was read, in a new session if there is room.
    Full {
        /// Whether topics are named by id.
        uses_topic_ids: bool,
    },
    /// What changed since the last response of a session.
    Incremental {
        /// Which.
        session_id: i32,
        /// The epoch that the session has reached with this request.
        epoch: i32,
        /// Where the session holds each partition.
        positions: Vec<u64>,
    },
}

/// A request once sessions are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// How to answer.
    pub kind: Kind,
    /// What to read, in order.
    pub wanted: Vec<(TopicKey, FetchPartition)>,
}

/// What a request says of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRequest {
    /// 0 for none.
    pub session_id: i32,
    /// -1: none; 0: a new one; n: its nth continuation.
    pub epoch: i32,
    /// Whether topics are named by id.
    pub uses_topic_ids: bool,
}

/// All sessions of a broker.
#[derive(Debug)]
pub struct FetchSessionCache {
    slots_max: usize,
    sessions: HashMap<i32, FetchSession>,
    /// (last use, id): the first is the first to give way once it is idle for `EVICTION_MS`.
    by_use: BTreeSet<(i64, i32)>,
    /// (partitions, id) of sessions older than `EVICTION_MS`: smaller ones give way to larger ones.
    by_size: BTreeSet<(usize, i32)>,
    id_state: u64,
    evictions: u64,
    partition_count: usize,
}

impl FetchSessionCache {
    /// A cache of at most `slots_max` sessions (`max.incremental.fetch.session.cache.slots`). Ids follow from `seed`.
    pub fn new(slots_max: usize, seed: u64) -> Self {
        Self {
            slots_max,
            sessions: HashMap::new(),
            by_use: BTreeSet::new(),
            by_size: BTreeSet::new(),
            id_state: seed,
            evictions: 0,
            partition_count: 0,
        }
    }

    /// Sessions held.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Partitions in all sessions.
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// Sessions that gave way to others so far.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Resolve a request's session.
    ///
    /// # Errors
    /// The error response.
    pub fn begin(
        &mut self,
        request: SessionRequest,
        wanted: Vec<(TopicKey, FetchPartition)>,
        forgotten: &[SessionKey],
        now_ms: i64,
    ) -> Result<Fetch, FetchResponse> {
        if request.epoch == FINAL_EPOCH || request.epoch == INITIAL_EPOCH {
            if request.session_id != 0 {
                self.remove(request.session_id);
            }
            let kind = if request.epoch == FINAL_EPOCH {
                Kind::Sessionless
            } else {
                Kind::Full {
                    uses_topic_ids: request.uses_topic_ids,
                }
            };
            return Ok(Fetch {
                kind,
                wanted: unique(wanted),
            });
        }
        let session_id = request.session_id;
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return Err(FetchResponse::error(ID_NOT_FOUND, 0));
        };
        if session.epoch != request.epoch {
            return Err(FetchResponse::error(INVALID_EPOCH, 0));
        }
        if session.uses_topic_ids != request.uses_topic_ids {
            return Err(FetchResponse::error(TOPIC_ID_ERROR, 0));
        }
        let before = session.partitions.len();
        if before + wanted.len() > SESSION_PARTITIONS_MAX + forgotten.len()
            || self.partition_count + wanted.len() > CACHED_PARTITIONS_MAX + forgotten.len()
        {
            self.remove(session_id);
            return Err(FetchResponse::error(ID_NOT_FOUND, 0));
        }
        session.update(wanted, forgotten);
        self.partition_count = self.partition_count - before + session.partitions.len();
        if session.partitions.is_empty() {
            self.remove(session_id);
            return Ok(Fetch {
                kind: Kind::Sessionless,
                wanted: Vec::new(),
            });
        }
        let positions = session.partitions.keys().copied().collect();
        let wanted = session
            .partitions
            .values()
            .map(|cached| (cached.key.0.clone(), cached.request))
            .collect();
        session.epoch = next_epoch(session.epoch);
        let epoch = session.epoch;
        self.touch(session_id, now_ms);
        Ok(Fetch {
            kind: Kind::Incremental {
                session_id,
                epoch,
                positions,
            },
            wanted,
        })
    }

    /// Turn what was read into the response; `read` is in the order of `Fetch::wanted`.
    pub fn finish(&mut self, fetch: Fetch, read: Vec<PartitionResponse>, now_ms: i64) -> FetchResponse {
        debug_assert_eq!(fetch.wanted.len(), read.len());
        match fetch.kind {
            Kind::Sessionless => respond(0, fetch.wanted, read),
            Kind::Full { uses_topic_ids } => {
                let session_id = self.create(uses_topic_ids, &fetch.wanted, &read, now_ms);
                respond(session_id, fetch.wanted, read)
            }
            Kind::Incremental {
                session_id,
                epoch,
                positions,
            } => {
                let Some(session) = self.sessions.get_mut(&session_id) else {
                    // It gave way to another session while this request waited: the client learns of it by the next.
                    return respond(session_id, fetch.wanted, read);
                };
                if session.epoch != epoch {
                    return FetchResponse::error(INVALID_EPOCH, session_id);
                }
                let mut partitions = Vec::new();
                for (((topic, _), response), position) in fetch.wanted.into_iter().zip(read).zip(positions) {
                    if session.respond(position, &response) {
                        partitions.push((topic, response));
                    }
                }
                FetchResponse {
                    error_code: 0,
                    session_id,
                    partitions,
                }
            }
        }
    }

    /// Make a session if there is room; returns its id, or 0.
    fn create(
        &mut self,
        uses_topic_ids: bool,
        wanted: &[(TopicKey, FetchPartition)],
        read: &[PartitionResponse],
        now_ms: i64,
    ) -> i32 {
        let size = wanted.len();
        while self.partition_count + size > CACHED_PARTITIONS_MAX && self.evict(size, now_ms) {}
        if self.partition_count + size > CACHED_PARTITIONS_MAX {
            return 0;
        }
        if size > SESSION_PARTITIONS_MAX || !(self.sessions.len() < self.slots_max || self.evict(size, now_ms)) {
            return 0;
        }
        let session_id = self.new_id();
        let mut session = FetchSession {
            epoch: next_epoch(INITIAL_EPOCH),
            uses_topic_ids,
            created_ms: now_ms,
            last_used_ms: now_ms,
            partitions: BTreeMap::new(),
            positions: HashMap::with_capacity(size),
            next_position: 0,
            ranked_size: size,
        };
        for ((topic, request), response) in wanted.iter().zip(read) {
            let mut cached = Cached::new(topic.clone(), *request);
            cached.must_respond(response);
            session.put(cached);
        }
        self.partition_count += session.partitions.len();
        self.sessions.insert(session_id, session);
        self.by_use.insert((now_ms, session_id));
        session_id
    }

    /// Make room for a session of `size` partitions; false if every session is worth more.
    fn evict(&mut self, size: usize, now_ms: i64) -> bool {
        let stale = self
            .by_use
            .first()
            .filter(|(last_used_ms, _)| now_ms - last_used_ms > EVICTION_MS);
        let smaller = || {
            self.by_size
                .first()
                .filter(|(smallest, _)| *smallest <= size)
                .map(|(_, id)| *id)
        };
        let Some(session_id) = stale.map(|(_, id)| *id).or_else(smaller) else {
            return false;
        };
        self.remove(session_id);
        self.evictions += 1;
        true
    }

    fn touch(&mut self, session_id: i32, now_ms: i64) {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        self.by_use.remove(&(session.last_used_ms, session_id));
        self.by_size.remove(&(session.ranked_size, session_id));
        session.last_used_ms = now_ms;
        session.ranked_size = session.partitions.len();
        self.by_use.insert((now_ms, session_id));
        if now_ms - session.created_ms > EVICTION_MS {
            self.by_size.insert((session.ranked_size, session_id));
        }
    }

    fn remove(&mut self, session_id: i32) {
        if let Some(session) = self.sessions.remove(&session_id) {
            self.partition_count -= session.partitions.len();
            self.by_use.remove(&(session.last_used_ms, session_id));
            self.by_size.remove(&(session.ranked_size, session_id));
        }
    }

    /// A positive id that no session has (by `SplitMix64`, so that ids are not guessed by counting).
    fn new_id(&mut self) -> i32 {
        loop {
            self.id_state = self.id_state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.id_state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let id = ((mixed ^ (mixed >> 31)) & 0x7fff_ffff) as i32;
            if id != 0 && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }
}

/// A request may name a partition twice: the last one counts, at the place of the first (Kafka: a linked map).
fn unique(wanted: Vec<(TopicKey, FetchPartition)>) -> Vec<(TopicKey, FetchPartition)> {
    if wanted.len() < 2 {
        return wanted;
    }
    let mut places: HashMap<SessionKey, usize> = HashMap::with_capacity(wanted.len());
    let mut kept: Vec<(TopicKey, FetchPartition)> = Vec::with_capacity(wanted.len());
    for (topic, request) in wanted {
        match places.entry((topic.clone(), request.partition)) {
            std::collections::hash_map::Entry::Occupied(place) => kept[*place.get()].1 = request,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push((topic, request));
            }
        }
    }
    kept
}

fn respond(session_id: i32, wanted: Vec<(TopicKey, FetchPartition)>, read: Vec<PartitionResponse>) -> FetchResponse {
    let topics = wanted.into_iter().map(|(topic, _)| topic);
    FetchResponse {
        error_code: 0,
        session_id,
        partitions: topics.zip(read).collect(),
    }
}

#[cfg(test)]
mod tests;
