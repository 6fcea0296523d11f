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
mod s3;
mod spec;
pub mod sqs;
mod store;
pub mod trail;

pub(crate) use health::Board;
pub use health::{Backfill, Counters, Gap, Health, LastError, Proof, Reason, Tally};
pub use pollers::{Changed, Changes, Pollers};
pub use spec::{Origin, PollerKey, PollerSpec, SourceKind};
pub use store::{
    Coverage, FilePage, KnownFile, Learned, Page, Place, Store, StoreError, Stored, TrailState,
    UndecodableRecord,
};
