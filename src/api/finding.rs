//! `EcrAuditFinding`, and the finding that it and `check`'s JSON share.

#![allow(
    clippy::duplicated_attributes,
    reason = "each printer column says its type"
)]

use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was found. The order is that of severity: the worst first.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum FindingType {
    /// A lifecycle rule expired the running image, or the index it was pulled by.
    ImageExpired,
    /// `BatchDeleteImage` or `DeleteRepository` removed it.
    ImageDeleted,
    /// Moved to archive storage: listed, but not pullable.
    ImageArchived,
    /// The digest is still there, but the tag in the pod's reference names nothing any more.
    TagRemoved,
    /// A push or re-tag of the running image by a principal not expected.
    UnexpectedPush,
    /// An allowed pull of the running image by a principal not expected.
    UnexpectedPull,
    /// The same as `UnexpectedPush`, refused for lack of permission.
    DeniedPush,
    /// The same as `UnexpectedPull`, refused for lack of permission.
    DeniedPull,
}

impl FindingType {
    /// Every type, the worst first.
    pub const ALL: [Self; 8] = [
        Self::ImageExpired,
        Self::ImageDeleted,
        Self::ImageArchived,
        Self::TagRemoved,
        Self::UnexpectedPush,
        Self::UnexpectedPull,
        Self::DeniedPush,
        Self::DeniedPull,
    ];

    /// The name as it is written in YAML, JSON and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ImageExpired => "ImageExpired",
            Self::ImageDeleted => "ImageDeleted",
            Self::ImageArchived => "ImageArchived",
            Self::TagRemoved => "TagRemoved",
            Self::UnexpectedPush => "UnexpectedPush",
            Self::UnexpectedPull => "UnexpectedPull",
            Self::DeniedPush => "DeniedPush",
            Self::DeniedPull => "DeniedPull",
        }
    }

    /// Whether something that runs is missing; else somebody pulled or pushed.
    #[must_use]
    pub const fn is_removal(self) -> bool {
        matches!(
            self,
            Self::ImageExpired | Self::ImageDeleted | Self::ImageArchived | Self::TagRemoved
        )
    }
}

/// What a new node would get for the pod's reference. The order is that of severity.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Impact {
    /// The reference resolves to nothing that can be pulled.
    Unpullable,
    /// The evidence does not tell.
    Unknown,
    /// The tag names another image, which would run instead.
    WouldChange,
}

impl Impact {
    /// The name as it is written in JSON and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unpullable => "Unpullable",
            Self::Unknown => "Unknown",
            Self::WouldChange => "WouldChange",
        }
    }
}

/// What is known of a digest in its repository.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum ImageState {
    /// Pushed, restored, or pushed again after it was gone.
    Present,
    /// Expired by a lifecycle rule.
    Expired,
    /// Deleted, alone or with its repository.
    Deleted,
    /// In archive storage.
    Archived,
    /// Never mentioned by the evidence.
    Unknown,
}

impl ImageState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Present,
        Self::Expired,
        Self::Deleted,
        Self::Archived,
        Self::Unknown,
    ];

    /// The name as it is written in JSON and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Present => "Present",
            Self::Expired => "Expired",
            Self::Deleted => "Deleted",
            Self::Archived => "Archived",
            Self::Unknown => "Unknown",
        }
    }
}

/// One finding: what is wrong with one image that one workload runs, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What was found.
    #[serde(rename = "type")]
    pub finding_type: FindingType,
    /// What a new node would get: `Unpullable`, `WouldChange` or `Unknown`; null for pulls and
    /// pushes.
    // The API server takes null for no value of an enum, so the schema has none.
    #[schemars(with = "Option<String>")]
    pub impact: Option<Impact>,
    /// An exception of the policy covers it: shown, but not counted.
    pub excepted: bool,
    /// An event named a tag whose digest was inferred from the pods that run.
    pub inferred: bool,
    /// The running image.
    pub image: Image,
    /// The image text in the pod's spec.
    pub reference: String,
    /// The controller that owns the pods.
    pub workload: Workload,
    /// The containers that run it, sorted.
    pub containers: Vec<ContainerName>,
    /// What removed it; null for pulls and pushes.
    pub cause: Option<Cause>,
    /// Who did it, by the latest event; null where a rule acted.
    pub principal: Option<PrincipalName>,
    /// Number of events, each once.
    pub count: i64,
    /// Time of the first event.
    pub first_time: Timestamp,
    /// Time of the last event.
    pub last_time: Timestamp,
    /// `eventID`s of the latest events, latest first, at most 10.
    #[serde(rename = "eventIDs")]
    pub event_ids: Vec<String>,
}

impl Finding {
    /// The order of reports: namespace, kind, name, type, repository, digest, reference, principal.
    pub fn report_order(&self, other: &Self) -> std::cmp::Ordering {
        fn key(finding: &Finding) -> impl Ord {
            (
                &finding.workload,
                finding.finding_type.as_str(),
                (
                    &finding.image.repository,
                    &finding.image.digest,
                    &finding.reference,
                ),
                finding.principal.as_ref().map(|principal| &principal.key),
                (&finding.image.account, &finding.image.region),
            )
        }
        key(self).cmp(&key(other))
    }
}

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Image {
    /// Account id of the registry.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// Repository name.
    pub repository: String,
    /// Manifest digest; null for a waiting container whose tag the evidence does not know.
    pub digest: Option<String>,
}

/// The controller that owns a pod, or the bare pod itself.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct Workload {
    /// Namespace.
    pub namespace: String,
    /// Kind, for example `Deployment`.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// One container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ContainerName {
    /// Pod name.
    pub pod: String,
    /// Container name, or the name of the image volume.
    pub container: String,
}

/// What removed an image or tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// `eventName`.
    pub event_name: String,
    /// The digest that the event removed: the image's own, its index's, its platform child's, or
    /// the one that a removed tag named last.
    pub digest: Option<String>,
    /// The lifecycle rule; null where a principal acted.
    pub rule: Option<CauseRule>,
}

/// A lifecycle rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CauseRule {
    /// `rulePriority`.
    pub priority: i64,
    /// The rule's description.
    pub description: Option<String>,
}

/// Who called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrincipalName {
    /// The stable key: what `expectedPullers.principals` is matched on.
    pub key: String,
    /// `userIdentity.type`.
    #[serde(rename = "type")]
    pub principal_type: Option<String>,
    /// `userIdentity.accountId`.
    pub account_id: Option<String>,
    /// Session name of an assumed role.
    pub session: Option<String>,
}

/// A finding, with the policy that made it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ecraudit.io",
    version = "v1alpha1",
    kind = "EcrAuditFinding",
    plural = "ecrauditfindings",
    shortname = "eaf",
    category = "ecr-audit",
    namespaced,
    doc = "Something wrong with an Amazon ECR image that a workload of this namespace runs. Written by the operator.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(
        name = "Impact",
        type_ = "string",
        json_path = ".spec.impact",
        description = "What a new node would get for the pod's image reference"
    ),
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.workload.kind"),
    printcolumn(name = "Workload", type_ = "string", json_path = ".spec.workload.name"),
    printcolumn(
        name = "Repository",
        type_ = "string",
        json_path = ".spec.image.repository"
    ),
    printcolumn(
        name = "Last",
        type_ = "date",
        json_path = ".spec.lastTime",
        description = "How long ago the last event was"
    ),
    printcolumn(
        name = "Count",
        type_ = "integer",
        json_path = ".spec.count",
        priority = 1
    ),
    printcolumn(
        name = "Excepted",
        type_ = "boolean",
        json_path = ".spec.excepted",
        priority = 1
    ),
    printcolumn(
        name = "Principal",
        type_ = "string",
        json_path = ".spec.principal.key",
        priority = 1
    ),
    printcolumn(
        name = "Digest",
        type_ = "string",
        json_path = ".spec.image.digest",
        priority = 1
    ),
    printcolumn(
        name = "Policy",
        type_ = "string",
        json_path = ".spec.policy",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct EcrAuditFindingSpec {
    /// Name of the `EcrAuditPolicy`.
    pub policy: String,
    /// What to do about it, in one sentence.
    pub remedy: String,
    /// How many containers run it; `containers` lists the first 50.
    pub container_count: i64,
    /// The finding as `ecr-audit check` prints it.
    #[serde(flatten)]
    pub finding: Finding,
}
