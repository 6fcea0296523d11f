//! Where records come from.
//!
//! Each source says what it has really read: facts and the time they cover go to the ledger
//! together, so that a crash, a fault or a page cut short never counts as evidence. Sources are
//! shared: policies that read the same account and region share one reader and its quota.

mod credentials;
mod fault;
pub mod files;
mod health;
pub mod lookup_events;
mod pollers;
mod quota;
pub mod sqs;
mod store;

pub use health::{Backfill, Counters, Health, LastError, Reason};
pub use pollers::{Changed, Changes, PollerKey, PollerSpec, Pollers};
pub use store::{Coverage, Page, Place, Store, StoreError, Stored, UndecodableRecord};
