//! The metadata quorum for Python: the machine on the event loop, its log in a thread.

#![allow(clippy::needless_pass_by_value)] // arguments come from Python as owned values

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ottla_core::quorum::{Event, JobDone, LogWriter, PersistJob, Quorum, QuorumConfig, QuorumError};
use ottla_core::storage::real_fs::RealFs;
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

create_exception!(ottla._native, QuorumNotLeaderError, PyException);
create_exception!(ottla._native, QuorumDamagedError, PyException);
create_exception!(ottla._native, QuorumNoSpaceError, PyException);
create_exception!(ottla._native, QuorumFailedError, PyException);

fn into_py(error: &QuorumError) -> PyErr {
    let text = error.to_string();
    match error {
        QuorumError::NotLeader { .. } => QuorumNotLeaderError::new_err(text),
        QuorumError::Damaged { .. } => QuorumDamagedError::new_err(text),
        QuorumError::NoSpace { .. } => QuorumNoSpaceError::new_err(text),
        QuorumError::Failed { .. } => QuorumFailedError::new_err(text),
        QuorumError::Storage { source, .. } => match source.raw_os_error() {
            Some(errno) => PyOSError::new_err((errno, text)),
            None => PyOSError::new_err(text),
        },
        _ => PyValueError::new_err(text),
    }
}

/// Proven panics of the machine poison nothing that a later call could misread: it refuses everything after one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn copied(records: &[Bound<'_, PyBytes>]) -> Vec<Bytes> {
    records
        .iter()
        .map(|record| Bytes::copy_from_slice(record.as_bytes()))
        .collect()
}

fn byte_list<'py>(py: Python<'py>, records: &[Bytes]) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, records.iter().map(|record| PyBytes::new(py, record)))
}

fn event_tuple<'py>(py: Python<'py>, event: &Event) -> PyResult<Bound<'py, PyTuple>> {
    match event {
        Event::Snapshot { meta, records } => (
            "snapshot",
            meta.id.end_offset,
            meta.id.epoch,
            meta.last_contained_log_timestamp_ms,
            byte_list(py, records)?,
        )
            .into_pyobject(py),
        Event::Committed(batch) => (
            "committed",
            batch.base_offset,
            batch.last_offset,
            batch.epoch,
            batch.timestamp_ms,
            byte_list(py, &batch.records)?,
        )
            .into_pyobject(py),
        Event::LeaderChanged { leader_id, epoch } => ("leader", *leader_id, *epoch).into_pyobject(py),
        Event::Claimed { epoch } => ("claimed", *epoch).into_pyobject(py),
        Event::Resigned { epoch } => ("resigned", *epoch).into_pyobject(py),
    }
}

#[pyclass(frozen, module = "ottla._native")]
pub struct QuorumJob {
    job: PersistJob,
}

#[pyclass(frozen, module = "ottla._native")]
pub struct QuorumJobDone {
    done: Mutex<Option<JobDone>>,
}

#[pyclass(frozen, module = "ottla._native")]
pub struct QuorumLog {
    writer: Mutex<LogWriter>,
}

#[pymethods]
impl QuorumLog {
    fn run(&self, py: Python<'_>, job: &QuorumJob) -> PyResult<QuorumJobDone> {
        let done = py
            .detach(|| lock(&self.writer).run(&job.job))
            .map_err(|error| into_py(&error))?;
        Ok(QuorumJobDone {
            done: Mutex::new(Some(done)),
        })
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| lock(&self.writer).close())
            .map_err(|error| into_py(&error))
    }
}

#[pyclass(frozen, name = "Quorum", module = "ottla._native")]
pub struct PyQuorum {
    quorum: Mutex<Quorum>,
}

type Work<'py> = (
    Vec<(i32, Bound<'py, PyBytes>)>,
    Vec<Bound<'py, PyTuple>>,
    Option<QuorumJob>,
);
type Report = (u64, Vec<String>, usize);
type Status = (i32, i32, bool, i64, i64, i64, Vec<(i32, i64)>);

#[pymethods]
impl PyQuorum {
    #[staticmethod]
    #[pyo3(signature = (directory, *, node_id, voters, seed, election_ticks, heartbeat_ticks, segment_bytes, snapshots_kept, wall_ms))]
    #[allow(clippy::too_many_arguments)] // keyword-only in Python
    fn open(
        py: Python<'_>,
        directory: &str,
        node_id: i32,
        voters: Vec<i32>,
        seed: u64,
        election_ticks: usize,
        heartbeat_ticks: usize,
        segment_bytes: u64,
        snapshots_kept: usize,
        wall_ms: i64,
    ) -> PyResult<(Self, QuorumLog, Report)> {
        let config = QuorumConfig {
            seed,
            election_ticks,
            heartbeat_ticks,
            segment_bytes,
            snapshots_kept,
            ..QuorumConfig::new(node_id, voters)
        };
        let (quorum, writer, report) = py
            .detach(|| Quorum::open(Arc::new(RealFs), Path::new(directory), &config, wall_ms))
            .map_err(|error| into_py(&error))?;
        Ok((
            Self {
                quorum: Mutex::new(quorum),
            },
            QuorumLog {
                writer: Mutex::new(writer),
            },
            (report.torn_bytes, report.damaged_snapshots, report.batches_read),
        ))
    }

    fn tick(&self, wall_ms: i64) -> PyResult<()> {
        lock(&self.quorum).tick(wall_ms).map_err(|error| into_py(&error))
    }

    fn step(&self, message: &[u8], wall_ms: i64) -> PyResult<()> {
        let message = Bytes::copy_from_slice(message);
        lock(&self.quorum)
            .step(&message, wall_ms)
            .map_err(|error| into_py(&error))
    }

    fn propose(&self, records: Vec<Bound<'_, PyBytes>>, wall_ms: i64) -> PyResult<(i64, i64, i32)> {
        let proposed = lock(&self.quorum)
            .propose(&copied(&records), wall_ms)
            .map_err(|error| into_py(&error))?;
        Ok((proposed.base_offset, proposed.last_offset, proposed.epoch))
    }

    fn create_snapshot(
        &self,
        end_offset: i64,
        last_contained_log_timestamp_ms: i64,
        records: Vec<Bound<'_, PyBytes>>,
    ) -> PyResult<bool> {
        lock(&self.quorum)
            .create_snapshot(end_offset, last_contained_log_timestamp_ms, copied(&records))
            .map_err(|error| into_py(&error))
    }

    fn take_work<'py>(&self, py: Python<'py>) -> PyResult<Work<'py>> {
        let work = lock(&self.quorum).take_work().map_err(|error| into_py(&error))?;
        let messages = work
            .messages
            .iter()
            .map(|message| (message.to, PyBytes::new(py, &message.bytes)))
            .collect();
        let events = work
            .events
            .iter()
            .map(|event| event_tuple(py, event))
            .collect::<PyResult<_>>()?;
        Ok((messages, events, work.job.map(|job| QuorumJob { job })))
    }

    fn on_persisted(&self, done: &QuorumJobDone) -> PyResult<()> {
        let Some(done) = lock(&done.done).take() else {
            return Err(PyRuntimeError::new_err("this job was already reported done"));
        };
        lock(&self.quorum).on_persisted(done).map_err(|error| into_py(&error))
    }

    fn on_unreachable(&self, voter: i32, was_snapshot: bool) -> PyResult<()> {
        lock(&self.quorum)
            .on_unreachable(voter, was_snapshot)
            .map_err(|error| into_py(&error))
    }

    fn status(&self) -> Status {
        let status = lock(&self.quorum).status();
        (
            status.leader_id,
            status.epoch,
            status.is_active,
            status.high_watermark,
            status.log_end_offset,
            status.snapshot_end_offset,
            status
                .voters
                .iter()
                .map(|voter| (voter.node_id, voter.log_end_offset))
                .collect(),
        )
    }
}
