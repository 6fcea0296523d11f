//! One policy in one pass: what was assessed and read → what shall be published. Nothing is
//! written here.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use super::{assess::Cache, controller::Policy, policy::Compiled};
use crate::{
    api::{ContainerName, EcrAuditFinding, EcrAuditPolicyStatus, Finding, FindingType, ImageState},
    audit::ClusterNodes,
    event::{Digest, Repository},
    inventory::{Index, Inventory},
    ledger::{Ledger, LedgerError},
    report::{
        carry::Carry,
        evidence::{Evidence, PULLS, PlaceName, SourceHealth},
        judgement::{Facts, Fault, Unread, Verdict, conditions, invalid},
        metrics::{FindingSeries, PolicySeries, totals},
        objects::objects,
        status::{finding_totals, image_totals, source_totals},
        vocabulary::{ConditionType, Reason, Truth},
    },
    source::{Health, PollerKey},
};

/// How long after a pod started the pull of its image may still be on its way.
const DELIVERY: SignedDuration = SignedDuration::from_mins(15);

/// What the visit of a policy sees.
pub(super) struct Visit<'a> {
    pub ledger: &'a Ledger,
    pub inventory: &'a Inventory,
    pub nodes: &'a ClusterNodes,
    pub health: &'a [Arc<Health>],
    /// What of the operator itself does not work.
    pub fault: Option<&'a Fault>,
    pub leader_since: Option<Timestamp>,
    pub now: Timestamp,
}

/// What shall be published of a policy.
pub(super) struct Outcome {
    /// The finding objects; none when what runs is not known, and they stay as they are.
    pub objects: Option<Vec<EcrAuditFinding>>,
    pub status: EcrAuditPolicyStatus,
    pub series: PolicySeries,
}

/// The registries whose pulls were seen: the evidence is not blind to pulls there.
#[derive(Debug, Default)]
pub(super) struct PullsSeen(HashMap<PlaceName, bool>);

/// The regions of the images that run.
pub(super) fn regions(cache: &Cache) -> BTreeSet<String> {
    running(cache)
        .map(|repository| repository.region.to_string())
        .collect()
}

fn running(cache: &Cache) -> impl Iterator<Item = &Repository> {
    cache
        .iter()
        .filter(|(_, assessed)| assessed.runs)
        .map(|(repository, _)| repository)
}

impl Visit<'_> {
    pub(super) async fn judge(&self, policy: &Policy, seen: &mut PullsSeen) -> Outcome {
        let compiled = match &policy.compiled {
            Ok(compiled) => compiled,
            Err(fault) => return self.refuse(policy, fault),
        };
        let evidence = self.evidence(policy);
        let registries: BTreeSet<PlaceName> = running(&policy.cache).map(place).collect();
        let synced = self.inventory.synced();
        let mut faults = self.faults(policy);
        let mut blind = vec![];
        let mut unread = vec![];
        match self.look_up(&evidence, compiled, &registries, seen).await {
            Ok((not_seen, records)) => (blind, unread) = (not_seen, records),
            Err(error) if self.fault.is_none() => faults.push(Fault {
                reason: Reason::LedgerFailing,
                message: error.to_string(),
            }),
            Err(_) => {}
        }

        let findings = self.findings(policy, compiled, &evidence);
        let images = image_totals(states(&policy.cache, &findings));
        let facts = Facts {
            evidence: &evidence,
            findings: &findings,
            images: &images,
            registries: &registries,
            pulls_not_seen: &blind,
            unread: &unread,
            unresolved_pulls: policy
                .cache
                .values()
                .map(|assessed| assessed.assessment.unresolved_pulls)
                .sum(),
            nodes_without_session: self.inventory.index().nodes_without_session(),
            rules: &compiled.rules,
            faults: &faults,
            inventory_synced: synced,
            now: self.now,
        };
        let verdicts = facts.verdicts();
        let settling = self
            .leader_since
            .is_some_and(|since| self.now.duration_since(since) < evidence.patience());
        let (objects, surplus) = objects(&policy.object, &findings);
        let mut status = self.status(policy, &verdicts, settling);
        status.covered_since = facts.covered_since();
        status.sources = Some(source_totals(&evidence, compiled.derives_regions()));
        if synced {
            status.images = Some(images.clone());
            status.findings = Some(finding_totals(&findings, surplus));
        }
        let series = PolicySeries {
            images: status.images.clone(),
            findings: self.series(&objects),
            totals: totals(
                &findings,
                compiled.rules.judges_pulls(),
                compiled.rules.judges_pushes(),
            ),
            conditions: truths(&status),
        };
        Outcome {
            objects: synced.then_some(objects),
            status,
            series,
        }
    }

    /// A policy that cannot be judged: says why, and leaves everything else as it is.
    fn refuse(&self, policy: &Policy, fault: &Fault) -> Outcome {
        let verdicts = invalid(fault.reason, &fault.message);
        let status = self.status(policy, &verdicts, false);
        let series = PolicySeries {
            conditions: truths(&status),
            ..PolicySeries::default()
        };
        Outcome {
            objects: None,
            status,
            series,
        }
    }

    fn status(
        &self,
        policy: &Policy,
        verdicts: &[Verdict],
        settling: bool,
    ) -> EcrAuditPolicyStatus {
        let generation = policy.object.metadata.generation;
        let old = policy.object.status.clone().unwrap_or_default();
        EcrAuditPolicyStatus {
            observed_generation: generation,
            conditions: conditions(verdicts, &old.conditions, generation, settling, self.now),
            ..old
        }
    }

    fn faults(&self, policy: &Policy) -> Vec<Fault> {
        let mut faults: Vec<Fault> = self.fault.into_iter().cloned().collect();
        faults.extend(policy.write_fault.clone());
        for health in self.inventory.health() {
            match health.failure {
                Some(failure) if failure.reason == "Forbidden" => faults.push(Fault {
                    reason: Reason::Forbidden,
                    message: failure.to_string(),
                }),
                Some(failure) => faults.push(Fault {
                    reason: Reason::InventoryNotSynced,
                    message: failure.to_string(),
                }),
                None if !health.synced => faults.push(Fault {
                    reason: Reason::InventoryNotSynced,
                    message: format!(
                        "not every object of the kind {} is known yet",
                        health.kind.as_str()
                    ),
                }),
                None => {}
            }
        }
        faults
    }

    /// What the readers of this policy's sources have read.
    fn evidence(&self, policy: &Policy) -> Evidence {
        // A reader may serve several policies: of its places only those count that this one wants.
        let mut sources = Vec::new();
        // By reader: there may be thousands of these, and as many of those.
        let mut healths: HashMap<&PollerKey, Vec<&Arc<Health>>> = HashMap::new();
        for health in self.health {
            healths.entry(&health.key).or_default().push(health);
        }
        for (name, spec) in &policy.readers {
            let begun = sources.len();
            let of_reader = healths.get(&spec.key).into_iter().flatten().copied();
            let wanted = of_reader.filter(|health| match &health.account {
                Some(account) => spec.wants_account(account),
                None => true,
            });
            sources.extend(wanted.map(|health| SourceHealth {
                name: name.clone(),
                health: health.clone(),
            }));
            if sources.len() == begun {
                sources.push(SourceHealth {
                    name: name.clone(),
                    health: Arc::new(Health::new(spec)),
                });
            }
        }
        Evidence::new(sources)
    }

    /// What was found now, and what was found before and is not taken back.
    fn findings(&self, policy: &Policy, compiled: &Compiled, evidence: &Evidence) -> Vec<Finding> {
        let mut findings: Vec<Finding> = policy
            .cache
            .values()
            .flat_map(|assessed| assessed.assessment.findings.iter().cloned())
            .collect();
        if self.inventory.synced() {
            let published: Vec<&Finding> = policy
                .published
                .values()
                .filter_map(|published| Some(&published.spec.as_ref()?.finding))
                .collect();
            let index = RefCell::new(self.inventory.index());
            let carry = Carry {
                evidence,
                rules: &compiled.rules,
                nodes: self.nodes,
                now: self.now,
                runs: &|finding| runs(&index.borrow(), compiled, finding),
                state: &|finding| state(&policy.cache, finding),
            };
            carry.merge(&mut findings, &published);
        }
        findings.sort_by(Finding::report_order);
        findings
    }

    async fn look_up(
        &self,
        evidence: &Evidence,
        compiled: &Compiled,
        registries: &BTreeSet<PlaceName>,
        seen: &mut PullsSeen,
    ) -> Result<(Vec<PlaceName>, Vec<Unread>), LedgerError> {
        let mut blind = Vec::new();
        for registry in registries {
            let started = self.has_started(evidence, compiled, registry);
            if started && !seen.has(self.ledger, registry).await? {
                blind.push(registry.clone());
            }
        }
        let since = evidence
            .places()
            .filter_map(|(_, place)| place.run(&crate::report::evidence::CHANGES))
            .map(|run| run.start)
            .min();
        let mut unread = Vec::new();
        if let Some(since) = since {
            for count in self.ledger.unread_counts(since).await? {
                if evidence.place(&count.account, &count.region).is_some() {
                    unread.push(Unread {
                        place: (count.account, count.region),
                        undecodable: count.undecodable,
                        omitted: count.omitted,
                    });
                }
            }
        }
        Ok((blind, unread))
    }

    /// Whether a pod started from a registry while its pulls were read.
    fn has_started(
        &self,
        evidence: &Evidence,
        compiled: &Compiled,
        (account, region): &PlaceName,
    ) -> bool {
        let run = evidence
            .place(account, region)
            // While history is still to be read, the pull may be in what is missing.
            .filter(|place| !place.is_backfilling(&PULLS))
            .and_then(|place| place.run(&PULLS));
        let Some(run) = run else { return false };
        let index = self.inventory.index();
        index
            .repositories(&compiled.scope)
            .filter(|repository| *repository.account == **account && *repository.region == **region)
            .any(|repository| {
                let containers = index.containers(repository, &compiled.scope);
                containers.iter().any(|container| {
                    container.running.is_some()
                        && container.created >= run.start
                        && run
                            .end
                            .duration_since(container.created.max(container.started))
                            > DELIVERY
                })
            })
    }

    /// The worst findings that no exception covers, with what nodes report of their containers.
    fn series(&self, objects: &[EcrAuditFinding]) -> Vec<FindingSeries> {
        let index = self.inventory.index();
        objects
            .iter()
            .filter(|object| !object.spec.finding.excepted)
            .map(|object| {
                let finding = &object.spec.finding;
                let namespace = &finding.workload.namespace;
                let image_ids = finding.containers.iter().map(|container| {
                    index
                        .image_id(namespace, &container.pod, &container.container)
                        .unwrap_or_default()
                        .to_owned()
                });
                FindingSeries {
                    name: object.metadata.name.clone().unwrap_or_default(),
                    image_ids: image_ids.collect(),
                    finding: Arc::new(finding.clone()),
                }
            })
            .collect()
    }
}

impl PullsSeen {
    /// Whether the ledger has any pull from a registry.
    async fn has(&mut self, ledger: &Ledger, registry: &PlaceName) -> Result<bool, LedgerError> {
        if self.0.get(registry) == Some(&true) {
            return Ok(true);
        }
        let (account, region) = registry;
        let mut seen = false;
        for repository in ledger.repositories().await? {
            if *repository.account == **account
                && *repository.region == **region
                && !ledger.pullers(&repository).await?.is_empty()
            {
                seen = true;
                break;
            }
        }
        self.0.insert(registry.clone(), seen);
        Ok(seen)
    }
}

fn place(repository: &Repository) -> PlaceName {
    (
        repository.account.to_string(),
        repository.region.to_string(),
    )
}

fn repository(finding: &Finding) -> Repository {
    Repository {
        account: finding.image.account.as_str().into(),
        region: finding.image.region.as_str().into(),
        name: finding.image.repository.as_str().into(),
    }
}

/// The containers that still run what a finding is about: those of its workload with its
/// reference that run its digest, or were listed under it when its digest was known by a manifest
/// that the evidence may not hold now.
fn runs(index: &Index, compiled: &Compiled, finding: &Finding) -> Vec<ContainerName> {
    let mut names: Vec<ContainerName> = index
        .containers(&repository(finding), &compiled.scope)
        .into_iter()
        .filter(|container| {
            container.namespace == finding.workload.namespace
                && container.workload_kind == finding.workload.kind
                && container.workload_name == finding.workload.name
                && *container.reference.text == *finding.reference
        })
        .filter(|container| {
            let same_digest = match (container.running, &finding.image.digest) {
                (Some(running), Some(digest)) => running.as_str() == digest,
                _ => true,
            };
            same_digest
                || finding.containers.iter().any(|listed| {
                    listed.pod == container.pod && listed.container == container.container
                })
        })
        .map(|container| ContainerName {
            pod: container.pod.to_owned(),
            container: container.container.to_owned(),
        })
        .collect();
    names.sort();
    names
}

/// The state of a finding's image by the evidence alone.
fn state(cache: &Cache, finding: &Finding) -> ImageState {
    cache
        .get(&repository(finding))
        .and_then(|assessed| {
            assessed.assessment.images.iter().find(|image| {
                image.digest.as_ref().map(Digest::as_str) == finding.image.digest.as_deref()
            })
        })
        .map_or(ImageState::Unknown, |image| image.state)
}

/// The states of the running images; what evidence does not reach to is told by the findings that
/// were kept.
fn states(cache: &Cache, findings: &[Finding]) -> Vec<ImageState> {
    let mut gone: HashMap<(&str, &str, &str, &str), ImageState> = HashMap::new();
    for finding in findings {
        let state = match finding.finding_type {
            FindingType::ImageExpired => ImageState::Expired,
            FindingType::ImageDeleted => ImageState::Deleted,
            FindingType::ImageArchived => ImageState::Archived,
            _ => continue,
        };
        let cause = finding
            .cause
            .as_ref()
            .and_then(|cause| cause.digest.as_deref());
        if let Some(digest) = finding.image.digest.as_deref()
            && cause == Some(digest)
        {
            let image = &finding.image;
            gone.insert(
                (&image.account, &image.region, &image.repository, digest),
                state,
            );
        }
    }
    let mut counted = HashSet::new();
    cache
        .iter()
        .flat_map(|(repository, assessed)| {
            assessed
                .assessment
                .images
                .iter()
                .map(move |image| (repository, image))
        })
        .filter(|(repository, image)| counted.insert((*repository, image.digest.as_ref())))
        .map(|(repository, image)| {
            let digest = image.digest.as_ref().map_or("", Digest::as_str);
            let key = (
                &*repository.account,
                &*repository.region,
                &*repository.name,
                digest,
            );
            match (image.state, gone.get(&key)) {
                (ImageState::Unknown, Some(state)) => *state,
                (state, _) => state,
            }
        })
        .collect()
}

fn truths(status: &EcrAuditPolicyStatus) -> Vec<(ConditionType, Truth)> {
    status
        .conditions
        .iter()
        .filter_map(|condition| {
            let kind = ConditionType::ALL
                .into_iter()
                .find(|kind| kind.as_str() == condition.type_)?;
            let truth = Truth::ALL
                .into_iter()
                .find(|truth| truth.as_str() == condition.status)?;
            Some((kind, truth))
        })
        .collect()
}
