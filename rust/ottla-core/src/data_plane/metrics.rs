//! Counters of the data plane.

use std::collections::BTreeMap;

/// Upper bounds of the latency buckets, in µs; one more bucket holds what is above.
pub const LATENCY_BUCKETS_US: [u64; 16] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000,
    30_000_000,
];

/// Of one API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiMetrics {
    /// Requests answered (or, with acks=0, served without an answer).
    pub requests: u64,
    /// Partition entries answered with an error, and requests refused as a whole.
    pub errors: u64,
    /// Bytes of request frames.
    pub request_bytes: u64,
    /// Bytes of record batches appended, or returned.
    pub record_bytes: u64,
    /// Sum of all latencies, in µs.
    pub latency_sum_us: u64,
    /// Answers by latency, as of `LATENCY_BUCKETS_US`.
    pub latency_counts: [u64; LATENCY_BUCKETS_US.len() + 1],
}

impl ApiMetrics {
    /// Count an answer.
    pub fn observe(&mut self, request_bytes: usize, latency_us: u64) {
        self.requests += 1;
        self.request_bytes += request_bytes as u64;
        self.latency_sum_us += latency_us;
        let bucket = LATENCY_BUCKETS_US.iter().position(|bound| latency_us <= *bound);
        self.latency_counts[bucket.unwrap_or(LATENCY_BUCKETS_US.len())] += 1;
    }
}

/// Of the whole data plane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Of Produce.
    pub produce: ApiMetrics,
    /// Of Fetch.
    pub fetch: ApiMetrics,
    /// Requests that standing answers answered or standing writes carried out, by API key.
    pub answered: BTreeMap<i16, u64>,
    /// Fetches that had to wait.
    pub fetches_parked: u64,
    /// Times that a connection had to wait because a log directory's tail was full.
    pub stalls: u64,
    /// Connections closed from this side for what they sent.
    pub refused_connections: u64,
}
