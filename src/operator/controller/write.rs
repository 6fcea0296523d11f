//! Publishing what a pass brought: findings, Events and status where they differ, metrics, the page.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::{Controller, Policy};
use crate::{
    operator::{
        publish::WriteError,
        visit::{Outcome, Visit},
    },
    report::{
        judgement::Fault,
        metrics::PolicySeries,
        page::{PolicyPage, Snapshot},
        sentence::sentence,
        status::is_due,
    },
    source::{Health, PollerKey},
};

/// Failed writes that are logged until everything was written.
const TOLD: usize = 20;
/// How long a new leader waits for the inventory before it says that it is missing.
const INVENTORY_PATIENCE: SignedDuration = SignedDuration::from_secs(10);

impl Controller {
    /// Reads the finding objects that there are; those of no policy are removed.
    pub(super) async fn read_published(&mut self, now: Timestamp) -> bool {
        if !self.unread {
            return true;
        }
        let mut all = match self.publisher.published().await {
            Ok(all) => all,
            Err(error) => {
                self.failed(&error);
                for policy in self.policies.values_mut() {
                    policy.write_fault = Some(fault(&error));
                }
                return false;
            }
        };
        for policy in self.policies.values_mut() {
            let uid = policy.object.metadata.uid.clone().unwrap_or_default();
            policy.published = all.remove(&uid).unwrap_or_default();
            policy.write_fault = None;
        }
        self.unread = false;
        self.read_at = Some(now);
        for (_, mut orphans) in all {
            let (_, written, error) = self.publisher.findings(vec![], &mut orphans).await;
            self.wrote(written);
            if let Some(error) = error {
                self.failed(&error);
                self.unread = true;
            }
        }
        !self.unread
    }

    /// `health` is what was covered before the facts were judged.
    pub(super) async fn publish(
        &mut self,
        fault: Option<Fault>,
        health: Vec<Arc<Health>>,
        now: Timestamp,
    ) -> bool {
        let synced = self.inventory.synced();
        let waited = self
            .leader_since
            .is_some_and(|since| now.duration_since(since) > INVENTORY_PATIENCE);
        let mut whole = true;
        let mut series: BTreeMap<String, PolicySeries> = BTreeMap::new();
        let mut pages = Vec::new();
        let told = self.inventory.health().iter().any(|h| h.failure.is_some());
        if synced || waited || told {
            for name in self.policies.keys().cloned().collect::<Vec<_>>() {
                // Taken out while it is worked on, since everything else is needed, too.
                let Some(mut policy) = self.policies.remove(&name) else {
                    continue;
                };
                let visit = Visit {
                    ledger: &self.ledger,
                    inventory: &self.inventory,
                    nodes: self.teacher.nodes(),
                    health: &health,
                    fault: fault.as_ref(),
                    leader_since: self.leader_since,
                    now,
                };
                let outcome = visit.judge(&policy, &mut self.pulls_seen).await;
                series.insert(name.clone(), outcome.series.clone());
                if self.board.is_shown() {
                    pages.push(page(&policy, &outcome));
                }
                whole &= self.write(&mut policy, outcome, now).await;
                self.policies.insert(name, policy);
            }
        } else {
            whole = false;
        }
        self.metrics.process(|process| process.leader = true);
        self.metrics.set_policies(series);
        self.metrics
            .set_sources(health.clone(), self.pollers.counters());
        if self.board.is_shown() && (synced || waited || told) {
            self.board.set(Snapshot {
                time: now,
                policies: pages,
                sources: health,
                names: self.source_names(),
            });
        }
        whole
    }

    /// Which sources of which policies each reader serves.
    fn source_names(&self) -> HashMap<PollerKey, Vec<String>> {
        let mut names: HashMap<PollerKey, Vec<String>> = HashMap::new();
        for (policy, known) in &self.policies {
            for (source, spec) in &known.readers {
                let served = names.entry(spec.key.clone()).or_default();
                served.push(format!("{policy}/{source}"));
            }
        }
        names
    }

    /// Writes what differs from what is there.
    async fn write(&mut self, policy: &mut Policy, outcome: Outcome, now: Timestamp) -> bool {
        let Outcome {
            objects,
            mut status,
            series: _,
        } = outcome;
        let mut error = None;
        if let (Some(objects), false) = (objects, self.unread) {
            let (created, written, failed) = self
                .publisher
                .findings(objects, &mut policy.published)
                .await;
            self.wrote(written);
            error = failed;
            for object in &created {
                tracing::info!(
                    policy = %policy.object.name_any(),
                    finding = %object.name_any(),
                    "{}", sentence(&object.spec.finding)
                );
            }
            policy.untold.extend(created);
            let untold = &mut policy.untold;
            if let Err(failed) = self.publisher.events(&policy.object, untold).await {
                self.failed(&failed);
                error = error.or(Some(failed));
            }
        }
        let mut whole = error.is_none();
        if let Some(error) = error {
            self.failed(&error);
            match error {
                WriteError::Conflict => self.unread = true,
                WriteError::NotLeader => return false,
                error => policy.write_fault = Some(fault(&error)),
            }
        } else if !self.unread && policy.write_fault.take().is_some() {
            // Told at the next visit, which is at once.
            whole = false;
        }
        let due = is_due(
            &status,
            policy.object.status.as_ref(),
            policy.written_at,
            now,
        );
        if due {
            match self.publisher.status(&policy.object, &status).await {
                Ok(version) => {
                    self.wrote(1);
                    policy.object.metadata.resource_version = version;
                    policy.object.status = Some(std::mem::take(&mut status));
                    policy.written_at = Some(now);
                }
                Err(error) => {
                    // After a conflict the watch brings the object as it is now.
                    self.failed(&error);
                    whole = false;
                }
            }
        }
        whole
    }

    fn wrote(&self, writes: usize) {
        let writes = u64::try_from(writes).unwrap_or(u64::MAX);
        self.metrics.process(|process| process.writes += writes);
    }

    fn failed(&mut self, error: &WriteError) {
        let category = error.category();
        match error {
            WriteError::Conflict | WriteError::NotLeader => {
                tracing::debug!(%error, "a write was not taken");
            }
            WriteError::Forbidden(_) | WriteError::Api(_) => {
                // The same one again and again is told once.
                if self.told.len() < TOLD && self.told.insert(error.to_string()) {
                    tracing::warn!(%error, reason = category, "a write was not taken");
                }
            }
        }
        self.metrics
            .process(|process| *process.write_errors.entry(category).or_default() += 1);
    }
}

/// What the status page shows of a policy: the findings that there shall be or, when they stay as
/// they are, that there are.
fn page(policy: &Policy, outcome: &Outcome) -> PolicyPage {
    let name = policy.object.name_any();
    let status = outcome.status.clone();
    match &outcome.objects {
        Some(objects) => PolicyPage::new(
            name,
            status,
            objects
                .iter()
                .map(|object| (object.metadata.name.as_deref(), &object.spec)),
        ),
        None => PolicyPage::new(
            name,
            status,
            policy
                .published
                .iter()
                .filter_map(|((_, name), old)| Some((Some(name.as_str()), old.spec.as_ref()?))),
        ),
    }
}

fn fault(error: &WriteError) -> Fault {
    Fault {
        reason: error.reason(),
        message: error.to_string(),
    }
}
