//! `ottla._native`: converts, calls `ottla_core`, converts.
#![allow(missing_docs)] // the documentation of every item is in python/ottla/_native.pyi

mod allocator;
mod data_plane;
mod directories;
mod errors;
mod maintenance;
mod metrics;
mod options;
mod partition;
mod placement;
mod plane;
mod quorum;
mod readiness;
mod records;
mod socket;
mod warmer;

use pyo3::prelude::*;

#[pymodule(gil_used = true)]
mod _native {
    use pyo3::prelude::*;
    use pyo3::types::PyDict;

    #[pymodule_export]
    use crate::allocator::keep_freed_memory;
    #[pymodule_export]
    use crate::data_plane::DataPlane;
    #[pymodule_export]
    use crate::maintenance::LogMaintenance;
    #[pymodule_export]
    use crate::partition::{Partition, PartitionOffsets, PendingAppend};
    #[pymodule_export]
    use crate::quorum::{
        PyQuorum, QuorumDamagedError, QuorumFailedError, QuorumJob, QuorumJobDone, QuorumLog, QuorumNoSpaceError,
        QuorumNotLeaderError,
    };
    #[pymodule_export]
    use crate::records::{RecordBatch, build_batch, decode_batches, murmur2};

    #[pyfunction]
    fn build_info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        let info = PyDict::new(py);
        info.set_item("version", env!("CARGO_PKG_VERSION"))?;
        info.set_item("profile", if cfg!(debug_assertions) { "debug" } else { "release" })?;
        Ok(info)
    }
}
