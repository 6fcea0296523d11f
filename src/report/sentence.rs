//! A finding in one sentence, and what to do about it in another.

use super::text::plain;
use crate::api::{Finding, FindingType, Impact};

/// Longest name or reference in a sentence, in bytes.
const NAME: usize = 160;
/// Longest rule description in a sentence, in bytes.
const DESCRIPTION: usize = 80;
/// Characters of a digest that tell it from others.
const DIGEST: usize = 19;

/// What was found: what runs, what happened to it, when and by whom.
#[must_use]
pub fn sentence(finding: &Finding) -> String {
    let workload = &finding.workload;
    let what = format!(
        "{} {}/{} runs {}{}",
        plain(&workload.kind, 63),
        plain(&workload.namespace, 63),
        plain(&workload.name, 63),
        plain(&finding.reference, NAME),
        digest(finding),
    );
    let happened = happened(finding);
    let when = if finding.count > 1 {
        format!("{} times, last at {}", finding.count, finding.last_time)
    } else {
        format!("at {}", finding.last_time)
    };
    let then = match finding.impact {
        Some(Impact::Unpullable) => ": a new node cannot pull it",
        Some(Impact::WouldChange) => ": a new node would run another image",
        Some(Impact::Unknown) | None => "",
    };
    format!("{what}, {happened} {when}{then}")
}

/// What happened to the image, and by what or whom: `expired by lifecycle rule 1 "…"`.
#[must_use]
pub fn happened(finding: &Finding) -> String {
    match finding.finding_type {
        FindingType::ImageExpired => format!("expired by {}", by(finding)),
        FindingType::ImageDeleted => format!("deleted by {}", by(finding)),
        FindingType::ImageArchived => format!("moved to archive storage by {}", by(finding)),
        FindingType::TagRemoved => format!("whose tag was removed by {}", by(finding)),
        FindingType::UnexpectedPull => format!("pulled by {}", by(finding)),
        FindingType::UnexpectedPush => format!("pushed or re-tagged by {}", by(finding)),
        FindingType::DeniedPull => format!("which {} was refused to pull", by(finding)),
        FindingType::DeniedPush => format!("which {} was refused to push", by(finding)),
    }
}

fn digest(finding: &Finding) -> String {
    finding
        .image
        .digest
        .as_deref()
        .map(|digest| {
            let end = digest.floor_char_boundary(DIGEST);
            format!(" ({})", plain(digest.get(..end).unwrap_or_default(), NAME))
        })
        .unwrap_or_default()
}

/// Who or what did it.
fn by(finding: &Finding) -> String {
    if let Some(rule) = finding.cause.as_ref().and_then(|cause| cause.rule.as_ref()) {
        return match &rule.description {
            Some(description) => format!(
                "lifecycle rule {} \"{}\"",
                rule.priority,
                plain(description, DESCRIPTION)
            ),
            None => format!("lifecycle rule {}", rule.priority),
        };
    }
    match &finding.principal {
        Some(principal) => match &principal.session {
            Some(session) => format!("{} ({})", plain(&principal.key, NAME), plain(session, 64)),
            None => plain(&principal.key, NAME),
        },
        None => "nobody that the evidence names".to_owned(),
    }
}

/// What to do about a finding.
#[must_use]
pub fn remedy(finding: &Finding) -> String {
    let by_rule = finding
        .cause
        .as_ref()
        .and_then(|cause| cause.rule.as_ref())
        .map(|rule| format!(", and change lifecycle rule {} to keep it", rule.priority))
        .unwrap_or_default();
    let until = match finding.impact {
        Some(Impact::Unpullable) => {
            "; until then do not drain or replace the nodes that its pods run on"
        }
        Some(Impact::WouldChange) => {
            "; until then a pod that moves to another node runs another image"
        }
        Some(Impact::Unknown) | None => "",
    };
    match finding.finding_type {
        FindingType::ImageExpired | FindingType::ImageDeleted => {
            format!("Push the image again, or redeploy from one that exists{by_rule}{until}.")
        }
        FindingType::ImageArchived => {
            format!("Restore the image from archive storage, or redeploy{by_rule}{until}.")
        }
        FindingType::TagRemoved => {
            format!("Push the tag again, or redeploy by digest{by_rule}{until}.")
        }
        FindingType::UnexpectedPull => "Find out why this principal pulls the image; if it \
             may, add it to spec.expectedPullers, else take its permission away."
            .to_owned(),
        FindingType::UnexpectedPush => "Check what was pushed before a new node runs it; if \
             this principal may push, add it to spec.expectedPushers, else take its permission \
             away."
            .to_owned(),
        FindingType::DeniedPull | FindingType::DeniedPush => "Find out why this principal \
             tries; nothing was let through, so nothing has to be undone."
            .to_owned(),
    }
}
