//! Storage, from the outside.
#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests arrange files behind the broker's back"
)]

mod aborted_transactions;
mod basics;
mod crashes;
mod damage;
mod deleted_records;
mod details;
mod faults;
mod history;
mod kafka;
mod lifecycle;
mod model;
mod producers;
mod recovery_crashes;
mod rolling;
mod support;
mod transaction_index;
mod transactions;
