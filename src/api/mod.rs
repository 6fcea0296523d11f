//! The custom resources that people write and read: [`EcrAuditPolicy`] and [`EcrAuditFinding`],
//! and the JSON shape of a [`Finding`], which `ecr-audit check` prints and the object holds.

mod crds;
mod finding;
mod policy;

pub use crds::crds_yaml;
pub use finding::{
    Cause, CauseRule, ContainerName, EcrAuditFinding, EcrAuditFindingSpec, Finding, FindingType,
    Image, ImageState, Impact, PrincipalName, Workload,
};
pub use policy::{
    AssumeRole, BackfillTotals, EcrAuditPolicy, EcrAuditPolicySpec, EcrAuditPolicyStatus,
    Exception, ExpectedPullers, ExpectedPushers, FindingTotals, FindingTypeTotal, ImageTotals,
    Images, LookupEvents, S3, Source, SourceStatus, SourceTotals, Sqs, Workloads,
};

/// API group of the custom resources.
pub const GROUP: &str = "ecraudit.io";
/// API version of the custom resources, with the group.
pub const API_VERSION: &str = "ecraudit.io/v1alpha1";
