//! `DataPlane`: convert, call `plane` and `ottla_core::data_plane`, convert.

#![allow(clippy::needless_pass_by_value)] // arguments come from Python as owned values

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use ottla_core::data_plane::validation::Validator;
use ottla_core::data_plane::{DataPlane as Core, Options, Refused, SessionId, Unverified};
use ottla_core::error::Error;
use ottla_core::partition::PartitionOptions;
use ottla_core::session::pipeline::OwedRequest;
use ottla_core::session::standing::{Standing, StandingId};
use ottla_core::storage::log_dir::LogDir;
use ottla_core::types::{TopicId, TopicPartition};
use pyo3::exceptions::{PyIndexError, PyKeyError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::directories::open_log_dirs;
use crate::errors::into_py;
use crate::metrics;
use crate::options::{parse_config, parse_options};
use crate::partition::Partition;
use crate::placement::Placement;
use crate::plane::{self, Plane};
use crate::readiness::{Events, Wakeup};
use crate::warmer::Warmer;

/// Threads that check large compressed batches, at most; there is no use in more than the machine has cores.
const CHECK_THREADS_MAX: usize = 4;

/// What every response header begins with.
const CORRELATION_ID_BYTES: usize = 4;

pub type RequestTuple = (u64, i16, i16, i32, Option<String>, Py<PyBytes>);
type UnverifiedTuple = (SessionId, u64, i16, String, i64, i16, Vec<(String, i32)>);
type Polled = (
    Vec<(SessionId, bool, Vec<RequestTuple>)>,
    Vec<(String, i32)>,
    Vec<UnverifiedTuple>,
    bool,
);

#[pyclass(frozen, module = "ottla._native")]
#[derive(Debug)]
pub struct DataPlane {
    pub plane: Arc<Plane>,
    pub log_dirs: Vec<Arc<LogDir>>,
    /// Path and reason of those that could not be opened.
    offline_log_dirs: Vec<(String, String)>,
    was_clean: Vec<bool>,
    placement: Placement,
}

#[pymethods]
impl DataPlane {
    #[new]
    #[pyo3(signature = (*, broker_id, log_dirs, options))]
    fn new(py: Python<'_>, broker_id: i32, log_dirs: Vec<PathBuf>, options: HashMap<String, String>) -> PyResult<Self> {
        let wakeup = Arc::new(Wakeup::new().map_err(PyOSError::new_err)?);
        let core_options = Options {
            broker_id,
            ..parse_options(py, &options)?
        };
        if log_dirs.is_empty() {
            return Err(PyValueError::new_err("the data plane has no log directory"));
        }
        let waker = Arc::clone(&wakeup);
        let waker: Arc<dyn Fn() + Send + Sync> = Arc::new(move || waker.wake());
        let (log_dirs, offline_log_dirs) = py
            .detach(|| open_log_dirs(broker_id, log_dirs, &waker))
            .map_err(|error| into_py(py, &error))?;
        let was_clean = log_dirs.iter().map(|dir| dir.was_clean()).collect();
        let threads = available_parallelism().map_or(1, usize::from).min(CHECK_THREADS_MAX);
        let validator = Validator::new(threads, Arc::clone(&waker)).map_err(PyOSError::new_err)?;
        let warmer = Warmer::new(waker);
        let core = Core::new(core_options, log_dirs.clone(), validator);
        let plane = Arc::new(Plane::new(core, warmer, wakeup).map_err(PyOSError::new_err)?);
        Ok(Self {
            plane,
            log_dirs,
            offline_log_dirs,
            was_clean,
            placement: Placement::default(),
        })
    }

    fn wakeup_fileno(&self) -> RawFd {
        self.plane.lock().wakeup_fd()
    }

    fn open_session(&self, fd: RawFd, now_ms: i64) -> PyResult<SessionId> {
        self.plane.lock().open_session(fd, now_ms).map_err(PyOSError::new_err)
    }

    fn close_session(&self, session_id: SessionId) {
        self.plane.lock().close_session(session_id);
    }

    fn close_reason(&self, session_id: SessionId) -> Option<String> {
        self.plane.lock().core.close_reason(session_id).map(str::to_owned)
    }

    fn reply(
        &self,
        py: Python<'_>,
        session_id: SessionId,
        request_id: u64,
        response: Option<&[u8]>,
        now_ms: i64,
        wall_ms: i64,
    ) -> PyResult<(bool, Vec<RequestTuple>)> {
        let mut inner = self.plane.lock();
        let now = inner.now(now_ms, wall_ms);
        let session = inner.core.session(session_id);
        if !session.is_some_and(|session| session.reply(request_id, response)) {
            return Err(PyKeyError::new_err(format!(
                "session {session_id} owes no request {request_id}"
            )));
        }
        if inner.put_off(session_id) {
            return Ok((false, Vec::new()));
        }
        let news = inner.resume(session_id, now);
        drop(inner);
        let news = news.ok_or_else(|| no_session(session_id))?;
        Ok((news.is_over, tuples(py, news.owed)))
    }

    fn let_stand(
        &self,
        py: Python<'_>,
        session_id: SessionId,
        standing_id: StandingId,
        request: RequestTuple,
        response: &[u8],
    ) -> PyResult<()> {
        let (_, api_key, api_version, _, client_id, body) = request;
        let standing = Standing {
            id: standing_id,
            api_key,
            api_version,
            client_id,
            body: body.as_bytes(py).to_vec(),
            response: behind_correlation_id(response)?.to_vec(),
            given_ms: None,
        };
        self.plane.lock().core.let_stand(session_id, standing);
        Ok(())
    }

    fn withdraw(&self, standing_ids: Vec<StandingId>) -> Vec<(StandingId, i64)> {
        let core = &mut self.plane.lock().core;
        let given = standing_ids.into_iter().filter_map(|id| Some((id, core.withdraw(id)?)));
        given.collect()
    }

    fn take_given(&self, standing_ids: Vec<StandingId>) -> Vec<(StandingId, i64)> {
        let core = &mut self.plane.lock().core;
        let given = standing_ids
            .into_iter()
            .filter_map(|id| Some((id, core.take_given(id)?)));
        given.collect()
    }

    fn refuse(&self, session_id: SessionId, reason: String, now_ms: i64, wall_ms: i64) -> PyResult<bool> {
        let mut inner = self.plane.lock();
        let now = inner.now(now_ms, wall_ms);
        if let Some(session) = inner.core.session(session_id) {
            session.refuse(reason);
        }
        match inner.resume(session_id, now) {
            Some(news) => Ok(news.is_over),
            None => Err(no_session(session_id)),
        }
    }

    fn idle_sessions(&self, before_ms: i64) -> Vec<SessionId> {
        self.plane.lock().idle_sessions(before_ms)
    }

    fn wait_beside(&self, watched: RawFd) -> PyResult<()> {
        self.plane.lock().wait_beside(watched).map_err(PyOSError::new_err)
    }

    #[pyo3(signature = (now_ms, wall_ms, wait_max_s=0.0))]
    fn poll(&self, py: Python<'_>, now_ms: i64, wall_ms: i64, wait_max_s: f64) -> Polled {
        let wait_max = wait_max_of(wait_max_s);
        let plane::Polled {
            news,
            moved,
            unverified,
            is_due,
        } = self.plane.poll(now_ms, wall_ms, wait_max, |epoll, wait_max| {
            py.detach(|| Events::take(epoll, wait_max))
        });
        let moved = if moved.is_empty() {
            Vec::new()
        } else {
            let inner = self.plane.lock();
            moved.into_iter().filter_map(|id| inner.name(id)).collect()
        };
        let news = news
            .into_iter()
            .map(|(session_id, news)| (session_id, news.is_over, tuples(py, news.owed)));
        let unverified = unverified.into_iter().map(unverified_tuple);
        (news.collect(), moved, unverified.collect(), is_due)
    }

    fn cork(&self) {
        self.plane.lock().cork();
    }

    fn uncork(&self, now_ms: i64, wall_ms: i64) {
        let mut inner = self.plane.lock();
        let now = inner.now(now_ms, wall_ms);
        inner.uncork(now);
    }

    #[pyo3(signature = (*, verifies))]
    fn verify_transactions(&self, verifies: bool) {
        self.plane.lock().core.verify_transactions(verifies);
    }

    fn verified(
        &self,
        py: Python<'_>,
        session_id: SessionId,
        request_id: u64,
        refused: Vec<(String, i32, i16, Option<String>)>,
        now_ms: i64,
        wall_ms: i64,
    ) -> Option<(bool, Vec<RequestTuple>)> {
        let refused: Vec<_> = refused
            .into_iter()
            .map(|(topic, partition, code, message)| Refused {
                topic,
                partition,
                code,
                message,
            })
            .collect();
        let mut inner = self.plane.lock();
        let now = inner.now(now_ms, wall_ms);
        if !inner.core.on_verified(session_id, request_id, &refused, now) {
            return None;
        }
        let news = inner.resume(session_id, now);
        drop(inner);
        news.map(|news| (news.is_over, tuples(py, news.owed)))
    }

    fn oldest_transactions_ms(&self) -> Vec<i64> {
        self.plane.lock().core.oldest_transactions_ms().collect()
    }

    fn next_deadline_ms(&self) -> Option<i64> {
        self.plane.lock().core.next_deadline_ms()
    }

    #[pyo3(signature = (topic, partition, *, topic_id, config, leader_epoch, wall_ms))]
    #[allow(clippy::too_many_arguments)] // keyword arguments in Python
    fn create_partition(
        &self,
        py: Python<'_>,
        topic: &str,
        partition: i32,
        topic_id: [u8; 16],
        config: HashMap<String, String>,
        leader_epoch: i32,
        wall_ms: i64,
    ) -> PyResult<Partition> {
        if partition < 0 {
            return Err(PyValueError::new_err("partition indexes start at 0"));
        }
        let (log_config, rules) = parse_config(py, &config)?;
        let topic_partition = TopicPartition {
            topic: Arc::from(topic),
            partition,
        };
        let id = {
            let mut inner = self.plane.lock();
            if inner.core.find(topic, partition).is_some() {
                return Err(PyValueError::new_err(format!("{topic_partition} exists")));
            }
            inner.core.next_partition_id()
        };
        let options = PartitionOptions {
            id,
            topic_partition,
            topic_id: TopicId(topic_id),
            config: log_config,
        };
        let opened = py.detach(|| {
            let partition_count = |dir| self.plane.lock().core.partition_count(dir);
            let (opened, log_dir) = self
                .placement
                .open(&self.log_dirs, &options, wall_ms, partition_count)?;
            opened.set_leadership(leader_epoch)?;
            Ok((opened, log_dir))
        });
        let (opened, log_dir) = opened.map_err(|error: Error| into_py(py, &error))?;
        self.plane
            .lock()
            .core
            .serve(Arc::clone(&opened), log_dir, rules.clone());
        Ok(Partition::new(Arc::clone(&self.plane), opened, log_dir))
    }

    fn partition(&self, topic: &str, partition: i32) -> Option<Partition> {
        let inner = self.plane.lock();
        let (_, entry) = inner.core.find(topic, partition)?;
        Some(Partition::new(
            Arc::clone(&self.plane),
            Arc::clone(&entry.partition),
            entry.attached.log_dir(),
        ))
    }

    fn set_unavailable(&self, partitions: Vec<(String, i32, [u8; 16])>) {
        let partitions = partitions.into_iter().map(|(topic, partition, topic_id)| {
            let topic = Arc::from(topic);
            (TopicPartition { topic, partition }, TopicId(topic_id))
        });
        self.plane.lock().core.set_unavailable(partitions);
    }

    fn partitions(&self) -> Vec<(String, i32)> {
        let inner = self.plane.lock();
        let named = inner.core.partitions().map(|(_, entry)| &entry.topic_partition);
        named.map(|named| (named.topic.to_string(), named.partition)).collect()
    }

    fn delete_partition(&self, py: Python<'_>, topic: &str, partition: i32, now_ms: i64, wall_ms: i64) -> PyResult<()> {
        let stopped = {
            let mut inner = self.plane.lock();
            let now = inner.now(now_ms, wall_ms);
            let id = inner.core.find(topic, partition).map(|(id, _)| id);
            id.and_then(|id| inner.core.stop_serving(id, now))
        };
        let stopped = stopped.ok_or_else(|| PyKeyError::new_err(format!("no partition {topic}-{partition}")))?;
        self.plane.wakeup.wake();
        py.detach(|| stopped.delete()).map_err(|error| into_py(py, &error))
    }

    fn set_leadership(
        &self,
        py: Python<'_>,
        topic: &str,
        partition: i32,
        leader_epoch: i32,
        now_ms: i64,
        wall_ms: i64,
    ) -> PyResult<()> {
        let mut inner = self.plane.lock();
        let now = inner.now(now_ms, wall_ms);
        let id = inner.core.find(topic, partition).map(|(id, _)| id);
        let id = id.ok_or_else(|| PyKeyError::new_err(format!("no partition {topic}-{partition}")))?;
        let result = inner.core.set_leadership(id, leader_epoch, now);
        drop(inner);
        self.plane.wakeup.wake();
        result.map_err(|error| into_py(py, &error))
    }

    fn update_config(
        &self,
        py: Python<'_>,
        topic: &str,
        partition: i32,
        config: HashMap<String, String>,
    ) -> PyResult<()> {
        let (log_config, rules) = parse_config(py, &config)?;
        let mut inner = self.plane.lock();
        let id = inner.core.find(topic, partition).map(|(id, _)| id);
        let id = id.ok_or_else(|| PyKeyError::new_err(format!("no partition {topic}-{partition}")))?;
        inner.core.configure(id, log_config, rules);
        Ok(())
    }

    fn tick(&self, now_ms: i64, wall_ms: i64) {
        let partitions: Vec<_> = {
            let inner = self.plane.lock();
            inner
                .core
                .partitions()
                .map(|(_, entry)| Arc::clone(&entry.partition))
                .collect()
        };
        for partition in partitions {
            partition.on_tick(now_ms, wall_ms);
        }
    }

    fn write_checkpoints(&self, py: Python<'_>, log_dir: usize) -> PyResult<()> {
        let dir = self
            .log_dirs
            .get(log_dir)
            .ok_or_else(|| PyIndexError::new_err("no such log directory"))?;
        py.detach(|| dir.write_checkpoints())
            .map_err(|error| into_py(py, &error))
    }

    fn log_dirs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let dirs = PyList::empty(py);
        for (dir, was_clean) in self.log_dirs.iter().zip(&self.was_clean) {
            let description = PyDict::new(py);
            description.set_item("path", dir.path())?;
            description.set_item("directory_id", &dir.meta().directory_id)?;
            description.set_item("cluster_id", &dir.meta().cluster_id)?;
            description.set_item("was_clean", was_clean)?;
            description.set_item("tail_bytes", dir.tail_bytes())?;
            description.set_item("is_full", dir.is_full())?;
            let found: Vec<_> = dir
                .partitions()
                .into_iter()
                .map(|tp| (tp.topic.to_string(), tp.partition))
                .collect();
            description.set_item("partitions", found)?;
            dirs.append(description)?;
        }
        Ok(dirs)
    }

    fn offline_log_dirs(&self) -> Vec<(String, String)> {
        self.offline_log_dirs.clone()
    }

    fn take_offline(&self) -> Vec<(String, i32, String)> {
        let mut inner = self.plane.lock();
        let offline = inner.core.take_offline().into_iter();
        let told = offline.filter_map(|id| {
            let entry = inner.core.entry(id)?;
            let TopicPartition { topic, partition } = &entry.topic_partition;
            let reason = entry.partition.offline_reason().unwrap_or_default();
            Some((topic.to_string(), *partition, reason))
        });
        told.collect()
    }

    fn complaints(&self) -> Vec<String> {
        let complaints = self.log_dirs.iter().flat_map(|dir| dir.drain_complaints());
        complaints.collect()
    }

    fn discard_partition(&self, py: Python<'_>, log_dir: usize, topic: &str, partition: i32) -> PyResult<()> {
        let dir = self
            .log_dirs
            .get(log_dir)
            .ok_or_else(|| PyIndexError::new_err("no such log directory"))?;
        let topic_partition = TopicPartition {
            topic: Arc::from(topic),
            partition,
        };
        py.detach(|| dir.discard(&topic_partition))
            .map_err(|error| into_py(py, &error))
    }

    fn set_partition_aside(
        &self,
        py: Python<'_>,
        log_dir: usize,
        topic: &str,
        partition: i32,
    ) -> PyResult<Option<PathBuf>> {
        let dir = self
            .log_dirs
            .get(log_dir)
            .ok_or_else(|| PyIndexError::new_err("no such log directory"))?;
        let topic_partition = TopicPartition {
            topic: Arc::from(topic),
            partition,
        };
        py.detach(|| dir.set_aside(&topic_partition))
            .map_err(|error| into_py(py, &error))
    }

    #[pyo3(signature = (now_ms, wall_ms, log_dir=None))]
    fn close(&self, py: Python<'_>, now_ms: i64, wall_ms: i64, log_dir: Option<usize>) -> PyResult<()> {
        let is_wanted = |index: usize| log_dir.is_none_or(|log_dir| log_dir == index);
        let partitions = {
            let mut inner = self.plane.lock();
            let now = inner.now(now_ms, wall_ms);
            let wanted = inner
                .core
                .partitions()
                .filter(|(_, entry)| is_wanted(entry.attached.log_dir()));
            let ids: Vec<_> = wanted.map(|(id, _)| id).collect();
            ids.into_iter()
                .filter_map(|id| inner.core.stop_serving(id, now))
                .collect::<Vec<_>>()
        };
        let log_dirs = self.log_dirs.iter().enumerate().filter(|(index, _)| is_wanted(*index));
        let log_dirs: Vec<_> = log_dirs.map(|(_, dir)| dir).collect();
        let closed = py.detach(|| {
            // Every one is closed, whatever becomes of the others; the first error is reported.
            let mut results: Vec<_> = partitions.iter().map(|partition| partition.close()).collect();
            results.extend(log_dirs.iter().map(|dir| dir.close()));
            results.into_iter().collect::<Result<(), Error>>()
        });
        closed.map_err(|error| into_py(py, &error))
    }

    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        metrics::as_dict(py, &self.plane)
    }
}

/// The part of a response that is the same for all requests that are.
pub fn behind_correlation_id(response: &[u8]) -> PyResult<&[u8]> {
    let rest = response.get(CORRELATION_ID_BYTES..);
    rest.ok_or_else(|| PyValueError::new_err("a response begins with a correlation id"))
}

/// A wait without an end is infinite in Python.
fn wait_max_of(seconds: f64) -> Duration {
    let endless = if seconds > 0.0 { Duration::MAX } else { Duration::ZERO };
    Duration::try_from_secs_f64(seconds).unwrap_or(endless)
}

fn unverified_tuple(unverified: Unverified) -> UnverifiedTuple {
    let Unverified {
        session_id,
        request_id,
        api_version,
        transactional_id,
        producer_id,
        producer_epoch,
        partitions,
    } = unverified;
    let partitions = partitions
        .into_iter()
        .map(|(topic, partition)| (topic.to_string(), partition));
    (
        session_id,
        request_id,
        api_version,
        transactional_id,
        producer_id,
        producer_epoch,
        partitions.collect(),
    )
}

fn no_session(session_id: SessionId) -> PyErr {
    PyKeyError::new_err(format!("no session {session_id}"))
}

fn tuples(py: Python<'_>, owed: Vec<OwedRequest>) -> Vec<RequestTuple> {
    owed.into_iter()
        .map(|r| {
            let body = PyBytes::new(py, &r.body).unbind();
            (
                r.request_id,
                r.api_key,
                r.api_version,
                r.correlation_id,
                r.client_id,
                body,
            )
        })
        .collect()
}
