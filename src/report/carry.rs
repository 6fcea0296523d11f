//! What was found before, kept until something that knows better takes it back.
//!
//! The findings that an assessment makes depend on how far its evidence reaches. With a ledger
//! that was lost, or one that is still being filled, it reaches less far than that of the last
//! leader did, and findings would vanish and come back. So what was published is read back from
//! the API, and a published finding that the assessment does not make is kept, unless
//!
//! 1. the inventory says that its workload does not run this image by this reference any more, or
//!    the policy does not select it any more;
//! 2. the policy does not ask any more: pulls (or pushes) are not judged, or the principal is
//!    expected by now;
//! 3. it is a pull or push, and its last event has left the lookback;
//! 4. the evidence covers the time of its events, and no history of changes is still to be read
//!    (an image may be known only by the push of its index, which is older than what removed it);
//! 5. it is a removal older than all evidence, and the evidence shows the very digest present.
//!
//! A finding that the assessment does make, but from evidence that does not cover the time of the
//! published one's events, does not forget what those said: their count and first time, of a removal
//! its cause, and the impact where the evidence does not tell.

use jiff::{SignedDuration, Timestamp};

use super::evidence::{CHANGES, Evidence, PULLS, Place};
use crate::{
    api::{ContainerName, Finding, FindingType, Image, ImageState, Impact},
    audit::{ClusterNodes, Rules},
    event::{Caller, Interval, Principal},
};

/// What decides about findings that were published before.
pub struct Carry<'a> {
    /// What the sources have read.
    pub evidence: &'a Evidence,
    /// The policy's rules.
    pub rules: &'a Rules,
    /// The cluster's nodes.
    pub nodes: &'a ClusterNodes,
    /// The time of the assessment.
    pub now: Timestamp,
    /// The containers that still run what a finding is about.
    pub runs: &'a dyn Fn(&Finding) -> Vec<ContainerName>,
    /// The state of a finding's image by the evidence alone.
    pub state: &'a dyn Fn(&Finding) -> ImageState,
}

impl Carry<'_> {
    /// Adds to the findings of an assessment what was published before and is not taken back.
    pub fn merge(&self, findings: &mut Vec<Finding>, published: &[&Finding]) {
        // What a tag named is inferred where nothing mentions it, which must have been read.
        findings.retain(|new| {
            let place = self.place(new);
            !new.inferred || !place.is_some_and(|place| place.is_reading_back(&CHANGES))
        });
        for old in published {
            if let Some(new) = findings.iter_mut().find(|new| is_same(new, old)) {
                if !self.is_covered(old) {
                    remember(new, old);
                }
            } else if let Some(kept) = self.kept(old) {
                if kept.finding_type.is_removal() {
                    // The cause that was published stays the cause until the evidence covers it.
                    findings.retain(|new| !is_other_cause(new, &kept));
                }
                findings.push(kept);
            }
        }
    }

    fn kept(&self, old: &Finding) -> Option<Finding> {
        let containers = (self.runs)(old);
        let keep = !containers.is_empty()
            && self.is_judged(old)
            && !self.has_left_lookback(old)
            && !self.is_covered(old)
            && !self.is_contradicted(old);
        keep.then(|| Finding {
            containers,
            ..old.clone()
        })
    }

    fn is_judged(&self, old: &Finding) -> bool {
        let expected = match old.finding_type {
            FindingType::UnexpectedPull | FindingType::DeniedPull => {
                self.rules.expects_puller(&caller(old), self.nodes)
            }
            FindingType::UnexpectedPush | FindingType::DeniedPush => {
                self.rules.expects_pusher(&caller(old))
            }
            _ => Some(false),
        };
        expected == Some(false)
    }

    fn has_left_lookback(&self, old: &Finding) -> bool {
        !old.finding_type.is_removal() && old.last_time < self.rules.lookback_start(self.now)
    }

    /// Whether the evidence holds whatever there was at the time of a finding's events.
    fn is_covered(&self, old: &Finding) -> bool {
        let Some(place) = self.place(old) else {
            return false;
        };
        let second = SignedDuration::from_secs(1);
        let end = old.last_time.checked_add(second).unwrap_or(Timestamp::MAX);
        let mut start = old.first_time;
        if !old.finding_type.is_removal() {
            start = start.max(self.rules.lookback_start(self.now));
        }
        let span = Interval { start, end };
        let is_pull = matches!(
            old.finding_type,
            FindingType::UnexpectedPull | FindingType::DeniedPull
        );
        !place.is_backfilling(&CHANGES)
            && place.covers(&CHANGES, span)
            && (!is_pull || place.covers(&PULLS, span))
    }

    fn is_contradicted(&self, old: &Finding) -> bool {
        let of_this_digest = old
            .cause
            .as_ref()
            .is_some_and(|cause| cause.digest.is_some() && cause.digest == old.image.digest);
        let newer = self
            .place(old)
            .and_then(|place| place.run(&CHANGES))
            .is_some_and(|run| old.last_time < run.start);
        of_this_digest && newer && (self.state)(old) == ImageState::Present
    }

    fn place(&self, old: &Finding) -> Option<&Place> {
        self.evidence.place(&old.image.account, &old.image.region)
    }
}

/// Whether two findings are one object: one for each type, workload, reference, image and
/// principal.
#[must_use]
pub fn is_same(a: &Finding, b: &Finding) -> bool {
    let key = |finding: &'_ Finding| finding.principal.as_ref().map(|who| who.key.clone());
    a.finding_type == b.finding_type
        && a.workload == b.workload
        && a.reference == b.reference
        && a.image == b.image
        && (a.finding_type.is_removal() || key(a) == key(b))
}

fn is_other_cause(new: &Finding, kept: &Finding) -> bool {
    // A waiting container whose tag the evidence does not know yet has no digest.
    let image = Image {
        digest: new.image.digest.clone().or(kept.image.digest.clone()),
        ..new.image.clone()
    };
    new.finding_type.is_removal()
        && new.workload == kept.workload
        && new.reference == kept.reference
        && image == kept.image
}

/// Adds to a finding what an older one, whose events the evidence does not cover, knew.
fn remember(new: &mut Finding, old: &Finding) {
    new.inferred |= old.inferred;
    if new.impact == Some(Impact::Unknown) {
        new.impact = old.impact;
    }
    new.count = new.count.max(old.count);
    new.first_time = new.first_time.min(old.first_time);
    // What is known to have removed an image stays the cause, whatever else is read first.
    if old.last_time >= new.last_time || new.finding_type.is_removal() {
        new.last_time = old.last_time;
        new.event_ids.clone_from(&old.event_ids);
        new.cause.clone_from(&old.cause);
        new.principal.clone_from(&old.principal);
    }
}

fn caller(finding: &Finding) -> Caller {
    let who = finding.principal.as_ref();
    let key = who.map_or("", |who| who.key.as_str());
    let service = key
        .split_once(":role/aws-service-role/")
        .and_then(|(_, path)| Some(path.split_once('/')?.0))
        .or_else(|| {
            let is_service = who.is_some_and(|who| {
                matches!(who.principal_type.as_deref(), None | Some("AWSService"))
            });
            is_service.then_some(key)
        });
    Caller {
        principal: Principal {
            key: key.into(),
            kind: who.and_then(|who| who.principal_type.as_deref().map(Into::into)),
            account: who.and_then(|who| who.account_id.as_deref().map(Into::into)),
            service: service.map(Into::into),
        },
        session: who.and_then(|who| who.session.as_deref().map(Into::into)),
        arn: None,
    }
}
