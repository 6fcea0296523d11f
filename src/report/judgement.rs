//! A policy's five conditions, as a pure function of what was assessed and what was read.
//!
//! Each is three-valued: `False` names the worst finding or what does not work, `Unknown` what is
//! missing. Nothing is said to be missing or present because evidence is lacking.
//!
//! A leader that has just begun may have evidence that does not reach yet, for example with an
//! empty ledger. For as long as evidence may be old without being stale, a verdict that it would
//! turn to `Unknown` for that alone stays as the last leader left it.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    evidence::{CHANGES, Evidence, PULLS, Place, PlaceName},
    sentence::sentence,
    text::{counted, plain},
    vocabulary::{ConditionType, Reason, Truth},
};
use crate::{
    api::{Finding, FindingType, ImageTotals, Impact},
    audit::Rules,
    event::EventName,
    source::Proof,
};

/// Longest message of a condition, in bytes. The API server takes 32 KiB.
const MESSAGE: usize = 1024;

/// Most problems that one message names.
const NAMED: usize = 3;

/// What one condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which condition.
    pub condition: ConditionType,
    /// Its status.
    pub status: Truth,
    /// Its reason.
    pub reason: Reason,
    /// Its message, on one line.
    pub message: String,
    /// `Unknown` only because the evidence does not reach yet.
    waiting: bool,
}

/// Something that keeps the operator from doing what the policy asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

/// Records of one account and region that could not be read in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Where.
    pub place: PlaceName,
    /// Records of ECR that did not decode.
    pub undecodable: u64,
    /// Records that CloudTrail cut down for their size.
    pub omitted: u64,
}

/// What a policy's conditions are made of.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// What the sources have read.
    pub evidence: &'a Evidence,
    /// The findings, the carried ones included.
    pub findings: &'a [Finding],
    /// Running images by state.
    pub images: &'a ImageTotals,
    /// The accounts and regions of the images that run.
    pub registries: &'a BTreeSet<PlaceName>,
    /// Of those, where pods started while pulls were read and no pull at all was seen.
    pub pulls_not_seen: &'a [PlaceName],
    /// Records that could not be read.
    pub unread: &'a [Unread],
    /// Pulls by tag whose image could not be told.
    pub unresolved_pulls: u64,
    /// Nodes whose pulls cannot be told from others' (Fargate, hybrid).
    pub nodes_without_session: usize,
    /// The policy's rules.
    pub rules: &'a Rules,
    /// What does not work: the inventory, the ledger, a source that cannot be read.
    pub faults: &'a [Fault],
    /// Whether the pods that run are known.
    pub inventory_synced: bool,
    /// The time of the judgement.
    pub now: Timestamp,
}

impl Facts<'_> {
    /// Since when changes were read without a gap in every registry that images run from; none
    /// when nothing was.
    #[must_use]
    pub fn covered_since(&self) -> Option<Timestamp> {
        let since = |place: &Place| place.run(&CHANGES).map(|run| run.start);
        if self.registries.is_empty() {
            return self
                .evidence
                .places()
                .filter_map(|(_, place)| since(place))
                .max();
        }
        self.registries
            .iter()
            .filter_map(|(account, region)| since(self.evidence.place(account, region)?))
            .max()
    }

    /// All five conditions, in their order.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Verdict> {
        vec![
            self.ready(),
            self.evidence_complete(),
            self.images_retained(),
            self.pullers_expected(),
            self.pushers_expected(),
        ]
    }

    fn ready(&self) -> Verdict {
        let condition = ConditionType::Ready;
        let mut faults = self.faults.to_vec();
        faults.extend(self.source_faults());
        faults.extend(self.unread_sources());
        if let Some(verdict) = worst_fault(condition, &faults) {
            return verdict;
        }
        let sources = counted(self.evidence.sources.len(), "source");
        verdict(
            condition,
            Truth::True,
            Reason::Judged,
            &format!("the policy is valid, {sources} read, the inventory synced"),
        )
    }

    fn source_faults(&self) -> Vec<Fault> {
        self.evidence
            .sources
            .iter()
            .filter_map(|source| {
                let error = source.health.last_error.as_ref()?;
                Some(Fault {
                    reason: error.reason.into(),
                    message: format!("{}: {}", source_name(source), plain(&error.message, 300)),
                })
            })
            .collect()
    }

    fn unread_sources(&self) -> Vec<Fault> {
        let unread = self.evidence.sources.iter().filter(|source| {
            source.health.last_success.is_none() && source.health.last_error.is_none()
        });
        unread
            .map(|source| Fault {
                reason: Reason::SourceNotRead,
                message: format!("{} has not been read yet", source_name(source)),
            })
            .collect()
    }

    fn evidence_complete(&self) -> Verdict {
        let condition = ConditionType::EvidenceComplete;
        let mut problems = self.source_faults();
        problems.extend(self.gaps());
        problems.extend(self.stale_places());
        problems.extend(self.uncovered());
        problems.extend(self.backfilling());
        problems.extend(self.unread_sources());
        problems.extend(self.unread.iter().filter_map(unread_fault));
        problems.extend(self.pulls_not_seen());
        if let Some(verdict) = worst_fault(condition, &problems) {
            return verdict;
        }
        let since = self.covered_since();
        let message = match since {
            Some(since) => format!(
                "every source was read without a gap since {since}{}",
                self.proof()
            ),
            None => "no ECR image runs and no source is read".to_owned(),
        };
        verdict(condition, Truth::True, Reason::Complete, &message)
    }

    fn gaps(&self) -> Vec<Fault> {
        let names = self.needed();
        let places = self.evidence.places();
        places
            .flat_map(|((account, region), place)| {
                place.gaps(&names).map(move |gap| Fault {
                    reason: gap.reason.into(),
                    message: format!(
                        "account {account} in {region}: {}; {} to {} is not covered",
                        plain(&gap.message, 300),
                        gap.span.start,
                        gap.span.end
                    ),
                })
            })
            .collect()
    }

    /// By what it is known that a trail's files were all read, where files are read.
    fn proof(&self) -> String {
        let (mut delivery, mut digests) = (0, None::<Timestamp>);
        for (_, place) in self.evidence.places() {
            for proof in &place.proofs {
                match proof {
                    Proof::Answers => {}
                    Proof::Delivery => delivery += 1,
                    Proof::Digests { until } => {
                        digests = Some(digests.map_or(*until, |least| least.min(*until)));
                    }
                }
            }
        }
        let settling = "by delivery time, settling 15 minutes";
        match (digests, delivery) {
            (None, 0) => String::new(),
            (None, _) => format!("; {settling}"),
            (Some(until), 0) => format!("; proved by digests until {until}, since then {settling}"),
            (Some(until), places) => format!(
                "; {} {settling}, the others proved by digests until {until}",
                counted(places, "account and region")
            ),
        }
    }

    fn stale_places(&self) -> Vec<Fault> {
        let names = self.needed();
        self.evidence
            .places()
            .filter_map(|((account, region), place)| {
                let run = place.run(&names)?;
                (!place.is_fresh(&names, self.now)).then(|| Fault {
                    reason: Reason::Stale,
                    message: format!("account {account} in {region} was read until {}", run.end),
                })
            })
            .collect()
    }

    fn uncovered(&self) -> Vec<Fault> {
        if self.evidence.has_unnamed() {
            // A source that has not said whose account it reads may be the one.
            return vec![];
        }
        self.registries
            .iter()
            .filter(|(account, region)| self.evidence.place(account, region).is_none())
            .map(|(account, region)| Fault {
                reason: Reason::RegistryNotCovered,
                message: format!("no source reads account {account} in {region}"),
            })
            .collect()
    }

    fn backfilling(&self) -> Vec<Fault> {
        let names = self.needed();
        self.evidence
            .places()
            .filter(|(_, place)| place.is_backfilling(&names))
            .map(|((account, region), place)| {
                let rest = place.backfill.map_or_else(String::new, |rest| {
                    format!(", about {} to go", duration(rest))
                });
                let reached = place.run(&CHANGES).map_or_else(String::new, |run| {
                    format!(": changes are read since {}", run.start)
                });
                Fault {
                    reason: Reason::Backfilling,
                    message: format!(
                        "reading the history of account {account} in {region}{reached}{rest}"
                    ),
                }
            })
            .collect()
    }

    /// The event names that this policy needs.
    fn needed(&self) -> Vec<EventName> {
        let mut names = CHANGES.to_vec();
        if self.rules.judges_pulls() {
            names.extend(PULLS);
        }
        names
    }

    fn images_retained(&self) -> Verdict {
        let condition = ConditionType::ImagesRetained;
        let older = self.images.unknown;
        if let Some(mut verdict) = self.worst_finding(condition, FindingType::is_removal) {
            if older > 0 {
                let more = format!("; of {older} more images the evidence does not tell");
                let room = MESSAGE.saturating_sub(more.len());
                verdict.message = plain(&verdict.message, room) + &more;
            }
            return verdict;
        }
        if let Some(verdict) = self.missing(condition, &CHANGES, None) {
            return verdict;
        }
        let running = usize::try_from(self.images.running).unwrap_or_default();
        let mut message = match self.covered_since() {
            Some(since) if running > 0 => format!(
                "none of {} has been removed since {since}{}",
                counted(running, "running image"),
                self.but_excepted(FindingType::is_removal)
            ),
            _ => "no ECR image runs".to_owned(),
        };
        if older > 0 {
            append(
                &mut message,
                format_args!(
                    "; {older} of them older than the evidence: what happened before is not known"
                ),
            );
        }
        verdict(condition, Truth::True, Reason::Retained, &message)
    }

    fn pullers_expected(&self) -> Verdict {
        let condition = ConditionType::PullersExpected;
        if !self.rules.judges_pulls() {
            return not_configured(condition, "spec.expectedPullers");
        }
        let is_pull = |kind| matches!(kind, FindingType::UnexpectedPull | FindingType::DeniedPull);
        if let Some(verdict) = self.worst_finding(condition, is_pull) {
            return verdict;
        }
        let names = self.needed();
        if let Some(verdict) = self.missing(condition, &names, Some(self.rules.lookback())) {
            return verdict;
        }
        if let Some(Fault { reason, message }) = self.pulls_not_seen().next() {
            return verdict(condition, Truth::Unknown, reason, &message);
        }
        let mut message = format!(
            "everybody who pulled a running image within {} is expected{}",
            duration(self.rules.lookback()),
            self.but_excepted(is_pull)
        );
        if self.rules.expects_cluster_nodes() && self.nodes_without_session > 0 {
            append(
                &mut message,
                format_args!(
                    "; the pulls of {} without an instance id cannot be told apart: their role \
                 belongs in principals",
                    counted(self.nodes_without_session, "node")
                ),
            );
        }
        if self.unresolved_pulls > 0 {
            append(
                &mut message,
                format_args!(
                    "; {} by tag could not be told an image",
                    counted(
                        usize::try_from(self.unresolved_pulls).unwrap_or(usize::MAX),
                        "pull"
                    )
                ),
            );
        }
        verdict(condition, Truth::True, Reason::AsExpected, &message)
    }

    fn pushers_expected(&self) -> Verdict {
        let condition = ConditionType::PushersExpected;
        if !self.rules.judges_pushes() {
            return not_configured(condition, "spec.expectedPushers");
        }
        let is_push = |kind| matches!(kind, FindingType::UnexpectedPush | FindingType::DeniedPush);
        if let Some(verdict) = self.worst_finding(condition, is_push) {
            return verdict;
        }
        if let Some(verdict) = self.missing(condition, &CHANGES, Some(self.rules.lookback())) {
            return verdict;
        }
        let message = format!(
            "everybody who pushed a running image within {} is expected{}",
            duration(self.rules.lookback()),
            self.but_excepted(is_push)
        );
        verdict(condition, Truth::True, Reason::AsExpected, &message)
    }

    /// The registries whose pulls do not come, whatever their sources say.
    fn pulls_not_seen(&self) -> impl Iterator<Item = Fault> {
        self.pulls_not_seen.iter().map(|(account, region)| Fault {
            reason: Reason::PullsNotSeen,
            message: format!(
                "pods started from registry {account} in {region} while its pulls were read, and \
                 no pull was seen: does the trail log read events?"
            ),
        })
    }

    /// What exceptions cover of these findings, as the end of a sentence.
    fn but_excepted(&self, concerns: impl Fn(FindingType) -> bool) -> String {
        let excepted = self.findings.iter();
        let excepted =
            excepted.filter(|finding| finding.excepted && concerns(finding.finding_type));
        match excepted.count() {
            0 => String::new(),
            count => format!(
                ", but for {} that exceptions cover",
                counted(count, "finding")
            ),
        }
    }

    fn worst_finding(
        &self,
        condition: ConditionType,
        concerns: impl Fn(FindingType) -> bool,
    ) -> Option<Verdict> {
        let mut findings: Vec<&Finding> = self
            .findings
            .iter()
            .filter(|finding| !finding.excepted && concerns(finding.finding_type))
            .collect();
        findings.sort_by_key(|finding| severity(finding));
        let worst = findings.first()?;
        let more = findings.len() - 1;
        let mut message = sentence(worst);
        if more > 0 {
            append(&mut message, format_args!("; and {more} more"));
        }
        Some(verdict(
            condition,
            Truth::False,
            worst.finding_type.into(),
            &message,
        ))
    }

    /// What of the evidence is missing to say that nothing was found: a registry that images run
    /// from and that is not read, not read lately, or not read far enough back.
    fn missing(
        &self,
        condition: ConditionType,
        names: &[EventName],
        reach: Option<SignedDuration>,
    ) -> Option<Verdict> {
        let unknown = |reason, message: String, waiting| {
            Some(Verdict {
                waiting,
                ..verdict(condition, Truth::Unknown, reason, &message)
            })
        };
        if !self.inventory_synced {
            return unknown(
                Reason::InventoryNotSynced,
                "the pods that run are not known yet".to_owned(),
                true,
            );
        }
        for (account, region) in self.registries {
            let Some(place) = self.evidence.place(account, region) else {
                if self.evidence.has_unnamed() {
                    return unknown(
                        Reason::SourceNotRead,
                        format!("nothing was read yet of account {account} in {region}"),
                        !self.is_failing(None),
                    );
                }
                return unknown(
                    Reason::RegistryNotCovered,
                    format!("no source reads account {account} in {region}"),
                    false,
                );
            };
            let waiting = !self.is_failing(Some((account, region)));
            let Some(run) = place.run(names) else {
                return unknown(
                    Reason::Backfilling,
                    format!("account {account} in {region} has not been read completely yet"),
                    waiting,
                );
            };
            if !place.is_fresh(names, self.now) {
                return unknown(
                    Reason::Stale,
                    format!("account {account} in {region} was read until {}", run.end),
                    waiting,
                );
            }
            let Some(reach) = reach else { continue };
            let from = self.now.checked_sub(reach).unwrap_or(Timestamp::MIN);
            if run.start > from {
                let gap = place.gaps(names).find(|gap| gap.span.end > from);
                if let Some(gap) = gap {
                    return unknown(
                        gap.reason.into(),
                        format!(
                            "account {account} in {region}: {}, which is within the lookback of {}",
                            plain(&gap.message, 300),
                            duration(reach)
                        ),
                        false,
                    );
                }
                return unknown(
                    Reason::Backfilling,
                    format!(
                        "account {account} in {region} is read since {}, which is within the \
                         lookback of {}",
                        run.start,
                        duration(reach)
                    ),
                    waiting,
                );
            }
        }
        None
    }

    fn is_failing(&self, place: Option<(&str, &str)>) -> bool {
        self.evidence.sources.iter().any(|source| {
            let health = &source.health;
            let here = place.is_none_or(|(account, region)| {
                health.is_of_whole_source()
                    || health.account.as_deref() == Some(account) && *health.region == *region
            });
            here && health.last_error.is_some()
        })
    }
}

/// The conditions of a policy whose spec cannot be judged.
#[must_use]
pub fn invalid(reason: Reason, message: &str) -> Vec<Verdict> {
    let message = plain(message, MESSAGE);
    ConditionType::ALL
        .into_iter()
        .map(|condition| {
            let (status, message) = match condition {
                ConditionType::Ready => (Truth::False, message.clone()),
                _ => (
                    Truth::Unknown,
                    "the policy is not judged: see Ready".to_owned(),
                ),
            };
            verdict(condition, status, reason, &message)
        })
        .collect()
}

/// Turns verdicts into conditions. `previous` are those on the object.
///
/// `lastTransitionTime` moves only when the status does. While the leader is `settling`, a verdict
/// that waits for evidence leaves the previous one of the same generation as it is.
#[must_use]
pub fn conditions(
    verdicts: &[Verdict],
    previous: &[Condition],
    generation: Option<i64>,
    settling: bool,
    now: Timestamp,
) -> Vec<Condition> {
    verdicts
        .iter()
        .map(|verdict| {
            let old = previous
                .iter()
                .find(|old| old.type_ == verdict.condition.as_str());
            // With what runs the findings are known: without one nothing is violated any more.
            let retracted = old.is_some_and(|old| old.status == Truth::False.as_str())
                && verdict.reason != Reason::InventoryNotSynced;
            if let Some(old) = old
                && settling
                && verdict.waiting
                && !retracted
                && old.observed_generation == generation
                && old.status != Truth::Unknown.as_str()
            {
                return old.clone();
            }
            let status = verdict.status.as_str();
            let since = old
                .filter(|old| old.status == status)
                .map_or(Time(now), |old| old.last_transition_time.clone());
            Condition {
                type_: verdict.condition.as_str().to_owned(),
                status: status.to_owned(),
                reason: verdict.reason.as_str().to_owned(),
                message: verdict.message.clone(),
                last_transition_time: since,
                observed_generation: generation,
            }
        })
        .collect()
}

/// What comes first is worse.
pub(super) fn severity(finding: &Finding) -> impl Ord + use<> {
    (
        finding.excepted,
        finding.impact.unwrap_or(Impact::WouldChange),
        finding.finding_type,
        std::cmp::Reverse(finding.last_time),
        finding.workload.clone(),
    )
}

fn verdict(condition: ConditionType, status: Truth, reason: Reason, message: &str) -> Verdict {
    Verdict {
        condition,
        status,
        reason,
        message: plain(message, MESSAGE),
        waiting: false,
    }
}

fn not_configured(condition: ConditionType, field: &str) -> Verdict {
    verdict(
        condition,
        Truth::Unknown,
        Reason::NotConfigured,
        &format!("the policy has no {field}"),
    )
}

/// Adds to a message. Writing to a String cannot fail.
fn append(message: &mut String, text: fmt::Arguments<'_>) {
    let _ = message.write_fmt(text);
}

/// The first fault gives the reason; the message names a few.
fn worst_fault(condition: ConditionType, faults: &[Fault]) -> Option<Verdict> {
    let first = faults.first()?;
    let mut message: Vec<&str> = Vec::new();
    for fault in faults {
        if message.len() < NAMED && !message.contains(&fault.message.as_str()) {
            message.push(&fault.message);
        }
    }
    let more = faults.len().saturating_sub(message.len());
    let mut message = message.join("; ");
    if more > 0 {
        append(&mut message, format_args!("; and {more} more"));
    }
    Some(verdict(condition, Truth::False, first.reason, &message))
}

fn unread_fault(unread: &Unread) -> Option<Fault> {
    let (account, region) = &unread.place;
    let (reason, count, what) = if unread.undecodable > 0 {
        (Reason::Undecodable, unread.undecodable, "did not decode")
    } else if unread.omitted > 0 {
        (
            Reason::Omitted,
            unread.omitted,
            "lack a part that CloudTrail left out",
        )
    } else {
        return None;
    };
    Some(Fault {
        reason,
        message: format!("{count} records of account {account} in {region} {what}"),
    })
}

fn source_name(source: &super::evidence::SourceHealth) -> String {
    if source.health.is_of_whole_source() {
        return format!("source {}", plain(&source.name, 63));
    }
    let account = match &source.health.account {
        Some(account) => format!(" of account {}", plain(account, 64)),
        None => String::new(),
    };
    format!(
        "source {}{account} in {}",
        plain(&source.name, 63),
        plain(&source.health.region, 64)
    )
}

/// A duration as people say it: its largest unit, rounded up.
fn duration(duration: SignedDuration) -> String {
    let seconds = usize::try_from(duration.as_secs()).unwrap_or_default();
    let (number, noun) = match seconds {
        0..=90 => (seconds.max(1), "second"),
        91..=5400 => (seconds.div_ceil(60), "minute"),
        5401..=129_600 => (seconds.div_ceil(3600), "hour"),
        _ => (seconds.div_ceil(86400), "day"),
    };
    counted(number, noun)
}
