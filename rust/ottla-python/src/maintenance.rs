//! `LogMaintenance`: retention and compaction of one log directory, for a worker thread.

use std::sync::{Arc, Mutex, PoisonError};

use ottla_core::error::Error;
use ottla_core::log_cleaner::{CleanProgress, CleanStats, LogCleaner};
use ottla_core::partition::Partition;
use ottla_core::storage::log_dir::LogDir;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::data_plane::DataPlane;
use crate::errors::into_py;
use crate::plane::Plane;

/// Topic, partition, and what there is to say of it.
type Named<T> = (String, i32, T);

#[pyclass(frozen, module = "ottla._native")]
pub struct LogMaintenance {
    plane: Arc<Plane>,
    dir: Arc<LogDir>,
    cleaner: Mutex<LogCleaner>,
}

impl LogMaintenance {
    fn partitions(&self) -> Vec<Arc<Partition>> {
        let inner = self.plane.lock();
        let served = inner.core.partitions().map(|(_, entry)| &entry.partition);
        served
            .filter(|partition| Arc::ptr_eq(partition.log_dir(), &self.dir))
            .map(Arc::clone)
            .collect()
    }

    /// Without the GIL: a step works for a while.
    fn with_cleaner<T: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut LogCleaner) -> T + Send) -> T {
        py.detach(|| work(&mut self.cleaner.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[pymethods]
impl LogMaintenance {
    #[new]
    #[pyo3(signature = (plane, log_dir, *, dedupe_buffer_bytes=134_217_728))]
    fn new(py: Python<'_>, plane: &DataPlane, log_dir: usize, dedupe_buffer_bytes: usize) -> PyResult<Self> {
        let dir = plane.log_dirs.get(log_dir);
        let dir = Arc::clone(dir.ok_or_else(|| PyIndexError::new_err("no such log directory"))?);
        let cleaner = py.detach(|| LogCleaner::open(&dir, dedupe_buffer_bytes));
        Ok(Self {
            plane: Arc::clone(&plane.plane),
            dir,
            cleaner: Mutex::new(cleaner),
        })
    }

    fn delete_old_segments(&self, py: Python<'_>, wall_ms: i64) -> (Vec<Named<usize>>, Vec<Named<String>>) {
        let partitions = self.partitions();
        py.detach(|| {
            let (mut deleted, mut failed) = (Vec::new(), Vec::new());
            for partition in partitions {
                let named = partition.topic_partition();
                let (topic, index) = (named.topic.to_string(), named.partition);
                match partition.delete_old_segments(wall_ms) {
                    Ok(0) | Err(Error::LogOffline { .. } | Error::LogClosed { .. }) => {}
                    Ok(count) => deleted.push((topic, index, count)),
                    Err(error) => failed.push((topic, index, error.to_string())),
                }
            }
            (deleted, failed)
        })
    }

    fn pick(&self, py: Python<'_>, wall_ms: i64) -> PyResult<Option<(String, i32)>> {
        let partitions = self.partitions();
        let picked = self.with_cleaner(py, |cleaner| cleaner.pick(&partitions, wall_ms));
        let picked = picked.map_err(|error| into_py(py, &error))?;
        Ok(picked.map(|named| (named.topic.to_string(), named.partition)))
    }

    fn clean<'py>(&self, py: Python<'py>, budget_bytes: u64) -> PyResult<(u64, Option<Bound<'py, PyDict>>)> {
        let progress = self.with_cleaner(py, |cleaner| cleaner.step(budget_bytes));
        Ok(match progress.map_err(|error| into_py(py, &error))? {
            CleanProgress::Working { moved_bytes } => (moved_bytes, None),
            CleanProgress::Finished { stats, moved_bytes, .. } => (moved_bytes, Some(describe(py, &stats)?)),
            CleanProgress::Idle | CleanProgress::Abandoned { .. } => (0, Some(PyDict::new(py))),
        })
    }

    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        self.with_cleaner(py, LogCleaner::abandon)
            .map_err(|error| into_py(py, &error))
    }

    fn uncleanable(&self, py: Python<'_>) -> Vec<Named<String>> {
        self.with_cleaner(py, |cleaner| {
            let logs = cleaner.uncleanable();
            logs.map(|(named, reason)| (named.topic.to_string(), named.partition, reason.to_owned()))
                .collect()
        })
    }
}

fn describe<'py>(py: Python<'py>, stats: &CleanStats) -> PyResult<Bound<'py, PyDict>> {
    let described = PyDict::new(py);
    described.set_item("read_bytes", stats.read_bytes)?;
    described.set_item("written_bytes", stats.written_bytes)?;
    described.set_item("records_read", stats.records_read)?;
    described.set_item("records_kept", stats.records_kept)?;
    described.set_item("keys", stats.keys)?;
    described.set_item("segments_before", stats.segments_before)?;
    described.set_item("segments_after", stats.segments_after)?;
    Ok(described)
}
