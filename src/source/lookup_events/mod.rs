//! CloudTrail's Event history: 90 days of management events, without a trail.
//!
//! A [`planner::Planner`] decides what to ask for next and what an answer proves; it does no I/O
//! and is given the time. The [`Reader`] asks, stores and tells.

mod client;
mod job;
pub mod planner;
mod reader;
mod rereads;

pub use job::{Answer, Proof, Unusable};
pub(crate) use reader::Reader;
