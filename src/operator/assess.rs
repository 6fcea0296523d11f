//! One repository's evidence out of the ledger, and the judgement over it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;

use crate::{
    audit::{ClusterNodes, RepositoryAssessment, RepositoryEvidence, Rules, assess},
    event::{Caller, Event, Interval, Repository, is_instance_id},
    inventory::{Index, Scope},
    ledger::{CallerId, Cursor, Ledger, LedgerError},
};

/// What the ledger holds of one repository, whoever asks.
pub(super) struct Loaded {
    changes: Vec<Arc<Event>>,
    pullers: Vec<(CallerId, Caller)>,
}

/// The judgement on one repository for one policy, with what is needed to know when to repeat it.
#[derive(Debug, Default)]
pub(super) struct Assessed {
    /// The judgement.
    pub assessment: RepositoryAssessment,
    /// Whether containers of the policy's scope run from it.
    pub runs: bool,
    /// When a pull or push leaves the lookback next.
    pub expires: Option<Timestamp>,
}

/// Reads what the ledger holds of a repository.
pub(super) async fn load(ledger: &Ledger, repository: &Repository) -> Result<Loaded, LedgerError> {
    Ok(Loaded {
        changes: ledger.changes(repository).await?,
        pullers: ledger.pullers(repository).await?,
    })
}

impl Loaded {
    /// The evidence that a policy's rules need: pulls of callers that they do not expect. Those of
    /// expected ones never leave the database.
    pub(super) async fn evidence(
        &self,
        ledger: &Ledger,
        repository: &Repository,
        rules: &Rules,
        nodes: &ClusterNodes,
        now: Timestamp,
    ) -> Result<RepositoryEvidence, LedgerError> {
        let unexpected: Vec<CallerId> = self
            .pullers
            .iter()
            .filter(|(_, caller)| rules.expects_puller(caller, nodes) == Some(false))
            .map(|(id, _)| *id)
            .collect();
        let pulls = if unexpected.is_empty() {
            vec![]
        } else {
            let within = Interval {
                start: rules.lookback_start(now),
                end: now,
            };
            ledger.pulls(repository, within, unexpected).await?
        };
        Ok(RepositoryEvidence {
            changes: self.changes.clone(),
            pulls,
        })
    }
}

/// Judges a repository for a policy.
pub(super) fn judge(
    index: &Index,
    scope: &Scope,
    repository: &Repository,
    evidence: &RepositoryEvidence,
    nodes: &ClusterNodes,
    rules: &Rules,
    now: Timestamp,
) -> Assessed {
    let containers = index.containers(repository, scope);
    if containers.is_empty() {
        return Assessed::default();
    }
    let assessment = assess(repository, &containers, evidence, nodes, rules, now);
    let expires = assessment
        .findings
        .iter()
        .filter(|finding| !finding.finding_type.is_removal())
        .filter_map(|finding| finding.first_time.checked_add(rules.lookback()).ok())
        .min();
    Assessed {
        assessment,
        runs: true,
        expires,
    }
}

/// What pulls have taught about the cluster's nodes, kept up to date with the ledger.
#[derive(Debug, Default)]
pub(super) struct Teacher {
    nodes: ClusterNodes,
    cursor: Cursor,
}

impl Teacher {
    /// The nodes and what they taught.
    pub(super) fn nodes(&self) -> &ClusterNodes {
        &self.nodes
    }

    /// Replaces the instance ids of the nodes; whether that changed anything.
    pub(super) fn set_instances(&mut self, instances: HashSet<Arc<str>>) -> bool {
        if instances == self.nodes.instances {
            return false;
        }
        self.nodes.instances = instances;
        // Everyone who pulled may be one of the nodes now.
        self.cursor = Cursor::default();
        true
    }

    /// Learns from callers that the ledger got since; whether a key was new.
    pub(super) async fn learn(&mut self, ledger: &Ledger) -> Result<bool, LedgerError> {
        let mut is_news = false;
        for (_, caller) in ledger.new_callers(&mut self.cursor).await? {
            let is_node = caller.session.as_ref().is_some_and(|session| {
                is_instance_id(session) && self.nodes.instances.contains(session)
            });
            if is_node {
                is_news |= self.nodes.keys.insert(caller.principal.key.clone());
            }
        }
        Ok(is_news)
    }
}

/// Assessments of one policy, by repository.
pub(super) type Cache = HashMap<Repository, Assessed>;
