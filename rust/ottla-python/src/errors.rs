//! Errors of the core as Python's.

use ottla_core::error::Error;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

static KAFKA_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static ERROR_CODE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// `ottla.errors.KafkaError` with a code of the wire.
pub fn kafka_error(py: Python<'_>, code: i16, message: &str) -> PyErr {
    let make = || -> PyResult<PyErr> {
        let code = ERROR_CODE.import(py, "ottla.errors", "ErrorCode")?.call1((code,))?;
        let error = KAFKA_ERROR
            .import(py, "ottla.errors", "KafkaError")?
            .call1((code, message))?;
        Ok(PyErr::from_value(error))
    };
    make().unwrap_or_else(|error| error)
}

/// An error of the core: `OSError` where it comes from the system, else `KafkaError`.
pub fn into_py(py: Python<'_>, error: &Error) -> PyErr {
    match error {
        Error::Storage { source, .. } => match source.raw_os_error() {
            Some(errno) => PyOSError::new_err((errno, error.to_string())),
            None => PyOSError::new_err(error.to_string()),
        },
        _ => kafka_error(py, error.kafka_code(), &error.to_string()),
    }
}
