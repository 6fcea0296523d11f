//! Promise: one writer. Whatever becomes of a leader, its clock or its network, no two processes
//! write at a time, and soon another one goes on. On a real API server, whose own audit log says
//! who wrote what and when.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test, and what helps it, fails by panicking"
)]

mod audit;
mod campaign;
mod replicas;
#[path = "../support/mod.rs"]
mod support;
