//! Promise: the ledger loses nothing, counts nothing twice, and answers the same whatever the
//! order in which facts arrived. On real SQLite files and a real PostgreSQL server.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test, and what helps it, fails by panicking"
)]

mod crashes;
mod database;
mod faults;
mod figures;
mod orders;
mod promises;
mod queries;
mod record;
mod servers;
mod story;
#[path = "../support/mod.rs"]
mod support;
mod trails;
mod writers;
