//! The data plane from the outside: bytes of clients in, bytes for clients out, over a simulated disk.
#![allow(missing_docs)]

mod attacks;
mod cold;
mod faults;
mod fetching;
mod input;
mod producing;
mod support;
mod transactions;
mod writing;
