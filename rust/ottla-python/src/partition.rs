//! `Partition`: one partition for coordinators and admin handlers.

use std::sync::Arc;

use bytes::BytesMut;
use ottla_core::data_plane::{SessionId, Written};
use ottla_core::partition::{
    AppendState, Appended, EpochEndOffset, Partition as CorePartition, PartitionOffsets as CoreOffsets,
};
use ottla_core::record::control::{MarkerType, TransactionMarker};
use ottla_core::record::validate::{Origin, validate_produce};
use ottla_core::session::standing::StandingId;
use ottla_core::session::standing_write::{Example, Hole, StandingWrite};
use ottla_core::storage::producer_state::Checks;
use ottla_core::storage::verification::{Guard, Verified};
use ottla_core::types::Isolation;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::data_plane::{RequestTuple, behind_correlation_id};
use crate::errors::{into_py, kafka_error};
use crate::plane::Plane;

const KAFKA_STORAGE_ERROR: i16 = 56;

type WrittenTuple = (StandingId, i64, i64, i64, Py<PyBytes>);
type BatchTuple = (i64, i64, usize, bool);
type ProducerTuple = (i64, i16, i32, i64, i32, i64);

#[pyclass(frozen, module = "ottla._native")]
#[derive(Debug)]
pub struct Partition {
    plane: Arc<Plane>,
    core: Arc<CorePartition>,
    log_dir: usize,
}

#[pyclass(frozen, get_all, eq, module = "ottla._native")]
#[derive(Debug, PartialEq, Eq)]
pub struct PartitionOffsets {
    log_start_offset: i64,
    high_watermark: i64,
    last_stable_offset: i64,
    log_end_offset: i64,
    written_offset: i64,
    leader_epoch: i32,
}

fn isolation_of(committed_only: bool) -> Isolation {
    if committed_only {
        Isolation::ReadCommitted
    } else {
        Isolation::ReadUncommitted
    }
}

#[pymethods]
impl PartitionOffsets {
    fn __repr__(&self) -> String {
        format!("{self:?}")
    }
}

/// An append of which somebody wants to know what becomes.
#[pyclass(frozen, module = "ottla._native")]
#[derive(Debug)]
pub struct PendingAppend {
    core: Arc<CorePartition>,
    appended: Appended,
}

#[pymethods]
impl PendingAppend {
    #[getter]
    fn offset(&self) -> i64 {
        self.appended.last_offset
    }

    fn is_committed(&self, py: Python<'_>) -> PyResult<bool> {
        match self.core.append_state(&self.appended) {
            AppendState::Committed => Ok(true),
            AppendState::Pending | AppendState::Written => Ok(false),
            AppendState::Failed => Err(kafka_error(py, KAFKA_STORAGE_ERROR, "the write to the log failed")),
        }
    }
}

impl Partition {
    pub fn new(plane: Arc<Plane>, core: Arc<CorePartition>, log_dir: usize) -> Self {
        Self { plane, core, log_dir }
    }
}

#[pymethods]
impl Partition {
    #[getter]
    fn topic(&self) -> &str {
        &self.core.topic_partition().topic
    }

    #[getter]
    fn partition(&self) -> i32 {
        self.core.topic_partition().partition
    }

    #[getter]
    fn topic_id(&self) -> [u8; 16] {
        self.core.topic_id().0
    }

    #[getter]
    fn log_dir(&self) -> usize {
        self.log_dir
    }

    fn __repr__(&self) -> String {
        format!("<Partition {}>", self.core.topic_partition())
    }

    #[pyo3(signature = (batch, *, wall_ms, leader_epoch=None, guard=None))]
    fn append_batch(
        &self,
        py: Python<'_>,
        batch: &[u8],
        wall_ms: i64,
        leader_epoch: Option<i32>,
        guard: Option<u64>,
    ) -> PyResult<(i64, i64)> {
        let rules = {
            let inner = self.plane.lock();
            inner
                .core
                .entry(self.core.id())
                .map(|entry| entry.attached.rules().clone())
                .unwrap_or_default()
        };
        let context = rules.context(Origin::Coordinator, i16::MAX, wall_ms);
        let validated = validate_produce(BytesMut::from(batch), &context)
            .map_err(|rejection| kafka_error(py, rejection.code, &rejection.message))?;
        let appended = match guard {
            None => self.core.append_as_leader(validated, leader_epoch, wall_ms),
            Some(guard) => {
                let verified = match guard {
                    0 => Verified::Open,
                    guard => Verified::By(Guard::from_number(guard)),
                };
                self.core
                    .append(validated, leader_epoch, Checks::Coordinator(verified), wall_ms)
            }
        };
        let appended = appended.map_err(|error| into_py(py, &error))?;
        Ok((appended.base_offset, appended.last_offset))
    }

    #[pyo3(signature = (session_id, standing_id, request, response, *, batch, holes, clocks, leader_epoch, timeout_ms))]
    #[allow(clippy::too_many_arguments)] // keyword arguments in Python
    fn let_write_stand(
        &self,
        py: Python<'_>,
        session_id: SessionId,
        standing_id: StandingId,
        request: RequestTuple,
        response: &[u8],
        batch: &[u8],
        holes: Vec<(usize, usize, usize)>,
        clocks: Vec<usize>,
        leader_epoch: i32,
        timeout_ms: i64,
    ) -> PyResult<()> {
        let (_, api_key, api_version, _, client_id, body) = request;
        let holes = holes.into_iter().map(|(request_at, batch_at, size_bytes)| Hole {
            request_at,
            batch_at,
            size_bytes,
        });
        let example = Example {
            api_key,
            api_version,
            client_id,
            body: body.as_bytes(py).to_vec(),
            response: behind_correlation_id(response)?.to_vec(),
            batch: batch.to_vec(),
            holes: holes.collect(),
            clocks,
        };
        let write = StandingWrite::new(standing_id, self.core.id(), leader_epoch, timeout_ms, example)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        self.plane.lock().core.let_write_stand(session_id, write);
        Ok(())
    }

    fn withdraw_writes(&self, standing_ids: Vec<StandingId>) {
        let core = &mut self.plane.lock().core;
        for standing_id in standing_ids {
            core.withdraw_write(standing_id);
        }
    }

    fn take_written(&self, py: Python<'_>) -> (i64, Vec<WrittenTuple>) {
        let taken = self.plane.lock().core.take_written(self.core.id());
        let (high_watermark, written) = taken.unwrap_or_else(|| (self.core.offsets().high_watermark, Vec::new()));
        let written = written.into_iter().map(|written| {
            let Written {
                id,
                base_offset,
                now_ms,
                wall_ms,
                said,
            } = written;
            (id, base_offset, now_ms, wall_ms, PyBytes::new(py, &said).unbind())
        });
        (high_watermark, written.collect())
    }

    #[pyo3(signature = (*, producer_id, producer_epoch, commit, coordinator_epoch, transaction_version, wall_ms, leader_epoch=None))]
    #[allow(clippy::too_many_arguments)] // keyword arguments in Python
    fn append_marker(
        &self,
        py: Python<'_>,
        producer_id: i64,
        producer_epoch: i16,
        commit: bool,
        coordinator_epoch: i32,
        transaction_version: i16,
        wall_ms: i64,
        leader_epoch: Option<i32>,
    ) -> PyResult<PendingAppend> {
        let marker = TransactionMarker {
            producer_id,
            producer_epoch,
            marker_type: if commit { MarkerType::Commit } else { MarkerType::Abort },
            coordinator_epoch,
        };
        let appended = self
            .core
            .append_marker(&marker, transaction_version, leader_epoch, wall_ms);
        let appended = appended.map_err(|error| into_py(py, &error))?;
        Ok(PendingAppend {
            core: Arc::clone(&self.core),
            appended,
        })
    }

    #[pyo3(signature = (producer_id, producer_epoch, *, supports_epoch_bump, now_ms))]
    fn begin_verification(
        &self,
        py: Python<'_>,
        producer_id: i64,
        producer_epoch: i16,
        supports_epoch_bump: bool,
        now_ms: i64,
    ) -> PyResult<u64> {
        let guard = self
            .core
            .begin_verification(producer_id, producer_epoch, -1, supports_epoch_bump, now_ms);
        let guard = guard.map_err(|error| into_py(py, &error))?;
        Ok(guard.map_or(0, Guard::number))
    }

    fn producers(&self, py: Python<'_>) -> PyResult<Vec<ProducerTuple>> {
        let producers = self.core.active_producers().map_err(|error| into_py(py, &error))?;
        let producers = producers.into_iter().map(|producer| {
            (
                producer.producer_id,
                producer.producer_epoch,
                producer.last_sequence,
                producer.last_timestamp,
                producer.coordinator_epoch,
                producer.current_txn_start_offset,
            )
        });
        Ok(producers.collect())
    }

    #[pyo3(signature = (offset, *, max_bytes))]
    fn read_records<'py>(&self, py: Python<'py>, offset: i64, max_bytes: usize) -> PyResult<Bound<'py, PyBytes>> {
        let read = py.detach(|| {
            let read = self
                .core
                .read(offset, max_bytes, Isolation::ReadUncommitted, true, -1, -1)?;
            read.to_bytes()
                .map_err(ottla_core::error::Error::storage("reading records"))
        });
        let bytes = read.map_err(|error: ottla_core::error::Error| into_py(py, &error))?;
        Ok(PyBytes::new(py, &bytes))
    }

    #[pyo3(signature = (offset, *, max_bytes, committed_only=false))]
    fn read_batches<'py>(
        &self,
        py: Python<'py>,
        offset: i64,
        max_bytes: usize,
        committed_only: bool,
    ) -> PyResult<(Bound<'py, PyBytes>, Vec<BatchTuple>)> {
        let isolation = isolation_of(committed_only);
        let read = py.detach(|| self.core.read_batches(offset, max_bytes, isolation));
        let read = read.map_err(|error| into_py(py, &error))?;
        let batches = read
            .batches
            .iter()
            .map(|batch| (batch.base_offset, batch.last_offset, batch.position, batch.is_aborted));
        Ok((PyBytes::new(py, &read.bytes), batches.collect()))
    }

    #[pyo3(signature = (offset, *, committed_only=false))]
    fn bytes_available(&self, offset: i64, committed_only: bool) -> u64 {
        self.core.bytes_available(offset, isolation_of(committed_only))
    }

    fn take_cut(&self) -> Option<(i64, bool)> {
        self.core.take_cut().map(|cut| (cut.offset, cut.is_reloaded))
    }

    fn offsets(&self) -> PartitionOffsets {
        let CoreOffsets {
            log_start_offset,
            high_watermark,
            last_stable_offset,
            log_end_offset,
            written_offset,
            leader_epoch,
        } = self.core.offsets();
        PartitionOffsets {
            log_start_offset,
            high_watermark,
            last_stable_offset,
            log_end_offset,
            written_offset,
            leader_epoch,
        }
    }

    #[pyo3(signature = (is_watched=true))]
    fn watch(&self, is_watched: bool) {
        self.plane.lock().core.watch(self.core.id(), is_watched);
    }

    #[pyo3(
        signature = (timestamp, *, isolation_level=None, current_leader_epoch=-1),
        text_signature = "($self, timestamp, *, isolation_level=None, current_leader_epoch=-1)"
    )]
    fn list_offset(
        &self,
        py: Python<'_>,
        timestamp: i64,
        isolation_level: Option<i8>,
        current_leader_epoch: i32,
    ) -> PyResult<(i64, i64, i32)> {
        let isolation = match isolation_level {
            None => None,
            Some(0) => Some(Isolation::ReadUncommitted),
            Some(1) => Some(Isolation::ReadCommitted),
            Some(other) => return Err(PyValueError::new_err(format!("isolation level {other}"))),
        };
        let listed = py.detach(|| self.core.list_offset(timestamp, isolation, current_leader_epoch));
        let listed = listed.map_err(|error| into_py(py, &error))?;
        Ok((listed.timestamp, listed.offset, listed.leader_epoch))
    }

    #[pyo3(
        signature = (leader_epoch, *, current_leader_epoch=-1),
        text_signature = "($self, leader_epoch, *, current_leader_epoch=-1)"
    )]
    fn end_offset_for_epoch(
        &self,
        py: Python<'_>,
        leader_epoch: i32,
        current_leader_epoch: i32,
    ) -> PyResult<(i32, i64)> {
        let EpochEndOffset {
            leader_epoch,
            end_offset,
        } = self
            .core
            .end_offset_for_epoch(leader_epoch, current_leader_epoch)
            .map_err(|error| into_py(py, &error))?;
        Ok((leader_epoch, end_offset))
    }

    fn delete_records(&self, py: Python<'_>, offset: i64) -> PyResult<i64> {
        self.core.delete_records(offset).map_err(|error| into_py(py, &error))
    }

    fn size_bytes(&self) -> u64 {
        self.core.size_bytes()
    }

    fn flush(&self, py: Python<'_>) -> PyResult<i64> {
        py.detach(|| self.core.flush()).map_err(|error| into_py(py, &error))
    }

    fn reopen(&self, py: Python<'_>, wall_ms: i64) -> PyResult<()> {
        py.detach(|| self.core.reopen(wall_ms))
            .map_err(|error| into_py(py, &error))
    }
}
