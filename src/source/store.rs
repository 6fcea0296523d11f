//! What a source needs of the ledger.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::event::{Event, EventName, Interval, Intervals, Repository};

/// One account and region, as CloudTrail keeps them apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Account id.
    pub account: Arc<str>,
    /// AWS region.
    pub region: Arc<str>,
}

/// What has been read of one event name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Read at least once.
    pub read: Intervals,
    /// Read at least a day after its events: even late ones were seen.
    pub settled: Intervals,
}

/// A record of ECR that could not be decoded, kept for inspection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndecodableRecord {
    /// The record's text.
    pub text: String,
    /// Why.
    pub error: String,
    /// When it happened, as far as the source tells.
    pub time: Option<Timestamp>,
}

/// One page of the Event history, or a message, with what it proves to have been read.
#[derive(Clone, Debug)]
pub struct Page {
    /// What was read: coverage of one source says nothing of another.
    pub source: Arc<str>,
    /// Whose history.
    pub place: Place,
    /// The event names that [`Self::read`] and [`Self::settled`] are about.
    pub names: Vec<EventName>,
    /// The facts.
    pub events: Vec<Event>,
    /// Records that did not decode.
    pub undecodable: Vec<UndecodableRecord>,
    /// The span that is read once this page is stored; none when the page ended within a second.
    pub read: Option<Interval>,
    /// The part of it that was read a day or more after its time.
    pub settled: Option<Interval>,
}

/// What storing a page changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Events that were not known before.
    pub new_events: u64,
    /// Repositories that these are about.
    pub repositories: Vec<Repository>,
}

/// The ledger refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// What a source needs of the ledger. A page's facts and its coverage are stored in one
/// transaction, so that what is covered is really there.
pub trait Store: Send + Sync + 'static {
    /// What a source has read of a place, by event name.
    fn coverage<'a>(
        &'a self,
        source: &'a str,
        place: &'a Place,
    ) -> BoxFuture<'a, Result<BTreeMap<EventName, Coverage>, StoreError>>;

    /// Stores a page; storing it again changes nothing.
    fn append(&self, page: Page) -> BoxFuture<'_, Result<Stored, StoreError>>;
}
