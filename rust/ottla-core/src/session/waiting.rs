//! What a reply waits for.

use std::collections::HashMap;

use super::fetch_session::Fetch;
use super::pipeline::OwedRequest;
use super::produce::{PartitionResponse, TopicResponse};
use crate::data_plane::lookups::LookedUp;
use crate::data_plane::validation::Checked;
use crate::partition::{Appended, ReadResult};
use crate::storage::log_dir::PartitionId;
use crate::storage::verification::Verified;
use crate::types::Isolation;

/// What every answer needs of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Version of request and response.
    pub version: i16,
    /// Returned in the response.
    pub correlation_id: i32,
    /// When the request was taken up, on the stopwatch, in µs.
    pub started_us: u64,
    /// Size of the request in bytes.
    pub size_bytes: usize,
}

/// A partition of a Produce request whose records are to be checked and appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Where its response is: index of the topic.
    pub topic: usize,
    /// Index of the partition within the topic.
    pub partition: usize,
    /// The partition to append to.
    pub partition_id: PartitionId,
}

/// A Produce request whose records are not checked yet.
#[derive(Debug)]
pub struct PreparedProduce {
    /// The request.
    pub call: Call,
    /// 0, 1 or -1.
    pub acks: i16,
    /// How long to wait for acknowledgements.
    pub timeout_ms: i32,
    /// Of a request with transactional records.
    pub transactional_id: Option<String>,
    /// The response so far.
    pub topics: Vec<TopicResponse>,
    /// The partitions that were not refused, in the order of the request.
    pub targets: Vec<Target>,
}

impl PreparedProduce {
    /// Answer every partition with the same error, and append nothing.
    pub fn refuse_all(&mut self, code: i16, message: &str) {
        self.targets.clear();
        for response in self.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            *response = PartitionResponse::error(response.partition, code, Some(message.to_owned()));
        }
    }
}

/// Records of a Produce request that were checked.
#[derive(Debug)]
pub struct Candidate {
    /// Where they go.
    pub target: Target,
    /// What the check said; None: the partition went before.
    pub checked: Option<Checked>,
    /// What is known of their transaction.
    pub verified: Verified,
}

/// A Produce request that waits for the transaction coordinator.
#[derive(Debug)]
pub struct VerifyingProduce {
    /// The request; its targets are in `candidates`.
    pub prepared: PreparedProduce,
    /// What is to be appended.
    pub candidates: Vec<Candidate>,
}

/// An append that is not acknowledged yet.
#[derive(Debug, Clone, Copy)]
pub struct Unacknowledged {
    /// Where its response is: index of the topic.
    pub topic: usize,
    /// Index of the partition within the topic.
    pub partition: usize,
    /// The partition it went to.
    pub partition_id: PartitionId,
    /// What the append was given.
    pub appended: Appended,
}

/// A Produce request whose records are in the logs' tails: the response, as it will be if all goes well.
#[derive(Debug)]
pub struct PendingProduce {
    /// The request.
    pub call: Call,
    /// When to give up.
    pub deadline_ms: i64,
    /// The response so far.
    pub topics: Vec<TopicResponse>,
    /// What is still missing.
    pub unacknowledged: Vec<Unacknowledged>,
}

/// A request that was carried out as its session's standing write says: the append is in the log's tail.
#[derive(Debug)]
pub struct PendingWrite {
    /// The request, for whoever is to deal with it if the append is lost or takes too long.
    pub request: OwedRequest,
    /// When that is.
    pub deadline_ms: i64,
    /// The answer if all goes well, as a frame.
    pub reply: Vec<u8>,
}

/// A fetch that has nothing else waits so long at least for what must be looked up on a disk, whatever it says: Kafka reads
/// it however long that takes. Then the client asks again, and leaves its connection to others of its requests meanwhile.
const LOOKUP_WAIT_MS_MIN: i64 = 5000;
/// A fetch that has enough waits no longer for the rest. Without that, partitions that must be looked up each time would
/// have to wait until there is nothing left to read of the others.
const LOOKUP_WAIT_MS_MAX: i64 = 50;

/// The bounds of a Fetch request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    /// Answer as soon as so many bytes are there.
    pub min_bytes: u64,
    /// Bound of all records in bytes.
    pub max_bytes: usize,
    /// What may be seen.
    pub isolation: Isolation,
    /// A broker id asks as a follower; -1 from consumers.
    pub replica_id: i32,
}

/// One partition that a parked fetch watches.
#[derive(Debug, Clone, Copy)]
pub struct Watched {
    /// Which.
    pub partition_id: PartitionId,
    /// First offset wanted.
    pub offset: i64,
    /// Bound of this partition's records in bytes.
    pub max_bytes: u64,
    /// Where it is in the fetch.
    pub place: usize,
    /// It is being looked up: until then it adds nothing.
    pub is_cold: bool,
    /// What it adds to the fetch's bytes by now.
    pub available_bytes: u64,
}

/// A Fetch request that waits for bytes or its deadline.
#[derive(Debug)]
pub struct ParkedFetch {
    /// The request.
    pub call: Call,
    /// When to answer with what there is.
    pub deadline_ms: i64,
    /// When that would be if nothing had to be looked up.
    pub own_deadline_ms: i64,
    /// What to read, and how to answer.
    pub fetch: Fetch,
    /// Its bounds.
    pub limits: FetchLimits,
    /// The partitions it waits for.
    pub watched: Vec<Watched>,
    /// Sum of `available_bytes` of all.
    pub available_bytes: u64,
    /// What was looked up for it, by the place in the fetch.
    pub found: HashMap<usize, LookedUp>,
    /// More is not waited for: an error, a diverging epoch, or records of an older segment were found.
    pub is_urgent: bool,
}

impl ParkedFetch {
    /// A fetch that watches nothing yet.
    pub fn new(call: Call, own_deadline_ms: i64, fetch: Fetch, limits: FetchLimits) -> Self {
        Self {
            call,
            deadline_ms: own_deadline_ms,
            own_deadline_ms,
            fetch,
            limits,
            watched: Vec::new(),
            available_bytes: 0,
            found: HashMap::new(),
            is_urgent: false,
        }
    }

    /// What it lacks is being looked up; `available_bytes`: what it has.
    pub fn begin_looking(&mut self, available_bytes: u64, now_ms: i64) {
        let is_enough = self.is_urgent || available_bytes >= self.limits.min_bytes.max(1);
        self.deadline_ms = match available_bytes {
            _ if is_enough => now_ms + LOOKUP_WAIT_MS_MAX,
            0 => self.own_deadline_ms.max(now_ms + LOOKUP_WAIT_MS_MIN),
            _ => self.own_deadline_ms.max(now_ms + LOOKUP_WAIT_MS_MAX),
        };
    }

    /// One of its partitions was looked up. `available_bytes`: about what there is of it by now.
    pub fn look_is_over(&mut self, place: usize, found: LookedUp, available_bytes: u64) {
        let found_bytes = found.as_ref().map_or(0, ReadResult::size_bytes) as u64;
        self.is_urgent |= match &found {
            Ok(read) => read.diverging.is_some() || read.from_older_segment,
            Err(_) => true,
        };
        for watched in self.watched.iter_mut().filter(|watched| watched.place == place) {
            watched.is_cold = false;
            if found_bytes > 0 {
                watched.available_bytes = found_bytes.max(available_bytes.min(watched.max_bytes));
                self.available_bytes += watched.available_bytes;
            }
        }
        self.found.insert(place, found);
    }

    /// Whether some of it is being looked up.
    pub fn is_looking(&self) -> bool {
        self.watched.iter().any(|watched| watched.is_cold)
    }

    /// When to answer it, as things are; None: now.
    pub fn next_deadline_ms(&self, now_ms: i64) -> Option<i64> {
        let rest_ms = now_ms + LOOKUP_WAIT_MS_MAX;
        match (self.is_looking(), self.has_enough()) {
            (true, true) => Some(self.deadline_ms.min(rest_ms)),
            (true, false) if self.available_bytes > 0 => Some(self.deadline_ms.min(self.own_deadline_ms.max(rest_ms))),
            (true, false) => Some(self.deadline_ms),
            (false, true) => None,
            (false, false) => Some(self.own_deadline_ms).filter(|deadline_ms| *deadline_ms > now_ms),
        }
    }

    /// Whether it is to be answered.
    pub fn has_enough(&self) -> bool {
        self.is_urgent || self.available_bytes >= self.limits.min_bytes
    }
}
