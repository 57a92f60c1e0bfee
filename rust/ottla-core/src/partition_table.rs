//! (topic id, index) and (name, index) to partition.
