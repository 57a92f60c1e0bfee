//! One partition: its log, leadership cell, high watermark, last stable offset and waiters.
