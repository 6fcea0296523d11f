//! A policy as the page shows it: its conditions, and what they count.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Level, MESSAGE, NAME, findings::FINDINGS, time::Moment};
use crate::{
    api::{EcrAuditFindingSpec, EcrAuditPolicyStatus, Finding, FindingType, Image, Impact},
    report::{
        judgement::severity,
        text::plain,
        vocabulary::{ConditionType, Reason, Truth},
    },
};

/// A policy as it was published. Bounded, however many findings it has.
#[derive(Clone, Debug)]
pub struct PolicyPage {
    /// Its name.
    pub name: String,
    /// Its status: conditions and counts.
    pub status: EcrAuditPolicyStatus,
    /// Its worst findings.
    pub(super) findings: Vec<Named>,
    /// How many more there are.
    pub(super) more: usize,
    /// What its findings come to.
    pub(super) sums: Sums,
}

/// A finding under its object's name.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub name: String,
    pub spec: EcrAuditFindingSpec,
}

/// What the findings that no exception covers are about.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub unpullable: BTreeSet<Image>,
    pub removed: BTreeSet<Image>,
    pub changed: BTreeSet<Image>,
    pub pushed: BTreeSet<Image>,
    pub pullers: BTreeSet<String>,
    pub refused: BTreeSet<String>,
    /// Workloads whose image a new node cannot pull, as `kind namespace/name`.
    pub stuck: BTreeSet<String>,
}

impl Sums {
    fn add(&mut self, finding: &Finding) {
        if finding.excepted {
            return;
        }
        let image = || finding.image.clone();
        let who = || {
            let who = finding.principal.as_ref();
            who.map(|who| who.key.clone()).unwrap_or_default()
        };
        match (finding.finding_type, finding.impact) {
            (FindingType::UnexpectedPush, _) => drop(self.pushed.insert(image())),
            (FindingType::UnexpectedPull, _) => drop(self.pullers.insert(who())),
            (FindingType::DeniedPush | FindingType::DeniedPull, _) => {
                self.refused.insert(who());
            }
            (_, Some(Impact::WouldChange)) => drop(self.changed.insert(image())),
            (_, Some(Impact::Unpullable)) => {
                let workload = &finding.workload;
                self.stuck.insert(format!(
                    "{} {}/{}",
                    workload.kind, workload.namespace, workload.name
                ));
                self.unpullable.insert(image());
            }
            (_, Some(Impact::Unknown) | None) => drop(self.removed.insert(image())),
        }
    }
}

impl PolicyPage {
    /// From what was published of a policy; each finding under its object's name.
    pub fn new<'a>(
        name: String,
        status: EcrAuditPolicyStatus,
        findings: impl IntoIterator<Item = (Option<&'a str>, &'a EcrAuditFindingSpec)>,
    ) -> Self {
        let mut worst: Vec<_> = findings.into_iter().collect();
        worst.sort_by_cached_key(|(_, spec)| severity(&spec.finding));
        let mut sums = Sums::default();
        for (_, spec) in &worst {
            sums.add(&spec.finding);
        }
        let surplus = status.findings.as_ref().and_then(|totals| totals.surplus);
        let surplus = usize::try_from(surplus.unwrap_or_default()).unwrap_or_default();
        Self {
            name,
            more: worst.len().saturating_sub(FINDINGS).saturating_add(surplus),
            findings: worst
                .into_iter()
                .take(FINDINGS)
                .map(|(name, spec)| Named {
                    name: name.unwrap_or_default().to_owned(),
                    spec: spec.clone(),
                })
                .collect(),
            status,
            sums,
        }
    }

    /// `status` of a condition, and its reason and message.
    pub(super) fn condition(&self, kind: ConditionType) -> (&str, &str, &str) {
        let mut all = self.status.conditions.iter();
        all.find(|condition| condition.type_ == kind.as_str())
            .map_or(
                (
                    Truth::Unknown.as_str(),
                    Reason::NotVisited.as_str(),
                    "not judged yet",
                ),
                |one| (&one.status, &one.reason, &one.message),
            )
    }

    /// How bad it is: the worst of its conditions.
    pub(super) fn level(&self) -> Level {
        if !self.sums.unpullable.is_empty() || !self.sums.removed.is_empty() {
            return Level::Bad;
        }
        let statuses = self.status.conditions.iter();
        statuses
            .filter(|one| one.reason != Reason::NotConfigured.as_str())
            .map(|one| level(&one.status, &one.reason))
            .min()
            .unwrap_or(Level::Unknown)
    }
}

/// One policy.
pub(super) struct PolicyView {
    pub name: String,
    pub class: &'static str,
    pub conditions: Vec<ConditionView>,
    pub running: i64,
    pub present: i64,
    pub gone: i64,
    pub unknown: i64,
    pub findings: i64,
    pub excepted: i64,
    pub since: Option<Moment>,
}

/// One condition of it.
pub(super) struct ConditionView {
    pub class: &'static str,
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    pub since: Moment,
}

impl PolicyView {
    pub(super) fn new(policy: &PolicyPage, now: Timestamp) -> Self {
        let status = &policy.status;
        let images = status.images.clone().unwrap_or_default();
        let findings = status.findings.clone().unwrap_or_default();
        let conditions = status.conditions.iter().take(10);
        Self {
            name: plain(&policy.name, NAME),
            class: policy.level().class(),
            conditions: conditions
                .map(|condition| ConditionView {
                    class: level(&condition.status, &condition.reason).class(),
                    kind: plain(&condition.type_, NAME),
                    status: plain(&condition.status, NAME),
                    reason: plain(&condition.reason, NAME),
                    message: plain(&condition.message, MESSAGE),
                    since: Moment::new(condition.last_transition_time.0, now),
                })
                .collect(),
            running: images.running,
            present: images.present,
            gone: images.gone,
            unknown: images.unknown,
            findings: findings.total,
            excepted: findings.excepted,
            since: status.covered_since.map(|since| Moment::new(since, now)),
        }
    }
}

/// A history that is still being read, or somebody who pulled, is less than an image that is gone.
fn level(status: &str, reason: &str) -> Level {
    if status == Truth::True.as_str() {
        return Level::Good;
    }
    if status == Truth::Unknown.as_str() {
        return Level::Unknown;
    }
    match Reason::ALL.iter().find(|known| known.as_str() == reason) {
        Some(Reason::Backfilling | Reason::SourceNotRead) => Level::Unknown,
        Some(
            Reason::UnexpectedPull
            | Reason::UnexpectedPush
            | Reason::DeniedPull
            | Reason::DeniedPush
            | Reason::Undecodable
            | Reason::Omitted
            | Reason::PullsNotSeen
            | Reason::Throttled,
        ) => Level::Warn,
        _ => Level::Bad,
    }
}
