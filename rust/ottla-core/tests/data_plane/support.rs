//! A broker on a simulated disk, and clients that speak bytes to it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use ottla_core::compression::Compression;
use ottla_core::data_plane::rules::ProduceRules;
use ottla_core::data_plane::validation::Validator;
use ottla_core::data_plane::{DataPlane, Now, Options, SessionId};
use ottla_core::partition::{Partition, PartitionOptions};
use ottla_core::record::batch::Batches;
use ottla_core::record::builder::{BatchOptions, NewRecord, build_batch};
use ottla_core::session::output::Chunk;
use ottla_core::session::pipeline::OwedRequest;
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::log_dir::{LogDir, LogDirMeta, LogDirOptions, PartitionId};
use ottla_core::storage::sim_fs::{Effect, Fault, Operation, SimFs};
use ottla_core::types::{TopicId, TopicPartition};
use ottla_core::wire::{Reader, Writer};

pub const WALL_MS: i64 = 1_700_000_000_000;

/// A broker with the partitions that a test created.
pub struct World {
    pub fs: SimFs,
    pub dirs: Vec<Arc<LogDir>>,
    pub plane: DataPlane,
    pub now_ms: i64,
    pub owed: BTreeMap<SessionId, Vec<OwedRequest>>,
}

impl World {
    pub fn new() -> Self {
        Self::with(1, Options::default())
    }

    pub fn with(dir_count: usize, options: Options) -> Self {
        let fs = SimFs::new(1);
        let open = |index: usize| {
            let meta = LogDirMeta {
                cluster_id: "c".to_owned(),
                node_id: 1,
                directory_id: format!("AAAAAAAAAAAAAAAAAAAAA{index}"),
            };
            LogDir::open(&LogDirOptions {
                fs: Arc::new(fs.clone()),
                path: Path::new("/").join(format!("log-{index}")),
                meta,
                waker: Arc::new(|| {}),
                threads: false,
                open_files_max: 4,
                index_cache_bytes: 1 << 16,
                reserved_bytes: 0,
            })
            .expect("an empty disk")
        };
        let dirs: Vec<_> = (0..dir_count).map(open).collect();
        let validator = Validator::new(0, Arc::new(|| {})).expect("no threads");
        let plane = DataPlane::new(options, dirs.clone(), validator);
        Self {
            fs,
            dirs,
            plane,
            now_ms: 1_000,
            owed: BTreeMap::new(),
        }
    }

    /// A topic of one partition in a log directory.
    pub fn create(&mut self, topic: &str, dir: usize) -> PartitionId {
        self.create_with(topic, dir, LogConfig::default(), ProduceRules::default())
    }

    pub fn create_with(&mut self, topic: &str, dir: usize, config: LogConfig, rules: ProduceRules) -> PartitionId {
        let id = self.plane.next_partition_id();
        let options = PartitionOptions {
            id,
            topic_partition: TopicPartition {
                topic: topic.into(),
                partition: 0,
            },
            topic_id: topic_id(topic),
            config,
        };
        let partition = Partition::open(&self.dirs[dir], options, WALL_MS).expect("a good disk");
        partition.set_leadership(0).expect("open");
        self.plane.serve(partition, dir, rules);
        id
    }

    pub fn partition(&self, id: PartitionId) -> &Partition {
        &self.plane.entry(id).expect("served").partition
    }

    pub fn now(&self) -> Now {
        Now {
            now_ms: self.now_ms,
            wall_ms: WALL_MS,
            stopwatch_us: self.now_ms as u64 * 1000,
        }
    }

    pub fn connect(&mut self) -> SessionId {
        self.plane.open_session()
    }

    /// Bytes arrive, and are handled as far as that needs no disk.
    pub fn send(&mut self, session_id: SessionId, bytes: &[u8]) {
        self.plane.on_received(session_id, BytesMut::from(bytes));
        self.advance(session_id);
    }

    pub fn advance(&mut self, session_id: SessionId) {
        let now = self.now();
        let mut owed = Vec::new();
        while !self.plane.advance(session_id, 3, now, &mut owed) {}
        self.owed.entry(session_id).or_default().extend(owed);
    }

    /// Take in completions and deadlines; returns the sessions that there was news for.
    pub fn poll(&mut self) -> Vec<SessionId> {
        let now = self.now();
        let touched = self.plane.poll(now);
        for session_id in &touched {
            self.advance(*session_id);
        }
        touched
    }

    /// Let the disk's writer and the checking worker finish, and the data plane take that in, until nothing moves.
    pub fn settle(&mut self) {
        loop {
            let mut moved = false;
            for dir in &self.dirs {
                moved |= dir.step_writer();
                moved |= dir.readers().step();
            }
            moved |= self.plane.validator().step();
            moved |= !self.poll().is_empty();
            if !moved {
                return;
            }
        }
    }

    pub fn wait(&mut self, ms: i64) {
        self.now_ms += ms;
        self.poll();
    }

    /// All that a session has to send, sent.
    pub fn take(&mut self, session_id: SessionId) -> Vec<u8> {
        let Some(session) = self.plane.session(session_id) else {
            return Vec::new();
        };
        let mut bytes = Vec::new();
        for (chunk, sent) in session.output().pending() {
            match chunk {
                Chunk::Bytes(chunk) => bytes.extend_from_slice(&chunk[sent..]),
                Chunk::File(slice) => {
                    let start = bytes.len();
                    bytes.resize(start + slice.len - sent, 0);
                    let position = slice.position + sent as u64;
                    slice
                        .file
                        .read_exact_at(&mut bytes[start..], position)
                        .expect("a range that exists");
                }
            }
        }
        session.output().sent(bytes.len());
        bytes
    }

    /// The responses that a session has to send: (correlation id, body behind it).
    pub fn responses(&mut self, session_id: SessionId) -> Vec<(i32, Vec<u8>)> {
        let bytes = self.take(session_id);
        let mut reader = Reader::new(&bytes);
        let mut responses = Vec::new();
        while reader.left() > 0 {
            let size = reader.i32().expect("a size");
            let frame = reader.take(size as usize, "frame").expect("a whole frame");
            let mut reader = Reader::new(frame);
            responses.push((reader.i32().expect("a correlation id"), frame[4..].to_vec()));
        }
        responses
    }

    /// The one response that a session has to send, as the answer to a produce of version 8 to one partition.
    pub fn produced(&mut self, session_id: SessionId) -> Option<(i32, i16, i64)> {
        let mut responses = self.responses(session_id);
        assert!(responses.len() <= 1, "{responses:?}");
        let (correlation_id, body) = responses.pop()?;
        let (error_code, base_offset) = produce_result(&body);
        Some((correlation_id, error_code, base_offset))
    }

    /// The one response that a session has to send, as the answer to a fetch of version 11.
    pub fn fetched(&mut self, session_id: SessionId) -> Option<Fetched> {
        let mut responses = self.responses(session_id);
        assert!(responses.len() <= 1, "{responses:?}");
        responses.pop().map(|(_, body)| fetch_result(&body))
    }

    pub fn close_reason(&self, session_id: SessionId) -> &str {
        self.plane.close_reason(session_id).expect("closed")
    }

    pub fn inject(&self, path_suffix: &str, operation: Operation, effect: Effect, times: u32) {
        self.fs.inject(Fault {
            path_suffix: path_suffix.to_owned(),
            operation,
            effect,
            after: 0,
            times,
        });
    }
}

pub fn topic_id(topic: &str) -> TopicId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&crc32c::crc32c(topic.as_bytes()).to_be_bytes());
    TopicId(id)
}

/// A batch of one record.
pub fn one_record(value: &[u8]) -> Vec<u8> {
    records(&[value], Compression::default())
}

pub fn records(values: &[&[u8]], compression: Compression) -> Vec<u8> {
    let records = values.iter().map(|value| NewRecord {
        timestamp_ms: WALL_MS,
        value: Some(value),
        ..NewRecord::default()
    });
    build_batch(
        BatchOptions {
            compression,
            ..BatchOptions::default()
        },
        records,
    )
    .expect("small")
}

pub fn framed(api_key: i16, version: i16, correlation_id: i32, body: Writer) -> Vec<u8> {
    let mut out = Writer::default();
    out.i32(0);
    out.i16(api_key);
    out.i16(version);
    out.i32(correlation_id);
    out.nullable_string(false, Some("test"));
    // Of the requests that are made here only the later ones have flexible headers.
    out.no_tagged_fields(api_key == 0 && version >= 9);
    out.raw(&body.into_bytes());
    let size = out.len() - 4;
    out.set_i32(0, size as i32);
    out.into_bytes()
}

/// A request that Python owes (`ApiVersions` 0).
pub fn owed_request(correlation_id: i32) -> Vec<u8> {
    framed(18, 0, correlation_id, Writer::default())
}

/// A topic with partitions and their records.
pub type ToProduce<'a> = (&'a str, &'a [(i32, &'a [u8])]);

/// A produce request of version 8.
pub fn produce_to(correlation_id: i32, acks: i16, timeout_ms: i32, topics: &[ToProduce<'_>]) -> Vec<u8> {
    let mut body = Writer::default();
    body.nullable_string(false, None);
    body.i16(acks);
    body.i32(timeout_ms);
    body.array_len(false, topics.len());
    for (topic, partitions) in topics {
        body.string(false, topic);
        body.array_len(false, partitions.len());
        for (partition, records) in *partitions {
            body.i32(*partition);
            body.array_len(false, records.len());
            body.raw(records);
        }
    }
    framed(0, 8, correlation_id, body)
}

/// A produce request to partition 0 of a topic, with acks=all.
pub fn produce(correlation_id: i32, topic: &str, records: &[u8]) -> Vec<u8> {
    produce_to(correlation_id, -1, 30_000, &[(topic, &[(0, records)])])
}

/// A transactional produce request with acks=all to partition 0 of topics.
pub fn produce_in(version: i16, correlation_id: i32, id: Option<&str>, topics: &[(&str, &[u8])]) -> Vec<u8> {
    let flexible = version >= 9;
    let mut body = Writer::default();
    body.nullable_string(flexible, id);
    body.i16(-1);
    body.i32(30_000);
    body.array_len(flexible, topics.len());
    for (topic, records) in topics {
        body.string(flexible, topic);
        body.array_len(flexible, 1);
        body.i32(0);
        body.array_len(flexible, records.len());
        body.raw(records);
        body.no_tagged_fields(flexible);
        body.no_tagged_fields(flexible);
    }
    body.no_tagged_fields(flexible);
    framed(0, version, correlation_id, body)
}

/// The error code and base offset of every topic's partition of a produce response.
pub fn produce_results(version: i16, body: &[u8]) -> Vec<(i16, i64)> {
    let flexible = version >= 9;
    let mut reader = Reader::new(body);
    let mut read = || -> Result<Vec<(i16, i64)>, ottla_core::wire::WireError> {
        reader.skip_tagged_fields(flexible)?;
        let mut found = Vec::new();
        for _ in 0..reader.array_len(flexible, 1, "responses")? {
            reader.string(flexible, "topic")?;
            assert_eq!(reader.array_len(flexible, 1, "partitions")?, 1);
            reader.i32()?;
            found.push((reader.i16()?, reader.i64()?));
            reader.i64()?;
            reader.i64()?;
            assert_eq!(reader.array_len(flexible, 1, "record errors")?, 0);
            reader.nullable_string(flexible, "message")?;
            reader.skip_tagged_fields(flexible)?;
            reader.skip_tagged_fields(flexible)?;
        }
        Ok(found)
    };
    read().expect("a produce response")
}

/// The error code and base offset of the first partition of a produce response of version 8.
pub fn produce_result(body: &[u8]) -> (i16, i64) {
    let mut reader = Reader::new(body);
    assert!(reader.array_len(false, 1, "responses").expect("an array") > 0);
    reader.string(false, "topic").expect("a name");
    assert!(reader.array_len(false, 1, "partitions").expect("an array") > 0);
    reader.i32().expect("an index");
    (reader.i16().expect("an error code"), reader.i64().expect("an offset"))
}

/// What a fetch asks for. Defaults: partition 0 from offset 0, one byte at least, half a second at most, no session.
#[derive(Clone)]
pub struct Fetch<'a> {
    pub topics: &'a [(&'a str, i64)],
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub partition_max_bytes: i32,
    pub session: (i32, i32),
    /// Whether only committed records are wanted.
    pub committed: bool,
}

impl Default for Fetch<'_> {
    fn default() -> Self {
        Self {
            topics: &[],
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 1 << 20,
            partition_max_bytes: 1 << 20,
            session: (0, -1),
            committed: false,
        }
    }
}

impl Fetch<'_> {
    /// A fetch request of version 11 for (topic, offset) pairs.
    pub fn request(&self, correlation_id: i32) -> Vec<u8> {
        let mut body = Writer::default();
        body.i32(-1);
        body.i32(self.max_wait_ms);
        body.i32(self.min_bytes);
        body.i32(self.max_bytes);
        body.i8(i8::from(self.committed));
        body.i32(self.session.0);
        body.i32(self.session.1);
        body.array_len(false, self.topics.len());
        for (topic, offset) in self.topics {
            body.string(false, topic);
            body.array_len(false, 1);
            body.i32(0);
            body.i32(-1);
            body.i64(*offset);
            body.i64(-1);
            body.i32(self.partition_max_bytes);
        }
        body.array_len(false, 0);
        body.string(false, "");
        framed(1, 11, correlation_id, body)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct FetchedPartition {
    pub topic: String,
    pub error_code: i16,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    /// Producer and first offset; None: not asked for.
    pub aborted: Option<Vec<(i64, i64)>>,
    pub records_bytes: usize,
    /// Base offsets of the batches.
    pub batches: Vec<i64>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Fetched {
    pub error_code: i16,
    pub session_id: i32,
    pub partitions: Vec<FetchedPartition>,
}

impl Fetched {
    /// Base offsets of the batches of the only partition.
    pub fn batches(&self) -> &[i64] {
        assert_eq!(self.partitions.len(), 1, "{self:?}");
        assert_eq!(self.partitions[0].error_code, 0, "{self:?}");
        &self.partitions[0].batches
    }

    pub fn error(&self) -> i16 {
        assert_eq!(self.partitions.len(), 1, "{self:?}");
        self.partitions[0].error_code
    }
}

pub fn fetch_result(body: &[u8]) -> Fetched {
    let mut reader = Reader::new(body);
    let mut read = || -> Result<Fetched, ottla_core::wire::WireError> {
        reader.i32()?;
        let (error_code, session_id) = (reader.i16()?, reader.i32()?);
        let mut partitions = Vec::new();
        for _ in 0..reader.array_len(false, 1, "responses")? {
            let topic = reader.string(false, "topic")?.to_owned();
            for _ in 0..reader.array_len(false, 1, "partitions")? {
                reader.i32()?;
                let (error_code, high_watermark) = (reader.i16()?, reader.i64()?);
                let last_stable_offset = reader.i64()?;
                reader.i64()?;
                let aborted_count = reader.i32()?;
                let mut rows = Vec::new();
                for _ in 0..aborted_count {
                    rows.push((reader.i64()?, reader.i64()?));
                }
                let aborted = (aborted_count >= 0).then_some(rows);
                reader.i32()?;
                let records = reader.nullable_bytes(false, "records")?.unwrap_or_default();
                let batches = Batches::new(records)
                    .map_while(Result::ok)
                    .map(|batch| batch.base_offset());
                partitions.push(FetchedPartition {
                    topic: topic.clone(),
                    error_code,
                    high_watermark,
                    last_stable_offset,
                    aborted,
                    records_bytes: records.len(),
                    batches: batches.collect(),
                });
            }
        }
        Ok(Fetched {
            error_code,
            session_id,
            partitions,
        })
    };
    let fetched = read().expect("a fetch response");
    assert_eq!(reader.left(), 0);
    fetched
}
