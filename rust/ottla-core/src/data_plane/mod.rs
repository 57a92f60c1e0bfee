//! All connections of a broker, its partitions, and the replies that wait for them.
//!
//! Sans-I/O: who owns the sockets feeds bytes in (`on_received`), lets requests be handled (`advance`) and sends
//! `Session::output`. Appends go into the partitions' tails; `poll` takes in what the log directories' writers completed,
//! makes the replies that waited for it ready, and names the sessions concerned, so that whoever polled sends at once.

mod acknowledging;
mod fetch;
pub mod lookups;
pub mod metrics;
mod options;
mod produce;
pub mod rules;
mod standing;
mod standing_writes;
mod transactions;
pub mod validation;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;

pub use self::options::Options;
pub use self::standing_writes::Written;
pub use self::transactions::{Refused, Unverified};

use self::lookups::Lookups;
use self::metrics::Metrics;
use self::rules::ProduceRules;
use self::standing_writes::Writes;
use self::validation::Validator;
use crate::error::Result;
use crate::partition::{Appended, Partition};
use crate::partition_table::{Entry, PartitionTable};
use crate::session::fetch_session::FetchSessionCache;
use crate::session::header::PRODUCE;
use crate::session::pipeline::{OwedRequest, Session, Slot, Step};
use crate::session::standing::StandingId;
use crate::storage::config::LogConfig;
use crate::storage::log_dir::{LogDir, PartitionId};
use crate::types::{TopicId, TopicPartition};

/// Names a connection; never reused.
pub type SessionId = u64;

/// The clocks at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, for deadlines.
    pub now_ms: i64,
    /// Unix time, for records.
    pub wall_ms: i64,
    /// Monotonic in µs from any start, for measuring only: nothing is decided by it.
    pub stopwatch_us: u64,
}

/// What the data plane keeps of each partition.
#[derive(Debug, Default)]
pub struct Attached {
    /// What its topic's configuration says of produced records.
    rules: ProduceRules,
    /// Index of its log directory.
    log_dir: usize,
    /// Appends not yet acknowledged, by rising last offset: (append, session, slot).
    unacknowledged: VecDeque<(Appended, SessionId, u64)>,
    /// Sessions with a parked fetch, each with the index in its `ParkedFetch::watched`.
    fetchers: HashMap<SessionId, usize>,
    /// How many want to know when the high watermark moves.
    watchers: u32,
    /// What was appended for standing writes.
    writes: Writes,
}

impl Attached {
    /// What its topic's configuration says of produced records.
    pub fn rules(&self) -> &ProduceRules {
        &self.rules
    }

    /// Index of its log directory.
    pub fn log_dir(&self) -> usize {
        self.log_dir
    }
}

/// Sessions, partitions and waiters.
#[derive(Debug)]
pub struct DataPlane {
    options: Options,
    sessions: HashMap<SessionId, Session>,
    next_session_id: SessionId,
    table: PartitionTable<Attached>,
    log_dirs: Vec<Arc<LogDir>>,
    /// Sessions that wait for room in each log directory's tail.
    stalled: Vec<Vec<SessionId>>,
    fetch_sessions: FetchSessionCache,
    validator: Validator,
    lookups: Lookups,
    /// (deadline, session, slot) of every waiting reply.
    deadlines: BTreeSet<(i64, SessionId, u64)>,
    /// Sessions that somebody must advance and send for.
    touched: Vec<SessionId>,
    /// Watched partitions whose high watermark moved.
    moved: BTreeSet<PartitionId>,
    /// Partitions whose log went offline.
    offline: Vec<PartitionId>,
    closed_reasons: VecDeque<(SessionId, String)>,
    /// The coordinator is asked about transactions of older clients, too.
    verifies_transactions: bool,
    /// Requests that wait for the transaction coordinator and that nobody has taken to it yet.
    unverified: Vec<Unverified>,
    /// Sessions by the answers that stand in them.
    standing: HashMap<StandingId, SessionId>,
    /// Sessions and partitions by the standing writes of these sessions to these partitions.
    standing_writes: HashMap<StandingId, (SessionId, PartitionId)>,
    metrics: Metrics,
}

/// Topics and partitions that one request may name: ten times what a broker is likely to hold, and no more than can be
/// answered while others wait.
const REQUEST_ITEMS_MAX: usize = 100_000;

/// How many reasons of closed sessions are kept for the log.
const CLOSED_REASONS_MAX: usize = 1024;

impl DataPlane {
    /// No sessions, no partitions.
    pub fn new(options: Options, log_dirs: Vec<Arc<LogDir>>, validator: Validator) -> Self {
        Self {
            fetch_sessions: FetchSessionCache::new(options.fetch_session_slots, options.seed),
            options,
            sessions: HashMap::new(),
            next_session_id: 1,
            table: PartitionTable::default(),
            stalled: vec![Vec::new(); log_dirs.len()],
            log_dirs,
            validator,
            lookups: Lookups::default(),
            deadlines: BTreeSet::new(),
            touched: Vec::new(),
            moved: BTreeSet::new(),
            offline: Vec::new(),
            closed_reasons: VecDeque::new(),
            verifies_transactions: true,
            unverified: Vec::new(),
            standing: HashMap::new(),
            standing_writes: HashMap::new(),
            metrics: Metrics::default(),
        }
    }

    /// A connection was accepted.
    pub fn open_session(&mut self) -> SessionId {
        let session_id = self.next_session_id;
        self.next_session_id += 1;
        self.sessions
            .insert(session_id, Session::new(self.options.request_max_bytes));
        session_id
    }

    /// A connection is gone: everything it waited for is released.
    pub fn close_session(&mut self, session_id: SessionId) {
        let Some(mut session) = self.sessions.remove(&session_id) else {
            return;
        };
        if let Some(standing) = session.let_stand(None) {
            self.standing.remove(&standing.id);
        }
        if let Some(write) = session.let_write_stand(None) {
            self.standing_writes.remove(&write.id);
        }
        for (slot_id, slot) in session.slots() {
            match slot {
                Slot::Produce(pending) => {
                    self.deadlines.remove(&(pending.deadline_ms, session_id, slot_id));
                }
                Slot::Fetch(parked) => {
                    self.deadlines.remove(&(parked.deadline_ms, session_id, slot_id));
                    for watched in &parked.watched {
                        if let Some(entry) = self.table.get_mut(watched.partition_id) {
                            entry.attached.fetchers.remove(&session_id);
                        }
                    }
                }
                Slot::Write(pending) => {
                    self.deadlines.remove(&(pending.deadline_ms, session_id, slot_id));
                }
                Slot::Ready(_) | Slot::Owed | Slot::Validating(_) | Slot::Verifying(_) => {}
            }
        }
        if session.is_held() {
            for stalled in &mut self.stalled {
                stalled.retain(|id| *id != session_id);
            }
        }
        if let Some(reason) = session.close_reason() {
            self.metrics.refused_connections += 1;
            if self.closed_reasons.len() == CLOSED_REASONS_MAX {
                self.closed_reasons.pop_front();
            }
            self.closed_reasons.push_back((session_id, reason.to_owned()));
        }
    }

    /// Why a session was closed from this side, if it was.
    pub fn close_reason(&self, session_id: SessionId) -> Option<&str> {
        self.sessions.get(&session_id).map_or_else(
            || {
                self.closed_reasons
                    .iter()
                    .rev()
                    .find(|(id, _)| *id == session_id)
                    .map(|(_, reason)| reason.as_str())
            },
            Session::close_reason,
        )
    }

    /// A session by its id.
    pub fn session(&mut self, session_id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&session_id)
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// What was counted so far.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The fetch sessions.
    pub fn fetch_sessions(&self) -> &FetchSessionCache {
        &self.fetch_sessions
    }

    /// The log directories, in the order of their indexes.
    pub fn log_dirs(&self) -> &[Arc<LogDir>] {
        &self.log_dirs
    }

    /// The worker of deep checks; a simulation steps it.
    pub fn validator(&self) -> &Validator {
        &self.validator
    }

    /// Bytes arrived; `advance` handles them.
    pub fn on_received(&mut self, session_id: SessionId, chunk: BytesMut) {
        if let Some(session) = self.sessions.get_mut(&session_id) {
            session.frames().push(chunk);
        }
    }

    /// A session has so many bytes behind a request that nothing more is received: if that is a fetch that waits for
    /// records, answer it with what there is. Otherwise the end of a client that sends without waiting for answers could
    /// not be seen before the wait is over.
    pub fn hurry(&mut self, session_id: SessionId, now: Now) {
        let parked = self.sessions.get_mut(&session_id).and_then(Session::parked);
        if let Some((slot_id, _)) = parked {
            self.complete_fetch(session_id, slot_id, now);
        }
    }

    /// The peer of a session sent its last byte: a fetch that waits is given up.
    pub fn on_end_of_input(&mut self, session_id: SessionId) {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        session.end_of_input();
        let parked = session
            .slots()
            .find(|(_, slot)| matches!(slot, Slot::Fetch(_)))
            .map(|(slot_id, _)| slot_id);
        if let Some(slot_id) = parked {
            self.unpark(session_id, slot_id);
            if let Some(session) = self.sessions.get_mut(&session_id) {
                session.complete(slot_id, Vec::new());
            }
        }
    }

    /// Handle what is buffered of a session, at most `requests_max` requests; requests that Python owes are appended to
    /// `owed`. Returns false if more could be handled at once.
    pub fn advance(
        &mut self,
        session_id: SessionId,
        requests_max: usize,
        now: Now,
        owed: &mut Vec<OwedRequest>,
    ) -> bool {
        let mut is_corked = false;
        for _ in 0..requests_max {
            let step = self.sessions.get_mut(&session_id).and_then(Session::next_step);
            let appends = match &step {
                Some(Step::Native(request)) => request.api_key == PRODUCE,
                Some(Step::Write(_)) => true,
                _ => false,
            };
            if appends && !std::mem::replace(&mut is_corked, true) {
                // The writers take the appends of all these requests together.
                self.cork(true);
            }
            match step {
                None => break,
                Some(Step::Owed(request)) => owed.push(request),
                Some(Step::Answered { api_key }) => self.on_answered(session_id, api_key, now),
                Some(Step::Write(request)) => owed.extend(self.on_write(session_id, request, now)),
                Some(Step::Native(request)) if request.api_key == PRODUCE => self.on_produce(session_id, request, now),
                Some(Step::Native(request)) => self.on_fetch(session_id, &request, now),
            }
        }
        if is_corked {
            self.cork(false);
        }
        !self.sessions.get(&session_id).is_some_and(Session::can_step)
    }

    /// Let appends come together before the log directories' writers are woken, until this is taken back, which must
    /// follow soon.
    pub fn cork(&self, corked: bool) {
        for dir in &self.log_dirs {
            if corked {
                dir.cork();
            } else {
                dir.uncork();
            }
        }
    }

    /// Take in completions and expired deadlines. Returns the sessions to `advance` and to send for.
    pub fn poll(&mut self, now: Now) -> Vec<SessionId> {
        for index in 0..self.log_dirs.len() {
            for completion in self.log_dirs[index].drain_completions() {
                let id = completion.partition;
                let Some(entry) = self.table.get(id) else { continue };
                let progress = entry.partition.on_completion(&completion);
                if progress.went_offline {
                    self.offline.push(id);
                }
                if progress.high_watermark_moved || progress.appends_failed || progress.went_offline {
                    self.on_progress(id, progress.appends_failed || progress.went_offline, now);
                }
            }
            self.resume_stalled(index, now);
        }
        for done in self.validator.drain() {
            self.on_checked(done, now);
        }
        self.take_in_lookups(now);
        while let Some((deadline_ms, session_id, slot_id)) = self.deadlines.first().copied()
            && deadline_ms <= now.now_ms
        {
            self.deadlines.pop_first();
            self.on_deadline(session_id, slot_id, now);
        }
        for session_id in &self.touched {
            if let Some(session) = self.sessions.get_mut(session_id) {
                session.is_touched = false;
            }
        }
        std::mem::take(&mut self.touched)
    }

    /// Whether `poll` has sessions to name even without a completion or a deadline.
    pub fn has_touched(&self) -> bool {
        !self.touched.is_empty() || !self.moved.is_empty()
    }

    /// When `poll` must be called next.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.deadlines.first().map(|(deadline_ms, ..)| *deadline_ms)
    }

    /// Watched partitions whose high watermark moved since the last call.
    pub fn take_moved(&mut self) -> Vec<PartitionId> {
        std::mem::take(&mut self.moved).into_iter().collect()
    }

    /// Partitions whose log went offline since the last call; they come back through `Partition::reopen`.
    pub fn take_offline(&mut self) -> Vec<PartitionId> {
        std::mem::take(&mut self.offline)
    }

    /// Have `poll` name a session.
    pub fn touch(&mut self, session_id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session_id)
            && !session.is_touched
        {
            session.is_touched = true;
            self.touched.push(session_id);
        }
    }

    fn on_deadline(&mut self, session_id: SessionId, slot_id: u64, now: Now) {
        match self
            .sessions
            .get_mut(&session_id)
            .and_then(|session| session.slot(slot_id))
        {
            Some(Slot::Produce(_)) => self.on_produce_timeout(session_id, slot_id, now),
            Some(Slot::Fetch(_)) => self.complete_fetch(session_id, slot_id, now),
            Some(Slot::Write(_)) => self.hand_back(session_id, slot_id),
            _ => {}
        }
    }

    /// The high watermark of a partition moved, or (`failed`) appends were lost.
    fn on_progress(&mut self, id: PartitionId, failed: bool, now: Now) {
        self.acknowledge(id, failed, now);
        let is_news = self.settle_writes(id, failed);
        self.wake_fetchers(id, failed, now);
        if is_news && self.table.get(id).is_some_and(|entry| entry.attached.watchers > 0) {
            self.moved.insert(id);
        }
    }

    fn resume_stalled(&mut self, log_dir: usize, now: Now) {
        if self.stalled[log_dir].is_empty() || self.log_dirs[log_dir].tail_bytes() * 2 > self.options.tail_max_bytes {
            return;
        }
        for session_id in std::mem::take(&mut self.stalled[log_dir]) {
            let Some(request) = self.sessions.get_mut(&session_id).and_then(Session::take_held) else {
                continue;
            };
            self.on_produce(session_id, request, now);
            self.touch(session_id);
        }
    }
}

/// Partitions.
impl DataPlane {
    /// An id for the next partition; `serve` makes it known to clients.
    pub fn next_partition_id(&mut self) -> PartitionId {
        self.table.next_id()
    }

    /// Serve a partition that was opened under an id from `next_partition_id`.
    pub fn serve(&mut self, partition: Arc<Partition>, log_dir: usize, rules: ProduceRules) {
        let (id, topic_partition) = (partition.id(), partition.topic_partition().clone());
        let topic_id = partition.topic_id();
        let attached = Attached {
            rules,
            log_dir,
            ..Attached::default()
        };
        self.table.insert(
            id,
            Entry {
                partition,
                topic_partition,
                topic_id,
                attached,
            },
        );
    }

    /// Stop serving a partition: whatever waits for it is answered with an error. The caller closes or deletes it.
    pub fn stop_serving(&mut self, id: PartitionId, now: Now) -> Option<Arc<Partition>> {
        let partition = Arc::clone(&self.table.get(id)?.partition);
        let fetchers = self.take_fetchers(id);
        self.abandon(id, now);
        self.abandon_writes(id);
        self.table.remove(id);
        for (session_id, slot_id) in fetchers {
            self.complete_fetch(session_id, slot_id, now);
        }
        Some(partition)
    }

    /// Name all partitions that are led here and whose logs could not be opened: requests for them are answered so.
    pub fn set_unavailable(&mut self, partitions: impl IntoIterator<Item = (TopicPartition, TopicId)>) {
        self.table.set_unavailable(partitions);
    }

    /// The partition of a name.
    pub fn find(&self, topic: &str, partition: i32) -> Option<(PartitionId, &Entry<Attached>)> {
        let id = self.table.find(topic, partition)?;
        Some((id, self.table.get(id)?))
    }

    /// All partitions.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, &Entry<Attached>)> {
        self.table.iter()
    }

    /// How many partitions a log directory holds.
    pub fn partition_count(&self, log_dir: usize) -> usize {
        self.table
            .iter()
            .filter(|(_, entry)| entry.attached.log_dir == log_dir)
            .count()
    }

    /// A partition by its id.
    pub fn entry(&self, id: PartitionId) -> Option<&Entry<Attached>> {
        self.table.get(id)
    }

    /// Take a topic's changed settings.
    pub fn configure(&mut self, id: PartitionId, log_config: LogConfig, rules: ProduceRules) {
        if let Some(entry) = self.table.get_mut(id) {
            entry.partition.configure(log_config);
            entry.attached.rules = rules;
        }
    }

    /// Lead a partition in `leader_epoch`: fetches that wait are answered anew.
    pub fn set_leadership(&mut self, id: PartitionId, leader_epoch: i32, now: Now) -> Result<()> {
        if let Some(entry) = self.table.get(id) {
            entry.partition.set_leadership(leader_epoch)?;
            self.on_progress(id, true, now);
        }
        Ok(())
    }

    /// Note the high watermark's moves of a partition for `take_moved`, until everybody who asked for it has taken it back.
    pub fn watch(&mut self, id: PartitionId, is_watched: bool) {
        if let Some(entry) = self.table.get_mut(id) {
            let watchers = &mut entry.attached.watchers;
            *watchers = if is_watched {
                *watchers + 1
            } else {
                watchers.saturating_sub(1)
            };
        }
    }
}
