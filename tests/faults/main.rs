//! Promise: faults of what the operator stands on are survived. No fact is lost or counted twice,
//! no finding vanishes or is invented, and a condition says what is wrong, and when it is over. The
//! real program, on real components that are killed, cut off and locked.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test, and what helps it, fails by panicking"
)]

mod cluster;
mod ledger;
mod listing;
#[path = "../support/mod.rs"]
mod support;
mod world;
