//! Segments, indexes, logs, recovery and the writer of a log directory.
