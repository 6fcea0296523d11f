//! One repository: the containers that run from it, its evidence, the rules → findings.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;

use super::{History, Removal, Rules, removal, rules::ExceptionSet, traffic};
use crate::{
    api::{
        Cause, CauseRule, ContainerName, Finding, FindingType, Image, ImageState, Impact,
        PrincipalName, Workload,
    },
    event::{Caller, Digest, Event, Platform, Pull, Reference, Repository},
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

/// The containers of one workload that run one image by one reference: what a finding is about.
pub(super) struct Group<'a> {
    /// The running digest, of a manifest where the node reports a config's.
    pub(super) digest: Option<Digest>,
    /// At least one.
    pub(super) containers: Vec<Container<'a>>,
}

impl Group<'_> {
    pub(super) fn first(&self) -> &Container<'_> {
        &self.containers[0]
    }
}

/// Judges one repository at `now`: `containers` are those whose reference names it, which the
/// policy selects.
pub fn assess(
    repository: &Repository,
    containers: &[Container<'_>],
    evidence: &RepositoryEvidence,
    nodes: &ClusterNodes,
    rules: &Rules,
    now: Timestamp,
) -> RepositoryAssessment {
    let past = past(evidence, now);
    let (history, groups) = history_of(containers, &past);

    let mut drafts = removal::drafts(&groups, &history, rules);
    let traffic = traffic::drafts(&groups, &history, &past, &evidence.pulls, nodes, rules, now);
    drafts.extend(traffic.drafts);
    let mut findings: Vec<Finding> = drafts
        .into_iter()
        .map(|draft| {
            let exceptions = draft.exceptions;
            let mut finding = draft.finding(repository, &groups);
            finding.excepted = rules.excepts(&finding, exceptions, now);
            finding
        })
        .collect();
    findings.sort_by(Finding::report_order);

    let mut images: BTreeMap<Option<&Digest>, usize> = BTreeMap::new();
    for group in &groups {
        *images.entry(group.digest.as_ref()).or_default() += group.containers.len();
    }
    let images = images.into_iter().map(|(digest, containers)| ImageCount {
        digest: digest.cloned(),
        state: digest.map_or(ImageState::Unknown, |digest| history.state(digest)),
        containers,
    });
    RepositoryAssessment {
        images: images.collect(),
        findings,
        unresolved_pulls: traffic.unresolved_pulls,
    }
}

/// The changes that have happened at `now`.
pub(super) fn past(evidence: &RepositoryEvidence, now: Timestamp) -> Vec<Arc<Event>> {
    let changes = evidence.changes.iter();
    changes.filter(|event| event.time <= now).cloned().collect()
}

/// Folds a repository's past, and groups the containers by what it says that they run.
pub(super) fn history_of<'a>(
    containers: &[Container<'a>],
    past: &[Arc<Event>],
) -> (History, Vec<Group<'a>>) {
    let oldest = oldest_pods(containers);
    let history = History::fold(past, |digest, config| {
        let of_config = config.and_then(|config| oldest.get(config));
        oldest
            .get(digest)
            .into_iter()
            .chain(of_config)
            .min()
            .copied()
    });
    let groups = groups(containers, &history);
    (history, groups)
}

/// When the oldest pod was created that runs each digest, by status or by reference.
fn oldest_pods<'a>(containers: &[Container<'a>]) -> HashMap<&'a Digest, Timestamp> {
    let mut oldest = HashMap::new();
    for container in containers {
        // A waiting container proves nothing of what its reference names.
        let Some(running) = container.running else {
            continue;
        };
        for digest in [Some(running), container.reference.digest.as_ref()]
            .into_iter()
            .flatten()
        {
            let created = oldest.entry(digest).or_insert(container.created);
            *created = container.created.min(*created);
        }
    }
    oldest
}

fn groups<'a>(containers: &[Container<'a>], history: &History) -> Vec<Group<'a>> {
    let mut groups: BTreeMap<_, Vec<Container<'a>>> = BTreeMap::new();
    for container in containers {
        let reference = container.reference;
        let tag = reference.tag.as_deref();
        let digest = match (container.running, &reference.digest, tag) {
            (Some(running), _, _) => {
                Some(history.manifest_of(running, reference, container.started))
            }
            (None, Some(digest), _) => Some(digest.clone()),
            (None, None, Some(tag)) => history.tag_last_named(tag),
            (None, None, None) => None,
        };
        let workload = (
            container.namespace,
            container.workload_kind,
            container.workload_name,
        );
        groups
            .entry((workload, &*reference.text, digest))
            .or_default()
            .push(*container);
    }
    let groups = groups.into_iter();
    groups
        .map(|((_, _, digest), containers)| Group { digest, containers })
        .collect()
}

/// A finding before its names are written out.
pub(super) struct Draft {
    pub(super) finding_type: FindingType,
    pub(super) impact: Option<Impact>,
    pub(super) inferred: bool,
    /// Position in the groups.
    pub(super) group: usize,
    /// Positions in the group's containers; empty: all of them.
    pub(super) containers: BTreeSet<usize>,
    pub(super) cause: Option<Removal>,
    pub(super) caller: Option<Arc<Caller>>,
    pub(super) events: Events,
    pub(super) exceptions: ExceptionSet,
}

/// Events, counted: only the latest are kept.
#[derive(Clone, Debug)]
pub(super) struct Events {
    count: i64,
    first: Timestamp,
    /// Latest first.
    latest: Vec<(Timestamp, Arc<str>)>,
}

impl Events {
    const KEPT: usize = 10;

    pub(super) fn one(time: Timestamp, id: &Arc<str>) -> Self {
        Self {
            count: 1,
            first: time,
            latest: vec![(time, id.clone())],
        }
    }

    /// Adds an event that is not among them; whether it is the latest now.
    pub(super) fn add(&mut self, time: Timestamp, id: &Arc<str>) -> bool {
        self.count += 1;
        self.first = self.first.min(time);
        let at = self.latest.partition_point(|(t, i)| (*t, i) > (time, id));
        if at < Self::KEPT {
            self.latest.insert(at, (time, id.clone()));
            self.latest.truncate(Self::KEPT);
        }
        at == 0
    }

    /// Whether an event is among the latest.
    pub(super) fn holds(&self, id: &str) -> bool {
        self.latest.iter().any(|(_, known)| **known == *id)
    }
}

impl Draft {
    fn finding(self, repository: &Repository, groups: &[Group<'_>]) -> Finding {
        let group = &groups[self.group];
        let first = group.first();
        let concerned = |i: &usize| self.containers.is_empty() || self.containers.contains(i);
        let mut containers: Vec<ContainerName> = (0..group.containers.len())
            .filter(concerned)
            .map(|i| ContainerName {
                pod: group.containers[i].pod.to_owned(),
                container: group.containers[i].container.to_owned(),
            })
            .collect();
        containers.sort();
        containers.dedup();
        let last_time = self
            .events
            .latest
            .first()
            .map_or(self.events.first, |(time, _)| *time);
        Finding {
            finding_type: self.finding_type,
            impact: self.impact,
            excepted: false,
            inferred: self.inferred,
            image: Image {
                account: repository.account.to_string(),
                region: repository.region.to_string(),
                repository: repository.name.to_string(),
                digest: group.digest.as_ref().map(ToString::to_string),
            },
            reference: first.reference.text.to_string(),
            workload: Workload {
                namespace: first.namespace.to_owned(),
                kind: first.workload_kind.to_owned(),
                name: first.workload_name.to_owned(),
            },
            containers,
            cause: self.cause.map(|removal| Cause {
                event_name: removal.event.name.to_string(),
                digest: removal.digest.map(|digest| digest.to_string()),
                rule: removal.rule.map(|rule| CauseRule {
                    priority: rule.priority,
                    description: rule.description.map(|text| text.to_string()),
                }),
            }),
            principal: self.caller.map(|caller| PrincipalName {
                key: caller.principal.key.to_string(),
                principal_type: caller.principal.kind.as_deref().map(ToOwned::to_owned),
                account_id: caller.principal.account.as_deref().map(ToOwned::to_owned),
                session: caller.session.as_deref().map(ToOwned::to_owned),
            }),
            count: self.events.count,
            first_time: self.events.first,
            last_time,
            event_ids: self
                .events
                .latest
                .iter()
                .map(|(_, id)| id.to_string())
                .collect(),
        }
    }
}
