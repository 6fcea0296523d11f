//! How the sources are: what conditions, status and metrics are made of.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

use super::{PollerKey, PollerSpec};
use crate::event::{EventName, Intervals};

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
    /// AWS refused the request for another reason.
    Refused,
    /// The ledger could not be written or read.
    Ledger,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 14] = [
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
        Self::Refused,
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
            Self::Refused => "Refused",
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// Requests, as far as the events' density so far tells.
    pub requests: u64,
    /// How long these take at the pace that the quota allows.
    pub duration: SignedDuration,
    /// The span of event time, added over all event names, that is still to be read.
    pub span: SignedDuration,
}

/// One account and region of a source.
#[derive(Clone, Debug)]
pub struct Health {
    /// What was asked for.
    pub key: PollerKey,
    /// The account that is read; none until the credentials have said whose they are.
    pub account: Option<Arc<str>>,
    /// Region that is read.
    pub region: Arc<str>,
    /// The period between two polls that is in force.
    pub poll_period: SignedDuration,
    /// When a page was read last.
    pub last_success: Option<Timestamp>,
    /// The fault that lasts, if one does.
    pub last_error: Option<LastError>,
    /// For each event name what has been read. Empty until the ledger was asked.
    pub coverage: BTreeMap<EventName, Intervals>,
    /// For each event name how far back the history is read: what is older is not waited for.
    pub horizon: BTreeMap<EventName, Timestamp>,
    /// What is still to be read of that; none when nothing is.
    pub backfill: Option<Backfill>,
}

impl Health {
    /// Of a reader that has not read yet.
    #[must_use]
    pub fn new(spec: &PollerSpec) -> Self {
        Self {
            key: spec.key.clone(),
            account: spec.key.account.clone(),
            region: spec.key.region.clone(),
            poll_period: spec.poll_period,
            last_success: None,
            last_error: None,
            coverage: BTreeMap::new(),
            horizon: BTreeMap::new(),
            backfill: None,
        }
    }
}

/// Counts for the metrics, by account and region.
#[derive(Debug, Default)]
pub struct Counters {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    events: BTreeMap<EventName, u64>,
    errors: BTreeMap<(Arc<str>, Arc<str>, Reason), u64>,
    requests: BTreeMap<(Arc<str>, Arc<str>), u64>,
}

impl Counters {
    fn with<T>(&self, act: impl FnOnce(&mut Counts) -> T) -> T {
        act(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn count_events(&self, name: EventName, events: u64) {
        self.with(|counts| *counts.events.entry(name).or_default() += events);
    }

    pub(crate) fn count_error(&self, account: &Arc<str>, region: &Arc<str>, reason: Reason) {
        self.with(|counts| {
            *counts
                .errors
                .entry((account.clone(), region.clone(), reason))
                .or_default() += 1;
        });
    }

    pub(crate) fn count_request(&self, account: &Arc<str>, region: &Arc<str>) {
        self.with(|counts| {
            *counts
                .requests
                .entry((account.clone(), region.clone()))
                .or_default() += 1;
        });
    }

    /// New events by name since the start: those that the ledger did not hold yet.
    pub fn events(&self) -> BTreeMap<EventName, u64> {
        self.with(|counts| counts.events.clone())
    }

    /// Faults by account (empty while that is not known), region and reason.
    pub fn errors(&self) -> BTreeMap<(Arc<str>, Arc<str>, Reason), u64> {
        self.with(|counts| counts.errors.clone())
    }

    /// Requests sent by account and region.
    pub fn requests(&self) -> BTreeMap<(Arc<str>, Arc<str>), u64> {
        self.with(|counts| counts.requests.clone())
    }
}
