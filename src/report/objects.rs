//! `EcrAuditFinding` objects: their names, what bounds them, and whose they are.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, core::ObjectMeta};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

use super::{judgement::severity, sentence::remedy, text::plain};
use crate::api::{
    API_VERSION, Cause, CauseRule, ContainerName, EcrAuditFinding, EcrAuditFindingSpec,
    EcrAuditPolicy, Finding, Image, PrincipalName, Workload,
};

/// Most finding objects of one policy.
pub const MOST_FINDINGS: usize = 1000;
/// Most containers that one object lists.
const CONTAINERS: usize = 50;
/// Longest text of others in an object, in bytes: the longest ARN.
const TEXT: usize = 2048;
/// Longest part of an object's name that comes from the workload's.
const WORKLOAD: usize = 63;

/// The objects of a policy's findings, the worst first, and how many more findings there are.
#[must_use]
pub fn objects(policy: &EcrAuditPolicy, findings: &[Finding]) -> (Vec<EcrAuditFinding>, usize) {
    let mut worst: Vec<&Finding> = findings.iter().collect();
    worst.sort_by_cached_key(|finding| (severity(finding), name(policy, finding)));
    let surplus = worst.len().saturating_sub(MOST_FINDINGS);
    worst.truncate(MOST_FINDINGS);
    let objects = worst.into_iter().map(|finding| object(policy, finding));
    (objects.collect(), surplus)
}

fn object(policy: &EcrAuditPolicy, finding: &Finding) -> EcrAuditFinding {
    let policy_name = policy.metadata.name.clone().unwrap_or_default();
    EcrAuditFinding {
        metadata: ObjectMeta {
            name: Some(name(policy, finding)),
            namespace: Some(finding.workload.namespace.clone()),
            owner_references: policy.controller_owner_ref(&()).map(|owner| {
                vec![OwnerReference {
                    api_version: API_VERSION.to_owned(),
                    ..owner
                }]
            }),
            ..ObjectMeta::default()
        },
        spec: EcrAuditFindingSpec {
            policy: policy_name,
            remedy: remedy(finding),
            container_count: i64::try_from(finding.containers.len()).unwrap_or(i64::MAX),
            finding: bounded(finding),
        },
    }
}

/// The name of a finding's object: `<workload>-<type>-<hash>`, a DNS subdomain.
#[must_use]
pub fn name(policy: &EcrAuditPolicy, finding: &Finding) -> String {
    let mut hash = Sha256::new();
    let parts = [
        policy.metadata.name.as_deref().unwrap_or_default(),
        finding.finding_type.as_str(),
        &finding.workload.namespace,
        &finding.workload.kind,
        &finding.workload.name,
        &finding.reference,
        &finding.image.account,
        &finding.image.region,
        &finding.image.repository,
        finding.image.digest.as_deref().unwrap_or_default(),
        finding
            .principal
            .as_ref()
            .map_or("", |principal| principal.key.as_str()),
    ];
    for part in parts {
        // With the length, so that no two lists of parts read the same.
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let mut short = String::with_capacity(10);
    for byte in hash.finalize().iter().take(5) {
        // Writing to a String cannot fail.
        let _ = write!(short, "{byte:02x}");
    }
    format!(
        "{}-{}-{short}",
        dns(&finding.workload.name),
        finding.finding_type.as_str().to_ascii_lowercase()
    )
}

/// The beginning of a name, with what DNS allows.
fn dns(name: &str) -> String {
    let name: String = name
        .chars()
        .take(WORKLOAD)
        .map(|character| match character.to_ascii_lowercase() {
            allowed @ ('a'..='z' | '0'..='9') => allowed,
            _ => '-',
        })
        .collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "workload" } else { name }.to_owned()
}

/// The finding, with every text of others cut to what an object may hold.
fn bounded(finding: &Finding) -> Finding {
    let Finding {
        finding_type,
        impact,
        excepted,
        inferred,
        image,
        reference,
        workload,
        containers,
        cause,
        principal,
        count,
        first_time,
        last_time,
        event_ids,
    } = finding;
    let text = |text: &String| plain(text, TEXT);
    Finding {
        finding_type: *finding_type,
        impact: *impact,
        excepted: *excepted,
        inferred: *inferred,
        image: Image {
            account: text(&image.account),
            region: text(&image.region),
            repository: text(&image.repository),
            digest: image.digest.as_ref().map(text),
        },
        reference: text(reference),
        workload: Workload {
            namespace: text(&workload.namespace),
            kind: text(&workload.kind),
            name: text(&workload.name),
        },
        containers: containers
            .iter()
            .take(CONTAINERS)
            .map(|container| ContainerName {
                pod: text(&container.pod),
                container: text(&container.container),
            })
            .collect(),
        cause: cause.as_ref().map(|cause| Cause {
            event_name: text(&cause.event_name),
            digest: cause.digest.as_ref().map(text),
            rule: cause.rule.as_ref().map(|rule| CauseRule {
                priority: rule.priority,
                description: rule.description.as_ref().map(text),
            }),
        }),
        principal: principal.as_ref().map(|principal| PrincipalName {
            key: text(&principal.key),
            principal_type: principal.principal_type.as_ref().map(text),
            account_id: principal.account_id.as_ref().map(text),
            session: principal.session.as_ref().map(text),
        }),
        count: *count,
        first_time: *first_time,
        last_time: *last_time,
        event_ids: event_ids.iter().take(10).map(text).collect(),
    }
}
