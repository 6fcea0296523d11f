//! One repository: the containers that run from it, its evidence, the rules → findings.

use std::{collections::HashSet, sync::Arc};

use jiff::Timestamp;

use super::Rules;
use crate::{
    api::{Finding, ImageState},
    event::{Digest, Event, Platform, Pull, Reference, Repository},
};

/// A container that runs, or waits for its image, as the inventory knows it.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a> {
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Kind of the workload, for example `Deployment`.
    pub workload_kind: &'a str,
    /// Name of the workload.
    pub workload_name: &'a str,
    /// Pod name.
    pub pod: &'a str,
    /// Container name, or the image volume's.
    pub container: &'a str,
    /// The image text of the pod, which names an ECR repository.
    pub reference: &'a Reference,
    /// The digest in the status, which may be a manifest's, an index's or a config's; none while
    /// the image is being pulled.
    pub running: Option<&'a Digest>,
    /// `metadata.creationTimestamp` of the pod.
    pub created: Timestamp,
    /// `status.startTime` of the pod, else `metadata.creationTimestamp`.
    pub started: Timestamp,
    /// The node's operating system and architecture, where known.
    pub platform: Option<&'a Platform>,
}

/// The nodes of this cluster, and what their pulls taught.
#[derive(Clone, Debug, Default)]
pub struct ClusterNodes {
    /// EC2 instance ids of the cluster's nodes, now or remembered.
    pub instances: HashSet<Arc<str>>,
    /// Principal keys that a pull by one of these sessions has used.
    pub keys: HashSet<Arc<str>>,
}

/// What the evidence holds of one repository. Any order; each event once.
#[derive(Clone, Debug, Default)]
pub struct RepositoryEvidence {
    /// Everything but pulls.
    pub changes: Vec<Arc<Event>>,
    /// The pulls. Those that the rules expect may be left out, but not the ones that only a tag
    /// identifies, if unresolved pulls shall be counted.
    pub pulls: Vec<Pull>,
}

/// One running image and its state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageCount {
    /// The running digest; none for a waiting container whose tag the evidence does not know.
    pub digest: Option<Digest>,
    /// State of this digest itself.
    pub state: ImageState,
    /// How many containers run it.
    pub containers: usize,
}

/// The judgement on one repository.
#[derive(Clone, Debug, Default)]
pub struct RepositoryAssessment {
    /// The images that run, sorted by digest.
    pub images: Vec<ImageCount>,
    /// The findings, sorted as the report wants them.
    pub findings: Vec<Finding>,
    /// Successful pulls by tag, within the lookback, whose digest could not be told.
    pub unresolved_pulls: u64,
}

/// Judges one repository at `now`.
#[must_use]
pub fn assess(
    _repository: &Repository,
    _containers: &[Container<'_>],
    _evidence: &RepositoryEvidence,
    _nodes: &ClusterNodes,
    _rules: &Rules,
    _now: Timestamp,
) -> RepositoryAssessment {
    RepositoryAssessment::default()
}
