//! The facts: what one record of ECR says, in types.

use std::{fmt, str::FromStr, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    image::{Digest, ImageId, Repository},
    manifest::Manifest,
    principal::Caller,
};

/// What one record says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// `eventID`: unique to the record.
    pub id: Arc<str>,
    /// `sharedEventID`: the same on every account's copy of one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_id: Option<Arc<str>>,
    /// The `eventID` of the record that this one corrects (`addendum.reason` `UPDATED_DATA`);
    /// its own id when it came again under that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Arc<str>>,
    /// `eventTime`, in whole seconds.
    pub time: Timestamp,
    /// `eventName`.
    pub name: EventName,
    /// Account of the registry that owns the image.
    pub account: Arc<str>,
    /// `awsRegion`, or the region of the resource's ARN.
    pub region: Arc<str>,
    /// The repository, where the record names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// Who called; of events that nothing is judged by, nobody.
    pub caller: Arc<Caller>,
    /// Whether the call was allowed.
    pub outcome: Outcome,
    /// CloudTrail left out a part of the record for its size.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub omitted: bool,
    /// What the call did, or was refused to do.
    pub action: Action,
}

/// `eventName` of ECR's records, as far as AWS documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are AWS's own")]
pub enum EventName {
    PutImage,
    BatchGetImage,
    PolicyExecutionEvent,
    DryRunEvent,
    BatchDeleteImage,
    DeleteRepository,
    UpdateImageStorageClass,
    PutLifecyclePolicy,
    DeleteLifecyclePolicy,
    SetRepositoryPolicy,
    DeleteRepositoryPolicy,
    PutImageTagMutability,
    CreateRepository,
    InitiateLayerUpload,
    UploadLayerPart,
    CompleteLayerUpload,
    GetDownloadUrlForLayer,
    GetAuthorizationToken,
    /// Any other name: counted, and nothing else.
    Other,
}

impl EventName {
    /// Every known name, without [`EventName::Other`].
    pub const KNOWN: [Self; 18] = [
        Self::PutImage,
        Self::BatchGetImage,
        Self::PolicyExecutionEvent,
        Self::DryRunEvent,
        Self::BatchDeleteImage,
        Self::DeleteRepository,
        Self::UpdateImageStorageClass,
        Self::PutLifecyclePolicy,
        Self::DeleteLifecyclePolicy,
        Self::SetRepositoryPolicy,
        Self::DeleteRepositoryPolicy,
        Self::PutImageTagMutability,
        Self::CreateRepository,
        Self::InitiateLayerUpload,
        Self::UploadLayerPart,
        Self::CompleteLayerUpload,
        Self::GetDownloadUrlForLayer,
        Self::GetAuthorizationToken,
    ];

    /// The names whose records change what is known of an image, or say who pulled it:
    /// what a source has to read. Removals come first, pulls last.
    pub const JUDGED: [Self; 6] = [
        Self::PolicyExecutionEvent,
        Self::BatchDeleteImage,
        Self::DeleteRepository,
        Self::UpdateImageStorageClass,
        Self::PutImage,
        Self::BatchGetImage,
    ];

    /// AWS's spelling; `other` for unknown names.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PutImage => "PutImage",
            Self::BatchGetImage => "BatchGetImage",
            Self::PolicyExecutionEvent => "PolicyExecutionEvent",
            Self::DryRunEvent => "DryRunEvent",
            Self::BatchDeleteImage => "BatchDeleteImage",
            Self::DeleteRepository => "DeleteRepository",
            Self::UpdateImageStorageClass => "UpdateImageStorageClass",
            Self::PutLifecyclePolicy => "PutLifecyclePolicy",
            Self::DeleteLifecyclePolicy => "DeleteLifecyclePolicy",
            Self::SetRepositoryPolicy => "SetRepositoryPolicy",
            Self::DeleteRepositoryPolicy => "DeleteRepositoryPolicy",
            Self::PutImageTagMutability => "PutImageTagMutability",
            Self::CreateRepository => "CreateRepository",
            Self::InitiateLayerUpload => "InitiateLayerUpload",
            Self::UploadLayerPart => "UploadLayerPart",
            Self::CompleteLayerUpload => "CompleteLayerUpload",
            Self::GetDownloadUrlForLayer => "GetDownloadUrlForLayer",
            Self::GetAuthorizationToken => "GetAuthorizationToken",
            Self::Other => "other",
        }
    }
}

impl FromStr for EventName {
    type Err = std::convert::Infallible;
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::KNOWN.into_iter().find(|known| known.as_str() == name);
        Ok(known.unwrap_or(Self::Other))
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the call took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// No `errorCode`.
    Allowed,
    /// Refused for lack of permission.
    Denied,
    /// Any other `errorCode`: nothing changed, and nobody was kept out.
    Failed,
}

/// What an event did. A failed call did nothing; of a denied one only the pull or push that was
/// refused is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Nothing that the audit follows: the event is counted.
    None,
    /// A push, a tag moved, a promotion.
    Push {
        /// Digest and tag of the pushed image, each where the record has it.
        image: ImageId,
        /// What the manifest names, where the record has it.
        manifest: Option<Manifest>,
        /// Whether the digest is the hash of the manifest's text; none when one of them is missing.
        digest_matches: Option<bool>,
    },
    /// A manifest read, by digest, tag or both. It proves no presence: missing images come back
    /// in a successful answer.
    Pull(Vec<ImageId>),
    /// A lifecycle run, or the part of it that this record holds.
    LifecycleRun(Vec<LifecycleAction>),
    /// Images or tags removed. Of what the answer lists under `failures` only images that it shows
    /// to be there are among them, as refused.
    Delete(Vec<DeletedImage>),
    /// The repository, with every image and tag in it.
    DeleteRepository,
    /// An image moved to another storage class.
    SetStorageClass {
        /// The image, with its digest where request or answer has it.
        image: ImageId,
        /// Where it was moved to.
        class: StorageClass,
    },
    /// The image is there, says a source other than a push: replication or a pull-through cache.
    Appeared(ImageId),
}

/// One image that a lifecycle rule acted on, or was kept from acting on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LifecycleAction {
    /// The image's digest.
    pub digest: Digest,
    /// The tags that it had, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Arc<str>>,
    /// What the rule does.
    pub effect: Effect,
    /// The rule.
    pub rule: LifecycleRule,
}

/// What a lifecycle rule does with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// `expire`: the image is deleted.
    Expire,
    /// `transition`: the image is moved to archive storage.
    Archive,
    /// Nothing: an index that is there lists the image, so it is there, too.
    Kept,
}

/// A lifecycle rule as findings name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LifecycleRule {
    /// `rulePriority`.
    pub priority: i64,
    /// The rule's description, where the record has one.
    pub description: Option<Arc<str>>,
}

/// One identifier that a `BatchDeleteImage` took away, or was refused to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedImage {
    /// As the request names it.
    pub requested: ImageId,
    /// For a request by tag: the digest that the tag named, from the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<Digest>,
    /// For a request by digest: the tags that went with it, from the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Arc<str>>,
    /// Nothing was taken away: an index that is there lists this digest, so it is there, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
}

/// `targetStorageClass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorageClass {
    /// `STANDARD`: the image can be pulled.
    Standard,
    /// `ARCHIVE`: the image is listed, but not pullable.
    Archive,
}

/// One pull, as the judgement needs it: the bulk of what there is, so shared and small.
#[derive(Clone, Debug, PartialEq)]
pub struct Pull {
    /// `eventID`.
    pub id: Arc<str>,
    /// `eventTime`, in whole seconds.
    pub time: Timestamp,
    /// What the call named.
    pub images: Arc<[ImageId]>,
    /// Who called.
    pub caller: Arc<Caller>,
    /// Refused for lack of permission.
    pub denied: bool,
}
