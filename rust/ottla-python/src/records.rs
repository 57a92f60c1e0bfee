//! Record batches for Python: the client and the coordinators build and read them; produce and fetch do not pass here.

use ottla_core::compression::{Codec, Compression};
use ottla_core::record::batch::{BatchError, BatchView, Batches, TimestampType};
use ottla_core::record::builder::{BatchBuilder, BatchOptions, NewRecord};
use ottla_core::record::partitioner;
use ottla_core::record::records::{Record, Records};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

type Blob = Option<PyBackedBytes>;
type RecordTuple<'py> = (Blob, Blob, i64, Vec<(Bound<'py, PyString>, Blob)>);

fn value_error(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

#[pyfunction]
#[pyo3(signature = (records, *, compression="none", level=None, producer_id=-1, producer_epoch=-1, base_sequence=-1,
    transactional=false, base_offset=0, leader_epoch=-1))]
#[allow(clippy::needless_pass_by_value, clippy::too_many_arguments)] // taken over from Python; keyword-only there
pub fn build_batch<'py>(
    py: Python<'py>,
    records: Vec<RecordTuple<'py>>,
    compression: &str,
    level: Option<i32>,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    transactional: bool,
    base_offset: i64,
    leader_epoch: i32,
) -> PyResult<Bound<'py, PyBytes>> {
    let codec = Codec::from_name(compression).ok_or_else(|| value_error(format!("no codec {compression:?}")))?;
    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset,
        partition_leader_epoch: leader_epoch,
        compression: Compression { codec, level },
        producer_id,
        producer_epoch,
        base_sequence,
        transactional,
        ..BatchOptions::default()
    })
    .map_err(value_error)?;
    for (key, value, timestamp_ms, headers) in &records {
        let keys = headers
            .iter()
            .map(|(key, _)| header_key_bytes(key))
            .collect::<PyResult<Vec<_>>>()?;
        let headers: Vec<(&[u8], Option<&[u8]>)> = keys
            .iter()
            .zip(headers)
            .map(|(key, (_, value))| (&**key, value.as_deref()))
            .collect();
        builder
            .append(&NewRecord {
                timestamp_ms: *timestamp_ms,
                key: key.as_deref(),
                value: value.as_deref(),
                headers: &headers,
            })
            .map_err(value_error)?;
    }
    let batch = builder.finish().map_err(value_error)?;
    Ok(PyBytes::new(py, &batch))
}

/// Keys are text in the protocol; bytes that are none pass through as lone surrogates.
fn header_key_bytes(key: &Bound<'_, PyString>) -> PyResult<PyBackedBytes> {
    key.call_method1("encode", ("utf-8", "surrogateescape"))?
        .extract()
        .map_err(PyErr::from)
}

fn header_key<'py>(py: Python<'py>, key: &[u8]) -> PyResult<Bound<'py, PyString>> {
    match std::str::from_utf8(key) {
        Ok(key) => Ok(PyString::new(py, key)),
        Err(_) => PyString::from_encoded_object(&PyBytes::new(py, key), Some(c"utf-8"), Some(c"surrogateescape")),
    }
}

#[pyclass(frozen, get_all, module = "ottla._native")]
pub struct RecordBatch {
    base_offset: i64,
    last_offset: i64,
    partition_leader_epoch: i32,
    compression: &'static str,
    log_append_time: bool,
    transactional: bool,
    control: bool,
    delete_horizon_ms: Option<i64>,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    size_bytes: usize,
    records: Py<PyList>,
}

#[pymethods]
impl RecordBatch {
    fn __repr__(&self, py: Python<'_>) -> String {
        format!(
            "RecordBatch(offsets {} to {}, {} records, {} bytes, {}, epoch {})",
            self.base_offset,
            self.last_offset,
            self.records.bind(py).len(),
            self.size_bytes,
            self.compression,
            self.partition_leader_epoch,
        )
    }
}

#[pyfunction]
#[pyo3(signature = (data, *, check_crc=true, expansion_limit_bytes=ottla_core::compression::EXPANSION_LIMIT_BYTES))]
pub fn decode_batches(
    py: Python<'_>,
    data: &[u8],
    check_crc: bool,
    expansion_limit_bytes: usize,
) -> PyResult<Vec<RecordBatch>> {
    let mut decoded = Vec::new();
    for batch in Batches::new(data) {
        let batch = match batch {
            Ok(batch) => batch,
            // a fetch cuts its last batch at its size limit: the next one brings it whole
            Err(BatchError::Truncated { .. }) => break,
            Err(error) => return Err(value_error(error)),
        };
        decoded.push(decode(py, &batch, check_crc, expansion_limit_bytes).map_err(|error| {
            PyValueError::new_err(format!("batch at offset {}: {}", batch.base_offset(), error.value(py)))
        })?);
    }
    Ok(decoded)
}

fn decode(
    py: Python<'_>,
    batch: &BatchView<'_>,
    check_crc: bool,
    expansion_limit_bytes: usize,
) -> PyResult<RecordBatch> {
    if check_crc {
        batch.verify_crc().map_err(value_error)?;
    }
    let compression = batch.codec().map_err(value_error)?.name();
    let payload = batch.decompressed(expansion_limit_bytes).map_err(value_error)?;
    let records = PyList::empty(py);
    for record in Records::new(&payload, batch.record_count()) {
        records.append(record_tuple(py, batch, &record.map_err(value_error)?)?)?;
    }
    Ok(RecordBatch {
        base_offset: batch.base_offset(),
        last_offset: batch.last_offset(),
        partition_leader_epoch: batch.partition_leader_epoch(),
        compression,
        log_append_time: batch.timestamp_type() == TimestampType::LogAppendTime,
        transactional: batch.is_transactional(),
        control: batch.is_control(),
        delete_horizon_ms: batch.delete_horizon_ms(),
        base_timestamp: batch.base_timestamp(),
        max_timestamp: batch.max_timestamp(),
        producer_id: batch.producer_id(),
        producer_epoch: batch.producer_epoch(),
        base_sequence: batch.base_sequence(),
        size_bytes: batch.size_bytes(),
        records: records.unbind(),
    })
}

fn record_tuple<'py>(py: Python<'py>, batch: &BatchView<'_>, record: &Record<'_>) -> PyResult<Bound<'py, PyTuple>> {
    let blob = |bytes: Option<&[u8]>| bytes.map(|bytes| PyBytes::new(py, bytes));
    let headers = record
        .headers
        .iter()
        .map(|(key, value)| Ok((header_key(py, key)?, blob(value))))
        .collect::<PyResult<Vec<_>>>()?;
    let headers = PyTuple::new(py, headers)?;
    (
        record.offset(batch),
        record.timestamp(batch),
        blob(record.key),
        blob(record.value),
        headers,
    )
        .into_pyobject(py)
}

#[pyfunction]
pub fn murmur2(key: &[u8]) -> i32 {
    partitioner::murmur2(key)
}
