//! Record batches of format v2 (KIP-98): reading, checking, building, and changing them in place.

pub mod batch;
pub mod builder;
pub mod control;
mod header;
pub mod partitioner;
pub mod records;
mod rejection;
pub mod scan;
pub mod validate;
mod varint;
