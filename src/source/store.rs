//! What a source needs of the ledger.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::BoxFuture;
use jiff::Timestamp;

use super::Gap;
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
    /// The same by name.
    pub by_name: BTreeMap<EventName, u64>,
    /// Repositories that these are about.
    pub repositories: Vec<Repository>,
}

/// A part of a trail's log file, or the whole of it.
#[derive(Clone, Debug)]
pub struct FilePage {
    /// The trail: `s3://<bucket>/<root>`. Whoever hears of its files, it is the same evidence.
    pub trail: Arc<str>,
    /// Whose events the file holds.
    pub place: Place,
    /// When the file was delivered, by its name.
    pub delivered: Timestamp,
    /// What tells it from others that were delivered in the same minute.
    pub unique: Arc<str>,
    /// The facts.
    pub events: Vec<Event>,
    /// Records that did not decode.
    pub undecodable: Vec<UndecodableRecord>,
    /// When it was read, and the SHA-256 of its text: with the last part of the file.
    pub end: Option<(Timestamp, [u8; 32])>,
}

/// A log file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFile {
    /// When it was delivered, by its name.
    pub delivered: Timestamp,
    /// What tells it from others of the same minute.
    pub unique: Arc<str>,
    /// SHA-256 of its text.
    pub hash: [u8; 32],
}

/// What is known of a trail in one account and region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrailState {
    /// Delivery time of which every file that was listed was read.
    pub delivered: Intervals,
    /// The part of it that digest files prove.
    pub proved: Intervals,
    /// Event time that is covered by this, by event name.
    pub events: BTreeMap<EventName, Intervals>,
    /// What is known to be missing, by the key of the file that is missing or says so.
    pub gaps: BTreeMap<Arc<str>, Gap>,
}

/// What was learned of a trail in one account and region; stored as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Added to [`TrailState::delivered`].
    pub delivered: Vec<Interval>,
    /// Added to [`TrailState::proved`].
    pub proved: Vec<Interval>,
    /// Added to [`TrailState::events`], of every event name that is judged.
    pub events: Vec<Interval>,
    /// Gaps that were found; their time is taken out of the events.
    pub found: BTreeMap<Arc<str>, Gap>,
    /// Gaps that are closed; their time is among what is added, if it is covered now.
    pub closed: Vec<Arc<str>>,
    /// Files delivered before then need not be remembered any more.
    pub forget: Option<Timestamp>,
}

impl Learned {
    /// Whether there is nothing to be stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
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

    /// Stores a trail's file, or a part of it; storing it again changes nothing.
    fn append_file(&self, page: FilePage) -> BoxFuture<'_, Result<Stored, StoreError>>;

    /// The files of a trail and place that were read, delivered within a span.
    fn files<'a>(
        &'a self,
        trail: &'a str,
        place: &'a Place,
        delivered: Interval,
    ) -> BoxFuture<'a, Result<Vec<KnownFile>, StoreError>>;

    /// What is known of a trail, in every account and region.
    fn trail<'a>(
        &'a self,
        trail: &'a str,
    ) -> BoxFuture<'a, Result<BTreeMap<Place, TrailState>, StoreError>>;

    /// Stores what was learned.
    fn learn<'a>(
        &'a self,
        trail: &'a str,
        place: &'a Place,
        learned: Learned,
    ) -> BoxFuture<'a, Result<(), StoreError>>;
}
