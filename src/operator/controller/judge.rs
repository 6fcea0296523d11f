//! Which repositories have to be judged anew, and judging them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Instant,
};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::ObjectMeta};

use super::Controller;
use crate::{
    event::Repository,
    ledger::LedgerError,
    operator::assess::{judge, load},
};

/// How often the ledger is asked what other processes have brought.
const HEAR: SignedDuration = SignedDuration::from_secs(5);

impl Controller {
    /// Judges what has to be judged anew.
    pub(super) async fn assess(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        self.hear(now).await?;
        self.learn_nodes(now).await?;
        let today = now.to_zoned(TimeZone::UTC).date();
        if self.judged_on.replace(today) != Some(today) {
            // Exceptions end with the day.
            self.all_dirty = true;
        }
        let due = self.due(now);
        let mut assessments = 0;
        let started = Instant::now();
        for (repository, names) in &due {
            let loaded = load(&self.ledger, repository).await?;
            for name in names {
                let Some(policy) = self.policies.get_mut(name) else {
                    continue;
                };
                let Ok(compiled) = &policy.compiled else {
                    continue;
                };
                let nodes = self.teacher.nodes();
                let evidence = loaded
                    .evidence(&self.ledger, repository, &compiled.rules, nodes, now)
                    .await?;
                let assessed = judge(
                    &self.inventory.index(),
                    &compiled.scope,
                    repository,
                    &evidence,
                    nodes,
                    &compiled.rules,
                    now,
                );
                policy.cache.insert(repository.clone(), assessed);
                assessments += 1;
            }
            tokio::task::yield_now().await;
        }
        for policy in self.policies.values_mut() {
            policy.stale = false;
        }
        self.all_dirty = false;
        self.dirty.clear();
        if assessments > 0 {
            self.metrics.assessments(assessments, started.elapsed());
        }
        Ok(())
    }

    /// Which repositories have to be judged, for which policies. Forgets what does not run.
    fn due(&mut self, now: Timestamp) -> BTreeMap<Repository, Vec<String>> {
        let index = self.inventory.index();
        let mut due: BTreeMap<Repository, Vec<String>> = BTreeMap::new();
        for (name, policy) in &mut self.policies {
            let Ok(compiled) = &policy.compiled else {
                continue;
            };
            let running: HashSet<&Repository> = index.repositories(&compiled.scope).collect();
            policy
                .cache
                .retain(|repository, _| running.contains(repository));
            for repository in running {
                let is_current = !self.all_dirty
                    && !policy.stale
                    && !self.dirty.contains(repository)
                    && policy.cache.get(repository).is_some_and(|assessed| {
                        assessed.expires.is_none_or(|expires| expires >= now)
                    });
                if !is_current {
                    due.entry(repository.clone())
                        .or_default()
                        .push(name.clone());
                }
            }
        }
        due
    }

    /// What other processes have brought since.
    async fn hear(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        if self
            .heard_at
            .is_some_and(|at| now.duration_since(at).abs() < HEAR)
        {
            return Ok(());
        }
        self.heard_at = Some(now);
        let touched = self.ledger.touched().await?;
        for (repository, count) in &touched {
            if self.touched.get(repository) != Some(count) {
                self.dirty.insert(repository.clone());
                self.new_facts = true;
            }
        }
        self.touched = touched;
        Ok(())
    }

    async fn learn_nodes(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let mut is_news = false;
        if !self.nodes_known {
            let cluster = self.cluster().await;
            let running = self.inventory.index().instances();
            let ids: Vec<Arc<str>> = running.iter().cloned().collect();
            self.ledger.remember_nodes(&cluster, &ids, now).await?;
            let mut instances = self.ledger.nodes(&cluster).await?;
            instances.extend(running);
            is_news |= self.teacher.set_instances(instances);
            self.nodes_known = true;
        }
        if self.new_facts || is_news {
            is_news |= self.teacher.learn(&self.ledger).await?;
            self.new_facts = false;
        }
        if is_news {
            for policy in self.policies.values_mut() {
                policy.stale |= policy
                    .compiled
                    .as_ref()
                    .is_ok_and(|compiled| compiled.rules.expects_cluster_nodes());
            }
        }
        Ok(())
    }

    /// What tells this cluster from others that share the ledger: the uid of `kube-system`.
    async fn cluster(&mut self) -> String {
        if let Some(cluster) = &self.cluster {
            return cluster.clone();
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        match api.get_metadata("kube-system").await {
            Ok(namespace) => {
                let ObjectMeta { uid, .. } = namespace.metadata;
                let uid = uid.unwrap_or_default();
                self.cluster = Some(uid.clone());
                uid
            }
            Err(error) => {
                tracing::warn!(%error, "cannot get the namespace kube-system, whose uid names the cluster");
                String::new()
            }
        }
    }
}
