//! How the sources are: what conditions, status and metrics are made of.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::{PollerKey, PollerSpec, SourceKind};
use crate::event::{EventName, Interval, Intervals};

/// Why a read failed: a bounded vocabulary, for conditions and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// AWS answered that the quota, which everybody in the account shares, is used up.
    Throttled,
    /// AWS answered with a 5xx status.
    ServerError,
    /// No connection, a reset, or a timeout.
    Connection,
    /// The answer ended before it was whole.
    Truncated,
    /// The answer was whole, but is not what the API promises.
    Malformed,
    /// The credentials' time is over.
    ExpiredToken,
    /// The credentials may not do this.
    AccessDenied,
    /// The role could not be assumed.
    AssumeRoleFailed,
    /// The SDK found no credentials.
    NoCredentials,
    /// No region is known.
    NoRegion,
    /// The credentials belong to another account than the one to be read.
    WrongAccount,
    /// AWS no longer knows the paging token: the window is read again.
    InvalidNextToken,
    /// This machine's clock is not the right one.
    ClockSkewed,
    /// The bucket is in another region than the one that was asked.
    WrongRegion,
    /// AWS refused the request for another reason.
    Refused,
    /// The bucket does not exist.
    BucketMissing,
    /// The queue does not exist.
    QueueMissing,
    /// The KMS key of the objects or messages may not be used.
    KeyDenied,
    /// A file of the trail that was delivered is not in the bucket.
    FileMissing,
    /// A file of the trail is not what was delivered.
    FileChanged,
    /// A file of the trail is damaged, or none.
    FileUnreadable,
    /// A digest file of the trail is not in the bucket.
    DigestMissing,
    /// A message of a queue is none that S3, SNS, CloudTrail or EventBridge sends.
    MessageUnreadable,
    /// The ledger could not be written or read.
    Ledger,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 24] = [
        Self::Throttled,
        Self::ServerError,
        Self::Connection,
        Self::Truncated,
        Self::Malformed,
        Self::ExpiredToken,
        Self::AccessDenied,
        Self::AssumeRoleFailed,
        Self::NoCredentials,
        Self::NoRegion,
        Self::WrongAccount,
        Self::InvalidNextToken,
        Self::ClockSkewed,
        Self::WrongRegion,
        Self::Refused,
        Self::BucketMissing,
        Self::QueueMissing,
        Self::KeyDenied,
        Self::FileMissing,
        Self::FileChanged,
        Self::FileUnreadable,
        Self::DigestMissing,
        Self::MessageUnreadable,
        Self::Ledger,
    ];

    /// As conditions and metrics spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "Throttled",
            Self::ServerError => "ServerError",
            Self::Connection => "Connection",
            Self::Truncated => "Truncated",
            Self::Malformed => "Malformed",
            Self::ExpiredToken => "ExpiredToken",
            Self::AccessDenied => "AccessDenied",
            Self::AssumeRoleFailed => "AssumeRoleFailed",
            Self::NoCredentials => "NoCredentials",
            Self::NoRegion => "NoRegion",
            Self::WrongAccount => "WrongAccount",
            Self::InvalidNextToken => "InvalidNextToken",
            Self::ClockSkewed => "ClockSkewed",
            Self::WrongRegion => "WrongRegion",
            Self::Refused => "Refused",
            Self::BucketMissing => "BucketMissing",
            Self::QueueMissing => "QueueMissing",
            Self::KeyDenied => "KeyDenied",
            Self::FileMissing => "FileMissing",
            Self::FileChanged => "FileChanged",
            Self::FileUnreadable => "FileUnreadable",
            Self::DigestMissing => "DigestMissing",
            Self::MessageUnreadable => "MessageUnreadable",
            Self::Ledger => "Ledger",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A fault that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// What kind.
    pub reason: Reason,
    /// For people; at most 300 characters, on one line.
    pub message: String,
    /// When this kind of fault began.
    pub since: Timestamp,
}

/// What of the history is still to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backfill {
    /// Requests, as far as the events' density so far tells.
    pub requests: u64,
    /// How long these take at the pace so far.
    pub duration: SignedDuration,
    /// The span of event time, added over all event names, that is still to be read.
    pub span: SignedDuration,
    /// Files, as far as they are listed; 0 where no files are read.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// What of the evidence is known to be missing although it was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// What kind.
    pub reason: Reason,
    /// Names what is missing; for people, at most 300 characters, on one line.
    pub message: String,
    /// The event time that therefore is not covered.
    pub span: Interval,
}

/// By what it is known that everything was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// By the answers of an API that says what there is.
    #[default]
    Answers,
    /// By delivery: every file that was delivered until some minutes after its events was read.
    Delivery,
    /// By the trail's digest files until then, which list what was delivered; since, by delivery.
    Digests {
        /// The end of the last digest file.
        until: Timestamp,
    },
}

/// One account and region of a source; or, with no account, the source as a whole.
#[derive(Clone, Debug)]
pub struct Health {
    /// What was asked for.
    pub key: PollerKey,
    /// The account that is read; none until it is known whose that is, and in what is said of a
    /// bucket or queue as a whole.
    pub account: Option<Arc<str>>,
    /// Region that is read; of a bucket or queue as a whole, its own.
    pub region: Arc<str>,
    /// Of a bucket or queue as a whole: whether every account and region in it has its own health.
    pub names_all: bool,
    /// The period between two polls that is in force.
    pub poll_period: SignedDuration,
    /// When something was read last.
    pub last_success: Option<Timestamp>,
    /// The fault that lasts, if one does.
    pub last_error: Option<LastError>,
    /// For each event name what has been read. Empty until the ledger was asked.
    pub coverage: BTreeMap<EventName, Intervals>,
    /// For each event name how far back the history is read: what is older is not waited for.
    pub horizon: BTreeMap<EventName, Timestamp>,
    /// What is still to be read of that; none when nothing is.
    pub backfill: Option<Backfill>,
    /// What is known to be missing, the latest first; a bounded number.
    pub gaps: Vec<Gap>,
    /// By what the coverage is known.
    pub proof: Proof,
}

impl Health {
    /// Of a reader that has not read yet.
    #[must_use]
    pub fn new(spec: &PollerSpec) -> Self {
        Self {
            key: spec.key.clone(),
            account: spec.key.account().cloned(),
            region: spec.key.region.clone(),
            names_all: false,
            poll_period: spec.poll_period,
            last_success: None,
            last_error: None,
            coverage: BTreeMap::new(),
            horizon: BTreeMap::new(),
            backfill: None,
            gaps: vec![],
            proof: Proof::default(),
        }
    }

    /// Whether it is about a bucket or queue as a whole.
    #[must_use]
    pub fn is_of_whole_source(&self) -> bool {
        self.account.is_none() && self.key.kind().discovers_places()
    }
}

/// Where a reader shows how it is: one health, or one of the whole and one of each place.
#[derive(Debug)]
pub(crate) struct Board(watch::Sender<Vec<Arc<Health>>>);

impl Board {
    /// With the health of a reader that has not read yet, and where it is seen.
    pub(crate) fn new(spec: &PollerSpec) -> (Self, watch::Receiver<Vec<Arc<Health>>>) {
        let (sender, receiver) = watch::channel(vec![Arc::new(Health::new(spec))]);
        (Self(sender), receiver)
    }

    /// Changes the first: the only one, or that of the whole.
    pub(crate) fn modify(&self, change: impl FnOnce(&mut Health)) {
        self.0.send_modify(|all| {
            if let Some(first) = all.first_mut() {
                change(Arc::make_mut(first));
            }
        });
    }

    /// Replaces all but the first.
    pub(crate) fn places(&self, places: impl IntoIterator<Item = Arc<Health>>) {
        self.0.send_modify(|all| {
            all.truncate(1);
            all.extend(places);
        });
    }
}

/// What became of the objects that a source was told of or listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Objects that were read and stored.
    pub read: u64,
    /// Bytes of these, as they lie in the bucket.
    pub bytes: u64,
    /// Objects that had been read before.
    pub known: u64,
    /// Objects that are no log files of a wanted trail: digests of others, Insights, anything else.
    pub skipped: u64,
    /// Reads of objects that failed.
    pub failed: u64,
}

/// Kind of source, account (empty while it is not known) and region.
type At = (SourceKind, Arc<str>, Arc<str>);

/// Counts for the metrics, by kind of source, account and region.
#[derive(Debug, Default)]
pub struct Counters {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    events: BTreeMap<(SourceKind, EventName), u64>,
    errors: BTreeMap<(SourceKind, Arc<str>, Arc<str>, Reason), u64>,
    requests: BTreeMap<At, u64>,
    objects: BTreeMap<SourceKind, Tally>,
    messages: BTreeMap<&'static str, u64>,
}

impl Counters {
    fn with<T>(&self, act: impl FnOnce(&mut Counts) -> T) -> T {
        act(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn count_events(&self, kind: SourceKind, name: EventName, events: u64) {
        self.with(|counts| *counts.events.entry((kind, name)).or_default() += events);
    }

    pub(crate) fn count_error(
        &self,
        kind: SourceKind,
        account: &Arc<str>,
        region: &Arc<str>,
        reason: Reason,
    ) {
        self.with(|counts| {
            *counts
                .errors
                .entry((kind, account.clone(), region.clone(), reason))
                .or_default() += 1;
        });
    }

    pub(crate) fn count_request(&self, kind: SourceKind, account: &Arc<str>, region: &Arc<str>) {
        self.with(|counts| {
            *counts
                .requests
                .entry((kind, account.clone(), region.clone()))
                .or_default() += 1;
        });
    }

    /// Adds to what became of objects.
    pub(crate) fn count_objects(&self, kind: SourceKind, added: Tally) {
        let Tally {
            read,
            bytes,
            known,
            skipped,
            failed,
        } = added;
        self.with(|counts| {
            let tally = counts.objects.entry(kind).or_default();
            tally.read += read;
            tally.bytes += bytes;
            tally.known += known;
            tally.skipped += skipped;
            tally.failed += failed;
        });
    }

    /// A message of a queue came to this end: a bounded vocabulary.
    pub(crate) fn count_message(&self, outcome: &'static str) {
        self.with(|counts| *counts.messages.entry(outcome).or_default() += 1);
    }

    /// New events by source and name since the start: those that the ledger did not hold yet.
    pub fn events(&self) -> BTreeMap<(SourceKind, EventName), u64> {
        self.with(|counts| counts.events.clone())
    }

    /// Faults by source, account (empty while that is not known), region and reason.
    pub fn errors(&self) -> BTreeMap<(SourceKind, Arc<str>, Arc<str>, Reason), u64> {
        self.with(|counts| counts.errors.clone())
    }

    /// Requests sent by source, account and region.
    pub fn requests(&self) -> BTreeMap<(SourceKind, Arc<str>, Arc<str>), u64> {
        self.with(|counts| counts.requests.clone())
    }

    /// What became of messages of queues.
    pub fn messages(&self) -> BTreeMap<&'static str, u64> {
        self.with(|counts| counts.messages.clone())
    }

    /// What became of objects, by source.
    pub fn objects(&self) -> BTreeMap<SourceKind, Tally> {
        self.with(|counts| counts.objects.clone())
    }
}
