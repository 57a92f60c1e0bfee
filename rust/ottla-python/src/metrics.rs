//! The data plane's counters as Python has them (`DataPlaneMetrics`).

use ottla_core::data_plane::metrics::{ApiMetrics, LATENCY_BUCKETS_US};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::plane::Plane;

/// All counters since the start.
pub fn as_dict<'py>(py: Python<'py>, plane: &Plane) -> PyResult<Bound<'py, PyDict>> {
    // Nothing of Python's is made while the plane is locked: its garbage collector may run, and call the plane.
    let (metrics, counts) = {
        let core = &plane.lock().core;
        let fetch_sessions = core.fetch_sessions();
        let counts = [
            ("fetch_sessions", fetch_sessions.len() as u64),
            ("fetch_session_partitions", fetch_sessions.partition_count() as u64),
            ("fetch_session_evictions", fetch_sessions.evictions()),
            ("sessions", core.session_count() as u64),
        ];
        (core.metrics().clone(), counts)
    };
    let all = PyDict::new(py);
    for (name, count) in counts {
        all.set_item(name, count)?;
    }
    all.set_item("produce", api_metrics(py, &metrics.produce)?)?;
    all.set_item("fetch", api_metrics(py, &metrics.fetch)?)?;
    all.set_item("answered", metrics.answered)?;
    all.set_item("fetches_parked", metrics.fetches_parked)?;
    all.set_item("stalls", metrics.stalls)?;
    all.set_item("refused_connections", metrics.refused_connections)?;
    all.set_item("latency_buckets_us", LATENCY_BUCKETS_US.to_vec())?;
    Ok(all)
}

fn api_metrics<'py>(py: Python<'py>, metrics: &ApiMetrics) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("requests", metrics.requests)?;
    dict.set_item("errors", metrics.errors)?;
    dict.set_item("request_bytes", metrics.request_bytes)?;
    dict.set_item("record_bytes", metrics.record_bytes)?;
    dict.set_item("latency_sum_us", metrics.latency_sum_us)?;
    dict.set_item("latency_counts", metrics.latency_counts.to_vec())?;
    Ok(dict)
}
