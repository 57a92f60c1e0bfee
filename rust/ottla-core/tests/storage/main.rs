//! Storage, from the outside.
#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests arrange files behind the broker's back"
)]

mod basics;
mod crashes;
mod damage;
mod details;
mod faults;
mod kafka;
mod lifecycle;
mod model;
mod rolling;
mod support;
mod transactions;
