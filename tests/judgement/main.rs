//! The semantics, each a sentence: record text in, findings out. Records are synthetic, in the
//! shape of the real ones, unless they come from `tests/data/records`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "test support"
)]

mod decoding;
mod identity;
mod lineage;
mod presence;
mod properties;
mod registry;
mod removal;
mod traffic;
mod world;
