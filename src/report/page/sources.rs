//! The readers: what each has read last, what keeps it from reading, and how far its back-fill is.

use jiff::Timestamp;

use super::{
    Level, NAME, Snapshot,
    findings::Shown,
    time::{Moment, span},
};
use crate::{
    report::text::plain,
    source::{Health, Origin},
};

/// Sources that are shown, the unhealthy ones first.
const SOURCES: usize = 50;
/// Names of one reader that are shown.
const NAMES: usize = 5;

/// All sources.
pub(super) struct Sources {
    pub total: usize,
    pub failing: usize,
    pub shown: Shown<SourceView>,
}

/// One reader.
pub(super) struct SourceView {
    pub class: &'static str,
    pub state: &'static str,
    pub names: Shown<String>,
    pub kind: &'static str,
    /// The account; of a bucket or queue as a whole, what it is.
    pub place: String,
    pub region: String,
    pub success: Option<Moment>,
    pub error: Option<String>,
    pub since: Option<Moment>,
    pub backfill: Option<String>,
    pub period: String,
}

impl Sources {
    pub(super) fn new(snapshot: &Snapshot, now: Timestamp) -> Self {
        let mut all: Vec<&Health> = snapshot.sources.iter().map(AsRef::as_ref).collect();
        all.sort_by(|a, b| {
            let key = |health: &Health| {
                (
                    state(health).0,
                    health.account.clone(),
                    health.region.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        Self {
            total: all.len(),
            failing: all.iter().filter(|one| one.last_error.is_some()).count(),
            shown: Shown::first(SOURCES, all, |health| {
                SourceView::new(health, snapshot, now)
            }),
        }
    }
}

fn state(health: &Health) -> (Level, &'static str) {
    match (&health.last_error, health.last_success, health.backfill) {
        (Some(_), ..) => (Level::Bad, "fails"),
        (None, None, _) => (Level::Unknown, "not read yet"),
        (None, Some(_), Some(_)) => (Level::Unknown, "reads the history"),
        (None, Some(_), None) => (Level::Good, "reads"),
    }
}

fn place(health: &Health) -> String {
    let whole = match &health.key.origin {
        Origin::LookupEvents { .. } => "not known yet".to_owned(),
        Origin::S3 { bucket, prefix } => format!("s3://{bucket}/{prefix}"),
        Origin::Sqs { queue_url } => queue_url.to_string(),
    };
    plain(health.account.as_deref().unwrap_or(&whole), NAME)
}

impl SourceView {
    fn new(health: &Health, snapshot: &Snapshot, now: Timestamp) -> Self {
        let (level, state) = state(health);
        let names = snapshot.names.get(&health.key);
        let names: Vec<&String> = names.into_iter().flatten().collect();
        let error = health.last_error.as_ref();
        Self {
            class: level.class(),
            state,
            names: Shown::first(NAMES, names, |name| plain(name, NAME)),
            kind: health.key.kind().as_str(),
            place: place(health),
            region: plain(&health.region, 64),
            success: health.last_success.map(|at| Moment::new(at, now)),
            error: error.map(|error| plain(&format!("{}: {}", error.reason, error.message), 400)),
            since: error.map(|error| Moment::new(error.since, now)),
            backfill: health.backfill.map(|rest| {
                let what = match rest.files {
                    0 => format!("{} requests", rest.requests),
                    files => format!("{files} files ({} MB)", rest.bytes / 1_000_000),
                };
                format!("about {} to go, in {what}", span(rest.duration))
            }),
            period: span(health.poll_period),
        }
    }
}
