//! Which readers of sources there shall be.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use super::Controller;
use crate::{
    ledger::Backend,
    operator::visit,
    source::{Health, PollerKey, PollerSpec, SourceKind},
};

impl Controller {
    /// Makes the readers those that the policies ask for.
    pub(super) fn read_sources(&mut self) {
        let mut wanted = Vec::new();
        let synced = self.inventory.synced();
        for policy in self.policies.values_mut() {
            if let Ok(compiled) = &policy.compiled {
                let regions = visit::regions(&policy.cache);
                // Regions that are not known yet are no reason to stop reading.
                if synced || !compiled.derives_regions() {
                    policy.readers = compiled.readers(&regions);
                }
                wanted.extend(policy.readers.iter().map(|(_, spec)| spec.clone()));
            }
        }
        self.want(wanted);
    }

    /// The health that was taken before, of the readers that there are now; with that of those that
    /// have begun since.
    pub(super) fn with_new_readers(&self, before: Vec<Arc<Health>>) -> Vec<Arc<Health>> {
        let now = self.pollers.health();
        let keys = |of: &[Arc<Health>]| -> HashSet<PollerKey> {
            of.iter().map(|health| health.key.clone()).collect()
        };
        let (running, known) = (keys(&now), keys(&before));
        let begun = now.into_iter().filter(|one| !known.contains(&one.key));
        let kept = before.into_iter().filter(|one| running.contains(&one.key));
        kept.chain(begun).collect()
    }

    /// The readers that every replica runs: those of queues, which hand each message to one of
    /// them, where the replicas share the ledger.
    pub(super) fn shared_readers(&self) -> Vec<PollerSpec> {
        if self.ledger.backend() == Backend::Sqlite {
            return vec![];
        }
        let compiled = self
            .policies
            .values()
            .map(|policy| policy.compiled.as_ref());
        compiled
            .filter_map(Result::ok)
            .flat_map(|compiled| compiled.readers(&BTreeSet::new()))
            .map(|(_, spec)| spec)
            .filter(|spec| spec.key.kind() == SourceKind::Sqs)
            .collect()
    }

    pub(super) fn want(&mut self, wanted: Vec<PollerSpec>) {
        if wanted != self.wanted {
            self.wanted.clone_from(&wanted);
            self.pollers.set(wanted);
        }
    }
}
