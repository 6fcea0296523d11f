//! What a policy wants to have read, and what makes two wishes one reader.

use std::{collections::BTreeSet, fmt, sync::Arc};

use jiff::SignedDuration;

use crate::api::AssumeRole;

/// The kinds of sources, as policies and metrics spell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    /// CloudTrail's Event history.
    LookupEvents,
    /// A trail's bucket, by listing.
    S3,
    /// A queue.
    Sqs,
}

impl SourceKind {
    /// `lookupEvents`, `s3` or `sqs`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LookupEvents => "lookupEvents",
            Self::S3 => "s3",
            Self::Sqs => "sqs",
        }
    }

    /// Whether one reader of this kind reads many accounts and regions, and finds out which.
    #[must_use]
    pub const fn discovers_places(self) -> bool {
        match self {
            Self::LookupEvents => false,
            Self::S3 | Self::Sqs => true,
        }
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a reader reads from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The Event history of one account, in the key's region.
    LookupEvents {
        /// The account; none: the one of the operator's own credentials.
        account: Option<Arc<str>>,
    },
    /// The files of a bucket, which is in the key's region.
    S3 {
        /// The bucket's name.
        bucket: Arc<str>,
        /// What precedes `AWSLogs/`: empty, or with a slash at its end.
        prefix: Arc<str>,
    },
    /// The messages of a queue, which is in the key's region.
    Sqs {
        /// The queue's URL.
        queue_url: Arc<str>,
    },
}

/// What makes two readers the same: what they read, and whose eyes see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PollerKey {
    /// What is read.
    pub origin: Origin,
    /// Region of the API that is asked: of the Event history, the bucket or the queue.
    pub region: Arc<str>,
    /// The role to assume; none: the operator's own credentials.
    pub assume_role: Option<Arc<AssumeRole>>,
}

impl PollerKey {
    /// What kind of source it is.
    #[must_use]
    pub const fn kind(&self) -> SourceKind {
        match self.origin {
            Origin::LookupEvents { .. } => SourceKind::LookupEvents,
            Origin::S3 { .. } => SourceKind::S3,
            Origin::Sqs { .. } => SourceKind::Sqs,
        }
    }

    /// The queue's URL, of a queue.
    #[must_use]
    pub const fn queue_url(&self) -> Option<&Arc<str>> {
        match &self.origin {
            Origin::Sqs { queue_url } => Some(queue_url),
            Origin::LookupEvents { .. } | Origin::S3 { .. } => None,
        }
    }

    /// The account that the credentials have to be of, where that matters.
    #[must_use]
    pub fn account(&self) -> Option<&Arc<str>> {
        match &self.origin {
            Origin::LookupEvents { account } => account.as_ref(),
            Origin::S3 { .. } | Origin::Sqs { .. } => None,
        }
    }
}

/// What one policy wants to have read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollerSpec {
    /// From where.
    pub key: PollerKey,
    /// How often new events are looked for.
    pub poll_period: SignedDuration,
    /// How often the last 24 hours are read again for late events: of the Event history.
    pub reread_period: SignedDuration,
    /// How far back the history is read at first. A queue has none.
    pub backfill: SignedDuration,
    /// How long a pull stays a finding: pulls are read no further back.
    pub lookback: SignedDuration,
    /// The accounts whose files are read; none: all that there are. For buckets and queues.
    pub accounts: Option<BTreeSet<Arc<str>>>,
    /// The buckets whose objects a queue may name; none: any.
    pub buckets: Option<BTreeSet<Arc<str>>>,
}

impl PollerSpec {
    /// What serves both: the shorter periods, the longer spans, the wider limits.
    pub(super) fn merge(&mut self, other: &Self) {
        self.poll_period = self.poll_period.min(other.poll_period);
        self.reread_period = self.reread_period.min(other.reread_period);
        self.backfill = self.backfill.max(other.backfill);
        self.lookback = self.lookback.max(other.lookback);
        widen(&mut self.accounts, other.accounts.as_ref());
        widen(&mut self.buckets, other.buckets.as_ref());
    }

    /// Whether an account's events are wanted.
    #[must_use]
    pub fn wants_account(&self, account: &str) -> bool {
        self.accounts
            .as_ref()
            .is_none_or(|accounts| accounts.contains(account))
    }

    /// Whether a bucket's objects are wanted.
    #[must_use]
    pub fn wants_bucket(&self, bucket: &str) -> bool {
        self.buckets
            .as_ref()
            .is_none_or(|buckets| buckets.contains(bucket))
    }
}

fn widen(limit: &mut Option<BTreeSet<Arc<str>>>, other: Option<&BTreeSet<Arc<str>>>) {
    match (limit.as_mut(), other) {
        (Some(limit), Some(other)) => limit.extend(other.iter().cloned()),
        _ => *limit = None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(accounts: Option<&[&str]>) -> PollerSpec {
        PollerSpec {
            key: PollerKey {
                origin: Origin::S3 {
                    bucket: "org-trail".into(),
                    prefix: "".into(),
                },
                region: "us-east-1".into(),
                assume_role: None,
            },
            poll_period: SignedDuration::from_secs(60),
            reread_period: SignedDuration::ZERO,
            backfill: SignedDuration::from_hours(24),
            lookback: SignedDuration::from_hours(24),
            accounts: accounts.map(|ids| ids.iter().map(|id| (*id).into()).collect()),
            buckets: None,
        }
    }

    #[test]
    fn two_policies_limits_become_one_that_serves_both() {
        let mut one = spec(Some(&["111122223333"]));
        one.merge(&spec(Some(&["444455556666"])));
        assert!(one.wants_account("111122223333") && one.wants_account("444455556666"));
        assert!(!one.wants_account("777788889999"));
        one.merge(&spec(None));
        assert!(one.wants_account("777788889999"));
    }
}
