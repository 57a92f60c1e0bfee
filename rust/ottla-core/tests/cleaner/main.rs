//! Retention and compaction, on the real disk and on the simulated one.
#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests prepare and damage directories behind storage's back"
)]

mod bench;
mod compaction;
mod crashes;
mod disturbances;
mod model;
mod reader;
mod retention;
#[allow(dead_code)] // not every verb of the storage tests is used here
#[path = "../storage/support.rs"]
mod support;
