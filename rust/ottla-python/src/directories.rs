//! Opens log directories on the real disk.

use std::path::PathBuf;
use std::sync::Arc;

use ottla_core::error::Error;
use ottla_core::storage::fs::LogFs;
use ottla_core::storage::log_dir::{LogDir, LogDirOptions};
use ottla_core::storage::real_fs::RealFs;

/// Descriptors that closed segments of a log directory may hold open.
const OPEN_FILES_MAX: usize = 256;
/// Bytes of indexes of closed segments of a log directory kept in memory.
const INDEX_CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Free space of a log directory kept back for deletes, commits and checkpoints.
const RESERVED_BYTES: u64 = 16 * 1024 * 1024;

/// Log directories, and why others could not be opened.
type Opened = (Vec<Arc<LogDir>>, Vec<(String, String)>);

/// Open directories that are formatted for this broker, in the order given. One that its disk does not give is left out.
///
/// # Errors
/// As `LogDir::open`; `Storage` only if no directory can be opened.
pub fn open_log_dirs(
    broker_id: i32,
    paths: Vec<PathBuf>,
    waker: &Arc<dyn Fn() + Send + Sync>,
) -> Result<Opened, Error> {
    let fs: Arc<dyn LogFs> = Arc::new(RealFs);
    let open = |path: PathBuf| {
        let meta = LogDir::read_meta(&*fs, &path)?.ok_or_else(|| Error::MalformedFile {
            file: path.join("meta.properties").display().to_string(),
            reason: "the directory is not formatted".to_owned(),
        })?;
        if meta.node_id != broker_id {
            return Err(Error::DirectoryMismatch {
                dir: path.display().to_string(),
                expected: format!("node {broker_id}"),
                found: format!("node {}", meta.node_id),
            });
        }
        LogDir::open(&LogDirOptions {
            fs: Arc::clone(&fs),
            path,
            meta,
            waker: Arc::clone(waker),
            threads: true,
            open_files_max: OPEN_FILES_MAX,
            index_cache_bytes: INDEX_CACHE_BYTES,
            reserved_bytes: RESERVED_BYTES,
        })
    };
    let (mut log_dirs, mut failed, mut first_error) = (Vec::new(), Vec::new(), None);
    for path in paths {
        let name = path.display().to_string();
        match open(path) {
            Ok(dir) => log_dirs.push(dir),
            Err(error @ Error::Storage { .. }) => {
                failed.push((name, error.to_string()));
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    match first_error {
        Some(error) if log_dirs.is_empty() => Err(error),
        _ => Ok((log_dirs, failed)),
    }
}
