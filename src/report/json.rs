//! `ecr-audit check --output json`: the report that scripts read. Every field is always there, null
//! where it does not apply, and everything is sorted, so that two reports can be compared as text.

use jiff::Timestamp;
use serde::Serialize;

use crate::api::{API_VERSION, Finding, ImageState};

/// The whole report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// Always [`API_VERSION`].
    pub api_version: &'static str,
    /// Always `CheckReport`.
    pub kind: &'static str,
    /// Name of the policy; null without one.
    pub policy: Option<String>,
    /// The evaluation time, in whole seconds.
    pub time: Timestamp,
    /// What was read.
    pub input: Input,
    /// What the ECR records span, sorted by account and region.
    pub evidence: Vec<EvidenceSpan>,
    /// The images that run, sorted by account, region, repository and digest.
    pub images: Vec<RunningImage>,
    /// The findings, sorted by namespace, kind, name, type, repository, digest, reference and
    /// principal.
    pub findings: Vec<Finding>,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// Files, standard input among them.
    pub files: u64,
    /// Records of every service.
    pub records: u64,
    /// Records of ECR.
    pub ecr_records: u64,
    /// ECR records seen again; the second copy of a `sharedEventID` is one.
    pub duplicates: u64,
    /// ECR records that lack what they cannot be judged without.
    pub undecodable: u64,
    /// Documents that are no CloudTrail records, but known: digest files, ECR's own events.
    pub skipped: u64,
    /// ECR records whose content CloudTrail left out for its size.
    pub omitted: u64,
    /// Allowed pulls by tag, within the lookback, whose digest could not be told.
    pub unresolved_pulls: u64,
    /// What could not be read.
    pub errors: Vec<InputError>,
}

impl Input {
    /// Whether something could not be read.
    pub fn is_faulty(&self) -> bool {
        !self.errors.is_empty() || self.undecodable > 0
    }
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct InputError {
    /// The file; `-` is standard input.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What was read of one registry account and region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceSpan {
    /// Account id of the registry.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// Time of the earliest event.
    pub first_time: Timestamp,
    /// Time of the latest event.
    pub last_time: Timestamp,
    /// Number of records.
    pub records: u64,
}

/// An image that runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RunningImage {
    /// Account id of the registry.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// Repository name.
    pub repository: String,
    /// Manifest digest; null for a waiting container whose tag the evidence does not know.
    pub digest: Option<String>,
    /// State of this digest itself.
    pub state: ImageState,
    /// How many containers run it.
    pub containers: u64,
}

impl CheckReport {
    /// The constant `apiVersion` and `kind`.
    pub const HEAD: (&'static str, &'static str) = (API_VERSION, "CheckReport");

    /// Whether there are findings that no exception covers.
    pub fn has_findings(&self) -> bool {
        self.findings.iter().any(|finding| !finding.excepted)
    }

    /// Whether the evidence does not know the state of an image that runs.
    pub fn has_unknown(&self) -> bool {
        self.images
            .iter()
            .any(|image| image.state == ImageState::Unknown)
    }
}
