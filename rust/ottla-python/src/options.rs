//! Configuration by Kafka's keys, as Python hands it over: text by name.

use std::collections::HashMap;

use ottla_core::data_plane::Options;
use ottla_core::data_plane::rules::ProduceRules;
use ottla_core::storage::config::LogConfig;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::errors::into_py;

/// What the data plane needs of a broker's configuration; other keys are ignored.
pub fn parse_options(py: Python<'_>, given: &HashMap<String, String>) -> PyResult<Options> {
    let mut options = Options {
        seed: random_seed()?,
        ..Options::default()
    };
    for (key, value) in given {
        options.set(key, value).map_err(|error| into_py(py, &error))?;
    }
    Ok(options)
}

fn random_seed() -> PyResult<u64> {
    let mut seed = [0_u8; 8];
    // SAFETY: writes at most eight bytes into an array of eight.
    let filled = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
    if filled != 8 {
        return Err(PyOSError::new_err("the system has no random numbers"));
    }
    Ok(u64::from_ne_bytes(seed))
}

/// What a partition needs of its topic's configuration.
pub fn parse_config(py: Python<'_>, config: &HashMap<String, String>) -> PyResult<(LogConfig, ProduceRules)> {
    let (mut log_config, mut rules) = (LogConfig::default(), ProduceRules::default());
    for (key, value) in config {
        let set = log_config.set(key, value).and_then(|_| rules.set(key, value));
        set.map_err(|error| into_py(py, &error))?;
    }
    Ok((log_config, rules))
}
