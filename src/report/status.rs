//! `status` of a policy: bounded, and the same whenever nothing but a time has changed.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    evidence::{CHANGES, Evidence},
    text::plain,
};
use crate::api::{
    BackfillTotals, EcrAuditPolicyStatus, Finding, FindingTotals, FindingType, FindingTypeTotal,
    ImageState, ImageTotals, SourceStatus, SourceTotals,
};

/// Most unhealthy sources that the status lists.
const UNHEALTHY: usize = 20;
/// Most regions that the status lists.
const REGIONS: usize = 50;
/// How often times alone are refreshed.
const REFRESH: SignedDuration = SignedDuration::from_mins(5);

/// Counts images by their states.
#[must_use]
pub fn image_totals(states: impl IntoIterator<Item = ImageState>) -> ImageTotals {
    let mut totals = ImageTotals::default();
    for state in states {
        totals.running += 1;
        match state {
            ImageState::Present => totals.present += 1,
            ImageState::Expired => totals.expired += 1,
            ImageState::Deleted => totals.deleted += 1,
            ImageState::Archived => totals.archived += 1,
            ImageState::Unknown => totals.unknown += 1,
        }
    }
    totals.gone = totals.expired + totals.deleted + totals.archived;
    totals
}

/// Counts findings. `surplus` are those without an object.
#[must_use]
pub fn finding_totals(findings: &[Finding], surplus: usize) -> FindingTotals {
    let count = |kind: Option<FindingType>| {
        let counted = findings.iter().filter(|finding| {
            !finding.excepted && kind.is_none_or(|kind| kind == finding.finding_type)
        });
        number(counted.count())
    };
    FindingTotals {
        total: count(None),
        excepted: number(findings.iter().filter(|finding| finding.excepted).count()),
        surplus: (surplus > 0).then(|| number(surplus)),
        unexpected_pulls: count(Some(FindingType::UnexpectedPull)),
        by_type: FindingType::ALL
            .into_iter()
            .map(|kind| FindingTypeTotal {
                finding_type: kind,
                count: count(Some(kind)),
            })
            .filter(|total| total.count > 0)
            .collect(),
    }
}

/// Counts sources, and lists the unhealthy ones. `derived` says that the policy names no regions.
#[must_use]
pub fn source_totals(evidence: &Evidence, derived: bool) -> SourceTotals {
    let sources = &evidence.sources;
    let is_unhealthy = |source: &&super::evidence::SourceHealth| {
        source.health.last_error.is_some() || source.health.last_success.is_none()
    };
    let mut unhealthy: Vec<SourceStatus> = sources
        .iter()
        .filter(is_unhealthy)
        .map(|source| {
            let health = &source.health;
            let account = health.account.as_deref().unwrap_or_default();
            let run = evidence
                .place(account, &health.region)
                .and_then(|place| place.run(&CHANGES));
            SourceStatus {
                name: source.name.clone(),
                account: account.to_owned(),
                region: health.region.to_string(),
                covered_since: run.map(|run| run.start),
                covered_until: run.map(|run| run.end),
                last_success_time: health.last_success,
                last_error: health
                    .last_error
                    .as_ref()
                    .map(|error| plain(&format!("{}: {}", error.reason, error.message), 300)),
            }
        })
        .collect();
    let healthy = sources.len() - unhealthy.len();
    unhealthy
        .sort_by(|a, b| (&a.name, &a.account, &a.region).cmp(&(&b.name, &b.account, &b.region)));
    unhealthy.truncate(UNHEALTHY);
    let regions: BTreeSet<String> = sources
        .iter()
        .filter(|_| derived)
        .map(|source| source.health.region.to_string())
        .collect();
    SourceTotals {
        total: number(sources.len()),
        healthy: number(healthy),
        regions: regions.into_iter().take(REGIONS).collect(),
        backfill: backfill(evidence),
        unhealthy,
    }
}

/// What is still to be read, added over all sources; they read at the same time.
fn backfill(evidence: &Evidence) -> Option<BackfillTotals> {
    let mut totals = BackfillTotals::default();
    let rests = evidence
        .sources
        .iter()
        .filter_map(|source| source.health.backfill);
    for rest in rests {
        let whole = |count| i64::try_from(count).unwrap_or(i64::MAX);
        totals.places += 1;
        totals.requests = totals.requests.saturating_add(whole(rest.requests));
        totals.files = totals.files.saturating_add(whole(rest.files));
        totals.bytes = totals.bytes.saturating_add(whole(rest.bytes));
        totals.seconds = totals.seconds.max(rest.duration.as_secs());
    }
    (totals.places > 0).then_some(totals)
}

/// Whether a status shall be written: something other than a time changed, or times did and were
/// written long enough ago.
#[must_use]
pub fn is_due(
    new: &EcrAuditPolicyStatus,
    written: Option<&EcrAuditPolicyStatus>,
    written_at: Option<Timestamp>,
    now: Timestamp,
) -> bool {
    let Some(written) = written else { return true };
    if new == written {
        return false;
    }
    without_times(new) != without_times(written)
        || written_at.is_none_or(|at| now.duration_since(at) >= REFRESH)
}

/// A status with every time that moves by itself taken out, also out of messages.
fn without_times(status: &EcrAuditPolicyStatus) -> EcrAuditPolicyStatus {
    let mut status = status.clone();
    status.covered_since = status.covered_since.map(|_| Timestamp::UNIX_EPOCH);
    for condition in &mut status.conditions {
        // A finding's times belong to it: only messages that tell how far evidence reaches move.
        if is_about_evidence(condition) {
            condition.message.clear();
        }
    }
    if let Some(sources) = &mut status.sources {
        // That there is something to be read is news, how much of it is left is not.
        sources.backfill = sources.backfill.take().map(|_| BackfillTotals::default());
    }
    for source in status
        .sources
        .iter_mut()
        .flat_map(|sources| &mut sources.unhealthy)
    {
        source.covered_since = source.covered_since.map(|_| Timestamp::UNIX_EPOCH);
        source.covered_until = source.covered_until.map(|_| Timestamp::UNIX_EPOCH);
        source.last_success_time = source.last_success_time.map(|_| Timestamp::UNIX_EPOCH);
    }
    status
}

fn is_about_evidence(condition: &Condition) -> bool {
    use super::vocabulary::Reason;
    let moving = [
        Reason::Backfilling,
        Reason::Stale,
        Reason::Complete,
        Reason::Retained,
    ];
    moving
        .iter()
        .any(|reason| reason.as_str() == condition.reason)
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
