//! `EcrAuditPolicy`: what to audit, and where the evidence comes from.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to audit, and where the evidence comes from. `spec: {}` is a working policy.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ecraudit.io",
    version = "v1alpha1",
    kind = "EcrAuditPolicy",
    plural = "ecrauditpolicies",
    shortname = "eap",
    category = "ecr-audit",
    status = "EcrAuditPolicyStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct EcrAuditPolicySpec {
    /// Where CloudTrail records are read; absent: the Event history of the operator's own account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<Source>>,
    /// Which pods are audited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads: Option<Workloads>,
    /// Which registries are audited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Images>,
    /// Who is expected to pull; absent: pulls are not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_pullers: Option<ExpectedPullers>,
    /// Who is expected to push; absent: pushes are not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_pushers: Option<ExpectedPushers>,
    /// How many days a pull or push stays a finding.
    #[serde(default = "default_lookback_days")]
    pub lookback_days: i64,
    /// Findings that are known and shall not be counted for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exceptions: Option<Vec<Exception>>,
}

fn default_lookback_days() -> i64 {
    30
}

/// One place that records come from: exactly one of `lookupEvents`, `sqs` and `s3`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Name, unique in the policy.
    pub name: String,
    /// Accounts to read, one source for each, through `assumeRole.roleName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounts: Option<Vec<String>>,
    /// The role to assume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assume_role: Option<AssumeRole>,
    /// CloudTrail's Event history: no trail needed, 90 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookup_events: Option<LookupEvents>,
    /// A queue that is told of a trail's files, or gets the events themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqs: Option<Sqs>,
    /// A trail's bucket, read by listing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
}

/// The role that a source assumes: `roleArn`, or `roleName` in each of the source's accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssumeRole {
    /// ARN of the role, for a source without `accounts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// Name of the role (with its path) in each account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_name: Option<String>,
    /// External id that the role's trust policy asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// Session name; default `ecr-audit-operator`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_name: Option<String>,
    /// Session tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
}

/// How the Event history is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LookupEvents {
    /// Regions to read; absent: those of the ECR images that run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<Vec<String>>,
    /// How often new events are read, in seconds.
    #[serde(default = "default_poll")]
    pub poll_period_seconds: i64,
    /// How often the last 24 hours are read again for late events, in seconds.
    #[serde(default = "default_reread")]
    pub reread_period_seconds: i64,
    /// How far back the history is read at first, in days.
    #[serde(default = "default_backfill")]
    pub backfill_days: i64,
}

fn default_poll() -> i64 {
    60
}
fn default_reread() -> i64 {
    900
}
fn default_backfill() -> i64 {
    90
}

impl Default for LookupEvents {
    fn default() -> Self {
        Self {
            regions: None,
            poll_period_seconds: default_poll(),
            reread_period_seconds: default_reread(),
            backfill_days: default_backfill(),
        }
    }
}

/// A queue to read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sqs {
    /// URL of the queue.
    pub queue_url: String,
    /// Region of the queue.
    pub region: String,
    /// Buckets whose objects are read; objects of no other bucket are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buckets: Option<Vec<String>>,
}

/// A trail's bucket to list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3 {
    /// Bucket name.
    pub bucket: String,
    /// What precedes `AWSLogs/` in the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Region of the bucket.
    pub region: String,
}

/// Which pods are audited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workloads {
    /// Namespaces by their labels; absent or empty: every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
}

/// Which registries are audited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Images {
    /// Account ids; absent: every ECR registry that pods name.
    #[serde(
        default,
        rename = "registryIDs",
        skip_serializing_if = "Option::is_none"
    )]
    pub registry_ids: Option<Vec<String>>,
}

/// Who is expected to pull.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExpectedPullers {
    /// The nodes of this cluster.
    #[serde(default = "default_true")]
    pub cluster_nodes: bool,
    /// Principals' ARNs, with the IAM wildcards `*` and `?`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principals: Option<Vec<String>>,
    /// Account ids: every principal of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounts: Option<Vec<String>>,
    /// AWS services, for example `inspector2.amazonaws.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<String>>,
}

fn default_true() -> bool {
    true
}

/// Who is expected to push.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExpectedPushers {
    /// Principals' ARNs, with the IAM wildcards `*` and `?`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principals: Option<Vec<String>>,
    /// Account ids: every principal of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounts: Option<Vec<String>>,
    /// AWS services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<String>>,
}

/// Findings that are known: shown, not counted, in no alert, until a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exception {
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// The last day (UTC) on which it holds, `YYYY-MM-DD`.
    pub until: String,
    /// Finding types; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<super::FindingType>>,
    /// Namespaces, with wildcards; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Vec<String>>,
    /// Repositories, with wildcards; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repositories: Option<Vec<String>>,
    /// Principals' ARNs, with wildcards; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principals: Option<Vec<String>>,
}

/// What the operator saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EcrAuditPolicyStatus {
    /// Generation of the spec that was judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `EvidenceComplete`, `ImagesRetained`, `PullersExpected`, `PushersExpected`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Since when the evidence is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered_since: Option<Timestamp>,
    /// Running images by state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<ImageTotals>,
    /// Findings by type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub findings: Option<FindingTotals>,
    /// The sources: totals, and each unhealthy one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<SourceTotals>,
}

/// Running images by state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "each is the number of distinct images in that state"
)]
pub struct ImageTotals {
    pub running: i64,
    pub present: i64,
    /// Expired, deleted or archived.
    pub gone: i64,
    pub expired: i64,
    pub deleted: i64,
    pub archived: i64,
    pub unknown: i64,
}

/// Findings, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FindingTotals {
    /// Not excepted.
    pub total: i64,
    /// Covered by an exception.
    pub excepted: i64,
    /// Findings beyond the cap, which have no `EcrAuditFinding`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surplus: Option<i64>,
    /// Unexpected pulls, not excepted.
    pub unexpected_pulls: i64,
    /// Not excepted, by type.
    pub by_type: Vec<FindingTypeTotal>,
}

/// Findings of one type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FindingTypeTotal {
    /// The type.
    #[serde(rename = "type")]
    pub finding_type: super::FindingType,
    /// How many.
    pub count: i64,
}

/// Sources, counted, and the unhealthy ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceTotals {
    /// Pairs of account and region that are read.
    pub total: i64,
    /// Those without a fault.
    pub healthy: i64,
    /// The regions that are read, where the policy names none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// Those with a fault, at most 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unhealthy: Vec<SourceStatus>,
}

/// One account and region of a source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceStatus {
    /// The source's name in the policy.
    pub name: String,
    /// Account id.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// Since when it has been read without a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered_since: Option<Timestamp>,
    /// Until when it has been read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered_until: Option<Timestamp>,
    /// When a read succeeded last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success_time: Option<Timestamp>,
    /// Why the last read failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}
