//! The conditions' types and reasons, each with its meaning: what people alert on and read in
//! `kubectl describe`. Nothing else in this crate spells them.

use std::fmt;

/// `type` of a condition of an `EcrAuditPolicy`. All are positive: `True` is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The spec is valid, the sources are read, the inventory is synced.
    Ready,
    /// Every source was read without a gap since `status.coveredSince`.
    EvidenceComplete,
    /// No running image has been removed since `status.coveredSince`.
    ImagesRetained,
    /// No unexpected pull of a running image in the lookback.
    PullersExpected,
    /// No unexpected push of a running image in the lookback.
    PushersExpected,
}

impl ConditionType {
    /// Every type, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Ready,
        Self::EvidenceComplete,
        Self::ImagesRetained,
        Self::PullersExpected,
        Self::PushersExpected,
    ];

    /// As it is written in YAML and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::EvidenceComplete => "EvidenceComplete",
            Self::ImagesRetained => "ImagesRetained",
            Self::PullersExpected => "PullersExpected",
            Self::PushersExpected => "PushersExpected",
        }
    }
}

/// `status` of a condition: what is known, in three values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// The evidence does not tell.
    Unknown,
}

impl Truth {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::True, Self::False, Self::Unknown];

    /// As it is written in YAML and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

macro_rules! reasons {
    ($($name:ident: $meaning:literal,)*) => {
        /// `reason` of a condition: a bounded vocabulary.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $meaning] $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As it is written in YAML.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

reasons! {
    Judged: "The policy is valid, its sources are read and the inventory is synced.",
    Complete: "Every source was read without a gap since `status.coveredSince`.",
    Retained: "No running image has been removed since `status.coveredSince`.",
    AsExpected: "Everybody who pulled or pushed within the lookback is expected.",
    InvalidSpec: "The spec cannot be judged; the message names the field.",
    NotVisited: "The operator has not judged the policy yet.",
    InventoryNotSynced: "The pods that run are not known yet.",
    Forbidden: "The Kubernetes API refuses the operator a verb on a resource.",
    WriteFailed: "The Kubernetes API did not take what the operator wrote.",
    LedgerFailing: "The ledger cannot be read or written.",
    SourceNotRead: "A source has not been read yet.",
    NotConfigured: "The policy does not say who is expected.",
    Backfilling: "The history is still being read.",
    Stale: "A source was read last too long ago.",
    RegistryNotCovered: "No source reads the account and region of an image that runs.",
    Undecodable: "Records of ECR did not decode; the ledger keeps them.",
    Omitted: "CloudTrail left out a part of records of ECR, for their size.",
    PullsNotSeen: "Pods started while pulls were read, and the evidence has no pull at all.",
    ImageExpired: "A lifecycle rule expired a running image.",
    ImageDeleted: "A principal deleted a running image.",
    ImageArchived: "A running image was moved to archive storage.",
    TagRemoved: "The tag in a pod's image reference names nothing any more.",
    UnexpectedPull: "A principal that is not expected pulled a running image.",
    UnexpectedPush: "A principal that is not expected pushed or re-tagged a running image.",
    DeniedPull: "A principal that is not expected was refused to pull a running image.",
    DeniedPush: "A principal that is not expected was refused to push a running image.",
    Throttled: "AWS answered that the account's quota is used up.",
    ServerError: "AWS answered with a 5xx status.",
    Connection: "AWS could not be reached.",
    Truncated: "AWS's answer ended before it was whole.",
    Malformed: "AWS's answer was not what its API promises.",
    ExpiredToken: "The AWS credentials have expired.",
    AccessDenied: "The AWS credentials may not read the source.",
    AssumeRoleFailed: "The source's role could not be assumed.",
    NoCredentials: "No AWS credentials were found.",
    NoRegion: "No AWS region is known.",
    WrongAccount: "The AWS credentials belong to another account than the source's.",
    InvalidNextToken: "AWS no longer knew the paging token.",
    ClockSkewed: "The node's clock is too far from AWS's: requests are signed with the wrong time.",
    WrongRegion: "The trail's bucket is in another region than the source says.",
    Refused: "AWS refused the request.",
    BucketMissing: "The trail's bucket does not exist.",
    QueueMissing: "The source's queue does not exist.",
    KeyDenied: "The KMS key of the trail's files may not be used.",
    FileMissing: "A file of the trail that was delivered is not in the bucket.",
    FileChanged: "A file of the trail is not what was delivered.",
    FileUnreadable: "A file of the trail is damaged, or is none.",
    DigestMissing: "A digest file of the trail is not in the bucket.",
    MessageUnreadable: "A message of the queue is none that S3, SNS, CloudTrail or EventBridge sends.",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<crate::source::Reason> for Reason {
    fn from(reason: crate::source::Reason) -> Self {
        use crate::source::Reason as Source;
        match reason {
            Source::Throttled => Self::Throttled,
            Source::ServerError => Self::ServerError,
            Source::Connection => Self::Connection,
            Source::Truncated => Self::Truncated,
            Source::Malformed => Self::Malformed,
            Source::ExpiredToken => Self::ExpiredToken,
            Source::AccessDenied => Self::AccessDenied,
            Source::AssumeRoleFailed => Self::AssumeRoleFailed,
            Source::NoCredentials => Self::NoCredentials,
            Source::NoRegion => Self::NoRegion,
            Source::WrongAccount => Self::WrongAccount,
            Source::InvalidNextToken => Self::InvalidNextToken,
            Source::ClockSkewed => Self::ClockSkewed,
            Source::WrongRegion => Self::WrongRegion,
            Source::Refused => Self::Refused,
            Source::BucketMissing => Self::BucketMissing,
            Source::QueueMissing => Self::QueueMissing,
            Source::KeyDenied => Self::KeyDenied,
            Source::FileMissing => Self::FileMissing,
            Source::FileChanged => Self::FileChanged,
            Source::FileUnreadable => Self::FileUnreadable,
            Source::DigestMissing => Self::DigestMissing,
            Source::MessageUnreadable => Self::MessageUnreadable,
            Source::Ledger => Self::LedgerFailing,
        }
    }
}

impl From<crate::api::FindingType> for Reason {
    fn from(finding: crate::api::FindingType) -> Self {
        use crate::api::FindingType;
        match finding {
            FindingType::ImageExpired => Self::ImageExpired,
            FindingType::ImageDeleted => Self::ImageDeleted,
            FindingType::ImageArchived => Self::ImageArchived,
            FindingType::TagRemoved => Self::TagRemoved,
            FindingType::UnexpectedPull => Self::UnexpectedPull,
            FindingType::UnexpectedPush => Self::UnexpectedPush,
            FindingType::DeniedPull => Self::DeniedPull,
            FindingType::DeniedPush => Self::DeniedPush,
        }
    }
}
