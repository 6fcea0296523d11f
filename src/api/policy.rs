//! `EcrAuditPolicy`: what to audit, and where the evidence comes from.

#![allow(
    unreachable_pub,
    reason = "`KubeSchema` copies each struct into a function, where nothing is reachable"
)]
#![allow(
    clippy::duplicated_attributes,
    reason = "each printer column says its type"
)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

// The rules in words that people read come as CEL; lengths bound what CEL may cost. What is
// said here is said again by `audit::Rules::compile`, for policies that no API server saw.

/// What to audit, and where the evidence comes from. `spec: {}` is a working policy.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "ecraudit.io",
    version = "v1alpha1",
    kind = "EcrAuditPolicy",
    plural = "ecrauditpolicies",
    shortname = "eap",
    category = "ecr-audit",
    status = "EcrAuditPolicyStatus",
    derive = "PartialEq",
    doc = "Audits the Amazon ECR images that run in this cluster: which were removed from their registry, and who pulls and pushes them.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the policy is valid and judged"
    ),
    printcolumn(
        name = "Images",
        type_ = "integer",
        json_path = ".status.images.running",
        description = "Distinct ECR images that run"
    ),
    printcolumn(
        name = "Gone",
        type_ = "integer",
        json_path = ".status.images.gone",
        description = "Running images that were expired, deleted or archived"
    ),
    printcolumn(
        name = "Unexpected Pulls",
        type_ = "integer",
        json_path = ".status.findings.unexpectedPulls",
        description = "Findings of pulls by principals that are not expected"
    ),
    printcolumn(
        name = "Covered Since",
        type_ = "string",
        json_path = ".status.coveredSince",
        description = "Since when the evidence is complete"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct EcrAuditPolicySpec {
    /// Where CloudTrail records are read; absent: the Event history of the operator's own account.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
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
    #[schemars(range(min = 1, max = 3650))]
    #[serde(default = "default_lookback_days")]
    pub lookback_days: i64,
    /// Findings that are known and shall not be counted for a while.
    #[schemars(length(max = 100))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exceptions: Option<Vec<Exception>>,
}

fn default_lookback_days() -> i64 {
    30
}

impl Default for EcrAuditPolicySpec {
    /// `spec: {}` as the API server completes it.
    fn default() -> Self {
        Self {
            sources: None,
            workloads: None,
            images: None,
            expected_pullers: None,
            expected_pushers: None,
            lookback_days: default_lookback_days(),
            exceptions: None,
        }
    }
}

/// One place that records come from: exactly one of `lookupEvents`, `sqs` and `s3`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new(
    "[has(self.lookupEvents), has(self.sqs), has(self.s3)].filter(given, given).size() == 1"
).message("a source is exactly one of lookupEvents, sqs and s3"))]
#[x_kube(validation = Rule::new(
    "!has(self.lookupEvents) || has(self.accounts) == (has(self.assumeRole) && has(self.assumeRole.roleName))"
).message("accounts and assumeRole.roleName belong together: the role of this name is assumed in each account"))]
#[x_kube(validation = Rule::new(
    "has(self.lookupEvents) || !has(self.assumeRole) || has(self.assumeRole.roleArn)"
).message("sqs and s3 assume one role, by assumeRole.roleArn"))]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Name, unique in the policy.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
        .message("a source's name has lower-case letters, digits and '-' only, and neither begins nor ends with '-'"))]
    pub name: String,
    /// Accounts to read: of `lookupEvents` one source for each, through `assumeRole.roleName`; of
    /// `sqs` and `s3` those whose files are read, absent: all.
    #[schemars(length(min = 1, max = 1000), inner(length(max = 64)))]
    #[x_kube(validation = Rule::new("self.all(id, id.matches('^[0-9]{12}$'))")
        .message("an AWS account id has 12 digits; quote it in YAML"))]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.roleArn) != has(self.roleName)")
    .message("exactly one of roleArn and roleName must be given"))]
#[serde(rename_all = "camelCase")]
pub struct AssumeRole {
    /// ARN of the role, for a source without `accounts`.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-~]+$')")
        .message("roleArn is a role's ARN, for example arn:aws:iam::111122223333:role/ecr-audit"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// Name of the role (with its path) in each account.
    #[schemars(length(max = 576))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_+=,.@-][A-Za-z0-9_+=,.@/-]*$')")
        .message("roleName is a role's name, with its path but without account and ARN, for example audit/ecr-audit"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_name: Option<String>,
    /// External id that the role's trust policy asks for.
    #[schemars(length(min = 2, max = 1224))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// Session name; default `ecr-audit-operator`.
    #[schemars(length(min = 2, max = 64), regex(pattern = r"^[A-Za-z0-9_+=,.@-]+$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_name: Option<String>,
    /// Session tags.
    #[schemars(extend("maxProperties" = 50))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
}

/// How the Event history is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LookupEvents {
    /// Regions to read; absent: those of the ECR images that run.
    #[schemars(length(min = 1, max = 50), inner(length(max = 64)))]
    #[x_kube(validation = Rule::new("self.all(r, r.matches('^[a-z]+(-[a-z]+)+-[0-9]+$'))")
        .message("a region is written as us-east-1 is"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<Vec<String>>,
    /// How often new events are read, in seconds.
    #[schemars(range(min = 10, max = 3600))]
    #[serde(default = "default_poll")]
    pub poll_period_seconds: i64,
    /// How often the last 24 hours are read again for late events, in seconds.
    #[schemars(range(min = 30, max = 86400))]
    #[serde(default = "default_reread")]
    pub reread_period_seconds: i64,
    /// How far back the history is read at first, in days.
    #[schemars(range(min = 1, max = 90))]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sqs {
    /// URL of the queue.
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[!-~]+$')")
        .message("queueUrl is the queue's URL, for example https://sqs.us-east-1.amazonaws.com/111122223333/trail"))]
    pub queue_url: String,
    /// Region of the queue.
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]+(-[a-z]+)+-[0-9]+$')")
        .message("a region is written as us-east-1 is"))]
    pub region: String,
    /// Buckets whose objects are read; objects of no other bucket are.
    #[schemars(length(min = 1, max = 100), inner(length(max = 128)))]
    #[x_kube(validation = Rule::new("self.all(b, b.matches('^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$'))")
        .message("a bucket's name has 3 to 63 lower-case letters, digits, '.' and '-'"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buckets: Option<Vec<String>>,
}

/// A trail's bucket to list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3 {
    /// Bucket name.
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$')")
        .message("a bucket's name has 3 to 63 lower-case letters, digits, '.' and '-'"))]
    pub bucket: String,
    /// What precedes `AWSLogs/` in the keys.
    #[schemars(length(max = 512))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Region of the bucket.
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]+(-[a-z]+)+-[0-9]+$')")
        .message("a region is written as us-east-1 is"))]
    pub region: String,
    /// How often new files are looked for, in seconds.
    #[schemars(range(min = 10, max = 3600))]
    #[serde(default = "default_poll")]
    pub poll_period_seconds: i64,
    /// How far back the files are read at first, in days.
    #[schemars(range(min = 1, max = 3650))]
    #[serde(default = "default_backfill")]
    pub backfill_days: i64,
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Images {
    /// Account ids; absent: every ECR registry that pods name.
    #[schemars(length(min = 1, max = 1000), inner(length(max = 64)))]
    #[x_kube(validation = Rule::new("self.all(id, id.matches('^[0-9]{12}$'))")
        .message("an AWS account id has 12 digits; quote it in YAML"))]
    #[serde(
        default,
        rename = "registryIDs",
        skip_serializing_if = "Option::is_none"
    )]
    pub registry_ids: Option<Vec<String>>,
}

/// Who is expected to pull.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExpectedPullers {
    /// The nodes of this cluster.
    #[serde(default = "default_true")]
    pub cluster_nodes: bool,
    /// Principals' ARNs, with the IAM wildcards `*` and `?`.
    #[schemars(length(max = 500), inner(length(min = 1, max = 1024)))]
    #[x_kube(validation = Rule::new("self.all(p, p.matches('^(arn:([^: ]*:){4}[^ ]+|arn:[^ ]*[*][^ ]*|[*][^ ]*|[A-Za-z]*/[^ ]+)$'))")
        .message("a principal is an ARN in which * and ? are wildcards, for example arn:aws:iam::111122223333:role/ci-*"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principals: Option<Vec<String>>,
    /// Account ids: every principal of these.
    #[schemars(length(max = 1000), inner(length(max = 64)))]
    #[x_kube(validation = Rule::new("self.all(id, id.matches('^[0-9]{12}$'))")
        .message("an AWS account id has 12 digits; quote it in YAML"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounts: Option<Vec<String>>,
    /// AWS services, for example `inspector2.amazonaws.com`.
    #[schemars(length(max = 100), inner(length(max = 128)))]
    #[x_kube(validation = Rule::new("self.all(s, s.matches('^[a-z0-9-]+([.][a-z0-9-]+)+$'))")
        .message("a service is a service principal, for example inspector2.amazonaws.com"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<String>>,
}

fn default_true() -> bool {
    true
}

/// Who is expected to push.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExpectedPushers {
    /// Principals' ARNs, with the IAM wildcards `*` and `?`.
    #[schemars(length(max = 500), inner(length(min = 1, max = 1024)))]
    #[x_kube(validation = Rule::new("self.all(p, p.matches('^(arn:([^: ]*:){4}[^ ]+|arn:[^ ]*[*][^ ]*|[*][^ ]*|[A-Za-z]*/[^ ]+)$'))")
        .message("a principal is an ARN in which * and ? are wildcards, for example arn:aws:iam::111122223333:role/ci-*"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principals: Option<Vec<String>>,
    /// Account ids: every principal of these.
    #[schemars(length(max = 1000), inner(length(max = 64)))]
    #[x_kube(validation = Rule::new("self.all(id, id.matches('^[0-9]{12}$'))")
        .message("an AWS account id has 12 digits; quote it in YAML"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounts: Option<Vec<String>>,
    /// AWS services, for example `inspector2.amazonaws.com`.
    #[schemars(length(max = 100), inner(length(max = 128)))]
    #[x_kube(validation = Rule::new("self.all(s, s.matches('^[a-z0-9-]+([.][a-z0-9-]+)+$'))")
        .message("a service is a service principal, for example inspector2.amazonaws.com"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<String>>,
}

/// Findings that are known: shown, not counted, in no alert, until a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exception {
    /// Who answers for it.
    #[schemars(length(min = 1, max = 253))]
    pub owner: String,
    /// Why.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// The last day (UTC) on which it holds, `YYYY-MM-DD`.
    #[schemars(extend("format" = "date"))]
    pub until: String,
    /// Finding types; absent: all.
    #[schemars(length(min = 1, max = 8))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<super::FindingType>>,
    /// Namespaces, with wildcards; absent: all.
    #[schemars(length(min = 1, max = 20), inner(length(max = 128)))]
    #[x_kube(validation = Rule::new("self.all(n, n.matches('^[a-z0-9*?-]+$'))")
        .message("a namespace has lower-case letters, digits and '-'; * and ? are wildcards"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Vec<String>>,
    /// Repositories, with wildcards; absent: all.
    #[schemars(length(min = 1, max = 20), inner(length(max = 256)))]
    #[x_kube(validation = Rule::new("self.all(r, r.matches('^[a-z0-9*?._/-]+$'))")
        .message("a repository's name is without registry and tag, for example shop/web; * and ? are wildcards"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repositories: Option<Vec<String>>,
    /// Principals' ARNs, or names of AWS services, with wildcards; absent: all.
    #[schemars(length(min = 1, max = 20), inner(length(min = 1, max = 512)))]
    #[x_kube(validation = Rule::new("self.all(p, p.matches('^(arn:([^: ]*:){4}[^ ]+|arn:[^ ]*[*][^ ]*|[*][^ ]*|[A-Za-z]*/[^ ]+|[a-z0-9*?-]+[.][^ ]+)$'))")
        .message("a principal is an ARN in which * and ? are wildcards, for example arn:aws:iam::111122223333:role/ci-*, or an AWS service"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principals: Option<Vec<String>>,
}

/// What the operator saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EcrAuditPolicyStatus {
    /// Generation of the spec that was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `EvidenceComplete`, `ImagesRetained`, `PullersExpected`, `PushersExpected`.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Since when the evidence is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covered_since: Option<Timestamp>,
    /// Running images by state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<ImageTotals>,
    /// Findings by type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<FindingTotals>,
    /// The sources: totals, and each unhealthy one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surplus: Option<i64>,
    /// Unexpected pulls, not excepted.
    pub unexpected_pulls: i64,
    /// Not excepted, by type; a type without any is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// What of the history is still to be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<BackfillTotals>,
    /// Those with a fault, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unhealthy: Vec<SourceStatus>,
}

/// What of the history is still to be read, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackfillTotals {
    /// Pairs of account and region whose history is still being read.
    pub places: i64,
    /// Requests of the Event history.
    pub requests: i64,
    /// Files of trails.
    pub files: i64,
    /// Bytes of these files.
    pub bytes: i64,
    /// How many seconds it will take.
    pub seconds: i64,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covered_since: Option<Timestamp>,
    /// Until when it has been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covered_until: Option<Timestamp>,
    /// When a read succeeded last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_time: Option<Timestamp>,
    /// Why the last read failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}
