//! One connection as a sans-I/O machine: frames in, reply slots in order, buffers and file ranges out.

pub mod fetch;
pub mod fetch_session;
pub mod frame;
pub mod header;
pub mod output;
pub mod pipeline;
pub mod produce;
pub mod standing;
pub mod standing_write;
pub mod waiting;
